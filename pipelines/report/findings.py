"""What to look at first, in order of what it is likely to cost."""

from collections.abc import Iterator

from pipelines.report.model import Bags, Finding, Report
from pipelines.report.text import clean, count, decimal, percent, plural, times

NAME = 60
"""Longest class name inside a sentence."""

DISPERSED = 10.0
"""Variance of totals, in that which the model allows, beyond which something must be wrong."""

UNSETTLED = 0.1
"""Nats that another step may gain: less does not move what is believed by what can be seen."""


def findings(report: Report, most: int = 6) -> tuple[Finding, ...]:
    """Findings of a report, most important first."""
    return tuple(_all(report))[:most]


def _all(report: Report) -> Iterator[Finding]:
    yield from _accounts(report)
    yield from _bags(report)
    yield from _lists(report)
    yield from _maps(report)
    for section in report.sections:
        yield from section.findings
    yield from _confusion(report)
    yield from _worst_class(report)
    yield from _review(report)
    yield from _duplicates(report)
    yield from _held_back(report)
    yield from _quarantine(report)
    yield from _calibration(report)
    yield from _outliers(report)


def _accounts(report: Report) -> Iterator[Finding]:
    if not report.ledger.is_balanced:
        yield Finding(
            "The accounts do not balance",
            "Kept, relabelled, dropped, review and quarantined do not add up to the source. "
            "Do not use this dataset before the cause is known.",
            "accounts",
        )


def _bags(report: Report) -> Iterator[Finding]:
    bags = report.bags
    if bags is None:
        return
    if bags.is_constant and bags.is_learned:
        yield Finding(
            "Totals cannot tell labels apart",
            "All bags have the same share of every class, so every item is believed to have it, "
            "too. Bags that differ are needed.",
            "bags",
        )
    if bags.is_contrary:
        yield Finding(
            "Totals contradict given labels, and were left out",
            "One share for all tells them better than labels and model do. They are probably "
            "wrong, of other bags, or their classes in another order; if it is the labels, set "
            "proportions.improbable to impose.",
            "bags",
        )
    elif bags.is_no_better:
        yield Finding(
            "Totals are told no better by the model than by one share for all",
            f"Do not rely on single beliefs. {_why_not_told(bags)}",
            "bags",
        )
    elif bags.is_doubtful:
        yield Finding(
            "It may be chance that the model tells totals better than one share for all",
            f"Do not rely on single beliefs. {_why_not_told(bags)} Or there are too few bags.",
            "bags",
        )
    elif bags.dispersion > DISPERSED:
        yield Finding(
            f"Totals vary {times(bags.dispersion)} times as much as the model allows",
            f"{_why_not_told(bags)} Until that is known, do not rely on single beliefs, nor on the "
            "list of improbable totals: it allows for such variance.",
            "bags",
        )
    if bags.improbable:
        verb = "contradicts" if bags.improbable == 1 else "contradict"
        yield Finding(
            f"{plural(bags.improbable, 'total')} {verb} what their items look like",
            "The count may be wrong, or the bag may hold other items than its table thinks; or the "
            "model does not know such bags.",
            "bags",
        )
    if bags.unsettled is not None and bags.unsettled > UNSETTLED:
        yield Finding(
            "The model of totals did not converge",
            f"Another step would have gained {bags.unsettled:.2g} nats. Features that are nearly "
            "copies of each other, or far apart in size, make this hard: leave some out.",
            "bags",
        )
    if bags.not_settled:
        yield Finding(
            f"{plural(bags.not_settled, 'group')} of bags did not settle",
            f"Beliefs of their items in {bags.last} are those after the last exchange of messages. "
            f"More may help: raise {bags.last}.max_sweeps.",
            "bags",
        )


def _why_not_told(bags: Bags) -> str:
    if bags.is_learned and bags.spread == "less":
        return (
            "Shares differ far less between bags than chance would make them, so that totals "
            "hardly tell labels apart. Bags that differ are needed."
        )
    if bags.is_learned:
        return (
            "The totals are probably wrong, or those of other bags; or features do not tell these "
            "classes."
        )
    return (
        "The totals, or the order of their classes, are probably wrong; or the model knows little "
        "of these items."
    )


def _lists(report: Report) -> Iterator[Finding]:
    lists = report.lists
    if lists is None or not lists.classes:
        return
    for kind in ("missing", "wrong"):
        sure = [c for c in lists.classes if (getattr(c, kind).low or 0.0) > 0]
        if not sure:
            continue
        worst = max(sure, key=lambda c: (getattr(c, kind).low, c.name))
        number, name = getattr(worst, kind), clean(worst.name, NAME)
        where = "though it was ruled out" if kind == "missing" else "though it is not there"
        has = "have it" if kind == "missing" else "were given it"
        yield Finding(
            f"{name} has the most {kind} labels",
            f"About {plural(number.value, 'item')} {has} {where} (95\u202f% interval "
            f"{count(number.low)} to {count(number.high)}); it was given to "
            f"{plural(worst.given, 'item')}.",
            "lists",
        )
    if lists.unknown:
        yield Finding(
            f"{plural(lists.unknown, 'class', 'classes')} of items nobody looked for",
            "They are neither given nor ruled out, and nothing here says how many of them are "
            "there.",
            "lists",
        )


