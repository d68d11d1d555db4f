"""From proposals to decisions: gate, limits, log, and what a product takes from it."""
