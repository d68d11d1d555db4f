"""Soft labels of views in columns, and in the footer what they are of.

A row is a view of an item. What nobody can see in the numbers stands in the metadata of the schema:
whose predictions they are, of which classes in which order, at which temperature, made of what
picture. A reader says what it expects of that, and is refused where something else is stored.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.soft.geometry import check_pixel_boxes
from labelops.soft.labels import id_type
from labelops.soft.views import (
    NATS,
    STEPS,
    TYPES,
    Coding,
    Kind,
    Number,
    SoftViews,
    check_coding,
    keep_classes,
    take_views,
)
from pipelines.errors import DataError
from pipelines.storage.vectors import list_array, vectors_of

FOLDER = "soft_labels"
"""Folder of a run that holds them."""

METADATA = b"labelops.soft_views"
FORMAT_VERSION = 1
MOST_VIEWS = 65_535
"""Of an item; a view's number is uint16."""


def parquet_options() -> dict[str, Any]:
    """Return how soft labels are written in fewest bytes; arguments of pyarrow's writer.

    Values and boxes byte by byte apart, which compresses what is alike in their upper halves.
    """
    apart = ["topk_values.list.element", "given_value", "tail", "box_tlhw.list.element"]
    return {
        "compression": "zstd",
        "compression_level": 3,
        "use_dictionary": ["item_id", "given_id", "size_hw.list.element"],
        "use_byte_stream_split": apart,
    }


# V views, K classes, k kept


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """Whose predictions are stored.

    Attributes
    ----------
    name : of the model.
    sha256 : of its weights.
    input_size : side of the square it sees, in pixels; 0 for what is no picture.
    resize : how a view becomes that square.
    mean, std : what pixels were brought to.
    """

    name: str
    sha256: str
    input_size: int = 0
    resize: str = "none"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SoftFacts:
    """What stored soft labels are of.

    Attributes
    ----------
    classes : names, in the order of the ids.
    kind, number, temperature : see `labelops.soft.views.Coding`.
    k : classes stored of each view, besides the given one.
    teachers : of several, probabilities were averaged.
    epsilon : where views were judged (column `calib`, of `labelops.distill.regions.Verdict`), what
        a hard calibrated one's label leaves to other classes; else None.
    """

    classes: tuple[str, ...]
    kind: Kind
    number: Number
    temperature: float
    k: int
    teachers: tuple[Teacher, ...]
    epsilon: float | None = None

    @property
    def coding(self) -> Coding:
        """How values are stored."""
        return Coding(self.kind, self.number, len(self.classes), self.temperature)

    def to_json(self) -> bytes:
        """Return the metadata of a schema."""
        names = json.dumps(self.classes).encode()
        facts = {
            "format_version": FORMAT_VERSION,
            "num_classes": len(self.classes),
            "class_space_id": hashlib.sha256(names).hexdigest(),
            "reconstruct": "ms",
            "given_is_stored": True,
            "box": "top, left, height, width in pixels of the upright picture",
            "u8": f"round(-log p * {STEPS} / {NATS:g})" if self.number == "u8" else None,
            **asdict(self),
        }
        return json.dumps(facts, sort_keys=True).encode()

    @classmethod
    def of(cls, schema: pa.Schema) -> "SoftFacts":
        """Return what a schema says.

        Raises
        ------
        DataError
            If it says nothing of soft labels, or of a format that is not known.
        """
        text = (schema.metadata or {}).get(METADATA)
        if text is None:
            raise DataError(
                f"soft labels: a schema with the metadata {METADATA.decode()!r} was expected, got "
                f"columns {schema.names}. Read a Parquet file of stored soft labels"
            )
        facts: dict[str, Any] = json.loads(text)
        if facts.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"soft labels: format {FORMAT_VERSION} was expected, got "
                f"{facts.get('format_version')!r}. Read them with the version that wrote them"
            )
        values = {field.name: facts[field.name] for field in fields(cls)}
        teachers = tuple(
            Teacher(**{**one, "mean": tuple(one["mean"]), "std": tuple(one["std"])})
            for one in values.pop("teachers")
        )
        return cls(**{**values, "classes": tuple(values["classes"]), "teachers": teachers})

    def check(self, expected: Mapping[str, Any]) -> "SoftFacts":
        """Refuse soft labels of anything but what is expected, by the names of attributes.

        Raises
        ------
        DataError
            If something differs; it names what, and both.
        """
        for name, wanted in expected.items():
            found = getattr(self, name)
            if found == wanted:
                continue
            if name == "classes":
                pairs = zip(found, wanted, strict=False)
                alike = [a == b for a, b in pairs]
                at = alike.index(False) if False in alike else len(alike)
                found, wanted = (
                    f"{len(names)} classes, number {at} {names[at]!r}"
                    if at < len(names)
                    else f"{len(names)} classes"
                    for names in (found, wanted)
                )
            raise DataError(
                f"soft labels: {name} = {wanted} was expected, got {found}. They are of another "
                "teacher or were stored with other settings; make them again, or read them as they "
                "are"
            )
        return self


