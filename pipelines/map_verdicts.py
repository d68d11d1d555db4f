"""What stage `decide_maps` may do about the classes that label maps show, and what came of it.

Every class of a picture that was found or given is a row of `map_decisions/`. A rule decides about
it; rules that add classes are judged by those they would have added to items of which it is known
what they have, with cutoffs that were chosen on other items. Where no item is known so, nobody can
say how often added classes are right, and it is a setting whether they are added all the same.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.belief import UNIT
from labelops.decide import Held, Rule
from labelops.gate import measured_gain
from labelops.multilabel.decide import LabelAction, bands
from pipelines.frame import Frame
from pipelines.given_lists import has_unknown
from pipelines.map_evidence import COMPLETE, KNOWN, POSITIVES, REFERENCE
from pipelines.map_sets import LOG_FOLDER as MAPS
from pipelines.stage import Arrays, Context
from pipelines.verdicts import sum_by

DECISIONS = ("keep", "relabel", "review")

FIXED_RULES = (
    Rule("map-unseen", "a given class is not seen in the picture"),
    Rule("map-contradicts", "a class that was ruled out is seen in the picture"),
    Rule("map-unsure", "a class may be seen in the picture, improbable"),
)
UNSEEN, CONTRADICTS, UNSURE = range(3)

AGREES = "map-agrees"

WHY = {
    POSITIVES: "not measured: it is only known what items have, never what they have not. To "
    "measure it, name a localize.reference",
    COMPLETE: "lists say what items do not have, and what is found besides contradicts "
    "them. Recipe 'multilabel' weighs the two; or name a localize.reference; or say that "
    "data.absent_labels are unknown",
}


def rules(ctx: Context) -> tuple[Rule, ...]:
    """Return all rules; those that add labels come last, one a band of probability if there is one.

    Agreement of what is given and what is seen needs no rule.
    """
    if not is_calibrated(ctx):
        return (*FIXED_RULES, Rule("map-seen", "a class is seen in the picture"))
    edges = bands(ctx.config.add_confidence)
    return (
        *FIXED_RULES,
        *(Rule(f"map-seen-{e:g}", f"a class is seen, there with at least {e:g}") for e in edges),
    )


def known(ctx: Context) -> str:
    """Return what is known of the items on which cutoffs were chosen."""
    return str(ctx.result("localize", "cutoffs")["known"])


def is_calibrated(ctx: Context) -> bool:
    """Return whether it is known how probable classes are that were found and not given."""
    return known(ctx) in (KNOWN, REFERENCE)


class MapCells(NamedTuple):
    """Cells (item and class) of a shard on which maps and labels do not plainly agree.

    Attributes
    ----------
    at : position in the log of what maps say, ascending; int64, shape (M,).
    row, class_id : int64, shape (M,).
    is_given : whether the class was said to be present.
    action : `LabelAction`, before the gate.
    rule : position in `rules`.
    p : probability that the class is there; NaN where it is not known.
    """

    at: np.ndarray
    row: np.ndarray
    class_id: np.ndarray
    is_given: np.ndarray
    action: np.ndarray
    rule: np.ndarray
    p: np.ndarray


def propose(frame: Frame, ctx: Context) -> tuple[pa.Table, MapCells]:
    """Return what maps say of a shard's items, and what is proposed about it."""
    log = frame.file(MAPS)
    name = log["rule"].combine_chunks()
    at = np.flatnonzero(pc.not_equal(name, AGREES).to_numpy(zero_copy_only=False))
    kind = np.array(name.to_pylist(), object)[at]
    row = pc.index_in(log["item_id"], value_set=frame["item_id"]).to_numpy()[at]
    is_given = kind == "map-unseen"
    right = log["p_correct"].to_numpy()[at].astype(np.float64)
    is_no = kind == "map-contradicts"
    p = np.where(is_no, 1 - right, right)
    calibrated = is_calibrated(ctx)
    rule = np.full(len(at), UNSEEN)
    action = np.full(len(at), LabelAction.KEEP, np.uint8)
    rule[is_no], action[is_no] = CONTRADICTS, LabelAction.REVIEW
    new = ~is_given & ~is_no
    first = len(FIXED_RULES)
    if calibrated:
        action[is_no & (p < ctx.config.review_confidence)] = LabelAction.KEEP
        band = np.searchsorted(bands(ctx.config.add_confidence), p, side="right") - 1
        rule[new] = np.where(band >= 0, first + band, UNSURE)[new]
        action[new & (band >= 0)] = LabelAction.ADD
    else:
        rule[new], action[new] = first, LabelAction.ADD
    is_known = calibrated & (~is_given | (known(ctx) == REFERENCE))
    class_id = log["label_id"].to_numpy()[at].astype(np.int64)
    p = np.where(is_known, p, np.nan)
    return log, MapCells(at, row.astype(np.int64), class_id, is_given, action, rule, p)


def tally(frame: Frame, ctx: Context) -> Arrays:
    """Count what every rule proposes and expects."""
    _, cells = propose(frame, ctx)
    n_rules, p = len(rules(ctx)), np.nan_to_num(cells.p)
    return {
        "proposed": np.bincount(cells.rule, minlength=n_rules),
        "fixed_sum": sum_by(cells.rule, p, n_rules),
    }


