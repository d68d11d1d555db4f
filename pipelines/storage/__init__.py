"""Foreign files: which there are, what their footers say, and whether they are still the same."""