def _maps(report: Report) -> Iterator[Finding]:
    maps = report.maps
    if maps is None or maps.given_seen is None or maps.given_seen >= 0.5:
        return
    yield Finding(
        f"Label maps show only {percent(maps.given_seen)} of the given labels",
        "The classifier may be of other classes than the data, or in another order; or it cannot "
        "tell what is in single cells. Do not train on its crops before that is settled.",
        "maps",
    )


def _held_back(report: Report) -> Iterator[Finding]:
    held = sum(rule.proposed - rule.shipped for rule in report.rules)
    if held > 0:
        yield Finding(
            f"{plural(held, 'proposed change')} held back",
            "The gate ships a rule only where its gain is beyond doubt. "
            "A reviewed sample lets it decide on measured rather than expected gain.",
            "rules",
        )


def _review(report: Report) -> Iterator[Finding]:
    if report.ledger.review:
        noun = "waits" if report.ledger.review == 1 else "wait"
        yield Finding(
            f"{plural(report.ledger.review, 'item')} {noun} for a person",
            "The model disagrees with the given label but is not sure enough to change it. "
            "They are in the set_aside folder; the worst of each class are shown below.",
            "worst" if report.lists is None else "suspects",
        )


def _confusion(report: Report) -> Iterator[Finding]:
    if report.confusions:
        top = report.confusions[0]
        given, believed = clean(top.given, NAME), clean(top.believed, NAME)
        yield Finding(
            f"Most frequent mix-up: {given} for {believed}",
            f"About {plural(top.items, 'item')} given as {given} "
            f"({percent(top.share_of_given)} of them) are believed to be {believed}. "
            "If people cannot tell the two apart, the labelling guide may need an example.",
            "confusion",
        )


def _worst_class(report: Report) -> Iterator[Finding]:
    sure = [c for c in report.classes if (c.wrong_share.low or 0.0) > 0]
    if not sure or len(report.classes) < 2:
        return
    worst = max(sure, key=lambda c: (c.wrong_share.low or 0.0, c.name))
    share = worst.wrong_share
    yield Finding(
        f"{clean(worst.name, NAME)} has the least reliable labels",
        f"{percent(share.value)} of its {plural(worst.items, 'label')} are estimated to be wrong "
        f"(95\u202f% interval {percent(share.low or 0.0)} to {percent(share.high or 1.0)}).",
        "classes",
    )


def _duplicates(report: Report) -> Iterator[Finding]:
    if report.duplicates and report.duplicates.conflict_sets:
        sets = report.duplicates.conflict_sets
        verb = "contradicts itself" if sets == 1 else "contradict themselves"
        yield Finding(
            f"{plural(sets, 'set')} of duplicates {verb}",
            f"{count(report.duplicates.conflict_items)} items look the same as another one "
            "but were given a different label: at least one of each set is wrong.",
            "duplicates",
        )


def _quarantine(report: Report) -> Iterator[Finding]:
    number = report.ledger.quarantined
    if number:
        verb = "row" if number == 1 else "rows"
        yield Finding(
            f"{count(number)} {verb} could not be used",
            "Reasons and examples are listed in the quarantine; "
            "the rows themselves are untouched in the source.",
            "quarantine",
        )


def _calibration(report: Report) -> Iterator[Finding]:
    if report.calibration is None or not report.calibration.metrics:
        return
    found = report.calibration
    first = found.metrics[0]
    if found.excess > 1.25 or found.excess < 0.8:
        how = "surer than it is often right" if found.excess > 1 else "right more often than sure"
        if found.temperature is not None:
            what = f"Temperature {decimal(found.temperature, 2)} corrects it"
            used = "Decisions use corrected probabilities, flags do not."
        else:
            what = f"Log-odds times {decimal(found.slope, 2)} and {found.shift:+.2f} correct it"
            used = "Decisions correct it class by class, flags do not."
        yield Finding(
            f"The model was {how}",
            f"{what}: {first.name} goes from {decimal(first.before)} to {decimal(first.after)}. "
            f"{used}",
            "calibration",
        )


def _outliers(report: Report) -> Iterator[Finding]:
    if report.outliers and report.outliers.count:
        noun = "resembles" if report.outliers.count == 1 else "resemble"
        yield Finding(
            f"{plural(report.outliers.count, 'item')} {noun} nothing else",
            "They may be broken, off topic or simply rare; no label fits them for certain.",
            "outliers",
        )
