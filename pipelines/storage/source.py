"""The source: a folder (or prefix) of Parquet shards that is read and never written."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.errors import DataError, LabelopsError, StorageTrouble
from pipelines.storage import address, attached, footers, forms, listing
from pipelines.storage.content import (
    Content,
    VerifiedFile,
    fingerprint_of,
    open_binary,
    read_content,
    tag_of,
)
from pipelines.storage.contract import known_columns
from pipelines.storage.footers import FooterError
from pipelines.storage.listing import Listing, some
from pipelines.storage.store import ObjectStore, Store, open_store

SOFT_LABELS = ("topk_ids", "topk_probs", "tail_prob")
"""Columns that hold predictions in a source, and beliefs in a product."""

SPLIT = "split"
"""Column that names of shards and folders give where the files have none of that name."""

READERS = 8
FIRST_ROWS = 64
"""Rows of a shard that are looked at for what a type does not say: the length of vectors."""


@dataclass(frozen=True, slots=True)
class SourceShard:
    """One file of the source.

    Attributes
    ----------
    name : within the source.
    rows, bytes : its size.
    footer : hash of its footer.
    fingerprint : hash of its content; "" if it was not read.
    tag : what an object store says that changes with the content; "" where contents are hashed.
    constants : columns that its place says: name → value for all its rows.
    """

    name: str
    rows: int
    bytes: int
    footer: str
    fingerprint: str
    tag: str = ""
    constants: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A data set: shards in the order of their names, all of one schema.

    Attributes
    ----------
    uri : where it lies.
    shards : its files.
    schema : their common schema, with the file's own column names and metadata; columns that names
        of folders give come last.
    columns : contract name → name in the files.
    class_names : names from the label's ClassLabel metadata; empty if there are none.
    widths : lengths of vectors that their types do not say, by contract name.
    indicators : columns of labels that are 0/1 vectors over the classes, by contract name.
    names_pictures : whether its pictures are files of their own that shards name.
    notices : what was left out, guessed or merged, for people.
    blocks : hashes of the blocks of every shard; empty unless contents were just read.
    """

    uri: str
    shards: tuple[SourceShard, ...]
    schema: pa.Schema
    columns: Mapping[str, str]
    class_names: tuple[str, ...]
    widths: Mapping[str, int] = field(default_factory=dict)
    indicators: tuple[str, ...] = ()
    names_pictures: bool = False
    notices: tuple[str, ...] = ()
    blocks: tuple[np.ndarray, ...] = field(default=(), repr=False, compare=False)

    @property
    def n_items(self) -> int:
        """Number of items in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def n_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @cached_property
    def types(self) -> dict[str, pa.DataType]:
        """Arrow types in which columns are read, by the contract's names."""
        return {
            ours: forms.POSITIONS
            if ours in self.indicators
            else forms.canonical(ours, self.schema.field(theirs).type, self._width(ours))
            for ours, theirs in self.columns.items()
        }

    def _width(self, ours: str) -> int | None:
        kind = self.schema.field(self.columns[ours]).type
        return forms.fixed_width(kind) or self.widths.get(ours)

    def manifest(self) -> dict[str, Any]:
        """Return what identifies the data: every shard with its fingerprint."""
        return {
            "uri": self.uri,
            "columns": dict(self.columns),
            "widths": dict(self.widths),
            "indicators": list(self.indicators),
            "names_pictures": self.names_pictures,
            "notices": list(self.notices),
            "shards": [
                {key: value for key, value in asdict(s).items() if value not in ("", {})}
                for s in self.shards
            ],
        }

    def as_before(self, before: "Source") -> "Source":
        """Return this source with the fingerprints that equal shards had before.

        For plans, which do not read contents: size and footer stand in for them.
        """
        known = {(s.name, s.rows, s.bytes, s.footer): s.fingerprint for s in before.shards}
        shards = [
            replace(s, fingerprint=known.get((s.name, s.rows, s.bytes, s.footer), s.fingerprint))
            for s in self.shards
        ]
        return replace(self, shards=tuple(shards))


