"""What stage `multilabel` says in the data card."""

from labelops.multilabel.beliefs import expected_errors
from pipelines.core.stage import Context
from pipelines.report.limits import Limits
from pipelines.report.model import Section


def part(ctx: Context, limits: Limits) -> Section:
    """Return how many labels are believed wrong, and how many missing."""
    n_given, beliefs = int(ctx.own("estimates")["n_given"][:, 1].sum()), ctx.own("beliefs")
    n_wrong, n_missing = expected_errors(
        n_given, wrong=float(beliefs["wrong"]), missing=float(beliefs["missing"])
    )
    return Section(
        name="listed",
        card=f"Of {n_given:,} labels about {n_wrong:,.0f} are believed wrong, and about "
        f"{n_missing:,.0f} missing. Where the model is weak that is too many.",
    )
