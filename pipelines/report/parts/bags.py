"""Bags: how well their totals are told, and which of them contradict their items."""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from labelops.proportions.counts import ROUNDING
from pipelines.bags.census import CENSUS
from pipelines.bags.findings import LEVEL, ranked
from pipelines.core.reader import frames
from pipelines.core.results import load_result, result_name
from pipelines.core.stage import Arrays
from pipelines.core.state import Run
from pipelines.report.limits import Limits
from pipelines.report.model import Axis

STEPS = ("learn", "constrain")
"""Of which stage `proportions` does one."""

LITTLE = 0.6
"""Spread of shares, in that by chance, below which bags are taken to be filled by design."""

SURE = 2.0
"""Standard errors by which a model must tell totals better than one share for all."""

MUCH = 1.1
"""The same above which they differ by more than chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bag:
    """A bag's total of one class, beside what a model says that has not seen it."""

    bag_id: str
    name: str
    """The class that is counted."""
    items: int
    count: int
    expected: float
    p_value: float
    q_value: float
    """Least rate of false findings at which it is one."""


class BagPoint(NamedTuple):
    """A class's share of a bag, as counted and as expected."""

    counted: float
    expected: float
    is_improbable: bool


class BagClass(NamedTuple):
    """Items of a class: as totals count them, and as they are believed one by one."""

    name: str
    counted: int
    likely: int
    """Items with a total of which it is the most probable class."""
    likely_others: int
    """The same of items without a total."""


class BagShare(NamedTuple):
    """How much the share of a class differs between bags."""

    name: str
    mean: float
    std: float
    by_chance: float
    """What the spread would be if bags had been drawn at random."""


