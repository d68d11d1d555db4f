"""Oracles: the loop of the paper; cleanlab; planted noise."""

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint, estimate_latent
from cleanlab.filter import _keep_at_least_n_per_class
from cleanlab.internal.util import round_preserving_row_totals
from hypothesis import assume
from hypothesis import given as examples
from hypothesis import strategies as st

from labelops.confident import joint as j
from labelops.confident.confusions import rank_confusions
from labelops.confident.issues import estimate_noise
from labelops.confident.latent import estimate_latent as our_latent
from labelops.confident.prune import prune_counts
from tests.labelops.confident.data import is_untied, make, problems
from tests.oracles.confident import slow_joint


@examples(problem=problems())
def test_estimates__equal_those_of_cleanlab_bit_for_bit(problem):
    probs, given = problem
    thresholds, estimates = estimate_noise(probs, given)
    assume(is_untied(probs, given, thresholds))
    raw = compute_confident_joint(given, probs, calibrate=False)
    calibrated = compute_confident_joint(given, probs)
    prior, noise, inverse = estimate_latent(calibrated, given)
    assert np.array_equal(estimates.confident_joint, raw)
    assert np.array_equal(estimates.calibrated_joint, calibrated)
    assert np.array_equal(estimates.prior, prior)
    assert np.array_equal(estimates.noise_matrix, noise)
    assert np.array_equal(estimates.inverse_noise_matrix, inverse)
    counts = slow_joint(probs, given, thresholds)
    assert np.array_equal(raw, j.confident_joint(counts))


@examples(seed=st.integers(0, 9999), size=st.sampled_from([2, 10, 17, 60]))
def test_round_rows__equals_cleanlab_also_where_remainders_tie(seed, size):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 40, (5, size)) / rng.choice([1.0, 2.0, 3.0, 8.0])
    rounded = j.round_rows(values)
    assert np.array_equal(rounded, round_preserving_row_totals(values))
    assert np.array_equal(rounded.sum(axis=1), np.round([np.sum(row) for row in values]))


@examples(
    seed=st.integers(0, 9999),
    keep=st.integers(0, 30),
    frac=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
)
def test_prune_counts__equal_those_of_cleanlab(seed, keep, frac):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(2, 20))
    joint = rng.integers(0, 30, (size, size)) * rng.integers(0, 2, (size, size))
    ours = prune_counts(joint, min_examples=keep, frac_noise=frac)
    theirs = _keep_at_least_n_per_class(joint.T, n=keep, frac_noise=frac)
    assert np.array_equal(ours, theirs.T)


@pytest.mark.parametrize("settings", [{"frac_noise": 1.1}, {"min_examples": -1}])
def test_prune_counts__refuses_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="must"):
        prune_counts(np.eye(2, dtype=int), **settings)


def test_calibrate__keeps_given_class_sizes():
    n_given = np.array([31, 7, 0, 200])
    counts = np.array([[10, 2, 1, 0], [0, 0, 3, 0], [0, 0, 0, 0], [5, 0, 1, 90]])
    calibrated = j.calibrate(j.confident_joint(counts), n_given)
    assert np.array_equal(calibrated.sum(axis=1), n_given)


def test_latent__columns_sum_to_one_and_invert_each_other_by_bayes():
    joint = np.array([[80, 5, 0], [10, 60, 2], [0, 1, 40]])
    n_given = joint.sum(axis=1)
    latent = our_latent(joint, n_given)
    assert np.allclose(latent.noise_matrix.sum(axis=0), 1)
    assert np.allclose(latent.inverse_noise_matrix.sum(axis=0), 1)
    # P(true | given) P(given) = P(given | true) P(true), all from one joint.
    both = latent.inverse_noise_matrix * (n_given / n_given.sum())
    assert np.allclose(both.T, latent.noise_matrix * latent.prior)


@pytest.mark.parametrize("seed", range(3))
def test_noise_rate__finds_planted_uniform_noise(seed):
    probs, given, true = make(seed, n=20_000, n_classes=6, noise=0.24, sharpness=16.0)
    _, estimates = estimate_noise(probs, given)
    assert estimates.total_noise_rate == pytest.approx((given != true).mean(), abs=0.02)
    planted = np.array([(given[true == b] == a).mean() for a in range(6) for b in range(6)])
    assert np.allclose(estimates.noise_matrix.ravel(), planted, atol=0.03)


def test_clean_labels__have_no_noise():
    given = np.repeat(np.arange(4), 25)
    _, estimates = estimate_noise(np.eye(4)[given], given)
    assert estimates.n_errors == 0
    assert np.array_equal(estimates.calibrated_joint, np.eye(4, dtype=int) * 25)
    assert (estimates.noise_rate_low == 0).all()
    assert estimates.total_noise_rate_low == 0


@examples(seed=st.integers(0, 9999))
def test_confusions__are_the_off_diagonal_sorted(seed):
    rng = np.random.default_rng(seed)
    joint = rng.integers(0, 4, (5, 5))
    ranked = rank_confusions(joint, limit=12)
    pairs = [(-joint[a, b], a, b) for a in range(5) for b in range(5) if a != b and joint[a, b]]
    assert list(zip(-ranked.n_items, ranked.given, ranked.true, strict=True)) == sorted(pairs)[:12]


def test_confusions__rank_as_cleanlab_ranks_overlapping_classes():
    from cleanlab.dataset import find_overlapping_classes

    probs, given, _ = make(5, n=2000, n_classes=4, noise=0.3)
    _, estimates = estimate_noise(probs, given)
    table = find_overlapping_classes(
        joint=estimates.calibrated_joint / len(given),
        num_examples=len(given),
        asymmetric=True,
    )
    ours = rank_confusions(estimates.calibrated_joint)
    counts = table["Num Overlapping Examples"].tolist()
    assert counts[: len(ours.n_items)] == ours.n_items.tolist()
    pairs = zip(table["Class Index A"], table["Class Index B"], strict=True)
    named = dict(zip(pairs, counts, strict=True))
    for a, b, n in zip(ours.given.tolist(), ours.true.tolist(), ours.n_items, strict=True):
        assert named[a, b] == n
