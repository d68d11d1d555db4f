"""Columns of a table, named in `data.features`, as the features that items are predicted from."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.hashing import hash_strings, is_sampled
from labelops.tabular import MISSING, Encoding, encode, learn
from pipelines.core.layout import SOURCE
from pipelines.core.stage import Arrays, Context, Reduce, Tables, join_summaries
from pipelines.core.state import TABLE
from pipelines.errors import RecipeError
from pipelines.storage.contract import known_columns
from pipelines.storage.forms import is_text
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array
from pipelines.storage.wording import did_you_mean, several, shown

SAMPLE_ITEMS, SAMPLE_CELLS = 20_000, 1 << 24
"""The encoding is learned from so many items, or cells."""

BLOCK_ROWS = 8192

EVERY = "*"


class Columns(NamedTuple):
    """Names of the columns in the source, as they stand there."""

    numbers: tuple[str, ...]
    categories: tuple[str, ...]


def columns_of(ctx: Context) -> Columns:
    """Return which columns are predicted from.

    Raises
    ------
    RecipeError
        If one is not there, is what shall be predicted or names items, or holds neither numbers nor
        categories; or if none is left.
    """
    schema, wanted = ctx.source_schema, ctx.data.features
    mapped = {ctx.data.columns.get(ours, ours) for ours in known_columns()}
    minus = [name for name in wanted if name.startswith("-") and name not in schema.names]
    left_out = {name[1:] for name in minus}
    named = [name for name in wanted if name != EVERY and name not in minus]
    for name in [*named, *sorted(left_out)]:
        if name not in schema.names:
            raise RecipeError(
                f"data.features: columns of the source were expected, got {shown(name)}"
                f"{did_you_mean(name, schema.names)} It has {several(schema.names, 20)}; "
                f"{EVERY!r} stands for all that are not used otherwise, and '-NAME' leaves one out"
            )
        if name in named and name in mapped:
            raise RecipeError(
                f"data.features: columns to predict from were expected, got {shown(name)}, which "
                "is read as something else (an id, a label, …). Take it out"
            )
    if EVERY in wanted:
        free = (f.name for f in schema if f.name not in mapped and _kind(f.type) is not None)
        named = list(dict.fromkeys([*named, *(name for name in free if name not in left_out)]))
    for name in named:
        if _kind(schema.field(name).type) is None:
            raise RecipeError(
                "data.features: columns of numbers, truth values, dates or text were expected, got "
                f"{shown(name)} of type {schema.field(name).type}. Vectors go into 'features', "
                "pictures into 'image'"
            )
    if not named:
        raise RecipeError(
            "data.features: at least one column was expected, got none that could be used; the "
            f"source has {several(schema.names, 20)}"
        )
    kinds = {name: _kind(schema.field(name).type) for name in named}
    return Columns(
        tuple(name for name in named if kinds[name] == "number"),
        tuple(name for name in named if kinds[name] == "category"),
    )


def _kind(kind: pa.DataType) -> str | None:
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_category = is_text(plain) or pa.types.is_boolean(plain) or pa.types.is_null(plain)
    if is_category or pa.types.is_dictionary(kind):
        return "category"
    is_number = pa.types.is_integer(plain) or pa.types.is_floating(plain)
    return "number" if is_number or pa.types.is_decimal(plain) or _is_time(plain) else None


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind))


def raw(ctx: Context) -> list[str]:
    """Return the columns as steps read them."""
    return [f"{SOURCE}/{name}" for part in columns_of(ctx) for name in part]


def _numbers(values: pa.Array) -> np.ndarray:
    """Return numbers, float64; NaN where there is none. Of a date, the days or smaller units."""
    if _is_time(values.type):
        values = values.cast(pa.int32() if values.type.bit_width == 32 else pa.int64())
    exact = pc.cast(values, pa.float64(), safe=False)
    return np.asarray(exact.to_numpy(zero_copy_only=False), np.float64)


def _hashes(values: pa.Array) -> np.ndarray:
    """Return hashes of categories; `MISSING` where there is none."""
    if pa.types.is_null(values.type):
        return np.full(len(values), MISSING)
    codes = values if pa.types.is_dictionary(values.type) else pc.dictionary_encode(values)
    texts = codes.dictionary.cast(pa.string()).to_pylist()
    table = np.append(hash_strings([text or "" for text in texts]), MISSING)
    # A category may itself be null in a dictionary.
    table[[i for i, text in enumerate(texts) if text is None]] = MISSING
    at = codes.indices.fill_null(len(texts)) if len(codes) else codes.indices
    return np.asarray(table[at.to_numpy(zero_copy_only=False).astype(np.int64)], np.uint64)


def _arrays(table: pa.Table, columns: Columns) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers (n, P) and hashes of categories (n, Q) of some rows."""

    def stack(names: Sequence[str], read: Any, kind: type) -> np.ndarray:
        parts = [read(table.column(f"{SOURCE}/{name}").combine_chunks()) for name in names]
        return np.stack(parts, axis=1) if parts else np.empty((table.num_rows, 0), kind)

    return (
        stack(columns.numbers, _numbers, np.float64),
        stack(columns.categories, _hashes, np.uint64),
    )


def learn_step(ctx: Context) -> Reduce:
    """Return the step that learns how columns become numbers."""
    return Reduce(
        name=TABLE,
        reads=["item_hash", *raw(ctx)],
        summarize=_sample,
        merge=join_summaries,
        finish=_learn,
    )


def _sample(frame: Frame, ctx: Context) -> Arrays:
    columns = columns_of(ctx)
    n_columns = len(columns.numbers) + len(columns.categories)
    wanted = min(SAMPLE_ITEMS, max(1, SAMPLE_CELLS // n_columns))
    hashes = frame.array("item_hash")
    chosen = np.flatnonzero(is_sampled(hashes, wanted=wanted, total=ctx.n_items))
    table = frame.table(raw(ctx)).take(pa.array(chosen))
    numbers, categories = _arrays(table, columns)
    return {"numbers": numbers, "categories": categories}


def _learn(summary: Arrays, ctx: Context) -> Arrays:
    return learn(summary["numbers"], summary["categories"])._asdict()


def encoding_of(ctx: Context) -> Encoding:
    """Return what was learned."""
    found = ctx.result("source", TABLE)
    return Encoding(**{name: found[name] for name in Encoding._fields})


def name_of_feature(ctx: Context, feature: int) -> str:
    """Return the name of the column that a feature is of."""
    columns = columns_of(ctx)
    return (*columns.numbers, *columns.categories)[int(encoding_of(ctx).column[feature])]


def encode_columns(frame: Frame, ctx: Context) -> Iterator[Tables]:
    """Write the features of a shard's items."""
    encoding, columns = encoding_of(ctx), columns_of(ctx)
    for _, table in frame.batches(raw(ctx), BLOCK_ROWS):
        rows = encode(encoding, *_arrays(table, columns))
        yield {f"{ctx.stage}/_embedding": pa.table({"embedding": list_array(rows)})}
