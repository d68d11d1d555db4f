"""Texts as vectors: weighted counts of words and of pieces of words, in few dimensions.

In whatever script and language, without a vocabulary that would have to be downloaded: pieces of
words stand in for words where these are not set apart. A model that was trained on language knows
more; its embeddings go into `features`.
"""

# N texts, n of them in the sample, F features of which M are kept, D dimensions

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils.extmath import randomized_svd
from threadpoolctl import threadpool_limits

N_DIMS = 256

N_HASHED = 1 << 16
"""Features of either kind: words and pairs of them, and pieces of two to four characters."""

MAX_CHARACTERS = 10_000
"""Of a longer text the beginning is read."""

LEAST_TEXTS = 2
"""A feature of fewer texts of the sample says nothing of another text."""

KINDS = (("word", (1, 2)), ("char_wb", (2, 4)))


class Dimensions(NamedTuple):
    """Where a sample of texts differs most.

    Attributes
    ----------
    kept : features that are used, int64, ascending, shape (M,).
    weight : log of how few texts of the sample have each, float64, shape (M,).
    axes : float64, shape (M, D); zero beyond the rank of the sample.
    """

    kept: np.ndarray
    weight: np.ndarray
    axes: np.ndarray


def count_features(texts: Sequence[str]) -> sparse.csr_array:
    """Return 1 + log of how often each text has each hashed feature, shape (N, F); 0 for never.

    Examples
    --------
    >>> counts = count_features(["a cat", "", "猫が好き"])
    >>> counts.shape[0], counts[[1]].nnz, counts[[2]].nnz > 0
    (3, 0, True)
    """
    if not len(texts):
        return sparse.csr_array((0, len(KINDS) * N_HASHED))
    parts = [
        HashingVectorizer(
            analyzer=analyzer,
            ngram_range=lengths,
            n_features=N_HASHED,
            alternate_sign=False,
            norm=None,
            token_pattern=r"(?u)\b\w+\b",
        ).transform([text[:MAX_CHARACTERS] for text in texts])
        for analyzer, lengths in KINDS
    ]
    counts = sparse.csr_array(sparse.hstack(parts, format="csr"))
    counts.sum_duplicates()
    counts.data = 1 + np.log(counts.data)
    return counts


def find_dimensions(texts: Sequence[str], *, n_dims: int = N_DIMS) -> Dimensions:
    """Find where texts differ most: the leading singular vectors of their weighted counts.

    Parameters
    ----------
    texts
        A sample; the same texts in the same order give the same bits.
    n_dims
        D.

    References
    ----------
    Deerwester et al.: Indexing by latent semantic analysis. JASIS 41(6), 1990. Halko, Martinsson,
    Tropp: Finding structure with randomness. SIAM Review 53(2), 2011.

    Examples
    --------
    >>> found = find_dimensions(["red cat", "red dog", "blue dog", "blue cat"], n_dims=3)
    >>> vectors = place(["red cat", "red dog", "blue bird"], found)
    >>> vectors.shape, bool(vectors[0] @ vectors[1] > vectors[0] @ vectors[2])
    ((3, 3), True)
    """
    counts = count_features(texts)
    n_having = np.bincount(counts.indices, minlength=counts.shape[1])
    kept = np.flatnonzero(n_having >= LEAST_TEXTS)
    weight = np.log((1 + len(texts)) / (1 + n_having[kept])) + 1
    axes = np.zeros((len(kept), n_dims))
    rank = min(n_dims, len(texts), len(kept))
    if rank:
        weighted = _weighted(counts, kept, weight)
        # Sums by several threads would depend on how many there are.
        with threadpool_limits(limits=1):
            found = randomized_svd(weighted, rank, n_iter=4, random_state=0)[2]
        axes[:, :rank] = found.T
    return Dimensions(kept, weight, axes)


def _weighted(counts: sparse.csr_array, kept: np.ndarray, weight: np.ndarray) -> sparse.csr_array:
    """Return counts by weight, every text with length one."""
    chosen = sparse.csr_array(counts[:, kept])
    chosen.data = chosen.data * weight[chosen.indices]
    length = np.sqrt(np.asarray(chosen.multiply(chosen).sum(axis=1)).ravel())
    scale = np.where(length > 0, 1 / np.where(length > 0, length, 1.0), 0.0)
    chosen.data = chosen.data * np.repeat(scale, np.diff(chosen.indptr))
    return chosen


def place(texts: Sequence[str], dimensions: Dimensions) -> np.ndarray:
    """Return texts as vectors of length one, float32, shape (N, D).

    A text of which nothing is known (an empty one, or one in another script) is all zeros.
    """
    rows = _weighted(count_features(texts), dimensions.kept, dimensions.weight) @ dimensions.axes
    length = np.sqrt(np.square(rows).sum(axis=1, keepdims=True))
    # What is left of a text that shares nothing with the sample is rounding.
    return np.asarray((rows / np.where(length > 1e-9, length, np.inf)).astype(np.float32))