class ViewRows(NamedTuple):
    """Soft labels of views, and which views.

    Attributes
    ----------
    item_id : of the item, shape (V,).
    view_id : number of the view within its item, uint16, shape (V,).
    labels : the soft labels.
    box : (top, left, height, width) in pixels, shape (V, 4); of no picture zeros.
    size : (height, width) of the picture, shape (V, 2); zeros where there is none.
    is_flipped : bool, shape (V,).
    verdict : what becomes of it, uint8, shape (V,); None where views were not judged.
    """

    item_id: pa.Array
    view_id: np.ndarray
    labels: SoftViews
    box: np.ndarray
    size: np.ndarray
    is_flipped: np.ndarray
    verdict: np.ndarray | None = None


def take_rows(rows: ViewRows, chosen: np.ndarray) -> ViewRows:
    """Return some of the views."""
    return ViewRows(
        rows.item_id.take(pa.array(chosen)),
        rows.view_id[chosen],
        take_views(rows.labels, chosen),
        rows.box[chosen],
        rows.size[chosen],
        rows.is_flipped[chosen],
        None if rows.verdict is None else rows.verdict[chosen],
    )


def whole_views(item_id: pa.Array, labels: SoftViews) -> ViewRows:
    """Return the one view of each item that is no picture."""
    n = len(item_id)
    none = np.zeros((n, 4), np.uint16)
    return ViewRows(item_id, np.zeros(n, np.uint16), labels, none, none[:, :2], np.zeros(n, bool))


def soft_schema(facts: SoftFacts, id_kind: pa.DataType) -> pa.Schema:
    """Return the columns of soft labels of views, with what they are of."""
    coding = check_coding(facts.coding)
    ids = pa.from_numpy_dtype(id_type(coding.n_classes))
    number = pa.from_numpy_dtype(TYPES[coding.number])
    rest = pa.float32() if coding.number == "f32" else pa.float16()
    k = min(facts.k, coding.n_classes)
    columns = [
        ("item_id", id_kind),
        ("view_id", pa.uint16()),
        ("box_tlhw", pa.list_(pa.uint16(), 4)),
        ("size_hw", pa.list_(pa.uint16(), 2)),
        ("is_flipped", pa.bool_()),
        ("topk_ids", pa.list_(ids, k)),
        ("topk_values", pa.list_(number, k)),
        ("given_id", ids),
        ("given_value", number),
        ("tail", rest),
    ]
    if coding.kind == "logit":
        columns.append(("tail_mean", rest))
    if facts.epsilon is not None:
        columns.append(("calib", pa.uint8()))
    return pa.schema(columns, metadata={METADATA: facts.to_json()})


def to_table(rows: ViewRows, facts: SoftFacts) -> pa.Table:
    """Return views as a table.

    Raises
    ------
    ValueError
        If a box reaches outside its picture.
    DataError
        If labels are of other classes or types than `facts` say.
    """
    schema = soft_schema(facts, rows.item_id.type)
    labels, coding = rows.labels, facts.coding
    is_picture = rows.size.any(axis=1)
    check_pixel_boxes(rows.box[is_picture], rows.size[is_picture])
    types = (labels.ids.dtype, labels.values.dtype, labels.ids.shape[1])
    k = schema.field("topk_ids").type.list_size
    wanted = (id_type(coding.n_classes), TYPES[coding.number], k)
    if types != wanted:
        raise DataError(
            f"soft labels: ids, values and k of {wanted} were expected, got {types}. Encode them "
            "with the coding of the facts"
        )
    if (rows.verdict is None) != (facts.epsilon is None):
        raise DataError(
            "soft labels: verdicts where the facts have an epsilon were expected, got one without "
            "the other. Judge views with labelops.distill.regions.judge_views"
        )
    mask = pa.array(~is_picture)
    # Of a given class among the k it is there already.
    is_given = labels.ids == labels.given[:, None]
    columns = {
        "item_id": rows.item_id,
        "view_id": rows.view_id.astype(np.uint16),
        "box_tlhw": _or_null(rows.box.astype(np.uint16), mask),
        "size_hw": _or_null(rows.size.astype(np.uint16), mask),
        "is_flipped": rows.is_flipped,
        "topk_ids": list_array(labels.ids),
        "topk_values": list_array(labels.values),
        "given_id": labels.given,
        "given_value": pa.array(labels.given_value, mask=is_given.any(axis=1)),
        "tail": labels.tail,
        "tail_mean": labels.tail_mean,
        "calib": rows.verdict,
    }
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def _or_null(rows: np.ndarray, is_null: pa.Array) -> pa.Array:
    values = pa.array(np.ascontiguousarray(rows).ravel())
    return pa.FixedSizeListArray.from_arrays(values, rows.shape[1], mask=is_null)


