"""Oracle: scikit-learn's LogisticRegression, class by class and fold by fold; closed forms."""

from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from labelops.multilabel.labels import UNKNOWN, LabelSets, from_states, take_rows
from labelops.nn.binary_heads import (
    constant_log_odds,
    count_answers,
    fit_binary_heads,
)
from labelops.nn.linear import Block, Blocks, Heads
from labelops.nn.linear import predict as predict_by

N, D, K, F = 500, 8, 5, 3


predict = partial(predict_by, link="sigmoid")


class Data(NamedTuple):
    x: np.ndarray
    table: np.ndarray
    fold: np.ndarray


def made(seed: int = 0, unknown: float = 0.0) -> Data:
    rng = np.random.default_rng(seed)
    x = rng.normal(3, 2, (N, D)).astype(np.float32)
    logits = (x - 3) @ rng.normal(0, 0.7, (D, K)) - np.arange(K)
    table = (rng.random((N, K)) < expit(logits)).astype(np.int8)
    table[rng.random((N, K)) < unknown] = UNKNOWN
    return Data(x, table, np.arange(N) % F)


def cut(data: Data, rows: int = 128) -> Blocks[LabelSets]:
    labels: LabelSets = from_states(data.table)
    parts = [slice(s, s + rows) for s in range(0, len(data.x), rows)]
    return lambda: [Block(data.x[p], take_rows(labels, p), data.fold[p]) for p in parts]


