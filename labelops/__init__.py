"""Mathematics of label quality: arrays in, arrays out."""

__version__ = "0.1.0"
