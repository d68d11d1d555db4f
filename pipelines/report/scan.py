"""One pass over a run's sidecars that counts, and chooses the items worth showing.

Only narrow columns are read, one shard at a time.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import SupportsInt

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.core.reader import frames
from pipelines.core.state import Run
from pipelines.decisions.counts import PRODUCT, has_product
from pipelines.decisions.product import narrow, with_left_out
from pipelines.labels.classes import plain
from pipelines.report.limits import Limits, worst_per_class
from pipelines.report.select import Groups, Rows, Smallest, Tally, count_pairs
from pipelines.storage.frame import Frame, numpy_of

NARROW = (
    "item_hash",
    "given",
    "is_label_issue",
    "label_score",
    "predicted",
    "outlier_score",
    "is_outlier",
    "nn_distance",
    "duplicate_set",
    "is_duplicate_conflict",
    "decision",
    "label_clean",
    "reason",
    "confidence",
)
"""Columns read in full, where the run has them."""

DECIDED = ("decision", "label_clean", "reason", "confidence")

Place = tuple[int, int]
"""Shard, and row among its live items."""


class Names:
    """Class names for ids and for labels in the source's own type."""

    def __init__(self, names: Sequence[str], values: Sequence[int]) -> None:
        self.names = list(names)
        self._values = pa.array(list(values), pa.int64()) if len(values) else None

    def __len__(self) -> int:
        return len(self.names)

    def label(self, value: object) -> str:
        """Name of the class that a label in the source's own type stands for."""
        if self._values is None or value is None:
            return "" if value is None else str(value)
        # Truth values and whole floats stand for the classes of these numbers.
        found = self._values.index(int(value)).as_py() if isinstance(value, SupportsInt) else -1
        return self.name(found)

    def name(self, class_id: int) -> str:
        """Name of a class; empty for −1."""
        return self.names[class_id] if 0 <= class_id < len(self.names) else ""

    def ids(self, labels: pa.Array) -> np.ndarray:
        """Class ids of labels; −1 for null and for what is no class."""
        known = self._values if self._values is not None else pa.array(self.names, pa.string())
        found = pc.index_in(plain(labels), value_set=known, skip_nulls=True)
        return np.asarray(found.fill_null(-1).to_numpy(zero_copy_only=False), np.int64)


@dataclass
class Chosen:
    """What the first pass found."""

    worst: Smallest
    outliers: Smallest
    changes: Smallest
    flagged: np.ndarray
    flagged_pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    change_pairs: Counter[tuple[int, int]] = field(default_factory=Counter)
    reasons: Tally = field(default_factory=Tally)
    n_outliers: int = 0
    n_duplicates: int = 0
    n_conflicts: int = 0
    conflicts: Groups = field(default_factory=Groups)


def choose(run: Run, names: Names, limits: Limits) -> Chosen:
    """Count, and find the items worth showing."""
    known = run.layout().types("")
    present = [name for name in NARROW if name in known]
    product = run.context(PRODUCT, run.layout()) if has_product(run) else None
    more = [] if product is None else narrow(product.config, product.columns)
    _, each = worst_per_class(len(names), limits)
    chosen = Chosen(
        worst=Smallest(each),
        outliers=Smallest(limits.outliers),
        changes=Smallest(limits.changes),
        flagged=np.zeros(len(names), np.int64),
    )
    for frame in frames(run, list(dict.fromkeys([*present, *more]))):
        if not frame.n:
            continue
        _choose_in(frame, frozenset(present), names, chosen)
        if product is not None:
            _choose_changes(frame, with_left_out(frame, product), names, chosen)
        elif "decision" in present:
            decided = [name for name in DECIDED if name in present]
            _choose_changes(frame, frame.table(decided), names, chosen)
    return chosen


def _choose_in(frame: Frame, present: frozenset[str], names: Names, chosen: Chosen) -> None:
    if {"is_label_issue", "given", "predicted", "label_score"} <= present:
        rows = np.flatnonzero(_flags(frame, "is_label_issue"))
        given, predicted = frame.array("given")[rows], frame.array("predicted")[rows]
        chosen.flagged += np.bincount(given, minlength=len(names))
        chosen.flagged_pairs += count_pairs(given, predicted)
        chosen.worst.add(_rows(frame, rows, given, _floats(frame, "label_score")[rows]))
    if {"is_outlier", "outlier_score"} <= present:
        rows = np.flatnonzero(_flags(frame, "is_outlier"))
        chosen.n_outliers += rows.size
        scores = _floats(frame, "outlier_score")[rows]
        chosen.outliers.add(_rows(frame, rows, np.zeros(rows.size), scores))
    if {"duplicate_set", "is_duplicate_conflict"} <= present:
        _choose_conflicts(frame, present, chosen)