def judge_rules(summary: Arrays, ctx: Context) -> Arrays:
    """Judge every rule that adds labels, by held-out items.

    Returns
    -------
    One value a rule: `rules` (names), `changes_labels`, `proposed`, `expected_fixed`,
    `expected_broken` (NaN where nothing can be expected), `reviewed`, `fixed`, `broken` (held-out
    classes it would have added, right and wrong), `gain`, `gain_low`, `gain_high` (per change),
    `is_measured`, `ships`, `verdict` (in words); and `known`.
    """
    names = [rule.name for rule in rules(ctx)]
    n, first = len(names), len(FIXED_RULES)
    changes, calibrated = np.arange(n) >= first, is_calibrated(ctx)
    right, wrong = np.zeros(n, np.int64), np.zeros(n, np.int64)
    gain = np.tile([0.0, -1.0, 1.0], (n, 1))
    ships, verdict = ~changes, np.full(n, "", object)
    if calibrated:
        cutoffs = ctx.result("localize", "cutoffs")
        mine = cutoffs["edges"] >= ctx.config.add_confidence
        right[first:], wrong[first:] = (cutoffs[f"held_{x}"][mine] for x in ("right", "wrong"))
        for r in range(first, n):
            found = measured_gain(int(right[r]), int(wrong[r]), int(right[r] + wrong[r]))
            gain[r], ships[r] = found, found.low > 0
            verdict[r] = (
                f"measured on {right[r] + wrong[r]} held-out classes: {right[r]} there, {wrong[r]} "
                f"not, gain {found.value:+.2f} per change [{found.low:+.2f}, {found.high:+.2f}]"
                + ("" if ships[r] else "; held back, not surely above 0")
            )
    else:
        what = known(ctx)
        ships[first:] = what == POSITIVES and ctx.config.add_unmeasured
        verdict[first:] = WHY[what]
    expected = summary["fixed_sum"] / UNIT
    unknown = np.nan if not calibrated else 0.0
    return {
        "rules": np.array(names),
        "changes_labels": changes,
        "proposed": summary["proposed"],
        "expected_fixed": expected + unknown,
        "expected_broken": summary["proposed"] - expected + unknown,
        "reviewed": right + wrong,
        "fixed": right,
        "broken": wrong,
        **{f"gain{end}": gain[:, i] for i, end in enumerate(("", "_low", "_high"))},
        "is_measured": changes & (right + wrong > 0),
        "ships": ships,
        "verdict": verdict.astype(str),
        "known": np.array(known(ctx)),
    }


def settled(frame: Frame, ctx: Context) -> tuple[pa.Table, MapCells, np.ndarray]:
    """Return what maps say, what is done about it within the gate, and what was held back."""
    log, cells = propose(frame, ctx)
    held = ~ctx.own("gate")["ships"][cells.rule]
    action = np.where(held, LabelAction.KEEP, cells.action).astype(np.uint8)
    return log, cells._replace(action=action), held


def p_correct(cells: MapCells, ctx: Context) -> np.ndarray:
    """Return how probable each cell is right as it now stands; NaN where that is not known.

    Of a class that is neither said to be there nor that it is not, nothing is claimed.
    """
    p = np.where(cells.is_given | (cells.action == LabelAction.ADD), cells.p, 1 - cells.p)
    nothing = ~cells.is_given & (cells.action == LabelAction.KEEP) & (cells.rule != CONTRADICTS)
    return np.where(nothing & has_unknown(ctx), np.nan, p)


def count_outcome(frame: Frame, ctx: Context) -> Arrays:
    """Count what was done by which rule, and what became of items."""
    _, cells, is_held = settled(frame, ctx)
    n_rules = len(rules(ctx))
    held = np.zeros((n_rules, len(Held)), np.int64)
    np.add.at(held, (cells.rule, np.where(is_held, Held.GATE, Held.NO)), 1)
    decision = np.array(frame["decision"].to_pylist(), object)
    added = (cells.action == LabelAction.ADD) & (decision[cells.row] == "relabel")
    done = np.zeros((n_rules, len(LabelAction)), np.int64)
    np.add.at(done, (cells.rule, cells.action), 1)
    softened = (decision == "keep") & (frame.array("weight") < 1)
    return {
        "done": done,
        "held": held,
        "shipped": np.bincount(cells.rule[added], minlength=n_rules),
        "fixed": sum_by(cells.rule[added], np.nan_to_num(cells.p[added]), n_rules),
        "items": np.array([np.count_nonzero(decision == name) for name in DECISIONS]),
        "softened": np.array(int(softened.sum())),
        "added": np.bincount(cells.class_id[added], minlength=ctx.n_classes),
    }


def report_outcome(summary: Arrays, ctx: Context) -> Arrays:
    """Return the gate's table and what came of it.

    Returns
    -------
    What `judge_rules` returns, and per rule: `done` (cells, a column for each of `actions`), `held`
    (a column for each of `held_reasons`), `shipped`, `shipped_expected_fixed`,
    `shipped_expected_broken` (NaN where nothing can be expected); by class `added`; `items` by
    decision (`decisions`), and `softened`, kept ones that are trained on with a lower weight.
    """
    gate = ctx.own("gate")
    fixed = summary["fixed"] / UNIT + (0.0 if is_calibrated(ctx) else np.nan)
    return {
        **gate,
        **{name: summary[name] for name in summary if name != "fixed"},
        "held_reasons": np.array([held.name.lower() for held in Held]),
        "actions": np.array([action.name.lower() for action in LabelAction]),
        "decisions": np.array(DECISIONS),
        "shipped_expected_fixed": fixed,
        "shipped_expected_broken": summary["shipped"] - fixed,
    }
