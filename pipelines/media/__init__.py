"""Pictures, and the files of models and programs."""
