"""Stage `decide`: keep, relabel, drop, review or soften, within limits, with a log of every change.

Beliefs propose, rule by rule; a gate judges each rule that changes labels; limits look at all items
and take the surest first; whatever is held back is reviewed, up to a budget, or kept with a lower
weight. The log `decisions/` has a row for every item that is not simply kept; the product follows
from it (`pipelines.ledger`).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from labelops.belief import believe
from labelops.decide import (
    DECISIONS,
    NO_ISSUE,
    REVIEWED,
    Action,
    Held,
    Policy,
    Proposals,
    outcome,
    propose,
    reason,
    rules,
)
from labelops.soft import SoftLabels, id_type, sparsify
from labelops.top_belief import believe_top, candidates, in_classes, soften, with_certainty
from labelops.top_rows import Probs, TopRows
from pipelines.beliefs import block_rows, noise_of, sparse_noise_of, temperature_steps
from pipelines.frame import Frame
from pipelines.ledger import LOG_FOLDER, log_rows, log_schema
from pipelines.limits import NARROW, PROPOSED, cut_steps, settled
from pipelines.predictions import prediction_columns, predictions_of
from pipelines.reviewed import match_reviewed, reviewed_classes
from pipelines.stage import Context, Map, Output, Reduce, Stage, Step
from pipelines.verdicts import count_outcome, judge_rules, report_outcome, tally

Other = Literal["keep", "review", "drop", "soften", "abstain"]


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide`."""

    relabel_confidence: float = Field(
        default=0.9, gt=0.5, le=1.0, description="Belief in another class that makes it the label."
    )
    drop_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="An item is dropped when its label is wrong with this probability and no other "
        "class is sure enough.",
    )
    label_issue: Literal["repair", "keep", "review", "drop", "soften", "abstain"] = Field(
        default="repair",
        description="What to do with label issues; repair relabels, drops or reviews by belief.",
    )
    duplicate_conflict: Other = Field(
        default="review", description="What to do with copies whose labels differ."
    )
    near_duplicate: Other = Field(
        default="keep", description="What to do with all but one of a set of duplicates."
    )
    outlier: Other = Field(default="keep", description="What to do with items unlike all others.")
    max_change_share: float = Field(
        default=0.2, ge=0.0, le=1.0, description="At most this share of labels is changed."
    )
    max_drop_share: float = Field(
        default=0.1, ge=0.0, le=1.0, description="At most this share of items is dropped."
    )
    max_review: int = Field(
        default=500, ge=0, description="At most so many items are set aside for people to look at."
    )
    min_class_size: int = Field(
        default=10, ge=0, description="Nothing leaves a class that would become smaller than this."
    )
    gate: Literal["expected", "measured"] = Field(
        default="expected",
        description="Whether the expected gain lets a rule change labels, or only one that is "
        "measured on reviewed items.",
    )
    reviewed: str | None = Field(
        default=None,
        description="Local Parquet or CSV file with item_id and true_label of reviewed items.",
    )
    use_totals: bool = Field(
        default=True,
        description="Whether beliefs agree with the totals of bags, where stage proportions "
        "brought them in.",
    )
    top_k: int = Field(default=5, ge=1, description="Classes stored in a soft label.")


TOTALS = "bag_probs"
"""Column of stage `proportions`: the same beliefs, with the totals of bags brought in."""

