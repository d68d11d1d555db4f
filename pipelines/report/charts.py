"""Where the marks of each chart go; the template draws them as SVG in the page's own colours.

Drawn by hand rather than by a plotting library: the marks then follow the reader's light or dark
scheme and print style, need no embedded fonts, and a chart costs a few hundred bytes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipelines.report.model import (
    BagPoint,
    Calibration,
    ClassQuality,
    ConfusionMap,
    ConfusionTable,
    Estimate,
    Ledger,
    ListedClass,
    ReliabilityBin,
)

LEVELS = 8
"""Shades of a heat map, besides none."""

NO_LEVEL_BELOW = 0.5
"""A cell of less than half an item has no colour; it is shown as 0."""


def level(share: float, full: float) -> int:
    """Shade 0–``LEVELS`` of a cell; the square root keeps small shares apart.

    Examples
    --------
    >>> level(0, 1), level(.01, 1), level(.25, 1), level(1, 1)
    (0, 1, 4, 8)
    """
    if share <= 0 or full <= 0:
        return 0
    return min(LEVELS, max(1, round(LEVELS * math.sqrt(min(share / full, 1)))))


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the bar that says where all items went."""

    name: str
    key: str
    items: int
    share: float
    left: float
    meaning: str


def ledger_parts(ledger: Ledger) -> tuple[Part, ...]:
    """Parts of the whole, in reading order; left edges and shares are fractions of the source."""
    counts = (
        ("kept", "keep", ledger.kept, "unchanged, in the dataset"),
        ("relabelled", "relabel", ledger.relabelled, "new label, in the dataset"),
        ("to review", "review", ledger.review, "set aside for a person"),
        ("dropped", "drop", ledger.dropped, "set aside, not for training"),
        ("quarantined", "quarantine", ledger.quarantined, "could not be used"),
    )
    whole = max(ledger.source, 1)
    parts, left = [], 0.0
    for name, key, items, meaning in counts:
        parts.append(Part(name, key, items, items / whole, left, meaning))
        left += items / whole
    return tuple(parts)


@dataclass(frozen=True, slots=True)
class Bar:
    """A value with its interval on a common axis; all in fractions of the axis."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from 0 to ``top`` with round ticks."""

    top: float
    ticks: tuple[float, ...]


def axis(largest: float) -> Axis:
    """Return the smallest round axis that holds a share, with at most five intervals.

    Examples
    --------
    >>> axis(.137)
    Axis(top=0.15, ticks=(0.0, 0.05, 0.1, 0.15))
    >>> axis(0.).top, axis(1.).top
    (0.01, 1.0)
    """
    for step in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2):
        n = max(math.ceil(largest / step - 1e-9), math.ceil(0.01 / step))
        if n <= 5:
            break
    return Axis(round(n * step, 6), tuple(round(i * step, 6) for i in range(n + 1)))


def quality_axis(classes: Sequence[ClassQuality]) -> Axis:
    """One axis for the wrong-label shares of all classes, intervals included."""
    highs = (max(c.wrong_share.value, c.wrong_share.high or 0.0) for c in classes)
    return axis(min(max(highs, default=0.0), 1.0))


def quality_bar(quality: ClassQuality, on: Axis) -> Bar:
    """Bar of one class's share of wrong labels."""
    share = quality.wrong_share
    low = share.value if share.low is None else share.low
    high = share.value if share.high is None else share.high
    return Bar(*(min(max(v / on.top, 0.0), 1.0) for v in (share.value, low, high)))


def list_axis(classes: Sequence[ListedClass]) -> Axis:
    """One axis for the numbers of wrong and of missing labels of all classes."""
    ends = [e.high or e.value for c in classes for e in (c.wrong, c.missing)]
    # The intervals of a few classes may be very wide; the bars are what shall be seen.
    most = max((e.value for c in classes for e in (c.wrong, c.missing)), default=0.0)
    return count_axis(min(max(ends, default=0.0), 1.5 * most))


def count_axis(largest: float) -> Axis:
    """Return a round axis that holds a number of items.

    Examples
    --------
    >>> count_axis(137)
    Axis(top=150.0, ticks=(0.0, 50.0, 100.0, 150.0))
    >>> count_axis(0).top
    1.0
    """
    unit = 10.0 ** math.ceil(math.log10(max(largest, 1.0)))
    share = axis(max(largest, 1.0) / unit)
    return Axis(share.top * unit, tuple(round(tick * unit, 6) for tick in share.ticks))


