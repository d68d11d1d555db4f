"""Errors that a user can act on.

Every message says who · what was expected · what came · where · the remedy. The command line
prints the message alone; a stack trace is never the only answer.
"""


class LabelopsError(Exception):
    """Base of every error that names its remedy."""


class DataError(LabelopsError):
    """The data set as a whole cannot be worked on; nothing was started."""


class RecipeError(LabelopsError):
    """A recipe or one of its settings is wrong."""


class RunError(LabelopsError):
    """A run cannot begin, or cannot go on."""


class CorruptShardError(LabelopsError):
    """A file differs from what was committed."""


class SourceChangedError(DataError):
    """A file of the source is not what it was when the run began."""


class LockedError(RunError):
    """Another run is at work in the same folder."""
