"""Lists of labels: several classes an item, what is ruled out, and what nobody looked for.

Stage `source` leaves `given_ids` (classes said to be present) and, where not all others are ruled
out, `given_not_ids`.
"""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.decisions import Action, Outcome, Proposals
from labelops.multilabel.labels import LabelSets, from_flat, n_no, n_yes, with_changes
from labelops.ragged import owners
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.labels.classes import (
    check_absent,
    check_label_type,
    classes_of,
    distinct,
    known_labels,
    merge_labels,
    out_of_range,
    plain,
)
from pipelines.labels.columns import GIVEN, RULED_OUT, flat, lists_of
from pipelines.storage.frame import Frame

LISTS = ("labels", "labels_negative")
"""Columns of the source: classes said to be present, and said not to be."""


def list_columns(columns: Collection[str]) -> list[str]:
    """Return which columns with lists of labels a data set has."""
    return [name for name in LISTS if name in columns]


def has_unknown(ctx: Context) -> bool:
    """Return whether classes may be neither present nor ruled out."""
    return "labels_negative" in ctx.columns or ctx.data.absent_labels == "unknown"


def _check_types(ctx: Context) -> None:
    """Refuse columns that are no lists of labels, or lists of two kinds."""
    kinds: dict[str, bool] = {}
    for name in list_columns(ctx.columns):
        kind = ctx.types[name]
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if not is_list and not pa.types.is_fixed_size_list(kind):
            raise DataError(
                f"source: column {name!r} must hold lists of integers or strings, got {kind}. A "
                "single class per item goes into 'label'"
            )
        if not pa.types.is_null(kind.value_type):  # lists that are all empty
            check_label_type(kind.value_type, name)
            kinds[name] = pa.types.is_string(plain(pa.array([], kind.value_type)).type)
    if len(set(kinds.values())) > 1:
        raise DataError(
            "source: columns 'labels' and 'labels_negative' must hold the same kind of labels, got "
            f"{ctx.types['labels']} and {ctx.types['labels_negative']}. Convert one of them"
        )


class ListedCells(NamedTuple):
    """Labels in the lists of one column: whose they are, which class, and what they were."""

    row: np.ndarray
    class_id: np.ndarray
    label: pa.Array


def cells_in(frame: Frame, name: str, known: np.ndarray) -> ListedCells:
    """Return what stands in the lists of a column, of known labels."""
    values, start = flat(frame[name])
    if pa.types.is_null(values.type):
        values = values.cast(pa.string() if known.dtype.kind == "U" else pa.int64())
    labels = plain(values, name)
    return ListedCells(owners(start), classes_of(labels, known).astype(np.int64), labels)


def _read_lists(frame: Frame, ctx: Context) -> LabelSets:
    """Return the given classes of those rows of a shard that can be used; reject the others."""
    names, known = known_labels(ctx)
    n_classes = names.size
    parts = [cells_in(frame, name, known) for name in list_columns(ctx.columns)]
    frame.reject(np.flatnonzero(frame["labels"].is_null()), "no labels: labels is null")
    for name, cells in zip(LISTS, parts, strict=False):
        null = cells.label.is_null().to_numpy(zero_copy_only=False)
        frame.reject(cells.row[null], f"no label: {name} has a null among its labels")
        for at in np.flatnonzero((cells.class_id < 0) & ~null).tolist():
            frame.reject([cells.row[at]], out_of_range(cells.label[at].as_py(), names))
    if len(parts) == 2:
        key = [cells.row * n_classes + cells.class_id for cells in parts]
        both = np.isin(key[0], key[1]) & (parts[0].class_id >= 0)
        for at in np.flatnonzero(both).tolist():
            what = f"{parts[0].label[at].as_py()!r} is in labels and in labels_negative"
            frame.reject([parts[0].row[at]], f"contradiction: {what}")
    elif has_unknown(ctx):
        parts.append(ListedCells(*(np.empty(0, np.int64),) * 2, pa.array([], pa.int64())))
    kept = frame.kept()
    columns: list[np.ndarray] = []
    for cells in parts:
        mine = np.isin(cells.row, kept)
        row = np.searchsorted(kept, cells.row[mine])
        columns += [cells.class_id[mine], np.searchsorted(row, np.arange(len(kept) + 1))]
    return from_flat(*columns, n_classes=n_classes)


def is_multi_label(columns: Collection[str]) -> bool:
    """Return whether items have lists of labels."""
    return GIVEN in columns


def given_columns(columns: Collection[str]) -> list[str]:
    """Return the columns with given classes: one, or with three states two."""
    return [name for name in (GIVEN, RULED_OUT) if name in columns]


def sets_in(table: pa.Table, n_classes: int) -> LabelSets:
    """Return the given classes of a table that has the columns for them."""
    parts: list[np.ndarray] = []
    for name in given_columns(table.column_names):
        values, start = flat(table.column(name))
        parts += [values.to_numpy(zero_copy_only=False), start]
    return from_flat(*parts, n_classes=n_classes)


