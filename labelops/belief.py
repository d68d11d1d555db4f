"""What the true label of an item is, as far as a model and a noise model can tell.

A model that was trained and calibrated on wrong labels predicts what annotators would *say*. Here
its temperature is fitted through the noise model instead: sharpened by 1 / T and then blurred by
P(given | true), its predictions must explain the given labels. What is left before the blur is a
prediction of the true class, q.

That is not yet a belief, because the given label is evidence too. How much, depends on something
no given label can tell: if errors hit items at random within a class, Bayes' rule with P(given |
true) is right; if they hit just the items that look like the other class, the given label adds
nothing to q. The belief is the mean of the two; what is done without asking anybody must hold under
Bayes' rule, which speaks more for the given label and is called *cautious*. How much noise there is
is read off the surest predictions (`labelops.confident.surest`): a model disagrees with right
labels, too.

Measured by `benchmarks/belief.py` on CIFAR-10N (people's errors; two models, five label sets),
digits with simulated errors and Hausa headlines, 15 settings: squared error of "this is the right
label" 0.106 with probabilities calibrated to the given labels, 0.074 with q, 0.101 with Bayes'
rule, 0.069 with the mean. Of changes at a cautious belief of at least 0.9 the share that was right
lay between 0.02 below and 0.08 above what was promised, wherever there were ten or more. With
planted noise, and none, on tables: `benchmarks/harm.py`.
"""

# N items, K classes, G temperatures

from typing import Protocol

import numpy as np

from labelops.calibration import log_safe
from labelops.temperature import apply_temperature

COARSE = np.geomspace(0.1, 10.0, 21)
"""Temperatures tried first; the true one is next to the best of them."""

UNIT = 1 << 32
"""Sums over items are held in integers of this size, so that they do not depend on shards."""

PRIOR = 0.5
"""So many more items than were counted have each pair of classes: no label is impossible."""

DOUBT = 0.001
"""So often a prediction is worth nothing, however sure it is: models are overconfident far from
what they learned from."""

LEFT = 0.1
"""So much of its probability a class keeps, however much noise is taken from it: neither of the two
is known better."""

TIE = 5.0
"""Two ways to read predictions are told apart if one explains the given labels this much better, in
nats over all items: odds of 150 to 1."""

MAX_NLL = 32.0


class ListedNoise(Protocol):
    """A noise matrix that is held otherwise than from `noise_at`."""

    def __getitem__(self, given: np.ndarray, /) -> np.ndarray:
        """Return P(given_i | ·) of some items, shape (N, K)."""
        ...

    def spread(self, true: np.ndarray) -> np.ndarray:
        """Return P(· | true_i) of some items, shape (N, K)."""
        ...


Noise = np.ndarray | ListedNoise
"""A noise matrix without zeros."""


def spread_of(noise: Noise, true: np.ndarray) -> np.ndarray:
    """Return P(· | true_i) of some items, shape (N, K)."""
    return np.asarray(noise.T[true]) if isinstance(noise, np.ndarray) else noise.spread(true)


def noise_at(rate: np.ndarray, joint: np.ndarray) -> np.ndarray:
    """Return P(given = a | true = b) at [a, b], shape (K, K), none of it 0.

    Parameters
    ----------
    rate
        Share of labels that are wrong where a class is true, in (0, ½], shape (K,).
    joint
        Items by given and probable true class, shape (K, K): the wrong labels of a class fall on
        the others in proportion to them, with `PRIOR` items more of each.

    Examples
    --------
    >>> noise_at(np.array([0.1, 0.3, 0.1]), np.array([[9, 1, 0], [2, 5, 0], [0, 0, 8]])).round(3)
    array([[0.9  , 0.225, 0.05 ],
           [0.083, 0.7  , 0.05 ],
           [0.017, 0.075, 0.9  ]])
    """
    others = joint + PRIOR
    np.fill_diagonal(others, 0.0)
    noise = others * (rate / np.maximum(others.sum(axis=0), PRIOR))
    np.fill_diagonal(noise, 1 - rate if len(rate) > 1 else 1.0)
    return np.asarray(noise)


def fine_grid(best: float) -> np.ndarray:
    """Return temperatures around the best coarse one, up to its neighbours."""
    step = COARSE[1] / COARSE[0]
    return best * np.geomspace(1 / step, step, 21)


def less_noise(probs: np.ndarray, noise: Noise) -> np.ndarray:
    """Return predictions of given labels, less the noise of the class that leads.

    A model that learned P(given | x) says p = P(given | true = a) where it is sure of class a. So
    q_a = p_a / P(a | a), and every other class loses q_a · P(class | a), as far as it has that.

    Parameters
    ----------
    probs
        Predictions of given labels, float64, shape (N, K); rows sum to one.
    noise
        From `noise_at`, or one that is held otherwise.

    Examples
    --------
    >>> less_noise(np.array([[0.8, 0.2]]), np.array([[0.8, 0.1], [0.2, 0.9]])).round(4).tolist()
    [[0.9804, 0.0196]]
    """
    rows, lead = np.arange(len(probs)), probs.argmax(axis=1)
    spread = spread_of(noise, lead)
    p_lead = probs[rows, lead] / spread[rows, lead]
    q = np.maximum(probs - spread * p_lead[:, None], LEFT * probs)
    q[rows, lead] = p_lead
    return np.asarray(q / q.sum(axis=1, keepdims=True))


