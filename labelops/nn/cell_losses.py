"""Objectives of `labelops.nn.shallow` for items whose classes are yes, no or unknown.

What a cell costs is in `labelops.fast.cell_costs`; here is what a loss remembers from batch to
batch and from epoch to epoch: what was recalled, pseudo-labels, free estimates.
"""

# N items, n items of a batch, K classes, F folds, E epochs

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from labelops.fast import cell_costs as costs
from labelops.fast.cell_costs import Cells, Cost
from labelops.fast.cell_recall import beyond, largest_losses, move_means
from labelops.multilabel.labels import UNKNOWN, YES
from labelops.nn.shallow import EPOCHS, Say
from labelops.partial import cell_losses as of
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


@dataclass(slots=True)
class Batch:
    """Items of a batch.

    Attributes
    ----------
    cells : logits, states and weights.
    rows : which items, shape (n,).
    learned : of what is learned beside the networks, the part for the batch, shape (F, n, K).
    slope : derivative of the costs by it, cell by cell; set by the loss.
    """

    cells: Cells
    rows: Tensor
    learned: np.ndarray | None
    slope: np.ndarray | None = None


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
        n_outside = self.outside.sum(dim=1).clamp(min=1).numpy()
        self.n_yes = (self.outside.to(torch.float32) @ yes.to(torch.float32)).numpy()
        self.means = (self.n_yes / (2 * n_outside[:, None])).astype(np.float32)
        of_given = self.n_yes.sum(axis=1) / n_outside
        self.expected = of_given if expected is None else np.full_like(of_given, expected)
        self.n_recalled = np.zeros_like(self.n_yes)
        self.flipped = torch.zeros(n_folds, n if name == "ll-cp" else 0, k, dtype=torch.int8)
        self.pseudo = torch.full((n_folds, n if name == "em-apl" else 0, k), torch.nan)
        self.share = np.full(n_folds, FIRST_SHARE, np.float32)
        self.said = np.zeros((2, n_folds), np.float32)
        self.parameters: list[Tensor] = []
        if name == "role":
            drawn = self.rng.uniform(-FREE, FREE, (n_folds, n, k)).astype(np.float32)
            known = torch.where(yes, GIVEN, -GIVEN)
            free = torch.where(self.states == UNKNOWN, torch.from_numpy(drawn), known)
            self.parameters = [(free / FASTER).requires_grad_(True)]

    def loss(self, logits: Tensor, rows: Tensor, outside: Tensor) -> Tensor:
        """Return the loss of a batch; see `Objective`."""
        learned = self._learned(rows)
        cells = Cells(
            np.ascontiguousarray(logits.detach().numpy()),
            self.states.index_select(0, rows).numpy(),
            outside.numpy() * np.float32(1 / max(len(rows), 1)),
        )
        batch = Batch(cells, rows, None if learned is None else learned.detach().numpy())
        cost = LOSSES[self.name](self, batch)
        # What has the slopes as its derivatives, moved to the value.
        loss = torch.dot(logits.flatten(), torch.from_numpy(cost.slope).flatten())
        if learned is not None and batch.slope is not None:
            loss = loss + torch.dot(learned.flatten(), torch.from_numpy(batch.slope).flatten())
        return loss + (cost.total - loss.item())

    def after_epoch(self, epoch: int, say: Say) -> None:
        """Take note that another epoch begins; see `Objective`."""
        self.epoch = epoch + 1
        self.n_recalled[:] = 0
        first = self.epochs // 2
        if self.name == "em-apl" and first <= self.epoch < self.epochs:
            self._teach(torch.sigmoid(say()).numpy(), 1 / max(self.epochs - first, 1))

    def present(self, logits: Tensor) -> Tensor:
        """Return how probable it is that unknown cells are a yes; float32, like logits (F, n, K).

        σ(z), and where the loss says p of all cells, (1 − c) p / (1 − c p) of those left unsaid.
        """
        p = torch.sigmoid(logits)
        if self.name == "frequency":
            share = torch.from_numpy(self.share)[:, None, None]
            p = (1 - share) * p / (1 - share * p)
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
            taught = of.least_probable(own, unknown & np.isnan(pseudo), n)
            pseudo[taught] = own[taught]


def _largest(own: CellObjective, batch: Batch, *, is_permanent: bool = False) -> np.ndarray | None:
    """Return the largest losses among the unknown cells that a fold's network is trained on."""
    if not own.epoch:
        return None
    n = largest(batch.cells.states.size, own.epoch, is_permanent=is_permanent)
    if not is_permanent:
        return largest_losses(batch.cells, n)
    before = own.flipped.index_select(1, batch.rows).numpy()
    found: np.ndarray = before | largest_losses(batch.cells, n, before)
    own.flipped[:, batch.rows] = torch.from_numpy(found)
    return found


def _rejected(own: CellObjective, batch: Batch) -> Cost:
    return costs.cross_entropy(batch.cells, recalled=_largest(own, batch), taught=0.0, kept=0.0)


