"""Stage `decide`: keep, relabel, drop, review or soften, within limits, with a log of every change.

Beliefs of the last stage that offers any propose, rule by rule; see `pipelines.decisions.engine`.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from labelops.decide import Policy, p_wrong, propose, rules
from labelops.decisions import Action, Proposals
from labelops.top_belief import in_classes, soften, with_certainty
from pipelines.core.stage import Arrays, Context
from pipelines.decisions.draw import draw_step
from pipelines.decisions.engine import Decider, Fields, Proposed, deciding_stage
from pipelines.decisions.gate import ALLOWANCES, ALLOWANCES_ALONE, Allowance
from pipelines.decisions.limits import Gate, Limits, MaxReview
from pipelines.decisions.reviews import reviewed_classes
from pipelines.labels.beliefs import OPINIONS
from pipelines.labels.columns import soft_columns, soft_fields
from pipelines.labels.single import SPACE
from pipelines.storage.frame import Frame

Other = Literal["keep", "review", "drop", "soften", "abstain"]


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide`."""

    relabel_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="An item is relabelled if another class has at least this probability.",
    )
    drop_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="An item is dropped if its label is wrong with at least this probability and "
        "no other class is probable enough to relabel it.",
    )
    label_issue: Literal["repair", "keep", "review", "drop", "soften", "abstain"] = Field(
        default="repair",
        description="What to do with label issues; repair: relabel, drop or review, by "
        "probability.",
    )
    duplicate_conflict: Other = Field(
        default="review", description="What to do with duplicates whose labels differ."
    )
    near_duplicate: Other = Field(
        default="keep", description="What to do with all but one of a set of duplicates."
    )
    outlier: Other = Field(default="keep", description="What to do with outliers.")
    max_change_share: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="At most this share of labels is changed. Absent: at most as many as are "
        "surely wrong by the estimate of stage confident.",
    )
    max_drop_share: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="At most this share of items is dropped. Absent: as for max_change_share.",
    )
    max_review: MaxReview = 500
    min_class_size: int = Field(
        default=10, ge=0, description="No item leaves a class that would become smaller than this."
    )
    gate: Gate = "expected"
    reviewed: str | None = Field(
        default=None,
        description="Local Parquet or CSV file with item_id and true_label of reviewed items.",
    )
    top_k: int = Field(default=5, ge=1, description="Classes stored in a soft label.")


FOUND = ("is_outlier", "duplicate_set", "is_duplicate_conflict")
"""Columns of stage `neighbours`, which may have been skipped."""


def needs(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns with what was found of items."""
    return ["is_label_issue", "label_score", *(name for name in FOUND if name in columns)]


def policy_of(config: Config) -> Policy:
    """Return the settings as the mathematics takes them."""
    return Policy(
        relabel_confidence=config.relabel_confidence,
        drop_confidence=config.drop_confidence,
        label_issue=None if config.label_issue == "repair" else _action(config.label_issue),
        duplicate_conflict=_action(config.duplicate_conflict),
        near_duplicate=_action(config.near_duplicate),
        outlier=_action(config.outlier),
    )


def _action(word: str) -> Action:
    return Action[word.upper()]


def propose_shard(frame: Frame, ctx: Context[Config]) -> Proposed:
    """Propose an action for every item, and write down its belief as a soft label."""
    flags = {
        "is_issue": _flag(frame, "is_label_issue"),
        "is_conflict": _flag(frame, "is_duplicate_conflict"),
        "is_outlier": _flag(frame, "is_outlier"),
        "is_copy": _is_copy(frame),
    }
    given, policy = frame.array("given").astype(np.int64), policy_of(ctx.config)
    k = ctx.config.top_k
    reviewed = reviewed_classes(frame, ctx)
    proposals, wrong, soft = [], [], []
    for rows, belief in ctx.asked.blocks(frame, ctx, k, reviewed):
        mine = given[rows]
        here = {name: flag[rows] for name, flag in flags.items()}
        column, at = belief.column_of(mine), np.arange(len(mine))
        proposed = propose(
            belief.belief,
            belief.cautious,
            column,
            is_weak=not belief.is_trusted,
            policy=policy,
            **here,
        )
        proposals.append(in_classes(proposed, belief)._replace(row=proposed.row + rows.start))
        wrong.append(p_wrong(belief.belief[at, column], here["is_issue"]))
        soft.append(soft_columns(soften(with_certainty(belief, reviewed[rows]), mine, k=k)))
    whole = Proposals(*(np.concatenate(part) for part in zip(*proposals, strict=True)))
    # In single precision, in which they are compared and written.
    single = {
        name: getattr(whole, name).astype(np.float32).astype(np.float64)
        for name in ("p_after", "p_before", "p_next")
    }
    p = np.concatenate(wrong).astype(np.float32)
    verdicts = [pa.array(p), pa.array(p > 0.5)]
    carried = [*verdicts, *(pa.concat_arrays(parts) for parts in zip(*soft, strict=True))]
    return Proposed(whole._replace(**single), carried)


def _flag(frame: Frame, name: str) -> np.ndarray:
    if name not in frame.reads:
        return np.zeros(frame.n, bool)
    flag: np.ndarray = frame[name].fill_null(False).to_numpy(zero_copy_only=False)
    return flag


def _is_copy(frame: Frame) -> np.ndarray:
    """Return which items are a duplicate of another that stands for their set."""
    if "duplicate_set" not in frame.reads:
        return np.zeros(frame.n, bool)
    first = frame["duplicate_set"].fill_null(0).to_numpy(zero_copy_only=False)
    inside = frame["duplicate_set"].is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(inside & (first != frame.array("item_hash")))


def carried(n_classes: int) -> Fields:
    """Return the columns that say how probably a label is wrong, and those of soft labels."""
    return [("p_wrong", pa.float32()), ("is_probably_wrong", pa.bool_()), *soft_fields(n_classes)]


def supported(ctx: Context[Config]) -> int:
    """Return how many labels are wrong at least, by the surest predictions; with totals, at most.

    Where the headline says that none is surely wrong, none is changed.
    """
    end = "low" if ctx.beliefs_stage.startswith("confident") else "high"
    return int(ctx.result("confident", "surest")[f"n_wrong_{end}"])


def allowance(ctx: Context[Config]) -> Allowance:
    """Return by how much beliefs may promise too much: by more where nothing checks them."""
    is_checked = OPINIONS in ctx.columns or not ctx.beliefs_stage.startswith("confident")
    return ALLOWANCES if is_checked else ALLOWANCES_ALONE


def notes(ctx: Context[Config]) -> Arrays:
    """Return how soft labels were made."""
    top_k = {"top_k": np.array(min(ctx.config.top_k, ctx.n_classes))}
    return {**top_k, "temperature": np.array(ctx.asked.temperature(ctx))}


STAGE = deciding_stage(
    Decider(
        name="decide",
        version=6,
        doc="decides for every item: keep, relabel, drop, review or lower its weight, and logs why",
        config=Config,
        clean=SPACE,
        needs=needs,
        propose=propose_shard,
        rules=lambda ctx: rules(ctx.config.relabel_confidence),
        limits=Limits.of,
        carried=carried,
        supported=supported,
        allowance=allowance,
        more=lambda ctx: [draw_step(ctx)],
        notes=notes,
        asks="label",
    )
)
