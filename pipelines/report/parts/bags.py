"""Bags: how well their totals are predicted, and which of them contradict their items."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from labelops.proportions.counts import ROUNDING
from pipelines.bags.census import CENSUS
from pipelines.bags.findings import LEVEL, ranked, shown_classes
from pipelines.core.reader import frames
from pipelines.core.results import load_result, result_name
from pipelines.core.stage import Arrays
from pipelines.core.state import Run
from pipelines.report import model as m
from pipelines.report.charts import axis
from pipelines.report.limits import Limits
from pipelines.report.text import decimal

STEPS = ("learn", "constrain")
"""Of which stage `proportions` does one."""

MOST, OPEN = 60, 12
"""Improbable totals that are shown, and those of them before the rest is folded away."""

SHARES = 20
"""Classes of which counts and shares are shown."""

LITTLE = 0.6
"""Variation of shares, in that by chance, below which bags are taken to be filled by design."""

SURE = 2.0
"""Standard errors by which a model must tell totals better than one share for all."""

MUCH = 1.1
"""The same above which they differ by more than chance."""


class BagPlot(NamedTuple):
    """Counted against expected shares of bags, in fractions of one axis for both; y upwards.

    Shares rather than counts: bags of different sizes would else lie along the diagonal for their
    sizes alone.
    """

    axis: m.Axis
    usual: tuple[tuple[float, float], ...]
    improbable: tuple[tuple[float, float], ...]
    order: tuple[str, ...]
    n_points: int
    """How many there are; not all may be drawn."""


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
    shares: m.Table
    """How much they differ between bags."""
    is_constant: bool
    """Whether all bags have one share, from which nothing can be learned."""
    is_learned: bool
    """Whether a model was learned from totals, or they were brought into what was believed."""
    held_out: int
    loss_model: float | None
    loss_constant: float | None
    rounds: m.Table
    """Of learning from totals, or the one time that they were brought in."""
    last: str
    """The stage whose beliefs are the last ones, and the folder they are in."""
    rounded: int
    residual: float
    dispersion: float
    improbable: int
    shown: m.Table
    """Totals beside what a model says that has not seen them."""
    classes: m.Table
    """Items as totals count them, and as they are believed one by one."""
    not_settled: int = 0
    """Groups of bags whose messages did not settle; their beliefs are those of the last sweep."""
    approximated: int = 0
    """Bags whose counts had their say by a saddle point, not by counting through."""
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
    """Whether totals, each held out, are predicted clearly better than by one share for all."""
    variation: str = "chance"
    """Shares of bags differ far ``less`` than by chance, about as by ``chance``, or ``more``."""
    order: tuple[str, ...] = ()
    """Names of the first classes, in the order of their counts."""
    sureness: float | None = None
    """Probability of the most probable class, mean over items."""
    n_classes: int = 0
    plot: BagPlot | None = None

    @property
    def is_told(self) -> bool:
        """Whether there are bags on which it can be told how well totals are predicted."""
        return self.loss_model is not None and self.loss_constant is not None

    @property
    def is_no_better(self) -> bool:
        """Whether totals are predicted no better by the model than by one share for all.

        Where beliefs were there before totals, that share has seen them, and bags that were filled
        to have it are predicted best by it, however good the model.
        """
        if self.loss_model is None or self.loss_constant is None:
            return False
        if not self.is_learned and (self.is_constant or self.variation == "less"):
            return False
        return self.loss_model >= self.loss_constant

    @property
    def is_doubtful(self) -> bool:
        """Whether held-out totals are predicted better, but so little that it may be chance."""
        return self.is_learned and self.is_told and not self.is_clear and not self.is_no_better


def read_bags(run: Run, limits: Limits) -> Bags | None:
    """Read what stage `proportions` found, over all its rounds; None where the run has none."""
    rounds = _rounds(run)
    if not rounds:
        return None
    name, last = rounds[-1]
    census = load_result(run.store, rounds[0][0], CENSUS)
    names, sizes = census["classes"], census["sizes"]
    bag, k = ranked(census, last)
    n_improbable = int((last["q_value"][bag, k] <= LEVEL).sum())
    is_learned = "loss_network" in last
    in_bags = int(sizes.sum())
    n_others = int(census["n_items"]) - in_bags
    n_drawn = 0 if is_learned and census["is_constant"] else limits.points
    *likely, sureness = _believed(run, name, len(names))
    first = tuple(names[:SHARES].tolist())
    counted, expected = (of[bag, k] / sizes[bag] for of in (census["counts"], last["expected"]))
    listed = slice(min(n_improbable, MOST))
    return Bags(
        count=len(sizes),
        items=in_bags,
        others=n_others,
        absent=int(census["n_absent"]),
        incomplete=int(census["n_incomplete"]),
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        shares=share_table(census, SHARES),
        is_constant=bool(census["is_constant"]),
        is_learned=is_learned,
        held_out=len(last["held_out"]) if is_learned else len(sizes),
        loss_model=_number(last["loss_start"]),
        loss_constant=_number(last["loss_constant"]),
        rounds=round_table(rounds),
        last=name,
        not_settled=int(last["n_open"]),
        approximated=int(last["n_saddle_point"]),
        rounded=int((census["residual"] > ROUNDING).sum()),
        residual=float(census["residual"].max(initial=0.0)),
        dispersion=float(last["dispersion"]),
        improbable=n_improbable,
        shown=improbable_table(census, last, bag[listed], k[listed], OPEN),
        moved=float(last["moved"]) if "moved" in last else None,
        missing=int(last.get("n_without_vector", 0)),
        unsettled=_number(last["left"]) if "left" in last else None,
        left_out=int((~last["is_imposed"]).sum()) if "is_imposed" in last else 0,
        is_contrary=bool(last.get("is_contrary", False)),
        is_clear=_is_clear(census, last),
        variation=_variation(census),
        order=first,
        classes=class_table(
            names[:SHARES],
            census["counts"].sum(axis=0)[:SHARES],
            *(n[:SHARES] for n in likely[: 2 if n_others else 1]),
        ),
        sureness=sureness,
        n_classes=len(names),
        plot=bag_plot(counted, expected, n_improbable, n_drawn, first),
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


def share_table(census: Arrays, most: int) -> m.Table:
    """Return how much shares of classes, of two only the second, differ between bags."""
    n_classes = len(census["classes"])
    shown = shown_classes(n_classes)[:most]
    return m.Table(
        caption="Share of a class, over bags",
        is_titled=True,
        columns=(
            m.column("Class", census["classes"][shown], "name"),
            m.column("Mean", census["share"][shown], "percent"),
            m.column("Spread", census["share_std"][shown], "percent"),
            m.column("Spread by chance", census["share_by_chance"][shown], "percent"),
        ),
    )


def class_table(names: np.ndarray, counted: np.ndarray, *likely: np.ndarray) -> m.Table:
    """Return items with a total of which a class is the most probable, and those without one."""
    return m.Table(
        caption="Items by class",
        is_titled=True,
        columns=(
            m.column("Class", names, "name"),
            m.column("By totals", counted),
            *map(m.column, ("Most probable", "… without a total"), likely),
        ),
    )


def round_table(rounds: Sequence[tuple[str, Arrays]]) -> m.Table:
    """Return how neighbours and totals were brought together in every round."""
    names, results = zip(*rounds, strict=True)
    strengths = (float(result.get("strength", 0)) for result in results)
    counts = {"Connected groups": "n_components", "Not settled": "n_open"}
    if results[-1]["n_saddle_point"]:
        counts["Bags approximated"] = "n_saddle_point"
    return m.Table(
        caption="Rounds",
        is_titled=True,
        columns=(
            m.column("Stage", names, "text"),
            m.column("Weight of neighbours", (decimal(s, 1) if s else "none" for s in strengths),
                     "text"),
            *(m.column(head, (int(of[key]) for of in results)) for head, key in counts.items()),
        ),
    )  # fmt: skip


def _variation(census: Arrays) -> str:
    """Compare how much shares of all classes vary between bags with bags filled at random."""
    by_chance = np.square(census["share_by_chance"]).sum()
    if not by_chance > 0:
        return "chance"
    ratio = np.sqrt(np.square(census["share_std"]).sum() / by_chance)
    # Of B bags filled at random, the ratio itself varies by about 1 / √(2 B).
    error = 1 / np.sqrt(2 * len(census["sizes"]))
    if ratio < min(LITTLE, 1 - 3 * error):
        return "less"
    return "more" if ratio > max(MUCH, 1 + 2 * error) else "chance"


def _is_clear(census: Arrays, last: Arrays) -> bool:
    """Compare, bag by bag, what a model expects that was not fitted to it with one share for all.

    There are more bags than held-out ones, so this tells what the mean losses of these do not. The
    share is that of all bags and has seen them: with that of the others, which each bag pulls away
    from itself, features of pure noise pass too often.
    """
    counts, size = census["counts"].astype(np.float64), census["sizes"][:, None]
    if len(counts) < 2:
        return False
    told = np.maximum(last["expected"] / size, 1e-12)
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


def bag_plot(
    counted: np.ndarray,
    expected: np.ndarray,
    n_improbable: int,
    most: int,
    order: tuple[str, ...],
) -> BagPlot | None:
    """Draw shares of bags, of which improbable ones come first, and some of the others evenly."""
    n, n_improbable = len(counted), min(n_improbable, most)
    others = np.linspace(n_improbable, n - 1, min(n, most) - n_improbable).astype(np.int64)
    drawn = np.concatenate([np.arange(n_improbable), others])
    if not drawn.size:
        return None
    points = np.stack([expected, counted], axis=1)[drawn]
    on = axis(float(points.max()))
    at = tuple((x, y) for x, y in (points / on.top).tolist())
    return BagPlot(on, at[n_improbable:], at[:n_improbable], order, n)


def improbable_table(
    census: Arrays, last: Arrays, bag: np.ndarray, k: np.ndarray, n_open: int
) -> m.Table:
    """Return totals of bags and classes, and how far off and how improbable they are."""
    counted, expected = census["counts"][bag, k], last["expected"][bag, k]
    excess = [
        f"{decimal(abs(x), 1)} too {'high' if x > 0 else 'low'}"
        for x in (counted - expected).tolist()
    ]
    return m.Table(
        caption="Improbable totals, the most improbable first",
        columns=(
            m.column("Bag", map(str, census["bag_ids"][bag]), "text"),
            m.column("Class", census["classes"][k], "name"),
            m.column("Items", census["sizes"][bag]),
            m.column("Count", counted, "count", "strong"),
            m.column("Expected", expected, "tenths"),
            m.column("Count is", excess, "text"),
            m.column("p-value", last["p_value"][bag, k], "tiny"),
            m.column("q-value", last["q_value"][bag, k], "tiny"),
        ),
        n_open=n_open,
    )
