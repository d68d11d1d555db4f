"""Tables and text of the report as Prefect shows them: plain values, escaped, of bounded size."""

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipelines.report.text import literal

if TYPE_CHECKING:
    from pipelines.report.model import Column, Report, Table

MOST_ROWS = 200
"""Longer tables are no help in a browser, and every row is stored with every run."""

DRAWN = ("bar", "share", "between", "between decimal")
"""Columns that show the value of another one once more."""

Row = dict[str, Any]


def artifact_key(*parts: str) -> str:
    """Return an artifact key: lower-case letters, digits and dashes are all that Prefect takes.

    Examples
    --------
    >>> artifact_key("labelops-progress", "proportions@2")
    'labelops-progress-proportions-2'
    """
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def number(value: float | int | None) -> float | int | None:
    """Return a number that JSON can hold: NaN and infinities become null."""
    if value is None:
        return None
    if isinstance(value, bool | int):
        return int(value)
    value = float(value)
    if not math.isfinite(value):
        return None
    # Six digits tell a table enough; those of a p-value may all come after the point.
    return round(value, 6) if abs(value) >= 0.001 else float(f"{value:.3g}")


def tables(report: "Report") -> dict[str, "Table"]:
    """Return the tables of a report that are kept from run to run, by name."""
    return dict(artifact for section in report.sections for artifact in section.artifacts)


def rows_of(table: "Table") -> list[Row]:
    """Return a table as one mapping a row."""
    return [
        dict(
            entry
            for column, value in zip(table.columns, row, strict=True)
            for entry in _entries(column, value)
        )
        for row in table.rows[:MOST_ROWS]
    ]


def _entries(column: "Column", value: Any) -> Iterator[tuple[str, Any]]:
    """Return the values of a cell, by the names that they have in a row."""
    from pipelines.report.model import Estimate

    if column.kind in DRAWN:
        return
    if isinstance(value, Estimate):
        yield column.head, number(value.value)
        yield f"{column.head}, low", number(value.low)
        yield f"{column.head}, high", number(value.high)
    elif column.kind == "change":
        yield from zip(("Given", "Believed"), value, strict=True)
    elif column.kind == "noted":
        yield column.head, value[0]
    else:
        yield column.head, value if isinstance(value, str) else number(value)


def issues(report: "Report") -> list[Row]:
    """Return the items that the report shows class by class, most suspicious first."""
    from pipelines.report.model import Group, Items

    section = report.section("worst")
    shown = [
        (group.name, block, item)
        for group in (() if section is None else section.blocks)
        if isinstance(group, Group)
        for block in group.blocks
        if isinstance(block, Items)
        for item in block.items
    ]
    ranked = []
    for name, block, item in shown:
        score = number(item.score)
        # A probability that it is wrong, or a score that is low where it is.
        doubt = -1 if block.score_kind == "percent" else 1
        row = {
            "item": item.item_id,
            "shard": item.shard,
            "class": name,
            "given": item.given,
            "believed": item.believed,
            block.score: score,
        }
        ranked.append((math.inf if score is None else doubt * score, item.item_id, row))
    return [row for *_, row in sorted(ranked, key=lambda one: one[:2])[:MOST_ROWS]]


def summary(report: "Report") -> str:
    """Return the run in a few lines of Markdown."""
    lines = [f"# {literal(report.title)}", ""]
    lines += [line for section in report.sections if section.card for line in (section.card, "")]
    lines += ["| items | |", "|---|---:|"]
    for name in ("source", "kept", "relabelled", "dropped", "review", "unresolved", "quarantined"):
        lines.append(f"| {name} | {getattr(report.ledger, name):,} |")
    if report.notices:
        lines += ["", "Assumed or left out:", ""]
        lines += [f"* {literal(notice, 1000)}" for notice in report.notices]
    return "\n".join(lines) + "\n"
