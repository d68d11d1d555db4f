"""Oracles: dense loops over classes, and the closed form of the Kullback–Leibler divergence."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labelops.soft.labels import id_type, smooth, sparsify


def dense_by_loop(p: np.ndarray, kept: list[int]) -> np.ndarray:
    rest = [c for c in range(len(p)) if c not in kept]
    q = p.copy()
    for c in rest:
        q[c] = sum(p[rest]) / len(rest)
    return q


def random_probs(seed: int, n: int, k: int, sharpness: float) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(n, k)) * sharpness
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_classes=st.integers(1, 12),
    k=st.integers(1, 14),
    sharpness=st.sampled_from([0.0, 0.5, 3.0, 30.0]),
)
def test_sparsify__keeps_top_k_and_given_and_the_true_rest(seed, n_classes, k, sharpness):
    p = random_probs(seed, 5, n_classes, sharpness)
    y = np.random.default_rng(seed).integers(0, n_classes, 5)
    soft = sparsify(p, given=y, k=k)
    for i in range(5):
        row = slice(soft.offsets[i], soft.offsets[i + 1])
        ids = soft.ids[row].tolist()
        top = sorted(range(n_classes), key=lambda c: (-p[i, c], c))[:k]
        assert ids == top + ([] if y[i] in top else [int(y[i])])
        np.testing.assert_array_equal(soft.probs[row], p[i, ids].astype(np.float16))
        rest = [p[i, c] for c in range(n_classes) if c not in ids]
        # Half precision has 11 bits; below 2⁻¹⁴ its absolute step is 2⁻²⁴.
        np.testing.assert_allclose(float(soft.tail[i]), sum(rest), rtol=2**-10, atol=2**-24)


@pytest.mark.parametrize("sharpness", [0.0, 1.0, 8.0])
def test_smooth__is_the_dense_loop_up_to_half_precision(sharpness):
    p = random_probs(1, 200, 30, sharpness)
    soft = sparsify(p, k=5)
    want = np.stack(
        [
            dense_by_loop(p[i], soft.ids[soft.offsets[i] : soft.offsets[i + 1]].tolist())
            for i in range(200)
        ]
    )
    np.testing.assert_allclose(smooth(soft), want, atol=2**-10)
    np.testing.assert_allclose(smooth(soft).sum(axis=1), 1, rtol=1e-12)


def test_smooth__peaked_teacher_never_gives_negative_or_unnormalised_labels():
    p = random_probs(3, 500, 1000, 25.0)
    soft = sparsify(p, k=5)
    assert (soft.tail >= 0).all()
    dense = smooth(soft)
    assert (dense >= 0).all()
    np.testing.assert_allclose(dense.sum(axis=1), 1, rtol=1e-12)
    assert (dense.argmax(axis=1) == p.argmax(axis=1)).mean() == 1


def test_ids__are_exact_where_half_precision_is_not():
    p = np.zeros((1, 21_841))
    p[0, [2_049, 20_001]] = [0.6, 0.4]
    soft = sparsify(p, k=2)
    assert soft.ids.tolist() == [2_049, 20_001]
    assert id_type(21_841) == np.uint16
    assert id_type(70_000) == np.uint32


def test_sparsify__empty_and_one_class():
    empty = sparsify(np.zeros((0, 4)), given=np.array([], np.int64))
    assert empty.offsets.tolist() == [0]
    assert empty.tail.shape == (0,)
    one = sparsify(np.ones((3, 1)), given=np.zeros(3, np.int64))
    assert one.ids.tolist() == [0, 0, 0]
    assert one.tail.tolist() == [0, 0, 0]
    assert smooth(one).tolist() == [[1], [1], [1]]


def test_sparsify__refuses_no_classes_to_keep():
    with pytest.raises(ValueError, match="k ≥ 1 were expected, got"):
        sparsify(np.ones((1, 2)) / 2, k=0)
