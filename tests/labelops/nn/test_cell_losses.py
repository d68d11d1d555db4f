"""Losses as objectives: values of the definitions, derivatives by differences, folds kept apart."""

import numpy as np
import pytest
import torch

from labelops.multilabel.labels import UNKNOWN, YES
from labelops.nn import cell_gradients as costs
from labelops.nn.cell_gradients import Cells
from labelops.nn.cell_losses import LOSSES, CellObjective, recalled_largest
from labelops.nn.shallow import train_networks
from labelops.partial import cell_losses as of
from labelops.partial.recall import largest, recall_mask

N, K, FOLDS = 24, 3, 2


def drawn(n=N, k=K, seed=0):
    rng = np.random.default_rng(seed)
    states = rng.choice([1, 0, -1], (n, k), p=[0.25, 0.15, 0.6])
    return rng.normal(0, 2.5, (n, k)), states, (states == -1) & (rng.random((n, k)) < 0.3)


def tensors(z, states, recalled=None):
    cells = Cells(*(torch.from_numpy((states == s).astype(float)) for s in (YES, UNKNOWN)))
    mask = None if recalled is None else torch.from_numpy(recalled[None].astype(float))
    return torch.from_numpy(z[None]), cells, mask


def slope_of(function, z, step=1e-6):
    """Return the derivative of a sum by every logit."""
    slope = np.zeros_like(z)
    for at in np.ndindex(z.shape):
        high, low = z.copy(), z.copy()
        high[at] += step
        low[at] -= step
        slope[at] = (function(high).sum() - function(low).sum()) / (2 * step)
    return slope


SMOOTH = {
    "assume_negative": {},
    "weak_assume_negative": {},
    "smoothed": {},
    "hill": {},
    "splc": {"recalled": True},
    "rejected": {"recalled": True},
    "corrected": {"recalled": True},
    "entropy_maximising": {"pseudo": True},
}


@pytest.mark.parametrize("name", SMOOTH)
def test_costs__are_the_definitions_and_slopes_are_differences(name):
    z, states, recalled = drawn()
    pseudo = np.where(recalled, 0.2, np.nan)
    more = {"recalled": recalled, "pseudo": pseudo}
    more = {key: more[key] for key in SMOOTH[name]}
    define = getattr(of, name)
    x, cells, mask = tensors(z, states, recalled)
    given = {"recalled": mask, "pseudo": torch.from_numpy(pseudo[None])}
    value, slope = getattr(costs, name)(x, cells, *(given[key] for key in SMOOTH[name]))
    np.testing.assert_allclose(value[0], define(z, states, **more), rtol=1e-9, atol=1e-12)
    wanted = slope_of(lambda x: define(x, states, **more), z)
    np.testing.assert_allclose(slope[0], wanted, atol=1e-7)


def test_asymmetric__differs_without_its_focus_and_is_weighed_by_it():
    z, states, _ = drawn()
    x, cells, _ = tensors(z, states)
    value, slope = costs.asymmetric(x, cells)
    np.testing.assert_allclose(value[0], of.asymmetric(z, states))
    plain = slope_of(lambda x: of.asymmetric(x, states, focus_yes=0, focus_no=0), z)
    p = 1 / (1 + np.exp(-z))
    weight = np.where(states == 1, 1 - p, np.maximum(p - 0.05, 0) ** 4)
    np.testing.assert_allclose(slope[0], plain * weight, atol=1e-7)


def test_asymmetric__bears_large_logits_in_single_precision():
    z, states = np.array([[200.0, -200.0, 200.0, -200.0]]), np.array([[1, 1, -1, 0]])
    x, cells, _ = tensors(z, states)
    cells = Cells(*(part.float() for part in cells))
    for focus_no in (4.0, torch.full((1, 1, 4), 3.5)):
        cost = costs.asymmetric(x.float(), cells, focus_no, focus_yes=0)
        assert torch.isfinite(cost.value).all()
        np.testing.assert_allclose(cost.slope[0, 0, :2], [0, -1])


