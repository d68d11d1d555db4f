"""The gate of stage `decide`: what each rule proposes, whether it may, and what came of it."""

from collections.abc import Sequence

import numpy as np

from labelops.belief import UNIT
from labelops.decide import Action, Held, rules, small_classes, with_reviews
from labelops.gate import ALLOWANCE, Evidence, expected_count, judge, spread
from pipelines.frame import Frame
from pipelines.limits import model_proposals
from pipelines.stage import Arrays, Context


def sum_by(rule: np.ndarray, values: np.ndarray, n_rules: int) -> np.ndarray:
    """Sum probabilities in integers of 2⁻³², so that sums of shards add up exactly."""
    total = np.zeros(n_rules, np.int64)
    np.add.at(total, rule, np.rint(values * UNIT).astype(np.int64))
    return total


def tally(frame: Frame, ctx: Context) -> Arrays:
    """Count what every rule proposes, expects and, where people looked, achieves."""
    found, given = model_proposals(frame), frame.array("given")
    seen = frame.array("reviewed_class")
    n_rules = len(rules(ctx.config.relabel_confidence))
    free = seen < 0
    changes = found.action == Action.RELABEL
    checked = ~free & changes
    leaves = free & (changes | (found.action == Action.DROP))

    def count(where: np.ndarray) -> np.ndarray:
        return np.bincount(found.rule[where], minlength=n_rules)

    def add(values: np.ndarray) -> np.ndarray:
        return sum_by(found.rule[free], values[free], n_rules)

    return {
        "n": np.array(frame.n),
        "n_reviewed": np.array(int((~free).sum())),
        "proposed": count(free),
        "fixed_sum": add(found.p_new),
        "broken_sum": add(found.p_given),
        "variance_sum": add(spread(found.p_new, found.p_given)),
        "reviewed": count(checked),
        "fixed": count(checked & (found.new == seen) & (given != seen)),
        "broken": count(checked & (found.new != seen) & (given == seen)),
        "sizes": np.bincount(given, minlength=ctx.n_classes),
        "leaving": np.bincount(given[leaves], minlength=ctx.n_classes),
    }


def judge_rules(summary: Arrays, ctx: Context) -> Arrays:
    """Judge every rule that changes labels.

    Returns
    -------
    One value a rule: `rules` (names), `changes_labels`, `proposed`, `expected_fixed`,
    `expected_broken`, `reviewed`, `fixed`, `broken`, `gain`, `gain_low`, `gain_high` (per change),
    `is_measured`, `ships`, `verdict` (in words); and `n`, `n_reviewed`, `small_classes`.
    """
    names = [rule.name for rule in rules(ctx.config.relabel_confidence)]
    changes = np.array([name.startswith("relabel-") for name in names])
    return judged(summary, names, changes, ctx, ALLOWANCE)


def judged(
    summary: Arrays, names: Sequence[str], changes: np.ndarray, ctx: Context, allowance: float
) -> Arrays:
    """Judge rules by what was counted of them; see `judge_rules`.

    Parameters
    ----------
    summary
        Result of `tally`.
    names, changes
        Of every rule, and whether it changes labels; others ship unjudged.
    allowance
        As for `labelops.gate.judge`.
    """
    evidence = [
        Evidence(
            proposed=int(summary["proposed"][r]),
            expected_fixed=int(summary["fixed_sum"][r]) / UNIT,
            expected_broken=int(summary["broken_sum"][r]) / UNIT,
            variance=int(summary["variance_sum"][r]) / UNIT,
            reviewed=int(summary["reviewed"][r]),
            fixed=int(summary["fixed"][r]),
            broken=int(summary["broken"][r]),
        )
        for r in range(len(names))
    ]
    measured = ctx.config.gate == "measured"
    verdicts = [judge(e, must_be_measured=measured, allowance=allowance) for e in evidence]
    kept = ("n", "n_reviewed", "proposed", "reviewed", "fixed", "broken")
    return {
        **{name: summary[name] for name in kept},
        "rules": np.array(names),
        "changes_labels": changes,
        "expected_fixed": np.array([e.expected_fixed for e in evidence]),
        "expected_broken": np.array([e.expected_broken for e in evidence]),
        "gain": np.array([v.gain.value for v in verdicts]),
        "gain_low": np.array([v.gain.low for v in verdicts]),
        "gain_high": np.array([v.gain.high for v in verdicts]),
        "is_measured": np.array([v.is_measured for v in verdicts]) & changes,
        "ships": np.array([v.ships for v in verdicts]) | ~changes,
        "verdict": np.array([v.why if c else "" for v, c in zip(verdicts, changes, strict=True)]),
        "small_classes": small_classes(
            summary["sizes"], summary["leaving"], min_class_size=ctx.config.min_class_size
        ),
    }


