"""Soft labels in few bytes: how they are encoded, what that costs, and how they are read back."""
