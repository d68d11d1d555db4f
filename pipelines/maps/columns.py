"""Label maps in columns: what stage `localize` writes, and whoever trains on crops reads.

A row holds the maps of one picture, flat; what makes them arrays again, the size of the grid and
the number of classes, stands in the metadata of the schema.
"""

import json
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.label_maps import LabelMaps, check_maps
from labelops.soft.labels import id_type
from pipelines.errors import DataError
from pipelines.storage.vectors import list_array, vectors_of

COLUMNS = ("map_ids", "map_scores", "map_rest")
METADATA = b"labelops.label_maps"


class MapFacts(NamedTuple):
    """What stored label maps are of.

    Attributes
    ----------
    height, width : cells of the grid.
    k : classes stored in each cell.
    n_classes : K.
    output : "softmax" where a cell's classes exclude each other, "logistic" where they do not.
    image_size : side of the square that pictures were squashed to, in pixels.
    """

    height: int
    width: int
    k: int
    n_classes: int
    output: str
    image_size: int

    def to_json(self) -> bytes:
        """Return the metadata of a schema."""
        facts = {
            "format_version": 1,
            "value_kind": "logit",
            "rest": "mean of the logits that are not stored",
            "order": "k, row, column",
            "view": "the whole upright picture, squashed to a square",
            **self._asdict(),
        }
        return json.dumps(facts, sort_keys=True).encode()

    @classmethod
    def of(cls, schema: pa.Schema) -> "MapFacts":
        """Return what a schema says.

        Raises
        ------
        DataError
            If it says nothing of label maps.
        """
        text = (schema.metadata or {}).get(METADATA)
        if text is None:
            raise DataError(
                f"label maps: a schema with the metadata {METADATA.decode()!r} was expected, got "
                f"columns {schema.names}. Read a Parquet file that stage 'localize' wrote"
            )
        facts = json.loads(text)
        return cls(**{name: facts[name] for name in cls._fields})


def map_fields(facts: MapFacts) -> list[tuple[str, pa.DataType]]:
    """Return the columns of label maps."""
    kinds = pa.from_numpy_dtype(id_type(facts.n_classes)), pa.float16(), pa.float16()
    return [
        (name, pa.list_(kind, width))
        for (name, width), kind in zip(_widths(facts).items(), kinds, strict=True)
    ]


def _widths(facts: MapFacts) -> dict[str, int]:
    cells = facts.height * facts.width
    return dict(zip(COLUMNS, (facts.k * cells, facts.k * cells, cells), strict=True))


def columns_of(maps: LabelMaps) -> dict[str, pa.Array]:
    """Return label maps of N pictures as columns."""
    n = len(maps.ids)
    parts = zip(COLUMNS, (maps.ids, maps.scores, maps.rest), strict=True)
    return {name: list_array(array.reshape(n, -1)) for name, array in parts}


def maps_of(table: pa.Table, facts: MapFacts | None = None) -> LabelMaps:
    """Return the label maps in a table.

    Parameters
    ----------
    table
        With the three columns.
    facts
        What they are of; None: as the table's own metadata say.

    Raises
    ------
    DataError
        If the maps do not have the size that is said, or hold a class that is none.

    Examples
    --------
    >>> from labelops.label_maps import sparsify_maps
    >>> maps = sparsify_maps(np.arange(24.0).reshape(1, 2, 3, 4), k=1)
    >>> facts = MapFacts(3, 4, 1, 2, "softmax", 32)
    >>> maps_of(pa.table(columns_of(maps)), facts).scores.shape
    (1, 1, 3, 4)
    """
    facts = MapFacts.of(table.schema) if facts is None else facts
    arrays: list[np.ndarray] = []
    for name, width in _widths(facts).items():
        kind = table.schema.field(name).type
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        if size != width:
            raise DataError(
                f"label maps: column {name!r} must hold {width} values a picture, for "
                f"{facts.height} × {facts.width} cells of {facts.k} classes, as the metadata say; "
                f"it holds {size or kind}. Were files of two runs mixed?"
            )
        column = table.column(name).combine_chunks()
        whole = column if isinstance(column, pa.Array) else pa.concat_arrays(column.chunks)
        if whole.null_count:
            raise DataError(f"label maps: column {name!r} has {whole.null_count} nulls")
        arrays.append(vectors_of(whole)[0])
    shape = (len(table), facts.k, facts.height, facts.width)
    maps = LabelMaps(
        arrays[0].reshape(shape),
        arrays[1].reshape(shape),
        arrays[2].reshape(len(table), facts.height, facts.width),
        facts.n_classes,
    )
    try:
        return check_maps(maps, grid=(facts.height, facts.width))
    except ValueError as err:
        raise DataError(str(err)) from err
