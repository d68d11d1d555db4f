"""How the error of a student falls with the labels it gets: cheap ones, an expert's, or both.

A few trainings of a pilot are fitted with err(n) = e∞ + A n^−b for each kind of label. Of cheap
labels the floor e∞ is what they are wrong about systematically, which no quantity removes. A
student that had cheap labels before an expert's is taken to be as good as with so many more of the
expert's, of which a share lasts.
"""

# R runs of the pilot, S sizes of it, D draws, B powers

from typing import NamedTuple

import numpy as np

POWERS = (0.02, 2.0)
"""Bounds of b. Learning curves that were measured have 0.1 to 1."""

N_POWERS = 121

MIN_SIZES = 3
"""A curve has three numbers."""


class Runs(NamedTuple):
    """Trainings of a pilot.

    Attributes
    ----------
    n_weak : cheap labels trained on, shape (R,).
    n_expert : an expert's labels trained on after them, on other items, shape (R,).
    error : share of held-out items that the student got wrong, in [0, 1], shape (R,).
    """

    n_weak: np.ndarray
    n_expert: np.ndarray
    error: np.ndarray


class Curve(NamedTuple):
    """err(n) = floor + rise (n / first)^−power; float64, shape (D,) each, or numbers.

    Attributes
    ----------
    floor : e∞ ≥ 0, the error that no number of labels removes.
    rise : ≥ 0, by how much the error at the smallest size of the pilot is above it.
    power : b.
    first : the smallest size.
    """

    floor: np.ndarray
    rise: np.ndarray
    power: np.ndarray
    first: float


class Pilot(NamedTuple):
    """What a pilot says of labels that were not bought yet.

    Attributes
    ----------
    weak, expert : curves of students with labels of one kind only.
    lasting : share, in [0, 1], of what cheap labels are worth in an expert's that is left once a
        student goes on with an expert's; shape (D,). Without a mixed run 0: nothing is promised.
    """

    weak: Curve
    expert: Curve
    lasting: np.ndarray


def fit_curves(n: np.ndarray, error: np.ndarray, weight: np.ndarray) -> Curve:
    """Fit learning curves err(n) = e∞ + A n^−b by weighted least squares, e∞ and A ≥ 0.

    Parameters
    ----------
    n
        Labels of each run, > 0, shape (R,), of three sizes at least.
    error
        In [0, 1], shape (D, R): D curves, all with runs of these sizes.
    weight
        Of each run, > 0, shape (R,).

    Returns
    -------
    Curve, with arrays of shape (D,).

    Raises
    ------
    ValueError
        If sizes are too few or not positive, or an error is not in [0, 1].

    Notes
    -----
    For every b of a grid, e∞ and A have a closed form; then once more between the neighbours of
    the best. b is exact to about 0.001 of it. O(D B R).

    References
    ----------
    Hestness et al.: Deep learning scaling is predictable, empirically. arXiv:1712.00409, 2017 (the
    form of the curve).

    Examples
    --------
    >>> n = np.array([10.0, 40.0, 160.0, 640.0])
    >>> curve = fit_curves(n, 0.1 + 0.8 * n[None] ** -0.5, np.ones(4))
    >>> curve.floor.round(3).tolist(), curve.power.round(3).tolist()
    ([0.1], [0.5])
    """
    if not (n > 0).all() or len(np.unique(n)) < MIN_SIZES:
        raise ValueError(
            f"learning curve: runs with at least {MIN_SIZES} different numbers of labels of one "
            f"kind were expected, got {np.unique(n).tolist()}"
        )
    if not ((error >= 0) & (error <= 1)).all():
        raise ValueError("learning curve: errors in [0, 1] were expected")
    first, (low, high) = float(n.min()), POWERS
    grid = np.repeat(np.geomspace(low, high, N_POWERS)[None], len(error), axis=0)
    for _ in range(2):
        floor, rise, loss = _fit_powers(n / first, error, weight, grid)
        row, best = np.arange(len(error)), loss.argmin(axis=1)
        power, floor, rise = grid[row, best], floor[row, best], rise[row, best]
        below = grid[row, np.maximum(best - 1, 0)]
        above = grid[row, np.minimum(best + 1, N_POWERS - 1)]
        grid = below[:, None] + (above - below)[:, None] * np.linspace(0, 1, N_POWERS)
    return Curve(floor, rise, power, first)


