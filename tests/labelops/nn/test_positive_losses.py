"""Losses of positive and unlabelled items for training: their NumPy definitions, fold by fold."""

import numpy as np
import pytest
import torch
from scipy.special import expit

from labelops.nn.positive_losses import (
    Aligned,
    Ignoring,
    NonNegative,
    TowardsPositives,
    Unbiased,
    Variational,
)
from labelops.partial import risks

N, FOLDS = 60, 3
FOLD = np.arange(N) % FOLDS
ROWS = torch.arange(N)
OUTSIDE = torch.from_numpy(FOLD[None, :] != np.arange(FOLDS)[:, None])


def drawn(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    state = rng.choice([1, 0, -1], N, p=[0.3, 0.2, 0.5]).astype(np.int8)
    return rng.normal(size=(FOLDS, N)) * 2, state


def of_batch(objective, z, rows=ROWS):
    logits = torch.from_numpy(z[:, rows.numpy(), None].astype(np.float32))
    return float(objective.loss(logits, rows, OUTSIDE[:, rows]))


def of_folds(z, state, risk):
    return sum(risk(z[f][f != FOLD], state[f != FOLD]) for f in range(FOLDS))


@pytest.mark.parametrize("setting", risks.SETTINGS)
@pytest.mark.parametrize("seed", range(3))
def test_losses__of_all_items_are_their_definitions_of_the_items_outside(seed, setting):
    z, state = drawn(seed)
    common = {"prior": 0.3, "setting": setting}
    for kind, risk, more in (
        (Unbiased, risks.upu, {"margin": "logistic"}),
        (Unbiased, risks.upu, {"margin": "sigmoid"}),
        (Aligned, risks.dist_pu, {"entropy": 0.7}),
    ):
        objective = kind(state, FOLD, n_folds=FOLDS, **common, **more)
        want = of_folds(z, state, lambda a, s, r=risk, m=more: r(a, s, **common, **m))
        assert of_batch(objective, z) == pytest.approx(want, rel=1e-5)
    objective = Variational(state, FOLD, n_folds=FOLDS, setting=setting)
    want = of_folds(z, state, lambda a, s: risks.vpu(a, s, setting=setting))
    assert of_batch(objective, z) == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize("setting", risks.SETTINGS)
def test_nnpu__is_its_definition_and_takes_back_what_is_too_low(setting):
    common = {"prior": 0.6, "setting": setting, "margin": "sigmoid"}
    z, state = drawn(1)
    # Fold 0 tells labelled from unlabelled; what is left of negatives is less than nothing.
    z[0] = np.where(state == 1, 6.0, -6.0)
    z[1:] = -z[1:]
    objective = NonNegative(state, FOLD, n_folds=FOLDS, **common)
    logits = torch.from_numpy(z[:, :, None].astype(np.float32)).requires_grad_(True)
    loss = objective.loss(logits, ROWS, OUTSIDE)
    loss.backward()
    parts = [risks.risk_weights(state[f != FOLD], prior=0.6, setting=setting) for f in range(FOLDS)]
    want = 0.0
    for f in range(FOLDS):
        own, s = z[f][f != FOLD], state[f != FOLD]
        hidden = float((parts[f].as_negative * expit(own))[s != 0].sum())
        assert (hidden < 0) == (f == 0)
        want += -hidden if hidden < 0 else risks.nnpu(own, s, **common)
    assert loss.item() == pytest.approx(want, rel=1e-5)
    slope = expit(z[0]) * expit(-z[0])
    found = np.where(FOLD != 0, logits.grad.numpy()[0, :, 0], 0)
    expected = np.zeros(N)
    expected[FOLD != 0] = -(parts[0].as_negative * (state[FOLD != 0] != 0))
    np.testing.assert_allclose(found, expected * slope, atol=1e-7)


def test_batches__average_to_the_whole():
    z, state = drawn(2)
    objective = Unbiased(state, FOLD, n_folds=FOLDS, prior=0.3)
    parts = [of_batch(objective, z, rows) for rows in torch.split(ROWS, 12)]
    assert np.mean(parts) == pytest.approx(of_batch(objective, z), rel=1e-5)


def test_items_of_the_own_fold__have_no_gradient():
    z, state = drawn(3)
    for objective in (
        Unbiased(state, FOLD, n_folds=FOLDS, prior=0.3),
        NonNegative(state, FOLD, n_folds=FOLDS, prior=0.3, margin="sigmoid"),
        Aligned(state, FOLD, n_folds=FOLDS, prior=0.3, entropy=0.5),
        Variational(state, FOLD, n_folds=FOLDS),
        Ignoring(state, FOLD, n_folds=FOLDS, prior=None, warm_up=1),
    ):
        logits = torch.from_numpy(z[:, :, None].astype(np.float32)).requires_grad_(True)
        objective.loss(logits, ROWS, OUTSIDE).backward()
        assert torch.isfinite(logits.grad).all()
        assert not logits.grad[..., 0][~OUTSIDE].any()
        assert logits.grad[..., 0][OUTSIDE].any()


@pytest.mark.parametrize("setting", risks.SETTINGS)
def test_between__is_its_definition_over_pairs_with_a_labelled_item(setting):
    z, state = drawn(4)
    regulariser = TowardsPositives(state, FOLD, n_folds=FOLDS, setting=setting, weight=0.5)
    pairs = regulariser.pair(ROWS)
    assert (state[pairs.other.numpy()] == 1).all()
    drawn_from = np.flatnonzero(state == -1) if setting == "case-control" else np.arange(N)
    assert pairs.one.tolist() == drawn_from.tolist()
    mixed = np.random.default_rng(0).normal(size=(FOLDS, len(drawn_from)))
    logits, between = (torch.from_numpy(a[:, :, None].astype(np.float32)) for a in (z, mixed))
    found = float(regulariser.loss(logits, between, pairs, OUTSIDE))
    one, other, share = (part.numpy() for part in pairs)
    want = 0.0
    for f in range(FOLDS):
        both = (FOLD[one] != f) & (FOLD[other] != f)
        want += 0.5 * risks.vpu_between(z[f, one[both]], share[both], mixed[f][both])
    assert found == pytest.approx(want, rel=1e-4)


def test_between__of_a_batch_without_a_labelled_item_is_nothing():
    state = np.full(N, -1)
    regulariser = TowardsPositives(state, FOLD, n_folds=FOLDS, weight=1.0)
    pairs = regulariser.pair(ROWS)
    assert len(pairs.one) == 0
    nothing = torch.zeros(FOLDS, 0, 1)
    assert float(regulariser.loss(torch.zeros(FOLDS, N, 1), nothing, pairs, OUTSIDE)) == 0


def test_ignoring__leaves_out_the_highest_after_the_warm_up():
    z, state = drawn(5)
    objective = Ignoring(state, FOLD, n_folds=FOLDS, prior=0.4, warm_up=2)
    before = of_folds(z, state, lambda a, s: cvir_risk(a, s, s == -1))
    assert of_batch(objective, z) == pytest.approx(before, rel=1e-5)
    said = torch.from_numpy(z[:, :, None])
    objective.after_epoch(0, lambda: said)
    assert of_batch(objective, z) == pytest.approx(before, rel=1e-5)
    objective.after_epoch(1, lambda: said)
    want = of_folds(z, state, lambda a, s: cvir_risk(a, s, risks.kept_unlabelled(a, s, prior=0.4)))
    assert of_batch(objective, z) == pytest.approx(want, rel=1e-5)


def cvir_risk(z, state, kept):
    a, b = risks.cvir_weights(state, kept)
    return float(a @ np.logaddexp(0, -z) + b @ np.logaddexp(0, z))


def test_ignoring__without_a_prior_takes_the_best_bin_of_unseen_items():
    rng = np.random.default_rng(0)
    n = 3000
    fold = np.arange(n) % FOLDS
    positive = rng.random(n) < 0.5
    state = np.where(positive & (rng.random(n) < 0.4), 1, -1)
    z = np.tile(np.where(positive, 3.0, -3.0) + rng.normal(size=n) / 2, (FOLDS, 1))
    # Networks have learned their own items by heart, which must not be heard.
    z[fold[None, :] != np.arange(FOLDS)[:, None]] = -9.0
    z[:, state == 1] = np.where(z[:, state == 1] == -9.0, 9.0, z[:, state == 1])
    objective = Ignoring(state, fold, n_folds=FOLDS, prior=None, warm_up=1)
    objective.after_epoch(0, lambda: torch.from_numpy(z[:, :, None]))
    share = positive[state == -1].mean()
    outside = (fold != 0) & (state == -1)
    dropped = outside & (objective.as_negative[0].numpy() == 0)
    assert dropped.sum() / outside.sum() == pytest.approx(share, abs=0.03)


@pytest.mark.parametrize("state", [[], [1], [-1], [0], [1, 1], [-1, -1], [1, -1]])
def test_absent_kinds__have_finite_losses(state):
    s = np.array(state, int)
    fold, rows = np.zeros(len(s), int), torch.arange(len(s))
    outside = torch.from_numpy(fold[None, :] != np.arange(2)[:, None])
    logits = torch.linspace(-200, 200, 2 * len(s)).reshape(2, -1, 1).requires_grad_(True)
    for objective in (
        Unbiased(s, fold, n_folds=2, prior=0.3),
        NonNegative(s, fold, n_folds=2, prior=0.3),
        Aligned(s, fold, n_folds=2, prior=0.3, entropy=0.5),
        Variational(s, fold, n_folds=2),
        Variational(s, fold, n_folds=2, setting="case-control"),
        Ignoring(s, fold, n_folds=2, prior=None, warm_up=1),
    ):
        loss = objective.loss(logits, rows, outside)
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(logits.grad).all()
        objective.after_epoch(3, lambda: logits.detach())
