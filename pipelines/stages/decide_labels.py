"""Stage `decide_labels`: add and remove labels of items that have several, with a log of each.

Beliefs in single classes, of the last stage that offers any, propose, rule by rule; see
`pipelines.decisions.engine`.
"""

from pydantic import BaseModel, Field

from labelops.decisions import cells
from labelops.multilabel.decide import ALLOWANCE, LEAST_CHANGES, LabelPolicy, propose, rules
from pipelines.core.stage import Context
from pipelines.decisions.engine import Decider, Proposed, deciding_stage
from pipelines.decisions.gate import Allowance
from pipelines.decisions.limits import Gate, Limits, MaxReview, Reviewed
from pipelines.labels.lists import SPACE
from pipelines.storage.frame import Frame


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide_labels`."""

    add_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="A missing class with at least this probability is added.",
    )
    remove_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="A given class that is wrong with at least this probability is removed.",
    )
    review_confidence: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="With at least this probability of either, the item is set aside for review.",
    )
    max_change_share: float = Field(
        default=0.2,
        ge=0.0,
        le=1.0,
        description="At most this many labels are added or removed, as a share of those given.",
    )
    max_review: MaxReview = 500
    min_class_size: int = Field(
        default=10,
        ge=0,
        description="No label of a class is removed if the class could become smaller than this.",
    )
    gate: Gate = "expected"
    reviewed: Reviewed = None


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
        version=5,
        doc="adds and removes labels of multi-label items, within limits, and logs why",
        config=Config,
        clean=SPACE,
        needs=lambda config, columns: ["is_label_issue", "label_score"],
        propose=propose_shard,
        rules=lambda ctx: rules(policy_of(ctx.config)),
        limits=Limits.of,
        allowance=lambda ctx: Allowance(ALLOWANCE, ALLOWANCE / 2, least=LEAST_CHANGES),
        asks="classes",
    )
)