def _corrected(own: CellObjective, batch: Batch, *, is_permanent: bool = False) -> Cost:
    found = _largest(own, batch, is_permanent=is_permanent)
    return costs.cross_entropy(batch.cells, recalled=found)


def _splc(own: CellObjective, batch: Batch) -> Cost:
    if not own.epoch:
        return costs.splc(batch.cells)
    return costs.splc(batch.cells, beyond(batch.cells, np.full_like(own.means, THRESHOLD)).recalled)


def _comic(own: CellObjective, batch: Batch) -> Cost:
    move_means(batch.cells, own.means, taken=of.MARGIN, kept=KEPT)
    if not own.epoch:
        return costs.multi_focal(batch.cells, own.n_yes)
    found = beyond(batch.cells, np.maximum(own.means, np.float32(CLASS_THRESHOLD)))
    own.n_recalled += found.n_recalled
    n_yes = found.n_recalled.sum(axis=1) + found.n_given.sum(axis=1)
    return costs.comic(
        batch.cells,
        found.recalled,
        n_given=own.n_yes,
        n_yes=own.n_yes + own.n_recalled,
        per_yes=found.items / np.maximum(n_yes, np.float32(1)),
    )


def _asymmetric(own: CellObjective, batch: Batch) -> Cost:
    return costs.asymmetric(batch.cells, np.full_like(own.means, of.ASYMMETRIC[1]))


def _em_apl(own: CellObjective, batch: Batch) -> Cost:
    if own.epoch < own.epochs // 2:
        return costs.entropy_maximising(batch.cells)
    pseudo = own.pseudo.index_select(1, batch.rows).numpy()
    return costs.entropy_maximising(batch.cells, pseudo)


def _excess(own: CellObjective, cells: Cells) -> np.ndarray:
    """Return how many more classes an item of a batch has than are expected; shape (F,)."""
    means = np.zeros_like(own.means)
    move_means(cells, means)
    return np.asarray(means.sum(axis=1) - own.expected, np.float32)


def _role(own: CellObjective, batch: Batch) -> Cost:
    assert batch.learned is not None
    both = [_excess(own, batch.cells._replace(z=z)) for z in (batch.cells.z, batch.learned)]
    cost, batch.slope = costs.role(batch.cells, batch.learned, np.stack(both))
    return cost


def _frequency(own: CellObjective, batch: Batch) -> Cost:
    cost, said, present = costs.frequency(batch.cells, own.share)
    if own.epoch < LEARNED_FOR:
        own.said = REMEMBERED * own.said + np.stack([said.sum(axis=1), present.sum(axis=1)])
        share = np.clip(own.said[0] / np.maximum(own.said[1], 1e-6), LEAST_SHARE, MOST_SHARE)
        own.share = np.where(own.said[0] > 0, share, own.share).astype(np.float32)
    return cost


def _pu(own: CellObjective, batch: Batch) -> Cost:
    return costs.positive_unlabelled(batch.cells)


def _pu_mix(own: CellObjective, batch: Batch) -> Cost:
    cost, half = _pu(own, batch), len(batch.rows) // 2
    if not half:
        return cost
    order, share = own.rng.permutation(half), float(own.rng.beta(MIXING, MIXING))
    mixed = costs.mixed(batch.cells, order, share=share)
    return Cost(cost.total + mixed.total, cost.slope + mixed.slope)


LOSSES: Mapping[str, Callable[[CellObjective, Batch], Cost]] = {
    "an": lambda own, batch: costs.cross_entropy(batch.cells),
    "wan": lambda own, batch: costs.cross_entropy(
        batch.cells, unknown=1 / max(batch.cells.z.shape[2] - 1, 1)
    ),
    "ls": lambda own, batch: costs.cross_entropy(
        batch.cells, yes=1 - of.SMOOTHING, other=of.SMOOTHING
    ),
    "asl": _asymmetric,
    "hill": lambda own, batch: costs.hill(batch.cells),
    "splc": _splc,
    "epr": lambda own, batch: costs.expected_positives(batch.cells, _excess(own, batch.cells)),
    "role": _role,
    "em": lambda own, batch: costs.entropy_maximising(batch.cells),
    "em-apl": _em_apl,
    "ll-r": _rejected,
    "ll-ct": _corrected,
    "ll-cp": lambda own, batch: _corrected(own, batch, is_permanent=True),
    "pu": _pu,
    "pu-mix": _pu_mix,
    "multi-focal": lambda own, batch: costs.multi_focal(batch.cells, own.n_yes),
    "comic": _comic,
    "frequency": _frequency,
}
"""By name: assume-negative, weak assume-negative, label smoothing, asymmetric, Hill, SPLC, expected
positives, ROLE, entropy maximisation without and with asymmetric pseudo-labels, large losses
rejected, corrected for a step and for good, PU-MLC without and with mixing, COMIC's multi-focal
loss without and with its corrector, and the likelihood of what was said."""
