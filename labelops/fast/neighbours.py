"""Nearest neighbours of many items: an index proposes, exact distances decide.

Up to `FLAT_LIMIT` distinct vectors all pairs are compared (in single precision, by matrix
products). Beyond, vectors are reduced to 64 principal components where they have more, and each is
compared with the 32 cells of an inverted file that are nearest to it; how many of the true
neighbours this finds is measured on a sample and reported.

Memory: the vectors lie on disk. In memory are the index (4 · min(D, 64) bytes an item beyond the
flat limit, 4 · D below), 12 · k bytes an item of results, and blocks of constant size.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from labelops.fast.jit import compiled
from labelops.neighbours import Neighbours, choose, prepare
from labelops.opinions.nearest import (
    N_VOTERS,
    References,
    count_cell_votes,
    count_votes,
    standardise,
)
from labelops.partial.candidates import count_candidate_votes

FLAT_LIMIT = 50_000
"""2 × 10¹² operations at 400 dimensions: half a minute on two cores."""

SLACK = 6
"""Candidates beyond k, for ranks that single precision cannot tell apart."""

BLURRED_SLACK = 60
"""The same where principal components blur the ranks."""

CELLS = 4.0
"""So many times the root of the number of vectors are there cells."""

N_PROBED = 32
"""Cells that a vector is compared with: with the number of cells above, time grows as N√N. On
made-up embeddings of 120 000 items 74 % of the true neighbours were found, and 71 % in a 32nd of
half as many cells."""

QUERY_ROWS = 1024
BLOCK_ROWS = 16_384
TRAIN_PER_CELL = 40
INDEX_DIMS = 64
RECALL_QUERIES = 200

SEED = 0
"""For the cells. The same for every run: one that came with the shards would let the neighbours
depend on how the data was cut."""


class Found(NamedTuple):
    """Neighbours, and the share of true neighbours among them (1 when all pairs were compared)."""

    neighbours: Neighbours
    recall: float


def find_neighbours(
    vectors: np.ndarray,
    *,
    k: int,
    metric: str,
    flat_limit: int = FLAT_LIMIT,
    n_threads: int = 2,
) -> Found:
    """Find the k nearest neighbours of every row.

    Parameters
    ----------
    vectors
        Distinct rows in an order that has nothing to do with their content (by hash of the id): the
        first rows serve as sample. May be memory-mapped. float32, shape (N, D).
    k
        How many; missing ones (N − 1 < k) are −1, at infinite distance.
    metric
        ``"cosine"`` or ``"euclidean"``.
    flat_limit
        Up to how many rows all pairs are compared.
    n_threads
        Blocks worked on side by side; the answer does not depend on it.
    """
    n = len(vectors)
    if n == 0:
        return Found(Neighbours(np.empty((0, k), np.int64), np.empty((0, k))), 1.0)
    is_flat = n <= flat_limit
    is_blurred = not is_flat and vectors.shape[1] > INDEX_DIMS
    want = min(k + 1 + (BLURRED_SLACK if is_blurred else SLACK), n)
    search = _flat(vectors, metric) if is_flat else _inverted(vectors, metric)
    scale = _scales(vectors, metric)
    raw = np.asarray(vectors)

    def block(start: int) -> Neighbours:
        rows = np.arange(start, min(start + QUERY_ROWS, n))
        positions = search(rows, want)
        positions[positions == rows[:, None]] = -1
        return _decide(raw, scale, raw[rows], scale[rows], positions, k=k, metric=metric)

    with ThreadPoolExecutor(n_threads) as pool:
        parts = list(pool.map(block, range(0, n, QUERY_ROWS)))
    neighbours = Neighbours(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    recall = 1.0 if is_flat else _recall(vectors, neighbours, k=k, metric=metric)
    return Found(neighbours, recall)


class Voters:
    """References and an index of them, for the votes of the nearest ones."""

    def __init__(self, references: References, *, n_classes: int) -> None:
        self.references, self.n_classes = references, n_classes
        self._index = _flat_index(references.vectors, "euclidean")
        self._scale = np.ones(len(references.given))
        self._order = np.argsort(references.item_hash, kind="stable")

    def votes(self, features: np.ndarray, item_hash: np.ndarray) -> np.ndarray:
        """Return what the nearest references say of items, none of itself.

        Parameters
        ----------
        features
            Shape (N, D).
        item_hash
            By which an item is known among the references, uint64, shape (N,).

        Returns
        -------
        Probabilities, see `count_votes`, `count_cell_votes` and `count_candidate_votes`; float32,
        shape (N, K).
        """
        parts = [
            self._votes(features[start : start + QUERY_ROWS], item_hash[start : start + QUERY_ROWS])
            for start in range(0, max(len(features), 1), QUERY_ROWS)
        ]
        return np.concatenate(parts)

    def _votes(self, features: np.ndarray, item_hash: np.ndarray) -> np.ndarray:
        own = self.references
        if not len(own.given):
            share = 0.5 if own.given.dtype == np.int8 else 1 / self.n_classes
            return np.full((len(features), self.n_classes), share, np.float32)
        queries = standardise(features, own.mean, own.std)
        want = min(N_VOTERS + 1 + SLACK, len(own.given))
        positions = np.asarray(self._index(queries, want))
        positions[own.item_hash[positions] == item_hash[:, None]] = -1
        ones = np.ones(len(queries))
        found = _decide(
            own.vectors, self._scale, queries, ones, positions, k=N_VOTERS, metric="euclidean"
        )
        if own.given.dtype == bool:
            return count_candidate_votes(found.indices, own.given)
        if own.given.ndim == 2:
            return count_cell_votes(found, own.given, self._own(item_hash))
        return count_votes(found, own.given, n_classes=self.n_classes)

    def _own(self, item_hash: np.ndarray) -> np.ndarray:
        """Return where items are among the references, −1 for those that are not."""
        hashes, order = self.references.item_hash, self._order
        at = order[np.minimum(np.searchsorted(hashes, item_hash, sorter=order), len(order) - 1)]
        return np.where(hashes[at] == item_hash, at, -1)


def _scales(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Return what each row is multiplied by before rows are compared: 1 / length for cosine."""
    if metric == "euclidean":
        return np.ones(len(vectors))
    parts = [np.zeros(0)]
    for part in _blocks(len(vectors)):
        length = np.sqrt(np.square(vectors[part].astype(np.float64)).sum(axis=1))
        parts.append(np.where(length > 0, 1 / np.where(length > 0, length, 1.0), 0.0))
    return np.concatenate(parts)