def open_source(
    uri: str,
    *,
    columns: Mapping[str, str] | None = None,
    splits: Sequence[str] = (),
    contents: bool = True,
    tell: Callable[[SourceShard], None] = lambda shard: None,
) -> Source:
    """Read the footers of all shards, check that they are one data set, and fingerprint them.

    Parameters
    ----------
    uri
        Folder or prefix with Parquet files (searched in sub-folders, too), or a single file.
    columns
        Contract name → name in the files, where they differ.
    splits
        Only shards whose names say that they belong to one of these; empty: all.
    contents
        Whether to read all bytes; without, fingerprints are empty.
    tell
        Called with every shard that was fingerprinted.

    Raises
    ------
    DataError
        If there is no shard or item, a shard cannot be read, or schemas differ.
    """
    store, listed = _list_shards(uri)
    names, left = _of_splits(listed.names, splits, uri)
    shards, schemas, blocks = _read(store, names, contents, tell)
    if not any(shard.rows for shard in shards):
        raise DataError(
            f"source: items were expected, got {len(shards)} shard(s) with no row, in {uri}. "
            "Was the export interrupted?"
        )
    schema, merged = _common(schemas, names, uri)
    class_names = _common_class_names(schemas, names, columns or {})
    shards, schema, placed = _with_places(shards, schema)
    forms.check_carried(schema, uri)
    mapped = _map_columns(schema, columns or {}, uri)
    widths = _widths(store, shards, schema, mapped)
    indicators = _indicators(store, shards, schema, mapped)
    pictures = _named_pictures(store, shards, schema, mapped)
    if pictures and contents:
        shards, blocks, seen = _with_pictures(store, shards, blocks, pictures)
        placed += seen
    source = Source(
        uri=store.uri,
        shards=tuple(shards),
        schema=schema,
        columns=mapped,
        class_names=class_names,
        widths=widths,
        indicators=indicators,
        names_pictures=pictures is not None,
        notices=(
            *listed.notices(),
            *left,
            *merged,
            *placed,
            *_said_of(widths, mapped),
            *_said_of_indicators(indicators, mapped),
            *_said_of_beliefs(schema, mapped),
        ),
        blocks=tuple(blocks),
    )
    assert source.types, "types are checked here, where all is refused that cannot be read"
    return source


# -- files -----------------------------------------------------------------------------------------


def _list_shards(uri: str) -> tuple[Store, Listing]:
    uri = address.normalize(uri, "--data")
    try:
        store = open_store(uri, follow=True)
        if _is_file(store):
            folder, leaf = address.split(uri)
            return open_store(folder, follow=True), Listing((leaf,))
        listed = listing.list_shards(store)
    except Exception as err:
        if isinstance(err, DataError):
            raise
        is_plain = isinstance(err, LabelopsError | StorageTrouble)
        said = str(err) if is_plain else f"{type(err).__name__}: {err}"
        raise DataError(
            f"source: a readable folder of Parquet shards was expected at {uri}, got "
            f"{said}. Check the address, the credentials and the network"
        ) from err
    if not listed.names:
        said = "; ".join(listed.notices())
        raise DataError(
            f"source: Parquet shards (*.parquet) were expected in {uri}, found none. Check the "
            f"path; names that begin with '.' or '_' are not read{said and f'. {said}'}"
        )
    return store, listed


def _is_file(store: Store) -> bool:
    """Return whether an address names a file itself, not a folder whose name looks like one."""
    path = store.local_path("")
    if path is not None:
        return path.is_file()
    assert isinstance(store, ObjectStore)
    return store.uri.lower().endswith(listing.ENDINGS) and store.is_file()