def _flags(frame: Frame, column: str) -> np.ndarray:
    values = frame[column].fill_null(False)
    return np.asarray(values.to_numpy(zero_copy_only=False), bool)


def _floats(frame: Frame, column: str) -> np.ndarray:
    """Return a column of floats, NaN where it is null."""
    values = frame[column].cast(pa.float64())
    return np.asarray(values.to_numpy(zero_copy_only=False), np.float64)


def _rows(frame: Frame, rows: np.ndarray, group: np.ndarray, key: np.ndarray) -> Rows:
    return {
        "group": group.astype(np.int64),
        "key": key.astype(np.float64),
        "hash": frame.array("item_hash")[rows],
        "shard": np.full(rows.size, frame.index, np.int64),
        "row": rows,
    }


def _choose_conflicts(frame: Frame, present: frozenset[str], chosen: Chosen) -> None:
    sets = frame["duplicate_set"]
    chosen.n_duplicates += len(sets) - sets.null_count
    rows = np.flatnonzero(_flags(frame, "is_duplicate_conflict"))
    chosen.n_conflicts += rows.size
    near = _floats(frame, "nn_distance")[rows] if "nn_distance" in present else np.zeros(rows.size)
    ids = numpy_of(sets.take(pa.array(rows)), "duplicate_set")
    chosen.conflicts.add(ids.astype(np.uint64), near)


def _choose_changes(frame: Frame, decided: pa.Table, names: Names, chosen: Chosen) -> None:
    """Take in what became of a shard's items, in the product if there is one."""
    decision = decided["decision"]
    other = pc.not_equal(decision, "keep")
    for entry in decided["reason"].filter(other).value_counts().to_pylist():
        chosen.reasons.add(str(entry["values"] or "(none)"), entry["counts"])
    rows = np.flatnonzero(pc.equal(decision, "relabel").to_numpy())
    sure = decided["confidence"].cast(pa.float64()).to_numpy()[rows]
    chosen.changes.add(_rows(frame, rows, np.zeros(rows.size), sure))
    if "given" in frame.reads and "label_clean" in decided.column_names:
        after = names.ids(decided["label_clean"].combine_chunks().take(pa.array(rows)))
        chosen.change_pairs += count_pairs(frame.array("given")[rows], after)


def places(*selections: Rows) -> list[Place]:
    """Return where the rows of some selections are, without repetition."""
    found = {
        place
        for rows in selections
        if rows
        for place in zip(rows["shard"].tolist(), rows["row"].tolist(), strict=True)
    }
    return sorted(found)


def members(run: Run, sets: np.ndarray, n_classes: int, limits: Limits) -> dict[int, "Members"]:
    """Contradicting items of duplicate sets, of every given label at first one, then another."""
    order = np.sort(sets)
    found, sizes = Smallest(limits.duplicate_members), np.zeros(order.size, np.int64)
    if order.size == 0:
        return {}
    for frame in frames(run, ["item_hash", "given", "duplicate_set", "is_duplicate_conflict"]):
        rows = np.flatnonzero(_flags(frame, "is_duplicate_conflict"))
        ids = numpy_of(frame["duplicate_set"].take(pa.array(rows)), "duplicate_set")
        slot = np.searchsorted(order, ids).clip(max=order.size - 1)
        mine = order[slot] == ids
        rows, slot = rows[mine], slot[mine]
        sizes += np.bincount(slot, minlength=order.size)
        given = frame.array("given")[rows]
        found.add(_rows(frame, rows, slot * n_classes + given, np.zeros(rows.size)))
    group = found.rows["group"]
    turn = np.arange(group.size) - np.searchsorted(group, group, side="left")
    in_turn = np.lexsort((found.rows["hash"], group, turn, group // n_classes))
    listed: dict[int, Members] = {}
    for position, size in enumerate(sizes.tolist()):
        inside = in_turn[group[in_turn] // n_classes == position][: limits.duplicate_members]
        listed[int(order[position])] = Members(
            size, [(int(found.rows["shard"][i]), int(found.rows["row"][i])) for i in inside]
        )
    return listed


@dataclass(frozen=True)
class Members:
    """Number of contradicting items in a duplicate set, and where the ones to show are."""

    size: int
    places: list[Place]
