"""Stage `decide_maps`: from what label maps show to training labels, with a log of each change.

Classes that were found in a picture are added to those that were given, as far as evidence lets
them (`pipelines.map_verdicts`); where one was ruled out before, a person should look. The log
`decisions/` has a row for every class of a picture on which maps and labels do not plainly agree;
the product follows from it (`pipelines.label_ledger`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field, field_validator

from labelops.decide import BANDS, Held
from labelops.multilabel.decide import LabelAction, reason
from labelops.multilabel.labels import with_changes
from pipelines.frame import Frame
from pipelines.label_ledger import Items, decided_fields, items_of
from pipelines.label_sets import RULED_OUT, clean_columns, label_columns, labels_of
from pipelines.ledger import LOG_FOLDER, log_rows, log_schema
from pipelines.map_sets import LOG_FOLDER as MAPS
from pipelines.map_verdicts import (
    AGREES,
    count_outcome,
    judge_rules,
    p_correct,
    report_outcome,
    rules,
    settled,
    tally,
)
from pipelines.stage import Context, Map, Output, Reduce, Stage, Step


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide_maps`."""

    add_confidence: float = Field(
        default=0.5,
        description="Probability from which on a class that was found is added, where there is "
        f"one: some of {', '.join(map(str, BANDS))}.",
    )
    review_confidence: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Probability of a class that was ruled out from which on a person should look "
        "at the item.",
    )
    add_unmeasured: bool = Field(
        default=True,
        description="Whether classes are added where it is only known what items have, so that "
        "nobody can say how often that is right.",
    )

    @field_validator("add_confidence")
    @classmethod
    def _check_band(cls, value: float) -> float:
        # Held-out evidence is counted by band.
        if value not in BANDS:
            raise ValueError(f"add_confidence must be one of {BANDS}, got {value}")
        return value


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None."""
    return None if label_columns(columns) else "items have no labels"


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    return ["item_id", "present_ids", *label_columns(columns)]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    return ["item_id", *(name for name, _ in _decided(pa.null(), columns))]


def _decided(label: pa.DataType, columns: frozenset[str]) -> list[tuple[str, pa.DataType]]:
    return [*decided_fields(label, columns), ("n_added", pa.int32())]


def steps(config: Config, ctx: Context) -> Sequence[Step]:
    """Return the steps: gate, decisions, totals."""
    item_id, labels = ("item_id", ctx.types["item_id"]), label_columns(ctx.columns)
    decided = _decided(ctx.label_type, ctx.columns)
    log = log_schema(ctx.types["item_id"], ctx.label_type)
    return [
        Reduce(name="gate", reads=["item_id", MAPS], summarize=tally, finish=judge_rules),
        Map(
            name="settle",
            reads=["item_id", *labels, MAPS],
            writes={
                ctx.stage: Output(schema=pa.schema([item_id, *decided])),
                LOG_FOLDER: Output(schema=log, rows="some"),
            },
            apply=settle_shard,
        ),
        Reduce(
            name="outcome",
            reads=["item_id", "decision", "weight", MAPS],
            summarize=count_outcome,
            finish=report_outcome,
        ),
    ]


def settle_shard(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Write decisions and their log."""
    said, cells, held = settled(frame, ctx)
    names = np.array([rule.name for rule in rules(ctx)])
    words = np.array([action.name.lower() for action in LabelAction])
    right = p_correct(cells, ctx)
    items = items_of(cells.row, words[cells.action], right, frame.n)
    told = cells.action == LabelAction.ADD
    clean = with_changes(labels_of(frame, ctx), cells.row[told], cells.class_id[told], told[told])
    # What an item's changes follow from, or else what keeps it from one.
    first = np.lexsort((~told, cells.row))
    rows, at = np.unique(cells.row[first], return_index=True)
    rule = np.full(frame.n, AGREES, object)
    rule[rows] = names[cells.rule[first[at]]]
    columns = {
        "item_id": frame["item_id"],
        "decision": pa.array(items.decision),
        **clean_columns(clean, ~items.waits, ctx),
        "rule": pa.array(rule, pa.string()),
        "reason": _reasons(items, cells.row[held], frame.n),
        "confidence": items.confidences(),
        "weight": pa.array(items.weight.astype(np.float32)),
        "n_added": pa.array(items.n_added.astype(np.int32)),
    }
    if RULED_OUT not in ctx.columns:
        # One label says nothing of other classes; there is no list of them to go on with.
        columns.pop("labels_negative_clean", None)
    p = pc.struct_field(said["evidence"].combine_chunks(), "p_believed").take(pa.array(cells.at))

    def labels(where: np.ndarray) -> pa.Array:
        return ctx.labels(np.where(where, cells.class_id, -1))

    log = log_rows(
        item_id=frame["item_id"].take(pa.array(cells.row)),
        label_id=cells.class_id.astype(np.int32),
        before=labels(cells.is_given),
        after=labels(cells.is_given | told),
        action=words[cells.action],
        p_correct=pa.array(right, pa.float32(), from_pandas=True),
        rule=names[cells.rule],
        evidence={
            "p_given": pa.nulls(len(cells.row), pa.float32()),
            "p_believed": p,
            "believed": labels(~cells.is_given),
            "label_score": pa.nulls(len(cells.row), pa.float32()),
        },
        actor=np.full(len(cells.row), f"stage {ctx.stage}"),
        run=ctx.run_key,
    )
    return {ctx.stage: pa.table(columns), LOG_FOLDER: log}


def _reasons(items: Items, held: np.ndarray, n_items: int) -> pa.Array:
    """Return the reasons; there are few different ones, so each is worded once."""
    is_held = np.bincount(held, minlength=n_items) > 0
    code = np.stack([items.n_added, items.n_doubted, is_held, items.waits], axis=1)
    codes, of_item = np.unique(code, axis=0, return_inverse=True)
    texts = [
        reason(a, 0, d, Held.GATE if h else Held.NO, is_review=bool(w))
        for a, d, h, w in codes.tolist()
    ]
    return pa.array(texts, pa.string()).take(pa.array(of_item.ravel()))


STAGE = Stage(
    name="decide_maps",
    version=1,
    doc="adds classes that label maps show to the given ones, as far as evidence lets it",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    skip=skip,
    folders=(LOG_FOLDER,),
    decides=True,
)
