"""What to look at first, in order of what it is likely to cost."""

from collections.abc import Iterator

from pipelines.report.model import Finding, Report
from pipelines.report.text import count, plural, verb


def findings(report: Report, most: int = 6) -> tuple[Finding, ...]:
    """Findings of a report, most important first."""
    unranked = [*_whole(report), *(one for section in report.sections for one in section.findings)]
    return tuple(sorted(unranked, key=lambda finding: finding.rank)[:most])


def _whole(report: Report) -> Iterator[Finding]:
    """What concerns the run as a whole."""
    ledger = report.ledger
    if not ledger.is_balanced:
        yield Finding(
            "Item counts do not add up",
            "Kept, relabelled, dropped, review, unresolved and quarantined do not add up to the "
            "source. "
            "Do not use this dataset until the cause is known.",
            "accounts",
            rank=0,
        )
    if ledger.review:
        worst = report.section("worst")
        below = "" if worst is None else "; the worst of each class are shown below"
        yield Finding(
            f"{plural(ledger.review, 'item')} {verb(ledger.review, 'needs', 'need')} review by a "
            "person",
            "The label is in doubt, but the model is not confident enough to change it. "
            f"They are in the set_aside folder{below}.",
            "accounts" if worst is None else "worst",
            rank=70,
        )
    if ledger.quarantined:
        yield Finding(
            f"{count(ledger.quarantined)} {verb(ledger.quarantined, 'row', 'rows')} could not be "
            "used",
            "The section on quarantine lists reasons and examples; "
            "the rows in the source are unchanged.",
            "quarantine",
            rank=100,
        )
