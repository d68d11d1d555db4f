"""Networks from positive and unlabelled items: planted truth, and items that were not seen."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from labelops.nn.positive_heads import METHODS, NEEDS_PRIOR, fit_positives, positive_scores
from labelops.nn.shallow import say
from labelops.partial.choose import proxy_auc
from labelops.partial.scores import count_scores
from tests.oracles.positive_unlabelled import planted


def fitted(x, state, fold, method, prior=0.3, **more):
    if method in NEEDS_PRIOR:
        more["prior"] = prior
    return fit_positives(x, state, fold, n_folds=3, method=method, **more)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("hidden", [0, 16])
def test_planted_classes__are_told_apart(method, hidden):
    x, positive, state = planted(1500, 0.4, 0.3, distance=1.5)
    fold = np.arange(len(x)) % 3
    share = positive[state == -1].mean()
    heads = fitted(x, state, fold, method, share, hidden=hidden, epochs=15)
    found = positive_scores(heads, x, fold)
    best = roc_auc_score(positive, x[:, 0])
    assert roc_auc_score(positive, found) > best - 0.015
    if method == "tedn":
        assert heads.prior == pytest.approx(share, abs=0.06)
    if method in {"upu", "dist-pu"}:
        assert ((found > 0.5) == positive).mean() > 0.9


def test_rings__are_told_apart_by_a_network_and_by_no_line():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1500, 2)).astype(np.float32)
    positive = np.square(x).sum(axis=1) > 2
    state = np.where(positive & (rng.random(1500) < 0.3), 1, -1)
    fold, share = np.arange(1500) % 3, positive[state == -1].mean()
    auc = [
        roc_auc_score(
            positive,
            positive_scores(fitted(x, state, fold, "nnpu", share, hidden=h, epochs=20), x, fold),
        )
        for h in (0, 64)
    ]
    assert auc[0] < 0.6
    assert auc[1] > 0.97


@pytest.mark.parametrize("method", [m for m in METHODS if m != "tedn"])
def test_network_of_a_fold__has_not_seen_its_items(method):
    """Other labels of a fold change nothing of what is said of it, bit for bit."""
    x, _, state = planted(300, 0.5, 0.4)
    fold = np.arange(300) % 3
    other = np.where(fold == 1, np.where(state == 1, -1, 1), state)
    # One epoch, so that there is no choice of one, which all labels have a part in. VPU's pairs are
    # drawn for all networks together; which points they are asked about is the same for half a set.
    a, b = (
        say(fitted(x, s, fold, method, hidden=8, epochs=1).networks, x, fold)
        for s in (state, other)
    )
    if method == "vpu":
        np.testing.assert_allclose(a[fold == 1], b[fold == 1], atol=0.1)
    else:
        assert np.array_equal(a[fold == 1], b[fold == 1])
    assert not np.array_equal(a[fold == 0], b[fold == 0])


def test_epoch__that_is_heard_ranks_labelled_items_best():
    x, _, state = planted(600, 0.4, 0.3, distance=0.5)
    fold = np.arange(600) % 3
    whole = fitted(x, state, fold, "upu", hidden=8, epochs=6)
    is_labelled = state == 1
    found = proxy_auc(count_scores(positive_scores(whole, x, fold), is_labelled))
    assert found == whole.proxy
    assert whole.epoch in range(6)


def test_vpu__finds_the_prior_as_mean_over_maximum():
    """Classes at ±2 whose log-odds are linear: Φ is the posterior up to a factor."""
    x, positive, state = planted(3000, 0.3, 0.3, width=1)
    fold = np.arange(len(x)) % 3
    phi = positive_scores(fitted(x, state, fold, "vpu", hidden=0), x, fold)
    assert phi.mean() / phi.max() == pytest.approx(positive.mean(), abs=0.02)


def test_same_items__give_the_same_bits_on_any_number_of_threads():
    x, _, state = planted(300, 0.4, 0.3)
    fold, threads = np.arange(300) % 3, torch.get_num_threads()
    said = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            heads = [fitted(x, state, fold, m, hidden=8, epochs=2) for m in METHODS]
            said.append([positive_scores(h, x, fold) for h in heads])
            assert torch.get_num_threads() == n
    finally:
        torch.set_num_threads(threads)
    for a, b in zip(*said, strict=True):
        assert np.array_equal(a, b)


def test_case_control__is_another_setting():
    x, _, state = planted(600, 0.4, 0.3, distance=1.0)
    fold = np.arange(600) % 3
    a, b = (
        say(fitted(x, state, fold, "upu", 0.3, hidden=0, setting=s).networks, x, fold)
        for s in ("one-sample", "case-control")
    )
    # The labelled items are positives of the population in one sample only.
    assert expit(a).mean() > expit(b).mean() + 0.03


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("state", [[], [1], [-1], [1, -1, -1], [1, 1, 1, 1], [-1] * 4, [0, 1, -1]])
def test_few_items__and_absent_kinds_are_legal(method, state):
    s = np.array(state, np.int8)
    x = np.ones((len(s), 2), np.float32)
    fold = np.arange(len(s)) % 3
    heads = fitted(x, s, fold, method, hidden=4, epochs=2)
    found = positive_scores(heads, np.ones((5, 2), np.float32), np.arange(5) % 3)
    assert np.isfinite(found).all()
    assert len(heads.networks.out) == 1


def test_wrong_settings__are_refused():
    x, _, state = planted(30, 0.4, 0.3)
    fold = np.arange(30) % 3
    with pytest.raises(ValueError, match="nnpu needs a prior"):
        fit_positives(x, state, fold, n_folds=3, method="nnpu")
    with pytest.raises(ValueError, match="vpu takes no prior"):
        fit_positives(x, state, fold, n_folds=3, method="vpu", prior=0.3)
    with pytest.raises(ValueError, match="method must be one of"):
        fit_positives(x, state, fold, n_folds=3, method="pu")
    for method in NEEDS_PRIOR:
        with pytest.raises(ValueError, match="prior must be in"):
            fit_positives(x, state, fold, n_folds=3, method=method, prior=1.5)
