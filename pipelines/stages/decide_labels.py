"""Stage `decide_labels`: add and remove labels of items that have several, with a log of each.

Flagged classes propose, rule by rule; a gate judges each rule that changes labels; a share of all
labels limits the changes, the surest first; items with a class in doubt are reviewed, up to a
budget, or kept with a lower weight. The log `decisions/` has a row for every flagged class of an
item; the product follows from it (`pipelines.label_ledger`).
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from labelops.decide import Held
from labelops.multilabel.decide import (
    REVIEWED,
    LabelAction,
    LabelProposals,
    Outcome,
    is_change,
    outcome,
    reason,
    rules,
)
from labelops.multilabel.labels import YES, LabelSets, owners, states, take_rows, with_changes
from pipelines.frame import Frame
from pipelines.label_ledger import decided_fields
from pipelines.label_limits import (
    COLUMNS,
    DecideCells,
    cells_folder,
    cut_steps,
    policy_of,
    settled,
)
from pipelines.label_sets import GIVEN, clean_columns, flat, given_columns, given_sets
from pipelines.label_verdicts import count_outcome, judge_rules, report_outcome, tally
from pipelines.ledger import LOG_FOLDER, log_rows, log_schema
from pipelines.reference import match_reference, reference_sets
from pipelines.stage import Context, Map, Output, Reduce, Stage, Step


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide_labels`."""

    add_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="Probability of a missing class from which on it is added.",
    )
    remove_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="Probability that a given class is wrong from which on it is removed.",
    )
    review_confidence: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Probability of either from which on a person should look at the item.",
    )
    max_change_share: float = Field(
        default=0.2,
        ge=0.0,
        le=1.0,
        description="At most so many labels are added or removed, as a share of those given.",
    )
    max_review: int = Field(
        default=500, ge=0, description="At most so many items are set aside for people to look at."
    )
    min_class_size: int = Field(
        default=10,
        ge=0,
        description="No label of a class is removed if that could leave it smaller than this.",
    )
    gate: Literal["expected", "measured"] = Field(
        default="expected",
        description="Whether the expected gain lets a rule change labels, or only one that is "
        "measured on reviewed items.",
    )
    reviewed: str | None = Field(
        default=None,
        description="Local Parquet or CSV file with item_id and true_labels of reviewed items.",
    )


FLAGGED = ("missing_ids", "missing_scores", "wrong_ids", "wrong_scores")


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that the settings need."""
    given = given_columns(columns) or [GIVEN]
    return ["item_id", "item_hash", *given, *FLAGGED, "label_score"]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    return ["item_id", *(name for name, _ in decided_fields(pa.null(), columns))]


def steps(config: Config, ctx: Context) -> Sequence[Step]:
    """Return the steps: reviewed items, cells, gate, limits, decisions, totals."""
    item_id = ("item_id", ctx.types["item_id"])
    given, cells = given_columns(ctx.columns), cells_folder(ctx)
    decided = decided_fields(ctx.label_type, ctx.columns)
    return [
        match_reference("reviewed", "reviewed ids"),
        Map(
            name="propose",
            reads=["item_id", *given, *FLAGGED],
            writes={cells: Output(schema=pa.schema(COLUMNS), rows="some", ipc=True)},
            apply=list_cells,
        ),
        Reduce(name="gate", reads=[*given, cells], summarize=tally, finish=judge_rules),
        *cut_steps(ctx),
        Map(
            name="settle",
            reads=["item_id", "item_hash", *given, "label_score", cells],
            writes={
                ctx.stage: Output(schema=pa.schema([item_id, *decided])),
                LOG_FOLDER: Output(
                    schema=log_schema(ctx.types["item_id"], ctx.label_type), rows="some"
                ),
            },
            apply=settle_shard,
        ),
        Reduce(
            name="outcome",
            reads=["item_hash", cells],
            summarize=count_outcome,
            finish=report_outcome,
        ),
    ]


# -- cells -----------------------------------------------------------------------------------------


def list_cells(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """List the cells that something is decided about: flagged ones, and what reviewers changed."""
    n_classes = ctx.n_classes
    parts = [_flagged(frame, "missing", n_classes), _flagged(frame, "wrong", n_classes)]
    cell = np.concatenate([cells for cells, _ in parts])
    p = np.concatenate([scores for _, scores in parts])
    is_given = np.repeat([False, True], [len(cells) for cells, _ in parts])
    is_flagged = np.ones(len(cell), bool)
    truth = np.full(len(cell), -1, np.int8)
    known, sets = _reviews(frame, ctx)
    if len(known):
        row, state = _truth(cell // n_classes, cell % n_classes, known, sets)
        truth[row] = state
        more, more_given, said = _differing(frame, ctx, known, sets)
        new = ~np.isin(more, cell)
        cell, p = np.append(cell, more[new]), np.append(p, np.zeros(new.sum()))
        is_given = np.append(is_given, more_given[new])
        is_flagged = np.append(is_flagged, np.zeros(new.sum(), bool))
        truth = np.append(truth, said[new])
    order = np.argsort(cell, kind="stable")
    cell = cell[order]
    arrays = [
        *(cell // n_classes, cell % n_classes, is_given[order], is_flagged[order]),
        *(p[order].astype(np.float32), truth[order]),
    ]
    columns = [pa.array(x, kind) for x, (_, kind) in zip(arrays, COLUMNS, strict=True)]
    return {cells_folder(ctx): pa.table(columns, schema=pa.schema(COLUMNS))}


def _flagged(frame: Frame, kind: str, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return flagged cells of a kind as item · K + class, and how probable it is."""
    ids, start = flat(frame[f"{kind}_ids"])
    scores, _ = flat(frame[f"{kind}_scores"])
    cell = owners(start) * n_classes + ids.to_numpy(zero_copy_only=False).astype(np.int64)
    return cell, scores.to_numpy(zero_copy_only=False).astype(np.float64)


