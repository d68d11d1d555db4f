"""A report of items in bags, as a run would give it, with names of one's own."""

from dataclasses import replace

from pipelines.report import model as m
from pipelines.report.limits import Limits
from pipelines.report.parts.bags import Bag, BagClass, BagPoint, BagRound, Bags, BagShare
from pipelines.report.parts.totals import totals
from tests.pipelines.planted_report import about_it, example


def of_bags(names: tuple[str, ...] = ("abnormal", "normal"), text: str = "ward-7") -> Bags:
    """Make what a run of two rounds found of bags, one of which has more than is expected."""
    n = len(names)
    return Bags(
        count=40, items=400, others=0, absent=0, incomplete=0, smallest=8, median=9.5, largest=12,
        shares=tuple(BagShare(name=name, mean=0.3, std=0.2, by_chance=0.15) for name in names),
        is_constant=False, is_learned=True, held_out=6, loss_model=0.25, loss_constant=0.5,
        rounds=(
            BagRound(name="proportions", components=40, not_settled=0, strength=0.0),
            BagRound(name="proportions@2", components=31, not_settled=0, strength=0.3),
        ),
        rounded=0, residual=0.0, dispersion=1.0, improbable=2,
        shown=(
            Bag(bag_id=text, name=names[1], items=12, count=11, expected=3.25,
                  p_value=1e-5, q_value=4e-4),
            Bag(bag_id="ward-8", name=names[1], items=12, count=0, expected=7.5,
                  p_value=2e-4, q_value=8e-3),
        ),
        order=names,
        classes=tuple(
            BagClass(name=name, counted=400 // n, likely=380 // n, likely_others=0)
            for name in names
        ),
        sureness=0.815, n_classes=n,
        points=(
            BagPoint(counted=11 / 12, expected=3.25 / 12, is_improbable=True),
            BagPoint(counted=0, expected=7.5 / 12, is_improbable=True),
            BagPoint(counted=0.3, expected=0.25, is_improbable=False),
        ),
        n_points=40,
    )  # fmt: skip


def bagged(bags: Bags) -> m.Report:
    """Return a report of bags and of nothing else."""
    accounts = [section for section in about_it(None) if section.name != "quarantine"]
    return m.Report(
        title="wards", n_classes=len(bags.order) or 2, sections=(totals(bags, Limits()), *accounts),
        ledger=m.Ledger(source=400, kept=400, relabelled=0, dropped=0, review=0, quarantined=0),
    )  # fmt: skip


def once(bags: Bags) -> Bags:
    """Return totals that were brought in where something was believed before."""
    return replace(bags, is_learned=False, held_out=bags.count, moved=61.0, rounds=bags.rounds[:1])


def audited(bags: Bags) -> m.Report:
    """Return a report of an audit that knew totals of bags."""
    report = example()
    sections = [*report.sections, totals(once(bags), Limits())]
    return replace(report, sections=tuple(sorted(sections, key=lambda section: section.rank)))
