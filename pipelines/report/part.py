"""What a part of the report is: it reads what one stage left, and says what is to be said of it."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Context
from pipelines.report.look import Reader
from pipelines.report.model import Section
from pipelines.report.select import Place
from pipelines.storage.frame import Frame


class Part:
    """What the report says of one stage; a part does of this what it needs.

    All parts look through every shard together; then what they want to show is looked up.

    Parameters
    ----------
    run
        The finished run.
    ctx
        What the stage may know, with its results.
    """

    reads: Sequence[str] = ()
    """Columns, or folders, that it looks through; it does not where a run lacks one of them."""
    shows: Sequence[str] = ()
    """Further columns that it wants of the items it shows."""

    def __init__(self, run: Reader, ctx: Context) -> None:
        self.run = run
        self.limits = run.limits
        self.ctx = ctx

    def scan(self, frame: Frame) -> None:
        """Look through a shard."""

    def places(self) -> Iterable[Place]:
        """Return where the items are that it shows."""
        return ()

    def sections(self) -> Iterable[Section]:
        """Return what it says, once its items are looked up."""
        return ()


def flags(frame: Frame, column: str) -> np.ndarray:
    """Return the rows of which a column is true."""
    values = frame[column].fill_null(False).to_numpy(zero_copy_only=False)
    return np.flatnonzero(np.asarray(values, bool))


def floats(frame: Frame, column: str) -> np.ndarray:
    """Return a column of floats, NaN where it is null."""
    values = frame[column].cast(pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)
