"""The table of bags: one row a bag, with its size and how many of its items have each class.

Columns `bag_id`, `n`, and `positives` (two classes, the second of them) or `counts` (a list, one
number a class), or the same divided by `n` as `share` or `shares`; as Parquet, or CSV, where a list
is written like ``3;0;5``. What can be wrong with a table by itself is found here; whether it is
that of the data, in `pipelines.bags.census`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.proportions.counts import Rounded, round_class_counts
from pipelines.errors import DataError
from pipelines.storage.tables import Named, read_named, require
from pipelines.storage.wording import shown

MOST = 10**15
"""More items than this no bag has; of larger numbers doubles do not hold every one."""

SHARES_OFF = 0.02
"""Shares that people rounded add up to 1 up to this."""

NAMED = 3
"""So many offenders are named in a message."""

SETTING = "proportions.bags"

WORDS = "columns bag_id, n and positives or counts"

TOTALS = ("positives", "counts", "share", "shares")
"""Columns that totals may be in."""


@dataclass(frozen=True)
class BagTable:
    """Checked totals of bags, in the order of their ids.

    Attributes
    ----------
    ids : of the bags, int64 or str, ascending, shape (B,).
    sizes : number of items, int64, shape (B,).
    counts : of items per class, int64, rows sum to the size, shape (B, K).
    residual : most by which a count was rounded, float64, shape (B,).
    """

    ids: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray
    residual: np.ndarray

    @property
    def n_classes(self) -> int:
        """K."""
        return int(self.counts.shape[1])


def open_table(path: str) -> BagTable:
    """Read and check a table of bags; the last ones read are remembered.

    Parameters
    ----------
    path
        Local path or URI of a file; CSV if it ends in .csv or .csv.gz.

    Raises
    ------
    DataError
        If it cannot be read, lacks a column, or says something that no bag can be; names the bag.
    """
    named = Named(path, SETTING, "bag table")
    return _open(named, named.version(WORDS))


@lru_cache(maxsize=4)
def _open(named: Named, version: str) -> BagTable:
    path = named.path
    # Ids as text: 007 is not the number 7, unless the data has numbers.
    table = read_named(named, columns=WORDS, text=("bag_id", "counts", "shares"))
    name = _count_column(table, named)
    column = table["bag_id"].combine_chunks()
    if column.null_count:
        raise DataError(
            f"bag table: every row must name its bag, got {column.null_count} null bag_id(s); at "
            f"{path}. Remove those rows: items without a bag need none"
        )
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    ids = ids_of(column, where=f"bag table {path}")
    order = np.argsort(ids, kind="stable")
    ids, table = ids[order], table.take(pa.array(order))
    check_once(ids, path)
    check = _BagCheck(ids, path)
    sizes = _sizes(table["n"], check)
    read = _lists if name in ("counts", "shares") else _pairs
    rounded = read(table[name], name, sizes, check)
    return BagTable(ids, sizes, rounded.counts, rounded.residual.max(axis=1, initial=0.0))


def _count_column(table: pa.Table, named: Named) -> str:
    """Return in which column totals are; stop when one is missing, or there are several."""
    path = named.path
    require(table, ("bag_id", "n"), named, WORDS)
    present = [name for name in TOTALS if name in table.column_names]
    if not present:
        require(table, TOTALS[:1], named, WORDS)
    if len(present) > 1:
        raise DataError(
            f"bag table: one of the columns {', '.join(TOTALS)} was expected, got "
            f"{' and '.join(present)}; at {path}. Remove all but one"
        )
    if table.num_rows == 0:
        raise DataError(
            f"bag table: one row per bag was expected, got none; at {path}. Correct {SETTING}"
        )
    return present[0]


def ids_of(column: pa.Array, *, where: str) -> np.ndarray:
    """Return ids of bags as int64 or str; nulls must have been taken out.

    Raises
    ------
    DataError
        If an id is neither: a list of bags, say.
    """
    kind = column.type
    if pa.types.is_integer(kind):
        try:
            return np.asarray(column.cast(pa.int64()).to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid as err:
            raise DataError(
                f"bags: numbers in column 'bag_id' must fit into 64 bits with a sign, got {kind}: "
                f"{err}; in {where}. Write them as text"
            ) from err
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        ids = column.to_pylist()
        odd = next((name for name in ids if name.endswith("\0")), None)
        if odd is not None:  # an array of text would drop it, and merge two bags
            raise DataError(
                f"bags: ids that do not end in a NUL character were expected in column 'bag_id', "
                f"got {shown(odd)}; in {where}. Write them otherwise"
            )
        return np.array(ids, dtype=np.str_)
    remedy = "An item is in one bag: of several, choose one"
    if not pa.types.is_nested(kind):
        remedy = "Write whole numbers or text; pandas makes doubles of numbers with gaps"
    raise DataError(
        f"bags: column 'bag_id' must be string or integer, got {kind}, in {where}. {remedy}"
    )


def same_ids(ids: np.ndarray, kind: pa.DataType, *, where: str) -> np.ndarray:
    """Return the ids of a table as the data has them, ascending no more.

    Raises
    ------
    DataError
        If the data has numbers and the table something else.
    """
    if not pa.types.is_integer(kind):
        return ids if ids.dtype.kind == "U" else ids.astype(np.str_)
    if ids.dtype.kind != "U":
        return ids
    off = [text for text in ids.tolist() if not re.fullmatch(r"-?[0-9]{1,18}", text)]
    if off:
        raise DataError(
            f"bag table: bag_id must be {kind} as in the data, got text that is no number: "
            f"{some(np.array(off))}; at {where}. Write the same ids in both"
        )
    return ids.astype(np.int64)


def check_once(ids: np.ndarray, path: str) -> None:
    """Stop when ids, ascending, are not all different."""
    twice = np.unique(ids[1:][ids[1:] == ids[:-1]])
    if len(twice):
        raise DataError(
            f"bag table: one row per bag was expected, got more for {len(twice)} bag(s): "
            f"{some(twice)}; at {path}. Add up or remove the rows that are too many"
        )


def some(ids: np.ndarray) -> str:
    """Return the first few ids for a message."""
    more = ", …" if len(ids) > NAMED else ""
    return ", ".join(repr(value) for value in ids[:NAMED].tolist()) + more


class _BagCheck:
    """Refuses bags by a rule, naming the first of them and what it says."""

    def __init__(self, ids: np.ndarray, path: str) -> None:
        self.ids, self.path = ids, path

    def refuse(self, wrong: np.ndarray, rule: str, what: Callable[[int], str]) -> None:
        if wrong.any():
            b = int(np.flatnonzero(wrong)[0])
            more = f" (and {int(wrong.sum()) - 1} more bags)" if wrong.sum() > 1 else ""
            raise DataError(
                f"bag table: {rule}, got {what(b)} for bag {self.ids[b].item()!r}{more}; at "
                f"{self.path}. Correct the table"
            )


def _numbers(column: pa.ChunkedArray, name: str, check: _BagCheck) -> np.ndarray:
    try:
        values = column.combine_chunks().cast(pa.float64())
    except pa.ArrowException as err:
        raise DataError(
            f"bag table: column {name!r} must hold numbers, got {column.type}: {err}; at "
            f"{check.path}. Correct the table"
        ) from err
    floats = np.asarray(values.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64)
    check.refuse(~np.isfinite(floats), f"{name} must be a finite number", lambda b: str(floats[b]))
    return floats


def _sizes(column: pa.ChunkedArray, check: _BagCheck) -> np.ndarray:
    n = _numbers(column, "n", check)
    wrong = np.asarray((n < 1) | (n != np.rint(n)) | (n > MOST))
    check.refuse(wrong, f"n must be a whole number from 1 to {MOST}", lambda b: f"n = {n[b]:g}")
    return n.astype(np.int64)


def _pairs(column: pa.ChunkedArray, name: str, sizes: np.ndarray, check: _BagCheck) -> Rounded:
    k = _numbers(column, name, check)
    check.refuse(np.asarray(k < 0), f"{name} must not be negative", lambda b: f"{name} = {k[b]:g}")
    if name == "share":
        _refuse_large(k, name, check)
        k = k * sizes
    # Shares taken for counts would be rounded to 0 and 1, and nothing would look wrong.
    elif (k <= 1).all() and (k != np.rint(k)).any() and (sizes > 1).any():
        like_shares = np.asarray(k != np.rint(k))
        rule = "positives must be numbers of items"
        check.refuse(
            like_shares, rule, lambda b: f"{k[b]:g}, like a share: name the column share if it is,"
        )
    check.refuse(
        np.asarray(k > sizes),
        "positives must not be more than the items of the bag",
        lambda b: f"positives = {k[b]:g} of n = {sizes[b]}",
    )
    whole = np.rint(k)
    residual = np.abs(k - whole)[:, None]
    return Rounded(np.stack([sizes - whole, whole], axis=1).astype(np.int64), residual)


def _lists(column: pa.ChunkedArray, name: str, sizes: np.ndarray, check: _BagCheck) -> Rounded:
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        values = pc.split_pattern(values, ";")
    if not (pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type)):
        scalar = {"counts": "positives", "shares": "share"}[name]
        raise DataError(
            f"bag table: column {name!r} must hold lists with one number per class, got "
            f"{values.type}; at {check.path}. For two classes, {scalar!r} will do"
        )
    length = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    n_classes = int(length[0])
    wrong = np.asarray((length != n_classes) | (length < 2))
    rule = f"{name} must have one number for each of the {max(n_classes, 2)} classes"
    check.refuse(wrong, rule, lambda b: f"{length[b]} numbers")
    of_values = _BagCheck(np.repeat(check.ids, n_classes), check.path)
    flat = _numbers(pa.chunked_array([values.flatten()]), name, of_values)
    totals = flat.reshape(-1, n_classes)
    negative = np.any(totals < 0, axis=1)
    check.refuse(negative, f"{name} must not be negative", lambda b: f"{totals[b].tolist()}")
    if name == "shares":
        _refuse_large(flat, name, of_values)
        off = np.abs(totals.sum(axis=1) - 1) > SHARES_OFF
        rule = "shares of a bag must add up to 1"
        check.refuse(np.asarray(off), rule, lambda b: f"{totals[b].tolist()}")
        totals = totals / totals.sum(axis=1, keepdims=True) * sizes[:, None]
    total = totals.sum(axis=1)
    check.refuse(
        np.asarray(np.abs(total - sizes) >= 0.5),
        "counts of a bag must add up to its n",
        lambda b: f"counts that add up to {total[b]:g} of n = {sizes[b]}",
    )
    return round_class_counts(totals, sizes)


def _refuse_large(share: np.ndarray, name: str, check: _BagCheck) -> None:
    check.refuse(np.asarray(share > 1), f"{name} must be at most 1", lambda b: f"{share[b]:g}")