def estimate_bar(estimate: Estimate, on: Axis) -> Bar:
    """Bar of a number with its interval."""
    low = estimate.value if estimate.low is None else estimate.low
    high = estimate.value if estimate.high is None else estimate.high
    return Bar(*(min(max(v / on.top, 0.0), 1.0) for v in (estimate.value, low, high)))


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of the confusion table."""

    items: float
    level: int
    is_diagonal: bool


def confusion_cells(table: ConfusionTable) -> tuple[tuple[Cell, ...], ...]:
    """Cells with a shade: the share of the row's items, compared with the largest such share.

    The diagonal has no shade: right labels outnumber wrong ones so much that they would hide them.
    All other classes together do not count for the comparison either.
    """
    shares = [
        [0.0 if i == j else v / max(sum(row), 1.0) for j, v in enumerate(row)]
        for i, row in enumerate(table.items)
    ]
    named = len(shares) - table.is_part
    full = max((share for row in shares[:named] for share in row[:named]), default=0.0)
    return tuple(
        tuple(
            Cell(v, level(shares[i][j], full) if v >= NO_LEVEL_BELOW else 0, i == j)
            for j, v in enumerate(row)
        )
        for i, row in enumerate(table.items)
    )


@dataclass(frozen=True, slots=True)
class Square:
    """One block of the coarse confusion picture, in block units."""

    x: int
    y: int
    level: int


def map_squares(picture: ConfusionMap) -> tuple[Square, ...]:
    """Blocks that hold wrong labels; empty ones are not drawn."""
    full = max((v for row in picture.wrong for v in row), default=0.0)
    return tuple(
        Square(x, y, level(v, full))
        for y, row in enumerate(picture.wrong)
        for x, v in enumerate(row)
        if v >= NO_LEVEL_BELOW
    )


@dataclass(frozen=True, slots=True)
class Dot:
    """A point of the reliability diagram; x and y in [0, 1], y upwards."""

    x: float
    y: float
    radius: float
    items: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """Marks of the reliability diagram."""

    before: tuple[Dot, ...]
    after: tuple[Dot, ...]
    heights_before: tuple[tuple[float, float, float], ...]
    heights_after: tuple[tuple[float, float, float], ...]


def reliability(calibration: Calibration) -> Reliability:
    """Points of stated confidence against observed accuracy, and how many items stand behind."""
    most = max((b.count for b in (*calibration.before, *calibration.after)), default=1)
    return Reliability(
        _dots(calibration.before, most),
        _dots(calibration.after, most),
        _heights(calibration.before, most),
        _heights(calibration.after, most),
    )


@dataclass(frozen=True, slots=True)
class BagPlot:
    """Counted against expected shares of bags, in fractions of one axis for both; y upwards."""

    axis: Axis
    usual: tuple[tuple[float, float], ...]
    improbable: tuple[tuple[float, float], ...]


def bag_plot(points: Sequence[BagPoint]) -> BagPlot:
    """Points of what is expected of bags (x) and what was counted (y).

    Shares rather than counts: bags of different sizes would else lie along the diagonal for their
    sizes alone.
    """
    on = axis(max((max(p.counted, p.expected) for p in points), default=0.0))
    places = [(p.expected / on.top, p.counted / on.top, p.is_improbable) for p in points]
    return BagPlot(
        on,
        tuple((x, y) for x, y, is_improbable in places if not is_improbable),
        tuple((x, y) for x, y, is_improbable in places if is_improbable),
    )


def _dots(bins: Sequence[ReliabilityBin], most: int) -> tuple[Dot, ...]:
    return tuple(
        Dot(b.confidence, b.accuracy, 2.2 + 3.4 * math.sqrt(b.count / most), b.count)
        for b in bins
        if b.count
    )


def _heights(bins: Sequence[ReliabilityBin], most: int) -> tuple[tuple[float, float, float], ...]:
    return tuple((b.low, b.high - b.low, b.count / most) for b in bins if b.count)
