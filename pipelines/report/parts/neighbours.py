"""Items beside each other: duplicates that contradict one another, and outliers."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from pipelines.core.reader import frames
from pipelines.core.stage import Context
from pipelines.report import model as m
from pipelines.report.look import Reader
from pipelines.report.part import Part, flags, floats
from pipelines.report.select import Groups, Place, Shortlist
from pipelines.report.text import count, plural, verb
from pipelines.storage.frame import Frame, numpy_of


class Set(NamedTuple):
    """Items that look the same but were given different labels."""

    kind: str
    size: int
    items: tuple[m.Item, ...]


class Neighbours(Part):
    """What stage `neighbours` found."""

    reads = (
        *("item_hash", "given", "outlier_score", "is_outlier"),
        *("nn_distance", "duplicate_set", "is_duplicate_conflict"),
    )

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        self.outliers = Shortlist(1, run.limits.outliers)
        self.conflicts = Groups()
        self.n_duplicates = 0
        self.n_conflicts = 0
        self.members: dict[int, tuple[int, list[Place]]] = {}
        """Of shown sets the number of contradicting items, and where the ones to show are."""

    def scan(self, frame: Frame) -> None:
        """Count duplicates and outliers, and remember the first."""
        rows = flags(frame, "is_outlier")
        alone = np.zeros(rows.size, np.int64)
        self.outliers.add(frame, rows, alone, floats(frame, "outlier_score")[rows])
        sets = frame["duplicate_set"]
        self.n_duplicates += len(sets) - sets.null_count
        rows = flags(frame, "is_duplicate_conflict")
        self.n_conflicts += rows.size
        ids = numpy_of(sets.take(pa.array(rows)), "duplicate_set")
        self.conflicts.add(ids.astype(np.uint64), floats(frame, "nn_distance")[rows])

    def places(self) -> Iterable[Place]:
        """Return where outliers and members of sets are."""
        shown, _ = self.conflicts.smallest(self.limits.duplicate_sets)
        self.members = members(self.run, shown)
        yield from self.outliers.of(0)
        for _, places in self.members.values():
            yield from places

    def sections(self) -> Iterator[m.Section]:
        """Return duplicates, and outliers."""
        yield self._duplicates()
        yield self._outliers()

    def _duplicates(self) -> m.Section:
        n_sets, n = len(self.conflicts.ids), self.n_duplicates
        in_all = f"{plural(n, 'item')} {verb(n, 'has', 'have')} a duplicate."
        section = m.Section(
            name="duplicates",
            title="Duplicates with different labels",
            short="Duplicates",
            rank=80,
            blocks=(m.Text(f"No duplicates have different labels. {in_all}", "intro fine"),),
        )
        if not n_sets:
            return section
        shown = self.conflicts.smallest(self.limits.duplicate_sets)
        sets = []
        for one, distance in zip(*(part.tolist() for part in shown), strict=True):
            size, places = self.members[one]
            kind = "identical" if distance == 0 else "nearly identical"
            sets.append(Set(kind, size, tuple(map(self.run.item, places))))
        some = f"The first {len(sets)} are shown. " if len(sets) < n_sets else ""
        intro = (
            f"{plural(n_sets, 'set')} with {plural(self.n_conflicts, 'item')} that look the same "
            f"but were given different labels. {some}In all, {in_all}"
        )
        finding = m.Finding(
            f"{plural(n_sets, 'set')} of duplicates "
            + verb(n_sets, "has different labels", "have different labels"),
            f"{count(self.n_conflicts)} items look the same as another item but have a "
            "different label: at least one label in each set is wrong.",
            "duplicates",
            rank=80,
        )
        drawing = m.Drawing("parts/duplicates.html.j2", tuple(sets))
        return replace(section, blocks=(intro, drawing), findings=(finding,))

    def _outliers(self) -> m.Section:
        n = int(self.outliers.count[0])
        section = m.Section(
            name="outliers",
            title="Outliers",
            rank=90,
            blocks=(m.Text("No outliers were found.", "intro fine"),),
        )
        if not n:
            return section
        outliers = (self.run.item(place, "outlier_score") for place in self.outliers.of(0))
        # Of an item that is like no other, what the model believes says little.
        items = m.Items(
            caption="Most unusual items",
            items=tuple(replace(item, believed="") for item in outliers),
            score="similarity",
            n_open=self.limits.open_outliers,
        )
        n_shown = len(items.items)
        some = f"; the {n_shown} farthest are shown" if n_shown < n else ""
        intro = (
            f"{plural(n, 'item')} far from {verb(n, 'its', 'their')} nearest neighbours{some}. A "
            "lower similarity means more unusual."
        )
        finding = m.Finding(
            f"{plural(n, 'item')} {verb(n, 'is an outlier', 'are outliers')}",
            "They may be corrupt, off topic or just rare; their labels are uncertain.",
            "outliers",
            rank=120,
        )
        return replace(section, blocks=(intro, items), findings=(finding,))


def members(run: Reader, sets: np.ndarray) -> dict[int, tuple[int, list[Place]]]:
    """Contradicting items of duplicate sets, of every given label at first one, then another."""
    order, n_classes, most = np.sort(sets), len(run.names), run.limits.duplicate_members
    if order.size == 0:
        return {}
    shortlist = Shortlist(order.size * n_classes, most)
    for frame in frames(run.run, ["item_hash", "given", "duplicate_set", "is_duplicate_conflict"]):
        rows = flags(frame, "is_duplicate_conflict")
        ids = numpy_of(frame["duplicate_set"].take(pa.array(rows)), "duplicate_set")
        slot = np.searchsorted(order, ids).clip(max=order.size - 1)
        mine = order[slot] == ids
        rows, slot = rows[mine], slot[mine]
        given = frame.array("given")[rows]
        shortlist.add(frame, rows, slot * n_classes + given, np.zeros(rows.size))
    group, shard, row = (shortlist.rows[name] for name in ("group", "shard", "row"))
    turn = np.arange(group.size) - np.searchsorted(group, group, side="left")
    in_turn = np.lexsort((shortlist.rows["hash"], group, turn, group // n_classes))
    sizes = shortlist.count.reshape(-1, n_classes).sum(axis=1).tolist()
    listed = {}
    for position, (one, size) in enumerate(zip(order.tolist(), sizes, strict=True)):
        at = in_turn[group[in_turn] // n_classes == position][:most]
        listed[one] = size, list(zip(shard[at].tolist(), row[at].tolist(), strict=True))
    return listed
