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


class UnforeseenError(RunError):
    """An error that no check of ours raised, with where it happened; its cause says the rest."""


class LinkError(RunError):
    """A symbolic link, or something else that no run makes, lies in a run folder."""

    def __init__(self, message: str, name: str) -> None:
        super().__init__(message)
        self.name = name

    def __reduce__(self) -> tuple[type["LinkError"], tuple[str, str]]:
        # Workers send it home; exceptions of more than a message need help with that.
        return type(self), (str(self), self.name)


class CorruptShardError(LabelopsError):
    """A file differs from what was committed."""


class SourceChangedError(DataError):
    """A file of the source is not what it was when the run began."""


class LockedError(RunError):
    """Another run is at work in the same folder."""


class AddressError(RunError):
    """An address (of data, a run, a file) cannot be meant as it is written."""


class StorageTrouble(OSError):
    """A storage does not answer, or fails; it may be gone in a moment, so it is tried again."""

    def __str__(self) -> str:
        return str(self.strerror)


class StorageError(RunError):
    """A storage refuses: no credentials, no such bucket, no permission, no package for it."""


class OtherCodeError(RunError):
    """A worker has other code than the run that it works for."""


def remake(uri: str, stage: str) -> str:
    """Return how a damaged stage is made again."""
    return (
        f"Restore the file, or delete the folder {uri}/{stage} and give the command of the run "
        f"again (labelops resume {uri}): the same bytes are made again"
    )
