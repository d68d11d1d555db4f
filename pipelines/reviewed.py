"""Labels set by people: a small table that some stages compare with, or follow."""

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.classes import some
from pipelines.matching import match_step
from pipelines.small_tables import Named, as_text, check_ids, read_named, require
from pipelines.stage import Context, Reduce
from pipelines.wording import did_you_mean, shown

COLUMNS = ("item_id", "true_label")
WORDS = "columns item_id and true_label"


@lru_cache(maxsize=4)
def _read(named: Named, version: str) -> pa.Table:
    table = read_named(named, columns=WORDS, text=COLUMNS)
    require(table, COLUMNS, named, WORDS)
    label = table["true_label"]
    is_number = pa.types.is_integer(label.type) or pa.types.is_floating(label.type)
    ids, labels = (as_text(table[name], name, named) for name in COLUMNS)
    is_said = labels.is_valid()
    n_blank = len(labels) - int(pc.sum(is_said).as_py() or 0)
    ids, labels = ids.filter(is_said), labels.filter(is_said)
    check_ids(ids, {"true_label": labels}, named)
    facts = {"is_number": str(int(is_number)), "n_blank": str(n_blank)}
    return pa.table([ids, labels], names=COLUMNS).replace_schema_metadata(facts)


def _table(ctx: Context) -> tuple[Named, pa.Table]:
    named = Named(ctx.config.reviewed, f"{ctx.stage}.reviewed")
    return named, _read(named, named.version(WORDS))


def match_reviewed() -> Reduce:
    """Return the step that counts how many reviewed items the data has, and says so."""
    return match_step(
        keys=lambda ctx: _table(ctx)[1]["item_id"].combine_chunks(),
        setting="reviewed",
        what="reviewed ids",
        notes=_notes,
    )


def _notes(ctx: Context) -> list[str]:
    named, table = _table(ctx)
    n_blank = int((table.schema.metadata or {})[b"n_blank"])
    if not n_blank:
        return []
    return [f"{named.setting}: {n_blank} rows have no true_label and count as not reviewed"]


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


def reviewed_classes(item_id: pa.Array, ctx: Context) -> np.ndarray:
    """Return the class that a reviewer gave each item, or −1.

    Parameters
    ----------
    item_id
        N ids.
    ctx
        Its settings name the file (`reviewed`); its classes give the ids.

    Raises
    ------
    DataError
        If the file cannot be read, names an item twice, or a label that is no class.
    """
    if ctx.config.reviewed is None:
        return np.full(len(item_id), -1, np.int32)
    named, table = _table(ctx)
    is_number = (table.schema.metadata or {})[b"is_number"] == b"1"
    labels = table["true_label"].combine_chunks()
    classes = label_classes(labels, ctx, named, is_number=is_number)
    at = pc.index_in(item_id.cast(pa.string()), value_set=table["item_id"].combine_chunks())
    found = classes.take(at).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int32)