def _of_splits(
    names: Sequence[str], splits: Sequence[str], uri: str
) -> tuple[list[str], list[str]]:
    """Return the shards of some splits, and what is to be said of the others."""
    if not splits:
        return list(names), []
    named = {name: listing.split_of(name) for name in names}
    wanted = [name for name in names if named[name] in splits]
    known = sorted({split for split in named.values() if split})
    missing = sorted(set(splits) - set(known))
    if missing:
        raise DataError(
            f"source: data.splits must name splits that names of shards or folders say, got "
            f"{missing}; found {known or 'none'}, in {uri}. Correct data.splits"
        )
    n = len(names) - len(wanted)
    said = f"{n:,} of {len(names):,} shards are left out: data.splits selects {list(splits)}"
    return wanted, [said] if n else []


def _read(
    store: Store, names: Sequence[str], contents: bool, tell: Callable[[SourceShard], None]
) -> tuple[list[SourceShard], list[pa.Schema], list[np.ndarray]]:
    """Return every shard with its schema and the hashes of its blocks."""
    with ThreadPoolExecutor(READERS) as pool:
        raw = []
        for read in pool.map(lambda name: _fingerprinted(store, name, contents), names):
            raw.append(read)
            tell(read[0])
    shards: list[SourceShard] = []
    schemas: list[pa.Schema] = []
    for (shard, footer, _), said in zip(raw, _decoded(store, raw), strict=True):
        shards.append(replace(shard, rows=said.rows, footer=hashlib.sha256(footer).hexdigest()))
        schemas.append(said.schema)
    return shards, schemas, [blocks for _, _, blocks in raw]


_Raw = tuple[SourceShard, bytes, np.ndarray]


def _fingerprinted(store: Store, name: str, contents: bool) -> _Raw:
    """Read a file once: its footer, and the hash of every block."""
    try:
        with open_binary(store, name) as file:
            tag = tag_of(getattr(file, "details", None) or {})
            size = file.seek(0, 2)
            footer = footers.footer_of(file, size)
            content = Content(size, np.empty(0, np.uint64))
            if contents and not tag:
                file.seek(0)
                content = read_content(file)
    except (OSError, FooterError) as err:
        raise _unreadable(store, name, err) from err
    fingerprint = fingerprint_of(size, content.blocks) if contents and not tag else tag
    shard = SourceShard(name, 0, size, "", fingerprint, tag)
    return shard, footer, content.blocks


def _decoded(store: Store, raw: Sequence[_Raw]) -> Iterable[footers.Footer]:
    said = footers.decode([footer for _, footer, _ in raw])
    for (shard, _, _), one in zip(raw, said, strict=False):
        if isinstance(one, FooterError):
            raise _unreadable(store, shard.name, one) from one
        yield one


def _unreadable(store: Store, name: str, err: Exception) -> DataError:
    return DataError(
        f"source: a whole Parquet file was expected, got one that cannot be opened ({err}): "
        f"{name} in {store.uri}. It may be truncated; write it again or take it out of the folder"
    )


# -- one schema ------------------------------------------------------------------------------------


def _common(
    schemas: Sequence[pa.Schema], names: Sequence[str], uri: str
) -> tuple[pa.Schema, list[str]]:
    """Return the schema of all shards, and what is to be said of merging it.

    Shards may differ in what tells nothing of values: whether nulls are allowed, and the type of a
    column that is null throughout.
    """
    _check_names(schemas[0], names[0], uri)
    fields = list(schemas[0])
    for schema, name in zip(schemas[1:], names[1:], strict=True):
        _check_schema(pa.schema(fields), schema, names[0], name)
        for i, other in enumerate(schema):
            kept = other.type if pa.types.is_null(fields[i].type) else fields[i].type
            is_nullable = fields[i].nullable or other.nullable
            fields[i] = fields[i].with_type(kept).with_nullable(is_nullable)
    said = []
    for field_ in fields:
        n = sum(pa.types.is_null(schema.field(field_.name).type) for schema in schemas)
        if n and not pa.types.is_null(field_.type):
            said.append(
                f"column {field_.name!r} has no type in {n:,} of {len(schemas):,} shards, where it "
                f"is null throughout; it is read as {field_.type}"
            )
    return pa.schema(fields, metadata=schemas[0].metadata), said