def from_table(table: pa.Table, expected: Mapping[str, Any]) -> tuple[ViewRows, SoftFacts]:
    """Return views of a table, and what they are of.

    Parameters
    ----------
    table
        From `to_table`, or read from Parquet.
    expected
        What the reader takes for granted, by the names of `SoftFacts`; may be empty.

    Raises
    ------
    DataError
        If there are no soft labels in it, or of something else than expected.
    """
    facts = SoftFacts.of(table.schema).check(expected)
    columns = {name: table.column(name).combine_chunks() for name in table.column_names}
    number = {name: columns[name].to_numpy(zero_copy_only=False) for name in NUMBERS}
    ids = vectors_of(columns["topk_ids"])[0]
    tail, values = number["tail"], vectors_of(columns["topk_values"])[0]
    given = number["given_id"].astype(ids.dtype)
    is_given = ids == given[:, None]
    given_value = columns["given_value"].fill_null(0).to_numpy(zero_copy_only=False)
    given_value = np.where(
        is_given.any(axis=1), values[np.arange(len(ids)), is_given.argmax(axis=1)], given_value
    )
    mean = columns.get("tail_mean")
    labels = SoftViews(
        ids,
        values,
        given,
        given_value,
        tail,
        np.zeros_like(tail) if mean is None else mean.to_numpy(zero_copy_only=False),
    )
    box, size = (_or_zeros(columns[name]) for name in ("box_tlhw", "size_hw"))
    flipped = columns["is_flipped"].to_numpy(zero_copy_only=False).astype(bool)
    verdict = None if facts.epsilon is None else columns["calib"].to_numpy(zero_copy_only=False)
    rows = ViewRows(columns["item_id"], number["view_id"], labels, box, size, flipped, verdict)
    return rows, facts


NUMBERS = ("view_id", "given_id", "tail")


def _or_zeros(lists: pa.FixedSizeListArray) -> np.ndarray:
    rows = np.zeros((len(lists), lists.type.list_size), np.uint16)
    rows[lists.is_valid().to_numpy(zero_copy_only=False)] = (
        lists.flatten().to_numpy().reshape(-1, lists.type.list_size)
    )
    return rows


def fewer(
    rows: ViewRows, facts: SoftFacts, *, k: int | None = None, views: int | None = None
) -> tuple[ViewRows, SoftFacts]:
    """Return fewer classes of every view, and of every item only the first views.

    Views are drawn alike, so that the first are as good as any.

    Raises
    ------
    ValueError
        If nothing would be left.
    """
    if views is not None:
        if views < 1:
            raise ValueError(f"fewer: at least one view was expected, got {views}")
        rows = take_rows(rows, np.flatnonzero(rows.view_id < views))
    if k is not None:
        labels = keep_classes(rows.labels, coding=facts.coding, k=k)
        rows, facts = rows._replace(labels=labels), replace(facts, k=min(k, facts.k))
    return rows, facts


def stored_probabilities(table: pa.Table) -> pa.ListArray:
    """Return the probabilities of the stored classes of every view, by pyarrow alone.

    For readers in other languages: nothing else is needed than the columns and the footer. They are
    beside `topk_ids`, and add up to one less `tail`, but for rounding.

    Raises
    ------
    DataError
        If logits are stored: their probabilities depend on the temperature.
    """
    facts = SoftFacts.of(table.schema)
    if facts.kind == "logit":
        raise DataError(
            "soft labels: probabilities were expected, got logits. Decode them with "
            "labelops.soft.views.decode at the temperature of the training"
        )
    lists = table.column("topk_values").combine_chunks()
    values = pc.cast(lists.flatten(), pa.float32())
    if facts.number == "u8":
        values = pc.exp(pc.multiply(values, pa.scalar(-NATS / STEPS, pa.float32())))
    elif facts.kind == "logprob":
        values = pc.exp(values)
    return pa.FixedSizeListArray.from_arrays(values, lists.type.list_size)
