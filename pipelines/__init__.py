"""Shards: what a stage reads and writes, and in which order."""
