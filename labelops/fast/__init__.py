"""Faster twins of plain definitions: compiled loops and nearest-neighbour indices."""
