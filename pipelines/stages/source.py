"""Stage `source`: who the items are, what they were labelled, and whether that can be worked on."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from labelops.hashing import hash_integers, hash_strings
from pipelines.canonical import Items
from pipelines.errors import DataError
from pipelines.frame import Frame
from pipelines.stage import Arrays, Context, Fit, Map, Output, Reduce, Stage, Step

NAMED = 8
"""So many offenders are named in a message."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `source`: none; what it needs to know stands in the recipe's `[data]`."""


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the source columns that identify and label items, as far as there are any."""
    return [name for name in ("item_id", "label") if name in columns]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    return ["item_id", "item_hash", *(["given"] if "label" in columns else [])]


def steps(config: Config, ctx: Context) -> Sequence[Step]:
    """Return the steps: find classes, count labels, number the items, look for double ids."""
    labelled = "label" in ctx.columns
    columns = reads(config, ctx.columns)
    schema = {"item_id": _id_type(ctx), "item_hash": pa.uint64()}
    if labelled:
        schema["given"] = pa.int32()
    found: list[Step] = [
        Map(
            name="items",
            reads=columns,
            writes={ctx.stage: Output(schema=pa.schema(list(schema.items())))},
            apply=number_items,
        ),
        Fit(name="unique", reads=["item_hash"], fit=find_double_hashes),
        Reduce(
            name="duplicates",
            reads=["item_id", "item_hash"],
            summarize=name_duplicates,
            merge=merge_names,
            finish=refuse_duplicates,
            when=lambda ctx: ctx.own("unique")["hashes"].size > 0,
        ),
    ]
    if labelled:
        _check_label_type(ctx.label_type)
        found.insert(
            0,
            Reduce(
                name="values",
                reads=["label"],
                summarize=distinct_labels,
                merge=merge_labels,
                finish=name_classes,
            ),
        )
        found.append(
            Reduce(name="census", reads=["given"], summarize=count_given, finish=check_census)
        )
    return found


def _id_type(ctx: Context) -> pa.DataType:
    kind = ctx.types.get("item_id")
    if kind is None or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.string()
    if pa.types.is_integer(kind):
        return pa.int64()
    raise DataError(
        f"source: column 'item_id' must be string or integer, got {kind}. Convert it, or map "
        "another column to it in data.columns"
    )


def _check_label_type(kind: pa.DataType) -> None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (_is_text(plain) or pa.types.is_integer(plain) or pa.types.is_boolean(plain)):
        raise DataError(
            f"source: column 'label' must hold integers or strings, got {kind}. Lists of labels "
            "go into 'labels'; a rating goes into 'score_mean'"
        )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _plain(labels: pa.Array) -> pa.Array:
    """Return labels as strings or 64-bit integers."""
    if pa.types.is_dictionary(labels.type):
        labels = labels.dictionary_decode()
    if _is_text(labels.type):
        return labels.cast(pa.string())
    try:
        return labels.cast(pa.int64())
    except pa.ArrowInvalid as err:
        raise DataError(
            f"source: column 'label' must fit into 64 bits, got {labels.type}: {err}"
        ) from err


# -- classes ---------------------------------------------------------------------------------------


def distinct_labels(frame: Frame, ctx: Context) -> Arrays:
    """Return the distinct labels of a shard, sorted."""
    values = pc.unique(_plain(frame["label"])).drop_null()
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
        If labels cannot be class ids of the classes that were named.
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
            f"expected ({_some(names)}), got {width} columns. Name the classes of the model in "
            "data.classes, in the order of its outputs"
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


def _some(names: Sequence[str] | np.ndarray) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:NAMED])
    return shown + (", …" if len(names) > NAMED else "")


# -- items -----------------------------------------------------------------------------------------


def number_items(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Give every item its id, the id's hash and its class; reject those that have none."""
    if "item_id" in frame:
        ids = frame["item_id"].cast(_id_type(ctx))
        frame.reject(np.flatnonzero(ids.is_null()), "no id: item_id is null")
    else:
        ids = pa.array([f"{frame.label}#{row}" for row in range(frame.n)], pa.string())
    columns = {"item_id": ids}
    if "label" in frame:
        labels = _plain(frame["label"])
        names, values = ctx.own("values")["names"], ctx.own("values")["values"]
        given = classes_of(labels, names if values.size == 0 else values)
        frame.reject(np.flatnonzero(labels.is_null()), "no label: label is null")
        for row in np.flatnonzero(given < 0).tolist():
            frame.reject(
                [row],
                f"class out of range: label {labels[row].as_py()!r} is none of the "
                f"{names.size} classes ({_some(names)})",
            )
        columns["given"] = pa.array(given, pa.int32())
    kept = pa.array(frame.kept())
    table = pa.table(columns).take(kept)
    ids = table.column("item_id").combine_chunks()
    hashes = (
        hash_integers(ids.to_numpy())
        if pa.types.is_integer(ids.type)
        else hash_strings(ids.to_pylist())
    )
    table = table.append_column("item_hash", pa.array(hashes, pa.uint64()))
    order = ["item_id", "item_hash", *(["given"] if "given" in columns else [])]
    return {ctx.stage: table.select(order)}