FOUND = ("is_outlier", "duplicate_set", "is_duplicate_conflict")
"""Columns of stage `neighbours`, which may have been skipped."""


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that the settings need."""
    return [
        *("item_id", "item_hash", "given", *prediction_columns(columns)),
        *("is_label_issue", "label_score"),
        *(name for name in FOUND if name in columns),
        *([TOTALS] if config.use_totals and TOTALS in columns else []),
    ]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    return ["item_id", *(name for name, _ in _decided(pa.null(), 2))]


def _decided(label: pa.DataType, n_classes: int) -> list[tuple[str, pa.DataType]]:
    return [
        ("decision", pa.string()),
        ("label_clean", label),
        ("rule", pa.string()),
        ("reason", pa.string()),
        ("confidence", pa.float32()),
        ("weight", pa.float32()),
        ("topk_ids", pa.list_(pa.from_numpy_dtype(id_type(n_classes)))),
        ("topk_probs", pa.list_(pa.float16())),
        ("tail_prob", pa.float16()),
    ]


def _proposed(n_classes: int) -> list[tuple[str, pa.DataType]]:
    soft = _decided(pa.null(), n_classes)[-3:]
    return [*PROPOSED, *zip(SOFT, (kind for _, kind in soft), strict=True)]


SOFT = ("soft_ids", "soft_probs", "soft_tail")
"""Scratch columns of the soft labels, which the sidecar has as topk_ids, topk_probs, tail_prob."""


def steps(config: Config, ctx: Context) -> Sequence[Step]:
    """Return the steps: reviewed items, temperature, proposals, gate, limits, decisions, totals."""
    item_id = ("item_id", ctx.types["item_id"])
    decided = _decided(ctx.label_type, ctx.n_classes)
    return [
        match_reviewed(),
        *temperature_steps(ctx),
        Map(
            name="propose",
            reads=reads(config, ctx.columns),
            writes={
                f"{ctx.stage}/_proposed": Output(
                    schema=pa.schema([item_id, *_proposed(ctx.n_classes)]), ipc=True
                )
            },
            apply=propose_shard,
        ),
        Reduce(name="gate", reads=NARROW, summarize=tally, finish=judge_rules),
        *cut_steps(),
        Map(
            name="settle",
            reads=["item_id", "label_score", *_flags(ctx), *SOFT, *NARROW],
            writes={
                ctx.stage: Output(schema=pa.schema([item_id, *decided])),
                LOG_FOLDER: Output(
                    schema=log_schema(ctx.types["item_id"], ctx.label_type), rows="some"
                ),
                f"{ctx.stage}/_settled": Output(
                    schema=pa.schema([("settled_action", pa.uint8()), ("held", pa.uint8())]),
                    ipc=True,
                ),
            },
            apply=settle_shard,
        ),
        Reduce(
            name="outcome",
            reads=[*NARROW, "settled_action", "held"],
            summarize=count_outcome,
            finish=report_outcome,
        ),
    ]


def _flags(ctx: Context) -> list[str]:
    return ["is_label_issue", *(name for name in FOUND if name in ctx.columns)]


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


def propose_shard(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Propose an action for every item, and write down its belief as a soft label."""
    probs = predictions_of(frame, ctx)
    flags = {
        "is_issue": _flag(frame, "is_label_issue"),
        "is_conflict": _flag(frame, "is_duplicate_conflict"),
        "is_outlier": _flag(frame, "is_outlier"),
        "is_copy": _is_copy(frame),
    }
    reviewed = reviewed_classes(frame["item_id"], ctx)
    of_block = _listed_beliefs if isinstance(probs, TopRows) else _whole_beliefs
    step, proposals = of_block(frame, probs, reviewed, ctx)
    schema = pa.schema(_proposed(ctx.n_classes))
    parts = [schema.empty_table()]
    for start in range(0, frame.n, step):
        rows = slice(start, start + step)
        found, soft = proposals(rows, {name: flag[rows] for name, flag in flags.items()})
        arrays = [
            *(found.action, found.rule, found.new),
            *(p.astype(np.float32) for p in (found.p_new, found.p_given, found.p_second)),
            reviewed[rows],
            pa.ListArray.from_arrays(soft.offsets, soft.ids),
            pa.ListArray.from_arrays(soft.offsets, pa.array(soft.probs)),
            pa.array(soft.tail),
        ]
        parts.append(pa.table(arrays, names=schema.names))
    table = pa.concat_tables(parts).add_column(0, "item_id", frame["item_id"])
    return {f"{ctx.stage}/_proposed": table}


Proposed = Callable[[slice, dict[str, np.ndarray]], tuple[Proposals, SoftLabels]]
"""Proposals and soft labels of some rows, given what was found of them."""


def _whole_beliefs(
    frame: Frame, probs: Probs, reviewed: np.ndarray, ctx: Context
) -> tuple[int, Proposed]:
    """Return how many rows to take at a time, and what is proposed for them."""
    given, policy, k = frame.array("given"), policy_of(ctx.config), ctx.config.top_k
    noise, temperature = noise_of(ctx), float(ctx.own("temperature")["temperature"])
    totals = frame.array(TOTALS) if TOTALS in frame.reads else None

    def proposed(rows: slice, flags: dict[str, np.ndarray]) -> tuple[Proposals, SoftLabels]:
        if totals is None:
            block = probs[rows]
            assert isinstance(block, np.ndarray)
            belief = believe(block, given[rows], noise, temperature)
        else:
            belief = totals[rows].astype(np.float64)
            belief /= belief.sum(axis=1, keepdims=True)
        found = propose(belief, given[rows], policy=policy, **flags)
        seen = np.flatnonzero(reviewed[rows] >= 0)
        belief[seen] = 0.0
        belief[seen, reviewed[rows][seen]] = 1.0
        return found, sparsify(belief, given=given[rows], k=k)

    return block_rows(ctx.n_classes), proposed


