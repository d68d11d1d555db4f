"""Which items to ask a teacher about, when it may be wrong just where it matters.

The items that a student is least sure of teach it most, and are those that a teacher gets wrong
most. Robust active distillation draws items so that the gain is as large as it can be whichever of
them the teacher is wrong about: the least sure ones, but the surer the oftener, so that each is
worth the same to an adversary.

It insures, and does not teach better: in `benchmarks/query.py` students of teachers with ordinary
errors became as good by the margin alone. Where the teacher was wrong about the least sure items,
those that asked by the margin became worse than by chance; those that asked so, against as many
errors as there were, as good as by chance.
"""

# N items, K classes, k in the support

from typing import NamedTuple

import numpy as np

from labelops.hashing import hash_integers

LEAST_GAIN = 1e-6
"""A gain counts as this at least: its inverse is summed."""

SALT = 0x0A5C_7EAC_4E12
"""Draws follow other hashes than folds and samples."""


class Game(NamedTuple):
    """What a learner plays against an adversary who chooses where the teacher is wrong.

    Attributes
    ----------
    probs : of drawing each item, float64, shape (N,); they sum to one.
    n_support : items that may be drawn.
    value : gain of a draw that is certain, whichever items the teacher is wrong about; 0 or less if
        nothing is.
    """

    probs: np.ndarray
    n_support: int
    value: float


class Query(NamedTuple):
    """Items to ask about.

    Attributes
    ----------
    rows : positions, in the order drawn, int64, shape (n,).
    game : by which they were drawn.
    """

    rows: np.ndarray
    game: Game


def margin_gain(probs: np.ndarray) -> np.ndarray:
    """Return what a label of an item is worth to a student: one minus its margin, at least 1e-6.

    g = 1 − (p₍₁₎ − p₍₂₎), in (0, 1].

    Parameters
    ----------
    probs
        Of the student, shape (N, K); not of the teacher, who is yet to be asked.

    Raises
    ------
    ValueError
        If it is not a matrix with at least one class, or a value is not in [0, 1].

    Examples
    --------
    >>> margin_gain(np.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])).round(6).tolist()
    [1.0, 0.2, 1e-06]
    """
    p = np.asarray(probs, np.float64)
    if p.ndim != 2 or p.shape[1] < 1:
        raise ValueError(f"margin_gain: probs of shape (N, K), K ≥ 1, were expected, got {p.shape}")
    # Written so that NaN fails too.
    bad = ~((p >= 0) & (p <= 1)).all(axis=1)
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"margin_gain: probabilities in [0, 1] were expected; row {row} has "
            f"{p[row].min():g} … {p[row].max():g}. Were logits passed?"
        )
    if p.shape[1] == 1:
        return np.full(len(p), LEAST_GAIN)
    top = np.partition(p, -2, axis=1)[:, -2:]
    return np.asarray(np.maximum(1 - (top[:, 1] - top[:, 0]), LEAST_GAIN))


def solve_game(gain: np.ndarray, *, n_wrong: float = 1.0, penalty: float = 1.0) -> Game:
    """Return how to draw items so that the least gain, over what may be wrong, is greatest.

    A draw of item i gains g_i if the teacher is right about it and loses c g_i if not. The
    adversary chooses m items to be wrong:

    max_p [ Σ p_i g_i − (1 + c) · (sum of the m largest p_i g_i) ].

    With gains in descending order and H_k = Σ_{i ≤ k} 1 / g_i, k* is where (k − (1 + c) m) / H_k is
    greatest, which is the value, and p_i = 1 / (g_i H_k*) of the k* first, 0 of the others.

    Parameters
    ----------
    gain
        g > 0, such as `margin_gain`; shape (N,), N ≥ 1. The form supposes that gains add up.
    n_wrong
        m > 0. Of a teacher who is wrong about a share ε of all items: N ε.
    penalty
        c ≥ 0. With 1 a wrong label does as much harm as a right one does good; with 0 none.

    Returns
    -------
    Game; ties of the value by fewer items.

    Raises
    ------
    ValueError
        If there is no item, a gain is not positive and finite, or m or c cannot be.

    Notes
    -----
    That is optimal wherever the value is not negative, for any m, also a fraction: with λ the
    value, w_i = (1 − λ / g_i) / (1 + c) is in [0, 1] on the support and sums to m, so it is the
    adversary's play, and g_i ≤ λ elsewhere. With N < (1 + c) m nothing positive is certain; then
    all items share alike, and the value is what that loses. O(N log N).

    References
    ----------
    Baykal, Trinh, Iliopoulos, Menghani, Vee: Robust active distillation. ICLR 2023. Its constant
    was not compared with the paper's, whose text was not at hand: hence m and c are arguments.

    Examples
    --------
    >>> game = solve_game(np.array([1.0, 0.9, 0.8, 0.5, 0.3, 0.1]))
    >>> game.probs.round(3).tolist(), game.n_support, round(game.value, 6)
    ([0.187, 0.207, 0.233, 0.373, 0.0, 0.0], 4, 0.373057)
    """
    g = np.asarray(gain, np.float64)
    if g.ndim != 1 or not len(g):
        raise ValueError(f"solve_game: gains of at least one item were expected, got {g.shape}")
    bad = ~((g > 0) & (g < np.inf))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            f"solve_game: gains above 0 were expected; row {row} has {g[row]:g}. "
            f"Use at least {LEAST_GAIN:g} for what teaches nothing"
        )
    if not (0 < n_wrong < np.inf and 0 <= penalty < np.inf):
        raise ValueError(
            "solve_game: n_wrong above 0 and a penalty of at least 0 were expected, got "
            f"{n_wrong:g} and {penalty:g}"
        )
    order = np.argsort(-g, kind="stable")
    inverse = 1 / g[order]
    until = np.cumsum(inverse)
    at_stake = (1 + penalty) * n_wrong
    if len(g) < at_stake:
        k = len(g)
        value = (k - (1 + penalty) * min(n_wrong, k)) / until[-1]
    else:
        ratio = (np.arange(1, len(g) + 1) - at_stake) / until
        k = int(np.argmax(ratio)) + 1
        value = ratio[k - 1]
    probs = np.zeros(len(g))
    probs[order[:k]] = inverse[:k] / until[k - 1]
    return Game(probs, k, float(value))


