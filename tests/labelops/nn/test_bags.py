"""Oracles: planted classes that every objective must find; what must not be looked at."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from labelops.fast.cardinality import marginals
from labelops.nn.bag_losses import bag_divergence, soft_cross_entropy
from labelops.nn.bags import (
    BagNet,
    BagTraining,
    Objective,
    SoftLabels,
    _batches,
    embed,
    fit,
    hold_out,
    logits_of,
    shares_of,
    whole_bags,
)
from labelops.proportions.counts import hard_counts
from labelops.proportions.transport import transport

SMALL = BagTraining(hidden=(16,), epochs=25, patience=25, batch_rows=128, learning_rate=0.01)


def planted(n_bags=150, size=8, n_classes=2, *, seed=0):
    """Gaussian classes two apart on an axis each; bags at random."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, n_classes, n_bags * size)
    x = rng.normal(size=(len(y), max(n_classes, 3)))
    x[np.arange(len(y)), y] += 3
    start = np.arange(0, len(y) + 1, size)
    counts = np.stack([np.add.reduceat(y == k, start[:-1], dtype=int) for k in range(n_classes)], 1)
    return x.astype(np.float32), y, start, counts


class Proportions(Objective):
    """The mean prediction of a bag is to be its share."""

    def __init__(self, start, counts):
        self.shares = shares_of(start, counts)

    def loss(self, logits, batch):
        return bag_divergence(logits, batch.bag, self.shares[batch.bags]).mean()


class OwnBeliefs(Objective):
    """Soft labels that are made anew each epoch."""

    def __init__(self, posterior):
        self.posterior = posterior

    def e_step(self, logits):
        self.targets = torch.from_numpy(self.posterior(logits()).astype(np.float32))

    def loss(self, logits, batch):
        return soft_cross_entropy(logits, self.targets[batch.items]).mean()


def two(p):
    return np.stack([1 - p, p], axis=1)