def classes_of(labels: pa.Array, classes: np.ndarray) -> np.ndarray:
    """Return the positions of plain labels among the classes; −1 for null and for no class."""
    known = pa.array(classes.tolist(), labels.type)
    index = pc.index_in(labels, value_set=known, skip_nulls=True)
    positions: np.ndarray = index.fill_null(-1).to_numpy(zero_copy_only=False)
    return positions.astype(np.int32)


def find_double_hashes(items: Items, ctx: Context, folder: str) -> Arrays:
    """Return hashes that two items share; neighbours in canonical order, so one pass finds them."""
    last: np.ndarray = np.empty(0, np.uint64)
    double: list[np.ndarray] = []
    for block in items.blocks(1 << 20):
        hashes = np.concatenate([last, np.asarray(block["item_hash"])])
        double.append(hashes[1:][hashes[1:] == hashes[:-1]])
        last = hashes[-1:]
    found = np.unique(np.concatenate(double)) if double else last
    return {"hashes": found[: NAMED * 100]}


def name_duplicates(frame: Frame, ctx: Context) -> Arrays:
    """Return the ids behind doubled hashes, with the file and row of each."""
    rows = np.flatnonzero(np.isin(frame.array("item_hash"), ctx.own("unique")["hashes"]))
    ids = frame["item_id"].take(pa.array(rows)).to_pylist()
    where = [f"{item}\x1f{frame.label}, row {row}" for item, row in zip(ids, rows, strict=True)]
    return {"where": np.array(sorted(where), dtype=np.str_)}


def merge_names(a: Arrays, b: Arrays) -> Arrays:
    """Return the sorted union of two lists of names."""
    return {"where": np.union1d(a["where"], b["where"])}


def refuse_duplicates(summary: Arrays, ctx: Context) -> Arrays:
    """Stop: with a doubled id no answer could be told which item it belongs to."""
    places: dict[str, list[str]] = {}
    for entry in summary["where"].tolist():
        item, where = entry.split("\x1f")
        places.setdefault(item, []).append(where)
    doubled = {item: where for item, where in places.items() if len(where) > 1}
    if not doubled:
        raise DataError(
            f"source: the ids {_some(list(places))} have the same 64-bit hash, which happens once "
            "in billions of items; rename one of them"
        )
    shown = "; ".join(
        f"{item!r} at {' and '.join(where[:3])}" for item, where in list(doubled.items())[:NAMED]
    )
    raise DataError(
        f"source: item_id must be unique over the data set, got {len(doubled)} id(s) more than "
        f"once: {shown}. Remove the copies, or map a unique column to item_id in data.columns"
    )


# -- census ----------------------------------------------------------------------------------------


def count_given(frame: Frame, ctx: Context) -> Arrays:
    """Count the items of each class."""
    n_classes = ctx.own("values")["names"].size
    return {"n_given": np.bincount(frame.array("given"), minlength=n_classes).astype(np.int64)}


def check_census(summary: Arrays, ctx: Context) -> Arrays:
    """Refuse data in which there is nothing to compare.

    Raises
    ------
    DataError
        If fewer than two classes have items, or a class has none and that was not allowed.
    """
    counts, classes = summary["n_given"], ctx.own("values")["names"].tolist()
    present = np.flatnonzero(counts)
    if present.size < 2:
        only = classes[int(present[0])] if present.size else "none"
        raise DataError(
            f"source: items of at least two classes were expected, got one class only ({only!r}). "
            "Was the data set filtered, or the wrong column mapped to 'label'?"
        )
    absent = [classes[k] for k in np.flatnonzero(counts == 0)]
    if absent and ctx.data.absent_classes == "refuse":
        raise DataError(
            f"source: every class must have an item; {len(absent)} of {len(classes)} have none: "
            f"{_some(absent)}. Leave them out of data.classes, or set data.absent_classes = "
            "'allow' if that is as it should be"
        )
    return summary


STAGE = Stage(
    name="source",
    version=1,
    doc="Check the data set; give every item its id, hash and class id.",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
)
