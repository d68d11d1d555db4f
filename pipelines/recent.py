"""Narrow columns that were read a moment ago: the steps of a stage ask for the same ones in turn.

For shards of a few thousand items, opening a file costs more than what is read from it. Files are
known by the hash of their content, so what is remembered cannot be out of date.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import pyarrow as pa

LIMIT_BYTES = 1 << 26
"""At most so much is remembered in a process, whatever the size of the data set."""


class Recent:
    """Columns by file, the longest unused file forgotten first.

    Parameters
    ----------
    limit_bytes
        What all that is remembered may take.
    """

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self._files: OrderedDict[str, dict[str, pa.ChunkedArray]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, digest: str, names: Sequence[str]) -> pa.Table | None:
        """Return columns of a file, if all of them are remembered."""
        with self._lock:
            known = self._files.get(digest)
            if known is None or not all(name in known for name in names):
                return None
            self._files.move_to_end(digest)
            return pa.table([known[name] for name in names], names=list(names))

    def put(self, digest: str, table: pa.Table) -> None:
        """Remember columns of a file."""
        if table.nbytes > self.limit_bytes // 2:
            return
        with self._lock:
            known = self._files.setdefault(digest, {})
            self._files.move_to_end(digest)
            for name, column in zip(table.column_names, table.columns, strict=True):
                if name not in known:
                    known[name] = column
                    self.n_bytes += column.nbytes
            while self.n_bytes > self.limit_bytes:
                _, dropped = self._files.popitem(last=False)
                self.n_bytes -= sum(column.nbytes for column in dropped.values())
