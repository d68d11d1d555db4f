"""Stage `decide_maps`: from what label maps show to training labels, with a log of each change.

Classes that were found in a picture are added to those that were given, as far as evidence lets
them; where one was ruled out before, a person should look. Rules that add classes are judged by
those they would have added to items of which it is known what they have, with cutoffs that were
chosen on other items. Where no item is known so, nobody can say how often added classes are right,
and it is a setting whether they are added all the same. See `pipelines.decisions.engine`.
"""

import numpy as np
from pydantic import BaseModel, Field, field_validator

from labelops.decisions import BANDS, COMMON, UNSAID, Action, Rule, bands, cells
from labelops.gate import Evidence, Interval, Verdict, measured_gain
from pipelines.core.stage import Arrays, Context
from pipelines.decisions.engine import Decider, Proposed, deciding_stage
from pipelines.decisions.gate import Allowance
from pipelines.decisions.limits import Limits, MaxReview, Reviewed
from pipelines.labels.lists import SPACE, has_unknown
from pipelines.labels.space import given_columns
from pipelines.maps.evidence import COMPLETE, POSITIVES, is_calibrated, known
from pipelines.maps.sets import CONTRADICTED, SEEN
from pipelines.storage.frame import Frame


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `decide_maps`."""

    add_confidence: float = Field(
        default=0.5,
        description="A found class with at least this probability is added, if probabilities are "
        f"known: one of {', '.join(map(str, BANDS))}.",
    )
    review_confidence: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="If a class that was ruled out has at least this probability, the item is set "
        "aside for review.",
    )
    max_review: MaxReview = 500
    add_unmeasured: bool = Field(
        default=False,
        description="Whether to add classes if only present classes are known, so that the "
        "precision of added labels cannot be measured.",
    )
    reviewed: Reviewed = None

    @field_validator("add_confidence")
    @classmethod
    def _check_band(cls, value: float) -> float:
        # Held-out evidence is counted by band.
        if value not in BANDS:
            raise ValueError(f"add_confidence must be one of {BANDS}, got {value}")
        return value


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None."""
    return None if given_columns(columns) else "items have no labels"


FIXED_RULES = (
    *COMMON,
    Rule("map-unseen", "a given class was not found in the picture"),
    Rule("map-contradicts", "a class that was ruled out was found in the picture"),
    Rule("map-unsure", "a class may be in the picture, but its probability is too low to add it"),
)
UNSEEN, CONTRADICTS, UNSURE = range(2, 5)

WHY = {
    POSITIVES: "not measured: labels say which classes are present, not which are absent, so "
    "precision is unknown. To measure it, name a localize.reference",
    COMPLETE: "the lists of labels count as complete, so any further class contradicts "
    "them. Recipe 'multilabel' weighs the two; or name a localize.reference; or set "
    "data.absent_labels to unknown",
}


def rules(ctx: Context[Config]) -> tuple[Rule, ...]:
    """Return all rules; those that add labels come last, one a band of probability if there is one.

    Agreement of what is given and what is seen needs no rule. What they hold back is not looked at:
    that a class may be there which nobody asked for is no fault of a label.
    """
    edges = bands(ctx.config.add_confidence) if is_calibrated(ctx) else ()
    adding = [
        (f"map-seen-{e:g}", f"a class was found, with a probability of at least {e:g}")
        for e in edges
    ] or [("map-seen", "a class was found in the picture")]
    rules = (Rule(name, text, changes=True, is_worth_a_look=False) for name, text in adding)
    return (*FIXED_RULES, *rules)


def propose_shard(frame: Frame, ctx: Context[Config]) -> Proposed:
    """Propose an action for every class on which maps and labels do not plainly agree."""
    beliefs = ctx.asked.cells(frame, ctx)
    is_no, is_new = beliefs.kind == CONTRADICTED, beliefs.kind == SEEN
    rule = np.full(len(beliefs.row), UNSEEN)
    action = np.full(len(beliefs.row), Action.KEEP)
    rule[is_no], action[is_no] = CONTRADICTS, Action.REVIEW
    first = len(FIXED_RULES)
    if is_calibrated(ctx):
        action[is_no & (beliefs.p < ctx.config.review_confidence)] = Action.KEEP
        band = np.searchsorted(bands(ctx.config.add_confidence), beliefs.p, side="right") - 1
        rule[is_new] = np.where(band >= 0, first + band, UNSURE)[is_new]
        action[is_new & (band >= 0)] = Action.ADD
    else:
        rule[is_new], action[is_new] = first, Action.ADD
    proposed = cells(beliefs.row, beliefs.class_id, beliefs.is_given, action, rule, beliefs.p)
    if has_unknown(ctx):
        proposed = proposed._replace(before=np.where(is_new, UNSAID, proposed.before))
    return Proposed(proposed)


def judge(
    evidence: Evidence, rule: int, limits: Limits, allowance: Allowance, ctx: Context[Config]
) -> tuple[Evidence, Verdict]:
    """Judge a rule that adds labels by held-out items; without any, by the settings."""
    if not is_calibrated(ctx):
        what = known(ctx)
        ships = what == POSITIVES and ctx.config.add_unmeasured
        return evidence, Verdict(ships, Interval(0.0, -1.0, 1.0), False, WHY[what])
    cutoffs = ctx.result(ctx.beliefs_stage, "cutoffs")
    band = np.flatnonzero(cutoffs["edges"] >= ctx.config.add_confidence)[rule - len(FIXED_RULES)]
    right, wrong = (int(cutoffs[f"held_{what}"][band]) for what in ("right", "wrong"))
    n, gain = right + wrong, measured_gain(right, wrong, right + wrong)
    why = (
        f"measured on {n} held-out classes: {right} present, {wrong} absent, gain "
        f"{gain.value:+.2f} per change [{gain.low:+.2f}, {gain.high:+.2f}]"
    )
    if not gain.low > 0:
        why += "; held back: gain not clearly above 0"
    counted = evidence._replace(reviewed=n, fixed=right, broken=wrong)
    return counted, Verdict(gain.low > 0, gain, n > 0, why)


def notes(ctx: Context) -> Arrays:
    """Return what is known of the items on which cutoffs were chosen, and what that says."""
    return {
        "known": np.array(known(ctx)),
        "if_measured": np.array("Measured on held-out items: cutoffs were chosen without them."),
        "if_expected": np.array("Without measurements, no expected numbers are given."),
    }


STAGE = deciding_stage(
    Decider(
        name="decide_maps",
        version=4,
        doc="adds classes found in label maps to the given labels, if evidence supports them",
        config=Config,
        clean=SPACE,
        needs=lambda config, columns: ["present_ids"],
        propose=propose_shard,
        rules=rules,
        limits=Limits.of,
        allowance=lambda ctx: Allowance(gain=0.0, share=0.0),
        judge=judge,
        notes=notes,
        asks="maps",
        of_any=True,
        skip=skip,
    )
)