MEANING = """\
| `labels_clean` | the labels to train on, a list: the given ones that were kept and those added, \
in their type; null in `set_aside/` |
| `labels_negative_clean` | classes ruled out, where the source has such lists |
| `decision` | keep, relabel (in `dataset/`); review (in `set_aside/`) |
| `reason` | why, in words |
| `confidence` | probability that the least certain label with a decision is right as it now \
stands; in `set_aside/`, as given; 1 without such labels, null if a label was added whose \
probability is not known |
| `weight` | training weight: twice the confidence less one, at least 0; 1 if the confidence is \
not known |"""


class Lists:
    """Several classes an item."""

    name: str = "labels"
    source: tuple[str, ...] = LISTS
    given: tuple[str, ...] = (GIVEN, RULED_OUT)
    clean: tuple[str, ...] = ("labels_clean", "labels_negative_clean")
    carried: tuple[str, ...] = ()
    is_whole: bool = False
    may_be_open: bool = True
    meaning: str = MEANING

    def label_type(self, kind: pa.DataType) -> pa.DataType:
        """Return the type of the lists' elements."""
        return getattr(kind, "value_type", kind)

    def given_types(self, ctx: Context) -> dict[str, pa.DataType]:
        """Return the columns that stage `source` leaves; see `LabelSpace`."""
        _check_types(ctx)
        names = [GIVEN, *([RULED_OUT] if has_unknown(ctx) else [])]
        # How many classes there are is not known yet.
        return dict.fromkeys(names, pa.list_(pa.uint32()))

    def distinct(self, frame: Frame, ctx: Context) -> Arrays:
        """Return the distinct labels in a shard's lists, sorted."""
        merged: Arrays = {}
        for name in list_columns(ctx.columns):
            values, _ = flat(frame[name])
            if not pa.types.is_null(values.type):
                part = distinct(plain(values, name))
                merged = merge_labels(merged, part) if merged else part
        return merged or {"numbers": np.empty(0, np.int64)}

    def read(self, frame: Frame, ctx: Context) -> Mapping[str, pa.Array]:
        """Return the columns with given classes of the rows that can be used."""
        labels = _read_lists(frame, ctx)
        columns = {GIVEN: lists_of(labels.ids.astype(np.uint32), labels.start)}
        if labels.negative_ids is not None and labels.negative_start is not None:
            ids = labels.negative_ids.astype(np.uint32)
            columns[RULED_OUT] = lists_of(ids, labels.negative_start)
        return columns

    def count(self, frame: Frame, ctx: Context) -> Arrays:
        """Count the items that were said to have, and not to have, each class."""
        table = frame.table(given_columns(frame.reads))
        labels = sets_in(table, known_labels(ctx)[0].size)
        return {"n_items": np.array(frame.n), "n_given": n_yes(labels), "n_ruled_out": n_no(labels)}

    def check(self, summary: Arrays, ctx: Context) -> Arrays:
        """Refuse data without any label, and classes that nobody has unless they are allowed."""
        if not summary["n_given"].any():
            raise DataError(
                "source: items with labels were expected, all lists in 'labels' are empty. Was the "
                "wrong column mapped to it?"
            )
        check_absent(summary["n_given"], ctx)
        return summary

    def sets(self, frame: Frame, ctx: Context) -> LabelSets:
        """Return the given classes of a shard's items."""
        return sets_in(frame.table(given_columns(frame.reads)), ctx.n_classes)

    def clean_fields(
        self, label: pa.DataType, columns: Collection[str]
    ) -> list[tuple[str, pa.DataType]]:
        """Return the columns with clean lists."""
        names = self.clean if RULED_OUT in columns else self.clean[:1]
        return [(name, pa.list_(label)) for name in names]

    def apply(
        self, given: LabelSets, final: Proposals, items: Outcome, ctx: Context
    ) -> dict[str, pa.Array]:
        """Return the columns with clean lists; null for items that are set aside."""
        changes = np.flatnonzero(final.is_change)
        is_added = final.action[changes] == Action.ADD
        clean = with_changes(given, final.row[changes], final.slot[changes], is_added)
        parts = ((clean.ids, clean.start), (clean.negative_ids, clean.negative_start))
        # One label says nothing of other classes; there is no list of them to go on with.
        wanted = self.clean_fields(ctx.label_type, ctx.columns)
        return {
            name: pa.ListArray.from_arrays(
                pa.array(start, pa.int32()),
                ctx.labels(ids.astype(np.int64)),
                mask=pa.array(items.is_aside),
            )
            for (name, _), (ids, start) in zip(wanted, parts, strict=False)
            if ids is not None
        }


SPACE = Lists()
