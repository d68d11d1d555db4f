"""Oracles: `noise_at`, `believe`, `propose` and `sparsify` on rows written out."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st
from scipy import sparse

from labelops.belief import believe, noise_at
from labelops.decide import Policy, propose
from labelops.decisions import Action
from labelops.soft.labels import smooth, sparsify
from labelops.sparse_noise import SparseNoise, sparse_noise_at
from labelops.top_belief import believe_top, candidates, in_classes, soften, with_certainty
from tests.labelops.top import make_top

POLICY = Policy(0.6, 0.7, None, Action.REVIEW, Action.KEEP, Action.KEEP)


def noise_of(n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rates and a joint with few pairs, and columns in which there is nothing."""
    rng = np.random.default_rng(seed)
    joint = rng.integers(0, 50, (n_classes, n_classes)) * (rng.random((n_classes, n_classes)) < 0.3)
    joint[:, rng.random(n_classes) < 0.2] = 0
    return rng.choice([0.001, 0.1, 0.5], n_classes), joint


def listed_noise(n_classes: int, seed: int) -> SparseNoise:
    rate, joint = noise_of(n_classes, seed)
    return sparse_noise_at(rate, sparse.csr_array(joint))


@examples(seed=st.integers(0, 99_999), n_classes=st.integers(1, 12))
def test_sparse_noise__is_that_of_the_whole_joint(seed, n_classes):
    dense, listed = noise_at(*noise_of(n_classes, seed)), listed_noise(n_classes, seed)
    given = np.random.default_rng(seed).integers(0, n_classes, 7)
    assert np.allclose(listed[given], dense[given], rtol=1e-13, atol=0)
    assert np.allclose(listed.spread(given), dense.T[given], rtol=1e-13, atol=0)
    every = np.arange(n_classes)
    pairs = np.meshgrid(every, every, indexing="ij")
    assert np.array_equal(listed.at(*pairs), listed[every])
    assert np.allclose(listed.row_sums, dense.sum(axis=1), rtol=1e-12, atol=0)


@examples(seed=st.integers(0, 99_999), n_classes=st.integers(1, 30), n=st.integers(1, 9))
def test_likeliest__is_what_sorting_whole_rows_finds(seed, n_classes, n):
    listed = listed_noise(n_classes, seed)
    rows = listed[np.arange(n_classes)]
    order = np.lexsort((np.broadcast_to(np.arange(n_classes), rows.shape), -rows))
    assert np.array_equal(listed.likeliest(n), order[:, :n])


@settings(max_examples=200)
@examples(
    seed=st.integers(0, 99_999),
    k=st.integers(1, 4),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    longest=st.sampled_from([1, 3, 12]),
)
def test_beliefs__and_what_follows_are_those_of_rows_written_out(seed, k, temperature, longest):
    rows, given = make_top(seed, longest=longest)
    n, n_classes = rows.shape
    noise = listed_noise(n_classes, seed)
    rng = np.random.default_rng(seed)
    reviewed = np.where(rng.random(n) < 0.2, rng.integers(0, n_classes, n), -1)
    n_listed = int(rows.n_listed.max(initial=0))
    ids = candidates(rows, given, noise.likeliest(k + 2 + n_listed), reviewed)
    top = believe_top(rows, given, noise, ids, temperature=temperature)
    whole = cautious = np.zeros((0, n_classes))
    if n:
        whole, cautious = believe(rows.dense(), given, noise, temperature=temperature)
    known = top.ids < n_classes
    item = np.broadcast_to(np.arange(n)[:, None], ids.shape)
    assert np.allclose(top.belief[known], whole[item[known], ids[known]], rtol=1e-10, atol=1e-15)
    wanted = cautious[item[known], ids[known]]
    assert np.allclose(top.cautious[known], wanted, rtol=1e-10, atol=1e-15)
    assert np.allclose(top.belief.sum(axis=1) + top.others, 1, rtol=0, atol=1e-12)
    if not n:
        return
    no = np.zeros(n, bool)
    flags = {"is_issue": rng.random(n) < 0.5, "is_conflict": no, "is_copy": no, "is_outlier": no}
    ours = in_classes(
        propose(top.belief, top.cautious, top.column_of(given), policy=POLICY, **flags), top
    )
    theirs = propose(whole, cautious, given, policy=POLICY, **flags)
    for name in ("p_after", "p_before", "p_next"):
        assert np.allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-10)
    assert np.array_equal(ours.before, theirs.before)
    # What is believed the same can come in another order by a last bit.
    is_clear = theirs.p_after - theirs.p_next > 1e-12
    assert np.array_equal(ours.after[is_clear], theirs.after[is_clear])
    for band in (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99):
        c_after, c_before = cautious[theirs.row, theirs.after], cautious[theirs.row, given]
        for p in (theirs.p_after, theirs.p_before, c_after, 1 - c_before):
            is_clear &= np.abs(p - band) > 1e-9
    assert np.array_equal(ours.action[is_clear], theirs.action[is_clear])
    sure = np.flatnonzero(reviewed >= 0)
    whole[sure] = 0
    whole[sure, reviewed[sure]] = 1
    soft = soften(with_certainty(top, reviewed), given, k=k)
    wanted = sparsify(whole, given=given, k=k)
    # Class ids and what they have may change places where they tie; half precision hides the rest.
    assert np.allclose(np.sort(smooth(soft)), np.sort(smooth(wanted)), atol=2e-3)
    assert np.allclose(soft.tail.astype(float), wanted.tail.astype(float), atol=2e-3)
    owner = np.repeat(np.arange(n), np.diff(soft.offsets))
    assert np.array_equal(np.unique(owner[soft.ids == given[owner]]), np.arange(n))


def test_certainty__is_all_on_the_reviewed_class_wherever_it_stands():
    rows, given = make_top(3, n=5, n_classes=9, longest=2)
    noise = SparseNoise(np.full(9, 1 / 9), sparse.csr_array((9, 9)))
    reviewed = np.array([8, -1, 0, 4, 4])
    ids = candidates(rows, given, noise.likeliest(3), reviewed)
    certain = with_certainty(believe_top(rows, given, noise, ids, temperature=1.0), reviewed)
    sure = reviewed >= 0
    assert np.array_equal(certain.ids[sure, certain.belief[sure].argmax(axis=1)], reviewed[sure])
    assert certain.belief[sure].sum(axis=1).tolist() == [1.0] * 4
    assert not certain.others[sure].any()
    assert certain.others[~sure] > 0


def test_sparse_noise__of_two_hundred_thousand_classes_is_small():
    k = 200_000
    noise = sparse_noise_at(np.full(k, 0.1), sparse.csr_array(sparse.eye_array(k)))
    assert noise.at(np.array([5, 5]), np.array([5, 6])) == pytest.approx([0.9, 0.1 / (k - 1)])
    assert noise.likeliest(2)[[0, 7]].tolist() == [[0, 1], [7, 0]]
