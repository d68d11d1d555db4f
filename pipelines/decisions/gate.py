"""What each rule proposes, whether its changes are made, and what came of it."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from labelops.belief import UNIT
from labelops.decisions import (
    DECISIONS,
    NO_ISSUE,
    NOBODY,
    UNSAID,
    WHOLE,
    WORDS,
    Action,
    Decision,
    Held,
    Outcome,
    Proposals,
    Rule,
    of_first,
    small_classes,
)
from labelops.gate import (
    ALLOWANCE,
    ALLOWANCE_ALONE,
    Evidence,
    Interval,
    Verdict,
    expected_count,
    judge,
    variance,
)
from labelops.multilabel.labels import LabelSets, n_yes
from pipelines.core.stage import Arrays, C, Context
from pipelines.decisions.limits import Limits

# R rules, K classes


class Allowance(NamedTuple):
    """For beliefs that are wrong together.

    Attributes
    ----------
    gain : so much less than expected a rule may gain per change.
    share : so many more or fewer changes may be right, as a share.
    least : fewer changes in all than that are not made unmeasured: chance decides what they do.
    """

    gain: float
    share: float
    least: int = 1


ALLOWANCES = Allowance(ALLOWANCE, ALLOWANCE)
ALLOWANCES_ALONE = Allowance(ALLOWANCE_ALONE, ALLOWANCE_ALONE)
"""Those of beliefs in whole labels, see `labelops.gate.ALLOWANCE`; and of one opinion alone."""


Judge = Callable[[Evidence, int, Limits, Allowance, Context[C]], tuple[Evidence, Verdict]]
"""Says whether the changes of a rule, by its position, are made; and what is known of them."""


def by_reviews(
    evidence: Evidence, rule: int, limits: Limits, allowance: Allowance, ctx: Context
) -> tuple[Evidence, Verdict]:
    """Judge by reviewed items, or else by what beliefs promise; see `labelops.gate.judge`."""
    must = limits.must_be_measured
    return evidence, judge(evidence, must_be_measured=must, allowance=allowance.gain)


NOT_JUDGED = Verdict(True, Interval(0.0, -1.0, 1.0), False, "")
"""Of rules that change nothing."""


def sum_by(rule: np.ndarray, values: np.ndarray, n_rules: int) -> np.ndarray:
    """Sum probabilities in integers of 2⁻³², so that sums of shards add up exactly."""
    total = np.zeros(n_rules, np.int64)
    np.add.at(total, rule, np.rint(np.nan_to_num(values) * UNIT).astype(np.int64))
    return total


def tally(model: Proposals, truth: np.ndarray, given: LabelSets, n_rules: int) -> Arrays:
    """Count what every rule proposes, expects and, where people looked, achieves.

    `truth` is as for `labelops.decisions.with_reviews`; `given` what was said of a shard's items.
    """
    free, changes = truth == NOBODY, model.is_change
    seen, before = ~free & changes, np.maximum(model.before, -1)
    # Where nobody said anything, a wrong label is worse than none.
    is_first = (model.slot == WHOLE) & (model.before == UNSAID)

    def count(where: np.ndarray) -> np.ndarray:
        return np.bincount(model.rule[where], minlength=n_rules)

    def add(values: np.ndarray) -> np.ndarray:
        return sum_by(model.rule[free], values[free], n_rules)

    return {
        "n": np.array(given.n_items),
        "n_reviewed": np.array(len(np.unique(model.row[~free]))),
        "proposed": count(free),
        "unknown": count(free & np.isnan(model.p_after)),
        "fixed_sum": add(model.p_after),
        "broken_sum": add(model.p_before),
        "variance_sum": add(variance(model.p_after, model.p_before)),
        "reviewed": count(seen),
        "fixed": count(seen & (model.after == truth) & (before != truth)),
        "broken": count(seen & (model.after != truth) & ((before == truth) | is_first)),
        "sizes": n_yes(given),
        "leaving": np.bincount(model.before[free & model.leaves], minlength=given.n_classes),
    }


def judge_rules(
    summary: Arrays,
    rules: Sequence[Rule],
    *,
    limits: Limits,
    allowance: Allowance,
    verdict: Judge[C],
    ctx: Context[C],
) -> Arrays:
    """Judge every rule that changes labels.

    Returns
    -------
    One value a rule: `rules` (names), `texts` (what they mean), `changes_labels`, `proposed`,
    `expected_fixed`, `expected_broken` (NaN where beliefs are not known), `reviewed`, `fixed`,
    `broken`, `gain`, `gain_low`, `gain_high` (per change), `is_measured`, `ships`, `verdict` (in
    words); and `n`, `n_reviewed` (items of which a proposal was reviewed), `sizes` and
    `small_classes` (K,).
    """
    expected = {
        what: np.where(summary["unknown"] > 0, np.nan, summary[f"{what}_sum"] / UNIT)
        for what in ("fixed", "broken")
    }
    counts, known, verdicts = ("proposed", "reviewed", "fixed", "broken"), [], []
    for r, rule in enumerate(rules):
        evidence = Evidence(
            expected_fixed=float(expected["fixed"][r]),
            expected_broken=float(expected["broken"][r]),
            variance=int(summary["variance_sum"][r]) / UNIT,
            **{name: int(summary[name][r]) for name in counts},
        )
        judged = (evidence, NOT_JUDGED)
        if rule.changes:
            must = limits.must_be_measured or rule.must_be_measured
            judged = verdict(evidence, r, limits._replace(must_be_measured=must), allowance, ctx)
        known.append(judged[0])
        verdicts.append(judged[1])
    verdicts = _enough(verdicts, known, rules, allowance.least)
    return {
        **{name: summary[name] for name in ("n", "n_reviewed", "sizes", "proposed")},
        "rules": np.array([rule.name for rule in rules]),
        "texts": np.array([rule.text for rule in rules]),
        "changes_labels": np.array([rule.changes for rule in rules]),
        "expected_fixed": expected["fixed"],
        "expected_broken": expected["broken"],
        **{name: np.array([getattr(e, name) for e in known]) for name in counts[1:]},
        "gain": np.array([v.gain.value for v in verdicts]),
        "gain_low": np.array([v.gain.low for v in verdicts]),
        "gain_high": np.array([v.gain.high for v in verdicts]),
        "is_measured": np.array([v.is_measured for v in verdicts]),
        "ships": np.array([v.ships for v in verdicts]),
        "verdict": np.array([v.why for v in verdicts]),
        "small_classes": small_classes(
            summary["sizes"], summary["leaving"], min_class_size=limits.min_class_size
        ),
    }


def _enough(
    verdicts: list[Verdict], known: list[Evidence], rules: Sequence[Rule], least: int
) -> list[Verdict]:
    """Hold back what only beliefs promise, if it is less than `least` changes in all."""
    promised = [
        rule.changes and verdict.ships and not verdict.is_measured
        for verdict, rule in zip(verdicts, rules, strict=True)
    ]
    n = sum(e.proposed for e, is_promised in zip(known, promised, strict=True) if is_promised)
    if n >= least:
        return verdicts
    why = f"held back: fewer than {least} changes in all, of which beliefs cannot tell"
    return [
        verdict._replace(ships=False, why=f"{verdict.why}; {why}") if is_promised else verdict
        for verdict, is_promised in zip(verdicts, promised, strict=True)
    ]


def count(
    model: Proposals,
    final: Proposals,
    held: np.ndarray,
    items: Outcome,
    truth: np.ndarray,
    *,
    n_rules: int,
    n_classes: int,
) -> Arrays:
    """Count what was done by which rule, and what beliefs expect of it."""
    done = np.zeros((n_rules, len(Action)), np.int64)
    np.add.at(done, (final.rule, final.action), 1)
    stopped = np.zeros((n_rules, len(Held)), np.int64)
    np.add.at(stopped, (final.rule, held), 1)
    # Of items that wait nothing ships; a reviewer's change needs no expectation.
    shipped = final.is_change & (items.decision[final.row] == Decision.RELABEL)
    expected = shipped & (truth == NOBODY)
    rule, p_after, p_before = (
        column[expected] for column in (final.rule, final.p_after, final.p_before)
    )
    is_proposed = of_first(final.rule, items, fill=NO_ISSUE) != NO_ISSUE
    # In single precision, as the column is.
    is_less = items.weight.astype(np.float32) < 1
    return {
        "done": done,
        "decided": np.bincount(items.decision, minlength=len(DECISIONS)),
        "softened": np.array(
            int((is_proposed & is_less & (items.decision == Decision.KEEP)).sum())
        ),
        "held": stopped,
        "shipped": np.bincount(final.rule[shipped], minlength=n_rules),
        "unknown": np.bincount(rule[np.isnan(p_after)], minlength=n_rules),
        "fixed": sum_by(rule, p_after, n_rules),
        "fixed_variance": sum_by(rule, p_after * (1 - p_after), n_rules),
        "broken": sum_by(rule, p_before, n_rules),
        "broken_variance": sum_by(rule, p_before * (1 - p_before), n_rules),
        "added": _by_class(final.after[shipped], n_classes),
        "removed": _by_class(final.before[shipped], n_classes),
    }


def _by_class(class_id: np.ndarray, n_classes: int) -> np.ndarray:
    return np.bincount(class_id[class_id >= 0], minlength=n_classes)


def report(summary: Arrays, judged: Arrays, allowance: Allowance) -> Arrays:
    """Return the gate's table and what came of it.

    Returns
    -------
    What `judge_rules` returns; of items, `decided` (by decision) and `softened`, those of the kept
    ones that are trained on with a lower weight for what was proposed; per rule, `done` (slots, a
    column for each of `actions`), `held` (a column for each of `held_reasons`), `shipped`,
    `shipped_expected_fixed`, `shipped_expected_broken`; over all rules `total_fixed`,
    `total_broken` with `_low` and `_high`, expected of what was shipped; by class `added` and
    `removed`.
    """
    n_shipped = int(summary["shipped"][judged["changes_labels"]].sum())
    is_unknown = summary["unknown"] > 0
    totals: Arrays = {}
    for what in ("fixed", "broken"):
        total = int(summary[what].sum()) / UNIT
        total_variance = int(summary[f"{what}_variance"].sum()) / UNIT
        interval = expected_count(total, total_variance, n_shipped, allowance=allowance.share)
        for end, value in zip(("", "_low", "_high"), interval, strict=True):
            totals[f"total_{what}{end}"] = np.array(np.nan if is_unknown.any() else value)
        totals[f"shipped_expected_{what}"] = np.where(is_unknown, np.nan, summary[what] / UNIT)
    kept = ("decided", "softened", "done", "held", "shipped", "added", "removed")
    return {
        **totals,
        **judged,
        **{name: summary[name] for name in kept},
        "actions": WORDS,
        "held_reasons": np.array([held.name.lower() for held in Held]),
    }
