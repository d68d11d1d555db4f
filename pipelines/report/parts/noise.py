"""What stage `confident` says in the data card; its sections of the page are older than parts."""

from pipelines.core.stage import Context
from pipelines.report.limits import Limits
from pipelines.report.model import Section


def part(ctx: Context, limits: Limits) -> Section:
    """Return how many labels were wrong, as estimated."""
    found = ctx.own("estimates")
    n = [int(found[f"n_errors{end}"]) for end in ("", "_low", "_high")]
    rate = float(found["total_noise_rate"])
    return Section(
        name="noise",
        card=f"About {n[0]:,} labels were wrong before ({n[1]:,} to {n[2]:,} with 95 % confidence, "
        f"{rate:.1%}), as estimated by confident learning.",
    )
