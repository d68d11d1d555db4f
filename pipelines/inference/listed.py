"""The user's own predictions where only the most probable classes are listed: checked, one form.

What comes out is what later stages read (`pipelines.labels.predictions`): the classes of an item in
ascending order with their probabilities, and what each of the others has.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.top_rows import TopRows, fill_tail, largest_of, no_rows
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.inference.calibrate import folder, sample_table
from pipelines.inference.settings import Config
from pipelines.labels.predictions import LISTED, LISTED_ROWS, listed_of, prediction_arrays
from pipelines.storage.frame import Frame
from pipelines.storage.wording import several

IDS, PROBS, TAIL = "topk_ids", "topk_probs", "tail_prob"

# N items, K classes, M listed probabilities


def source_columns(columns: frozenset[str]) -> list[str]:
    """Return the source's columns that are read; without `tail_prob` it is what is missing to 1."""
    return [IDS, PROBS, *([TAIL] if TAIL in columns else [])]


def value_type(ctx: Context) -> pa.DataType:
    """Return the type that probabilities are kept in: single precision, or double as they come."""
    return pa.float64() if pa.types.is_float64(ctx.types[PROBS].value_type) else pa.float32()


def check_classes(ctx: Context) -> None:
    """Refuse labels that do not say which class an id means.

    Raises
    ------
    DataError
        If they are numbers with holes, and nobody named the classes.
    """
    numbers = ctx.class_values
    if numbers and numbers != tuple(range(len(numbers))):
        raise DataError(
            f"stage {ctx.stage!r}: {IDS} counts classes from 0, and labels are the numbers "
            f"{several(numbers, 5)}; which class is which cannot be told. Name the classes of the "
            "model in data.classes, in the order of its outputs"
        )


def validate(frame: Frame, ctx: Context[Config]) -> Mapping[str, pa.Table]:
    """Reject rows that list no probabilities; bring the others into one form."""
    given, item_hash = frame.array("given"), frame.array("item_hash")
    names = source_columns(ctx.columns)
    numbers = np.dtype(value_type(ctx).to_pandas_dtype())
    parts = [prediction_arrays(no_rows(ctx.n_classes, numbers))]
    p_given = [np.zeros(0, numbers)]
    samples = [sample_table(item_hash[:0], given[:0], np.empty((0, ctx.n_classes)), ctx)]
    for start, table in frame.batches(names, LISTED_ROWS):
        columns = {name: table.column(name).combine_chunks() for name in names}
        rows, reasons = read_rows(
            columns, n_classes=ctx.n_classes, dtype=numbers, tolerance=ctx.config.sum_tolerance
        )
        for row, reason in reasons.items():
            frame.reject([start + row], reason)
        kept = start + np.delete(np.arange(table.num_rows), sorted(reasons))
        parts.append(prediction_arrays(rows))
        p_given.append(rows.at(np.arange(len(rows)), given[kept]))
        samples.append(sample_table(item_hash[kept], given[kept], rows, ctx))
    predictions = {
        name: pa.chunked_array([part[at] for part in parts]) for at, name in enumerate(LISTED)
    }
    ids = {"item_id": frame["item_id"].take(pa.array(frame.kept()))}
    return {
        ctx.stage: pa.table({**ids, "p_given": np.concatenate(p_given), **predictions}),
        folder(ctx): pa.concat_tables(samples[1:] or samples),
    }


def read_rows(
    columns: Mapping[str, pa.Array], *, n_classes: int, dtype: np.dtype, tolerance: float
) -> tuple[TopRows, dict[int, str]]:
    """Read the source's lists; rows that cannot be used are left out.

    Parameters
    ----------
    columns
        `topk_ids` and `topk_probs`, lists of one length a row, and perhaps `tail_prob`, null where
        it is what is missing to 1.
    n_classes
        K.
    dtype
        Type of the probabilities that are returned.
    tolerance
        How far a sum may be from 1.

    Returns
    -------
    The rows that can be used, and why the others cannot, by position.
    """
    bad: dict[int, str] = {}
    ids, probs = columns[IDS], columns[PROBS]
    for name in (IDS, PROBS):
        for place in np.flatnonzero(columns[name].is_null()).tolist():
            bad.setdefault(place, f"probabilities missing: {name} is null")
    n_ids, n_probs = (_lengths(lists) for lists in (ids, probs))
    for place in np.flatnonzero(n_ids != n_probs).tolist():
        words = f"{n_ids[place]} in {IDS}, {n_probs[place]} in {PROBS}"
        bad.setdefault(place, f"lists of different lengths: {words}")
    fits = np.delete(np.arange(len(ids)), sorted(bad))
    at = pa.array(fits)
    flat_ids, flat = ids.take(at).flatten(), probs.take(at).flatten()
    row = np.repeat(np.arange(len(fits)), n_ids[fits])
    nulls = np.flatnonzero(np.asarray(flat_ids.is_null()) | np.asarray(flat.is_null()))
    for place in nulls.tolist():
        bad.setdefault(int(fits[row[place]]), "probabilities missing: a list has a null inside")
    class_id = flat_ids.fill_null(0).to_numpy(zero_copy_only=False)
    values = flat.cast(pa.from_numpy_dtype(dtype)).fill_null(0).to_numpy(zero_copy_only=False)
    order = np.lexsort((class_id, row))
    class_id, values = class_id[order], values[order]
    _check_ids(class_id, row, fits, n_classes, bad)
    _check_values(class_id, values, row, fits, bad)
    tail = _tails(columns.get(TAIL), at, values, row, bad, fits, tolerance)
    total = np.bincount(row, values.astype(np.float64), minlength=len(fits)) + tail
    n_listed = n_ids[fits]
    with np.errstate(invalid="ignore"):
        is_off = ~(np.abs(total - 1) <= tolerance)
        has_nowhere = (n_listed == n_classes) & (tail > tolerance)
    for place in np.flatnonzero(is_off).tolist():
        hint = "Were logits passed instead of probabilities?"
        words = f"they sum to {total[place]:.4f}. {hint}"
        bad.setdefault(int(fits[place]), f"probabilities do not sum to 1: {words}")
    for place in np.flatnonzero(has_nowhere).tolist():
        words = f"{tail[place]:.4g} is left for others, but every class is listed"
        bad.setdefault(int(fits[place]), f"probabilities do not sum to 1: {words}")
    rows = TopRows(
        np.append(0, np.cumsum(n_listed)).astype(np.int64),
        class_id.astype(np.int64),
        values,
        fill_tail(np.where(np.isfinite(tail), tail, 0.0), n_listed, n_classes, dtype),
        n_classes,
    )
    return rows[np.flatnonzero(~np.isin(fits, list(bad)))], bad


