"""What was read or written a moment ago: the steps of a run ask for the same columns in turn.

For shards of a few thousand items, opening a file costs more than what is read from it. Files are
known by the hash of their content, so what is remembered cannot be out of date; whoever did not
write or read a file himself (another worker, a resumed run, the report) reads it, and verifies it.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import pyarrow as pa

LIMIT_BYTES = 1 << 26
"""At most so much is remembered in a process, whatever the size of the data set."""


SMALL_BYTES = 1 << 17
"""Files up to this size are remembered whole; of others only narrow columns that were read."""


class Recent:
    """Columns by file, up to some bytes in all; the longest unused file is forgotten first."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.n_bytes = 0
        self._files: OrderedDict[str, pa.Table] = OrderedDict()
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._files.clear()
            self.n_bytes = 0

    def get(self, digest: str, names: Sequence[str] | None = None) -> pa.Table | None:
        """Return columns of a file (all that were put if none are named), if remembered."""
        with self._lock:
            known = self._files.get(digest)
            if known is None:
                return None
            if names is None:
                table = known
            elif set(names).issubset(known.schema.names):
                table = known.select(list(names))
            else:
                return None
            self._files.move_to_end(digest)
            return table

    def put(self, digest: str, table: pa.Table) -> None:
        """Remember columns of a file."""
        # What its buffers hold in all counts: a slice keeps the whole table that it was cut from.
        if table.get_total_buffer_size() > self.limit_bytes // 2:
            return
        with self._lock:
            known = self._files.pop(digest, None)
            if known is not None:
                self.n_bytes -= known.get_total_buffer_size()
                for field in known.schema:
                    if field.name not in table.schema.names:
                        table = table.append_column(field, known.column(field.name))
            self._files[digest] = table
            self.n_bytes += table.get_total_buffer_size()
            while self.n_bytes > self.limit_bytes:
                _, dropped = self._files.popitem(last=False)
                self.n_bytes -= dropped.get_total_buffer_size()