def focal_slope(z, full, w):
    """Return the slopes of cross-entropy, weighed as the multi-focal loss weighs."""
    plain = slope_of(lambda x: of.asymmetric(x, full, focus_yes=0, focus_no=0), z)
    p = 1 / (1 + np.exp(-z))
    return plain * np.where(full == 1, 1, np.maximum(p - 0.05, 0) ** (3 + w)) * w


def test_multi_focal__has_classes_of_its_own():
    z, states, _ = drawn()
    n = np.array([30, 4, 0])
    x, cells, _ = tensors(z, states)
    value, slope = costs.multi_focal(x, cells, torch.from_numpy(n[None, None].astype(float)))
    np.testing.assert_allclose(value[0], of.multi_focal(z, states, n_yes=n), rtol=1e-9)
    np.testing.assert_allclose(slope[0], focal_slope(z, states, of.tail_weights(n)), atol=1e-7)


def test_comic__has_recalled_cells_and_counts_those_of_a_fold():
    z, states, recalled = drawn()
    n = np.array([30, 4, 0])
    x, cells, mask = tensors(z, states, recalled)
    outside = torch.ones(1, N, 1, dtype=torch.float64)
    outside[0, ::3] = 0
    at = outside[0, :, 0].numpy() > 0
    counts = torch.from_numpy(n[None, None].astype(float))
    value, slope = costs.comic(costs.lowered(x, cells), cells, outside, counts, mask)
    wanted = of.comic(z[at], states[at], n_yes=n, recalled=recalled[at])
    np.testing.assert_allclose(value[0][at], wanted, rtol=1e-9)
    full = np.where(recalled, 1, states)
    plain = focal_slope(np.where(states == 1, z - 1, z), full, of.tail_weights(n, power=1 / 6))
    factor = at.sum() / (full == 1)[at].sum()
    np.testing.assert_allclose(slope[0][at], (plain * factor)[at], atol=1e-7)


def test_expected_positives_and_role__differ_as_their_parts():
    z, states, _ = drawn()
    e = drawn(seed=1)[0]
    x, cells, _ = tensors(z, states)
    outside = torch.ones(1, N, 1, dtype=torch.float64)
    kappa = torch.full((1, 1, 1), 1.4, dtype=torch.float64)
    value, slope = costs.expected_positives(x, cells, outside, kappa)
    np.testing.assert_allclose(value[0], of.expected_positives(z, states, expected=1.4))

    def alone(x):
        return of.expected_positives(x, states, expected=1.4)

    np.testing.assert_allclose(slope[0], slope_of(alone, z), atol=1e-7)
    both = costs.role(x, cells, outside, kappa, torch.from_numpy(e[None]))
    total = both[0].value + both[1].value
    np.testing.assert_allclose(total[0], of.role(z, states, estimates=e, expected=1.4), rtol=1e-9)
    p, q = (1 / (1 + np.exp(-a)) for a in (z, e))
    np.testing.assert_allclose(both[0].slope[0], (slope_of(alone, z) + p - q) / 2, atol=1e-7)
    np.testing.assert_allclose(both[1].slope[0], (slope_of(alone, e) + q - p) / 2, atol=1e-7)


