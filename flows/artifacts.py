"""Tables and text of the report as Prefect shows them: plain values, escaped, of bounded size."""

import math
import re
from typing import TYPE_CHECKING, Any

from pipelines.report.text import literal

if TYPE_CHECKING:
    from pipelines.report.model import Estimate, LabelLists, ListedClass, Report

MOST_ROWS = 200
"""Longer tables are no help in a browser, and every row is stored with every run."""

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
    return round(value, 6) if math.isfinite(value) else None


def class_table(report: "Report") -> list[Row]:
    """Return one row a class, the worst first."""
    if report.lists is not None:
        return [_listed(c) for c in report.lists.classes[:MOST_ROWS]]
    found = sorted(report.classes, key=lambda c: (-c.wrong_share.value, c.name))
    return [
        {
            "class": c.name,
            "items": c.items,
            "flagged": c.flagged,
            "wrong share": number(c.wrong_share.value),
            "low": number(c.wrong_share.low),
            "high": number(c.wrong_share.high),
        }
        for c in found[:MOST_ROWS]
    ]


def _listed(c: "ListedClass") -> Row:
    return {
        "class": c.name,
        "given": c.given,
        **{
            f"{kind}{end}": number(value)
            for kind, estimate in (("wrong", c.wrong), ("missing", c.missing))
            for end, value in (
                ("", estimate.value),
                (" low", estimate.low),
                (" high", estimate.high),
            )
        },
        "flagged wrong": c.flagged_wrong,
        "flagged missing": c.flagged_missing,
    }


def _suspects(lists: "LabelLists") -> list[Row]:
    found = [
        (item, group.name, kind)
        for group in lists.suspects
        for kind, items in (("missing", group.missing), ("wrong", group.wrong))
        for item in items
    ]
    found.sort(key=lambda one: (-(one[0].score or 0.0), one[0].item_id, one[1]))
    return [
        {
            "item": item.item_id,
            "shard": item.shard,
            "class": name,
            "suspected": kind,
            "given": item.given,
            "probability": number(item.score),
        }
        for item, name, kind in found[:MOST_ROWS]
    ]


def issue_table(report: "Report") -> list[Row]:
    """Return the most suspicious items of every class, most suspicious first."""
    if report.lists is not None:
        return _suspects(report.lists)
    items = [item for group in report.worst for item in group.items]
    items.sort(key=lambda i: (math.inf if i.score is None else i.score, i.item_id))
    return [
        {
            "item": item.item_id,
            "shard": item.shard,
            "given": item.given,
            "believed": item.believed,
            "score": number(item.score),
        }
        for item in items[:MOST_ROWS]
    ]


def bag_table(report: "Report") -> list[Row]:
    """Return the totals of bags that are improbable, most improbable first."""
    if report.bags is None:
        return []
    return [
        {
            "bag": bag.bag_id,
            "class": bag.name,
            "items": bag.items,
            "count": bag.count,
            "expected": number(bag.expected),
            "p": float(f"{bag.p_value:.3g}"),
            "q": float(f"{bag.q_value:.3g}"),
        }
        for bag in report.bags.shown[:MOST_ROWS]
    ]


def summary(report: "Report") -> str:
    """Return the run in a few lines of Markdown."""
    ledger = report.ledger
    lines = [f"# {literal(report.title)}", ""]
    if report.wrong is not None and report.wrong_share is not None:
        share = report.wrong_share
        lines += [
            f"About **{_count(report.wrong)}** of {ledger.source:,} labels are wrong "
            f"({_percent(share.value)}{_interval(share)}).",
            "",
        ]
    if report.lists is not None:
        lists = report.lists
        lines += [
            f"Confident learning counts **{_count(lists.missing)}** labels missing and "
            f"**{_count(lists.wrong)}** of {lists.given:,} given ones wrong"
            + (
                f"; beliefs add up to **{lists.believed_missing:,.0f}** and "
                f"**{lists.believed_wrong:,.0f}**."
                if lists.believed_missing is not None and lists.believed_wrong is not None
                else "."
            ),
            "",
        ]
    if report.lists is not None and report.lists.added is not None:
        lines += [
            f"**{report.lists.added:,}** were added, **{report.lists.removed:,}** removed.",
            "",
        ]
    if report.maps is not None:
        lines += [
            f"Label maps of {report.maps.pictures:,} pictures show **{report.maps.found_new:,}** "
            "classes that were not given.",
            "",
        ]
    for section in report.sections:
        for table in section.tables:
            lines += [f"| {literal(section.title)} | | |", "|---|---|---:|"]
            lines += [
                f"| {literal(band)} | {literal(row.name)} | {literal(row.values[0])} |"
                for band, rows in table.bands
                for row in rows[:MOST_ROWS]
            ]
            lines.append("")
    if report.bags is not None:
        bags = report.bags
        lines += [
            f"**{bags.count:,}** bags with {bags.items:,} items; **{bags.improbable:,}** totals "
            f"are improbable, {bags.not_settled:,} groups of bags did not settle.",
            "",
        ]
    lines += ["| items | |", "|---|---:|"]
    for name in ("source", "kept", "relabelled", "dropped", "review", "quarantined"):
        lines.append(f"| {name} | {getattr(ledger, name):,} |")
    if report.confusions:
        lines += ["", "| given | believed | items |", "|---|---|---:|"]
        lines += [
            f"| {literal(c.given)} | {literal(c.believed)} | {c.items:,.0f} |"
            for c in report.confusions[:10]
        ]
    if report.notices:
        lines += ["", "Assumed or left out:", ""]
        lines += [f"* {literal(notice, 1000)}" for notice in report.notices]
    return "\n".join(lines) + "\n"


def _count(estimate: "Estimate") -> str:
    return f"{estimate.value:,.0f}" if math.isfinite(estimate.value) else "an unknown number"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %" if math.isfinite(value) else "unknown"


def _interval(estimate: "Estimate") -> str:
    if estimate.low is None or estimate.high is None:
        return ""
    return f"; 95 % interval {_percent(estimate.low)} to {_percent(estimate.high)}"
