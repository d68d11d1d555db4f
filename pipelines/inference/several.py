"""Ready probabilities of several models, in columns that `data.opinions` names.

Each is checked as one alone would be; then they are combined as the opinions of our own heads are.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from labelops.hashing import is_sampled
from pipelines.core.layout import SOURCE
from pipelines.core.stage import Arrays, Context, Map, Output, Step, Tables
from pipelines.errors import DataError, RecipeError
from pipelines.inference import opinions
from pipelines.inference.calibrate import folder, sample_table
from pipelines.inference.class_order import check_order
from pipelines.inference.given import given_of
from pipelines.inference.settings import Config
from pipelines.storage.forms import convert, is_listed
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array, vectors_of
from pipelines.storage.wording import did_you_mean, several, shown

CHUNK_BYTES = 32 * 2**20


def raw(ctx: Context) -> list[str]:
    """Return the columns as steps read them.

    Raises
    ------
    RecipeError, DataError
        If one is not there or holds no vectors of numbers, or has not one for every class.
    """
    schema = ctx.source_schema
    for name in ctx.data.opinions:
        if name not in schema.names:
            raise RecipeError(
                f"data.opinions: columns of the source were expected, got {shown(name)}"
                f"{did_you_mean(name, schema.names)} It has {several(schema.names, 20)}"
            )
        kind = schema.field(name).type
        if not is_listed(kind) or not _is_number(kind.value_type):
            raise RecipeError(
                "data.opinions: columns with one probability for every class were expected, got "
                f"{shown(name)} of type {kind}"
            )
        if pa.types.is_fixed_size_list(kind) and kind.list_size != ctx.n_classes:
            raise DataError(
                f"stage {ctx.stage!r}: {shown(name)} must have one column for each of the "
                f"{ctx.n_classes} classes, got {kind.list_size}. Name the classes of the models in "
                "data.classes, in the order of their outputs"
            )
    return [f"{SOURCE}/{name}" for name in ctx.data.opinions]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def steps(ctx: Context[Config], written: dict[str, Output]) -> list[Step[Config]]:
    """Return the steps that check the columns, weigh them, and write what they say together."""
    columns = raw(ctx)
    names, given = ctx.data.opinions, given_of(ctx.columns).columns(ctx.columns)
    return [
        Map(
            name="validate",
            reads=["item_hash", *given, *columns],
            writes=opinions.sample_output(ctx, names),
            apply=validate,
        ),
        opinions.weigh_step(ctx, names, check=check_columns),
        Map(
            name="pool",
            reads=["item_id", "item_hash", *given, *columns],
            writes=written,
            apply=pool_columns,
        ),
    ]


def _blocks(frame: Frame, ctx: Context) -> Iterator[tuple[slice, list[np.ndarray], list[pa.Array]]]:
    """Yield rows of a shard: where they are, and each column as probabilities and as it stands."""
    columns = raw(ctx)
    rows = max(64, CHUNK_BYTES // (8 * ctx.n_classes * len(columns)))
    for start, table in frame.batches(columns, rows):
        as_is = [table.column(name).combine_chunks() for name in columns]
        yield slice(start, start + table.num_rows), [_probs(one, ctx) for one in as_is], as_is


def _probs(values: pa.Array, ctx: Context) -> np.ndarray:
    is_double = pa.types.is_float64(values.type.value_type)
    number = pa.float64() if is_double else pa.float32()
    return vectors_of(convert(values, pa.list_(number, ctx.n_classes), "pred_probs"))[0]


def validate(frame: Frame, ctx: Context[Config]) -> Tables:
    """Reject rows that are no probabilities in some column; return what all say of a sample."""
    names, kind = ctx.data.opinions, given_of(ctx.columns)
    hashes, given = frame.array("item_hash"), kind.read(frame, ctx)
    wanted = opinions.sample_size(ctx, len(names))
    chosen = is_sampled(hashes, wanted=wanted, total=ctx.n_items)
    said: list[list[np.ndarray]] = [[] for _ in names]
    for here, blocks, as_is in _blocks(frame, ctx):
        usable, own = chosen[here].copy(), kind.choose(given, here)
        for name, probs, values in zip(names, blocks, as_is, strict=True):
            bad, _ = kind.check(probs, own, ctx.config.sum_tolerance)
            for row in bad.tolist():
                why = _what_is_wrong(values[row].as_py(), probs[row], ctx)
                frame.reject([here.start + row], f"{why} ({name})")
            usable[bad] = False
        chosen[here] = usable
        for column, probs in zip(said, blocks, strict=True):
            column.append(probs[usable].astype(np.float32))
    none = np.empty((0, ctx.n_classes), np.float32)
    rows = np.flatnonzero(chosen)
    whole = [np.concatenate([none, *column]) for column in said]
    return opinions.sample_tables(ctx, hashes[rows], kind.choose(given, rows), whole)


def _what_is_wrong(values: list[float] | None, probs: np.ndarray, ctx: Context) -> str:
    if values is None:
        return "probabilities missing: null"
    if len(values) != ctx.n_classes:
        return f"{len(values)} probabilities, one for each of {ctx.n_classes} classes was expected"
    return given_of(ctx.columns).what_is_wrong(probs)


def check_columns(probs: np.ndarray, given: np.ndarray, ctx: Context) -> Arrays:
    """Refuse columns in another order of classes than the others, and those that are the same.

    Raises
    ------
    DataError
        If two columns are equal on the whole sample: agreement with oneself says nothing.
    """
    names, notices = ctx.data.opinions, list[np.ndarray]()
    for i, name in enumerate(names):
        for j in range(i if len(given) else 0):
            if np.allclose(probs[i], probs[j], rtol=0.0, atol=1e-6):
                raise DataError(
                    f"stage {ctx.stage!r}: opinions of different models were expected in "
                    f"data.opinions; {shown(names[j])} and {shown(name)} are equal. Name one of "
                    "them: one that is there twice counts twice, and agrees with itself"
                )
        if given.ndim == 1:
            mine = {"given": given, "pred_probs": probs[i]}
            notices.append(check_order(mine, ctx, what=f"columns of {shown(name)}")["notices"])
    return {"notices": np.concatenate([np.array([], dtype=np.str_), *notices])}


def pool_columns(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write what all columns say of each item together."""
    kind, hashes, ids = given_of(ctx.columns), frame.array("item_hash"), frame["item_id"]
    given = kind.read(frame, ctx)
    for here, blocks, _ in _blocks(frame, ctx):
        probs, votes = kind.pool(np.stack(blocks), ctx.own("weights"))
        own = kind.choose(given, here)
        rows = {"item_id": ids[here], "pred_probs": list_array(probs)}
        if kind.has_p_given:
            rows["p_given"] = pa.array(probs[np.arange(len(own)), own], pa.float32())
        if votes is not None:
            rows["opinions"] = list_array(votes)
        yield {ctx.stage: pa.table(rows), folder(ctx): sample_table(hashes[here], own, probs, ctx)}
