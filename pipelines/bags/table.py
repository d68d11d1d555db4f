"""The table of bags: one row a bag, with its size and how many of its items have each class.

Columns `bag_id`, `n`, and `positives` (two classes, the second of them) or `counts` (a list, one
number a class), or the same divided by `n` as `share` or `shares`; as Parquet, or CSV, where a list
is written like ``3;0;5``. Everything that can be wrong with a table
by itself is found here; whether it is that of the data, in `pipelines.bags.census`.
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
    ids = _ids(table["bag_id"], path)
    order = np.argsort(ids, kind="stable")
    ids, table = ids[order], table.take(pa.array(order))
    check_once(ids, path)
    says = _Says(ids, path)
    sizes = _sizes(table["n"], says)
    by_class, read = (
        name in ("counts", "shares"),
        _lists if name in ("counts", "shares") else _pairs,
    )
    said = read(table[name], name, sizes, says)
    rounded = _rounded(said, sizes, says, by_class=by_class)
    return BagTable(ids, sizes, rounded.counts, rounded.residual.max(axis=1, initial=0.0))


def _count_column(table: pa.Table, named: Named) -> str:
    """Return in which column totals are; stop when one is missing, or there are several."""
    path = named.path
    require(table, ("bag_id", "n"), named, WORDS)
    has = [name for name in TOTALS if name in table.column_names]
    if not has:
        require(table, TOTALS[:1], named, WORDS)
    if len(has) > 1:
        raise DataError(
            f"bag table: one of the columns {', '.join(TOTALS)} was expected, got "
            f"{' and '.join(has)}; at {path}. Remove all but one"
        )
    if table.num_rows == 0:
        raise DataError(
            f"bag table: one row a bag was expected, got none; at {path}. Correct {SETTING}"
        )
    return has[0]


def _ids(column: pa.ChunkedArray, path: str) -> np.ndarray:
    column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.null_count:
        raise DataError(
            f"bag table: every row must name its bag, got {column.null_count} null bag_id(s); at "
            f"{path}. Remove those rows: items without a bag need none"
        )
    return ids_of(column, where=f"bag table {path}")


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
            f"bag table: one row a bag was expected, got more for {len(twice)} bag(s): "
            f"{some(twice)}; at {path}. Add up or remove the rows that are too many"
        )


def some(ids: np.ndarray, n_all: int | None = None) -> str:
    """Return the first few ids for a message."""
    more = ", …" if (len(ids) if n_all is None else n_all) > NAMED else ""
    return ", ".join(repr(value) for value in ids[:NAMED].tolist()) + more


class _Says:
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


def _numbers(column: pa.ChunkedArray, name: str, says: _Says) -> np.ndarray:
    try:
        values = column.combine_chunks().cast(pa.float64())
    except pa.ArrowException as err:
        raise DataError(
            f"bag table: column {name!r} must hold numbers, got {column.type}: {err}; at "
            f"{says.path}. Correct the table"
        ) from err
    found = np.asarray(values.fill_null(np.nan).to_numpy(zero_copy_only=False), np.float64)
    says.refuse(~np.isfinite(found), f"{name} must be a finite number", lambda b: str(found[b]))
    return found


def _sizes(column: pa.ChunkedArray, says: _Says) -> np.ndarray:
    n = _numbers(column, "n", says)
    wrong = np.asarray((n < 1) | (n != np.rint(n)) | (n > MOST))
    says.refuse(wrong, f"n must be a whole number from 1 to {MOST}", lambda b: f"n = {n[b]:g}")
    return n.astype(np.int64)


def _pairs(column: pa.ChunkedArray, name: str, sizes: np.ndarray, says: _Says) -> np.ndarray:
    k = _numbers(column, name, says)
    says.refuse(np.asarray(k < 0), f"{name} must not be negative", lambda b: f"{name} = {k[b]:g}")
    if name == "share":
        _refuse_large(k, name, says)
        k = k * sizes
    # Shares taken for counts would be rounded to 0 and 1, and nothing would look wrong.
    elif (k <= 1).all() and (k != np.rint(k)).any() and (sizes > 1).any():
        like_shares = np.asarray(k != np.rint(k))
        rule = "positives must be numbers of items"
        says.refuse(
            like_shares, rule, lambda b: f"{k[b]:g}, like a share: name the column share if it is,"
        )
    says.refuse(
        np.asarray(k > sizes),
        "positives must not be more than the items of the bag",
        lambda b: f"positives = {k[b]:g} of n = {sizes[b]}",
    )
    return np.stack([sizes - k, k], axis=1)


def _lists(column: pa.ChunkedArray, name: str, sizes: np.ndarray, says: _Says) -> np.ndarray:
    values = column.combine_chunks()
    if pa.types.is_string(values.type):
        values = pc.split_pattern(values, ";")
    if not (pa.types.is_list(values.type) or pa.types.is_fixed_size_list(values.type)):
        one = {"counts": "positives", "shares": "share"}[name]
        raise DataError(
            f"bag table: column {name!r} must hold lists with one number a class, got "
            f"{values.type}; at {says.path}. For two classes, {one!r} will do"
        )
    length = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    n_classes = int(length[0])
    wrong = np.asarray((length != n_classes) | (length < 2))
    rule = f"{name} must have one number for each of the {max(n_classes, 2)} classes"
    says.refuse(wrong, rule, lambda b: f"{length[b]} numbers")
    spread = _Spread(says, n_classes)
    flat = _numbers(pa.chunked_array([values.flatten()]), name, spread)
    said = flat.reshape(-1, n_classes)
    negative = np.any(said < 0, axis=1)
    says.refuse(negative, f"{name} must not be negative", lambda b: f"{said[b].tolist()}")
    if name == "shares":
        _refuse_large(flat, name, spread)
        off = np.abs(said.sum(axis=1) - 1) > SHARES_OFF
        rule = "shares of a bag must add up to 1"
        says.refuse(np.asarray(off), rule, lambda b: f"{said[b].tolist()}")
        said = said / said.sum(axis=1, keepdims=True) * sizes[:, None]
    return said


def _refuse_large(share: np.ndarray, name: str, says: _Says) -> None:
    says.refuse(np.asarray(share > 1), f"{name} must be at most 1", lambda b: f"{share[b]:g}")


class _Spread(_Says):
    """The same for values of which each bag has several."""

    def __init__(self, says: _Says, each: int) -> None:
        super().__init__(np.repeat(says.ids, each), says.path)


def _rounded(said: np.ndarray, sizes: np.ndarray, says: _Says, *, by_class: bool) -> Rounded:
    if not by_class:
        k = np.rint(said[:, 1])
        residual = np.abs(said[:, 1] - k)
        counts = np.stack([sizes - k, k], axis=1).astype(np.int64)
        return Rounded(counts, np.stack([residual, residual], axis=1))
    total = said.sum(axis=1)
    says.refuse(
        np.asarray(np.abs(total - sizes) >= 0.5),
        "counts of a bag must add up to its n",
        lambda b: f"counts that add up to {total[b]:g} of n = {sizes[b]}",
    )
    return round_class_counts(said, sizes)
