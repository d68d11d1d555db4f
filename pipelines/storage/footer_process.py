"""The process that decodes footers for `pipelines.storage.footers`; started by path.

Reads frames of a length and a footer from standard input, and writes a line of JSON for each as
soon as it is decoded, so that whoever started it can tell of which one it died.
"""

import base64
import contextlib
import json
import resource
import sys
from typing import Any

import pyarrow as pa
import pyarrow._parquet as parquet


def describe(footer: bytes) -> dict[str, Any]:
    """Return what a footer says; do with it all that is done with footers later."""
    reader = parquet.ParquetReader()
    # A file of nothing but a footer: pages are not looked at here.
    reader.open(pa.BufferReader(b"PAR1" + footer), use_memory_map=False)
    metadata, schema = reader.metadata, reader.schema_arrow
    rows = 0
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        rows += group.num_rows
        for c in range(group.num_columns):
            chunk = group.column(c)
            # Of an encrypted column this ends the process.
            if chunk.total_compressed_size < 0 or chunk.num_values < 0:
                raise ValueError(f"column {chunk.path_in_schema!r} has a negative size")
    if rows != metadata.num_rows or rows < 0:
        raise ValueError(f"it claims {metadata.num_rows} rows, its row groups have {rows}")
    # Names in these need not be text.
    _ = schema.names, reader.column_paths
    for kind in schema.types:
        read_names(kind)
    return {"rows": rows, "schema": base64.b64encode(schema.serialize().to_pybytes()).decode()}


def read_names(kind: pa.DataType) -> None:
    """Decode the names of all fields in a type, which need not be text."""
    for i in range(kind.num_fields):
        field = kind.field(i)
        field.name.encode()
        read_names(field.type)


def main() -> None:
    """Answer every frame until the input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]), int(sys.argv[1])))
    source = sys.stdin.buffer
    while length := source.read(8):
        footer = source.read(int.from_bytes(length, "little"))
        try:
            line = describe(footer)
        # Whatever a damaged footer makes the decoder raise is said of that file.
        except Exception as err:
            line = {"error": f"{type(err).__name__}: {str(err)[:300]}"}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
