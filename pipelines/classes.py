"""Which classes there are, and which of them a label means."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.errors import DataError
from pipelines.stage import Arrays, Context

NAMED = 8
"""So many offenders are named in a message."""


def check_label_type(kind: pa.DataType, column: str = "label") -> None:
    """Refuse labels that are neither integers nor text.

    Raises
    ------
    DataError
        If they are something else.
    """
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (_is_text(plain) or pa.types.is_integer(plain) or pa.types.is_boolean(plain)):
        raise DataError(
            f"source: column {column!r} must hold integers or strings, got {kind}. Lists of labels "
            "go into 'labels'; a rating goes into 'score_mean'"
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def plain(labels: pa.Array, column: str = "label") -> pa.Array:
    """Return labels as strings or 64-bit integers.

    Raises
    ------
    DataError
        If an integer does not fit.
    """
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if _is_text(labels.type):
        return labels.cast(pa.string())
    try:
        return labels.cast(pa.int64())
    except pa.ArrowInvalid as err:
        raise DataError(
            f"source: column {column!r} must fit into 64 bits, got {labels.type}: {err}"
        ) from err


def distinct(labels: pa.Array) -> Arrays:
    """Return the distinct ones of plain labels, sorted."""
    values = pc.unique(labels).drop_null()
    if pa.types.is_string(values.type):
        return {"text": np.array(sorted(values.to_pylist()), dtype=np.str_)}
    return {"numbers": np.sort(values.to_numpy(zero_copy_only=False))}


def merge_labels(a: Arrays, b: Arrays) -> Arrays:
    """Return the union of two shards' distinct labels."""
    return {name: np.union1d(a[name], b[name]) for name in a}


def name_classes(summary: Arrays, ctx: Context) -> Arrays:
    """Decide the classes: recipe, then ClassLabel metadata or width of pred_probs, then data.

    Raises
    ------
    DataError
        If labels cannot be class ids of the classes that were named, or there are no classes.
    """
    named: Sequence[str] = ctx.data.classes or ctx.classes
    width = _width(ctx)
    if "text" in summary:
        names = list(named) or summary["text"].tolist()
        values = np.empty(0, np.int64)
    else:
        present = summary["numbers"]
        if named:
            names = list(named)
            values = np.arange(len(names))
        elif width is not None:
            values = np.arange(width)
            names = [str(value) for value in values]
        else:
            values = present
            names = [str(value) for value in values]
    if len(set(names)) != len(names):
        raise DataError(f"source: class names must differ, got {names}. Correct data.classes")
    if width is not None and width != len(names):
        raise DataError(
            f"source: pred_probs must have one column for each class; {len(names)} classes were "
            f"expected ({some(names)}), got {width} columns. Name the classes of the model in "
            "data.classes, in the order of its outputs"
        )
    if not names and "labels" in ctx.columns:
        raise DataError(
            "source: lists with labels were expected in 'labels', all of them are empty. Was the "
            "wrong column mapped to it? Classes that nobody has can be named in data.classes"
        )
    return {"names": np.array(names, dtype=np.str_), "values": values.astype(np.int64)}


def _width(ctx: Context) -> int | None:
    kind = ctx.types.get("pred_probs")
    if kind is None:
        return None
    if not pa.types.is_fixed_size_list(kind) or not pa.types.is_floating(kind.value_type):
        raise DataError(
            f"source: column 'pred_probs' must be a fixed-size list of floats, got {kind}. Write "
            "it with pyarrow.list_(pyarrow.float32(), n_classes)"
        )
    return int(kind.list_size)


def some(names: Sequence[str] | np.ndarray) -> str:
    """Return the first few names as a message shows them."""
    shown = ", ".join(repr(str(name)) for name in names[:NAMED])
    return shown + (", …" if len(names) > NAMED else "")


def known_labels(ctx: Context) -> tuple[np.ndarray, np.ndarray]:
    """Return the class names, and how labels of the data call the classes."""
    found = ctx.own("values")
    names, values = found["names"], found["values"]
    return names, (names if values.size == 0 else values)


def classes_of(labels: pa.Array, classes: np.ndarray) -> np.ndarray:
    """Return the positions of plain labels among the classes; −1 for null and for no class."""
    known = pa.array(classes.tolist(), labels.type)
    index = pc.index_in(labels, value_set=known, skip_nulls=True)
    positions: np.ndarray = index.fill_null(-1).to_numpy(zero_copy_only=False)
    return positions.astype(np.int32)


def out_of_range(label: object, names: np.ndarray) -> str:
    """Return why a row is rejected whose label is no class."""
    return (
        f"class out of range: label {label!r} is none of the {names.size} classes ({some(names)})"
    )


def check_absent(n_given: np.ndarray, ctx: Context) -> None:
    """Refuse classes without an item, unless that was allowed.

    Raises
    ------
    DataError
        If a class has none.
    """
    classes = ctx.own("values")["names"].tolist()
    absent = [classes[k] for k in np.flatnonzero(n_given == 0)]
    if absent and ctx.data.absent_classes == "refuse":
        raise DataError(
            f"source: every class must have an item; {len(absent)} of {len(classes)} have none: "
            f"{some(absent)}. Leave them out of data.classes, or set data.absent_classes = "
            "'allow' if that is as it should be"
        )
