"""Linear models and networks of one hidden layer on fixed features, one a fold, by any loss.

The one trainer of losses that are no sum over items, or not convex, or that change as training goes
on; `labelops.nn.linear` minimises those that are convex. All folds are trained side by side, each
on the items outside it.
"""

# N items, D features, H hidden units, K outputs, F folds, E epochs, n items of a batch

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from labelops.fast.products import affine
from labelops.nn.threads import one_thread

HIDDEN, EPOCHS = 256, 20

BATCHES, SMALLEST, LARGEST = 64, 32, 256
"""An epoch has about so many batches, of so many items at least and at most."""

RATE, DECAY = 1e-3, 1e-2
"""Learning rate at the beginning, and weight decay."""

MAX_CELLS = 1 << 25
"""Items × features that networks are fitted to stay below it: 128 MiB."""

BLOCK_ROWS = 2048


class Networks(NamedTuple):
    """Networks of all folds after every epoch.

    Attributes
    ----------
    center, scale : of the features, float32, shape (D,).
    into, into_bias : float32, shapes (E, F, D, H) and (E, F, H); H is 0 where they are linear.
    out, out_bias : float32, shapes (E, F, H, K) and (E, F, K); (E, F, D, K) where they are linear.
    """

    center: np.ndarray
    scale: np.ndarray
    into: np.ndarray
    into_bias: np.ndarray
    out: np.ndarray
    out_bias: np.ndarray

    def after(self, epochs: slice) -> "Networks":
        """Return the networks of some epochs only."""
        return Networks(self.center, self.scale, *(layer[epochs] for layer in self[2:]))


Say = Callable[[], Tensor]
"""What the networks of all folds say of all items now: float32, shape (F, N, K), no gradient."""


class Objective(Protocol):
    """What is minimised."""

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch, summed over folds.

        Logits float32 of shape (F, n, K) of the items `rows`, int64 of shape (n,); `outside` says
        which of them a fold's network is trained on, bool of shape (F, n).
        """

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Take note of how far training is; epochs count from 0."""


class Pairs(NamedTuple):
    """Points between two items of a batch, features γ x + (1 − γ) x′.

    Attributes
    ----------
    one, other : places of x and x′ in the batch, int64, shape (M,).
    share : γ, float32, shape (M,).
    """

    one: Tensor
    other: Tensor
    share: Tensor


class Between(Protocol):
    """What is asked of points between items, beside the objective (mixup)."""

    def pair(self, rows: Tensor) -> Pairs:
        """Return which points to look at, of the batch of items `rows`."""

    def loss(self, logits: Tensor, mixed: Tensor, pairs: Pairs, outside: Tensor) -> Tensor:
        """Return the loss of a batch, summed over folds.

        Logits of its items, shape (F, n, K), and of the points between, shape (F, M, K).
        """