def _check_names(schema: pa.Schema, name: str, uri: str) -> None:
    doubled = sorted(one for one, n in Counter(schema.names).items() if n > 1)
    if doubled:
        raise DataError(
            f"source: every column must have a name of its own, got {doubled} more than once, in "
            f"{name} in {uri}. Rename or drop the doubled columns"
        )


def _check_schema(schema: pa.Schema, other: pa.Schema, first: str, name: str) -> None:
    mine = {field.name: field.type for field in schema}
    theirs = {field.name: field.type for field in other}
    changes = [
        f"column {column!r} is {theirs.get(column, 'absent')} instead of "
        f"{mine.get(column, 'absent')}"
        for column in sorted(mine.keys() | theirs.keys())
        if not _is_alike(mine.get(column), theirs.get(column))
    ]
    if not changes and other.names != schema.names:
        changes = [f"the order of the columns is {other.names} instead of {schema.names}"]
    if not changes:
        return
    raise DataError(
        f"source: all shards must have the schema of the first ({first}); in {name} "
        f"{'; '.join(changes)}. Write that shard again with the common schema"
    )


def _is_alike(mine: pa.DataType | None, other: pa.DataType | None) -> bool:
    if mine is None or other is None:
        return False
    return bool(mine == other or pa.types.is_null(mine) or pa.types.is_null(other))


def _map_columns(schema: pa.Schema, mapping: Mapping[str, str], uri: str) -> dict[str, str]:
    for ours, theirs in mapping.items():
        if theirs not in schema.names:
            raise DataError(
                f"source: column {theirs!r} was expected (the recipe reads it as {ours!r}), got "
                f"{schema.names}, in {uri}. Correct data.columns in the recipe"
            )
    columns = {name: name for name in known_columns() if name in schema.names}
    if _is_product(schema):
        columns = {name: name for name in columns if name not in SOFT_LABELS}
    taken = set(mapping.values())
    columns = {ours: theirs for ours, theirs in columns.items() if theirs not in taken}
    return columns | dict(mapping)


def _is_product(schema: pa.Schema) -> bool:
    """Return whether columns named like predictions are the soft labels of an earlier product.

    These know the given labels, and nothing can be audited with them.
    """
    decided = {"label_clean", "decision", "weight"}
    return b"labelops.soft_labels" in (schema.metadata or {}) or decided <= set(schema.names)


def _said_of_beliefs(schema: pa.Schema, columns: Mapping[str, str]) -> list[str]:
    if not _is_product(schema) or "topk_probs" in columns or "topk_probs" not in schema.names:
        return []
    return [
        "columns topk_ids, topk_probs and tail_prob are what an earlier run believed, not "
        "predictions, and are not read; map them in data.columns if they are"
    ]


# -- what places say -------------------------------------------------------------------------------


def _with_places(
    shards: Sequence[SourceShard], schema: pa.Schema
) -> tuple[list[SourceShard], pa.Schema, list[str]]:
    """Add the columns that names of folders and files give, and say so."""
    by_shard = [listing.partitions(shard.name) for shard in shards]
    keys = list(dict.fromkeys(key for named in by_shard for key in named))
    said: list[str] = []
    constants: list[dict[str, Any]] = [{} for _ in shards]
    for key in keys:
        if key in schema.names:
            continue
        values = [named.get(key) for named in by_shard]
        kind = forms.partition_type(values)
        is_whole = pa.types.is_integer(kind)
        for mine, value in zip(constants, values, strict=True):
            mine[key] = int(value) if is_whole and value is not None else value
        schema = schema.append(pa.field(key, kind))
        said.append(f"column {key!r} ({kind}) is read from names of folders, {key}=…")
    splits = [listing.split_of(shard.name) for shard in shards]
    if any(splits) and SPLIT not in schema.names:
        for mine, split in zip(constants, splits, strict=True):
            mine[SPLIT] = split
        schema = schema.append(pa.field(SPLIT, pa.string()))
        said += _merged_splits(shards, splits)
    placed = [replace(s, constants=mine) for s, mine in zip(shards, constants, strict=True)]
    return placed, schema, said


