"""Forms that columns have: the same values as different programs write them, brought to one.

pandas, DuckDB, Spark and `datasets` write vectors as lists without a fixed length, ids as
dictionaries, whole numbers as floats. Each column of the data contract has one *canonical* form
that stages read; what is carried through keeps its own type, by way of a *working* form on which
all of Arrow's kernels work.
"""

import io
import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.errors import DataError

VECTORS = ("pred_probs", "features")
IDS = ("item_id", "bag_id")
LISTED = {
    "topk_ids": "lists of class ids",
    "topk_probs": "lists of probabilities",
    "tail_prob": "a number",
}
"""Predictions of which only the probable classes are listed, and what each column holds."""

INDICATORS = ("labels", "labels_negative")
POSITIONS = pa.list_(pa.int64())
"""What 0/1 vectors over the classes are read as: lists of class ids."""

PICTURES = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
EXACT = 2**53
"""Up to here every whole number is a float of its own."""


def _is_one_of(kind: pa.DataType, *names: str) -> bool:
    return any(getattr(pa.types, f"is_{name}")(kind) for name in names)


def is_text(kind: pa.DataType) -> bool:
    """Return whether values are strings, in whichever layout."""
    return _is_one_of(kind, "string", "large_string", "string_view")


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether values are bytes, in whichever layout."""
    return _is_one_of(kind, "binary", "large_binary", "binary_view", "fixed_size_binary")


def is_listed(kind: pa.DataType) -> bool:
    """Return whether values are lists, in whichever layout."""
    layouts = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return _is_one_of(kind, *layouts)


def is_number(kind: pa.DataType) -> bool:
    """Return whether values are numbers or truth values."""
    return _is_one_of(kind, "integer", "floating", "boolean", "decimal")


# -- working forms ---------------------------------------------------------------------------------


def working(kind: pa.DataType) -> pa.DataType:
    """Return the type of the same values on which rows can be taken, filtered and joined.

    Examples
    --------
    >>> str(working(pa.list_view(pa.string_view())))
    'list<item: string>'
    """
    if pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_binary_view(kind):
        return pa.binary()
    if isinstance(kind, pa.BaseExtensionType):
        return working(kind.storage_type)
    if pa.types.is_run_end_encoded(kind):
        return working(kind.value_type)
    if pa.types.is_struct(kind):
        return pa.struct([_working(kind.field(i)) for i in range(kind.num_fields)])
    if pa.types.is_map(kind):
        return pa.map_(
            _working(kind.key_field), _working(kind.item_field), keys_sorted=kind.keys_sorted
        )
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_working(kind.value_field), kind.list_size)
    if pa.types.is_large_list(kind) or pa.types.is_large_list_view(kind):
        return pa.large_list(_working(kind.value_field))
    if pa.types.is_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_working(kind.value_field))
    return kind


def _working(field: pa.Field) -> pa.Field:
    return field.with_type(working(field.type))


def to_working(values: pa.Array) -> pa.Array:
    """Bring values into their working form."""
    kind = working(values.type)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_run_end_encoded(values.type):
        values = pc.run_end_decode(values)
    if values.type == kind:
        return values
    if not pa.types.is_nested(kind):
        return values.cast(kind)
    mask = values.is_null()
    if pa.types.is_struct(kind):
        parts = [to_working(values.field(i)) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=mask)
    if pa.types.is_fixed_size_list(kind):
        width = kind.list_size
        inner = values.values.slice(values.offset * width, len(values) * width)
        return pa.FixedSizeListArray.from_arrays(to_working(inner), type=kind, mask=mask)
    if pa.types.is_map(kind):
        values = _rebased(values)
        keys, items = to_working(values.keys), to_working(values.items)
        return pa.MapArray.from_arrays(values.offsets, keys, items, type=kind, mask=mask)
    # By hand: Arrow's own cast of list views reads beyond their offsets.
    is_large = pa.types.is_large_list(kind)
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]))
    offsets = offsets.cast(pa.int64() if is_large else pa.int32())
    made = pa.LargeListArray if is_large else pa.ListArray
    return made.from_arrays(offsets, to_working(values.flatten()), type=kind, mask=mask)


def _rebased(values: pa.Array) -> pa.Array:
    """Return a slice with children that begin where it does."""
    return pa.concat_arrays([values, values.slice(0, 0)]) if values.offset else values


def restore(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Bring values back from their working form."""
    if values.type == kind:
        return values
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, restore(values, kind.storage_type))
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_encode(restore(values, kind.value_type), run_end_type=kind.run_end_type)
    if not pa.types.is_nested(kind):
        return values.cast(kind)
    values = _rebased(values)
    mask = values.is_null()
    if pa.types.is_struct(kind):
        parts = [restore(values.field(i), kind.field(i).type) for i in range(kind.num_fields)]
        return pa.StructArray.from_arrays(parts, fields=list(kind), mask=mask)
    if pa.types.is_map(kind):
        keys, items = restore(values.keys, kind.key_type), restore(values.items, kind.item_type)
        return pa.MapArray.from_arrays(values.offsets, keys, items, type=kind, mask=mask)
    inner = restore(values.values, kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.FixedSizeListArray.from_arrays(inner, type=kind, mask=mask)
    made = {
        pa.types.is_list: pa.ListArray,
        pa.types.is_large_list: pa.LargeListArray,
        pa.types.is_list_view: pa.ListViewArray,
        pa.types.is_large_list_view: pa.LargeListViewArray,
    }
    array = next(array for test, array in made.items() if test(kind))
    if array in (pa.ListArray, pa.LargeListArray):
        return array.from_arrays(values.offsets, inner, type=kind, mask=mask)
    sizes = pc.list_value_length(values).fill_null(0).cast(values.offsets.type)
    return array.from_arrays(values.offsets[:-1], sizes, inner, type=kind, mask=mask)


def restore_table(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Bring the columns of a table back from their working form."""
    columns = [
        pa.chunked_array([restore(chunk, field.type) for chunk in column.chunks], field.type)
        for column, field in zip(table.columns, schema, strict=True)
    ]
    return pa.table(columns, schema=schema)


def working_schema(schema: pa.Schema) -> pa.Schema:
    """Return a schema of the same columns in their working form."""
    return pa.schema([_working(field) for field in schema], metadata=schema.metadata)


WIDEST = 1 << 24
"""A value of a type of fixed size may take so many bytes, null or not.

A damaged type can claim any size, and Arrow reserves it for every row.
"""


def fixed_bytes(kind: pa.DataType) -> int:
    """Return how many bytes a value takes in memory whatever it is, even if it is null.

    Examples
    --------
    >>> fixed_bytes(pa.list_(pa.float32(), 1000)), fixed_bytes(pa.list_(pa.float32()))
    (4000, 0)
    """
    if isinstance(kind, pa.BaseExtensionType):
        return fixed_bytes(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return fixed_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return sum(fixed_bytes(field.type) for field in kind)
    if pa.types.is_fixed_size_list(kind):
        # Of values without a size of their own, each has an offset.
        return int(kind.list_size) * (fixed_bytes(kind.value_type) or 8)
    if pa.types.is_fixed_size_binary(kind):
        # Its width in bits can be beyond what Arrow counts it in.
        return int(kind.byte_width)
    try:
        return (int(kind.bit_width) + 7) // 8
    except ValueError:
        return 0


def check_carried(schema: pa.Schema, where: str) -> None:
    """Refuse columns that could not be carried through to the product.

    Does with two rows of nulls what is done with all rows later.

    Raises
    ------
    DataError
        Names the column and its type.
    """
    reasons: dict[pa.DataType, str] = {}
    for field in schema:
        if (n_bytes := fixed_bytes(field.type)) > WIDEST:
            raise DataError(
                f"source: values of at most {WIDEST >> 20} MiB were expected, but each of column "
                f"{field.name!r} of type {field.type} takes {n_bytes >> 20:,} MiB; in {where}. Is "
                "the file damaged? If not, write lists without a fixed size, or leave it out"
            )
        if field.type not in reasons:
            reasons[field.type] = _not_carried(field.type)
        if reason := reasons[field.type]:
            raise DataError(
                f"source: columns that Parquet can carry unchanged were expected, but column "
                f"{field.name!r} of type {field.type} {reason}; in {where}. Convert it to another "
                "type, or leave it out of the shards"
            )


def _not_carried(kind: pa.DataType) -> str:
    """Return why values of a type do not come back as they were; "" if they do."""
    try:
        column = to_working(pa.nulls(2, kind))
        column = pa.concat_arrays([column.take(pa.array([1, 0])), column.slice(1)])
        column = restore(column.filter(pa.array([False, True, True])), kind)
        buffer = io.BytesIO()
        pq.write_table(pa.table({"column": column}), buffer)
        back = pq.read_table(pa.BufferReader(buffer.getvalue())).schema.field(0).type
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError, KeyError) as err:
        return f"cannot be: {err}"
    return "" if back == kind else f"comes back as {back}"


# -- indicators ------------------------------------------------------------------------------------


def is_indicator(values: pa.Array) -> bool:
    """Return whether lists are 0/1 vectors over the classes rather than lists of class ids.

    Truth values are; numbers are if all lists have one length, hold 0 and 1 only, and some of them
    twice, which no list of ids does.

    Examples
    --------
    >>> is_indicator(pa.array([[0, 1, 0], [1, 0, 0]])), is_indicator(pa.array([[0, 1], [1]]))
    (True, False)
    """
    number = element(values.type)
    if pa.types.is_boolean(number):
        return True
    if not (pa.types.is_integer(number) or pa.types.is_floating(number)):
        return False
    flat, lengths = _flat(values.drop_null())
    if lengths.size == 0 or lengths.min() != lengths.max() or lengths[0] < 2 or flat.null_count:
        return False
    array = flat.to_numpy(zero_copy_only=False).reshape(len(lengths), -1)
    has_doubles = lengths[0] > 2 or (array[:, 0] == array[:, 1]).any()
    return bool(has_doubles and np.isin(array, (0, 1)).all())


def positions(values: pa.Array) -> pa.Array:
    """Return lists of the positions at which 0/1 vectors have a 1; null for what is none.

    Examples
    --------
    >>> positions(pa.array([[0, 1, 1], [0, 0, 0], [2, 0, 0], None])).to_pylist()
    [[1, 2], [], None, None]
    """
    flat, lengths = _flat(values)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    row = np.repeat(np.arange(len(values)), lengths)
    start = np.concatenate([[0], np.cumsum(lengths)])
    column = np.arange(len(flat)) - start[row]
    number = flat.cast(pa.float64()).fill_null(-1.0).to_numpy(zero_copy_only=False)
    bad = np.zeros(len(values), bool)
    np.logical_or.at(bad, row, ~np.isin(number, (0.0, 1.0)))
    taken = (number == 1.0) & ~bad[row]
    ends = np.concatenate([[0], np.cumsum(np.bincount(row[taken], minlength=len(values)))])
    return pa.ListArray.from_arrays(
        pa.array(ends, pa.int32()),
        pa.array(column[taken]),
        type=POSITIONS,
        mask=pa.array(missing | bad),
    )


# -- canonical forms -------------------------------------------------------------------------------


def canonical(name: str, kind: pa.DataType, width: int | None) -> pa.DataType:
    """Return the type in which stages read a column of the data contract.

    Parameters
    ----------
    name
        In the data contract.
    kind
        Type in the files.
    width
        Length of its first vector, for vectors whose type does not say it.

    Raises
    ------
    DataError
        If values of that type cannot be what the contract says.
    """
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    if name in IDS:
        return _id_type(name, plain)
    if name in VECTORS:
        return _vector_type(name, kind, width)
    if name in LISTED:
        return _listed_type(name, kind)
    if name == "image":
        return _picture_type(plain)
    if name == "text":
        return pa.string() if is_text(plain) else working(kind)
    return working(kind)


def _id_type(name: str, kind: pa.DataType) -> pa.DataType:
    if is_text(kind) or is_bytes(kind) or _is_uuid(kind):
        return pa.string()
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return pa.int64()
    raise DataError(
        f"source: column {name!r} must be string or integer, got {kind}. Convert it, or map "
        f"another column to it in data.columns"
    )


def _is_uuid(kind: pa.DataType) -> bool:
    return isinstance(kind, pa.UuidType)


def element(kind: pa.DataType) -> pa.DataType:
    """Return the type of the numbers in vectors, however deep they lie."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif is_listed(kind) or pa.types.is_dictionary(kind):
            kind = kind.value_type
        else:
            return kind


def fixed_width(kind: pa.DataType) -> int | None:
    """Return the length of vectors of a type, or None if it does not say it."""
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    if not pa.types.is_fixed_size_list(kind):
        return None if is_listed(kind) else 1
    inner = fixed_width(kind.value_type)
    return None if inner is None else int(kind.list_size) * inner


def _vector_type(name: str, kind: pa.DataType, width: int | None) -> pa.DataType:
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    number = element(kind)
    if not is_listed(storage) or not is_number(number):
        raise DataError(
            f"source: column {name!r} must hold vectors, lists of numbers of one length, got "
            f"{kind}. Write it as pyarrow.list_(pyarrow.float32(), length), or map another column "
            f"to {name!r} in data.columns"
        )
    if not width:
        raise DataError(
            f"source: column {name!r} must hold vectors of one length, got {kind} without any "
            "vector. Was the wrong column mapped to it?"
        )
    if not pa.types.is_floating(number):
        number = pa.float32() if pa.types.is_boolean(number) else pa.float64()
    elif name == "pred_probs" and pa.types.is_float16(number):
        number = pa.float32()
    field = storage.value_field.name if pa.types.is_fixed_size_list(storage) else "element"
    return pa.list_(pa.field(field, number), width)


def _listed_type(name: str, kind: pa.DataType) -> pa.DataType:
    is_list, number = LISTED[name] != "a number", element(kind)
    fits = is_listed(kind) if is_list else not pa.types.is_nested(kind)
    if not fits or not is_number(number) or pa.types.is_boolean(number):
        raise DataError(
            f"source: column {name!r} must hold {LISTED[name]}, got {kind}. Convert it, or map "
            "another column to it in data.columns"
        )
    if name == "topk_ids":
        return pa.list_(number if pa.types.is_integer(number) else pa.int64())
    number = number if pa.types.is_floating(number) else pa.float64()
    return pa.list_(number) if is_list else number


def _picture_type(kind: pa.DataType) -> pa.DataType:
    if is_bytes(kind):
        return kind if pa.types.is_large_binary(kind) else pa.binary()
    if is_text(kind):
        return PICTURES
    if pa.types.is_struct(kind):
        fields = {kind.field(i).name: kind.field(i).type for i in range(kind.num_fields)}
        bytes_, path = fields.get("bytes", pa.null()), fields.get("path", pa.null())
        is_fit = is_bytes(bytes_) or (pa.types.is_null(bytes_) and is_text(path))
        if is_fit and (is_text(path) or pa.types.is_null(path)):
            return PICTURES
    raise DataError(
        f"source: column 'image' must hold encoded pictures (binary), paths of files beside the "
        f"shards (string), or a struct with 'bytes' and 'path', got {kind}. "
        "datasets.Dataset.to_parquet writes the last"
    )


def convert(values: pa.Array, kind: pa.DataType, name: str) -> pa.Array:
    """Bring values into another form of the same values.

    Vectors of another length than `kind` says become null.

    Raises
    ------
    DataError
        If a value has no such form: an id that is no whole number, text that is not UTF-8.
    """
    if values.type == kind:
        return values
    try:
        if kind == working(values.type):
            return to_working(values)
        if name in VECTORS and pa.types.is_fixed_size_list(kind):
            return _vectors(values, kind)
        if pa.types.is_dictionary(values.type) and not pa.types.is_dictionary(kind):
            values = values.dictionary_decode()
        if kind == PICTURES:
            return _pictures(values)
        if pa.types.is_run_end_encoded(values.type):
            values = pc.run_end_decode(values)
        if _is_uuid(values.type):
            texts = [None if value is None else str(value) for value in values.to_pylist()]
            return pa.array(texts, kind)
        if pa.types.is_fixed_size_binary(values.type):
            values = values.cast(pa.binary())
        if pa.types.is_floating(values.type) and pa.types.is_integer(kind):
            return _whole(values, kind)
        return values.cast(kind)
    except (pa.ArrowException, UnicodeDecodeError) as err:
        raise DataError(
            f"source: column {name!r} must hold {_meant(kind)}, got {values.type} with a value "
            f"that is none: {err}. Convert the column, or map another one to {name!r}"
        ) from err


def as_type(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return labels, text or integers, in the type that the source has them in."""
    if pa.types.is_dictionary(kind):
        return as_type(values, kind.value_type).dictionary_encode().cast(kind)
    if is_bytes(kind):
        values = values.cast(pa.binary())
    elif pa.types.is_decimal(kind):
        # From integers only those of 19 digits and more are reached at once.
        values = values.cast(pa.decimal256(76, 0))
    return values.cast(kind)


def _meant(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "whole numbers that fit into 64 bits with a sign"
    return "UTF-8 text" if is_text(kind) else f"values of type {kind}"


def _whole(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return floats that are whole numbers as integers; NaN, as pandas writes it, is null."""
    values = values.cast(pa.float64())
    values = pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    largest = pc.max(pc.abs(values)).as_py()
    if largest is not None and largest > EXACT:
        raise pa.ArrowInvalid(f"{largest!r} is beyond 2**53, where floats skip whole numbers")
    return values.cast(kind)


def _pictures(values: pa.Array) -> pa.Array:
    parts = []
    for field in PICTURES:
        if is_text(values.type):
            part = values if field.name == "path" else pa.nulls(len(values), field.type)
        else:
            at = values.type.get_field_index(field.name)
            part = pa.nulls(len(values), field.type) if at < 0 else values.field(at)
        if pa.types.is_fixed_size_binary(part.type):
            part = part.cast(pa.binary())
        parts.append(part.cast(field.type))
    return pa.StructArray.from_arrays(parts, fields=list(PICTURES), mask=values.is_null())


def _vectors(values: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return vectors of one length; those of another length become null."""
    n, width = len(values), kind.list_size
    flat, lengths = _flat(values)
    missing = values.is_null().to_numpy(zero_copy_only=False)
    fits = (lengths == width) & ~missing
    if pa.types.is_decimal(flat.type):
        flat = flat.cast(pa.float64())
    if not fits[~missing].all():
        flat = flat.filter(pa.array(np.repeat(fits, np.where(missing, 0, lengths))))
    # Unsafe: what is large for the narrower type becomes infinite and is rejected with its row.
    flat = flat.cast(kind.value_type, safe=False)
    if not fits.all():
        index = np.full(n, -1, np.int64)
        index[fits] = np.arange(int(fits.sum()))
        position = (index[:, None] * width + np.arange(width)).reshape(-1)
        flat = flat.take(pa.array(position, mask=np.repeat(~fits, width)))
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(~fits))


def _flat(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return all numbers of lists, however deep they lie, and how many each list has."""
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    inner = values.flatten()
    if not is_listed(inner.type) and not isinstance(inner, pa.ExtensionArray):
        return inner, lengths.astype(np.int64)
    flat, each = _flat(inner)
    ends = np.concatenate([[0], np.cumsum(each)])
    start = np.concatenate([[0], np.cumsum(lengths)])
    return flat, ends[start[1:]] - ends[start[:-1]]


def usual_width(values: pa.Array) -> int | None:
    """Return the most frequent length of vectors, of two the smaller; None if there is none."""
    lengths = _flat(values.drop_null())[1]
    return int(np.bincount(lengths[lengths > 0]).argmax()) if lengths.any() else None


_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,17}")


def partition_type(values: Iterable[str | None]) -> pa.DataType:
    """Return the type of a column that is written in names of folders."""
    texts = [value for value in values if value is not None]
    whole = bool(texts) and all(_WHOLE.fullmatch(text) for text in texts)
    return pa.int64() if whole else pa.string()
