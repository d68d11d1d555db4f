"""Candidate sets, of which exactly one class is true: weights, losses, and what is believed in.

A model says how probable each class is. Of an item with candidates C it should find the candidates
probable together (its likelihood, CC), and which of them is true it says itself (weights, RC). What
finds none of them probable doubts the set, not only its own choice.
"""

# N items, K classes, H opinions

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import softmax

from labelops.opinions.pool import FLOOR, MAX_WEIGHT, log_opinions

MAX_WRONG = 0.5
"""No more than half of the sets are taken not to have the true class."""

BALANCE, SCALINGS = 0.5, 20
"""Half-way between what is believed and what sets alone say of class sizes; and so many steps."""

LEAST_LABELS, MOST_LABELS, MOST_LENDERS = 20, 500, 2000

LEAST_POWER, LOWERINGS = 0.05, 60

SURE = 0.9
"""As probable as this, a candidate is taken for sure."""

TINY = 1e-300
"""A likelihood below counts as this."""

BLOCK_CELLS = 1 << 20


def check_candidates(is_candidate: np.ndarray) -> None:
    """Refuse items without a candidate; `is_candidate` bool, shape (N, K).

    Raises
    ------
    ValueError
        If an item has none.
    """
    empty = np.flatnonzero(~is_candidate.any(axis=1))
    if empty.size:
        raise ValueError(
            f"candidates: every item must have at least one, {empty.size} have none, the first is "
            f"item {empty[0]}. Leave them out"
        )


