"""Oracles: the faults that were planted, and the NumPy definition for the compiled loop."""

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from labelops.fast.simplex import check_rows
from labelops.simplex import bad_rows, what_is_wrong

FAULTS = {"nan": np.nan, "inf": np.inf, "minus inf": -np.inf, "negative": -0.25, "large": 7.0}


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("fault", FAULTS)
@for_all(seed=st.integers(0, 2**32), n=st.integers(0, 60), k=st.integers(2, 40))
def test_simplex__planted_faults_are_found_and_nothing_else(
    fault: str, kind: type, seed: int, n: int, k: int
) -> None:
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(k), n).astype(kind)
    planted = np.flatnonzero(rng.random(n) < 0.2)
    probs[planted, rng.integers(0, k, len(planted))] = FAULTS[fault]
    given = rng.integers(0, k, n)
    bad, p_given = check_rows(probs, given, tolerance=1e-3)
    assert bad.tolist() == planted.tolist()
    assert bad_rows(probs).tolist() == planted.tolist()
    np.testing.assert_array_equal(p_given, probs[np.arange(n), given])
    assert p_given.dtype == kind


@pytest.mark.parametrize("miss", [-0.0011, -0.0009, 0.0, 0.0009, 0.0011])
def test_simplex__a_sum_may_miss_one_by_the_tolerance(miss: float) -> None:
    probs = np.array([[0.5, 0.5 + miss]])
    expected = [0] if abs(miss) > 1e-3 else []
    assert bad_rows(probs).tolist() == expected
    assert check_rows(probs, np.array([0]), tolerance=1e-3)[0].tolist() == expected


def test_simplex__half_precision_over_a_thousand_classes_is_near_enough() -> None:
    probs = np.random.default_rng(0).dirichlet(np.full(1000, 0.3), 200).astype(np.float16)
    assert bad_rows(probs).tolist() == []


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([0.5, np.inf], "probabilities not finite: class 1 has inf"),
        (
            [3.1, -0.4, 0.517],
            "probabilities negative: class 1 has -0.4. Were logits passed instead of "
            "probabilities?",
        ),
        (
            [3.0, 0.2, 0.017],
            "probabilities do not sum to 1: they sum to 3.2170. Were logits passed instead of "
            "probabilities?",
        ),
    ],
)
def test_simplex__says_what_is_wrong(row: list[float], reason: str) -> None:
    assert what_is_wrong(np.array(row)) == reason
