"""Footers: whatever is in them, this process lives and the file is named."""

import base64
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from pipelines.errors import DataError
from pipelines.storage.footers import Footer, FooterError, decode, footer_of
from pipelines.storage.source import open_source

TABLE = pa.table({"item_id": [f"i{j}" for j in range(20)], "label": list(range(20))})


class Keys(pe.KmsClient):
    """Keys wrapped by nothing."""

    def __init__(self, config: object) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, name: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, key: bytes, name: str) -> bytes:
        return base64.b64decode(key)


def write_encrypted(path: Path, *, plaintext_footer: bool) -> None:
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"c": ["label"]}, plaintext_footer=plaintext_footer
    )
    keys = pe.CryptoFactory(Keys).file_encryption_properties(pe.KmsConnectionConfig(), config)
    with pq.ParquetWriter(path, TABLE.schema, encryption_properties=keys) as writer:
        writer.write_table(TABLE)


@pytest.mark.parametrize("plaintext_footer", [True, False])
def test_encrypted_file__is_refused_by_name(tmp_path: Path, plaintext_footer: bool) -> None:
    pq.write_table(TABLE, tmp_path / "a.parquet")
    write_encrypted(tmp_path / "b.parquet", plaintext_footer=plaintext_footer)
    with pytest.raises(DataError, match=r"encrypted.*b\.parquet"):
        open_source(str(tmp_path))


def test_statistics_that_are_no_utf8__are_not_decoded(tmp_path: Path) -> None:
    raw = [b"caf\xe9", b"ab"]
    offsets = np.cumsum([0, *map(len, raw)]).astype(np.int32)
    buffers = [None, pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(raw))]
    column = pa.Array.from_buffers(pa.string(), 2, buffers)
    pq.write_table(pa.table({"item_id": ["a", "b"], "x": column}), tmp_path / "a.parquet")
    assert open_source(str(tmp_path)).n_items == 2


def test_decode__tells_of_every_footer_in_order() -> None:
    footers = []
    for n in (1, 5, 20):
        sink = io.BytesIO()
        pq.write_table(TABLE.slice(0, n), sink)
        footers.append(footer_of(sink, sink.tell()))
    broken = footers[1][:10] + bytes(len(footers[1]) - 18) + footers[1][-8:]
    found = list(decode([footers[0], broken, footers[2]]))
    assert [one.rows if isinstance(one, Footer) else "bad" for one in found] == [1, "bad", 20]
    assert isinstance(found[0], Footer)
    assert found[0].schema.names == ["item_id", "label"]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1PAR1PAR1", b"x" * 100, b"PAR1" + b"\xff" * 8])
def test_what_is_no_parquet__has_no_footer(data: bytes) -> None:
    with pytest.raises(FooterError):
        footer_of(io.BytesIO(data), len(data))


def test_footer_longer_than_the_tail__is_read_whole() -> None:
    wide = pa.table({f"column {i}": [i] for i in range(3000)})
    sink = io.BytesIO()
    pq.write_table(wide, sink)
    (found,) = decode([footer_of(sink, sink.tell())])
    assert isinstance(found, Footer)
    assert found.schema.names == wide.column_names


NAMES = ("shallow", "nesting", "element", "deepest")


@pytest.mark.parametrize("keeps_schema", [True, False], ids=["Arrow's schema", "Parquet's alone"])
@pytest.mark.parametrize("name", NAMES)
def test_names_that_are_no_utf8__are_refused_with_the_file(
    tmp_path: Path, name: str, keeps_schema: bool
) -> None:
    inner = pa.list_(pa.field("element", pa.struct([("deepest", pa.int64())])))
    columns = {
        "shallow": pa.array([1, 2]),
        "nesting": pa.array([{"element": []}, {"element": [{"deepest": 1}]}],
                            pa.struct([("element", inner)])),
    }  # fmt: skip
    sink = io.BytesIO()
    table = pa.table({"item_id": ["a", "b"], "label": ["x", "y"], **columns})
    pq.write_table(table, sink, store_schema=keeps_schema)
    data, cut = sink.getvalue(), len(footer_of(sink, sink.tell()))
    # Of Arrow's schema, which is in base64, nothing changes here: only what Parquet itself says.
    footer = data[-cut:].replace(name.encode(), name.encode()[:-1] + b"\xf4")
    assert footer != data[-cut:]
    (tmp_path / "a.parquet").write_bytes(data[:-cut] + footer)
    with pytest.raises(DataError, match=r"a\.parquet"):
        open_source(str(tmp_path))
