"""Oracles: planted curves, scipy's least squares, and what labels are worth found by halving."""

import numpy as np
import pytest
from scipy.optimize import curve_fit

from labelops.distill.learning_curves import (
    Curve,
    Pilot,
    Runs,
    check_runs,
    curve_error,
    fit_curves,
    fit_pilot,
    labels_for,
    pilot_error,
)

N = np.array([16.0, 32, 64, 128, 256, 1024])


def curve(floor, rise, power, first=16.0):
    return Curve(*(np.array([x]) for x in (floor, rise, power)), first)


def slow_error(pilot, n_weak, n_expert):
    """Return the error of one student; what cheap labels are worth is found by halving."""

    def err(c, n):
        n = max(n, 1e-9)
        return min(float(c.floor[0] + c.rise[0] * (n / c.first) ** -c.power[0]), 1.0)

    of_weak = max(err(pilot.weak, n_weak), err(pilot.expert, n_weak)) if n_weak else 1.0
    low, high = 0.0, float(n_weak)
    for _ in range(200):
        middle = (low + high) / 2
        if err(pilot.expert, middle) >= of_weak:
            low = middle
        else:
            high = middle
    total = n_expert + pilot.lasting[0] * low
    return min(of_weak, err(pilot.expert, total) if total else 1.0)


@pytest.mark.parametrize("floor", [0.0, 0.15])
@pytest.mark.parametrize("rise", [0.0, 0.3])
@pytest.mark.parametrize("power", [0.05, 0.4, 1.3])
def test_fit__a_planted_curve_is_found(floor, rise, power):
    planted = curve(floor, rise, power)
    error = curve_error(planted, N[None])
    found = fit_curves(N, error, np.ones(len(N)))
    np.testing.assert_allclose(curve_error(found, N[None]), error, atol=1e-4)
    further = 10 * N[None]
    np.testing.assert_allclose(
        curve_error(found, further), curve_error(planted, further), atol=2e-4
    )


@pytest.mark.parametrize("seed", range(6))
def test_fit__no_worse_than_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    planted = curve(rng.uniform(0, 0.2), rng.uniform(0.05, 0.5), rng.uniform(0.2, 1.2))
    error = np.clip(curve_error(planted, N[None]) + rng.normal(0, 0.02, (3, len(N))), 0, 1)
    weight = rng.uniform(0.5, 2, len(N))
    found = fit_curves(N, error, weight)
    for d in range(3):
        theirs, _ = curve_fit(
            lambda n, a, b, c: a + b * (n / 16) ** -c, N, error[d], p0=(0.1, 0.2, 0.5),
            sigma=weight**-0.5, bounds=([0, 0, 0.02], [1, 2, 2.0]),
        )  # fmt: skip
        loss = (weight * (curve_error(curve(*theirs), N[None])[0] - error[d]) ** 2).sum()
        ours = (weight * (curve_error(found, N[None])[d] - error[d]) ** 2).sum()
        assert ours <= loss * (1 + 1e-3) + 1e-12


def test_fit__of_many_draws_is_that_of_each():
    error = np.random.default_rng(0).uniform(0, 1, (7, len(N)))
    whole = fit_curves(N, error, np.ones(len(N)))
    for d in range(7):
        part = fit_curves(N, error[d : d + 1], np.ones(len(N)))
        np.testing.assert_array_equal([x[d] for x in whole[:3]], [x[0] for x in part[:3]])
    assert (whole.floor >= 0).all()
    assert (whole.rise >= 0).all()


def test_fit__repeated_runs_and_order_change_nothing():
    error = np.array([[0.4, 0.31, 0.26, 0.2, 0.19, 0.15]])
    once = fit_curves(N, error, np.ones(6))
    again = fit_curves(np.tile(N, 2)[::-1], np.tile(error, 2)[:, ::-1], np.ones(12))
    np.testing.assert_allclose([x[0] for x in again[:3]], [x[0] for x in once[:3]], rtol=1e-6)


def test_fit__refuses_what_shows_no_curve():
    with pytest.raises(ValueError, match=r"at least 3 different numbers .* got \[10.0, 20.0\]"):
        fit_curves(np.array([10.0, 20.0, 20.0]), np.full((1, 3), 0.1), np.ones(3))
    with pytest.raises(ValueError, match="different numbers"):
        fit_curves(np.array([0.0, 20.0, 30.0]), np.full((1, 3), 0.1), np.ones(3))
    with pytest.raises(ValueError, match=r"errors in \[0, 1\]"):
        fit_curves(np.array([10.0, 20.0, 30.0]), np.full((1, 3), np.nan), np.ones(3))


