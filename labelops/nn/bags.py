"""One small network and one trainer for every way to learn from the class counts of bags.

Ways differ in the `Objective` only. Batches hold whole bags; what is kept in the end are the
weights of the epoch that did best on held-out bags: on their counts or, if the objective has a soft
label for every item, on these. No label of an item is asked for.
"""

# N items, B bags, D features, K classes

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from labelops.nn.bag_losses import bag_divergence, soft_cross_entropy
from labelops.nn.threads import one_thread
from labelops.ragged import offsets, spans

BLOCK_ROWS = 16_384


@dataclass(frozen=True, kw_only=True)
class BagTraining:
    """How to train; the same for all objectives.

    Attributes
    ----------
    hidden : widths of the layers; the last is the embedding.
    epochs : most passes over the items.
    patience : epochs without a better loss of held-out bags before it ends.
    batch_rows : about how many items a step; at least one bag.
    learning_rate, weight_decay : of AdamW.
    held_out : share of the bags that are held out, at least four bags where there are eight.
    """

    hidden: tuple[int, ...] = (128, 64)
    epochs: int = 60
    patience: int = 8
    batch_rows: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    held_out: float = 0.15


class Batch(NamedTuple):
    """Whole bags.

    Attributes
    ----------
    items : their positions, int64, shape (n,).
    bag : bag of each item, counted within the batch, int64, shape (n,).
    bags : which bags they are, int64, shape (b,).
    """

    items: Tensor
    bag: Tensor
    bags: Tensor


class Objective:
    """What a network is fitted to: a loss for a batch, after an E-step on its logits."""

    def e_step(self, logits: Callable[[], np.ndarray]) -> None:
        """Prepare an epoch; `logits()` gives the present ones of all items, (N, K)."""

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return what a step lowers."""
        raise NotImplementedError

    def judge(self, logits: Tensor, held_out: Batch, bag_loss: Tensor) -> Tensor:
        """Return what epochs are compared by: `bag_loss`, that of held-out counts."""
        return bag_loss


class SoftLabels(Objective):
    """Fixed soft labels, beside the counts if wanted.

    Parameters
    ----------
    targets
        Beliefs; one-hot rows for a supervised network, shape (N, K).
    start, counts
        As in `fit`.
    bag_weight
        λ of the divergence of bags beside the cross-entropy of items.

    References
    ----------
    Havaldar et al.: Learning from label proportions: bootstrapping supervised learners via belief
    propagation. ICLR 2024 (there the share of a bag is predicted from its mean embedding).
    """

    def __init__(
        self,
        targets: np.ndarray,
        start: np.ndarray,
        counts: np.ndarray,
        *,
        bag_weight: float = 0.0,
    ) -> None:
        self.targets = torch.from_numpy(np.asarray(targets, np.float32))
        self.bag_weight = bag_weight
        self.shares = shares_of(start, counts)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the mean cross-entropy of items, plus λ times that of bags."""
        loss = soft_cross_entropy(logits, self.targets[batch.items]).mean()
        if self.bag_weight:
            divergence = bag_divergence(logits, batch.bag, self.shares[batch.bags])
            loss = loss + self.bag_weight * divergence.mean()
        return loss

    def judge(self, logits: Tensor, held_out: Batch, bag_loss: Tensor) -> Tensor:
        """Return the loss of the items of held-out bags.

        Of a few large bags the counts alone say next to nothing about an epoch.
        """
        return self.loss(logits, held_out)


def shares_of(start: np.ndarray, counts: np.ndarray) -> Tensor:
    """Return what part of each bag each class has, float32, shape (B, K)."""
    return torch.from_numpy((counts / np.diff(start)[:, None]).astype(np.float32))


