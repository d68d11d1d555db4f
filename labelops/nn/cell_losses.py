"""Objectives of `labelops.nn.shallow` for items whose classes are yes, no or unknown.

What a cell costs is in `labelops.nn.cell_gradients`; here is what a loss remembers from batch to
batch and from epoch to epoch: what was recalled, pseudo-labels, free estimates.
"""

# N items, n items of a batch, K classes, F folds, E epochs

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labelops.multilabel.labels import UNKNOWN, YES
from labelops.nn import cell_gradients as costs
from labelops.nn.cell_gradients import Cells, Cost
from labelops.nn.shallow import EPOCHS, Say
from labelops.partial.cell_losses import least_probable
from labelops.partial.recall import CLASS_THRESHOLD, KEPT, THRESHOLD, largest

NO_SHARE = 0.9
"""Of the unknown cells of a class, what has a pseudo-label in the end."""

FIRST_SHARE, LEARNED_FOR, REMEMBERED = 0.5, 2, 0.98
"""Of what is present, what is supposed to be said before anything is learned; in how many epochs it
is learned, since to a network that knows its items by heart all is said; and what of it a batch
leaves as it is."""

FASTER = 10.0
"""Parameters of a loss are learned so many times as fast as weights."""

LEAST_SHARE, MOST_SHARE = 0.02, 0.98
"""Between which the share stays."""

GIVEN, FREE = 5.293, 0.4055
"""Logits that free estimates begin with: of a given yes, 0.995; of unknown cells, up to ± 0.6."""

MIXING = 0.3
"""Of the Beta distribution that items are mixed by."""

FAR = 1e30
"""Further down than any logit."""


