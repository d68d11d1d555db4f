"""Labels from totals: what is known of the items of a bag when only its counts are known."""