def n_items(n_features: int) -> int:
    """Return how many items networks are fitted to at most.

    Examples
    --------
    >>> n_items(512)
    65536
    """
    return max(1, MAX_CELLS // max(n_features, 1))


def batch_size(n: int) -> int:
    """Return how many items a batch has.

    Examples
    --------
    >>> batch_size(100), batch_size(10_000), batch_size(1_000_000)
    (32, 156, 256)
    """
    return min(max(n // BATCHES, SMALLEST), LARGEST)


def train_networks(
    features: np.ndarray,
    fold: np.ndarray,
    objective: Objective,
    *,
    n_outputs: int,
    n_folds: int,
    seed: int = 0,
    hidden: int = HIDDEN,
    epochs: int = EPOCHS,
    rate: float = RATE,
    decay: float = DECAY,
    strata: np.ndarray | None = None,
    parameters: Sequence[Tensor] = (),
    between: Between | None = None,
) -> Networks:
    """Train one network a fold on the items outside it, all side by side.

    Parameters
    ----------
    features
        Finite, in an order that has nothing to do with what they are, shape (N, D).
    fold
        Of each item, shape (N,); −1: every network is trained on it.
    objective
        What is minimised.
    n_outputs, n_folds
        K, F.
    seed
        Of the first weights, which are 0 in a linear model, and of the order of the items.
    hidden
        H; 0 for a linear model.
    epochs
        E.
    rate, decay
        Learning rate at the beginning, and weight decay.
    strata
        Shape (N,): each batch has its share of the items of every stratum. None: as they come.
    parameters
        Of the objective, trained with the networks.
    between
        What is minimised beside it, if anything.

    Notes
    -----
    Rectified units; AdamW with cosine decay. On one thread, so that the same items in the same
    order give the same bits.

    Examples
    --------
    >>> class Square:
    ...     def loss(self, logits, rows, outside):
    ...         return ((logits[..., 0] - 3) ** 2 * outside).mean()
    ...     def after_epoch(self, epoch, say):
    ...         pass
    >>> x = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
    >>> nets = train_networks(
    ...     x, np.arange(300) % 2, Square(), n_outputs=1, n_folds=2, hidden=0, rate=0.1
    ... )
    >>> say(nets.after(slice(-1, None)), x, np.arange(300) % 2)[:2].round(1).tolist()
    [[3.0], [3.0]]
    """
    n, width = features.shape
    center, scale = np.zeros(width, np.float32), np.ones(width, np.float32)
    if n:
        center = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = features.std(axis=0, dtype=np.float64).astype(np.float32)
        scale = np.where(deviation > 0, deviation, np.float32(1))
    generator = torch.Generator().manual_seed(seed)

    def fresh(rows: int, columns: int) -> Tensor:
        drawn = torch.randn(n_folds, rows, columns, generator=generator)
        return drawn.mul_((2 / max(rows, 1)) ** 0.5).requires_grad_(True)

    into, out = fresh(width, hidden), fresh(hidden or width, n_outputs)
    if not hidden:
        # What no item of a fold shows is never unlearned, and would be noise to others.
        with torch.no_grad():
            out.zero_()
    into_bias = torch.zeros(n_folds, 1, hidden, requires_grad=True)
    out_bias = torch.zeros(n_folds, 1, n_outputs, requires_grad=True)
    held = [into, into_bias, out, out_bias]
    size = batch_size(n)
    optimiser = torch.optim.AdamW([*held, *parameters], lr=rate, weight_decay=decay)
    n_steps = epochs * max(1, -(-n // size))
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    kept: list[list[np.ndarray]] = [[] for _ in held]

    def forward(x: Tensor) -> Tensor:
        inner = torch.relu(x @ into + into_bias) if hidden else x
        return inner @ out + out_bias

    with one_thread():
        x = torch.from_numpy((features - center) / scale)
        outside = torch.from_numpy(np.asarray(fold)[None, :] != np.arange(n_folds)[:, None])

        def say() -> Tensor:
            with torch.no_grad():
                blocks = [forward(x[a : a + BLOCK_ROWS]) for a in range(0, n, BLOCK_ROWS)]
                return torch.cat(blocks, dim=1) if blocks else forward(x)

        for epoch in range(epochs):
            order = torch.randperm(n, generator=generator)
            if strata is not None:
                order = _evenly(order, torch.from_numpy(np.asarray(strata, np.int64)))
            for start in range(0, n, size):
                rows = order[start : start + size]
                logits = forward(x[rows])
                loss = objective.loss(logits, rows, outside[:, rows])
                if between is not None:
                    pairs = between.pair(rows)
                    one, other = (x[rows[places]] for places in pairs[:2])
                    mixed = forward(torch.lerp(other, one, pairs.share[:, None]))
                    loss = loss + between.loss(logits, mixed, pairs, outside[:, rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
            for parts, tensor in zip(kept, held, strict=True):
                parts.append(tensor.detach().numpy().copy())
            objective.after_epoch(epoch, say)
    stacked = [np.stack(parts) for parts in kept]
    return Networks(center, scale, stacked[0], stacked[1][:, :, 0], stacked[2], stacked[3][:, :, 0])


def _evenly(order: Tensor, strata: Tensor) -> Tensor:
    """Return an order in which the items of every stratum are evenly spread."""
    place = torch.empty(len(order), dtype=torch.float64)
    of = strata[order]
    for stratum in torch.unique(of):
        here = torch.nonzero(of == stratum)[:, 0]
        place[here] = (torch.arange(len(here), dtype=torch.float64) + 0.5) / len(here)
    return order[torch.argsort(place, stable=True)]


def say(networks: Networks, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return what the networks of other folds say on average; float64, shape (N, K).

    The mean of the logits over all epochs. A row is the same whatever rows are beside it.

    Parameters
    ----------
    networks
        From `train_networks`.
    features, fold
        Of the items, shapes (N, D) and (N,); every fold is that of a network.
    """
    logits = np.zeros((len(features), networks.out.shape[3]))
    x = (features.astype(np.float32) - networks.center) / networks.scale
    is_linear = networks.into.shape[3] == 0
    for f in np.unique(fold).tolist():
        rows, layers = np.flatnonzero(fold == f), [array[:, f].copy() for array in networks[2:]]
        for start in range(0, len(rows), BLOCK_ROWS):
            some = rows[start : start + BLOCK_ROWS]
            total = np.zeros((len(some), logits.shape[1]))
            for into, into_bias, out, out_bias in zip(*layers, strict=True):
                inner = x[some] if is_linear else np.maximum(affine(x[some], into, into_bias), 0)
                total += affine(inner, out, out_bias)
            logits[some] = total / len(networks.out)
    return logits
