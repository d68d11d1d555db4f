"""Oracle: scikit-learn's LogisticRegression, fold by fold."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from labelops.nn.heads import fit_heads
from labelops.nn.linear import Block, Blocks, Heads, measure_scale, predict

N_FOLDS = 3


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))[:600]
    return data.data[order].astype(np.float32), data.target[order], np.arange(600) % N_FOLDS


def cut(x: np.ndarray, given: np.ndarray, fold: np.ndarray, rows: int = 128) -> Blocks[np.ndarray]:
    starts = range(0, len(given), rows)
    return lambda: [Block(*(a[s : s + rows] for a in (x, given, fold))) for s in starts]


@pytest.mark.parametrize("l2", [0.1, 0.01])
def test_heads__equal_scikit_learns_logistic_regression(l2: float) -> None:
    x, given, fold = digits()
    heads = fit_heads(
        cut(x, given, fold), n_features=64, n_classes=10, n_folds=N_FOLDS, l2=l2, tolerance=1e-10
    )
    probs = predict(heads, x, fold)
    # The scale is that of all items, as ours is.
    z = StandardScaler().fit_transform(x.astype(np.float64))
    for f in range(N_FOLDS):
        seen, own = fold != f, fold == f
        theirs = LogisticRegression(C=1 / (l2 * seen.sum()), max_iter=5000, tol=1e-8)
        expected = theirs.fit(z[seen], given[seen]).predict_proba(z[own])
        # Ours computes in single precision, in which the loss is flat about the minimum.
        np.testing.assert_allclose(probs[own], expected, atol=1e-2)


def test_heads__rows_sum_to_one_and_are_out_of_sample() -> None:
    x, _, fold = digits()
    # Labels at random: whoever has seen the items can predict them, and nobody else.
    given = np.random.default_rng(1).integers(0, 2, len(x))
    heads = fit_heads(cut(x, given, fold), n_features=64, n_classes=2, n_folds=N_FOLDS, l2=1e-4)
    probs = predict(heads, x, fold)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    own = (probs.argmax(axis=1) == given).mean()
    seen = (predict(heads, x, (fold + 1) % N_FOLDS).argmax(axis=1) == given).mean()
    assert abs(own - 0.5) < 0.1
    assert seen > 0.6


@pytest.mark.parametrize("n_threads", [2, 3])
def test_heads__the_number_of_threads_changes_no_bit(n_threads: int) -> None:
    x, given, fold = digits()

    def fitted(threads: int) -> Heads:
        return fit_heads(
            cut(x, given, fold, 64), n_features=64, n_classes=10, n_folds=3, n_threads=threads
        )

    one, more = fitted(1), fitted(n_threads)
    assert np.array_equal(one.weight, more.weight)
    assert np.array_equal(one.bias, more.bias)
    assert one.l2 == more.l2


def test_heads__torchs_own_threads_change_no_bit() -> None:
    x, given, fold = digits()
    weights, before = [], torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        heads = fit_heads(cut(x, given, fold), n_features=64, n_classes=10, n_folds=3, l2=0.01)
        weights.append(heads.weight)
        assert torch.get_num_threads() == n
    torch.set_num_threads(before)
    assert np.array_equal(*weights)


def test_predict__does_not_depend_on_what_comes_along() -> None:
    x, given, fold = digits()
    heads = fit_heads(cut(x, given, fold), n_features=64, n_classes=10, n_folds=3, l2=0.01)
    whole = predict(heads, x, fold)
    order = np.random.default_rng(3).permutation(len(x))
    for part in np.array_split(order, 7):
        assert np.array_equal(predict(heads, x[part], fold[part]), whole[part])


def test_heads__chosen_penalty_predicts_better_than_its_neighbours() -> None:
    x, given, fold = digits()
    given = given.copy()
    given[::4] = np.random.default_rng(2).integers(0, 10, len(given[::4]))

    def held_out(l2: float | None) -> tuple[float, float]:
        heads = fit_heads(cut(x, given, fold), n_features=64, n_classes=10, n_folds=3, l2=l2)
        probs = predict(heads, x, fold)
        return -float(np.log(probs[np.arange(len(x)), given]).mean()), heads.l2

    chosen, l2 = held_out(None)
    assert chosen <= min(held_out(10 * l2)[0], held_out(l2 / 10)[0])


def test_heads__a_penalty_chosen_on_some_is_divided_by_how_many_more_there_are() -> None:
    x, given, fold = digits()
    whole = fit_heads(cut(x, given, fold), n_features=64, n_classes=10, n_folds=3)
    part = fit_heads(
        cut(x, given, fold, 100), n_features=64, n_classes=10, n_folds=3, choose_on=200
    )
    alone = fit_heads(cut(x[:200], given[:200], fold[:200]), n_features=64, n_classes=10, n_folds=3)
    assert part.l2 == pytest.approx(alone.l2 / 3)
    assert whole.l2 in (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


def test_heads__constant_and_shifted_features_do_no_harm() -> None:
    x, given, fold = digits()
    wide = np.hstack([x * 1e-3 + 1e3, np.full((len(x), 2), 7, np.float32)]).astype(np.float32)
    heads = fit_heads(cut(wide, given, fold), n_features=66, n_classes=10, n_folds=3, l2=0.01)
    assert heads.scale.std[-2:].tolist() == [1.0, 1.0]
    assert (predict(heads, wide, fold).argmax(axis=1) == given).mean() > 0.85


def test_scale__equals_numpys() -> None:
    x, given, fold = digits()
    scale = measure_scale(cut(x + 1000, given, fold)(), 64)
    np.testing.assert_allclose(scale.mean, (x + 1000).astype(np.float64).mean(axis=0), rtol=1e-12)
    expected = (x + 1000).astype(np.float64).std(axis=0)
    np.testing.assert_allclose(scale.std, np.where(expected == 0, 1, expected), rtol=1e-9)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_heads__hardly_any_items_give_probabilities(n: int) -> None:
    x, given, fold = (a[:n] for a in digits())
    heads = fit_heads(cut(x, given, fold), n_features=64, n_classes=10, n_folds=3)
    probs = predict(heads, x, fold)
    assert probs.shape == (n, 10)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    if n == 1:
        # Nobody has seen another item than this one: all classes are alike.
        np.testing.assert_allclose(probs, 0.1, atol=1e-6)


def test_heads__an_absent_class_is_hardly_expected() -> None:
    x, given, fold = digits()
    heads = fit_heads(cut(x, given, fold), n_features=64, n_classes=11, n_folds=3, l2=0.01)
    assert predict(heads, x, fold)[:, 10].max() < 0.05


def test_heads__survive_their_arrays() -> None:
    x, given, fold = digits()
    heads = fit_heads(cut(x, given, fold), n_features=64, n_classes=10, n_folds=3, l2=0.1)
    again = Heads.of(heads.arrays())
    assert np.array_equal(predict(again, x, fold), predict(heads, x, fold))


@pytest.mark.gpu
def test_heads__a_gpu_finds_the_same_minimum() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    x, given, fold = digits()
    heads = [
        fit_heads(
            cut(x, given, fold),
            n_features=64,
            n_classes=10,
            n_folds=3,
            l2=0.01,
            tolerance=1e-10,
            device=torch.device(kind),
        )
        for kind in ("cpu", "cuda")
    ]
    np.testing.assert_allclose(predict(heads[0], x, fold), predict(heads[1], x, fold), atol=1e-2)