OBJECTIVES = {
    "DLLP": lambda y, s, c: Proportions(s, c),
    "LLP-EM": lambda y, s, c: OwnBeliefs(
        lambda z: two(marginals(z[:, 1] - z[:, 0], s, hard_counts(c[:, 1])).beliefs)
    ),
    "transport": lambda y, s, c: OwnBeliefs(lambda z: transport(z, s, c).beliefs),
    "supervised": lambda y, s, c: SoftLabels(np.eye(2)[y], s, c, bag_weight=0.1),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_teach__every_lesson_finds_planted_classes_without_their_labels(name):
    x, y, start, counts = planted()
    fitted = fit(x, start, counts, OBJECTIVES[name](y, start, counts), training=SMALL, seed=0)
    test_x, test_y, *_ = planted(seed=1)
    accuracy = (logits_of(fitted.net, test_x).argmax(axis=1) == test_y).mean()
    # The best possible is Φ(3 / √2) = 0.983.
    assert accuracy > 0.93
    assert np.isfinite(fitted.loss)


def test_teach__three_classes_are_learned_from_counts():
    x, _, start, counts = planted(n_classes=3)
    fitted = fit(x, start, counts, Proportions(start, counts), training=SMALL, seed=0)
    test_x, test_y, *_ = planted(n_classes=3, seed=1)
    assert (logits_of(fitted.net, test_x).argmax(axis=1) == test_y).mean() > 0.9


def test_teach__is_the_same_again_and_another_for_another_seed():
    x, _, start, counts = planted(n_bags=30)
    training = BagTraining(hidden=(8,), epochs=3)
    states = [
        fit(x, start, counts, Proportions(start, counts), training=training, seed=seed).net
        for seed in (0, 0, 1)
    ]
    first, again, other = (torch.cat([p.flatten() for p in net.parameters()]) for net in states)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_teach__does_not_learn_from_held_out_bags():
    """Other items in held-out bags change when it stops, not where an epoch leads."""
    x, _, start, counts = planted(n_bags=40)
    training = BagTraining(hidden=(8,), epochs=1)
    held = hold_out(40, share=training.held_out, seed=5)
    other = x.copy()
    other[whole_bags(held, start).items] += 7
    nets = [
        fit(z, start, counts, Proportions(start, counts), training=training, seed=5).net
        for z in (x, other)
    ]
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.equal(a, b)


def test_teach__keeps_the_epoch_that_explains_held_out_counts_best():
    x, y, start, counts = planted(n_bags=40)
    wrong = OwnBeliefs(lambda z: np.eye(2)[1 - y])
    fitted = fit(x, start, counts, wrong, training=SMALL, seed=0)
    # What is fitted contradicts the counts, so the first epoch is the least bad one.
    assert fitted.epoch == 0


def test_teach__with_soft_labels_keeps_the_epoch_that_explains_those_of_held_out_bags_best():
    x, y, start, counts = planted(n_bags=40)
    rng = np.random.default_rng(3)
    targets = np.where(rng.random(len(y)) < 0.3, 1 - y, y)
    objective = SoftLabels(np.eye(2)[targets], start, counts, bag_weight=0.1)
    training = replace(SMALL, hidden=(64,), epochs=12, patience=12)
    losses = []
    for n in range(1, training.epochs + 1):
        net = _after(n, x, start, counts, objective, training)
        held = whole_bags(hold_out(40, share=training.held_out, seed=0), start)
        logits = torch.from_numpy(logits_of(net, x[held.items.numpy()]))
        losses.append(float(objective.loss(logits, held)))
    kept = fit(x, start, counts, objective, training=training, seed=0)
    assert kept.epoch == int(np.argmin(losses)) < training.epochs - 1


class _Last(SoftLabels):
    """Calls every epoch better than the one before, so that the last one is kept."""

    def __init__(self, objective, n):
        self.__dict__, self.n = dict(objective.__dict__), iter(range(n, 0, -1))

    def judge(self, logits, held_out, bag_loss):
        return torch.tensor(float(next(self.n)))


def _after(n, x, start, counts, objective, training):
    shorter = replace(training, epochs=n)
    return fit(x, start, counts, _Last(objective, n), training=shorter, seed=0).net


def test_teach__goes_on_from_a_network():
    x, _, start, counts = planted(n_bags=40)
    first = fit(x, start, counts, Proportions(start, counts), training=SMALL, seed=0)
    still = replace(SMALL, epochs=1, learning_rate=0.0)
    objective = Proportions(start, counts)
    again = fit(x, start, counts, objective, training=still, seed=7, begin=first.net)
    np.testing.assert_array_equal(logits_of(again.net, x), logits_of(first.net, x))


def test_teach__one_bag_is_learned_from_and_nothing_held_out():
    x, _, start, counts = planted(n_bags=1)
    fitted = fit(x, start, counts, Proportions(start, counts), training=SMALL, seed=0)
    assert len(fitted.held_out) == 0
    assert np.isnan(fitted.loss)
    assert fitted.epoch == SMALL.epochs - 1


def test_teach__counts_that_do_not_add_up_are_refused():
    x, _, start, counts = planted(n_bags=4)
    with pytest.raises(ValueError, match=r"must add up to its size"):
        fit(x, start, counts + 1, Proportions(start, counts), training=SMALL, seed=0)


def test_batches__hold_whole_bags_each_once_and_are_about_as_large_as_asked():
    rng = np.random.default_rng(0)
    start = np.concatenate([[0], np.cumsum(rng.integers(1, 60, 100))])
    bags = rng.permutation(100)
    parts = _batches(bags, start, 256)
    np.testing.assert_array_equal(np.concatenate(parts), bags)
    sizes = [len(whole_bags(part, start).items) for part in parts]
    assert min(sizes) > 128
    assert max(sizes) < 384
    assert [len(part) for part in _batches(np.arange(3), np.arange(4) * 5000, 1024)] == [1, 1, 1]


def test_embed__is_what_the_head_is_applied_to():
    net = BagNet(3, 2, hidden=(5, 4), seed=0)
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    with torch.no_grad():
        want = net.head(torch.from_numpy(embed(net, x))).numpy()
    np.testing.assert_allclose(logits_of(net, x, rows=3), want, atol=1e-6)
