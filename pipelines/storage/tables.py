"""Small tables that people wrote and settings name: reviewed labels, true classes and the like.

Whatever is unusual about such a file is said in words: another encoding or separator, ids that
became fractions in a spreadsheet, a column that is called otherwise.
"""

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pipelines.errors import DataError
from pipelines.storage import footers
from pipelines.storage.content import open_binary
from pipelines.storage.files import TABLE_BYTES, open_named
from pipelines.storage.footers import FooterError
from pipelines.storage.forms import is_text
from pipelines.storage.store import Store
from pipelines.storage.wording import did_you_mean, several, shown, why

NAMED = 8
"""So many columns are named in a message."""

MOST_ROWS = 500_000_000
"""A file of a few bytes can claim more rows than memory holds."""

SEPARATORS = (";", "\t", "|")


@dataclass(frozen=True)
class Named:
    """A table, and who asked for it.

    Attributes
    ----------
    path : local path or URI; CSV if it ends in .csv or .csv.gz, else Parquet.
    setting : which setting names it, as in ``decide.reviewed``.
    called : what messages call it; by default its setting.
    """

    path: str
    setting: str
    called: str = ""

    def error(self, expected: str, got: str, remedy: str) -> DataError:
        """Return the error that says what was expected, what came, and what to do."""
        return DataError(
            f"{self.called or self.setting}: {expected}, got {got}; at {self.path}. {remedy}"
        )

    @property
    def is_csv(self) -> bool:
        """Whether it is read as CSV."""
        return self.path.lower().endswith((".csv", ".csv.gz"))

    def version(self, columns: str) -> str:
        """Return what changes when the file is written again; its columns are for the message."""
        try:
            store, name = open_named(self.path, most=TABLE_BYTES)
            return store.modified(name)
        except Exception as err:
            # Every file system has errors of its own for a lack of credentials.
            raise self.unreadable(columns, err) from err

    def unreadable(self, columns: str, err: Exception) -> DataError:
        """Return the error for a file that cannot be read."""
        remedy = f"Correct {self.setting}"
        if "invalid UTF8" in str(err):
            remedy = "Save it as UTF-8 (in a spreadsheet: 'CSV UTF-8'), or as Parquet"
        return self.error(f"a Parquet or CSV file with {columns} was expected", why(err), remedy)


def read_named(named: Named, *, columns: str, text: Sequence[str]) -> pa.Table:
    """Read a table; `columns` are its columns in words, for messages.

    Columns of `text` are read as such from CSV, where an id like 007 is not the number 7.

    Raises
    ------
    DataError
        If it cannot be read, or has too many rows.
    """
    try:
        store, name = open_named(named.path, most=TABLE_BYTES)
        if named.is_csv:
            table = _read_csv(store.open_read(name), named, text)
        else:
            table = _read_parquet(store, name)
    except (OSError, EOFError, ValueError, pa.ArrowException) as err:
        raise named.unreadable(columns, err) from err
    if table.num_rows > MOST_ROWS:
        raise named.unreadable(columns, ValueError(f"{table.num_rows:,} rows"))
    twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
    if twice:
        raise named.error(
            "every column once was expected",
            f"{several(twice, NAMED)} more than once",
            "Remove the copies",
        )
    return table


def _read_parquet(store: Store, name: str) -> pa.Table:
    # A damaged footer can end the process that decodes it: another one looks first.
    with open_binary(store, name) as file:
        footer = footers.footer_of(file, file.seek(0, 2))
    (said,) = footers.decode([footer])
    if isinstance(said, FooterError):
        raise said
    with pq.ParquetFile(store.open_read(name)) as file:
        if file.metadata.num_rows > MOST_ROWS:
            raise ValueError(f"{file.metadata.num_rows:,} rows")
        return file.read()


def _read_csv(source: Any, named: Named, text: Sequence[str]) -> pa.Table:
    options = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(text, pa.string()),
        strings_can_be_null=True,
        null_values=[""],
    )
    parse = pa.csv.ParseOptions(newlines_in_values=True)
    is_packed = named.path.lower().endswith(".gz")
    return pa.csv.read_csv(
        gzip.open(source) if is_packed else source, convert_options=options, parse_options=parse
    )


def require(table: pa.Table, names: Sequence[str], named: Named, columns: str) -> None:
    """Stop where a table lacks a column.

    Raises
    ------
    DataError
        If one is missing; says which it has, and what probably happened.
    """
    has = table.column_names
    missing = [name for name in names if name not in has]
    if not missing:
        return
    hint = did_you_mean(missing[0], has)
    remedy = f"Rename its columns{',' if hint == '.' else hint} or correct {named.setting}"
    separator = next((s for s in SEPARATORS if len(has) == 1 and s in has[0]), None)
    if separator is not None:
        remedy = f"Its columns are separated by {separator!r}: write commas, or Parquet"
    raise named.error(f"{columns} were expected", several(has, NAMED) or "no column", remedy)


def as_text(column: pa.ChunkedArray, name: str, named: Named) -> pa.Array:
    """Return a column of text, or of whole numbers, as text.

    Numbers that a spreadsheet or pandas made fractions of, but that are whole, count as such.

    Raises
    ------
    DataError
        If it holds something else.
    """
    column = column.combine_chunks()
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    try:
        if pa.types.is_boolean(kind):
            return column.cast(pa.int64()).cast(pa.string())
        if pa.types.is_floating(kind):
            column = column.cast(pa.float64()).cast(pa.int64())
        elif not (pa.types.is_integer(kind) or pa.types.is_null(kind) or is_text(kind)):
            raise pa.ArrowInvalid(str(kind))
        return column.cast(pa.string())
    except (pa.ArrowException, ValueError) as err:
        raise named.error(
            f"text or whole numbers were expected in column {name!r}",
            f"{kind}" if str(kind) in str(err) else f"{kind} ({why(err)})",
            "Write it as text",
        ) from err


def check_ids(ids: pa.Array, says: Mapping[str, pa.Array], named: Named) -> None:
    """Stop where a row names no item, or two name the same; what each `says` is for the message.

    Raises
    ------
    DataError
        If so; names the first.
    """
    if ids.null_count:
        row = int(np.flatnonzero(ids.is_null().to_numpy(zero_copy_only=False))[0])
        raise named.error(
            "an item_id in every row that has labels was expected",
            f"{ids.null_count} without one, the first in row {row + 1}",
            "Fill them in, or remove those rows",
        )
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1))
    if not len(twice):
        return
    first = twice[0]["values"].as_py()
    rows = np.flatnonzero(pc.equal(ids, first).to_numpy(zero_copy_only=False))[:2].tolist()
    said = {name: [column[row].as_py() for row in rows] for name, column in says.items()}
    differs = [name for name, values in said.items() if values[0] != values[1]]
    name = differs[0] if differs else next(iter(said))
    what = " and ".join(shown(value) for value in said[name])
    raise named.error(
        "one row per item was expected",
        f"{len(twice)} items with more, such as {shown(first)} with {name} {what}",
        "Choose one for each",
    )