def _reviews(frame: Frame, ctx: Context) -> tuple[np.ndarray, LabelSets]:
    if ctx.config.reviewed is None:
        empty = np.empty(0, np.int64)
        return empty, LabelSets(empty, np.zeros(1, np.int64), None, None, ctx.n_classes)
    return reference_sets("reviewed", frame["item_id"], ctx)


def _truth(
    row: np.ndarray, class_id: np.ndarray, known: np.ndarray, sets: LabelSets
) -> tuple[np.ndarray, np.ndarray]:
    """Return which cells are of reviewed items, and what reviewers said of them."""
    at = np.searchsorted(known, row).clip(max=len(known) - 1)
    mine = np.flatnonzero(known[at] == row)
    state = [_states_of(sets, i)[c] for i, c in zip(at[mine], class_id[mine], strict=True)]
    return mine, np.array(state, np.int8)


def _states_of(labels: LabelSets, item: int) -> np.ndarray:
    return np.asarray(states(take_rows(labels, slice(item, item + 1)))[0])


def _differing(
    frame: Frame, ctx: Context, known: np.ndarray, sets: LabelSets
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cells in which reviewers said otherwise, what was given, and what they said.

    A class that was unknown and that they rule out stays unknown: no label changes.
    """
    given, n_classes = given_sets(frame, ctx), ctx.n_classes
    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for position, item in enumerate(known.tolist()):
        was, said = _states_of(given, item) == YES, _states_of(sets, position)
        at = np.flatnonzero((said >= 0) & ((said == YES) != was))
        parts.append((item * n_classes + at, was[at], said[at]))
    cell, is_given, said = (np.concatenate(column) for column in zip(*parts, strict=True))
    return cell, is_given, said


# -- decisions -------------------------------------------------------------------------------------


def settle_shard(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Write decisions and their log."""
    cells, final, held = settled(frame, ctx)
    items = outcome(final, cells.row, frame.n)
    names = np.array([rule.name for rule in rules(policy_of(ctx))])
    rule = names[_of_cell(final.rule, items)]
    is_changed = items.n_added + items.n_removed > 0
    decision = np.where(items.is_review, "review", np.where(is_changed, "relabel", "keep"))
    columns: dict[str, pa.Array] = {"item_id": frame["item_id"], "decision": pa.array(decision)}
    columns |= clean_lists(given_sets(frame, ctx), cells, final, ~items.is_review, ctx)
    columns |= {
        "rule": pa.array(rule),
        "reason": _reasons(items, held),
        "confidence": pa.array(items.confidence),
        "weight": pa.array(items.weight),
    }
    return {
        ctx.stage: pa.table(columns),
        LOG_FOLDER: _log(frame, ctx, cells, final, names),
    }


def _of_cell(values: np.ndarray, items: Outcome) -> np.ndarray:
    """Return a value of each item's deciding cell, 0 without one."""
    return np.asarray(np.append(values, np.zeros(1, values.dtype))[items.cell])


def clean_lists(
    given: LabelSets, cells: DecideCells, final: LabelProposals, is_known: np.ndarray, ctx: Context
) -> dict[str, pa.Array]:
    """Return the columns with clean lists; null for items that wait."""
    told = is_change(final.action)
    present = final.action[told] == LabelAction.ADD
    clean = with_changes(given, cells.row[told], cells.class_id[told], np.asarray(present))
    return clean_columns(clean, is_known, ctx)


def _reasons(items: Outcome, held: np.ndarray) -> pa.Array:
    """Return the reasons; there are few different ones, so each is worded once."""
    why = _of_cell(held, items)
    code = np.stack([items.n_added, items.n_removed, items.n_doubted, why, items.is_review], axis=1)
    codes, of_item = np.unique(code, axis=0, return_inverse=True)
    texts = [reason(a, r, d, Held(h), is_review=bool(w)) for a, r, d, h, w in codes.tolist()]
    return pa.array(texts, pa.string()).take(pa.array(of_item.ravel()))


def _log(
    frame: Frame, ctx: Context, cells: DecideCells, final: LabelProposals, names: np.ndarray
) -> pa.Table:
    """Return one row for every cell that something was decided about."""
    at = pa.array(cells.row)
    changed = is_change(final.action)
    present = np.where(changed, ~cells.is_given, cells.is_given)
    waits = final.action == LabelAction.REVIEW
    class_id = cells.class_id
    words = np.array([action.name.lower() for action in LabelAction])

    def labels(where: np.ndarray) -> pa.Array:
        return ctx.labels(np.where(where, class_id, -1))

    return log_rows(
        item_id=frame["item_id"].take(at),
        label_id=class_id.astype(np.int32),
        before=labels(cells.is_given),
        after=labels(present & ~waits),
        action=words[final.action],
        p_correct=np.where(changed, final.p, 1 - final.p).astype(np.float32),
        rule=names[final.rule],
        evidence={
            "p_given": (1 - cells.p).astype(np.float32),
            "p_believed": cells.p.astype(np.float32),
            "believed": labels(np.where(cells.p > 0.5, ~cells.is_given, cells.is_given)),
            "label_score": frame["label_score"].take(at).cast(pa.float32()),
            "is_label_issue": pa.array(cells.is_flagged),
        },
        actor=np.where(final.rule == REVIEWED, "reviewer", f"stage {ctx.stage}"),
        run=ctx.run_key,
    )


STAGE = Stage(
    name="decide_labels",
    version=1,
    doc="adds and removes labels of items that have several, within limits, and logs why",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    files=lambda config: [config.reviewed] if config.reviewed else [],
    folders=(LOG_FOLDER,),
    decides=True,
)