@compiled()
def _half_squares(vectors, scale, others, scale_others, positions, out):  # type: ignore[no-untyped-def]
    n_dims = vectors.shape[1]
    for i in range(len(others)):
        scale_a = scale_others[i]
        for c in range(positions.shape[1]):
            b = positions[i, c]
            if b < 0:
                out[i, c] = np.inf
                continue
            scale_b = scale[b]
            if (scale_a == 0) != (scale_b == 0):
                # A vector of zeros has no direction: its cosine distance to all others is 1.
                out[i, c] = 1.0
                continue
            # Two sums, because one would wait for itself; always the same two.
            even, odd, j = 0.0, 0.0, 0
            while j + 1 < n_dims:
                x = np.float64(others[i, j]) * scale_a - np.float64(vectors[b, j]) * scale_b
                y = np.float64(others[i, j + 1]) * scale_a
                y -= np.float64(vectors[b, j + 1]) * scale_b
                even += x * x
                odd += y * y
                j += 2
            if j < n_dims:
                x = np.float64(others[i, j]) * scale_a - np.float64(vectors[b, j]) * scale_b
                even += x * x
            out[i, c] = 0.5 * (even + odd)


def _decide(
    vectors: np.ndarray,
    scale: np.ndarray,
    others: np.ndarray,
    scale_others: np.ndarray,
    positions: np.ndarray,
    *,
    k: int,
    metric: str,
) -> Neighbours:
    """Choose neighbours of others among candidates by exact distance; missing ones are −1."""
    exact = np.empty(positions.shape)
    _half_squares(vectors, scale, others, scale_others, positions, exact)
    if metric == "euclidean":
        exact = np.sqrt(2 * exact)
    best = choose(exact, positions, k=min(k, positions.shape[1]))
    indices = np.full((len(others), k), -1, np.int64)
    distances = np.full((len(others), k), np.inf)
    width = best.indices.shape[1]
    indices[:, :width] = np.where(np.isfinite(best.distances), best.indices, -1)
    distances[:, :width] = best.distances
    return Neighbours(indices, distances)