def candidate_weights(probs: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """Return the probabilities of candidates, given that one of them is true.

    w_ik = p_ik / Σ_{j ∈ C_i} p_ij for k ∈ C_i, and 0 for others; alike where all of C_i have 0.

    Parameters
    ----------
    probs
        In [0, 1], shape (N, K).
    is_candidate
        bool, shape (N, K).

    Returns
    -------
    float64, shape (N, K); rows sum to one.

    Raises
    ------
    ValueError
        If an item has no candidate.

    References
    ----------
    Feng, Lv, Han, Xu, Niu, Geng, An, Sugiyama: Provably consistent partial-label learning. NeurIPS
    2020 (RC). Lv, Xu, Feng, Niu, Geng, Sugiyama: Progressive identification of true labels for
    partial-label learning. ICML 2020 (PRODEN): the same weights.

    Examples
    --------
    >>> probs = np.array([[0.6, 0.3, 0.1], [0.0, 0.0, 1.0]])
    >>> is_candidate = np.array([[False, True, True], [True, True, False]])
    >>> candidate_weights(probs, is_candidate).tolist()
    [[0.0, 0.75, 0.25], [0.5, 0.5, 0.0]]
    """
    check_candidates(is_candidate)
    kept = np.where(is_candidate, probs, 0.0).astype(np.float64)
    # Divided by the largest first, so that the smallest numbers there are do not make a sum of 0.
    top = kept.max(axis=1, keepdims=True, initial=0.0)
    kept = np.where(top > 0, kept / np.where(top > 0, top, 1.0), is_candidate)
    return np.asarray(kept / kept.sum(axis=1, keepdims=True))


def balance(
    weights: np.ndarray, is_candidate: np.ndarray, *, strength: float = BALANCE
) -> np.ndarray:
    """Move weights towards the class sizes that sets alone speak for.

    w_ik ∝ w_ik β_k^g, with β_k at which Σ_i w_ik β_k / Σ_j w_ij β_j = Σ_i 1{k ∈ C_i} / |C_i| for
    every class k. Where a rare class stands in sets mostly beside a frequent one, the frequent one
    is learnt faster, is believed the more, and in the end takes all: sizes that are far from what
    all candidates alike add up to are a sign of it.

    Parameters
    ----------
    weights
        From `candidate_weights`, shape (N, K).
    is_candidate
        bool, shape (N, K).
    strength
        g: 0 leaves weights as they are, 1 gives these sizes to classes.

    Returns
    -------
    float64, shape (N, K); rows sum to one.

    References
    ----------
    Wang, Xia, Li, Mao, Feng, Chen, Zhao: SoLar: Sinkhorn label refinery for imbalanced
    partial-label learning. NeurIPS 2022, with sizes that are estimated as training goes on.

    Examples
    --------
    >>> weights, both = np.array([[0.8, 0.2], [0.8, 0.2]]), np.ones((2, 2), bool)
    >>> balance(weights, both, strength=1.0).round(3).tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    >>> balance(weights, both).round(3).tolist()
    [[0.667, 0.333], [0.667, 0.333]]
    """
    check_candidates(is_candidate)
    w = np.asarray(weights, np.float64)
    sizes = (is_candidate / is_candidate.sum(axis=1, keepdims=True)).sum(axis=0)
    log_factor = np.zeros(w.shape[1])
    for _ in range(SCALINGS):
        now = _scaled(w, np.exp(log_factor)).sum(axis=0)
        log_factor += np.log(np.maximum(sizes, FLOOR)) - np.log(np.maximum(now, FLOOR))
        log_factor -= log_factor.max(initial=-np.inf)
    return _scaled(w, np.exp(strength * log_factor))


def _scaled(weights: np.ndarray, factor: np.ndarray) -> np.ndarray:
    scaled = weights * factor
    total = scaled.sum(axis=1, keepdims=True)
    return np.asarray(np.where(total > 0, scaled / np.where(total > 0, total, 1.0), weights))


def candidate_loss(probs: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """Return −log Σ_{k ∈ C_i} p_ik of every item; float64, shape (N,).

    Parameters
    ----------
    probs
        In [0, 1], shape (N, K).
    is_candidate
        bool, shape (N, K).

    Raises
    ------
    ValueError
        If an item has no candidate.

    Notes
    -----
    Its gradient is that of −Σ_k w_ik log p_ik with w the present `candidate_weights`, held fixed:
    re-weighting by a model's own present probabilities is the same descent.

    References
    ----------
    Feng et al., NeurIPS 2020 (CC).

    Examples
    --------
    >>> candidate_loss(np.array([[0.5, 0.25, 0.25]]), np.array([[False, True, True]])).round(3)
    array([0.693])
    """
    check_candidates(is_candidate)
    return np.asarray(-np.log(np.clip(mass_of(probs, is_candidate), TINY, 1.0)))


def reweighted_loss(probs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return −Σ_k w_ik log p_ik of every item; float64, shape (N,).

    Parameters
    ----------
    probs
        In [0, 1], shape (N, K).
    weights
        From `candidate_weights`, shape (N, K).

    References
    ----------
    Feng et al., NeurIPS 2020 (RC).

    Examples
    --------
    >>> reweighted_loss(np.array([[0.5, 0.25, 0.25]]), np.array([[0.5, 0.5, 0.0]])).round(3)
    array([1.04])
    """
    log_p = np.log(np.maximum(probs, TINY, dtype=np.float64))
    return np.asarray(-(weights * log_p).sum(axis=1))


# -- sets that may not have the true class ---------------------------------------------------------


def mass_of(probs: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """Return the probability of all candidates together; float64, shape (N,)."""
    return np.asarray(np.where(is_candidate, probs, 0.0).sum(axis=1, dtype=np.float64))


def p_none(mass: np.ndarray, size: np.ndarray, *, wrong: float, n_classes: int) -> np.ndarray:
    """Return how probable it is that no candidate is true.

    r (1 − m) s / (K − s) / [r (1 − m) s / (K − s) + (1 − r) m]

    Sets of some size are taken to be as probable as each other, with the true class for 1 − r of
    the items and without it for r. What is believed as by chance, m = s / K, is r.

    Parameters
    ----------
    mass
        m: probability of all candidates together, in [0, 1], shape (N,).
    size
        s: how many they are, 1 … K, shape (N,).
    wrong
        r: share of sets without the true class, in [0, 1].
    n_classes
        K.

    Returns
    -------
    float64, shape (N,); 0 where all classes are candidates.

    Examples
    --------
    >>> p_none(np.array([0.9, 0.5, 0.01]), np.array([2, 2, 2]), wrong=0.1, n_classes=4).round(3)
    array([0.012, 0.1  , 0.917])
    """
    m, s = np.asarray(mass, np.float64), np.asarray(size, np.float64)
    without, within = _terms(m, s, wrong, n_classes)
    total = without + within
    return np.asarray(np.where(total > 0, without / np.where(total > 0, total, 1.0), wrong))


ROUNDING = 1e-9
"""A sum of probabilities may be less by this share than it is."""


def is_unbelieved(mass: np.ndarray, size: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Return where candidates are believed less than as many classes drawn by chance: m < s / K.

    Where `p_none` is more than the share of wrong sets, whatever that is: a model that learned from
    wrong sets comes to find them probable, and the share that fits it is too low, or 0.

    Parameters
    ----------
    mass, size, n_classes
        As for `p_none`.

    Returns
    -------
    bool, shape (N,).

    Examples
    --------
    >>> is_unbelieved(np.array([0.4, 0.6, 0.5]), np.array([2, 2, 2]), n_classes=4).tolist()
    [True, False, False]
    """
    m, s = np.asarray(mass, np.float64), np.asarray(size)
    return np.asarray((s < n_classes) & (m * n_classes < s * (1 - ROUNDING)))


def _terms(
    m: np.ndarray, s: np.ndarray, wrong: float, n_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return how likely sets are, without and with the true class, up to a factor of both."""
    is_open = s < n_classes
    ratio = np.where(is_open, s / np.where(is_open, n_classes - s, 1.0), 0.0)
    return wrong * np.clip(1 - m, 0.0, 1.0) * ratio, np.where(is_open, (1 - wrong) * m, 1.0)


class CandidatePool(NamedTuple):
    """How opinions of candidate sets are made one.

    Attributes
    ----------
    weights : of each opinion, float64, shape (H,); see `labelops.opinions.pool.pool`.
    wrong : share of sets without the true class.
    loss : mean over items of −log of the likelihood of their sets.
    """

    weights: np.ndarray
    wrong: float
    loss: float


def fit_candidate_pool(probs: np.ndarray, is_candidate: np.ndarray) -> CandidatePool:
    """Return the weights of opinions, and the share of wrong sets, that make the sets likeliest.

    minimise −Σ_i log [(1 − r) m_i + r (1 − m_i) s_i / (K − s_i)] / N over w and r, with m_i the
    candidates' probability in the pool softmax(Σ_h w_h log p_hi). For one opinion, w is the inverse
    of a temperature.

    Parameters
    ----------
    probs
        Out-of-sample probabilities of every opinion, shape (H, N, K).
    is_candidate
        bool, shape (N, K).

    Raises
    ------
    ValueError
        If an item has no candidate.

    Notes
    -----
    No truth is needed. Sets of all classes say nothing and are left out; without others, weights
    are 1 / H and no set is wrong. L-BFGS-B from there: the same rows in the same order give the
    same bits. Not convex: what is found need not be the best of all.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> true = rng.integers(0, 4, 2000)
    >>> is_candidate = np.eye(4, dtype=bool)[true]
    >>> is_candidate[np.arange(2000), (true + rng.integers(1, 4, 2000)) % 4] = True
    >>> is_candidate[:200] = ~is_candidate[:200]
    >>> knows = np.where(np.eye(4)[true] > 0, 0.97, 0.01)
    >>> found = fit_candidate_pool(np.stack([knows, np.full((2000, 4), 0.25)]), is_candidate)
    >>> round(found.wrong, 2)
    0.1
    """
    check_candidates(is_candidate)
    n_opinions, _, n_classes = probs.shape
    size = is_candidate.sum(axis=1)
    rows = np.flatnonzero(size < n_classes)
    start = np.append(np.full(n_opinions, 1 / n_opinions), 0.0)
    if rows.size == 0:
        return CandidatePool(start[:-1], 0.0, 0.0)
    step = max(1, BLOCK_CELLS // (n_classes * n_opinions))

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        weights, wrong = x[:-1], float(x[-1])
        total, slope = 0.0, np.zeros(n_opinions + 1)
        for first in range(0, len(rows), step):
            here = rows[first : first + step]
            z, is_in = log_opinions(probs[:, here]), is_candidate[here]
            q = softmax(np.tensordot(weights, z, 1), axis=1)
            m = np.where(is_in, q, 0.0).sum(axis=1)
            ratio = size[here] / (n_classes - size[here])
            likely = np.maximum((1 - wrong) * m + wrong * (1 - m) * ratio, TINY)
            total -= float(np.log(likely).sum())
            # ∂m/∂w_h = Σ_{k ∈ C} q_k z_hk − m Σ_k q_k z_hk
            change = np.where(is_in, q, 0.0) - m[:, None] * q
            by_mass = ((1 - wrong) - wrong * ratio) / likely
            slope[:-1] -= ((change * z).sum(axis=2) * by_mass).sum(axis=1)
            slope[-1] -= float((((1 - m) * ratio - m) / likely).sum())
        return total / len(rows), slope / len(rows)

    # At r = 0 and m = 0 likelihoods have no end.
    start[-1] = 0.01
    bounds = [(0.0, MAX_WEIGHT)] * n_opinions + [(0.0, MAX_WRONG)]
    found = minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return CandidatePool(np.asarray(found.x[:-1]), float(found.x[-1]), float(found.fun))


def fit_power(probs: np.ndarray, is_candidate: np.ndarray) -> float:
    """Return to which power probabilities within sets must be raised, so that labels are likeliest.

    Items of one candidate are labels. To each of them, of class c, sets of several are lent: those
    with c, every one as much as c is believed in it. The power t ≤ 1 minimises the mean of
    −log p_c^t / Σ_{k ∈ C} p_k^t over labels and lent sets C.

    Parameters
    ----------
    probs
        Out-of-sample, in an order that has nothing to do with what items are, shape (N, K).
    is_candidate
        bool, shape (N, K).

    Returns
    -------
    In [0.05, 1]; 1 where fewer than 20 items have one candidate, and nothing can be checked.

    Raises
    ------
    ValueError
        If an item has no candidate.

    Notes
    -----
    Where some classes are candidates beside others more often than by chance, a model that finds
    all sets probable may choose wrongly in them, and be sure of it: the likelihood of sets does not
    tell. Labels do, if their items are like the others. At most the first 500 labels and 2,000
    lenders are taken.

    Examples
    --------
    >>> probs = np.tile([0.9, 0.1, 0.0], (100, 1))
    >>> is_candidate = np.array([[1, 0, 0]] * 30 + [[0, 1, 0]] * 20 + [[1, 1, 0]] * 50, bool)
    >>> t = fit_power(probs, is_candidate)
    >>> round(float(0.9**t / (0.9**t + 0.1**t)), 3)  # 30 of 50
    0.6
    """
    check_candidates(is_candidate)
    size = is_candidate.sum(axis=1)
    labelled, lender = np.flatnonzero(size == 1), np.flatnonzero(size > 1)
    if len(labelled) < LEAST_LABELS:
        return 1.0
    labelled, lender = labelled[:MOST_LABELS], lender[:MOST_LENDERS]
    given = is_candidate[labelled].argmax(axis=1)
    sets = is_candidate[lender].astype(np.float64)
    lent = candidate_weights(probs[lender], is_candidate[lender])[:, given].T
    total = lent.sum(axis=1, keepdims=True)
    if not total.any():
        return 1.0
    lent /= np.where(total > 0, total, 1.0)
    log_p = log_opinions(probs[labelled])

    def loss(power: float) -> float:
        q = np.exp(power * log_p)
        mass = np.einsum("ik,jk->ij", q, sets)
        own = power * log_p[np.arange(len(given)), given]
        return float((lent * (np.log(np.maximum(mass, TINY)) - own[:, None])).sum())

    found = minimize_scalar(loss, bounds=(LEAST_POWER, 1.0), method="bounded")
    return 1.0 if loss(1.0) <= found.fun else float(found.x)


def limit_power(
    probs: np.ndarray,
    is_candidate: np.ndarray,
    agrees: np.ndarray,
    *,
    power: float,
) -> float:
    """Return a power, not above another, at which no more is expected to be right than agrees.

    The first t of power · 0.9^j, j = 0 … 60, at which, over items of several candidates, the mean
    of max_k p_k^t / Σ_{j ∈ C} p_j^t is at most their share that agrees, and so among those with 0.9
    and more.

    Parameters
    ----------
    probs
        In [0, 1], shape (N, K).
    is_candidate
        bool, shape (N, K).
    agrees
        Whether an answer that is as good is the same, bool, shape (N,).
    power
        From `fit_power`.

    Returns
    -------
    float; 0, where all candidates are alike, if none of these is low enough.

    Raises
    ------
    ValueError
        If an item has no candidate.

    Examples
    --------
    >>> probs, both = np.tile([0.9, 0.1], (8, 1)), np.ones((8, 2), bool)
    >>> t = limit_power(probs, both, np.arange(8) < 6, power=1.0)
    >>> bool(0.7 < 0.9**t / (0.9**t + 0.1**t) <= 0.75)
    True
    """
    check_candidates(is_candidate)
    several = is_candidate.sum(axis=1) > 1
    log_p, sets = log_opinions(probs[several]), is_candidate[several]
    agreed = np.asarray(agrees, np.float64)[several]
    for t in power * 0.9 ** np.arange(LOWERINGS + 1):
        top = softmax(np.where(sets, t * log_p, -np.inf), axis=1).max(axis=1, initial=0.0)
        is_sure = top >= SURE
        if top.sum() <= agreed.sum() and top[is_sure].sum() <= agreed[is_sure].sum():
            return float(t)
    return 0.0


def candidate_beliefs(
    probs: np.ndarray, is_candidate: np.ndarray, *, wrong: float = 0.0, power: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return how probable each candidate is, and that none is true.

    b_ik = (1 − n_i) w_ik, with w from `candidate_weights` of p^t and n_i from `p_none` of p.

    Parameters
    ----------
    probs
        In [0, 1], shape (N, K).
    is_candidate
        bool, shape (N, K).
    wrong
        Share of sets without the true class.
    power
        t, from `fit_power`.

    Returns
    -------
    b, float64, shape (N, K), 0 for what is no candidate, and n, float64, shape (N,).

    Raises
    ------
    ValueError
        If an item has no candidate.

    Examples
    --------
    >>> said, is_candidate = np.array([[0.03, 0.01, 0.96]]), np.array([[True, True, False]])
    >>> belief, none = candidate_beliefs(said, is_candidate, wrong=0.1)
    >>> belief.round(2).tolist(), none.round(2).tolist()
    ([[0.12, 0.04, 0.0]], [0.84])
    """
    weights = candidate_weights(probs if power == 1.0 else probs**power, is_candidate)
    size = is_candidate.sum(axis=1)
    none = p_none(mass_of(probs, is_candidate), size, wrong=wrong, n_classes=is_candidate.shape[1])
    return (1 - none)[:, None] * weights, none


def count_candidate_votes(indices: np.ndarray, is_candidate: np.ndarray) -> np.ndarray:
    """Return the share of neighbours' candidates that are each class, an item's one vote divided.

    (Σ_j 1{k ∈ C_j} / |C_j| + 1 / K) / (n + 1) over the n neighbours j of an item.

    Parameters
    ----------
    indices
        Positions of references, shape (N, k); −1 where there is none.
    is_candidate
        Of the references, shape (R, K).

    Returns
    -------
    float32, shape (N, K); rows sum to one.

    Examples
    --------
    >>> sets = np.array([[True, False], [True, True]])
    >>> count_candidate_votes(np.array([[0, 1], [1, -1]]), sets).round(3).tolist()
    [[0.6669999957084656, 0.3330000042915344], [0.5, 0.5]]
    """
    check_candidates(is_candidate)
    shares = candidate_weights(np.ones(is_candidate.shape), is_candidate)
    n_classes = is_candidate.shape[1]
    votes, n = np.zeros((len(indices), n_classes)), np.zeros(len(indices))
    for at in indices.T:
        votes += np.where((at >= 0)[:, None], shares[at], 0.0)
        n += at >= 0
    return np.asarray(((votes + 1 / n_classes) / (n + 1)[:, None]).astype(np.float32))
