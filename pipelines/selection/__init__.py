"""The first so many of all items, over any number of shards, exactly."""