def _merged_splits(shards: Sequence[SourceShard], splits: Sequence[str | None]) -> list[str]:
    n_items: Counter[str] = Counter()
    for shard, split in zip(shards, splits, strict=True):
        n_items[split or "no split"] += shard.rows
    if len(n_items) < 2:
        return []
    listed = ", ".join(f"{split} {n:,}" for split, n in sorted(n_items.items()))
    return [
        f"items of {len(n_items)} splits, by names of shards, are processed together: {listed}; "
        "column 'split' of the dataset names them, data.splits selects some"
    ]


# -- what types do not say -------------------------------------------------------------------------


def _widths(
    store: Store, shards: Sequence[SourceShard], schema: pa.Schema, columns: Mapping[str, str]
) -> dict[str, int]:
    """Return the lengths of vectors, as the first rows have them, where types do not."""
    open_ = {
        ours: columns[ours]
        for ours in forms.VECTORS
        if ours in columns and forms.fixed_width(schema.field(columns[ours]).type) is None
    }
    widths: dict[str, int] = {}
    for ours, theirs in open_.items():
        batches = (b for shard in shards for b in _first_batches(store, shard.name, theirs))
        if width := next(filter(None, (forms.usual_width(b.column(0)) for b in batches)), None):
            widths[ours] = width
    return widths


