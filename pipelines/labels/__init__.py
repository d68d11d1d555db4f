"""Kinds of labels: how they are read, what they say of an item, and how they are written back."""