class BagNet(nn.Module):
    """A perceptron with ReLU whose last hidden layer is the embedding."""

    def __init__(
        self, n_features: int, n_classes: int, *, hidden: Sequence[int], seed: int
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            widths = [n_features, *hidden]
            layers: list[nn.Module] = []
            for a, b in itertools.pairwise(widths):
                layers += [nn.Linear(a, b), nn.ReLU()]
            self.body = nn.Sequential(*layers)
            self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, shape (N, K)."""
        logits: Tensor = self.head(self.body(x))
        return logits


class Fitted(NamedTuple):
    """A network and how it came about.

    Attributes
    ----------
    net : in evaluation mode.
    loss : mean over held-out bags of size × divergence, in nats.
    epoch : the epoch whose weights were kept.
    held_out : the bags that were held out, int64, ascending.
    """

    net: BagNet
    loss: float
    epoch: int
    held_out: np.ndarray


def hold_out(n_bags: int, *, share: float, seed: int) -> np.ndarray:
    """Choose bags to hold out, int64, ascending; none if there is but one.

    Examples
    --------
    >>> len(hold_out(100, share=0.15, seed=0)), len(hold_out(10, share=0.15, seed=0))
    (15, 4)
    """
    n = max(round(share * n_bags), min(4, n_bags // 2))
    rng = np.random.Generator(np.random.Philox(seed))
    return np.sort(rng.permutation(n_bags)[:n])


def fit(
    features: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    objective: Objective,
    *,
    training: BagTraining,
    seed: int,
    begin: BagNet | None = None,
) -> Fitted:
    """Train a network on an objective.

    Parameters
    ----------
    features
        Standardised, ordered by bag, shape (N, D).
    start
        Bag b has the items start[b] … start[b + 1] − 1, int64, shape (B + 1,).
    counts
        Items of each class in each bag, shape (B, K); rows sum to the size of the bag. The
        objective decides what is fitted; counts of held-out bags only say when to stop.
    objective
        What is fitted.
    training
        How.
    seed
        For the weights, the order of bags and the choice of held-out bags.
    begin
        A network with the weights to begin with; without one they are drawn.

    Raises
    ------
    ValueError
        If counts do not add up to the bags, or a weight is no longer finite.

    Notes
    -----
    On the CPU, in one thread: the same bits for any number of cores. The weights after the last
    epoch are kept if no bag can be held out.
    """
    sizes, total, n_bags = np.diff(start), counts.sum(axis=1), len(start) - 1
    if len(counts) != n_bags or (np.abs(total - sizes) > 1e-6).any() or (sizes < 1).any():
        raise ValueError(
            f"fit: counts of each of {n_bags} bags must add up to its size, one or more; "
            f"got counts of {len(counts)} bags that add up to {total[:5].tolist()} … for sizes "
            f"{sizes[:5].tolist()} …"
        )
    x = torch.from_numpy(np.ascontiguousarray(features, np.float32))
    share = shares_of(start, counts)
    held = hold_out(n_bags, share=training.held_out, seed=seed)
    rest = np.setdiff1d(np.arange(n_bags), held)
    rng = np.random.Generator(np.random.Philox(seed + 1))
    net = BagNet(x.shape[1], share.shape[1], hidden=training.hidden, seed=seed)
    if begin is not None:
        net.load_state_dict(begin.state_dict())
    optimiser = torch.optim.AdamW(
        net.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    best = _Best(np.inf, np.nan, -1, {})
    with one_thread():
        for epoch in range(training.epochs):
            objective.e_step(lambda: logits_of(net, features))
            for bags in _batches(rng.permutation(rest), start, training.batch_rows):
                batch = whole_bags(bags, start)
                loss = objective.loss(net(x[batch.items]), batch)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
            on_counts, value = np.nan, -float(epoch)
            if len(held):
                on_counts, value = _held_out(net, x, share, whole_bags(held, start), objective)
            if not np.isfinite(value):
                raise ValueError(
                    f"fit: predictions must stay finite; with learning_rate "
                    f"{training.learning_rate} they did not after epoch {epoch}. Lower it"
                )
            if value < best.value:
                state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
                best = _Best(value, on_counts, epoch, state)
            if epoch - best.epoch >= training.patience:
                break
    net.load_state_dict(best.state)
    return Fitted(net.eval(), best.loss, best.epoch, held)


class _Best(NamedTuple):
    value: float
    loss: float
    epoch: int
    state: dict[str, Tensor]


def whole_bags(bags: np.ndarray, start: np.ndarray) -> Batch:
    """Return a batch of bags.

    Examples
    --------
    >>> batch = whole_bags(np.array([2, 0]), np.array([0, 1, 3, 5]))
    >>> batch.items.tolist(), batch.bag.tolist()
    ([3, 4, 0], [0, 0, 1])
    """
    sizes = start[bags + 1] - start[bags]
    bag, items = spans(start[bags], sizes)
    return Batch(torch.from_numpy(items), torch.from_numpy(bag), torch.from_numpy(bags))


def rows_of_bags(bags: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the items of some bags, bag after bag, and where each begins among them.

    Examples
    --------
    >>> [part.tolist() for part in rows_of_bags(np.array([2, 0]), np.array([0, 1, 3, 5]))]
    [[3, 4, 0], [0, 2, 3]]
    """
    sizes = np.diff(start)[bags]
    return spans(start[bags], sizes)[1], offsets(sizes)


def logits_of(net: BagNet, features: np.ndarray, *, rows: int = BLOCK_ROWS) -> np.ndarray:
    """Return the logits of items, float64, shape (N, K)."""
    return _apply(net, features, rows).astype(np.float64)


def embed(net: BagNet, features: np.ndarray) -> np.ndarray:
    """Return the last hidden layer's activations, float32, shape (N, E)."""
    return _apply(net.body, features, BLOCK_ROWS)


def _apply(module: nn.Module, features: np.ndarray, rows: int) -> np.ndarray:
    with one_thread(), torch.no_grad():
        parts = [
            module(torch.from_numpy(np.asarray(features[a : a + rows], np.float32))).numpy()
            for a in range(0, max(len(features), 1), rows)
        ]
    return np.concatenate(parts)


def _batches(bags: np.ndarray, start: np.ndarray, batch_rows: int) -> list[np.ndarray]:
    """Cut bags, in their order, where a batch is full."""
    sizes = start[bags + 1] - start[bags]
    n_batches = max(1, min(len(bags), round(sizes.sum() / batch_rows)))
    batch = (np.cumsum(sizes) - sizes / 2) * n_batches // max(sizes.sum(), 1)
    return [part for part in np.split(bags, np.flatnonzero(np.diff(batch)) + 1) if len(part)]


def _held_out(
    net: BagNet, x: Tensor, share: Tensor, held: Batch, objective: Objective
) -> tuple[float, float]:
    """Return the loss of held-out counts, and what epochs are compared by."""
    with torch.no_grad():
        logits = torch.cat([net(x[rows]) for rows in torch.split(held.items, BLOCK_ROWS)]).double()
        divergence = bag_divergence(logits, held.bag, share[held.bags].double())
        loss = (divergence * torch.bincount(held.bag)).mean()
        return float(loss), float(objective.judge(logits, held, loss))
