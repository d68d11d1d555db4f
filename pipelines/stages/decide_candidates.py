"""Stage `decide_candidates`: choose the label among an item's candidates, with a log.

The most believed candidate becomes the label where it is sure enough. Where it is not, or where no
candidate is believed more than by chance, somebody should look; beyond the budget the item is set
aside as unresolved. An item of one candidate keeps it. See `pipelines.decisions.engine`.
"""

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from labelops.decisions import COMMON, NO_ISSUE, UNSAID, Action, Proposals, Rule, bands, labels
from labelops.top_belief import soften, with_certainty
from pipelines.core.stage import Arrays, Context
from pipelines.decisions.engine import Decider, Proposed, deciding_stage
from pipelines.decisions.limits import Gate, Limits, MaxReview
from pipelines.decisions.reviews import reviewed_classes
from pipelines.labels.candidates import SPACE, candidate_sets
from pipelines.labels.columns import soft_columns, soft_fields
from pipelines.storage.frame import Frame


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide_candidates`."""

    choose_confidence: float = Field(
        default=0.9,
        ge=0.5,
        le=1.0,
        description="A candidate with at least this probability becomes the label.",
    )
    max_review: MaxReview = 500
    gate: Gate = "expected"
    reviewed: str | None = Field(
        default=None,
        description="Local Parquet or CSV file with item_id and true_label of reviewed items.",
    )
    top_k: int = Field(default=5, ge=1, description="Classes stored in a soft label.")


FIXED_RULES = (
    *COMMON,
    Rule("none-believed", "none of its candidates is believed", is_certain=True),
    Rule("unsure", "no candidate is sure enough"),
)
NONE, UNSURE = range(2, 4)


def rules(ctx: Context[Config]) -> tuple[Rule, ...]:
    """Return all rules; those that choose a label come last, one a band of probability."""
    edges = bands(ctx.config.choose_confidence)
    choosing = (
        Rule(f"chosen-{e:g}", f"a candidate has a probability of at least {e:g}", changes=True)
        for e in edges
    )
    return (*FIXED_RULES, *choosing)


def propose_shard(frame: Frame, ctx: Context[Config]) -> Proposed:
    """Propose an action for every item."""
    sets, reviewed = candidate_sets(frame, ctx), reviewed_classes(frame, ctx)
    size, edges = np.diff(sets.start), np.array(bands(ctx.config.choose_confidence))
    unbelieved = frame["is_unbelieved"].to_numpy(zero_copy_only=False)
    first, k = np.where(size > 0, sets.ids[sets.start[:-1]], 0).astype(np.int64), ctx.config.top_k
    proposals, soft = [], []
    for here, found in ctx.asked.blocks(frame, ctx, k, reviewed):
        # In single precision, in which they are compared and written.
        belief = found.belief.astype(np.float32).astype(np.float64)
        is_sole, mine = size[here] == 1, first[here]
        action = np.full(len(mine), Action.KEEP)
        rule = np.full(len(mine), NO_ISSUE)
        proposed = labels(belief, mine, action, rule)
        sure = found.cautious[np.arange(len(mine)), proposed.after].astype(np.float32)
        proposed = proposed._replace(p_after=np.minimum(proposed.p_after, sure))
        band = np.searchsorted(edges, proposed.p_after, side="right") - 1
        chosen, is_none = ~is_sole & (band >= 0), unbelieved[here] | (found.others > 0.5)
        rule = np.where(is_sole, rule, np.where(chosen, len(FIXED_RULES) + band, UNSURE))
        rule = np.where(is_none, NONE, rule)
        action = np.where(is_sole, action, np.where(chosen, Action.RELABEL, Action.REVIEW))
        action = np.where(is_none, Action.REVIEW, action)
        # Nobody gave one of several: what is as good as given is one that is drawn blindly, and a
        # choice takes nothing from anybody.
        blind = np.where(chosen & ~is_none, 0.0, belief.sum(axis=1) / size[here])
        proposals.append(
            proposed._replace(
                row=proposed.row + here.start,
                before=np.where(is_sole, mine, UNSAID),
                action=action.astype(np.uint8),
                rule=rule.astype(np.uint8),
                # A given label that is not believed is not trained on, either.
                p_before=np.where(is_sole, np.where(is_none, 0.0, proposed.p_before), blind),
                p_next=np.maximum(proposed.p_next, np.where(is_sole, found.others, 0.0)),
            )
        )
        certain = with_certainty(found, reviewed[here])
        kept = np.where(is_sole, mine, certain.belief.argmax(axis=1))
        soft.append(soft_columns(soften(certain, kept, k=k)))
    whole = Proposals(*(np.concatenate(part) for part in zip(*proposals, strict=True)))
    return Proposed(whole, [pa.concat_arrays(parts) for parts in zip(*soft, strict=True)])


def notes(ctx: Context[Config]) -> Arrays:
    """Return how soft labels were made."""
    top_k = {"top_k": np.array(min(ctx.config.top_k, ctx.n_classes))}
    return {**top_k, "temperature": np.array(ctx.asked.temperature(ctx))}


STAGE = deciding_stage(
    Decider(
        name="decide_candidates",
        version=2,
        doc="chooses the label among an item's candidates, or sets the item aside, and logs why",
        config=Config,
        clean=SPACE,
        needs=lambda config, columns: ["is_unbelieved"],
        propose=propose_shard,
        rules=rules,
        limits=Limits.of,
        carried=soft_fields,
        notes=notes,
        asks="candidates",
    )
)
