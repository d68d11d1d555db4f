"""Labels that are there only in part: positives among unlabelled items, and sets of candidates."""
