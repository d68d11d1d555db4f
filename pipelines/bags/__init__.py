"""Bags: groups of items of which only the totals are known."""
