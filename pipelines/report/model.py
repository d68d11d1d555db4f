"""What the report says, as plain values: sections of paragraphs, tables, items and charts.

``collect`` fills it from a finished run folder, ``render`` turns it into a page. Every string may
come from the data and is treated as hostile by ``render``. Only `Markup` is shown as it is: words
of our own, into which names of the data were put by its ``format``, which escapes them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; bounds are None where none is known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """A thumbnail that is ready to be embedded (re-encoded by us, never the user's own bytes)."""

    media: str
    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Patch:
    """Neighbouring cells of a row of a grid in which a class is about equally sure."""

    x: int
    y: int
    width: int
    level: int
    """4 where a cell is surer than the cutoff of the class, 1 to 3 where it comes near."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Where in a picture a class is seen, in cells of a grid over it."""

    name: str
    columns: int
    rows: int
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One example, as shown on the page."""

    item_id: str
    shard: int
    given: str
    believed: str = ""
    score: float | None = None
    picture: Picture | None = None
    excerpt: str = ""
    overlay: Overlay | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """Where every item of the source went; the six parts sum to ``source``."""

    source: int
    kept: int
    relabelled: int
    dropped: int
    review: int
    unresolved: int
    quarantined: int

    @property
    def is_balanced(self) -> bool:
        """Whether no item was lost or counted twice."""
        aside = self.dropped + self.review + self.unresolved
        return self.kept + self.relabelled + aside + self.quarantined == self.source


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One item of which labels were changed."""

    item: Item
    removed: tuple[str, ...]
    added: tuple[str, ...]
    kept: tuple[str, ...] | None
    """None where an item has one label, which became another."""
    confidence: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis from 0 to ``top`` with round ticks."""

    top: float
    ticks: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table, with its values as they are."""

    head: str
    values: tuple[Any, ...]
    kind: str = "count"
    """How they are shown: see macro ``value`` of the template, and `text.FORMATS`."""
    tone: str = ""
    """``strong`` or ``soft``."""
    axis: Axis | None = None
    """Of bars."""


def column(
    head: str, values: Iterable[Any], kind: str = "count", tone: str = "", axis: Axis | None = None
) -> Column:
    """Make a column of any values, numbers of NumPy as plain ones."""
    plain = (value.item() if isinstance(value, np.generic) else value for value in values)
    return Column(head, tuple(plain), kind, tone, axis)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Columns of equal length."""

    caption: str
    columns: tuple[Column, ...]
    is_titled: bool = False
    """Whether the caption is seen, or only read aloud."""
    style: str = "list"
    n_open: int | None = None
    """Rows before the rest is folded away."""
    more: str = "more"
    """What the rest is called."""

    kind: ClassVar[str] = "table"

    @property
    def rows(self) -> tuple[tuple[Any, ...], ...]:
        """Values row by row."""
        return tuple(zip(*(column.values for column in self.columns), strict=True))

    def values(self, head: str) -> tuple[Any, ...]:
        """Return the values of a column."""
        return next(column.values for column in self.columns if column.head == head)


@dataclass(frozen=True, slots=True, kw_only=True)
class Items:
    """Items to look at: cards where they have pictures, else a table."""

    caption: str
    items: tuple[Item, ...]
    score: str = "score"
    """What the number of an item is."""
    score_kind: str = "decimal"
    n_open: int | None = None

    kind: ClassVar[str] = "items"

    def table(self, items: Sequence[Item]) -> Table:
        """Return some of the items as a table, without columns that would be empty."""
        columns = (
            column("Item", (item.item_id for item in items), "id"),
            column("Text", (item.excerpt for item in items), "text"),
            column("Given", (item.given for item in items), "name"),
            column("Believed", (item.believed for item in items), "name"),
            column(self.score.capitalize(), (item.score for item in items), self.score_kind),
            column("Shard", (item.shard for item in items)),
        )
        known = (one for one in columns if any(value not in ("", None) for value in one.values))
        return Table(caption=self.caption, columns=tuple(known))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Blocks of one class, which can be folded away."""

    name: str
    note: str
    blocks: tuple["Block", ...]
    is_open: bool = False

    kind: ClassVar[str] = "group"


@dataclass(frozen=True, slots=True)
class Text:
    """A heading (``h3``, ``h4``) inside a section, small print (``after``) and the like."""

    text: str
    style: str = "after"

    kind: ClassVar[str] = "text"


@dataclass(frozen=True, slots=True)
class Pair:
    """Blocks beside each other, where the page is wide enough."""

    left: tuple["Block", ...]
    right: tuple["Block", ...]
    style: str = "pair even"

    kind: ClassVar[str] = "pair"


@dataclass(frozen=True, slots=True)
class Drawing:
    """What a template of the part's own shows, as ``data``."""

    template: str
    data: Any

    kind: ClassVar[str] = "drawing"


Block = str | Text | Table | Items | Group | Pair | Drawing
"""A paragraph, or one of these."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One of the numbers at the top of the page."""

    name: str
    value: str
    under: str = ""
    tone: str = ""
    """``wrong``, ``good`` or ``believed``."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth a person's time, and where on the page it is."""

    title: str
    detail: str
    anchor: str
    rank: int = 40
    """Its place among all findings: what is likely to cost most comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What a part says: on the page, in the data card and as artifacts."""

    name: str
    """Anchor on the page: letters and dashes."""
    title: str = ""
    """Without one there is nothing on the page."""
    short: str = ""
    """Title in the contents, where another one."""
    rank: int = 40
    """Its place on the page."""
    blocks: tuple[Block, ...] = ()
    headline: str = ""
    """The first one there is heads the page."""
    lead: str = ""
    """Said below the headline."""
    eyebrow: str = "Label audit"
    """Said above it."""
    tiles: tuple[Tile, ...] = ()
    findings: tuple[Finding, ...] = ()
    card: str = ""
    """Of the data card, in Markdown; names from the data must be escaped."""
    whole_card: str = ""
    """The card of a run that makes no product; likewise."""
    artifacts: tuple[tuple[str, Table], ...] = ()
    """Tables to be kept from run to run, by name."""
    n_classes: int = 0
    """Where the source does not know them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One finished run."""

    title: str
    ledger: Ledger
    n_classes: int
    sections: tuple[Section, ...] = ()
    """What the parts say, in the order of the page."""
    is_decided: bool = False
    """Whether it was decided what becomes of every item."""
    notices: tuple[str, ...] = ()
    """What was left out, guessed or merged."""

    def section(self, name: str) -> Section | None:
        """Return the section of a name."""
        return next((section for section in self.sections if section.name == name), None)
