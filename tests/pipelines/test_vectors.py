"""Oracle: the Python values of the same Arrow arrays."""

import itertools

import numpy as np
import pyarrow as pa
import pytest

from pipelines.storage.vectors import even_tables, list_array, vectors_of, width_of


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64(), pa.int64()])
@pytest.mark.parametrize("start", [0, 2])
def test_vectors__nulls_become_nan_and_rows_stay_in_place(kind: pa.DataType, start: int) -> None:
    rows = [[1, 2], None, [3, None], [4, 5], None]
    array = pa.array(rows, pa.list_(kind, 2)).slice(start)
    found, null = vectors_of(array)
    assert null.tolist() == [row is None for row in rows[start:]]
    for got, row in zip(found.tolist(), rows[start:], strict=True):
        expected = [np.nan, np.nan] if row is None else [np.nan if v is None else v for v in row]
        np.testing.assert_array_equal(got, expected)


def test_vectors__without_nulls_nothing_is_copied() -> None:
    rows = np.arange(12, dtype=np.float32).reshape(4, 3)
    array = list_array(rows).slice(1, 2)
    found, null = vectors_of(array)
    assert np.array_equal(found, rows[1:3])
    assert np.shares_memory(found, rows)
    assert not found.flags.writeable
    assert not null.any()


def test_vectors__no_rows_are_no_rows() -> None:
    found, null = vectors_of(pa.array([], pa.list_(pa.float32(), 3)))
    assert (found.shape, null.shape) == ((0, 3), (0,))


@pytest.mark.parametrize("sizes", [[], [0], [3, 0, 4, 1, 10], [100]])
@pytest.mark.parametrize("rows", [1, 4, 50])
def test_even_tables__keep_the_rows(sizes: list[int], rows: int) -> None:
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(int)
    tables = [pa.table({"x": np.arange(a, b)}) for a, b in itertools.pairwise(starts)]
    found = list(even_tables(tables, rows))
    assert [v for table in found for v in table.column("x").to_pylist()] == list(range(sum(sizes)))
    assert all(table.num_rows == rows for table in found[:-1])


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.float32(), pa.list_(pa.string(), 2)])
def test_width__other_types_are_refused(kind: pa.DataType) -> None:
    with pytest.raises(TypeError, match=r"^column 'features' must be a fixed-size list of numbers"):
        width_of(kind, "features")