class BagRound(NamedTuple):
    """One round of learning from totals, or the one time that they were brought in."""

    name: str
    components: int
    not_settled: int
    """Groups of bags whose messages did not settle; their beliefs are those of the last sweep."""
    strength: float | None = None
    """How much neighbours may say, as held-out totals chose it."""
    approximated: int = 0
    """Bags whose counts had their say by a saddle point, not by counting through."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bags:
    """Groups of items of which the totals are known."""

    count: int
    items: int
    others: int
    """Items without a total."""
    absent: int
    incomplete: int
    smallest: int
    median: float
    largest: int
    shares: tuple[BagShare, ...]
    is_constant: bool
    """Whether all bags have one share, from which nothing can be learned."""
    is_learned: bool
    """Whether a model was learned from totals, or they were brought into what was believed."""
    held_out: int
    loss_model: float | None
    loss_constant: float | None
    rounds: tuple[BagRound, ...]
    rounded: int
    residual: float
    dispersion: float
    improbable: int
    shown: tuple[Bag, ...]
    moved: float | None = None
    missing: int = 0
    """Items of which a feature is missing."""
    unsettled: float | None = None
    """Nats that another step of the regression on totals would have gained."""
    left_out: int = 0
    """Bags whose totals were not brought in, since given labels and model contradict them."""
    is_contrary: bool = False
    """Whether that is so of all, because one share for all tells totals better."""
    is_clear: bool = True
    """Whether all totals, each told without it, are told clearly better than by one share."""
    spread: str = "chance"
    """Shares of bags differ far ``less`` than by chance, about as by ``chance``, or ``more``."""
    order: tuple[str, ...] = ()
    """Names of the first classes, in the order of their counts."""
    classes: tuple[BagClass, ...] = ()
    sureness: float | None = None
    """Probability of the most probable class, mean over items."""
    n_classes: int = 0
    points: tuple[BagPoint, ...] = ()
    n_points: int = 0
    """How many there are; not all may be drawn."""

    @property
    def last(self) -> str:
        """The stage whose beliefs are the last ones, and the folder they are in."""
        return self.rounds[-1].name if self.rounds else "proportions"

    @property
    def not_settled(self) -> int:
        """Groups of bags that did not settle in the last round."""
        return self.rounds[-1].not_settled if self.rounds else 0

    @property
    def approximated(self) -> int:
        """Bags whose counts had their say by approximation in the last round."""
        return self.rounds[-1].approximated if self.rounds else 0

    @property
    def is_no_better(self) -> bool:
        """Whether totals are told no better by the model than by one share for all.

        Where beliefs were there before totals, that share has seen them, and bags that were filled
        to have it are told best by it, however good the model.
        """
        if self.loss_model is None or self.loss_constant is None:
            return False
        if not self.is_learned and (self.is_constant or self.spread == "less"):
            return False
        return self.loss_model >= self.loss_constant

    @property
    def is_doubtful(self) -> bool:
        """Whether held-out totals are told better, but so little that it may be chance."""
        is_told = self.loss_model is not None and self.loss_constant is not None
        return self.is_learned and is_told and not self.is_clear and not self.is_no_better


def read_bags(run: Run, limits: Limits) -> Bags | None:
    """Read what stage `proportions` found, over all its rounds; None where the run has none."""
    found = _rounds(run)
    if not found:
        return None
    census = load_result(run.store, found[0][0], CENSUS)
    last, sizes = found[-1][1], census["sizes"]
    bag, k = ranked(census, last)
    q_value = last["q_value"][bag, k]
    is_learned = "loss_network" in last
    in_bags = int(sizes.sum())
    n_drawn = 0 if is_learned and census["is_constant"] else limits.bag_points
    likely, likely_others, sureness = _believed(run, found[-1][0], len(census["classes"]))
    return Bags(
        count=len(sizes),
        items=in_bags,
        others=int(census["n_items"]) - in_bags,
        absent=int(census["n_absent"]),
        incomplete=int(census["n_incomplete"]),
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        shares=_shares(census)[: limits.bag_shares],
        is_constant=bool(census["is_constant"]),
        is_learned=is_learned,
        held_out=len(last["held_out"]) if is_learned else len(sizes),
        loss_model=_number(last["loss_start"]),
        loss_constant=_number(last["loss_constant"]),
        rounds=tuple(_round(name, arrays) for name, arrays in found),
        rounded=int((census["residual"] > ROUNDING).sum()),
        residual=float(census["residual"].max(initial=0.0)),
        dispersion=float(last["dispersion"]),
        improbable=int((q_value <= LEVEL).sum()),
        shown=tuple(
            _bag(census, last, b, c)
            for b, c in zip(bag.tolist(), k.tolist(), strict=True)
            if last["q_value"][b, c] <= LEVEL
        )[: limits.bags],
        moved=float(last["moved"]) if "moved" in last else None,
        missing=int(last.get("n_without_vector", 0)),
        unsettled=_number(last["left"]) if "left" in last else None,
        left_out=int((~last["is_imposed"]).sum()) if "is_imposed" in last else 0,
        is_contrary=bool(last.get("is_contrary", False)),
        is_clear=_is_clear(census, last),
        spread=_spread(census),
        order=tuple(census["classes"][: limits.bag_shares].tolist()),
        classes=tuple(
            BagClass(
                name=str(census["classes"][c]),
                counted=int(census["counts"][:, c].sum()),
                likely=int(likely[c]),
                likely_others=int(likely_others[c]),
            )
            for c in range(min(len(likely), limits.bag_shares))
        ),
        sureness=sureness,
        n_classes=len(likely),
        points=_points(census, last, bag, k, n_drawn),
        n_points=len(bag),
    )


def _rounds(run: Run) -> list[tuple[str, Arrays]]:
    names = [e.name for e in run.entries if e.name.split("@")[0] == "proportions"]
    return [
        (name, load_result(run.store, name, step))
        for name in names
        for step in STEPS
        if run.store.exists(result_name(name, step))
    ]


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _shares(census: Arrays) -> tuple[BagShare, ...]:
    n_classes = len(census["classes"])
    shown = [1] if n_classes == 2 else range(n_classes)
    return tuple(
        BagShare(
            name=str(census["classes"][k]),
            mean=float(census["share"][k]),
            std=float(census["share_std"][k]),
            by_chance=float(census["share_by_chance"][k]),
        )
        for k in shown
    )


def _round(name: str, found: Arrays) -> BagRound:
    return BagRound(
        name=name,
        components=int(found["n_components"]),
        not_settled=int(found["n_open"]),
        strength=float(found["strength"]) if "strength" in found else None,
        approximated=int(found["n_saddle_point"]),
    )


def _spread(census: Arrays) -> str:
    """Compare the spread of shares, all classes together, with that of bags filled at random."""
    by_chance = np.square(census["share_by_chance"]).sum()
    if not by_chance > 0:
        return "chance"
    ratio = np.sqrt(np.square(census["share_std"]).sum() / by_chance)
    # Of B bags filled at random, the ratio itself is spread by about 1 / √(2 B).
    error = 1 / np.sqrt(2 * len(census["sizes"]))
    if ratio < min(LITTLE, 1 - 3 * error):
        return "less"
    return "more" if ratio > max(MUCH, 1 + 2 * error) else "chance"


def _is_clear(census: Arrays, found: Arrays) -> bool:
    """Compare, bag by bag, what a model expects that was not fitted to it with one share for all.

    There are more bags than held-out ones, so this tells what the mean losses of these do not. The
    share is that of all bags and has seen them: with that of the others, which each bag pulls away
    from itself, features of pure noise pass too often.
    """
    counts, size = census["counts"].astype(np.float64), census["sizes"][:, None]
    if len(counts) < 2:
        return False
    told = np.maximum(found["expected"] / size, 1e-12)
    share = np.maximum(counts.sum(axis=0) / size.sum(), 1e-12)
    gain = (counts * np.log(told / share)).sum(axis=1)
    return bool(gain.mean() > SURE * gain.std(ddof=1) / np.sqrt(len(gain)))


def _believed(run: Run, stage: str, n_classes: int) -> tuple[np.ndarray, np.ndarray, float | None]:
    """Return for how many items each class is the most probable, with and without a total.

    And how probable it is on average, None without items.
    """
    counted = np.zeros((2, n_classes), np.int64)
    total = 0.0
    names = [entry.name for entry in run.entries]
    # Later stages may have written columns of these names.
    following = dict(itertools.pairwise(names)).get(stage)
    for frame in frames(run, ("topk_ids", "topk_probs", "bag_residual"), before=following):
        if not frame.n:
            continue
        # Most probable first.
        top = pc.list_element(frame["topk_ids"], 0).to_numpy(zero_copy_only=False)
        is_other = frame["bag_residual"].is_null().to_numpy(zero_copy_only=False)
        for row in (0, 1):
            counted[row] += np.bincount(top[is_other == row], minlength=n_classes)
        probs = pc.list_element(frame["topk_probs"], 0).to_numpy(zero_copy_only=False)
        total += float(probs.astype(np.float64).sum())
    n = int(counted.sum())
    return counted[0], counted[1], total / n if n else None


def _points(
    census: Arrays, found: Arrays, bag: np.ndarray, k: np.ndarray, most: int
) -> tuple[BagPoint, ...]:
    """Return what was counted and expected of bags, improbable totals first and others evenly."""
    n_improbable = min(int((found["q_value"][bag, k] <= LEVEL).sum()), most)
    n_others = min(len(bag) - n_improbable, most - n_improbable)
    others = np.linspace(n_improbable, len(bag) - 1, n_others).astype(np.int64)
    at = np.concatenate([np.arange(n_improbable), others])
    b, c = bag[at], k[at]
    size = census["sizes"][b]
    return tuple(
        BagPoint(counted=counted, expected=expected, is_improbable=i < n_improbable)
        for i, (counted, expected) in enumerate(
            zip(
                (census["counts"][b, c] / size).tolist(),
                (found["expected"][b, c] / size).tolist(),
                strict=True,
            )
        )
    )


def _bag(census: Arrays, found: Arrays, b: int, k: int) -> Bag:
    return Bag(
        bag_id=str(census["bag_ids"][b]),
        name=str(census["classes"][k]),
        items=int(census["sizes"][b]),
        count=int(census["counts"][b, k]),
        expected=float(found["expected"][b, k]),
        p_value=float(found["p_value"][b, k]),
        q_value=float(found["q_value"][b, k]),
    )


class BagPlot(NamedTuple):
    """Counted against expected shares of bags, in fractions of one axis for both; y upwards.

    Shares rather than counts: bags of different sizes would else lie along the diagonal for their
    sizes alone.
    """

    axis: Axis
    usual: tuple[tuple[float, float], ...]
    improbable: tuple[tuple[float, float], ...]
    order: tuple[str, ...]
    n_points: int
