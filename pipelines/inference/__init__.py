"""The steps of stage `infer`, by way."""