def true_probs(
    probs: np.ndarray, noise: Noise, *, temperature: float, subtracts: bool
) -> np.ndarray:
    """Return predictions q of the true class, float64, shape (N, K).

    softmax(log p / T) as it is; or, if T makes that a prediction of the given label, `less_noise`.
    """
    q = apply_temperature(probs, temperature=temperature)
    return less_noise(q, noise) if subtracts else q


def loss_through_noise(
    probs: np.ndarray,
    given: np.ndarray,
    noise: Noise,
    temperatures: np.ndarray,
    *,
    subtracts: bool = False,
) -> np.ndarray:
    """Sum −log Σ_b P(given_i | b) q_b, with q of `true_probs`, for several T.

    Parameters
    ----------
    probs
        Out-of-sample predictions, shape (N, K).
    given
        Class ids, shape (N,).
    noise
        From `noise_at`; any that gives the rows P(given_i | ·) of some items.
    temperatures
        T > 0, shape (G,).

    Returns
    -------
    int64, shape (G,): sums in units of 2⁻³²; those of shards are added.

    References
    ----------
    Patrini et al.: Making deep neural networks robust to label noise: a loss correction approach.
    CVPR 2017, theorem 2 ("forward" correction).

    Examples
    --------
    >>> p, noise = np.array([[0.8, 0.2]]), np.array([[0.9, 0.1], [0.1, 0.9]])
    >>> loss = loss_through_noise(p, np.array([0]), noise, np.array([1.0])) / UNIT
    >>> bool(np.isclose(loss[0], -np.log(0.9 * 0.8 + 0.1 * 0.2)))
    True
    """
    likelihood = noise[given]
    log_probs = log_safe(probs)
    log_probs -= log_probs.max(axis=1, keepdims=True)
    total = np.zeros(len(temperatures), np.int64)
    for g, temperature in enumerate(temperatures):
        q = np.exp(log_probs / temperature)
        q /= q.sum(axis=1, keepdims=True)
        if subtracts:
            q = less_noise(q, noise)
        explained = (q * likelihood).sum(axis=1)
        loss = np.minimum(-np.log(np.maximum(explained, 1e-300)), MAX_NLL)
        total[g] = np.rint(loss * UNIT).astype(np.int64).sum()
    return total


def best_temperature(temperatures: np.ndarray, losses: np.ndarray) -> float:
    """Return the temperature of least loss; of equals, the one nearest to 1.

    Examples
    --------
    >>> best_temperature(np.array([0.5, 1.0, 2.0]), np.array([7, 7, 9]))
    1.0
    """
    order = np.lexsort([np.abs(np.log(temperatures)), losses])
    return float(temperatures[order[0]])


def believe(
    probs: np.ndarray,
    given: np.ndarray,
    noise: Noise,
    *,
    temperature: float,
    subtracts: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability of every class to be an item's true one; and a cautious one.

    b = ½ q + ½ c, with c = (q + δ/K) · P(given | ·) / Σ, δ = `DOUBT`, and q of `true_probs`; T and
    whether noise is subtracted are those of least `loss_through_noise`. Of the two kinds of noise,
    c is of the one that speaks more for the given label, at whatever item.

    Returns
    -------
    b and c, float64, shape (N, K); rows sum to one.

    Examples
    --------
    >>> noise = np.array([[0.9, 0.1], [0.1, 0.9]])
    >>> b, c = believe(np.array([[0.5, 0.5]]), np.array([0]), noise, temperature=1.0)
    >>> b.tolist(), c.tolist()
    ([[0.7, 0.3]], [[0.9, 0.1]])
    """
    q = true_probs(probs, noise, temperature=temperature, subtracts=subtracts)
    cautious = (q + DOUBT / q.shape[1]) * noise[given]
    cautious /= cautious.sum(axis=1, keepdims=True)
    return (q + cautious) / 2, cautious


def most_cautious(one: np.ndarray, other: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return the less of two cautious beliefs in every class but the given, which gets the rest.

    For ways to read predictions between which the given labels do not decide, shapes (N, K).

    Examples
    --------
    >>> a, b = np.array([[0.1, 0.9, 0.0]]), np.array([[0.2, 0.5, 0.3]])
    >>> most_cautious(a, b, np.array([0])).tolist()
    [[0.5, 0.5, 0.0]]
    """
    row, less = np.arange(len(given)), np.minimum(one, other)
    less[row, given] = 0.0
    less[row, given] = np.maximum(1.0 - less.sum(axis=1), 0.0)
    return np.asarray(less)