def count_outcome(frame: Frame, ctx: Context) -> Arrays:
    """Count what was done by which rule, and what beliefs expect of it."""
    found = with_reviews(
        model_proposals(frame), frame.array("given"), frame.array("reviewed_class")
    )
    action, held = frame.array("settled_action"), frame.array("held")
    n_rules = len(rules(ctx.config.relabel_confidence))
    done = np.zeros((n_rules, len(Action)), np.int64)
    np.add.at(done, (found.rule, action), 1)
    stopped = np.zeros((n_rules, len(Held)), np.int64)
    np.add.at(stopped, (found.rule, held), 1)
    # A reviewer's change needs no expectation.
    changed = (action == Action.RELABEL) & (frame.array("reviewed_class") < 0)
    rule, p_new, p_given = found.rule[changed], found.p_new[changed], found.p_given[changed]
    return {
        "done": done,
        "held": stopped,
        "fixed": sum_by(rule, p_new, n_rules),
        "fixed_variance": sum_by(rule, p_new * (1 - p_new), n_rules),
        "broken": sum_by(rule, p_given, n_rules),
        "broken_variance": sum_by(rule, p_given * (1 - p_given), n_rules),
        "doubt": np.rint((1 - frame.array("proposed_p_given").astype(np.float64)) * UNIT)
        .astype(np.int64)
        .sum(),
    }


def report_outcome(summary: Arrays, ctx: Context) -> Arrays:
    """Return the gate's table and what came of it.

    Returns
    -------
    What `judge_rules` returns, and per rule: `done` (a column for each of `actions`), `held` (a
    column for each of `held_reasons`), `shipped`, `shipped_expected_fixed`,
    `shipped_expected_broken`; over all rules `total_fixed`, `total_broken` with `_low` and `_high`,
    expected of what was shipped; `doubted`, how many given labels are wrong if beliefs are right;
    the `temperature` of the beliefs and `top_k`.
    """
    gate, shipped = ctx.own("gate"), summary["done"][:, Action.RELABEL]
    n_shipped = int(shipped[gate["changes_labels"]].sum())
    totals: Arrays = {}
    for what in ("fixed", "broken"):
        variance = int(summary[f"{what}_variance"].sum()) / UNIT
        interval = expected_count(int(summary[what].sum()) / UNIT, variance, n_shipped)
        for end, value in zip(("", "_low", "_high"), interval, strict=True):
            totals[f"total_{what}{end}"] = np.array(value)
    return {
        **totals,
        **gate,
        "actions": np.array([action.name.lower() for action in Action]),
        "done": summary["done"],
        "held_reasons": np.array([held.name.lower() for held in Held]),
        "held": summary["held"],
        "shipped": shipped,
        "shipped_expected_fixed": summary["fixed"] / UNIT,
        "shipped_expected_broken": summary["broken"] / UNIT,
        "doubted": np.array(int(summary["doubt"]) / UNIT),
        "temperature": ctx.own("temperature")["temperature"],
        "top_k": np.array(min(ctx.config.top_k, ctx.n_classes)),
    }
