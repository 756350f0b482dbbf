"""Hostile files and requests with seeds, for live servers: see `python -m support.fuzz --help`."""
