"""Confident learning: which labels are probably wrong, how many in all, and what is taken for what."""
