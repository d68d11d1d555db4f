"""Several classes an item: which are said, which are ruled out, which nobody looked for."""
