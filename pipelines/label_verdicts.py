"""The gate of stage `decide_labels`: what each rule proposes, whether it may, what came of it."""

import numpy as np

from labelops.belief import UNIT
from labelops.decide import Held
from labelops.gate import expected_count, spread
from labelops.multilabel.decide import ALLOWANCE, LabelAction, is_change, outcome, rules
from labelops.multilabel.labels import n_yes
from pipelines.frame import Frame
from pipelines.label_limits import model_proposals, policy_of, read_cells, settled
from pipelines.label_sets import given_sets
from pipelines.stage import Arrays, Context
from pipelines.verdicts import judged, sum_by

DECISIONS = ("keep", "relabel", "review")


def tally(frame: Frame, ctx: Context) -> Arrays:
    """Count what every rule proposes, expects and, where people looked, achieves."""
    cells = read_cells(frame, ctx)
    found, n_rules = model_proposals(cells, ctx), len(rules(policy_of(ctx)))
    seen = cells.truth >= 0
    free = cells.is_flagged & ~seen
    checked = cells.is_flagged & seen & is_change(found.action)
    wrong = cells.truth != cells.is_given

    def count(where: np.ndarray) -> np.ndarray:
        return np.bincount(found.rule[where], minlength=n_rules)

    def add(values: np.ndarray) -> np.ndarray:
        return sum_by(found.rule[free], values[free], n_rules)

    leaves = free & (found.action == LabelAction.REMOVE)
    return {
        "n": np.array(frame.n),
        "n_reviewed": np.array(len(np.unique(cells.row[seen]))),
        "proposed": count(free),
        "fixed_sum": add(found.p),
        "broken_sum": add(1 - found.p),
        "variance_sum": add(spread(found.p, 1 - found.p)),
        "reviewed": count(checked),
        "fixed": count(checked & wrong),
        "broken": count(checked & ~wrong),
        "sizes": n_yes(given_sets(frame, ctx)),
        "leaving": np.bincount(cells.class_id[leaves], minlength=ctx.n_classes),
    }


def judge_rules(summary: Arrays, ctx: Context) -> Arrays:
    """Judge every rule that changes labels.

    Returns
    -------
    One value a rule: `rules` (names), `changes_labels`, `proposed`, `expected_fixed`,
    `expected_broken`, `reviewed`, `fixed`, `broken`, `gain`, `gain_low`, `gain_high` (per change),
    `is_measured`, `ships`, `verdict` (in words); and `n`, `n_reviewed` (items with a reviewed cell
    that was flagged or differs), `sizes` and `small_classes`.
    """
    names = [rule.name for rule in rules(policy_of(ctx))]
    changes = np.array([name.startswith(("add-", "remove-")) for name in names])
    found = judged(summary, names, changes, ctx, ALLOWANCE)
    return {**found, "sizes": summary["sizes"]}


def count_outcome(frame: Frame, ctx: Context) -> Arrays:
    """Count what was done by which rule, and what beliefs expect of it."""
    cells, final, held = settled(frame, ctx)
    n_rules = len(rules(policy_of(ctx)))
    done = np.zeros((n_rules, len(LabelAction)), np.int64)
    np.add.at(done, (final.rule, final.action), 1)
    stopped = np.zeros((n_rules, len(Held)), np.int64)
    np.add.at(stopped, (final.rule, held), 1)
    items = outcome(final, cells.row, frame.n)
    # Of items that wait nothing ships; a reviewer's change needs no expectation.
    changed = is_change(final.action) & ~items.is_review[cells.row]
    expected = changed & (cells.truth < 0)
    rule, p = final.rule[expected], final.p[expected]
    relabelled = ~items.is_review & (items.n_added + items.n_removed > 0)
    n_review, n_relabel = int(items.is_review.sum()), int(relabelled.sum())

    def by_class(action: LabelAction) -> np.ndarray:
        return np.bincount(
            cells.class_id[changed & (final.action == action)], minlength=ctx.n_classes
        )

    return {
        "done": done,
        "held": stopped,
        "shipped": np.bincount(final.rule[changed], minlength=n_rules),
        "fixed": sum_by(rule, p, n_rules),
        "broken": sum_by(rule, 1 - p, n_rules),
        "variance": sum_by(rule, p * (1 - p), n_rules),
        "items": np.array([frame.n - n_review - n_relabel, n_relabel, n_review]),
        "softened": np.array(int((~items.is_review & ~relabelled & (items.weight < 1)).sum())),
        "added": by_class(LabelAction.ADD),
        "removed": by_class(LabelAction.REMOVE),
    }


def report_outcome(summary: Arrays, ctx: Context) -> Arrays:
    """Return the gate's table and what came of it.

    Returns
    -------
    What `judge_rules` returns, and per rule: `done` (cells, a column for each of `actions`), `held`
    (a column for each of `held_reasons`), `shipped`, `shipped_expected_fixed`,
    `shipped_expected_broken`; over all rules `total_fixed`, `total_broken` with `_low` and `_high`;
    by class `added` and `removed`; `items` by decision (`decisions`), and `softened`, kept ones
    that are trained on with a lower weight.
    """
    gate = ctx.own("gate")
    n_shipped = int(summary["shipped"][gate["changes_labels"]].sum())
    variance = int(summary["variance"].sum()) / UNIT
    totals: Arrays = {}
    for what in ("fixed", "broken"):
        value = int(summary[what].sum()) / UNIT
        interval = expected_count(value, variance, n_shipped, allowance=ALLOWANCE / 2)
        for end, bound in zip(("", "_low", "_high"), interval, strict=True):
            totals[f"total_{what}{end}"] = np.array(bound)
    kept = ("done", "held", "shipped", "items", "softened", "added", "removed")
    return {
        **totals,
        **gate,
        **{name: summary[name] for name in kept},
        "actions": np.array([action.name.lower() for action in LabelAction]),
        "held_reasons": np.array([held.name.lower() for held in Held]),
        "decisions": np.array(DECISIONS),
        "shipped_expected_fixed": summary["fixed"] / UNIT,
        "shipped_expected_broken": summary["broken"] / UNIT,
    }
