"""A report of items in bags, as a run would give it, with names of one's own."""

from dataclasses import replace

import numpy as np

from pipelines.report import model as m
from pipelines.report.parts.bags import (
    Bags,
    bag_plot,
    class_table,
    improbable_table,
    round_table,
    share_table,
)
from pipelines.report.parts.totals import totals
from tests.pipelines.planted_report import about_it, example


def round_of(components: int, strength: float, *, approximated: int = 0) -> dict[str, np.ndarray]:
    """Make what one round of learning from totals says of itself."""
    said = {"n_components": components, "n_open": 0, "strength": strength}
    return {name: np.array(value) for name, value in said.items()} | {
        "n_saddle_point": np.array(approximated)
    }


def of_bags(
    names: tuple[str, ...] = ("abnormal", "normal"), text: str = "ward-7", *, n_others: int = 0
) -> Bags:
    """Make what a run of two rounds found of bags, one of which has more than is expected."""
    n, of, k = len(names), np.ones(len(names)), np.array([1, 1])
    census = {
        "classes": np.array(names), "share": 0.3 * of, "share_std": 0.2 * of,
        "share_by_chance": 0.15 * of, "bag_ids": np.array([text, "ward-8"]),
        "sizes": np.array([12, 12]), "counts": np.array([[0, 11], [0, 0]]),
    }  # fmt: skip
    last = {
        "expected": np.array([[0, 3.25], [0, 7.5]]),
        "p_value": np.array([[1, 1e-5], [1, 2e-4]]),
        "q_value": np.array([[1, 4e-4], [1, 8e-3]]),
    }
    counted, expected = np.array([11 / 12, 0, 0.3]), np.array([3.25 / 12, 7.5 / 12, 0.25])
    plot = bag_plot(counted, expected, 2, 600, names)
    likely = [np.full(n, 380 // n), *([np.zeros(n, int)] * bool(n_others))]
    return Bags(
        count=40, items=400, others=n_others, absent=0, incomplete=0,
        smallest=8, median=9.5, largest=12,
        shares=share_table(census, 20),
        is_constant=False, is_learned=True, held_out=6, loss_model=0.25, loss_constant=0.5,
        rounds=round_table([("proportions", round_of(40, 0.0)),
                            ("proportions@2", round_of(31, 0.3))]),
        last="proportions@2", rounded=0, residual=0.0, dispersion=1.0, improbable=2,
        shown=improbable_table(census, last, np.arange(2), k, 12),
        order=names,
        classes=class_table(np.array(names), np.full(n, 400 // n), *likely),
        sureness=0.815, n_classes=n,
        plot=None if plot is None else plot._replace(n_points=40),
    )  # fmt: skip


def without_improbable(bags: Bags) -> Bags:
    """Return bags of which no total is improbable."""
    none = tuple(replace(column, values=()) for column in bags.shown.columns)
    return replace(bags, improbable=0, shown=replace(bags.shown, columns=none))


def bagged(bags: Bags) -> m.Report:
    """Return a report of bags and of nothing else."""
    accounts = [section for section in about_it(None) if section.name != "quarantine"]
    return m.Report(
        title="wards", n_classes=len(bags.order) or 2, sections=(totals(bags), *accounts),
        ledger=m.Ledger(
            source=400, kept=400, relabelled=0, dropped=0, review=0, unresolved=0, quarantined=0
        ),
    )  # fmt: skip


def once(bags: Bags) -> Bags:
    """Return totals that were brought in where something was believed before."""
    return replace(bags, is_learned=False, held_out=bags.count, moved=61.0, last="proportions")


def audited(bags: Bags) -> m.Report:
    """Return a report of an audit that knew totals of bags."""
    report = example()
    sections = [*report.sections, totals(once(bags))]
    return replace(report, sections=tuple(sorted(sections, key=lambda section: section.rank)))
