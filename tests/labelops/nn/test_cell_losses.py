"""Losses as objectives: values of the definitions, folds kept apart, what is remembered."""

import numpy as np
import pytest
import torch

from labelops.nn.cell_losses import LOSSES, CellObjective
from labelops.nn.shallow import train_networks
from labelops.partial import cell_losses as of
from labelops.partial.recall import largest, recall_mask

N, K, FOLDS = 24, 3, 2


def drawn(n=N, k=K, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.choice([1, 0, -1], (n, k), p=[0.25, 0.15, 0.6])
    return rng.normal(0, 2.5, (n, k)), states, (states == -1) & (rng.random((n, k)) < 0.3)


def test_share__is_learned_in_two_epochs_and_is_near_that_which_was_planted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3)).astype(np.float32)
    truth = rng.random((20_000, 2)) < 1 / (1 + np.exp(-4 * x[:, :2]))
    states = np.where(truth & (rng.random(truth.shape) < 0.3), 1, -1)
    objective = CellObjective("frequency", states, np.full(20_000, -1), n_folds=1, epochs=3)
    shares = []
    after = objective.after_epoch
    objective.after_epoch = lambda epoch, say: (
        shares.append(float(objective.share[0])),
        after(epoch, say),
    )
    train_networks(
        x, np.full(20_000, -1), objective, n_outputs=2, n_folds=1, hidden=0, rate=0.05, epochs=3
    )
    # Too high, by what two epochs of a model that began at 0 have not learned yet.
    assert shares[1] == shares[2] == pytest.approx(0.3, abs=0.07)


def defined(name, z, states, epoch, objective, fold):
    """Return what the definitions say of the items that a fold's network is trained on."""
    p = 1 / (1 + np.exp(-z))
    n_yes = (states == 1).sum(axis=0)
    simple = {
        **{"an": of.assume_negative, "wan": of.weak_assume_negative, "ls": of.smoothed},
        **{"asl": of.asymmetric, "hill": of.hill, "em": of.entropy_maximising},
        **{"em-apl": of.entropy_maximising, "pu": of.positive_unlabelled},
    }
    if name in simple:
        return simple[name](z, states)
    if name in ("epr", "role"):
        kappa = (states == 1).sum() / len(z)
        if name == "epr":
            return of.expected_positives(z, states, expected=kappa)
        free = objective.parameters[0].detach().numpy()[fold][objective.outside[fold]] * 10
        return of.role(z, states, estimates=free, expected=kappa)
    if name == "frequency":
        return of.frequency(z, states, share=0.5)
    if name == "multi-focal":
        return of.multi_focal(z, states, n_yes=n_yes)
    if name == "splc":
        recalled = recall_mask(p, states, strategy="fixed") & (epoch > 0)
        return of.splc(z, states, recalled=recalled)
    if name == "comic":
        p = 1 / (1 + np.exp(-np.where(states == 1, z - 1, z)))
        means = 0.99 * (n_yes / len(z) / 2) + 0.01 * p.mean(axis=0)
        recalled = recall_mask(p, states, strategy="class", class_mean=means) if epoch else None
        n_recalled = None if recalled is None else recalled.sum(axis=0)
        return of.comic(z, states, n_given=n_yes, n_recalled=n_recalled, recalled=recalled)
    # As large as the batch is, not as the part that the fold's network is trained on.
    n = largest(N * K, epoch, is_permanent=name == "ll-cp")
    recalled = recall_mask(p, states, strategy="largest", n_largest=n)
    return (of.rejected if name == "ll-r" else of.corrected)(z, states, recalled=recalled)


# What "pu-mix" adds is looked at by itself, below.
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"pu-mix"}))
@pytest.mark.parametrize("epoch", [0, 9])
def test_objective__of_every_fold_is_the_definition_on_the_items_outside_it(name, epoch):
    _, states, _ = drawn()
    fold = np.arange(N) % 3 - 1
    objective = CellObjective(name, states, fold, n_folds=FOLDS, epochs=20)
    objective.epoch = epoch
    z = np.random.default_rng(2).normal(0, 2, (FOLDS, N, K)).astype(np.float32)
    logits = torch.from_numpy(z).requires_grad_(True)
    rows, outside = torch.arange(N), objective.outside
    loss = objective.loss(logits, rows, outside)
    wanted = 0.0
    for f in range(FOLDS):
        at = fold != f
        wanted += defined(name, z[f][at], states[at], epoch, objective, f).sum() / N
    assert loss.item() == pytest.approx(wanted, rel=2e-5)
    loss.backward()
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[~outside] == 0).all()
    assert all(torch.isfinite(tensor.grad).all() for tensor in objective.parameters)


