"""Files of many row groups have long footers; what is committed must still be read."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.core.commit
from pipelines.core.commit import ShardWriter
from pipelines.core.stage import Output
from pipelines.errors import CorruptShardError
from pipelines.storage.frame import FileRef, read_columns
from pipelines.storage.store import open_store


def written(folder: Path) -> FileRef:
    store = open_store(str(folder))
    table = pa.table({f"column {i}": np.arange(1000) for i in range(10)})
    writer = ShardWriter(store, "x", 0, Output(schema=table.schema, row_group_rows=2))
    writer.write(table)
    record = writer.close()
    store.publish(record["temp"], record["name"])
    path = folder / record["name"]
    assert hashlib.sha256(path.read_bytes()).hexdigest() == record["sha256"]
    assert pq.read_metadata(path).serialized_size > 200_000
    return FileRef(uri=str(folder), name=record["name"], rows=1000, footer=record["footer"])


def test_footer__longer_than_a_page_is_recognised(tmp_path: Path) -> None:
    ref = written(tmp_path)
    assert read_columns(ref, ["column 3"]).num_rows == 1000
    with pytest.raises(CorruptShardError, match="its footer differs"):
        read_columns(FileRef(ref.uri, ref.name, 1000, footer="0" * 64), ["column 3"])


def test_footer__too_long_to_be_kept_is_not_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.core.commit, "TAIL_BYTES", 100_000)
    ref = written(tmp_path)
    assert ref.footer == ""
    assert read_columns(ref, ["column 3"]).num_rows == 1000
