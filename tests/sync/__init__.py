"""Watched rows and their public keys, on real servers."""
