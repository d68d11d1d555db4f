"""True classes of some items, set by people: a small table that stages follow, or compare with.

One label an item (`true_label`), or a list of them (`true_labels`, perhaps `true_labels_negative`).
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.multilabel.labels import LabelSets, from_flat
from labelops.ragged import owners
from pipelines.core.matching import match_step
from pipelines.core.stage import Context, Reduce
from pipelines.labels import positives
from pipelines.labels.classes import some
from pipelines.labels.columns import GIVEN, flat
from pipelines.storage.tables import Named, as_text, check_ids, read_named, require
from pipelines.storage.wording import did_you_mean, shown

ONE, TRUE, RULED_OUT = "true_label", "true_labels", "true_labels_negative"
SEPARATOR = ";"
"""Between labels in a CSV file; names with commas and spaces are common."""


class _Reference(NamedTuple):
    """A table that was read: `item_id`, and labels as lists of text, whichever form they had."""

    named: Named
    table: pa.Table
    is_one: bool
    """Whether it has one label an item."""
    n_blank: int
    n_none: int
    """Items without an answer, and those that are said to have none of the classes."""
    numbers: frozenset[str]
    """Lists whose labels were numbers."""


@lru_cache(maxsize=4)
def _read(named: Named, version: str, wanted: str, words: str) -> _Reference:
    table = read_named(named, columns=words, text=("item_id", ONE, TRUE, RULED_OUT))
    present = [name for name in (TRUE, ONE) if name in table.column_names]
    if len(present) == 2:
        raise named.error(
            f"one of the columns {ONE} and {TRUE} was expected", "both", "Remove one of them"
        )
    require(table, ("item_id", *(present or [wanted])), named, words)
    if present == [ONE]:
        text = as_text(table[ONE], ONE, named)
        start = np.append(0, np.cumsum(text.is_valid().to_numpy(zero_copy_only=False)))
        offsets, labels = pa.array(start, pa.int32()), text.drop_null()
        lists = {TRUE: pa.ListArray.from_arrays(offsets, labels, mask=text.is_null())}
    else:
        names = [name for name in (TRUE, RULED_OUT) if name in table.column_names]
        lists = {name: _lists(table[name], name, named) for name in names}
    # Nobody said anything of an item whose label or list is null; an empty list says it has none.
    is_reviewed = lists[TRUE].is_valid()
    ids = as_text(table["item_id"], "item_id", named).filter(is_reviewed)
    lists = {name: column.filter(is_reviewed) for name, column in lists.items()}
    check_ids(ids, lists if present == [TRUE] else {ONE: lists[TRUE].flatten()}, named)
    if RULED_OUT in lists:
        _check_consistent(ids, lists, named)
    columns = {TRUE: present[0], RULED_OUT: RULED_OUT}
    return _Reference(
        named,
        pa.table({"item_id": ids, **lists}),
        is_one=present == [ONE],
        n_blank=len(is_reviewed) - len(ids),
        n_none=int(pc.sum(pc.equal(lists[TRUE].value_lengths(), 0)).as_py() or 0),
        numbers=frozenset(name for name in lists if _is_number(table[columns[name]].type)),
    )


def _is_number(kind: pa.DataType) -> bool:
    inner = getattr(kind, "value_type", kind)
    return bool(pa.types.is_integer(inner) or pa.types.is_floating(inner))


def _lists(column: pa.ChunkedArray, name: str, named: Named) -> pa.Array:
    """Return a column with lists of labels as lists of text."""
    kind = column.type
    if named.is_csv:
        cells = as_text(column, name, named).to_pylist()
        parts = [(cell or "").split(SEPARATOR) for cell in cells]
        lists = [[part.strip() for part in cell if part.strip()] for cell in parts]
        return pa.array(lists, pa.list_(pa.string()))
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not is_list and not pa.types.is_fixed_size_list(kind):
        raise named.error(
            f"lists of labels were expected in column {name!r}",
            f"{kind}",
            f"In CSV, labels of a list are separated by {SEPARATOR!r}; one label per item goes "
            f"into {ONE}",
        )
    values, start = flat(column)
    text = as_text(pa.chunked_array([values]), name, named)
    if text.null_count:
        raise named.error(
            f"labels were expected in the lists of column {name!r}",
            f"{text.null_count} nulls",
            "Remove them",
        )
    is_null = pa.array(column.is_null().to_numpy())
    return pa.ListArray.from_arrays(pa.array(start, pa.int32()), text, mask=is_null)


def _check_consistent(ids: pa.Array, lists: dict[str, pa.Array], named: Named) -> None:
    """Stop where a label is in both lists of an item."""
    (labels, start), (ruled_out, start_out) = (flat(lists[name]) for name in (TRUE, RULED_OUT))
    known = pc.unique(labels)
    cells = [
        owners(first) * len(known) + pc.index_in(values, value_set=known).fill_null(-1).to_numpy()
        for values, first in ((labels, start), (ruled_out, start_out))
    ]
    is_known = pc.is_in(ruled_out, value_set=known).to_numpy(zero_copy_only=False)
    both = np.intersect1d(cells[0], cells[1][is_known])
    if both.size:
        row, code = divmod(int(both[0]), len(known))
        raise named.error(
            f"labels in {TRUE} or in {RULED_OUT} were expected",
            f"{both.size} in both, the first {shown(known[code].as_py())} of item "
            f"{shown(ids[row].as_py())}",
            "Leave them out of both if people disagree",
        )


def _open(ctx: Context, setting: str, wanted: str) -> _Reference:
    """Read a table; the form that fits the data is named in messages."""
    named = Named(getattr(ctx.config, setting), f"{ctx.stage}.{setting}")
    words = f"columns item_id and {wanted}"
    return _read(named, named.version(words), wanted, words)


def n_rows(ctx: Context, setting: str) -> int:
    """Return how many items a reference knows."""
    return int(_open(ctx, setting, TRUE).table.num_rows)


def match_reference(setting: str, what: str, *, wanted: str = TRUE) -> Reduce:
    """Return the step that counts how many of a reference's items the data has, and says so.

    Parameters
    ----------
    setting
        Which setting of the stage names the reference.
    what
        What its ids are called, in the plural.
    wanted
        `TRUE`, or `ONE` where items have one label each; for messages.
    """

    def notes(ctx: Context) -> list[str]:
        reference, who, texts = _open(ctx, setting, wanted), f"{ctx.stage}.{setting}", []
        if reference.is_one and (n := reference.n_blank):
            texts.append(f"{who}: {n} rows have no true_label and count as not reviewed")
        if n := reference.n_none:
            texts.append(
                f"{who}: {n} rows have an empty list, which says that the items have none of the "
                "classes"
            )
        return texts

    return match_step(
        keys=lambda ctx: _open(ctx, setting, wanted).table["item_id"].combine_chunks(),
        setting=setting,
        what=what,
        notes=notes,
    )


def label_classes(labels: pa.Array, ctx: Context, named: Named, *, is_number: bool) -> pa.Array:
    """Return the class ids of labels in a table of people.

    Labels of data with numbers go by the number, or by the name of their class.

    Parameters
    ----------
    labels
        As text.
    is_number
        Whether they were numbers in the table: then they are no names, where the data has numbers.

    Raises
    ------
    DataError
        If a label is no class, or by its number another one than by its name.
    """
    names = pa.array([str(name) for name in ctx.classes], pa.string())
    numbers = pa.array([str(value) for value in ctx.class_values], pa.string())
    by_name = pc.index_in(labels, value_set=names)
    by_number = pc.index_in(labels, value_set=numbers)
    if is_number and len(numbers):
        by_name = by_number
    if positives.GIVEN in ctx.columns:
        words = pc.index_in(pc.utf8_lower(labels), value_set=pa.array(["false", "true"]))
        by_number = pc.coalesce(by_number, words)
    off = labels.filter(pc.fill_null(pc.not_equal(by_name, by_number), False))
    if len(off):
        raise named.error(
            "labels that are the number or the name of a class were expected",
            f"{shown(off[0].as_py())}, which is the number of one class and the name of another",
            "Write numbers as a column of whole numbers in Parquet",
        )
    classes = pc.coalesce(by_number, by_name)
    unknown = labels.filter(pc.is_null(classes))
    if len(unknown):
        first = unknown[0].as_py()
        raise named.error(
            f"labels among the {len(names)} classes were expected",
            shown(first) + (f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""),
            f"Classes: {some(list(ctx.classes))}"
            f"{did_you_mean(str(first), ctx.classes[:1000]).rstrip('.')}",
        )
    return classes


def reference_sets(
    setting: str, item_id: pa.Array, ctx: Context, *, wanted: str = TRUE
) -> tuple[np.ndarray, LabelSets]:
    """Return which items the reference knows, and the true classes of those.

    Parameters
    ----------
    setting
        Which setting of the stage names a Parquet or CSV file: item_id and true_label; or
        true_labels, perhaps with true_labels_negative. With the latter, classes in neither list are
        unknown; without it, an item has just what is listed. One label says nothing of other
        classes where items may have several.
    item_id
        N ids.
    wanted
        As for `match_reference`; with `ONE`, every item must have one.

    Returns
    -------
    Positions, int64, shape (M,), ascending; sets of M items.

    Raises
    ------
    DataError
        If the file cannot be read, names an item twice, or a label that is no class.
    """
    reference = _open(ctx, setting, wanted)
    named, table = reference.named, reference.table
    if wanted == ONE:
        _check_whole(reference, ctx)
    at = pc.index_in(item_id.cast(pa.string()), value_set=table["item_id"].combine_chunks())
    known = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    rows = table.take(at.drop_null())
    parts: list[np.ndarray] = []
    for name, classes in _classes(rows, ctx, reference).items():
        start = flat(rows[name])[1]
        parts += [np.asarray(classes.to_numpy(zero_copy_only=False), np.int64), start]
    if reference.is_one and wanted != ONE and GIVEN in ctx.columns:
        parts += [np.empty(0, np.int64), np.zeros(len(known) + 1, np.int64)]
    try:
        return known, from_flat(*parts, n_classes=ctx.n_classes)
    except ValueError as err:  # a class by its number in one list, by its name in the other
        raise named.error("lists that agree were expected", str(err), "Correct the table") from err


def _classes(rows: pa.Table, ctx: Context, of: _Reference) -> dict[str, pa.Array]:
    return {
        name: label_classes(flat(rows[name])[0], ctx, of.named, is_number=name in of.numbers)
        for name in rows.column_names
        if name != "item_id"
    }


def _check_whole(reference: _Reference, ctx: Context) -> None:
    """Stop where a table of whole labels does not fit, whichever shard its items are in."""
    table = reference.table
    n = table[TRUE].combine_chunks().value_lengths()
    other = pc.index(pc.equal(n, 1), False).as_py()
    if other >= 0:
        raise reference.named.error(
            "one true label per item was expected, as in the data",
            f"{n[other].as_py()} for item {shown(table['item_id'][other].as_py())}",
            f"Write {ONE}, or leave such items out",
        )
    _classes(table, ctx, reference)
