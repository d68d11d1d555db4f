"""What stage `decide_maps` says in the data card."""

from pipelines.core.stage import Context
from pipelines.maps.evidence import COMPLETE, KNOWN, POSITIVES, REFERENCE
from pipelines.report.limits import Limits
from pipelines.report.model import Section

KNOWN_OF = {
    POSITIVES: "How often added labels are right is not known: cutoffs were chosen on what items "
    "have, and nobody said what they have not. Give `localize.reference` a table of items with all "
    "their classes to measure it.",
    COMPLETE: "The source's lists are said to be complete, so what is found besides contradicts "
    "them, and nothing was added.",
    KNOWN: "Cutoffs and probabilities come from {n_items:,} items of which some classes are known; "
    "they hold for the others if what is known does not depend on how sure the maps are.",
    REFERENCE: "Cutoffs and probabilities come from {n_items:,} items of the reference; they hold "
    "for the others if those were drawn at random.",
}


def part(ctx: Context, limits: Limits) -> Section:
    """Return how many labels were added, and how far that can be relied on."""
    outcome, cutoffs = ctx.own("outcome"), ctx.result(ctx.beliefs_stage, "cutoffs")
    n_given = int(ctx.result("source", "census")["n_given"].sum())
    said = KNOWN_OF[str(outcome["known"])].format(n_items=int(cutoffs["n_items"]))
    return Section(
        name="added",
        card=f"To {n_given:,} labels {int(outcome['added'].sum()):,} were added. {said}",
    )
