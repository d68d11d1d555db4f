"""Heads for cells: planted missing positives, a log that is out of fold, and calibration."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from labelops.nn.cell_heads import RATE, fit_cells, predict_cells
from labelops.nn.shallow import train_networks
from labelops.partial.recall import found_by_epoch


def zipf(n=3000, k=20, kept=0.6, seed=0):
    """Return features, the truth of classes as frequent as by Zipf's law, and states."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 16)).astype(np.float32)
    score = x @ rng.normal(size=(16, k)) * 4
    shares = 0.4 / np.arange(1, k + 1) ** 0.7
    truth = score > np.array([np.quantile(s, 1 - p) for s, p in zip(score.T, shares, strict=True)])
    states = np.where(truth & (rng.random(truth.shape) < kept), 1, -1)
    return x, truth, states, np.arange(n) % 3


@pytest.mark.parametrize(
    ("loss", "precision", "recall"), [("splc", 0.9, 0.5), ("frequency", 0.5, 0.8)]
)
def test_recalled_cells__are_right_and_are_many_of_those_hidden(loss, precision, recall):
    x, truth, states, fold = zipf()
    heads = fit_cells(x, states, fold, n_folds=3, loss=loss, hidden=0)
    found = found_by_epoch(heads.recalls, states, truth, epochs=20)
    assert found.precision[-1] > precision
    assert found.recall[-1] > recall


@pytest.mark.parametrize("kept", [1.0, 0.1])
def test_chosen_loss__ranks_best_what_is_given(kept):
    x, _, states, fold = zipf(n=400, k=4, kept=kept)
    more = {"n_folds": 3, "hidden": 0, "epochs": 6}
    heads = fit_cells(x, states, fold, loss=None, **more)
    both = [fit_cells(x, states, fold, loss=loss, **more) for loss in ("an", "frequency")]

    def ranked(own):
        probs = predict_cells(own, x, fold)
        return average_precision_score(states == 1, probs, average="macro")

    assert ranked(heads) >= max(map(ranked, both)) - 1e-6
    if len(heads.losses) == 1:
        same = both[("an", "frequency").index(heads.losses[0])]
        assert np.array_equal(heads.slope, same.slope)
    else:
        assert ranked(heads) > max(map(ranked, both))


def test_log__is_of_networks_that_have_not_seen_the_item():
    x, _, states, fold = zipf(n=300, k=4)
    other = np.where((fold == 1)[:, None] & (states == 1), 0, states)
    logs = [
        fit_cells(x, table, fold, n_folds=3, loss="splc", hidden=8, epochs=4).recalls
        for table in (states, other)
    ]
    a, b = ({(i, c, e): p for i, c, p, e in zip(*log, strict=True) if fold[i] == 1} for log in logs)
    assert a == b
    assert len(a) > 0


def test_probabilities__are_those_to_be_given_whatever_the_loss():
    x, _, states, fold = zipf(kept=1.0)
    for loss in ("hill", "pu", "comic"):
        heads = fit_cells(x, states, fold, n_folds=3, loss=loss, hidden=0)
        probs = predict_cells(heads, x, fold)
        np.testing.assert_allclose(
            probs.mean(axis=0), (states == 1).mean(axis=0), atol=0.015, err_msg=loss
        )
        is_high = probs > 0.5
        # What is said is the mean over training, in which early epochs are less sure.
        assert (states == 1)[is_high].mean() == pytest.approx(probs[is_high].mean(), abs=0.1)
        one = predict_cells(heads, x[7:8], fold[7:8])
        assert np.array_equal(one[0], probs[7])


def test_heads__are_those_of_the_trainer_where_no_item_is_left_out():
    x, _, states, _ = zipf(n=200, k=3)
    heads = fit_cells(x, states, np.full(200, -1), n_folds=1, loss="an", hidden=0, epochs=2)
    assert len(heads.recalls.row) == 0

    class Plain:
        def loss(self, logits, rows, outside):
            yes = torch.from_numpy((states == 1).astype(np.float32))[rows]
            both = torch.nn.functional.binary_cross_entropy_with_logits(
                logits[0], yes, reduction="sum"
            )
            return both / len(rows)

        def after_epoch(self, epoch, say):
            pass

    plain = train_networks(
        x, np.full(200, -1), Plain(), n_outputs=3, n_folds=1, hidden=0, epochs=2, rate=RATE
    )
    np.testing.assert_allclose(heads.networks[0].out, plain.out, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(heads.slope, 1)
    assert (heads.shift == 0).all()


def test_what_does_not_fit__is_refused():
    x, states = np.zeros((3, 2), np.float32), np.zeros((3, 2), int)
    with pytest.raises(ValueError, match=r"as many items were expected, got 3, \(3, 2\) and 2"):
        fit_cells(x, states, np.zeros(2, int), n_folds=1)
    with pytest.raises(ValueError, match=r"states 1 .* got \[5\]"):
        fit_cells(x, states + 5, np.zeros(3, int), n_folds=1)
    with pytest.raises(ValueError, match="was expected, got 'focal'"):
        fit_cells(x, states, np.zeros(3, int), n_folds=1, loss="focal")
