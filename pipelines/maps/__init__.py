"""Label maps: in columns, as evidence, as sets of classes."""