def _ready(vectors: np.ndarray, metric: str) -> np.ndarray:
    return prepare(vectors, metric=metric).astype(np.float32)


def _blocks(n: int) -> list[slice]:
    return [slice(a, min(a + BLOCK_ROWS, n)) for a in range(0, n, BLOCK_ROWS)]


def _alone(faiss: Any) -> None:
    # The setting belongs to the calling thread: every block is worked on by one thread, so its sums
    # do not depend on how many there are.
    faiss.omp_set_num_threads(1)


def _flat_index(vectors: np.ndarray, metric: str) -> Any:
    import faiss

    index = faiss.IndexFlatL2(vectors.shape[1])
    for part in _blocks(len(vectors)):
        index.add(_ready(vectors[part], metric))

    def search(queries: np.ndarray, want: int) -> np.ndarray:
        _alone(faiss)
        return np.asarray(index.search(_ready(queries, metric), want)[1])

    return search


def _flat(vectors: np.ndarray, metric: str) -> Any:
    search = _flat_index(vectors, metric)
    return lambda rows, want: search(vectors[rows], want)


def _inverted(vectors: np.ndarray, metric: str) -> Any:
    import faiss

    _alone(faiss)
    n, n_dims = vectors.shape
    n_cells = max(16, round(CELLS * n**0.5))
    sample = _ready(vectors[: min(n, TRAIN_PER_CELL * n_cells)], metric)
    reduce = None
    if n_dims > INDEX_DIMS:
        reduce = faiss.PCAMatrix(n_dims, INDEX_DIMS)
        reduce.train(sample[: 256 * INDEX_DIMS])
        sample = reduce.apply(sample)
    quantizer = faiss.IndexFlatL2(sample.shape[1])
    index = faiss.IndexIVFFlat(quantizer, sample.shape[1], n_cells)
    index.cp.seed = SEED
    index.cp.niter = 8
    index.cp.max_points_per_centroid = TRAIN_PER_CELL
    index.train(sample)
    index.nprobe = min(N_PROBED, n_cells)

    def shrink(part: np.ndarray) -> np.ndarray:
        ready = _ready(part, metric)
        return ready if reduce is None else np.asarray(reduce.apply(ready))

    for part in _blocks(n):
        index.add(shrink(vectors[part]))

    def search(rows: np.ndarray, want: int) -> np.ndarray:
        _alone(faiss)
        return np.asarray(index.search(shrink(vectors[rows]), want)[1])

    return search


def _recall(vectors: np.ndarray, neighbours: Neighbours, *, k: int, metric: str) -> float:
    """Return the share of true neighbours found, for the first rows, against all pairs."""
    import faiss

    _alone(faiss)
    rows = np.arange(min(RECALL_QUERIES, len(vectors)))
    queries = _ready(vectors[rows], metric)
    heap = faiss.ResultHeap(len(rows), k + 1)
    for part in _blocks(len(vectors)):
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(_ready(vectors[part], metric))
        near, at = index.search(queries, min(k + 1, part.stop - part.start))
        heap.add_result(near, at + part.start)
    heap.finalize()
    hits = [
        len(np.intersect1d(true[true != row][:k], neighbours.indices[row]))
        for row, true in zip(rows, heap.I, strict=True)
    ]
    return float(np.mean(hits)) / k
