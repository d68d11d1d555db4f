"""Stage `decide_positives`: label unlabelled items that are surely positive, with a log of each.

Beliefs of the last stage that offers any propose, rule by rule; see `pipelines.decisions.engine`.
Items that are labelled keep what they have.
"""

import numpy as np
from pydantic import BaseModel, Field

from labelops.partial.recover import POSITIVE, RecoverPolicy, propose, rules
from pipelines.core.stage import Context
from pipelines.decisions.engine import Decider, Proposed, deciding_stage
from pipelines.decisions.limits import Gate, Limits, MaxReview
from pipelines.labels.positives import GIVEN, SPACE
from pipelines.storage.frame import Frame


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide_positives`."""

    recover_confidence: float = Field(
        default=0.9,
        gt=0.5,
        le=1.0,
        description="An unlabelled item with at least this probability is labelled positive.",
    )
    review_confidence: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="With at least this probability it is set aside for review, those that are "
        "nearest to being recovered first.",
    )
    max_change_share: float | None = Field(
        default=None,
        ge=0.0,
        description="At most this many items are labelled positive, as a share of those labelled. "
        "Absent: at most as many as the class prior says at least.",
    )
    max_review: MaxReview = 500
    gate: Gate = "expected"
    reviewed: str | None = Field(
        default=None,
        description="Local Parquet or CSV file with item_id and true_label (true or false) of "
        "reviewed items.",
    )


def policy_of(config: Config) -> RecoverPolicy:
    """Return the settings as the mathematics takes them."""
    return RecoverPolicy(config.recover_confidence, config.review_confidence)


def propose_shard(frame: Frame, ctx: Context[Config]) -> Proposed:
    """Propose that unlabelled items are positive."""
    none = np.full(frame.n, -1)
    ((_, belief),) = ctx.asked.blocks(frame, ctx, 1, none)
    p, cautious = belief.belief[:, POSITIVE], belief.cautious[:, POSITIVE]
    proposals = propose(
        p, cautious, frame.array(GIVEN), is_weak=not belief.is_trusted, policy=policy_of(ctx.config)
    )
    return Proposed(proposals)


def supported(ctx: Context[Config]) -> int:
    """Return how many unlabelled items are positive at least, by the class prior.

    At most, where reviewed items say that a rule is right.
    """
    found, judged = ctx.result(ctx.beliefs_stage, "scores"), ctx.own("gate")
    is_measured = bool((judged["is_measured"] & judged["ships"] & judged["changes_labels"]).any())
    end = "high" if is_measured else "low"
    return int(float(found[end]) * int(found["unlabelled"].sum()))


STAGE = deciding_stage(
    Decider(
        name="decide_positives",
        doc="labels unlabelled items that are surely positive, within limits, and logs why",
        config=Config,
        clean=SPACE,
        propose=propose_shard,
        rules=lambda ctx: rules(policy_of(ctx.config)),
        limits=Limits.of,
        supported=supported,
        asks="positive",
    )
)