def _indicators(
    store: Store, shards: Sequence[SourceShard], schema: pa.Schema, columns: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the columns of labels that are 0/1 vectors, as far as their first rows tell."""
    indicators = []
    for ours in forms.INDICATORS:
        kind = schema.field(columns[ours]).type if ours in columns else pa.null()
        if not forms.is_listed(kind) or not forms.is_number(forms.element(kind)):
            continue
        batches = (b for shard in shards for b in _first_batches(store, shard.name, columns[ours]))
        told = next((b.column(0) for b in batches if b.column(0).null_count < len(b)), None)
        if told is not None and forms.is_indicator(told):
            indicators.append(ours)
    return tuple(indicators)


def _said_of_indicators(indicators: Sequence[str], columns: Mapping[str, str]) -> list[str]:
    return [
        f"column {columns[ours]!r} holds 0/1 indicator vectors: a 1 at position k gives class k; "
        "rows with other values cannot be used"
        for ours in indicators
    ]


def _first_batches(store: Store, name: str, column: str) -> Iterator[pa.RecordBatch]:
    """Yield one column of a shard, some rows at a time."""
    try:
        with (
            open_binary(store, name) as raw,
            pq.ParquetFile(pa.PythonFile(raw, "r"), buffer_size=1 << 16) as file,
        ):
            yield from file.iter_batches(FIRST_ROWS, columns=[column], use_threads=False)
    except (OSError, pa.ArrowException) as err:
        raise _unreadable(store, name, err) from err


def _said_of(widths: Mapping[str, int], columns: Mapping[str, str]) -> list[str]:
    return [
        f"column {columns[ours]!r} has lists of no fixed length; vectors of {width:,} numbers are "
        "expected, as the first rows have, and rows with others cannot be used"
        for ours, width in widths.items()
    ]


# -- pictures in files of their own ----------------------------------------------------------------


def _named_pictures(
    store: Store, shards: Sequence[SourceShard], schema: pa.Schema, columns: Mapping[str, str]
) -> str | None:
    """Return the column whose pictures are named by paths, or None.

    Structs may hold either; the first pictures of the data tell.
    """
    column = columns.get("image")
    if column is None:
        return None
    kind = forms.canonical("image", schema.field(column).type, None)
    if kind != forms.PICTURES:
        return None
    for shard in shards:
        for batch in _first_batches(store, shard.name, column):
            pictures = forms.convert(batch.column(0), kind, "image").drop_null()
            if len(pictures):
                has_bytes = pictures.field("bytes").is_valid()
                return None if has_bytes.true_count else column
    return None


def _with_pictures(
    store: Store, shards: Sequence[SourceShard], blocks: Sequence[np.ndarray], column: str
) -> tuple[list[SourceShard], list[np.ndarray], list[str]]:
    """Add the hashes of pictures to those of the shards that name them."""

    def seen(at: int) -> np.ndarray:
        shard = shards[at]
        content = Content(shard.bytes, blocks[at])
        raw = open_binary(store, shard.name)
        file = raw if shard.tag else VerifiedFile(raw, content)
        parts = [np.empty(0, np.uint64)]
        with pq.ParquetFile(pa.PythonFile(file, "r"), pre_buffer=False) as parquet:
            for batch in parquet.iter_batches(1024, columns=[column], use_threads=False):
                pictures = forms.convert(batch.column(0), forms.PICTURES, "image")
                parts.append(attached.hash_pictures(store, shard.name, pictures))
        return np.concatenate(parts)

    try:
        with ThreadPoolExecutor(READERS) as pool:
            hashes = list(pool.map(seen, range(len(shards))))
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"source: pictures that shards name by path were expected to be readable, got {err}; "
            f"in {store.uri}. Grant the right to read them"
        ) from err
    with_pictures = [np.concatenate(pair) for pair in zip(blocks, hashes, strict=True)]
    fingerprinted = []
    for shard, all_ in zip(shards, with_pictures, strict=True):
        size = 0 if shard.tag else shard.bytes
        fingerprinted.append(replace(shard, fingerprint=fingerprint_of(size, all_)))
    n_found = sum(int((part != attached.MISSING).sum()) for part in hashes)
    n = sum(shard.rows for shard in shards)
    said = f"{n_found:,} of {n:,} pictures are read from files that column {column!r} names"
    return fingerprinted, with_pictures, [said]


# -- class names -----------------------------------------------------------------------------------


def _common_class_names(
    schemas: Sequence[pa.Schema], names: Sequence[str], columns: Mapping[str, str]
) -> tuple[str, ...]:
    """Return the class names in the metadata of the shards, which must be the same in all."""
    by_class_names: dict[tuple[str, ...], list[str]] = {}
    packed: dict[bytes | None, tuple[str, ...]] = {}
    for schema, name in zip(schemas, names, strict=True):
        raw = (schema.metadata or {}).get(b"huggingface")
        if raw not in packed:
            packed[raw] = _class_names(schema, columns)
        if packed[raw]:
            by_class_names.setdefault(packed[raw], []).append(name)
    if len(by_class_names) > 1:
        (one, first), (two, second) = list(by_class_names.items())[:2]
        at = next((i for i, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), len(one))
        raise DataError(
            "source: all shards must have the same class names in the same order, got "
            f"{len(one)} ({some(one[at:])} from class {at} on) in {first[0]} and {len(two)} "
            f"({some(two[at:])}) in {second[0]}. Write the shards again with one ClassLabel"
        )
    return next(iter(by_class_names), ())


def _class_names(schema: pa.Schema, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return class names from Hugging Face `ClassLabel` metadata of a column with labels."""
    try:
        features: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"][
            "features"
        ]
    except (KeyError, TypeError, ValueError):
        return ()
    if not isinstance(features, dict):
        return ()
    listed = (_names_of(features.get(columns.get(name, name))) for name in ("label", "labels"))
    return next((names for names in listed if names), ())


def _names_of(feature: Any) -> tuple[str, ...]:
    """Return the class names in the description of a column, of labels or of lists of them."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names_of(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _names_of(feature.get("feature"))
    names = feature.get("names") if feature.get("_type") == "ClassLabel" else None
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
