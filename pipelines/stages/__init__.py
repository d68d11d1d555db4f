"""Stages, one file each; listed in `pipelines.registry`."""
