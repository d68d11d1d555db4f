"""Training on what a teacher says: losses, soft labels as losses need them, trust, and mixing."""
