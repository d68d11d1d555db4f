"""Where everything of a run lies: which finished step wrote which files for which shard."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np
import pyarrow as pa

from pipelines.core.commit import Record, digest_name
from pipelines.storage.content import fingerprint_of, n_hashes
from pipelines.storage.forms import working
from pipelines.storage.frame import ColumnRef, FileRef, Foreign
from pipelines.storage.source import Source

SOURCE = "/source"
"""Stands for the source's own files where folders of the run are named."""


@dataclass(frozen=True)
class Layer:
    """Files of one finished map step.

    Attributes
    ----------
    stage, step : who wrote them.
    records : commit records by shard.
    schemas : schema of each folder it wrote.
    aligned : those of its folders that hold every live item.
    """

    stage: str
    step: str
    records: Mapping[int, Record]
    schemas: Mapping[str, pa.Schema]
    aligned: frozenset[str]


@dataclass
class Layout:
    """The source and the layers over it, oldest first."""

    source: Source
    uri: str
    layers: list[Layer] = field(default_factory=list)

    def types(self, stage: str) -> dict[str, pa.DataType]:
        """Return the columns that a step of a stage can read now, with their types.

        Columns of other stages are those of their sidecars; scratch is readable within its own
        stage only. A later layer's column hides an earlier one of the same name.
        """
        types = dict(self.source.types)
        for layer in self.layers:
            for folder in self._readable(layer, stage):
                for column in layer.schemas[folder]:
                    types[column.name] = column.type
        return types

    def _readable(self, layer: Layer, stage: str) -> list[str]:
        own = layer.stage == stage
        return [
            folder
            for folder in layer.schemas
            if folder in layer.aligned and (folder == layer.stage or own)
        ]

    @cached_property
    def _first_blocks(self) -> list[int]:
        """Where the hashes of each shard's blocks begin."""
        with_rows = self.source.names_pictures
        counts = (
            n_hashes(s.bytes, s.rows, is_tagged=bool(s.tag), with_rows=with_rows)
            for s in self.source.shards
        )
        return [0, *accumulate(counts)]

    def are_hashes(self, data: bytes) -> bool:
        """Return whether bytes are the hashes of all shards' contents, as fingerprints say."""
        hashes = np.frombuffer(data[: len(data) // 8 * 8], "<u8")
        starts = self._first_blocks
        return len(data) == 8 * starts[-1] and all(
            fingerprint_of(0 if s.tag else s.bytes, hashes[a:b]) == s.fingerprint
            for s, a, b in zip(self.source.shards, starts[:-1], starts[1:], strict=True)
            if b > a
        )

    def n_live(self, shard: int) -> int:
        """Return the number of a shard's items that were not rejected so far."""
        rows = self.source.shards[shard].rows
        return rows - sum(len(layer.records[shard]["rejected"]) for layer in self.layers)

    def columns(self, stage: str, reads: Sequence[str]) -> dict[str, ColumnRef]:
        """Return where columns lie; names of whole scratch files are passed over.

        Raises
        ------
        KeyError
            If a column is nowhere.
        """
        places: dict[str, ColumnRef] = {
            ours: ColumnRef(
                SOURCE, theirs, self.source.types[ours], ours, ours in self.source.indicators
            )
            for ours, theirs in self.source.columns.items()
        }
        schema = self.source.schema
        raw = {f"{SOURCE}/{name}": name for name in schema.names}
        for read in raw.keys() & set(reads):
            kind = working(schema.field(raw[read]).type)
            places[read] = ColumnRef(SOURCE, raw[read], kind)
        for layer in self.layers:
            for folder in self._readable(layer, stage):
                for column in layer.schemas[folder].names:
                    places[column] = ColumnRef(folder, column)
        return {name: places[name] for name in reads if name in places}

    def files(self, shard: int, folders: set[str]) -> dict[str, FileRef]:
        """Return a shard's files in some folders, with what was rejected since then."""
        files: dict[str, FileRef] = {}
        rejects = [tuple(layer.records[shard]["rejected"]) for layer in self.layers]
        entry = self.source.shards[shard]
        if SOURCE in folders:
            files[SOURCE] = FileRef(
                uri=self.source.uri,
                name=entry.name,
                rows=entry.rows,
                bytes=entry.bytes,
                digest=f"{entry.fingerprint} {entry.name}",
                is_ours=False,
                rejects=_some(rejects),
                foreign=Foreign(
                    fingerprint=entry.fingerprint,
                    run=self.uri,
                    first_block=self._first_blocks[shard],
                    tag=entry.tag,
                    constants=entry.constants,
                    names_pictures=self.source.names_pictures,
                ),
            )
        for position, layer in enumerate(self.layers):
            for file in layer.records[shard]["files"]:
                if file["folder"] in folders and file["folder"] in layer.schemas:
                    files[file["folder"]] = FileRef(
                        uri=self.uri,
                        name=file["name"],
                        rows=file["rows"],
                        bytes=file["bytes"],
                        footer=file["footer"],
                        digest=file[digest_name(file["folder"])],
                        stage=layer.stage,
                        rejects=_some(rejects[position + 1 :]),
                        ipc=file["ipc"],
                    )
        return files


def _some(rejects: Sequence[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    return tuple(positions for positions in rejects if positions)


def pack_schema(schema: pa.Schema) -> str:
    """Return a schema as text for JSON."""
    return base64.b64encode(schema.serialize().to_pybytes()).decode()


def unpack_schema(text: str) -> pa.Schema:
    """Return the schema that `pack_schema` packed."""
    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))
