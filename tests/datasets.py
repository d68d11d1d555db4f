"""Small data sets that tests cut into shards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def vectors(array: np.ndarray) -> pa.Array:
    """Return the rows of an array as Arrow fixed-size lists."""
    flat = pa.array(np.ascontiguousarray(array).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def blobs(n: int = 240, *, n_classes: int = 4, seed: int = 0, noise: float = 0.15) -> pa.Table:
    """Return items with Gaussian features and partly wrong labels.

    Every tenth item repeats the features of the one before, so that scores tie; some of those
    pairs carry different labels.
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, n_classes, n)
    centres = rng.normal(0, 3, (n_classes, 6))
    features = (centres[true] + rng.normal(0, 1, (n, 6))).astype(np.float32)
    features[9::10] = features[8::10][: len(features[9::10])]
    given = np.where(rng.random(n) < noise, rng.integers(0, n_classes, n), true)
    return pa.table(
        {
            "item_id": [f"item-{i:05d}" for i in range(n)],
            "features": vectors(features),
            "label": pa.array([f"class {k}" for k in given]),
        }
    )


def write_shards(folder: Path, table: pa.Table, sizes: Sequence[int]) -> Path:
    """Write the rows of a table as shards of given sizes, in order."""
    assert sum(sizes) == table.num_rows
    folder.mkdir(parents=True, exist_ok=True)
    start = 0
    for shard, size in enumerate(sizes):
        pq.write_table(table.slice(start, size), folder / f"part-{shard:05d}.parquet")
        start += size
    return folder


def even(n: int, shards: int) -> list[int]:
    """Return sizes of `shards` nearly equal shards of `n` rows."""
    return [len(part) for part in np.array_split(np.arange(n), shards)]


def tagged(
    n: int = 240, *, n_classes: int = 5, seed: int = 0, hidden: float = 0.2, wrong: float = 0.05
) -> tuple[pa.Table, np.ndarray]:
    """Return items with features and lists of labels, some missing or wrong; and the true states.

    Features are noisy signs of what is there. Every tenth item repeats the features of the one
    before, so that scores tie.
    """
    rng = np.random.default_rng([seed, 5])
    true = rng.random((n, n_classes)) < 1 / np.arange(2, n_classes + 2)
    signs = np.where(true, 2.0, -2.0) + rng.normal(0, 1, (n, n_classes))
    features = (signs @ rng.normal(0, 1, (n_classes, n_classes + 2))).astype(np.float32)
    features[9::10] = features[8::10][: len(features[9::10])]
    chance = rng.random((n, n_classes))
    given = np.where(true, chance >= hidden, chance < wrong)
    table = pa.table(
        {
            "item_id": [f"item-{i:05d}" for i in range(n)],
            "features": vectors(features),
            "labels": pa.array(
                [[f"class {k}" for k in np.flatnonzero(row)] for row in given],
                pa.list_(pa.string()),
            ),
        }
    )
    return table, true