def test_mixing__adds_the_definition_of_pairs_that_a_fold_is_trained_on():
    _, states, _ = drawn()
    fold = np.arange(N) % 3 - 1
    plain, mixes = (
        CellObjective(name, states, fold, n_folds=FOLDS, seed=5) for name in ("pu", "pu-mix")
    )
    z = np.random.default_rng(2).normal(0, 2, (FOLDS, N, K)).astype(np.float32)
    batch = torch.from_numpy(z), torch.arange(N), mixes.outside
    rng, half, wanted = np.random.default_rng(5), N // 2, 0.0
    order, share = rng.permutation(half), rng.beta(0.3, 0.3)
    for f in range(FOLDS):
        both = (fold != f)[:half][order] & (fold != f)[N - half :]
        wanted += of.mixed(z[f], states, order=order, share=share)[both].sum() / half
    assert (mixes.loss(*batch) - plain.loss(*batch)).item() == pytest.approx(wanted, rel=1e-4)


def test_permanent_flips__stay_and_become_more():
    _, states, _ = drawn()
    objective = CellObjective("ll-cp", states, np.full(N, -1), n_folds=1)
    objective.epoch = 1
    rows, outside = torch.arange(N), torch.ones(1, N, dtype=torch.bool)
    sizes = []
    for seed in range(4):
        z = torch.from_numpy(drawn(seed=seed)[0][None].astype(np.float32))
        before = objective.flipped.clone()
        objective.loss(z, rows, outside)
        assert (objective.flipped >= before).all()
        sizes.append(int(objective.flipped.sum()))
    assert sizes == [1, 2, 3, 4]
    assert not objective.flipped[0][torch.from_numpy(states != -1)].any()


def test_pseudo_labels__come_after_half_of_the_epochs_and_end_at_nine_tenths():
    states, fold = np.full((100, 2), -1), np.arange(100) % 2
    states[:10, 0] = 1
    objective = CellObjective("em-apl", states, fold, n_folds=2, epochs=6)
    z = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 100, 2)).astype(np.float32))
    counts = []
    for epoch in range(6):
        objective.after_epoch(epoch, lambda: z)
        counts.append((~objective.pseudo.isnan()).sum(dim=(1, 2)).tolist())
    # Of 45 and 50 unknown cells outside each fold, a third of nine tenths: 13 and 15.
    assert counts == [[0, 0], [0, 0], [28, 28], [56, 56], [84, 84], [84, 84]]
    has = ~objective.pseudo.isnan()
    assert not has[:, torch.from_numpy(states[:, 0] == 1), 0].any()
    assert not has[~objective.outside].any()
    assert torch.equal(objective.pseudo[has], torch.sigmoid(z)[has])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_networks__have_not_seen_what_their_fold_was_given_and_are_the_same_again(name):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4)).astype(np.float32)
    states = np.where(x[:, :2] + rng.normal(size=(90, 2)) > 0.5, 1, -1)
    fold = np.arange(90) % 2

    def trained(states):
        objective = CellObjective(name, states, fold, n_folds=2, epochs=4)
        return train_networks(
            x,
            fold,
            objective,
            n_outputs=2,
            n_folds=2,
            hidden=0,
            epochs=4,
            parameters=objective.parameters,
        )

    other = np.where(fold[:, None] == 1, 1, states)
    a, b, c = trained(states), trained(states), trained(other)
    assert np.array_equal(a.out, b.out)
    assert np.array_equal(a.out[:, 1], c.out[:, 1])
    assert not np.array_equal(a.out[:, 0], c.out[:, 0])


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("state", [1, 0, -1])
def test_few_items_and_one_state__are_legal(name, n, state):
    states = np.full((n, 2), state)
    objective = CellObjective(name, states, np.arange(n) % 2, n_folds=2, epochs=3)
    networks = train_networks(
        np.ones((n, 3), np.float32),
        np.arange(n) % 2,
        objective,
        n_outputs=2,
        n_folds=2,
        hidden=0,
        epochs=3,
        parameters=objective.parameters,
    )
    assert np.isfinite(networks.out).all()
    assert np.isfinite(networks.out_bias).all()


def test_unknown_loss__is_refused():
    with pytest.raises(ValueError, match=r"one of \['an', .* was expected, got 'focal'"):
        CellObjective("focal", np.ones((1, 1), int), np.zeros(1, int), n_folds=1)
