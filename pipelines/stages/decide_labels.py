"""Stage `decide_labels`: add and remove labels of items that have several, with a log of each.

Beliefs in single classes, of the last stage that offers any, propose, rule by rule; see
`pipelines.decisions.engine`.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, Field

from labelops.decisions import cells
from labelops.multilabel.decide import ALLOWANCE, LabelPolicy, propose, rules
from pipelines.core.stage import Context
from pipelines.decisions.engine import Decider, Proposed, deciding_stage
from pipelines.decisions.gate import Allowance
from pipelines.decisions.limits import Limits
from pipelines.labels.lists import SPACE
from pipelines.storage.frame import Frame


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


def needs(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns with what was found of items."""
    return ["is_label_issue", "label_score"]


def limits(config: Config) -> Limits:
    """Return how far it may go."""
    return Limits(
        max_change_share=config.max_change_share,
        max_review=config.max_review,
        min_class_size=config.min_class_size,
        must_be_measured=config.gate == "measured",
        reviewed=config.reviewed,
    )


def policy_of(config: Config) -> LabelPolicy:
    """Return the settings as the mathematics takes them."""
    return LabelPolicy(config.add_confidence, config.remove_confidence, config.review_confidence)


def propose_shard(frame: Frame, ctx: Context[Config]) -> Proposed:
    """Propose an action for every cell of which something is believed."""
    beliefs = ctx.asked.cells(frame, ctx)
    action, rule = propose(beliefs.p, beliefs.is_given, policy=policy_of(ctx.config))
    return Proposed(cells(beliefs.row, beliefs.class_id, beliefs.is_given, action, rule, beliefs.p))


STAGE = deciding_stage(
    Decider(
        name="decide_labels",
        version=2,
        doc="adds and removes labels of items that have several, within limits, and logs why",
        config=Config,
        clean=SPACE,
        needs=needs,
        propose=propose_shard,
        rules=lambda ctx: rules(policy_of(ctx.config)),
        limits=limits,
        allowance=Allowance(gain=ALLOWANCE, share=ALLOWANCE / 2),
        asks="classes",
    )
)