def test_positive_unlabelled__differs_without_temperature_and_balance():
    z, states, _ = drawn(n=40)
    outside = torch.ones(1, 40, 1, dtype=torch.float64)

    def slope(z, balance):
        x, cells, _ = tensors(z, states)
        return costs.positive_unlabelled(x, cells, outside, balance=balance)

    assert (z.std(axis=0) > 1).all()
    value, plain = slope(z, 0.0)
    np.testing.assert_allclose(
        value[0], of.positive_unlabelled(z, states, balance=0), rtol=1e-8, atol=1e-9
    )
    define = slope_of(lambda x: of.positive_unlabelled(x, states, balance=0), z)
    # The sum of all cells is n times that over classes; the slope of a cell is of all of them.
    np.testing.assert_allclose(plain[0], define, atol=1e-6)
    balanced = slope(z, 0.55).slope[0].numpy()
    weight = (1 / (1 + np.exp(-z))).mean(axis=0) ** 0.55
    unknown = states != 1
    np.testing.assert_allclose(balanced[unknown], (plain[0].numpy() * weight)[unknown], rtol=1e-7)
    # Sharpened logits have a deviation of 1: dividing by it twice is dividing once.
    small = z * 0.1
    tau = small.std(axis=0)
    np.testing.assert_allclose(
        slope(small, 0.55).slope[0], slope(small / tau, 0.55).slope[0].numpy() / tau, rtol=1e-6
    )
    np.testing.assert_allclose(
        slope(small, 0.55).value[0], of.positive_unlabelled(small, states), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("n", [2, 9])
def test_mixed__is_its_definition_and_slopes_are_differences(n):
    z, states, _ = drawn(n=n)
    x, cells, _ = tensors(z, states)
    order = np.random.default_rng(0).permutation(n // 2)
    outside = torch.ones(1, n, 1, dtype=torch.float64)
    outside[0, 1] = 0
    both = outside[0, order] * outside[0, n - n // 2 :]
    value, slope = costs.mixed(x, cells, outside, torch.from_numpy(order), share=0.2)

    def define(x):
        return of.mixed(x, states, order=order, share=0.2) * both.numpy()

    np.testing.assert_allclose(value[0], define(z), rtol=1e-9)
    np.testing.assert_allclose(slope[0], slope_of(define, z), atol=1e-6)


@pytest.mark.parametrize("share", [0.2, 0.9])
def test_frequency__differs_by_logits_and_says_what_is_present(share):
    z, states, _ = drawn()
    x, cells, _ = tensors(z, states)
    cost, present = costs.frequency(x, cells, torch.full((1, 1, 1), share, dtype=torch.float64))
    np.testing.assert_allclose(cost.value[0], of.frequency(z, states, share=share), rtol=1e-9)
    define = slope_of(lambda x: of.frequency(x, states, share=share), z)
    np.testing.assert_allclose(cost.slope[0], define, atol=1e-7)
    np.testing.assert_allclose(present[0], of.present(z, states, share=share), rtol=1e-9)


def test_share__is_learned_in_two_epochs_and_is_near_that_which_was_planted():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20_000, 3)).astype(np.float32)
    truth = rng.random((20_000, 2)) < 1 / (1 + np.exp(-4 * x[:, :2]))
    states = np.where(truth & (rng.random(truth.shape) < 0.3), 1, -1)
    objective = CellObjective("frequency", states, np.full(20_000, -1), n_folds=1, epochs=3)
    shares = []
    after = objective.after_epoch
    objective.after_epoch = lambda epoch, say: (
        shares.append(float(objective.share)),
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
        recalled = recall_mask(p, states, strategy="class", class_mean=means) & (epoch > 0)
        return of.comic(z, states, n_yes=n_yes + recalled.sum(axis=0), recalled=recalled)
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


@pytest.mark.parametrize("decimals", [0, 9])
def test_largest__are_those_of_the_definition_and_never_more_than_are_unknown(decimals):
    z, states, _ = drawn()
    z = np.stack([z, -z]).round(decimals)
    outside = np.ones((2, N, 1))
    outside[1, ::2] = 0
    allowed = (states == -1) * outside
    for n in (0, 1, 5, 20, 1000):
        found = recalled_largest(*map(torch.from_numpy, (z, allowed)), n).numpy()
        for own, given, mask in zip(z, allowed, found, strict=True):
            p, free = 1 / (1 + np.exp(-own)), np.where(given, -1, 0)
            assert np.array_equal(mask, recall_mask(p, free, strategy="largest", n_largest=n))


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
