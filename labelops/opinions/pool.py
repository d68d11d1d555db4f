"""One opinion made of several: their product, each to a power that the given labels choose.

Opinions that err in different places correct each other, and one that is worth nothing gets the
power 0. The powers also bring all of them to the right confidence together, as a temperature does
for one (`labelops.temperature`).

Measured by `benchmarks/opinions.py` against the best single opinion, their mean, and their mixture
with weights by likelihood.
"""

# H opinions, N items, K classes

import numpy as np
from scipy.optimize import minimize
from scipy.special import softmax

FLOOR = 1e-6
"""No opinion rules a class out: a probability below counts as this."""

MAX_WEIGHT = 64.0
"""Beyond, the labels say nothing more: all right pulls the weights to infinity."""

BLOCK_CELLS = 1 << 20


def log_opinions(probs: np.ndarray) -> np.ndarray:
    """Return log-probabilities, float64, none below log `FLOOR`.

    Examples
    --------
    >>> log_opinions(np.array([[1.0, 0.0]])).round(2).tolist()
    [[0.0, -13.82]]
    """
    return np.asarray(np.log(np.maximum(probs, FLOOR, dtype=np.float64)))


def fit_weights(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the weights at which the pool is likeliest to give the labels.

    Parameters
    ----------
    probs
        Out-of-sample probabilities of every opinion, shape (H, N, K).
    given
        Class ids, shape (N,).

    Returns
    -------
    float64, shape (H,), in [0, 64]; 1 / H each if there are no items.

    Notes
    -----
    −Σ_i log softmax(Σ_h w_h log p_hi)_given_i is convex in w: L-BFGS-B from 1 / H finds its
    minimum, and the same rows in the same order give the same bits.

    References
    ----------
    Genest, Zidek: Combining probability distributions: a critique and an annotated bibliography.
    Statistical Science 1(1), 1986 (logarithmic opinion pool). Hinton: Products of experts. ICANN
    1999.

    Examples
    --------
    >>> knows, guesses = np.tile([0.8, 0.2], (4, 1)), np.tile([0.5, 0.5], (4, 1))
    >>> weights = fit_weights(np.stack([knows, guesses]), np.array([0, 0, 0, 1]))
    >>> pool(np.stack([knows, guesses]), weights)[0].round(3).tolist()
    [0.75, 0.25]
    """
    n_opinions, n, n_classes = probs.shape
    given = np.asarray(given, np.int64)
    start = np.full(n_opinions, 1 / n_opinions)
    if n == 0 or n_classes < 2:
        return start
    rows = max(1, BLOCK_CELLS // n_classes)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        total, slope = 0.0, np.zeros(n_opinions)
        for first in range(0, n, rows):
            z = log_opinions(probs[:, first : first + rows])
            mine = given[first : first + rows]
            at = z[:, np.arange(len(mine)), mine]
            mixed = np.tensordot(weights, z, 1)
            mixed -= mixed.max(axis=1, keepdims=True)
            q = np.exp(mixed)
            norm = q.sum(axis=1)
            total += float((np.log(norm) - mixed[np.arange(len(mine)), mine]).sum())
            q /= norm[:, None]
            slope += (q * z).sum(axis=(1, 2)) - at.sum(axis=1)
        return total / n, slope / n

    bounds = [(0.0, MAX_WEIGHT)] * n_opinions
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return np.asarray(found.x)


def pool(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the pooled opinion softmax(Σ_h w_h log p_h), float64, shape (N, K).

    Parameters
    ----------
    probs
        Shape (H, N, K).
    weights
        From `fit_weights`.

    Examples
    --------
    >>> pool(np.array([[[0.8, 0.2]], [[0.5, 0.5]]]), np.array([1.0, 1.0])).round(3).tolist()
    [[0.8, 0.2]]
    """
    # One after the other, so that a row is the same whatever rows are beside it.
    total = np.zeros(probs.shape[1:])
    for weight, opinion in zip(weights, probs, strict=True):
        total += weight * log_opinions(opinion)
    return np.asarray(softmax(total, axis=1))


def votes_for(opinions: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return how many opinions find some classes most probable.

    Parameters
    ----------
    opinions
        Most probable class of each opinion, shape (N, H).
    ids
        Classes that are asked about, shape (N, C).

    Examples
    --------
    >>> votes_for(np.array([[2, 0, 2]]), np.array([[0, 1, 2]])).tolist()
    [[1, 0, 2]]
    """
    votes = np.zeros(ids.shape, np.int64)
    for opinion in opinions.T:
        votes += ids == opinion[:, None]
    return votes
