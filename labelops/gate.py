"""What a rule that changes labels gains, with an interval, and whether that is enough.

A change *fixes* a label (wrong before, right after), *breaks* one (right before), or does neither.
The gain of a rule is fixed − broken per change. Rows that people reviewed measure it; without them
it can only be expected from beliefs, and then the interval also allows for beliefs that promise
too much.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, ndtri

LEVEL = 0.95

Z = float(ndtri(1 - (1 - LEVEL) / 2))

ALLOWANCE = 0.15
"""So much less (or more) than its mean belief may be right of a rule's changes. Of 240 settings of
three tables, 16 kinds of noise and five seeds, the shortfall was above it, and chance, in five, of
the two tables that are hardest to learn; of others' in none (`benchmarks/harm.py`)."""

ALLOWANCE_ALONE = 0.2
"""The same of a single opinion, which no second one checks. With a linear model on tables with
planted noise up to 0.18 more of the changes broke a label than was expected, where a hundred or
more were made (`benchmarks/harm.py`)."""


class Interval(NamedTuple):
    """An estimate with its bounds."""

    value: float
    low: float
    high: float


class Evidence(NamedTuple):
    """What is known of the changes that one rule proposes.

    Attributes
    ----------
    proposed : number of changes, without reviewed ones.
    expected_fixed : sum of the beliefs in the new labels.
    expected_broken : sum of the beliefs in the given labels.
    variance : sum of the variances of (fixed − broken) according to the beliefs.
    reviewed, fixed, broken : counts among those of its changes that people reviewed.
    """

    proposed: int
    expected_fixed: float
    expected_broken: float
    variance: float
    reviewed: int
    fixed: int
    broken: int


class Verdict(NamedTuple):
    """Whether a rule's changes are made.

    Attributes
    ----------
    ships : whether they are.
    gain : fixed − broken per change.
    is_measured : whether reviewed rows say so, or only beliefs.
    why : a sentence for people.
    """

    ships: bool
    gain: Interval
    is_measured: bool
    why: str


def share_interval(hits: int, n: int, *, level: float = LEVEL) -> Interval:
    """Return the exact interval of a share (Clopper and Pearson).

    Parameters
    ----------
    hits, n
        0 ≤ hits ≤ n; with n = 0 nothing is known.
    level
        Coverage, at least.

    References
    ----------
    Clopper, Pearson: The use of confidence or fiducial limits illustrated in the case of the
    binomial. Biometrika 26, 1934.

    Examples
    --------
    >>> [round(x, 3) for x in share_interval(9, 10)]
    [0.9, 0.555, 0.997]
    """
    if n == 0:
        return Interval(0.5, 0.0, 1.0)
    tail = (1 - level) / 2
    low = float(betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0
    return Interval(hits / n, low, high)


def measured_gain(fixed: int, broken: int, n: int) -> Interval:
    """Return the gain per change, measured on reviewed changes drawn at random.

    Each of the two shares gets its exact interval with half of the permitted error, so the
    interval of their difference covers at least as often as said, for every n.

    Examples
    --------
    >>> [round(x, 2) for x in measured_gain(18, 1, 20)]
    [0.85, 0.37, 0.99]
    """
    half = 1 - (1 - LEVEL) / 2
    up, down = share_interval(fixed, n, level=half), share_interval(broken, n, level=half)
    value = (fixed - broken) / n if n else 0.0
    return Interval(value, up.low - down.high, up.high - down.low)


def expected_gain(evidence: Evidence, *, allowance: float = ALLOWANCE) -> Interval:
    """Return the gain per change that beliefs promise.

    mean(b_new − b_given) ± (z · sd / n + allowance): items are independent given their beliefs, and
    `allowance` covers beliefs that are wrong together.

    Examples
    --------
    >>> e = Evidence(100, 95.0, 3.0, 8.0, 0, 0, 0)
    >>> [round(x, 2) for x in expected_gain(e)]
    [0.92, 0.71, 1.0]
    """
    n = evidence.proposed
    if n == 0:
        return Interval(0.0, -1.0, 1.0)
    value = (evidence.expected_fixed - evidence.expected_broken) / n
    half_width = Z * max(evidence.variance, 0.0) ** 0.5 / n + allowance
    return Interval(value, max(value - half_width, -1.0), min(value + half_width, 1.0))


def expected_count(
    total: float, variance: float, n: int, *, allowance: float = ALLOWANCE
) -> Interval:
    """Return how many of n things will be so, as beliefs promise.

    total ± (z · √variance + n · allowance), of sums of b and of b (1 − b) over the things; see
    `expected_gain`.

    Examples
    --------
    >>> [round(x, 1) for x in expected_count(95.0, 4.0, 100)]
    [95.0, 76.1, 100.0]
    """
    half_width = Z * max(variance, 0.0) ** 0.5 + allowance * n
    return Interval(total, max(total - half_width, 0.0), min(total + half_width, float(n)))


def judge(evidence: Evidence, *, must_be_measured: bool, allowance: float = ALLOWANCE) -> Verdict:
    """Decide whether a rule's changes are made: only if the whole interval of its gain is above 0.

    Parameters
    ----------
    evidence
        What is known of the rule.
    must_be_measured
        Whether expectation alone is not enough. Where it is, too few reviews to tell leave it to
        stand unless they contradict it.
    allowance
        For beliefs that are wrong together.

    Examples
    --------
    >>> judge(Evidence(9, 8.5, 0.3, 0.7, 8, 8, 0), must_be_measured=True).ships
    True
    >>> judge(Evidence(9, 8.5, 0.3, 0.7, 5, 5, 0), must_be_measured=True).ships
    False
    >>> judge(Evidence(9, 8.5, 0.3, 0.7, 5, 5, 0), must_be_measured=False).ships
    True
    >>> judge(Evidence(9, 8.5, 0.3, 0.7, 5, 2, 2), must_be_measured=False).ships
    False
    """
    expected = expected_gain(evidence, allowance=allowance)
    if evidence.reviewed:
        gain = measured_gain(evidence.fixed, evidence.broken, evidence.reviewed)
        text = (
            f"measured on {evidence.reviewed} reviewed changes: {evidence.fixed} fixed, "
            f"{evidence.broken} broken, gain {_text(gain)}"
        )
        if gain.low > 0:
            return Verdict(True, gain, True, text)
        if must_be_measured or not (gain.low <= expected.value <= gain.high and expected.low > 0):
            return Verdict(False, gain, True, f"{text}; held back: gain not clearly above 0")
        return Verdict(
            True, expected, False, f"{text}: too few to decide; expected gain {_text(expected)}"
        )
    text = f"expected, not measured: gain {_text(expected)}"
    if must_be_measured:
        return Verdict(False, expected, False, f"{text}; held back until items are reviewed")
    if evidence.proposed and expected.low > 0:
        return Verdict(True, expected, False, text)
    return Verdict(False, expected, False, f"{text}; held back: gain not clearly above 0")


def _text(gain: Interval) -> str:
    return f"{gain.value:+.2f} per change [{gain.low:+.2f}, {gain.high:+.2f}]"


def variance(p_new: np.ndarray, p_given: np.ndarray) -> np.ndarray:
    """Return the variance of (fixed − broken) of single changes.

    Fixed with probability b_new, broken with b_given, never both: Var = b_new + b_given − (b_new −
    b_given)².

    Examples
    --------
    >>> variance(np.array([1.0, 0.5]), np.array([0.0, 0.5])).tolist()
    [0.0, 1.0]
    """
    return np.asarray(p_new + p_given - np.square(p_new - p_given))
