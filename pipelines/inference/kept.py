"""The first items, which heads are fitted to, and what the steps that fit them keep."""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import numpy as np

from pipelines.core.stage import Context
from pipelines.inference.folds import fold_of_items
from pipelines.inference.given import ClassSets, OneClass
from pipelines.inference.settings import Config
from pipelines.inference.unknown import learned_of
from pipelines.media.models import file_key, once
from pipelines.storage.arrays import read_array
from pipelines.storage.canonical import Items
from pipelines.storage.vectors import vectors_of

Kept = TypeVar("Kept")


class Some(NamedTuple):
    """Features (n, D), labels as an array, folds (n,) and hashes (n,) of some items."""

    features: np.ndarray
    given: np.ndarray
    fold: np.ndarray
    item_hash: np.ndarray


def first_items(
    items: Items, n: int, ctx: Context[Config], *, kind: OneClass | ClassSets | None = None
) -> Some:
    """Return the first n items, a sample by hash; labels of a kind, or as heads learn them."""
    kind, rows = kind or learned_of(ctx), items.first(n)
    given, hashes = kind.in_table(rows, ctx), rows.column("item_hash").to_numpy()
    features = vectors_of(rows.column("embedding").chunk(0))[0].astype(np.float32)
    return Some(features, kind.as_array(given), fold_of_items(given, hashes, ctx), hashes)


def keep(arrays: Mapping[str, np.ndarray], out: str) -> None:
    """Leave arrays as artefacts of a step."""
    for name, values in arrays.items():
        np.save(os.path.join(out, f"{name}.npy"), values)


def kept(step: str, kind: type[Kept], ctx: Context[Config]) -> Kept:
    """Return named arrays, a tuple of some kind, that a step has kept; opened once a process."""
    names: Any = kind
    paths = [ctx.artifact(step, f"{name}.npy") for name in names._fields]
    key = (step, *map(file_key, paths))
    found: Kept = once(key, lambda: kind(*map(read_array, paths)))
    return found
