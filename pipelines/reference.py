"""True classes of some items, set by people: a small table with a list of labels for each."""

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.multilabel.labels import LabelSets, from_flat, owners
from pipelines.label_sets import flat
from pipelines.matching import match_step
from pipelines.reviewed import label_classes
from pipelines.small_tables import Named, as_text, check_ids, read_named, require
from pipelines.stage import Context, Reduce
from pipelines.wording import shown

TRUE, RULED_OUT = "true_labels", "true_labels_negative"
WORDS = f"columns item_id and {TRUE}"
SEPARATOR = ";"
"""Between labels in a CSV file; names with commas and spaces are common."""


@lru_cache(maxsize=4)
def _read(named: Named, version: str) -> pa.Table:
    table = read_named(named, columns=WORDS, text=("item_id", TRUE, RULED_OUT))
    require(table, ("item_id", TRUE), named, WORDS)
    names = [name for name in (TRUE, RULED_OUT) if name in table.column_names]
    lists = {name: _lists(table[name], name, named) for name in names}
    # Nobody said anything of an item whose list is null; an empty list says that it has none.
    is_said = lists[TRUE].is_valid()
    ids = as_text(table["item_id"], "item_id", named).filter(is_said)
    lists = {name: column.filter(is_said) for name, column in lists.items()}
    check_ids(ids, lists, named)
    if RULED_OUT in lists:
        _check_consistent(ids, lists, named)
    n_none = int(pc.sum(pc.equal(lists[TRUE].value_lengths(), 0)).as_py() or 0)
    facts = {"n_none": str(n_none)}
    facts |= {name: str(int(_is_number(table[name].type))) for name in names}
    return pa.table({"item_id": ids, **lists}).replace_schema_metadata(facts)


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
            f"In CSV, labels of a list are separated by {SEPARATOR!r}",
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


def _table(path: str, ctx: Context, setting: str) -> tuple[Named, pa.Table]:
    named = Named(path, f"{ctx.stage}.{setting}")
    return named, _read(named, named.version(WORDS))


def n_rows(ctx: Context, setting: str) -> int:
    """Return how many items a reference knows."""
    return int(_table(getattr(ctx.config, setting), ctx, setting)[1].num_rows)


def match_reference(setting: str, what: str) -> Reduce:
    """Return the step that counts how many of a reference's items the data has, and says so.

    Parameters
    ----------
    setting
        Which setting of the stage names the reference.
    what
        What its ids are called, in the plural.
    """

    def table(ctx: Context) -> pa.Table:
        return _table(getattr(ctx.config, setting), ctx, setting)[1]

    def notes(ctx: Context) -> list[str]:
        n_none = int((table(ctx).schema.metadata or {})[b"n_none"])
        none = f"{ctx.stage}.{setting}: {n_none} rows have an empty list, which says that the items"
        return [f"{none} have none of the classes"] if n_none else []

    return match_step(
        keys=lambda ctx: table(ctx)["item_id"].combine_chunks(),
        setting=setting,
        what=what,
        notes=notes,
    )


def reference_sets(setting: str, item_id: pa.Array, ctx: Context) -> tuple[np.ndarray, LabelSets]:
    """Return which items the reference knows, and the true classes of those.

    Parameters
    ----------
    setting
        Which setting of the stage names a Parquet or CSV file: item_id, true_labels, perhaps
        true_labels_negative. With the latter, classes in neither list are unknown; without it, an
        item has just what is listed.
    item_id
        N ids.

    Returns
    -------
    Positions, int64, shape (M,), ascending; sets of M items.

    Raises
    ------
    DataError
        If the file cannot be read, names an item twice, or a label that is no class.
    """
    named, table = _table(getattr(ctx.config, setting), ctx, setting)
    at = pc.index_in(item_id.cast(pa.string()), value_set=table["item_id"].combine_chunks())
    known = np.flatnonzero(at.is_valid().to_numpy(zero_copy_only=False))
    rows = table.take(at.drop_null())
    facts = table.schema.metadata or {}
    parts: list[np.ndarray] = []
    for name in (TRUE, RULED_OUT):
        if name in table.column_names:
            labels, start = flat(rows[name])
            is_number = facts[name.encode()] == b"1"
            classes = label_classes(labels, ctx, named, is_number=is_number)
            parts += [np.asarray(classes.to_numpy(zero_copy_only=False), np.int64), start]
    try:
        return known, from_flat(*parts, n_classes=ctx.n_classes)
    except ValueError as err:  # a class by its number in one list, by its name in the other
        raise named.error("lists that agree were expected", str(err), "Mend the table") from err
