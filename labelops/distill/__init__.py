"""Teaching a student: losses, whom to trust, and what to ask."""
