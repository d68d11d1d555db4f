"""Columns of vectors, with null rows told apart; and tables brought to an even size."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa


def width_of(kind: pa.DataType, column: str) -> int:
    """Return the length of the vectors of a column.

    Raises
    ------
    TypeError
        If it is no fixed-size list of numbers.
    """
    numbers = pa.types.is_fixed_size_list(kind) and (
        pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)
    )
    if not numbers or kind.list_size < 1:
        raise TypeError(
            f"column {column!r} must be a fixed-size list of numbers, got {kind}. Write it with "
            "pyarrow.list_(pyarrow.float32(), length)"
        )
    return int(kind.list_size)


def vectors_of(values: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors as an array, and which rows are null.

    Parameters
    ----------
    values
        N fixed-size lists of D numbers.

    Returns
    -------
    Shape (N, D), read-only and without copying where nothing is null, with NaN for what is null;
    bool, shape (N,).
    """
    n, width = len(values), values.type.list_size
    flat = values.values.slice(values.offset * width, n * width)
    null = values.is_null().to_numpy(zero_copy_only=False)
    if flat.null_count:
        if not pa.types.is_floating(flat.type):
            flat = flat.cast(pa.float64())
        flat = flat.fill_null(float("nan"))
    array = flat.to_numpy(zero_copy_only=False).reshape(n, width)
    if null.any():
        kind = np.result_type(array.dtype, np.float16)
        array = np.where(null[:, None], np.nan, array).astype(kind)
    array.flags.writeable = False
    return array, null


def arrays_of(table: pa.Table) -> dict[str, np.ndarray]:
    """Return columns of numbers and of vectors as arrays."""
    arrays: dict[str, np.ndarray] = {}
    for field, column in zip(table.schema, table.combine_chunks().columns, strict=True):
        values = column.chunk(0) if column.num_chunks else pa.array([], field.type)
        is_vector = pa.types.is_fixed_size_list(field.type)
        arrays[field.name] = vectors_of(values)[0] if is_vector else values.to_numpy(False)
    return arrays


def list_array(rows: np.ndarray) -> pa.Array:
    """Return an array (N, D) as fixed-size lists, without copying."""
    flat = pa.array(np.ascontiguousarray(rows).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def even_tables(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Yield the same rows in tables of exactly `rows` rows; the last may be shorter."""
    held: list[pa.Table] = []
    n_held = 0
    for table in tables:
        held.append(table)
        n_held += table.num_rows
        if n_held >= rows:
            whole = pa.concat_tables(held)
            start = 0
            while n_held - start >= rows:
                yield whole.slice(start, rows)
                start += rows
            held, n_held = [whole.slice(start)], n_held - start
    if n_held:
        yield pa.concat_tables(held)
