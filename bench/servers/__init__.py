"""The servers of one run, which are gone afterwards with their data."""