def _lengths(lists: pa.Array) -> np.ndarray:
    lengths = pc.list_value_length(lists).fill_null(0).to_numpy(zero_copy_only=False)
    return np.asarray(lengths, np.int64)


def _check_ids(
    class_id: np.ndarray, row: np.ndarray, fits: np.ndarray, n_classes: int, bad: dict[int, str]
) -> None:
    for place in np.flatnonzero((class_id < 0) | (class_id >= n_classes)).tolist():
        words = f"{IDS} has {class_id[place]}, the {n_classes} classes are 0 to {n_classes - 1}. "
        words += "Were all classes of the model named in data.classes?"
        bad.setdefault(int(fits[row[place]]), f"class out of range: {words}")
    twice = (class_id[1:] == class_id[:-1]) & (row[1:] == row[:-1])
    for place in np.flatnonzero(twice).tolist():
        words = f"{IDS} has {class_id[place]} more than once"
        bad.setdefault(int(fits[row[place]]), f"class doubled: {words}")


def _check_values(
    class_id: np.ndarray,
    values: np.ndarray,
    row: np.ndarray,
    fits: np.ndarray,
    bad: dict[int, str],
) -> None:
    for place in np.flatnonzero(~np.isfinite(values)).tolist():
        words = f"class {class_id[place]} has {values[place]}"
        bad.setdefault(int(fits[row[place]]), f"probabilities not finite: {words}")
    for place in np.flatnonzero(values < 0).tolist():
        hint = "Were logits passed instead of probabilities?"
        words = f"class {class_id[place]} has {values[place]:.4g}. {hint}"
        bad.setdefault(int(fits[row[place]]), f"probabilities negative: {words}")


def _tails(
    column: pa.Array | None,
    at: pa.Array,
    values: np.ndarray,
    row: np.ndarray,
    bad: dict[int, str],
    fits: np.ndarray,
    tolerance: float,
) -> np.ndarray:
    """Return the probability of all unlisted classes: as said, else what is missing to 1."""
    listed = np.bincount(row, values.astype(np.float64), minlength=len(at))
    missing = np.maximum(1.0 - listed, 0.0)
    if column is None:
        return np.asarray(missing)
    stated = column.take(at).cast(pa.float64())
    is_stated = stated.is_valid().to_numpy(zero_copy_only=False)
    tail = np.where(is_stated, stated.fill_null(0).to_numpy(zero_copy_only=False), missing)
    for place in np.flatnonzero(~np.isfinite(tail) & is_stated).tolist():
        bad.setdefault(int(fits[place]), f"probabilities not finite: {TAIL} is {tail[place]}")
    # One minus a sum is often a little below 0.
    for place in np.flatnonzero(tail < -tolerance).tolist():
        bad.setdefault(int(fits[place]), f"probabilities negative: {TAIL} is {tail[place]:.4g}")
    return np.where(tail < 0, 0.0, tail)


# -- what is said of it ----------------------------------------------------------------------------


def count_tails(frame: Frame, ctx: Context) -> Arrays:
    """Count the items of which no listed class is as probable as each of the others."""
    rows = listed_of(frame, ctx.n_classes)
    n_others = rows.n_classes - rows.n_listed
    listed = largest_of(rows.values, rows.start)
    return {
        "n_tail": np.array(np.count_nonzero((n_others > 1) & (rows.rest > listed))),
        "n_listed": np.array(rows.n_listed.sum()),
        "n": np.array(len(rows)),
    }


def say_tails(summary: Arrays, ctx: Context) -> Arrays:
    """Say how classes were numbered, and where the most probable class is not among the listed."""
    notices = []
    metadata = (ctx.source_schema.metadata or {}).get(b"huggingface", b"")
    if not ctx.class_values and not ctx.data.classes and b"ClassLabel" not in metadata:
        first = ", ".join(repr(name) for name in ctx.classes[:5])
        notices.append(
            f"Class ids in {IDS} were taken to count the {ctx.n_classes:,} labels of the data in "
            f"their order ({first}{', …' if ctx.n_classes > 5 else ''}); name the classes of the "
            "model in data.classes if that is another one."
        )
    if summary["n_tail"]:
        notices.append(
            f"Of {int(summary['n_tail']):,} items no class in {IDS} is as probable as each of the "
            "others: predicted is the first of these in the order of the classes, which says "
            f"nothing. List their most probable classes in {IDS}."
        )
    return summary | ({"notices": np.array(notices, np.str_)} if notices else {})