def draw_items(weights: np.ndarray, hashes: np.ndarray, *, n: int, turn: int = 0) -> np.ndarray:
    """Draw distinct items, one after the other, each time in proportion to their weights.

    The n greatest keys log(u) / w, with u in (0, 1) from the hash of item and turn.

    Parameters
    ----------
    weights
        w ≥ 0, shape (N,). Items of weight 0 are never drawn.
    hashes
        Of items, uint64, shape (N,): the same hashes draw the same, in whatever order they come.
    n
        How many; all with a weight if there are no more.
    turn
        Number of the draw, so that who was unlucky once is not unlucky ever after.

    Returns
    -------
    Positions in the order drawn, int64, shape (min(n, number of weights above 0),).

    Raises
    ------
    ValueError
        If shapes differ, n is negative, or a weight is negative or not finite; or if all weights of
        one or more items are 0 and n > 0.

    Notes
    -----
    The first item is drawn with probability w_i / Σ w. How probably an item is among n is not n
    times that: with n near the number of weights, all are drawn, whatever they are.

    References
    ----------
    Efraimidis, Spirakis: Weighted random sampling with a reservoir. Information Processing Letters
    97(5), 2006, algorithm A.

    Examples
    --------
    >>> hashes = np.arange(5, dtype=np.uint64)
    >>> draw_items(np.array([0.0, 1.0, 1.0, 8.0, 0.0]), hashes, n=2).tolist()
    [3, 1]
    """
    w = np.asarray(weights, np.float64)
    if w.ndim != 1 or hashes.shape != w.shape or n < 0:
        raise ValueError(
            "draw_items: as many weights as hashes and n ≥ 0 were expected, got "
            f"{w.shape}, {hashes.shape} and {n}"
        )
    bad = ~((w >= 0) & (w < np.inf))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"draw_items: weights of at least 0 were expected; row {row} has {w[row]}")
    candidates = np.flatnonzero(w)
    if len(w) and n and not len(candidates):
        raise ValueError(f"draw_items: a weight above 0 was expected, got {len(w)} weights of 0")
    own = hash_integers(np.array([turn ^ SALT]))
    mixed = hash_integers((hashes[candidates].astype(np.uint64) ^ own).view(np.int64))
    # In the middle of one of 2⁵³ parts: never 0 or 1.
    u = ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    # With log(w) − log(−log u), the same order, no weight is so small that keys overflow.
    key = np.log(w[candidates]) - np.log(-np.log(u))
    order = np.lexsort((mixed, -key))
    return np.asarray(candidates[order[:n]])


def ask_about(
    gain: np.ndarray,
    hashes: np.ndarray,
    *,
    n: int,
    n_wrong: float,
    penalty: float = 1.0,
    turn: int = 0,
) -> Query:
    """Draw the items to ask a teacher about in this turn, by `solve_game`.

    Where fewer may be drawn than are asked for, those of the greatest gain follow: with little that
    may be wrong and much that is asked, that is what the margin alone would choose.

    Parameters
    ----------
    gain
        Of all items not yet asked about, shape (N,).
    hashes
        Of their ids, uint64, shape (N,).
    n
        How many; all if there are no more.
    n_wrong
        m > 0: how many of all these the teacher is believed to be wrong about.
    penalty
        See `solve_game`.
    turn
        See `draw_items`.

    Raises
    ------
    ValueError
        As these two; without any item, if n > 0.

    Examples
    --------
    >>> gain, hashes = np.array([1.0, 0.9, 0.8, 0.5, 0.3, 0.1]), np.arange(6, dtype=np.uint64)
    >>> ask_about(gain, hashes, n=5, n_wrong=1).rows.tolist()
    [0, 1, 3, 2, 4]
    """
    if n == 0 and not len(gain):
        return Query(np.zeros(0, np.int64), Game(np.zeros(0), 0, 0.0))
    game = solve_game(gain, n_wrong=n_wrong, penalty=penalty)
    drawn = draw_items(game.probs, hashes, n=n, turn=turn)
    if len(drawn) < n:
        rest = np.flatnonzero(game.probs == 0)
        order = np.lexsort((hashes[rest], -np.asarray(gain)[rest]))
        drawn = np.concatenate([drawn, rest[order[: n - len(drawn)]]])
    return Query(drawn, game)
