"""The source: a folder (or prefix) of Parquet shards that is read and never written."""

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.address import normalize
from pipelines.errors import DataError, LabelopsError, StorageTrouble
from pipelines.store import Store, open_store

KNOWN_COLUMNS = (
    "item_id",
    "image",
    "features",
    "text",
    "label",
    "labels",
    "labels_negative",
    "candidates",
    "positive",
    "bag_id",
    "annotations",
    "score_mean",
    "score_std",
    "pred_probs",
)
"""The data contract's columns; others are carried through to the product and not read."""


@dataclass(frozen=True, slots=True)
class SourceShard:
    """One file of the source, as its footer describes it."""

    name: str
    rows: int
    bytes: int
    fingerprint: str


@dataclass(frozen=True)
class Source:
    """A data set: shards in the order of their names, all of one schema.

    Attributes
    ----------
    uri : where it lies.
    shards : its files.
    schema : their common schema, with the file's own column names and metadata.
    columns : contract name → name in the files.
    class_names : names from the label's ClassLabel metadata; empty if there are none.
    """

    uri: str
    shards: tuple[SourceShard, ...]
    schema: pa.Schema
    columns: Mapping[str, str]
    class_names: tuple[str, ...]

    @property
    def n_items(self) -> int:
        """Number of items in all shards."""
        return sum(shard.rows for shard in self.shards)

    @property
    def n_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def types(self) -> dict[str, pa.DataType]:
        """Arrow types by the contract's names."""
        return {ours: self.schema.field(theirs).type for ours, theirs in self.columns.items()}

    def manifest(self) -> dict[str, Any]:
        """Return what identifies the data: every shard with its fingerprint."""
        return {
            "uri": self.uri,
            "columns": dict(self.columns),
            "shards": [
                {"name": s.name, "rows": s.rows, "bytes": s.bytes, "fingerprint": s.fingerprint}
                for s in self.shards
            ],
        }


def open_source(uri: str, *, columns: Mapping[str, str] | None = None) -> Source:
    """Read the footers of all shards and check that they are one data set.

    Parameters
    ----------
    uri
        Folder or prefix with ``*.parquet`` (searched in sub-folders, too), or a single file.
    columns
        Contract name → name in the files, where they differ.

    Raises
    ------
    DataError
        If there is no shard or item, a shard cannot be read, or schemas differ.
    """
    store, names = _list_shards(uri)
    with ThreadPoolExecutor(8) as pool:
        footers = list(pool.map(lambda name: _footer(store, name), names))
    shards = tuple(shard for shard, _ in footers)
    schema = footers[0][1]
    for shard, other in footers[1:]:
        _check_schema(schema, other, names[0], shard.name)
    if not any(shard.rows for shard in shards):
        raise DataError(
            f"source: items were expected, got {len(shards)} shard(s) with no row, in {uri}. "
            "Was the export interrupted?"
        )
    return Source(
        uri=store.uri,
        shards=shards,
        schema=schema,
        columns=_map_columns(schema, columns or {}, uri),
        class_names=_class_names(schema, columns or {}),
    )


def _list_shards(uri: str) -> tuple[Store, list[str]]:
    uri = normalize(uri, "--data")
    folder, leaf = uri, ""
    if uri.endswith(".parquet"):
        folder, _, leaf = uri.rpartition("/")
    try:
        store = open_store(folder or ".")
        names = [leaf] if leaf and store.exists(leaf) else _walk(store)
    except Exception as err:
        if isinstance(err, DataError):
            raise
        is_plain = isinstance(err, LabelopsError | StorageTrouble)
        said = str(err) if is_plain else f"{type(err).__name__}: {err}"
        raise DataError(
            f"source: a readable folder of Parquet shards was expected at {uri}, got "
            f"{said}. Check the address, the credentials and the network"
        ) from err
    if not names or (leaf and names != [leaf]):
        raise DataError(
            f"source: Parquet shards (*.parquet) were expected in {uri}, found none. "
            "Check the path; names that begin with '.' or '_' are not read"
        )
    return store, names


def _walk(store: Store) -> list[str]:
    from pipelines.store import LocalStore, ObjectStore

    if isinstance(store, LocalStore):
        if not store.root.is_dir():
            raise DataError(
                f"source: a folder of Parquet shards was expected at {store.root}, there is "
                "none. Check the path"
            )
        found = [path.relative_to(store.root).as_posix() for path in store.root.rglob("*.parquet")]
    else:
        assert isinstance(store, ObjectStore)
        found = [name for name in store.walk() if name.endswith(".parquet")]
    hidden = (".", "_")
    return sorted(
        name for name in found if not any(part.startswith(hidden) for part in name.split("/"))
    )


def _footer(store: Store, name: str) -> tuple[SourceShard, pa.Schema]:
    where = f"{name} in {store.uri}"
    try:
        size = store.size(name)
        with pq.ParquetFile(store.open_read(name, size)) as file:
            metadata, schema = file.metadata, file.schema_arrow
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"source: a whole Parquet file was expected, got one that cannot be opened ({err}): "
            f"{where}. It may be truncated; write it again or take it out of the folder"
        ) from err
    # Row groups and column sizes, offsets and statistics, plus the file's size and time: what
    # changes when the content does, without reading the content.
    described = [size, store.modified(name), metadata.num_rows, str(schema)]
    for g in range(metadata.num_row_groups):
        group = metadata.row_group(g)
        described.append(
            [
                (c.path_in_schema, c.data_page_offset, c.total_compressed_size, _statistics(c))
                for c in map(group.column, range(group.num_columns))
            ]
        )
    fingerprint = hashlib.sha256(json.dumps(described, default=str).encode()).hexdigest()
    return SourceShard(name, metadata.num_rows, size, fingerprint), schema


def _statistics(chunk: pq.ColumnChunkMetaData) -> dict[str, Any]:
    found = chunk.statistics
    return {} if found is None else dict(found.to_dict())


def _check_schema(schema: pa.Schema, other: pa.Schema, first: str, name: str) -> None:
    if other.equals(schema):
        return
    mine = {field.name: field.type for field in schema}
    theirs = {field.name: field.type for field in other}
    changes = [
        f"column {column!r} is {theirs.get(column, 'absent')} instead of "
        f"{mine.get(column, 'absent')}"
        for column in sorted(mine.keys() | theirs.keys())
        if mine.get(column) != theirs.get(column)
    ] or [f"the order of the columns is {other.names} instead of {schema.names}"]
    raise DataError(
        f"source: all shards must have the schema of the first ({first}); in {name} "
        f"{'; '.join(changes)}. Write that shard again with the common schema"
    )


def _map_columns(schema: pa.Schema, mapping: Mapping[str, str], uri: str) -> dict[str, str]:
    for ours, theirs in mapping.items():
        if theirs not in schema.names:
            raise DataError(
                f"source: column {theirs!r} was expected (the recipe reads it as {ours!r}), got "
                f"{schema.names}, in {uri}. Correct data.columns in the recipe"
            )
    found = {name: name for name in KNOWN_COLUMNS if name in schema.names}
    taken = set(mapping.values())
    found = {ours: theirs for ours, theirs in found.items() if theirs not in taken}
    return found | dict(mapping)


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
    found = (_names_of(features.get(columns.get(name, name))) for name in ("label", "labels"))
    return next((names for names in found if names), ())


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
