"""Bags for tests: log-odds, where bags begin, what is known of their counts."""

import functools
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from labelops.neighbours import nearest
from labelops.proportions.counts import (
    Counts,
    free_counts,
    hard_counts,
    interval_counts,
    join_counts,
    soft_counts,
)
from labelops.proportions.edges import Edges, edges_of_neighbours, no_edges

KINDS = ("hard", "soft", "interval", "free")


def starts(sizes: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def some_counts(kind: str, size: int, rng: np.random.Generator) -> Counts:
    """What may be known of one bag."""
    if kind == "hard":
        return hard_counts(rng.integers(0, size + 1, 1))
    if kind == "soft":
        strength = 10.0 ** rng.integers(-3, 4)
        return soft_counts(rng.random(1) * size, strength=strength)
    if kind == "interval":
        low, high = np.sort(rng.integers(0, size + 1, 2))
        return interval_counts(np.array([low]), np.array([high]))
    return free_counts(1)


def make_bags(
    seed: int, sizes: list[int], *, spread: float = 2.0, kind: str = "any"
) -> tuple[np.ndarray, np.ndarray, Counts]:
    rng = np.random.default_rng(seed)
    kinds = [rng.choice(KINDS) if kind == "any" else kind for _ in sizes]
    counts = join_counts([some_counts(k, n, rng) for k, n in zip(kinds, sizes, strict=True)])
    start = starts(np.array(sizes))
    return rng.normal(0, spread, start[-1]), start, counts


def small_bags() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray, Counts]]:
    """Few bags of at most seven items."""
    return st.builds(
        make_bags,
        st.integers(0, 9999),
        st.lists(st.integers(0, 7), min_size=1, max_size=4),
        spread=st.sampled_from([0.0, 0.5, 3.0, 20.0]),
    )


def make_edges(seed: int, n: int, n_edges: int, *, strength: float = 1.0) -> Edges:
    """Edges of random weights between random pairs."""
    rng = np.random.default_rng(seed)
    if n < 2:
        return no_edges()
    others = rng.integers(0, n, (n, max(1, n_edges // n)))
    return edges_of_neighbours(others, strength * rng.random(others.shape))


class Gaussians(NamedTuple):
    """Points of two classes in bags of one size, with their five nearest neighbours."""

    true: np.ndarray
    start: np.ndarray
    positives: np.ndarray
    indices: np.ndarray
    distances: np.ndarray
    points: np.ndarray


@functools.cache
def two_gaussians(seed: int, *, share: float, offset: float, bag: int, n: int = 1024) -> Gaussians:
    """Means ± offset on the first of two axes, random bags."""
    rng = np.random.default_rng(seed)
    true = rng.random(n) < share
    points = rng.normal(size=(n, 2))
    points[:, 0] += np.where(true, offset, -offset)
    neighbours = nearest(points, k=5, metric="euclidean")
    start = np.arange(0, n + 1, bag)
    positives = np.add.reduceat(true.astype(np.int64), start[:-1])
    return Gaussians(true, start, positives, neighbours.indices, neighbours.distances, points)
