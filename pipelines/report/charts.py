"""Where the marks of charts go; templates draw them as SVG in the page's own colours.

Drawn by hand rather than by a plotting library: the marks then follow the reader's light or dark
scheme and print style, need no embedded fonts, and a chart costs a few hundred bytes.
"""

import math
from dataclasses import dataclass

from pipelines.report.model import Axis, Ledger

LEVELS = 8
"""Shades of a heat map, besides none."""


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
class Share:
    """One part of the bar that says where all items went."""

    name: str
    key: str
    items: int
    share: float
    left: float
    meaning: str


def ledger_parts(ledger: Ledger) -> tuple[Share, ...]:
    """Parts of the whole, in reading order; left edges and shares are fractions of the source."""
    counts = (
        ("kept", "keep", ledger.kept, "unchanged, in the dataset"),
        ("relabelled", "relabel", ledger.relabelled, "new label, in the dataset"),
        ("to review", "review", ledger.review, "set aside for a person"),
        ("unresolved", "unresolved", ledger.unresolved, "set aside: the label is not believed"),
        ("dropped", "drop", ledger.dropped, "set aside, not for training"),
        ("quarantined", "quarantine", ledger.quarantined, "could not be used"),
    )
    whole = max(ledger.source, 1)
    parts, left = [], 0.0
    for name, key, items, meaning in counts:
        parts.append(Share(name, key, items, items / whole, left, meaning))
        left += items / whole
    return tuple(parts)


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
