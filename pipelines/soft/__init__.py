"""Soft labels of views in Parquet: columns, what they are of, and fewer of them."""
