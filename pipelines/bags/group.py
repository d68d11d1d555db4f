"""All items regrouped by bag: from the canonical order to whole bags, wherever shards were cut."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipelines.bags.census import bags_of
from pipelines.core.stage import Arrays
from pipelines.storage.arrays import new_array
from pipelines.storage.canonical import Items
from pipelines.storage.vectors import vectors_of

# N items, M of them in bags with totals, B bags, D features, K classes

BLOCK_ROWS = 16_384

FAR = 5.0
"""Features count at most so many standard deviations: a network follows what is far away."""


@dataclass(frozen=True)
class Grouped:
    """Which item stands where, bag after bag, those without totals at the end.

    Attributes
    ----------
    hashes : of the ids in canonical order, uint64, shape (N,).
    bag : position of each item's bag in the census, canonical order; negative for none, shape (N,).
    place : where an item of the canonical order stands among bags, int64, shape (N,).
    start : bag b has the places start[b] … start[b + 1] − 1, int64, shape (B + 1,).
    """

    hashes: np.ndarray
    bag: np.ndarray
    place: np.ndarray
    start: np.ndarray

    @property
    def n_in_bags(self) -> int:
        """M; the items in places 0 … M − 1."""
        return int(self.start[-1])


def group(items: Items, census: Arrays) -> Grouped:
    """Bring items into the order of bags; within a bag by hash, so no cut into shards matters."""
    hashes, bags = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
    for table in items.tables(1 << 18):
        hashes.append(table.column("item_hash").to_numpy())
        positions = bags_of(table.column("bag_id").combine_chunks(), census["bag_ids"])
        bags.append(positions.astype(np.int32))
    bag = np.concatenate(bags)
    n_bags = len(census["sizes"])
    order = np.argsort(np.where(bag < 0, n_bags, bag), kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    start = np.concatenate([[0], np.cumsum(census["sizes"], dtype=np.int64)])
    in_data = np.bincount(bag[bag >= 0], minlength=n_bags)
    assert (in_data == census["sizes"]).all(), "the census counted the same items"
    return Grouped(np.concatenate(hashes), bag, place, start)


def blocks(items: Items, column: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield blocks of vectors in canonical order, with NaN for what is missing."""
    first = 0
    for table in items.tables(BLOCK_ROWS):
        array, _ = vectors_of(table.column(column).combine_chunks())
        yield slice(first, first + len(array)), array
        first += len(array)


def standardised(
    items: Items, column: str, grouped: Grouped, *, by_column: bool
) -> tuple[np.ndarray, int]:
    """Write features of mean 0 and spread 1 to disk, in the order of bags.

    Each has spread 1 if scaled by column, else the mean square of those that vary is 1 and
    proportions stay. A missing feature becomes 0, the mean: the item has to stay, for its bag
    counts it.

    Returns
    -------
    Features, float32, memory-mapped, shape (N, D); of how many items one is missing.
    """
    n_dims = items.schema.field(column).type.list_size
    mean, std = _moments(items, column, n_dims)
    varies = std > 0
    std = np.where(varies, std, 1.0)
    if not by_column and varies.any():
        std = np.full(n_dims, np.sqrt((std[varies] ** 2).mean()))
    path = os.path.join(items.folder, "features.npy")
    out = new_array(path, np.float32, (len(grouped.hashes), n_dims))
    n_missing = 0
    for rows, array in blocks(items, column):
        scaled = (array.astype(np.float64) - mean) / std
        unknown = ~np.isfinite(scaled)
        n_missing += int(unknown.any(axis=1).sum())
        scaled[unknown] = 0.0
        out[grouped.place[rows]] = np.clip(scaled, -FAR, FAR)
    out.flush()
    return out, n_missing


def _moments(items: Items, column: str, n_dims: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of finite values; 0 where all are equal but rounding."""
    n, total = np.zeros(n_dims), np.zeros(n_dims)
    squares, centre = np.zeros(n_dims), None
    for _, array in blocks(items, column):
        values = array.astype(np.float64)
        known = np.isfinite(values)
        values[~known] = 0.0
        if centre is None:
            # Moments about somewhere near the mean: squares of large offsets would cancel.
            centre = values.sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        off = np.where(known, values - centre, 0.0)
        n += known.sum(axis=0)
        total += off.sum(axis=0)
        squares += (off**2).sum(axis=0)
    shift = total / np.maximum(n, 1)
    variance = np.maximum(squares / np.maximum(n, 1) - shift**2, 0.0)
    centre = np.zeros(n_dims) if centre is None else centre
    tiny = 1e-12 * np.maximum(centre**2, 1e-12)
    return centre + shift, np.sqrt(np.where(variance > tiny, variance, 0.0))


def regrouped(items: Items, column: str, grouped: Grouped) -> np.ndarray:
    """Return a column of vectors in the order of bags, as it is, shape (N, D)."""
    kind = items.schema.field(column).type
    out = np.empty((len(grouped.hashes), kind.list_size), kind.value_type.to_pandas_dtype())
    for rows, array in blocks(items, column):
        out[grouped.place[rows]] = array
    return out


def save_canonical(folder: str, name: str, values: np.ndarray, grouped: Grouped) -> None:
    """Leave an array over items in canonical order as an artefact, in single precision."""
    out = new_array(os.path.join(folder, f"{name}.npy"), np.float32, values.shape)
    for first in range(0, len(values), BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        out[rows] = values[grouped.place[rows]]
    out.flush()


def save_keys(folder: str, grouped: Grouped) -> None:
    """Leave the hashes and bags of items, by which shards look theirs up."""
    np.save(os.path.join(folder, "item_hash.npy"), grouped.hashes)
    np.save(os.path.join(folder, "bag.npy"), grouped.bag)
