"""Texts as vectors, against scikit-learn's own chain, and texts that nobody expects."""

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfTransformer

from labelops.texts import LEAST_TEXTS, MAX_CHARACTERS, count_features, find_dimensions, place

WORDS = [["red", "rose", "tulip"], ["blue", "sea", "sky"], ["猫", "好き", "です"]]


def lines(n: int, seed: int = 0) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(seed)
    k = rng.integers(0, 3, n)
    return [" ".join(rng.choice(WORDS[c], 6).tolist()) for c in k], k


def test_vectors_are_those_of_scikit_learn() -> None:
    texts, _ = lines(80)
    found = place(texts, find_dimensions(texts, n_dims=5))
    counts = count_features(texts)
    counts.data = np.exp(counts.data - 1)
    kept = np.flatnonzero(np.bincount(counts.indices) >= LEAST_TEXTS)
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts[:, kept])
    wanted = TruncatedSVD(5, n_iter=4, random_state=0).fit_transform(weighted)
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    # Of each axis the sign is free.
    np.testing.assert_allclose(found @ found.T, wanted @ wanted.T, atol=1e-5)


def test_texts_of_a_kind_lie_together() -> None:
    texts, k = lines(200)
    vectors = place(texts, find_dimensions(texts))
    near = vectors @ vectors.T
    same = k[:, None] == k
    assert near[same].mean() > near[~same].mean() + 0.3


def test_a_text_does_not_depend_on_the_texts_beside_it() -> None:
    texts, _ = lines(50)
    dimensions = find_dimensions(texts[:30])
    whole = place(texts, dimensions)
    alone = np.concatenate([place([text], dimensions) for text in texts])
    assert np.array_equal(whole, alone)


@pytest.mark.parametrize("text", ["", " \n\t", "\0", "🙂", "q" * 10, "\u202e", "a" * (1 << 20)])
def test_odd_texts_have_a_vector(text: str) -> None:
    texts, _ = lines(50)
    vector = place([text], find_dimensions([*texts, text, text]))
    assert vector.shape == (1, 256)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(round(np.linalg.norm(vector)), abs=1e-5)


def test_of_a_long_text_the_beginning_is_read() -> None:
    long = "word " * MAX_CHARACTERS
    assert (count_features([long]) != count_features([long[:MAX_CHARACTERS]])).nnz == 0


@pytest.mark.parametrize("texts", [[], ["one"], ["", ""], ["same", "same"]])
def test_corners(texts: list[str]) -> None:
    vectors = place([*texts, "other"], find_dimensions(texts))
    assert vectors.shape == (len(texts) + 1, 256)
    assert np.isfinite(vectors).all()
    assert not place(["日本"], find_dimensions(["cat", "cat"])).any()
