"""Columns as numbers, against pandas and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer

from labelops.tabular import MAX_CATEGORIES, MISSING, Encoding, encode, learn


def table(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(n, 3)) * [1, 1e6, 1e-6]
    numbers[rng.random((n, 3)) < [0.0, 0.2, 0.5]] = np.nan
    categories = rng.integers(0, [3, 8], (n, 2)).astype(np.uint64)
    return numbers, categories


def test_numbers_are_filled_and_gaps_are_said() -> None:
    numbers, categories = table(200)
    rows = encode(learn(numbers, categories), numbers, categories)
    filled = SimpleImputer(strategy="median", add_indicator=True).fit_transform(numbers)
    np.testing.assert_allclose(rows[:, : filled.shape[1]], filled, rtol=1e-6)


def test_categories_have_a_number_each_and_one_for_all_that_the_sample_lacks() -> None:
    numbers, categories = table(200)
    encoding = learn(numbers[:50], categories[:50])
    rows = encode(encoding, numbers, categories)
    rest = rows[:, 3 + encoding.has_gaps.sum() :]
    assert rows.shape[1] == encoding.width
    at = 0
    for q in range(2):
        known = np.unique(categories[:50, q])
        dummies = pd.get_dummies(pd.Categorical(categories[:, q], categories=known)).to_numpy()
        assert np.array_equal(rest[:, at : at + len(known)], dummies)
        at += len(known)
        assert np.array_equal(rest[:, at] > 0, ~np.isin(categories[:, q], known))
        at += 1


def test_the_order_of_the_sample_does_not_matter() -> None:
    numbers, categories = table(300)
    order = np.random.default_rng(1).permutation(300)
    one, other = learn(numbers, categories), learn(numbers[order], categories[order])
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_most_frequent_categories_are_kept() -> None:
    many = np.repeat(np.arange(1, 101), np.arange(1, 101)).astype(np.uint64)[:, None]
    kept = learn(np.empty((len(many), 0)), many).category
    assert kept.tolist() == list(range(101 - MAX_CATEGORIES, 101))


@pytest.mark.parametrize("n", [0, 1])
def test_corners(n: int) -> None:
    encoding = learn(np.full((n, 2), np.nan), np.full((n, 1), MISSING))
    assert encoding.median.tolist() == [0.0, 0.0]
    rows = encode(encoding, np.array([[np.inf, 1e300]]), np.array([[5]], np.uint64))
    assert np.isfinite(rows).all()
    assert rows.shape == (1, encoding.width)
    nothing = Encoding(np.zeros(0), np.zeros(0, bool), np.zeros(0, np.uint64), np.zeros(1, int))
    assert encode(nothing, np.empty((3, 0)), np.empty((3, 0), np.uint64)).shape == (3, 0)
