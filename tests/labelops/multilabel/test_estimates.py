"""Oracle: `labelops.confident` on every class by itself."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from labelops.confident import estimates as single
from labelops.confident.filters import Settings, quotas_of
from labelops.confident.joint import round_rows
from labelops.confident.prune import prune_counts as single_prune_counts
from labelops.multilabel.cells import Counts
from labelops.multilabel.estimates import calibrate, estimate, prune_counts, quotas, round_pairs

counts_of_classes = arrays(
    np.int64, (20, 2, 2), elements=st.one_of(st.integers(0, 6), st.integers(0, 100_000))
)
excess = arrays(np.int64, (20, 2), elements=st.integers(0, 500))


@settings(max_examples=60)
@examples(counts=counts_of_classes, more=excess)
def test_calibrate__is_that_of_each_class_by_itself(counts, more):
    n_given = counts.sum(axis=2) + more
    estimates = estimate(counts, n_given, np.ones((20, 2)))
    for c in range(20):
        alone = single.estimate(counts[c], n_given[c])
        assert np.array_equal(estimates.joint[c], alone.confident_joint)
        assert np.array_equal(estimates.calibrated[c], alone.calibrated_joint)
        rates = [estimates.missing_rate[c], estimates.wrong_rate[c]]
        np.testing.assert_array_equal(rates, alone.noise_rate)


@settings(max_examples=60)
@examples(
    counts=counts_of_classes,
    frac_noise=st.sampled_from([0.0, 0.3, 1.0]),
    min_examples=st.sampled_from([0, 1, 7, 1000]),
)
def test_prune_counts__are_those_of_each_class_by_itself(counts, frac_noise, min_examples):
    wanted = {"min_examples": min_examples, "frac_noise": frac_noise}
    pruned = prune_counts(counts, **wanted)
    for c in range(20):
        assert np.array_equal(pruned[c], single_prune_counts(counts[c], **wanted))


@pytest.mark.parametrize("filter_by", ["prune_by_noise_rate", "prune_by_class", "both"])
@settings(max_examples=30)
@examples(counts=counts_of_classes, more=excess, min_examples=st.sampled_from([0, 1, 7]))
def test_quotas__are_those_of_each_class_by_itself(filter_by, counts, more, min_examples):
    n_given = counts.sum(axis=2) + more
    estimates = estimate(counts, n_given, np.ones((20, 2)))
    everything = Counts(counts, n_given, n_given)
    rules = Settings(filter_by, 1.0, min_examples)
    got = quotas(rules, estimates, everything).reshape(20, 2)
    for c in range(20):
        groups, n = quotas_of(rules, estimates.calibrated[c], n_given[c], 0)
        alone = np.zeros((2, 2), int)
        alone.ravel()[groups] = n
        by_pair, by_class = np.array([alone[0, 1], alone[1, 0]]), alone.diagonal()
        want = {
            "prune_by_noise_rate": by_pair,
            "prune_by_class": by_class,
            "both": np.minimum(by_pair, by_class),
        }[filter_by]
        assert np.array_equal(got[c], np.minimum(want, n_given[c]))


@examples(values=arrays(np.float64, (30, 2), elements=st.integers(0, 40).map(lambda x: x / 4)))
def test_round_pairs__rounds_as_rows_of_any_length_are_rounded(values):
    assert np.array_equal(round_pairs(values), round_rows(values))


def test_estimates__of_classes_that_nobody_or_everybody_has():
    counts = np.array([[[5, 0], [0, 0]], [[0, 0], [0, 5]], [[0, 0], [0, 0]]])
    n_given = np.array([[5, 0], [0, 5], [0, 0]])
    estimates = estimate(counts, n_given, np.ones((3, 2)))
    assert estimates.n_wrong.tolist() == estimates.n_missing.tolist() == [0, 0, 0]
    assert np.isnan(estimates.wrong_rate).tolist() == [True, False, True]
    assert np.isnan(estimates.missing_rate).tolist() == [False, True, True]
    assert calibrate(estimates.joint, n_given).sum(axis=(1, 2)).tolist() == [5, 5, 0]
