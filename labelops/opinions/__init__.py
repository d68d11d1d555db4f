"""Several opinions of the same items, and one that is made of them."""