@pytest.mark.parametrize("power", [0.02, 0.5, 2.0])
def test_labels_for__is_the_inverse(power):
    c = curve(0.1, 0.2, power)
    n = np.array([[1.0, 16, 100, 10_000]])
    error = c.floor + c.rise * (n / 16) ** -c.power
    np.testing.assert_allclose(labels_for(c, error), n, rtol=1e-9)
    assert labels_for(c, np.array([[0.1, 0.05]])).tolist() == [[np.inf, np.inf]]
    assert labels_for(curve(0.1, 0.0, power), np.array([[0.2, 0.1]])).tolist() == [[0.0, np.inf]]
    assert curve_error(c, np.zeros((1, 1))).tolist() == [[1.0]]


@pytest.mark.parametrize("seed", range(8))
def test_pilot_error__is_that_of_the_slow_one(seed):
    rng = np.random.default_rng(seed)
    pilot = Pilot(
        curve(rng.uniform(0, 0.3), rng.uniform(0, 0.3), rng.uniform(0.1, 1.5)),
        curve(rng.uniform(0, 0.1), rng.uniform(0.01, 0.5), rng.uniform(0.1, 1.5)),
        rng.uniform(0, 1, 1),
    )
    n_weak, n_expert = (np.append(0, rng.integers(0, 500, 30)) for _ in range(2))
    found = pilot_error(pilot, n_weak[None], n_expert[None])[0]
    want = [
        slow_error(pilot, w, o) for w, o in zip(n_weak.tolist(), n_expert.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, want, atol=1e-9)
    assert found[0] == 1
    # More labels are never worse.
    grid = np.arange(0, 400, 7)
    for w, o in ((grid, np.full_like(grid, 50)), (np.full_like(grid, 50), grid)):
        assert (np.diff(pilot_error(pilot, w[None], o[None])[0]) <= 1e-12).all()


@pytest.mark.parametrize("lasting", [0.0, 0.25, 1.0])
def test_fit_pilot__finds_what_lasts(lasting):
    planted = Pilot(curve(0.12, 0.4, 0.6), curve(0.02, 0.4, 0.5), np.array([lasting]))
    sizes = np.array([16, 32, 64, 128, 256])
    none = np.zeros(5, int)
    n_weak = np.concatenate([4 * sizes, none, 2 * sizes])
    n_expert = np.concatenate([none, sizes, sizes])
    error = pilot_error(planted, n_weak[None], n_expert[None])
    runs = check_runs(Runs(n_weak, n_expert, error[0]), n_test=100)
    found = fit_pilot(runs, error, np.ones(15))
    assert found.lasting[0] == pytest.approx(lasting, abs=0.01)
    np.testing.assert_allclose(pilot_error(found, n_weak[None], n_expert[None]), error, atol=1e-3)
    only = fit_pilot(Runs(*(x[:10] for x in runs)), error[:, :10], np.ones(10))
    assert only.lasting[0] == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"error": np.full(6, 1.5)}, "run 0 has 10 and 0 labels and an error of 1.5"),
        ({"error": np.full(6, np.nan)}, "error of nan"),
        ({"error": np.full(5, 0.5)}, "as many numbers"),
        ({"n_weak": np.array([0, 20, 30, 0, 0, 0])}, "run 0 has 0 and 0 labels"),
        ({"n_weak": np.array([10, 20, 20, 0, 0, 0])}, "cheap labels only, of at least 3 sizes"),
        ({"n_expert": np.array([0, 0, 0, 9, 9, 9])}, "an expert's labels only"),
        ({"n_expert": np.array([0, 0, 0, -9, 9, 8])}, "run 3 has 0 and -9"),
    ],
)
def test_runs__that_show_nothing_are_refused(change, words):
    runs = Runs(np.array([10, 20, 30, 0, 0, 0]), np.array([0, 0, 0, 10, 20, 30]), np.full(6, 0.5))
    assert len(check_runs(runs, n_test=1).error) == 6
    with pytest.raises(ValueError, match=words):
        check_runs(runs._replace(**change), n_test=1)
    with pytest.raises(ValueError, match="held-out item"):
        check_runs(runs, n_test=0)