def _listed_beliefs(
    frame: Frame, probs: Probs, reviewed: np.ndarray, ctx: Context
) -> tuple[int, Proposed]:
    """Do the same, where only the probable classes of each item are listed."""
    assert isinstance(probs, TopRows)
    given, policy, k = frame.array("given"), policy_of(ctx.config), ctx.config.top_k
    noise, temperature = sparse_noise_of(ctx), float(ctx.own("temperature")["temperature"])
    n_listed = int(probs.n_listed.max(initial=0))
    # Two more than are stored: the most believed class but one is wanted, too.
    likeliest = noise.likeliest(k + 2 + n_listed)

    def proposed(rows: slice, flags: dict[str, np.ndarray]) -> tuple[Proposals, SoftLabels]:
        block, mine = probs[rows], given[rows].astype(np.int64)
        ids = candidates(block, mine, likeliest, reviewed[rows])
        belief = believe_top(block, mine, noise, temperature, ids)
        found = propose(belief.belief, belief.column_of(mine), policy=policy, **flags)
        certain = with_certainty(belief, reviewed[rows])
        return in_classes(found, belief), soften(certain, mine, k=k)

    return block_rows(2 * n_listed + k + 4), proposed


def _flag(frame: Frame, name: str) -> np.ndarray:
    if name not in frame:
        return np.zeros(frame.n, bool)
    flag: np.ndarray = frame[name].fill_null(False).to_numpy(zero_copy_only=False)
    return flag


def _is_copy(frame: Frame) -> np.ndarray:
    """Return which items are a duplicate of another that stands for their set."""
    if "duplicate_set" not in frame:
        return np.zeros(frame.n, bool)
    first = frame["duplicate_set"].fill_null(0).to_numpy(zero_copy_only=False)
    inside = frame["duplicate_set"].is_valid().to_numpy(zero_copy_only=False)
    return np.asarray(inside & (first != frame.array("item_hash")))


def settle_shard(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Write decisions, their log, and what the totals are counted from."""
    final, held = settled(frame, ctx)
    label, confidence, weight = outcome(final, frame.array("given"))
    decision = np.array(DECISIONS)[final.action]
    rule = np.array([rule.name for rule in rules(ctx.config.relabel_confidence)])[final.rule]
    arrays = [
        *(frame["item_id"], decision, ctx.labels(label), rule, _reasons(ctx, final, held)),
        *(confidence, weight, *(frame[name] for name in SOFT)),
    ]
    names = ["item_id", *(name for name, _ in _decided(pa.null(), 2))]
    return {
        ctx.stage: pa.table(arrays, names=names),
        LOG_FOLDER: _log(frame, ctx, final, label, confidence),
        f"{ctx.stage}/_settled": pa.table([final.action, held], names=["settled_action", "held"]),
    }


def _reasons(ctx: Context, final: Proposals, held: np.ndarray) -> pa.Array:
    """Return the reasons; there are few different ones, so each is worded once."""
    listed = rules(ctx.config.relabel_confidence)
    code = (final.rule.astype(np.int64) * 16 + held) * 16 + final.action
    codes, of_item = np.unique(code, return_inverse=True)
    texts = [reason(listed[c // 256], Held(c // 16 % 16), Action(c % 16)) for c in codes.tolist()]
    return pa.array(texts, pa.string()).take(pa.array(of_item))


def _log(
    frame: Frame, ctx: Context, final: Proposals, label: np.ndarray, confidence: np.ndarray
) -> pa.Table:
    """Return one row for every item that is not simply kept."""
    rows = np.flatnonzero(final.rule != NO_ISSUE)
    at = pa.array(rows)
    rule = final.rule[rows]
    flags = {name: frame[name].take(at) for name in _flags(ctx) if name.startswith("is_")}
    return log_rows(
        item_id=frame["item_id"].take(at),
        before=ctx.labels(frame.array("given")[rows]),
        after=ctx.labels(label[rows]),
        action=np.array([action.name.lower() for action in Action])[final.action[rows]],
        p_correct=confidence[rows],
        rule=np.array([rule.name for rule in rules(ctx.config.relabel_confidence)])[rule],
        evidence={
            "p_given": final.p_given[rows].astype(np.float32),
            "p_believed": final.p_new[rows].astype(np.float32),
            "believed": ctx.labels(final.new[rows]),
            "label_score": frame["label_score"].take(at).cast(pa.float32()),
            **flags,
        },
        actor=np.where(rule == REVIEWED, "reviewer", f"stage {ctx.stage}"),
        run=ctx.run_key,
    )


STAGE = Stage(
    name="decide",
    version=1,
    doc="decides for every item: keep, relabel, drop, review or soften, and logs why",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    files=lambda config: [config.reviewed] if config.reviewed else [],
    folders=(LOG_FOLDER,),
    decides=True,
)
