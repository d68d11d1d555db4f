"""What confident learning looks at in a row of probabilities, written to be read.

`labelops.fast.confident` does the same, compiled; both give the same bits.
"""

from typing import NamedTuple

import numpy as np

from labelops.confident.thresholds import TOLERANCE, confident_bounds

# N items, K classes


class Scan(NamedTuple):
    """Facts about N rows.

    Attributes
    ----------
    guess : the class that the item confidently belongs to, or −1; int32.
    predicted : the most probable class, the first of equals; int32.
    p_predicted : its probability, in the type of the probabilities.
    p_other : largest probability of a class that was not given, likewise; −∞ if there is none.
    agrees : whether the given class is the most probable one, give or take 10⁻⁶. Such items are not
        reported, whatever their margin.
    """

    guess: np.ndarray
    predicted: np.ndarray
    p_predicted: np.ndarray
    p_other: np.ndarray
    agrees: np.ndarray


def scan_rows(probs: np.ndarray, given: np.ndarray, thresholds: np.ndarray) -> Scan:
    """Look at every row once.

    The guess is the one class whose probability reaches its threshold; where several do, the most
    probable class of all; where none does, there is no guess.

    Probabilities are out of sample, float32 or float64, shape (N, K), class ids in 0…K−1,
    thresholds those of `labelops.confident.thresholds.finish`.

    References
    ----------
    Northcutt, Jiang, Chuang: Confident Learning. JAIR 70, 2021, equations 1 and 2, section 3.1
    ("label collisions").

    Examples
    --------
    >>> probs = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.55]])
    >>> scan = scan_rows(probs, np.array([0, 0, 1]), np.array([0.65, 0.55]))
    >>> scan.guess.tolist(), scan.predicted.tolist(), scan.agrees.tolist()
    ([0, 1, 1], [0, 1, 1], [True, False, True])
    """
    rows = np.arange(len(probs))
    is_confident = probs >= confident_bounds(thresholds, probs.dtype)
    n_confident = is_confident.sum(axis=1)
    predicted = probs.argmax(axis=1)
    guess = np.where(n_confident == 1, is_confident.argmax(axis=1), predicted)
    others = probs.copy()
    others[rows, given] = -np.inf
    raised = probs.copy()
    raised[rows, given] += probs.dtype.type(TOLERANCE)
    return Scan(
        guess=np.where(n_confident == 0, -1, guess).astype(np.int32),
        predicted=predicted.astype(np.int32),
        p_predicted=probs[rows, predicted],
        p_other=others.max(axis=1, initial=-np.inf),
        agrees=raised.argmax(axis=1) == given,
    )
