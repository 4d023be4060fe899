"""TCP proxies in front of a server: one counts round trips, one adds the delay of a network."""
