"""Students: what they are taught, how they are trained and compared, and what they leave."""
