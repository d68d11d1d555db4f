"""Stage `source`: who the items are, what they were labelled, and whether that can be worked on."""

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from labelops.hashing import hash_integers, hash_strings
from pipelines.core.stage import Arrays, Context, Fit, Map, Output, Reduce, Stage, Step
from pipelines.errors import DataError
from pipelines.inference.table import learn_step
from pipelines.labels import classes
from pipelines.labels.classes import NAMED, some
from pipelines.labels.space import announced
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.wording import shown


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `source`: none; what it needs to know stands in the recipe's `[data]`."""


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the source columns that identify and label items, as far as there are any."""
    space = announced(columns)
    labels = () if space is None else space.source
    return [name for name in ("item_id", *labels) if name in columns]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    space = announced(columns)
    pairs = () if space is None else zip(space.source, space.given, strict=True)
    return ["item_id", "item_hash", *(given for column, given in pairs if column in columns)]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: find classes, number the items, look for double ids, count labels."""
    columns = reads(config, ctx.columns)
    space = announced(ctx.columns)
    given = {} if space is None else space.given_types(ctx)
    item_id = ctx.types.get("item_id", pa.string())
    schema = {"item_id": item_id, "item_hash": pa.uint64(), **given}
    item_steps: list[Step] = [
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
    if ctx.data.features:
        item_steps.append(learn_step(ctx))
    if space is None:
        return item_steps
    values = Reduce(
        name="values",
        reads=[name for name in columns if name != "item_id"],
        summarize=space.distinct,
        merge=classes.merge_labels,
        finish=classes.name_classes,
    )
    census = Reduce(
        name="census",
        reads=list(given),
        summarize=space.count,
        finish=space.check,
    )
    return [values, *item_steps, census]


# -- items -----------------------------------------------------------------------------------------


def number_items(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Give every item its id, the id's hash and its classes; reject those that have none."""
    if "item_id" in frame:
        ids = frame["item_id"]
        frame.reject(np.flatnonzero(ids.is_null()), "no id: item_id is null")
    else:
        ids = pa.array([f"{frame.label}#{row}" for row in range(frame.n)], pa.string())
    space = announced(frame.reads)
    given = {} if space is None else space.read(frame, ctx)
    kept = pa.array(frame.kept())
    ids = ids.take(kept)
    hashes = (
        hash_integers(ids.to_numpy())
        if pa.types.is_integer(ids.type)
        else hash_strings(ids.to_pylist())
    )
    return {ctx.stage: pa.table({"item_id": ids, "item_hash": pa.array(hashes), **given})}


def find_double_hashes(items: Items, ctx: Context, folder: str) -> Arrays:
    """Return hashes that two items share; neighbours in canonical order, so one pass finds them."""
    last: np.ndarray = np.empty(0, np.uint64)
    double: list[np.ndarray] = []
    for block in items.blocks(1 << 20):
        hashes = np.concatenate([last, np.asarray(block["item_hash"])])
        double.append(hashes[1:][hashes[1:] == hashes[:-1]])
        last = hashes[-1:]
    shared = np.unique(np.concatenate(double)) if double else last
    return {"hashes": shared[: NAMED * 100]}


def name_duplicates(frame: Frame, ctx: Context) -> Arrays:
    """Return the ids behind doubled hashes, with the file and row of each."""
    rows = np.flatnonzero(np.isin(frame.array("item_hash"), ctx.own("unique")["hashes"]))
    ids = frame["item_id"].take(pa.array(rows)).to_pylist()
    # As JSON, in which no id is taken for another: it may hold any character, or end in NUL.
    where = [
        json.dumps([str(item), frame.label, row])
        for item, row in zip(ids, rows.tolist(), strict=True)
    ]
    return {"where": np.array(sorted(where), dtype=np.str_)}


def merge_names(a: Arrays, b: Arrays) -> Arrays:
    """Return the sorted union of two lists of names."""
    return {"where": np.union1d(a["where"], b["where"])}


def refuse_duplicates(summary: Arrays, ctx: Context) -> Arrays:
    """Stop: with a doubled id no answer could be told which item it belongs to."""
    places: dict[str, list[str]] = {}
    for entry in summary["where"].tolist():
        item, label, row = json.loads(entry)
        places.setdefault(item, []).append(f"{label}, row {row}")
    doubled = {item: where for item, where in places.items() if len(where) > 1}
    if not doubled:
        raise DataError(
            f"source: the ids {some(list(places))} have the same 64-bit hash, which happens once "
            "in billions of items; rename one of them"
        )
    named = list(doubled.items())[:NAMED]
    listed = "; ".join(f"{shown(item)} at {' and '.join(where[:3])}" for item, where in named)
    raise DataError(
        f"source: item_id must be unique over the data set, got {len(doubled)} id(s) more than "
        f"once: {listed}. Remove the copies, or map a unique column to item_id in data.columns"
    )


STAGE = Stage(
    name="source",
    version=1,
    doc="checks the data set and gives every item its id, hash and class id",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
)