def _fit_powers(
    n: np.ndarray, error: np.ndarray, weight: np.ndarray, power: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return floor, rise and loss for every curve and power; shape (D, B) each."""
    x = n ** -power[:, :, None]
    w, y = weight / weight.sum(), error[:, None, :]
    mean_x, mean_y = (x * w).sum(axis=2), (y * w).sum(axis=2)
    dx = x - mean_x[:, :, None]
    rise = np.maximum((w * dx * y).sum(axis=2) / (w * dx**2).sum(axis=2), 0.0)
    floor = mean_y - rise * mean_x
    is_below = floor < 0
    through_zero = (w * x * y).sum(axis=2) / (w * x**2).sum(axis=2)
    rise, floor = np.where(is_below, through_zero, rise), np.where(is_below, 0.0, floor)
    rest = y - floor[:, :, None] - rise[:, :, None] * x
    return floor, rise, (w * rest**2).sum(axis=2)


def curve_error(curve: Curve, n: np.ndarray) -> np.ndarray:
    """Return the error with n labels, at most 1; without any it is 1.

    Parameters
    ----------
    curve
        Of D draws.
    n
        Shape (D, …) or (1, …).

    Examples
    --------
    >>> curve = Curve(np.array([0.1]), np.array([0.2]), np.array([0.5]), 10.0)
    >>> curve_error(curve, np.array([[10.0, 40.0, 0.0]])).round(3).tolist()
    [[0.3, 0.2, 1.0]]
    """
    floor, rise, power = (np.reshape(x, (-1, 1)) for x in curve[:3])
    # Of what cheap labels are worth, n may be the least fraction of a label.
    times = np.maximum(n, 1e-9) / curve.first
    return np.asarray(np.where(n > 0, np.minimum(floor + rise * times**-power, 1.0), 1.0))


def labels_for(curve: Curve, error: np.ndarray) -> np.ndarray:
    """Return with how many labels a curve has these errors; infinite where it never has.

    Parameters
    ----------
    curve
        Of D draws.
    error
        Shape (D, C) or (1, C).

    Examples
    --------
    >>> curve = Curve(np.array([0.1]), np.array([0.2]), np.array([0.5]), 10.0)
    >>> labels_for(curve, np.array([[0.3, 0.2, 0.1]])).round(3).tolist()
    [[10.0, 40.0, inf]]
    """
    floor, rise, power = (np.reshape(x, (-1, 1)) for x in curve[:3])
    above = error - floor
    is_reached = above > 0
    # A flat curve is there from the first label on.
    log_times = np.log(np.where(is_reached, above, 1.0)) - np.log(np.where(rise > 0, rise, 1.0))
    # Of a slow curve, more than a float holds.
    found = np.where(rise > 0, curve.first * np.exp(np.minimum(-log_times / power, 500.0)), 0.0)
    return np.asarray(np.where(is_reached, found, np.inf))


def fit_pilot(runs: Runs, error: np.ndarray, weight: np.ndarray) -> Pilot:
    """Fit both curves and what lasts.

    Parameters
    ----------
    runs
        R ≥ 6 of them, see `check_runs`; their own errors are not read.
    error
        Of the same runs, shape (D, R).
    weight
        Of each run, shape (R,).

    Raises
    ------
    ValueError
        As `fit_curves`.
    """
    is_weak, is_expert = runs.n_expert == 0, runs.n_weak == 0
    weak, expert = (
        fit_curves(n[of].astype(np.float64), error[:, of], weight[of])
        for n, of in ((runs.n_weak, is_weak), (runs.n_expert, is_expert))
    )
    mixed = ~is_weak & ~is_expert
    lasting = np.zeros(len(error))
    if mixed.any():
        shares = np.linspace(0, 1, N_POWERS)
        loss = np.empty((len(error), N_POWERS))
        for j, share in enumerate(shares):
            pilot = Pilot(weak, expert, np.full(len(error), share))
            said = pilot_error(pilot, runs.n_weak[mixed][None], runs.n_expert[mixed][None])
            loss[:, j] = (weight[mixed] * (said - error[:, mixed]) ** 2).sum(axis=1)
        lasting = shares[loss.argmin(axis=1)]
    return Pilot(weak, expert, lasting)


def pilot_error(pilot: Pilot, n_weak: np.ndarray, n_expert: np.ndarray) -> np.ndarray:
    """Return the error of a student with so many labels of both kinds, cheap ones first.

    The least of err_w(n_w), which is not below err_o(n_w) of an expert's curve, and
    err_o(n_o + s m), with s the share that lasts and m ≤ n_w the number of an expert's labels with
    err_o(m) = err_w(n_w).

    Parameters
    ----------
    pilot
        Of D draws.
    n_weak, n_expert
        Shape (D, C) or (1, C).

    Returns
    -------
    float64, shape (D, C); it falls with both.

    Notes
    -----
    A cheap label is thus worth no more than an expert's, and a student is never worse for labels
    that whoever trains it could leave out.

    Examples
    --------
    >>> weak = Curve(np.array([0.2]), np.array([0.1]), np.array([0.5]), 10.0)
    >>> expert = Curve(np.array([0.0]), np.array([0.4]), np.array([0.5]), 10.0)
    >>> n_weak, n_expert = np.array([[1000.0, 0.0, 1000.0]]), np.array([[0.0, 100.0, 100.0]])
    >>> pilot_error(Pilot(weak, expert, np.ones(1)), n_weak, n_expert).round(3).tolist()
    [[0.21, 0.126, 0.108]]
    """
    of_weak = np.maximum(curve_error(pilot.weak, n_weak), curve_error(pilot.expert, n_weak))
    worth = np.minimum(labels_for(pilot.expert, of_weak), n_weak)
    of_both = curve_error(pilot.expert, n_expert + pilot.lasting[:, None] * worth)
    return np.asarray(np.minimum(of_weak, of_both))


def check_runs(runs: Runs, *, n_test: int) -> Runs:
    """Refuse runs of which nothing can be learned.

    Raises
    ------
    ValueError
        If columns differ in length, an error is not in [0, 1], a number of labels is negative, a
        run has no label, nothing was held out, or runs with one kind of label only have fewer than
        three sizes.

    Examples
    --------
    >>> n = np.array([10, 20, 40])
    >>> none = np.zeros(3, int)
    >>> runs = Runs(np.append(n, none), np.append(none, n), np.full(6, 0.2))
    >>> len(check_runs(runs, n_test=100).error)
    6
    """
    weak, expert, error = (np.asarray(column) for column in runs)
    if not (weak.shape == expert.shape == error.shape) or weak.ndim != 1 or n_test < 1:
        raise ValueError(
            "pilot: as many numbers of labels of both kinds as errors, and at least one held-out "
            f"item were expected, got {weak.shape}, {expert.shape}, {error.shape} and {n_test}"
        )
    # Written so that NaN fails too.
    bad = ~((error >= 0) & (error <= 1) & (weak >= 0) & (expert >= 0) & (weak + expert > 0))
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(
            "pilot: labels of at least one kind and an error in [0, 1] were expected; run "
            f"{row} has {weak[row]:g} and {expert[row]:g} labels and an error of {error[row]:g}"
        )
    for name, n, other in (("cheap", weak, expert), ("an expert's", expert, weak)):
        if len(sizes := np.unique(n[other == 0])) < MIN_SIZES:
            raise ValueError(
                f"pilot: runs with {name} labels only, of at least {MIN_SIZES} sizes, were "
                f"expected, got {len(sizes)}. A learning curve has three numbers"
            )
    return Runs(weak, expert, error)
