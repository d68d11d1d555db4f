"""Oracles: the dense definitions, which are those of cleanlab, bit by bit; adding up all items."""

from typing import get_args

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from scipy import sparse

from labelops.confident import sparse_joint as sj
from labelops.confident.confusions import rank_confusions
from labelops.confident.estimates import estimate, pack, unpack_matrix
from labelops.confident.filters import Filter, Settings, quotas_of
from labelops.confident.issues import estimate_noise, find_label_issues
from labelops.confident.joint import count
from labelops.fast import confident as fast
from tests.labelops.confident.data import cleanlab_flags, is_untied, make

MATRICES = ("confident_joint", "calibrated_joint", "noise_matrix", "inverse_noise_matrix")


def counts_of(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return joint counts, some hardly any, and sizes of the classes; small numbers tie often."""
    rng = np.random.default_rng(seed)
    k = int(rng.choice([1, 2, 3, 9, 40, 150, 300]))
    shown = rng.random((k, k)) < rng.choice([0.001, 0.02, 0.3, 1])
    counts = rng.integers(0, rng.choice([2, 4, 50]), (k, k)) * shown
    counts += np.diag(rng.integers(0, rng.choice([2, 30]), k))
    n_given = counts.sum(axis=1) + rng.integers(0, rng.choice([1, 2, 30]), k)
    counts[0] *= int(rng.random() < 0.7)
    n_given[0] *= int(counts[0].any())
    return counts, n_given


@settings(max_examples=40)
@examples(seed=st.integers(0, 99_999))
def test_estimates__of_listed_pairs_have_the_bits_of_whole_matrices(seed):
    counts, n_given = counts_of(seed)
    dense, listed = estimate(counts, n_given), estimate(sparse.csr_array(counts), n_given)
    packed = pack(listed)
    assert all(array.ndim < 2 for array in packed.values())
    for name in dense._fields:
        wanted, actual = getattr(dense, name), getattr(listed, name)
        if name in MATRICES:
            assert np.array_equal(unpack_matrix(packed, name).toarray(), wanted)
            assert np.array_equal(unpack_matrix(pack(dense), name), wanted)
            actual = actual.toarray()
        assert np.array_equal(actual, wanted, equal_nan=True), name
    ranked = rank_confusions(listed.calibrated_joint, limit=20)
    for ours, theirs in zip(ranked, rank_confusions(dense.calibrated_joint, limit=20), strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


@settings(max_examples=60)
@examples(
    seed=st.integers(0, 99_999),
    filter_by=st.sampled_from(get_args(Filter)),
    keep=st.sampled_from([0, 1, 3]),
    frac=st.sampled_from([1.0, 0.35, 0.0]),
    n_disagreeing=st.sampled_from([0, 7]),
)
def test_quotas__of_listed_pairs_are_those_of_whole_matrices(
    seed, filter_by, keep, frac, n_disagreeing
):
    counts, n_given = counts_of(seed)
    rule = Settings(filter_by, frac, keep)
    dense, listed = estimate(counts, n_given), estimate(sparse.csr_array(counts), n_given)
    wanted = quotas_of(rule, dense.calibrated_joint, n_given, n_disagreeing)
    groups, quotas = quotas_of(rule, listed.calibrated_joint, n_given, n_disagreeing)
    assert np.array_equal(groups, wanted[0])
    assert np.array_equal(quotas, wanted[1])


@examples(seed=st.integers(0, 99_999), n_shards=st.integers(1, 6))
def test_counts__add_up_the_same_for_every_cut_and_order(seed, n_shards):
    rng = np.random.default_rng(seed)
    n, k = int(rng.integers(0, 80)), int(rng.integers(1, 9))
    given, guess = rng.integers(0, k, n), rng.integers(-1, k, n)
    shards = [
        sj.count(given[part], guess[part], n_classes=k)
        for part in np.array_split(rng.permutation(n), n_shards)
    ]
    total = sj.count(given[:0], guess[:0], n_classes=k)
    for shard in shards:
        total = sj.add(shard, total)
    assert np.array_equal(sj.matrix(total, k).toarray(), count(given, guess, n_classes=k))
    assert (total.n > 0).all()
    assert (np.diff(total.key) > 0).all()


@pytest.mark.parametrize("frac", [-0.1, 1.1])
def test_prune_counts__refuses_settings_out_of_range(frac):
    with pytest.raises(ValueError, match="must lie in"):
        sj.prune_counts(sparse.csr_array(np.eye(2, dtype=int)), frac_noise=frac)


def test_matrices__of_many_classes_take_memory_as_pairs_not_as_classes():
    rng = np.random.default_rng(0)
    n, k = 500, 200_000
    given = rng.integers(0, k, n)
    guess = np.where(rng.random(n) < 0.2, rng.integers(0, k, n), given)
    counts = sj.matrix(sj.count(given, guess, n_classes=k), k)
    estimates = estimate(counts, np.bincount(given, minlength=k))
    assert estimates.confident_joint.nnz <= n + k
    assert estimates.calibrated_joint.nnz <= n
    assert estimates.calibrated_joint.sum() == n


@pytest.mark.parametrize("filter_by", get_args(Filter))
@pytest.mark.parametrize("seed", [1, 2])
def test_flags__by_listed_pairs_equal_those_of_cleanlab(filter_by, seed, monkeypatch):
    probs, given, _ = make(seed, n=400, n_classes=9)
    thresholds, wanted = estimate_noise(probs, given)
    assert is_untied(probs, given, thresholds)
    monkeypatch.setattr(sj, "DENSE_CLASSES", 0)
    _, estimates = estimate_noise(probs, given)
    assert np.array_equal(estimates.calibrated_joint.toarray(), wanted.calibrated_joint)
    for find in (find_label_issues, fast.find_label_issues):
        flags = find(probs, given, filter_by=filter_by)
        assert np.array_equal(flags, cleanlab_flags(probs, given, filter_by))