class _WithSlopes(torch.autograd.Function):
    """A sum whose derivatives are known already."""

    @staticmethod
    def forward(ctx: Any, total: Tensor, *pairs: Tensor) -> Tensor:
        ctx.save_for_backward(*pairs[len(pairs) // 2 :])
        return total.clone()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:
        slopes = ctx.saved_tensors
        return None, *(outer * slope for slope in slopes), *(None for _ in slopes)


@dataclass(slots=True)
class Batch:
    """Items of a batch.

    Attributes
    ----------
    z : logits without history, shape (F, n, K).
    cells : their states.
    rows : which items, shape (n,).
    outside : 1 where a fold's network is trained on an item, otherwise 0; shape (F, n, 1).
    learned : of what is learned beside the networks, the part for the batch; without history.
    slope : derivative of the costs by it, cell by cell; set by the loss.
    """

    z: Tensor
    cells: Cells
    rows: Tensor
    outside: Tensor
    learned: Tensor | None
    slope: Tensor | None = None


class CellObjective:
    """Sum over classes of the mean over a batch of what the cells cost, for every fold.

    Parameters
    ----------
    name
        One of `LOSSES`.
    states
        1 (yes), 0 (no), −1 (unknown), shape (N, K).
    fold
        Of each item, shape (N,); −1: every network is trained on it.
    n_folds
        F.
    epochs
        E; how much is recalled or believed depends on how far training is.
    expected
        How many classes an item has on average, for *epr* and *role*; None: as many as are given.
    seed
        Of what begins, or is mixed, at random.

    Attributes
    ----------
    parameters : what is trained beside the networks, for `train_networks`.

    Raises
    ------
    ValueError
        If there is no loss of the name.
    """

    def __init__(
        self,
        name: str,
        states: np.ndarray,
        fold: np.ndarray,
        *,
        n_folds: int,
        epochs: int = EPOCHS,
        expected: float | None = None,
        seed: int = 0,
    ) -> None:
        if name not in LOSSES:
            raise ValueError(f"CellObjective: one of {sorted(LOSSES)} was expected, got {name!r}")
        self.name, self.epochs, self.epoch = name, epochs, 0
        self.states = torch.from_numpy(np.asarray(states, np.int8))
        self.rng = np.random.default_rng(seed)
        n, k = self.states.shape
        yes = self.states == YES
        # What the items of a fold were given is hidden from its network in every way.
        self.outside = torch.from_numpy(np.asarray(fold)[None, :] != np.arange(n_folds)[:, None])
        n_outside = self.outside.sum(dim=1).clamp(min=1).view(-1, 1, 1)
        self.n_yes = (self.outside.to(torch.float32) @ yes.to(torch.float32))[:, None]
        self.means = self.n_yes / (2 * n_outside)
        of_given = self.n_yes.sum(dim=2, keepdim=True) / n_outside
        self.expected = of_given if expected is None else torch.full_like(of_given, expected)
        self.n_recalled = torch.zeros_like(self.n_yes)
        self.flipped = torch.zeros(n_folds, n if name == "ll-cp" else 0, k, dtype=torch.int8)
        self.pseudo = torch.full((n_folds, n if name == "em-apl" else 0, k), torch.nan)
        self.share = torch.full((n_folds, 1, 1), FIRST_SHARE)
        self.said = torch.zeros(2, n_folds, 1, 1)
        self.parameters: list[Tensor] = []
        if name == "role":
            drawn = self.rng.uniform(-FREE, FREE, (n_folds, n, k)).astype(np.float32)
            known = torch.where(yes, GIVEN, -GIVEN)
            free = torch.where(self.states == UNKNOWN, torch.from_numpy(drawn), known)
            self.parameters = [(free / FASTER).requires_grad_(True)]

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `Objective`."""
        learned = self._learned(rows)
        with torch.no_grad():
            cells = costs.cells_of(self.states.index_select(0, rows), logits.dtype)
            weight = outside[:, :, None].to(logits.dtype)
            alone = None if learned is None else learned.detach()
            batch = Batch(logits.detach(), cells, rows, weight, alone)
            cost = LOSSES[self.name](self, batch)
            weight = weight / max(len(rows), 1)
            total, slope = (cost.value * weight).sum(), cost.slope * weight
            if self.name == "pu-mix" and len(rows) > 1:
                mixed, n = self._mixed(batch), len(rows) // 2
                total, slope = total + mixed.value.sum() / n, slope.add_(mixed.slope, alpha=1 / n)
        pairs = [logits, slope]
        if learned is not None and batch.slope is not None:
            pairs = [logits, learned, slope, batch.slope * weight]
        loss: Tensor = _WithSlopes.apply(total, *pairs)
        return loss

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Take note that another epoch begins; see `Objective`."""
        self.epoch = epoch + 1
        self.n_recalled.zero_()
        first = self.epochs // 2
        if self.name == "em-apl" and first <= self.epoch < self.epochs:
            self._teach(torch.sigmoid(say()).numpy(), 1 / max(self.epochs - first, 1))

    def present(self, logits: Tensor) -> Tensor:
        """Return how probable it is that unknown cells are a yes; float32, like logits (F, n, K).

        σ(z), and where the loss says p of all cells, (1 − c) p / (1 − c p) of those left unsaid.
        """
        p = torch.sigmoid(logits)
        if self.name == "frequency":
            p = (1 - self.share) * p / (1 - self.share * p)
        return p

    def _learned(self, rows: Tensor) -> Tensor | None:
        """Return what of the parameters belongs to a batch, as the loss takes it."""
        return self.parameters[0].index_select(1, rows) * FASTER if self.parameters else None

    def _teach(self, p: np.ndarray, part: float) -> None:
        """Give pseudo-labels to some more cells that are surely not a yes, fold by fold."""
        is_unknown = self.states.numpy() == UNKNOWN
        for own, pseudo, outside in zip(p, self.pseudo.numpy(), self.outside.numpy(), strict=True):
            unknown = is_unknown & outside[:, None]
            n = (NO_SHARE * part * unknown.sum(axis=0)).astype(np.int64)
            taught = least_probable(own, unknown & np.isnan(pseudo), n)
            pseudo[taught] = own[taught]

    def _mixed(self, batch: Batch) -> Cost:
        order = torch.from_numpy(self.rng.permutation(len(batch.rows) // 2))
        share = float(self.rng.beta(MIXING, MIXING))
        return costs.mixed(batch.z, batch.cells, batch.outside, order, share=share)


def recalled_largest(z: Tensor, allowed: Tensor, n: int) -> Tensor:
    """Return which n allowed cells of each fold have the largest logits; shape (F, n, K).

    All of them if there are fewer; of ties, the first. `allowed`, and what is returned, is 1 where
    a cell is, otherwise 0, like z.
    """
    n = min(n, z[0].numel())
    if not n:
        return torch.zeros_like(z)
    lowered = z + (allowed - 1) * FAR
    # Selection by numpy has no branch for each cell; `topk` takes ten times as long.
    kth = [np.partition(own, own.size - n)[own.size - n] for own in lowered.flatten(1).numpy()]
    least = torch.from_numpy(np.stack(kth)).view(-1, 1, 1)
    found = allowed * torch.ge(lowered, least, out=torch.empty_like(z))
    n_more = found.sum(dim=(1, 2), dtype=torch.float64) - n
    for f in torch.nonzero(n_more > 0).flatten().tolist():
        equal = torch.nonzero((lowered[f] == least[f]).flatten()).flatten()
        found[f].view(-1)[equal[len(equal) - int(n_more[f]) :]] = 0
    return found


def _largest(own: CellObjective, batch: Batch, *, is_permanent: bool = False) -> Tensor | None:
    """Return the largest losses among the unknown cells that a fold's network is trained on."""
    if not own.epoch:
        return None
    allowed = batch.cells.unknown * batch.outside
    n = largest(batch.cells.yes.numel(), own.epoch, is_permanent=is_permanent)
    if is_permanent:
        before = own.flipped.index_select(1, batch.rows).to(batch.z.dtype)
        found = before + recalled_largest(batch.z, allowed * (1 - before), n)
        own.flipped[:, batch.rows] = found.to(own.flipped.dtype)
        return found
    return recalled_largest(batch.z, allowed, n)


def _splc(own: CellObjective, batch: Batch) -> Cost:
    recalled = None
    if own.epoch:
        least = float(np.log(THRESHOLD / (1 - THRESHOLD)))
        recalled = batch.cells.unknown * costs.beyond(batch.z, least)
    return costs.splc(batch.z, batch.cells, recalled)


def _comic(own: CellObjective, batch: Batch) -> Cost:
    z = costs.lowered(batch.z, batch.cells)
    p = torch.sigmoid(z)
    n = batch.outside.sum(dim=1, keepdim=True)
    mean = (p * batch.outside).sum(dim=1, keepdim=True) / n.clamp(min=1)
    own.means = torch.where(n > 0, KEPT * own.means + (1 - KEPT) * mean, own.means)
    recalled = torch.zeros_like(p)
    if own.epoch:
        least = own.means.clamp(min=CLASS_THRESHOLD)
        recalled = batch.cells.unknown * costs.beyond(p, least)
        own.n_recalled += (recalled * batch.outside).sum(dim=1, keepdim=True)
    return costs.comic(z, batch.cells, batch.outside, own.n_yes + own.n_recalled, recalled)


def _em_apl(own: CellObjective, batch: Batch) -> Cost:
    pseudo = own.pseudo.index_select(1, batch.rows) if own.epoch >= own.epochs // 2 else None
    return costs.entropy_maximising(batch.z, batch.cells, pseudo)


def _role(own: CellObjective, batch: Batch) -> Cost:
    assert batch.learned is not None
    cost, of_estimates = costs.role(
        batch.z, batch.cells, batch.outside, own.expected, batch.learned
    )
    batch.slope = of_estimates.slope
    return cost._replace(value=cost.value + of_estimates.value)


def _frequency(own: CellObjective, batch: Batch) -> Cost:
    cost, present = costs.frequency(batch.z, batch.cells, own.share)
    if own.epoch < LEARNED_FOR:
        sums = [
            (part * batch.outside).sum((1, 2), keepdim=True) for part in (batch.cells.yes, present)
        ]
        own.said = REMEMBERED * own.said + torch.stack(sums)
        share = own.said[0] / own.said[1].clamp(min=1e-6)
        own.share = torch.where(own.said[0] > 0, share.clamp(LEAST_SHARE, MOST_SHARE), own.share)
    return cost


def _pu(own: CellObjective, batch: Batch) -> Cost:
    return costs.positive_unlabelled(batch.z, batch.cells, batch.outside)


LOSSES: Mapping[str, Callable[[CellObjective, Batch], Cost]] = {
    "an": lambda own, batch: costs.assume_negative(batch.z, batch.cells),
    "wan": lambda own, batch: costs.weak_assume_negative(batch.z, batch.cells),
    "ls": lambda own, batch: costs.smoothed(batch.z, batch.cells),
    "asl": lambda own, batch: costs.asymmetric(batch.z, batch.cells),
    "hill": lambda own, batch: costs.hill(batch.z, batch.cells),
    "splc": _splc,
    "epr": lambda own, batch: costs.expected_positives(
        batch.z, batch.cells, batch.outside, own.expected
    ),
    "role": _role,
    "em": lambda own, batch: costs.entropy_maximising(batch.z, batch.cells),
    "em-apl": _em_apl,
    "ll-r": lambda own, batch: costs.rejected(batch.z, batch.cells, _largest(own, batch)),
    "ll-ct": lambda own, batch: costs.corrected(batch.z, batch.cells, _largest(own, batch)),
    "ll-cp": lambda own, batch: costs.corrected(
        batch.z, batch.cells, _largest(own, batch, is_permanent=True)
    ),
    "pu": _pu,
    "pu-mix": _pu,
    "multi-focal": lambda own, batch: costs.multi_focal(batch.z, batch.cells, own.n_yes),
    "comic": _comic,
    "frequency": _frequency,
}
"""By name: assume-negative, weak assume-negative, label smoothing, asymmetric, Hill, SPLC, expected
positives, ROLE, entropy maximisation without and with asymmetric pseudo-labels, large losses
rejected, corrected for a step and for good, PU-MLC without and with mixing, COMIC's multi-focal
loss without and with its corrector, and the likelihood of what was said."""