def fitted(data: Data, l2: float | None = 0.01, **options: float) -> Heads:
    sizes = {"n_features": data.x.shape[1], "n_classes": data.table.shape[1], "n_folds": F}
    return fit_binary_heads(cut(data), l2=l2, **sizes, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("unknown", [0.0, 0.4])
@pytest.mark.parametrize("l2", [0.1, 0.001])
def test_heads__equal_scikit_learns_logistic_regression(l2: float, unknown: float) -> None:
    data = made(unknown=unknown)
    probs = predict(fitted(data, l2, tolerance=1e-10), data.x, data.fold)
    z = StandardScaler().fit_transform(data.x.astype(np.float64))
    for f in range(F):
        own = data.fold == f
        for c in range(K):
            seen = ~own & (data.table[:, c] != UNKNOWN)
            theirs = LogisticRegression(C=1 / (l2 * seen.sum()), max_iter=5000, tol=1e-10)
            expected = theirs.fit(z[seen], data.table[seen, c]).predict_proba(z[own])[:, 1]
            # Ours computes in single precision, in which the loss is flat about the minimum.
            np.testing.assert_allclose(probs[own, c], expected, atol=2e-3)


def test_default_tolerance__is_close_enough_to_the_minimum() -> None:
    data = made()
    probs = predict(fitted(data), data.x, data.fold)
    exact = predict(fitted(data, tolerance=1e-10), data.x, data.fold)
    np.testing.assert_allclose(probs, exact, atol=0.02)


def test_one_sided_classes__get_their_shrunk_share() -> None:
    data = made()
    data.table[:, 0], data.table[:, 1] = 0, 1
    # All who have class 2 are in one fold: its own head has never seen one.
    data.table[:, 2] = 0
    data.table[np.flatnonzero(data.fold == 1)[:5], 2] = 1
    data.table[:, 3] = UNKNOWN
    heads = fitted(data)
    probs = predict(heads, data.x, data.fold)
    for f in range(F):
        seen = data.fold != f
        yes = (data.table[seen] == 1).sum(axis=0)
        no = (data.table[seen] == 0).sum(axis=0)
        share = (yes.sum() + 0.5) / (yes.sum() + no.sum() + 1)
        expected = (yes + share) / (yes + no + 1)
        for c in (0, 1, 3) if f != 1 else (0, 1, 2, 3):
            np.testing.assert_allclose(probs[data.fold == f, c], expected[c], rtol=1e-6)
    assert np.isfinite(heads.weight).all()
    assert not heads.weight[:, :, [0, 1, 3]].any()


def test_constant__is_far_from_certain_for_few_and_near_it_for_many() -> None:
    few, many = (expit(constant_log_odds(np.array([[[n, 0], [n, n]]])))[0, 0] for n in (1, 1000))
    assert 0.05 < few < 0.2
    assert many < 0.001


def test_answers__are_those_outside_the_fold() -> None:
    data = made(unknown=0.3)
    answers = count_answers(cut(data)(), n_classes=K, n_folds=F)
    for f in range(F):
        seen = data.table[data.fold != f]
        expected = np.stack([(seen == 0).sum(axis=0), (seen == 1).sum(axis=0)], axis=1)
        assert np.array_equal(answers[f], expected)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_heads__the_number_of_threads_changes_no_bit(n_threads: int) -> None:
    data = made(unknown=0.2)
    one, more = (fitted(data, None, n_threads=n) for n in (1, n_threads))
    assert np.array_equal(one.weight, more.weight)
    assert np.array_equal(one.bias, more.bias)
    assert one.l2 == more.l2


def test_unknown_answers__change_nothing_whatever_the_rest_of_the_row() -> None:
    """Items of which nothing is known about a class leave its head as if they were not there."""
    data = made()
    data.table[:200, 0] = UNKNOWN
    shorter = Data(data.x[200:], data.table[200:], data.fold[200:])
    # The same scale, whichever items there are.
    data.x[:200] = np.resize(shorter.x, data.x[:200].shape)
    data = data._replace(x=np.concatenate([data.x, shorter.x[-100:]]))
    table = np.concatenate([data.table, np.full((100, K), UNKNOWN, np.int8)])
    fold = np.concatenate([data.fold, data.fold[-100:]])
    assert np.allclose(data.x.mean(axis=0), shorter.x.mean(axis=0), atol=1e-4)
    long = fitted(Data(data.x, table, fold), tolerance=1e-10)
    short = fitted(shorter, tolerance=1e-10)
    a, b = (predict(h, shorter.x, shorter.fold)[:, 0] for h in (long, short))
    np.testing.assert_allclose(a, b, atol=2e-3)


def test_predictions__are_out_of_sample_and_the_penalty_is_chosen_for_it() -> None:
    rng = np.random.default_rng(1)
    # Answers at random: whoever has seen the items can predict them, and nobody else.
    x, table = rng.normal(size=(200, 60)).astype(np.float32), rng.integers(0, 2, (200, 3))
    data = Data(x, table.astype(np.int8), np.arange(200) % F)
    loose = fitted(data, 1e-4)
    own = ((predict(loose, x, data.fold) > 0.5) == table).mean()
    seen = ((predict(loose, x, (data.fold + 1) % F) > 0.5) == table).mean()
    assert abs(own - 0.5) < 0.1
    assert seen > 0.7
    assert fitted(data, None).l2 >= 0.1


def test_classes__may_come_in_any_order() -> None:
    data = made(unknown=0.2)
    order = np.array([3, 0, 4, 2, 1])
    straight = predict(fitted(data, tolerance=1e-10), data.x, data.fold)
    turned = predict(
        fitted(data._replace(table=data.table[:, order]), tolerance=1e-10), data.x, data.fold
    )
    np.testing.assert_allclose(turned, straight[:, order], atol=2e-3)


def test_no_items_and_one_item__are_legal() -> None:
    none = Data(np.empty((0, 2), np.float32), np.empty((0, 3), np.int8), np.empty(0, np.int64))
    heads = fit_binary_heads(lambda: [], n_features=2, n_classes=3, n_folds=F)
    np.testing.assert_allclose(expit(heads.bias), 0.5)
    assert predict(heads, none.x, none.fold).shape == (0, 3)
    one = Data(np.ones((1, 2), np.float32), np.array([[1, 0, -1]], np.int8), np.zeros(1, np.int64))
    probs = predict(fitted(one), one.x, one.fold)
    np.testing.assert_allclose(probs, 0.5)  # its own fold has seen nothing
