"""Mutated Parquet files: read as a source, and run through the first stages where that succeeds."""

import base64
import io
import random
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe

import pipelines.run
import pipelines.storage.source
from pipelines.recipe import parse_recipe
from pipelines.storage import footers
from pipelines.storage.source import open_source
from tests.datasets import vectors
from tests.fuzz.mutate import damaged

N = 24
SHARE_OF_FOOTERS = 0.7
RECIPE = 'stages = ["source", "infer", "confident"]\n[data]\nmax_bad_share = 1.0\n'

# N items, K classes


class _NoKeys(pe.KmsClient):  # type: ignore[misc]
    """Wraps keys in nothing: the files only have to look encrypted."""

    def __init__(self, config: Any) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, name: str) -> bytes:
        return base64.b64encode(key)

    def unwrap_key(self, wrapped: bytes, name: str) -> bytes:
        return base64.b64decode(wrapped)


def _table(rng: np.random.Generator) -> pa.Table:
    probs = rng.dirichlet(np.ones(3), N).astype(np.float32)
    return pa.table(
        {
            "item_id": [f"item {k}" for k in range(N)],
            "label": pa.array(rng.integers(0, 3, N), pa.int64()),
            "pred_probs": vectors(probs),
        }
    )


def _carried(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """Add columns of many types that are only carried through."""
    struct = pa.array([{"a": k, "b": [str(k)] * (k % 3)} for k in range(N)])
    more = {
        "nested": struct,
        "lists": pa.array([[k] * (k % 4) if k % 5 else None for k in range(N)]),
        "map": pa.array([[("x", k)] for k in range(N)], pa.map_(pa.string(), pa.int64())),
        "when": pa.array(range(N), pa.timestamp("us", "UTC")),
        "exact": pa.array([None, *range(N - 1)], pa.decimal128(20, 3)),
        "bytes": pa.array([b"\xff" * k for k in range(N)]),
        "half": pa.array(rng.normal(size=N).astype(np.float16)),
        "flag": pa.array([k % 2 == 0 for k in range(N)]),
        "word": pa.array([f"w{k % 3}" for k in range(N)]).dictionary_encode(),
    }
    for name, column in more.items():
        table = table.append_column(name, column)
    return table


def _written(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def _encrypted(table: pa.Table, *, plain_footer: bool) -> bytes:
    factory = pe.CryptoFactory(_NoKeys)
    config = pe.EncryptionConfiguration(
        footer_key="f", column_keys={"k": ["label"]}, plaintext_footer=plain_footer
    )
    keys = factory.file_encryption_properties(pe.KmsConnectionConfig(), config)
    return _written(table, encryption_properties=keys)


@cache
def seeds() -> tuple[bytes, ...]:
    """Return small valid files of as many kinds as there are."""
    rng = np.random.default_rng(0)
    plain = _table(rng)
    many = _carried(plain, rng)
    features = (
        '{"info": {"features": {"label": {"names": ["a", "b", "c"], "_type": "ClassLabel"}}}}'
    )
    lists = plain.set_column(1, "labels", pa.array([["a"], ["b", "c"]] * (N // 2)))
    words = plain.set_column(1, "label", pa.array([f"class {k % 3}" for k in range(N)]))
    vectors_of = plain.drop_columns(["pred_probs"]).append_column(
        "features", pa.array([[float(k), 1.0] for k in range(N)])
    )
    found = [_written(many, compression=codec) for codec in ("none", "snappy", "zstd", "gzip")]
    found += [_written(plain, compression=codec) for codec in ("lz4", "brotli")]
    found += [
        _written(plain, row_group_size=5, write_page_index=True, write_page_checksum=True),
        _written(many, data_page_version="2.0", version="1.0"),
        _written(many, use_dictionary=False, data_page_size=64),
        _written(
            plain,
            use_dictionary=False,
            column_encoding={"item_id": "DELTA_BYTE_ARRAY", "label": "DELTA_BINARY_PACKED"},
        ),
        _written(plain, use_byte_stream_split=["pred_probs.list.element"], use_dictionary=False),
        _written(plain.replace_schema_metadata({"huggingface": features})),
        _written(lists),
        _written(words),
        _written(vectors_of),
        _written(plain.slice(0, 0)),
        _encrypted(plain, plain_footer=True),
        _encrypted(plain, plain_footer=False),
    ]
    return tuple(found)


def case(seed: int) -> bytes:
    """Return the mutated file of a seed."""
    rng = random.Random(seed)
    data = rng.choice(seeds())
    length = int.from_bytes(data[-8:-4], "little")
    first = len(data) - 8 - length
    if rng.random() < SHARE_OF_FOOTERS:
        footer = damaged(data[first:-8], rng, [other[-600:-8] for other in seeds()])
        # Mostly with the right length, so that it is decoded at all.
        said = len(footer) if rng.random() < 0.9 else length
        return data[:first] + footer + said.to_bytes(4, "little") + data[-4:]
    if rng.random() < 0.9:
        return damaged(data[:first], rng, seeds()) + data[first:]
    return damaged(data, rng, seeds())


def batch(numbers: range) -> Iterator[tuple[int, Any]]:
    """Yield what to call for each seed; footers go to one look-out process for all of them."""
    files = {seed: case(seed) for seed in numbers}
    whole: dict[int, bytes] = {}
    for seed, data in files.items():
        try:
            whole[seed] = footers.footer_of(io.BytesIO(data), len(data))
        except footers.FooterError:
            continue
    looked = dict(zip(whole.values(), footers.decode(list(whole.values())), strict=True))
    real = footers.decode
    footers.decode = lambda asked: (  # type: ignore[assignment]
        iter([looked[one] for one in asked]) if all(x in looked for x in asked) else real(asked)
    )
    try:
        for seed, data in files.items():
            yield seed, (data, seed)
    finally:
        footers.decode = real


def work(made: tuple[bytes, int], folder: Path) -> None:
    """Read a file as a source; run stages on what is taken."""
    data, seed = made
    source, out = folder / "data", folder / "out"
    for path in (source, out):
        shutil.rmtree(path, ignore_errors=True)
    source.mkdir(parents=True)
    (source / "s.parquet").write_bytes(data)
    open_source(str(source))
    recipe = RECIPE if seed % 4 == 0 else RECIPE.replace(', "infer", "confident"', "")
    pipelines.run.finish = lambda run, listen=None: ""  # type: ignore[assignment]
    pipelines.run.run(parse_recipe(recipe, name="fuzz"), data=str(source), out=str(out))
