"""What the report says of single stages; one file each, one line in `pipelines.registry.PARTS`."""
