"""On what the cutoffs of label maps are chosen: peaks of items of which some classes are known.

Known is what a reference says, or else the given labels: a list of them, or one label, which says
what an item has and nothing of what it has not. Where it is known what items have not, the same
items say how probable it is that a class which was found is there.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.decisions import BANDS
from labelops.hashing import is_sampled
from labelops.multilabel.cutoffs import choose_cutoffs, choose_cutoffs_from_positives
from labelops.multilabel.found import (
    FOLDS,
    fit_probability,
    found_by_others,
    held_out,
    probability,
)
from labelops.multilabel.labels import NO, YES, LabelSets, from_states, states, take_rows
from labelops.multilabel.scaling import Scaling
from pipelines.core.stage import Arrays, Context
from pipelines.labels.columns import RULED_OUT
from pipelines.labels.reference import reference_sets
from pipelines.labels.space import given_columns, given_sets
from pipelines.maps.settings import Config
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array

EVIDENCE_CELLS = 1 << 23
"""Items × classes on which cutoffs are chosen stay about below it."""

POSITIVES, COMPLETE, KNOWN, REFERENCE = "presence only", "complete lists", "known", "reference"
"""What is known: what items have; also that they have nothing else; some of both, apart from what
nobody looked for; and what people settled apart from the given labels."""


def evidence_folder(ctx: Context) -> str:
    """Return the scratch folder of the evidence."""
    return f"{ctx.stage}/_evidence"


def evidence_schema(ctx: Context) -> pa.Schema:
    """Return its columns."""
    return pa.schema(
        [
            ("item_hash", pa.uint64()),
            ("peaks", pa.list_(pa.float32(), ctx.n_classes)),
            ("states", pa.list_(pa.int8(), ctx.n_classes)),
            ("given", pa.list_(pa.int8(), ctx.n_classes)),
        ]
    )


class Evidence(NamedTuple):
    """Which rows of a shard are evidence, and what is known of them.

    Attributes
    ----------
    is_wanted : bool, by row.
    hashes : of the items, by row.
    sets : known classes of the rows in `rows`, which ascend.
    given : given classes of all rows, if they are not what is known; else None.
    """

    is_wanted: np.ndarray
    hashes: np.ndarray
    sets: LabelSets
    rows: np.ndarray
    given: LabelSets | None

    def table(self, rows: np.ndarray, sure: np.ndarray) -> pa.Table:
        """Return some wanted rows, which ascend, with how sure the maps are of each class."""
        first, last = np.searchsorted(self.rows, [rows[0], rows[-1] + 1] if len(rows) else [0, 0])
        known = states(take_rows(self.sets, slice(int(first), int(last))))
        return pa.table(
            {
                "item_hash": self.hashes[rows],
                "peaks": list_array(sure.astype(np.float32)),
                "states": list_array(known[np.searchsorted(self.rows, rows) - first]),
                "given": list_array(self._given(rows, sure.shape[1])),
            }
        )

    def _given(self, rows: np.ndarray, n_classes: int) -> np.ndarray:
        """Return which classes some rows, which ascend, were given; int8, shape (n, K)."""
        if self.given is None or not len(rows):
            return np.zeros((len(rows), n_classes), np.int8)
        span = take_rows(self.given, slice(int(rows[0]), int(rows[-1]) + 1))
        return np.asarray(states(span)[rows - rows[0]] == YES, np.int8)


def evidence_in(frame: Frame, ctx: Context[Config]) -> Evidence:
    """Return what is known of a shard's items, and which of them are in the sample."""
    hashes, everything = frame.array("item_hash"), np.arange(frame.n)
    if ctx.config.reference is not None:
        # A reference is small, and every item of it counts.
        at, sets = reference_sets("reference", frame["item_id"], ctx)
        given = given_sets(frame, ctx) if given_columns(ctx.columns) else None
        return Evidence(np.isin(everything, at), hashes, sets, at, given)
    # Cutoffs are chosen on items whose hash is below a bar.
    wanted = min(ctx.config.evidence_items, max(1, EVIDENCE_CELLS // ctx.n_classes))
    is_wanted = is_sampled(hashes, wanted=wanted, total=ctx.n_items)
    return Evidence(is_wanted, hashes, given_sets(frame, ctx), everything, None)


def find_cutoffs(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Choose a cutoff for every class; say on how many items, by which rule, and how good they are.

    By F1 where it is known what items do not have; else by recall² over how often a class is found.

    Returns
    -------
    `cutoff`, `n_known_present`, `n_known_absent` (K,), `n_items`, `rule`, `known` (what is).
    With known absences: `slope` and `shift` (2, K) that make probabilities of peaks, of classes
    that were not given (row 0) and, where a reference says more than they do, that were (row 1);
    `edges`, `held_right`, `held_wrong`, `held_promised` (B,), as `labelops.multilabel.found` has it
    for classes that were found and, with a reference, not given.
    """
    order = np.argsort(summary["item_hash"], kind="stable")
    peaks, table = summary["peaks"][order], summary["states"][order]
    knows_absent = bool((table == NO).any())
    choose = choose_cutoffs if knows_absent else choose_cutoffs_from_positives
    cutoffs = choose(peaks, from_states(table))
    result = {
        "cutoff": cutoffs,
        "n_known_present": (table == YES).sum(axis=0),
        "n_known_absent": (table == NO).sum(axis=0),
        "n_items": np.array(len(table)),
        "rule": np.array("f1" if knows_absent else "recall^2 / found"),
        "known": np.array(_known(ctx, knows_absent=knows_absent)),
    }
    if not knows_absent:
        return result
    is_given = summary["given"][order] == 1
    # Given lists cannot be judged by themselves: there, what is given is what is known.
    counted = ~is_given if ctx.config.reference is not None else np.ones_like(is_given)
    fold = np.arange(len(table)) % FOLDS
    counted &= found_by_others(peaks, table, fold)
    of_given = Scaling(np.ones(table.shape[1]), np.zeros(table.shape[1]))
    if ctx.config.reference is not None:
        of_given = fit_probability(peaks, table, is_given)
    fits = (fit_probability(peaks, table, counted), of_given)
    edges = np.array(BANDS)
    held = held_out(peaks, table, counted, fold, edges=edges)
    return result | {
        "slope": np.stack([fit.slope for fit in fits]),
        "shift": np.stack([fit.shift for fit in fits]),
        "edges": edges,
        **{f"held_{name}": value for name, value in held._asdict().items()},
    }


def _known(ctx: Context[Config], *, knows_absent: bool) -> str:
    if not knows_absent:
        return POSITIVES
    if ctx.config.reference is not None:
        return REFERENCE
    return KNOWN if RULED_OUT in ctx.columns else COMPLETE


def known(ctx: Context) -> str:
    """Return what is known of the items on which the stage that is asked chose cutoffs."""
    return str(ctx.result(ctx.beliefs_stage, "cutoffs")["known"])


def is_calibrated(ctx: Context) -> bool:
    """Return whether it is known how probable classes are that were found and not given."""
    return known(ctx) in (KNOWN, REFERENCE)


def probability_of(
    peak: np.ndarray, class_id: np.ndarray, given: np.ndarray, result: Arrays
) -> np.ndarray:
    """Return how probable classes are there, as far as `find_cutoffs` can say; else the peaks.

    Parameters
    ----------
    peak, class_id, given
        How sure the surest cell is of a class, which, and whether it was given; shape (M,).
    result
        What `find_cutoffs` returned.
    """
    if "slope" not in result:
        return peak
    p = [
        probability(peak, class_id, Scaling(result["slope"][i], result["shift"][i])) for i in (0, 1)
    ]
    return np.asarray(np.where(given, p[1], p[0]), np.float32)
