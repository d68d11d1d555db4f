"""Confident learning: which labels are probably wrong, how many, and what is taken for what."""
