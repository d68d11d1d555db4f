"""On what the cutoffs of label maps are chosen: peaks of items of which some classes are known.

Known is what a reference says, or else the given labels: a list of them, or one label, which says
what an item has and nothing of what it has not.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.multilabel.cutoffs import choose_cutoffs, choose_cutoffs_from_positives
from labelops.multilabel.labels import (
    NO,
    YES,
    LabelSets,
    from_flat,
    from_states,
    states,
    take_rows,
)
from pipelines.frame import Frame
from pipelines.label_sets import GIVEN, given_sets
from pipelines.reference import reference_sets
from pipelines.stage import Arrays, Context
from pipelines.vectors import list_array, vectors_of

EVIDENCE_CELLS = 1 << 23
"""Items × classes on which cutoffs are chosen stay about below it."""


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
        ]
    )


class Evidence(NamedTuple):
    """Which rows of a shard are evidence, and what is known of them.

    Attributes
    ----------
    is_wanted : bool, by row.
    hashes : of the items, by row.
    sets : known classes of the rows in `rows`, which ascend.
    """

    is_wanted: np.ndarray
    hashes: np.ndarray
    sets: LabelSets
    rows: np.ndarray

    def table(self, rows: np.ndarray, sure: np.ndarray) -> pa.Table:
        """Return some wanted rows, which ascend, with how sure the maps are of each class."""
        first, last = np.searchsorted(self.rows, [rows[0], rows[-1] + 1] if len(rows) else [0, 0])
        known = states(take_rows(self.sets, slice(int(first), int(last))))
        return pa.table(
            {
                "item_hash": self.hashes[rows],
                "peaks": list_array(sure.astype(np.float32)),
                "states": list_array(known[np.searchsorted(self.rows, rows) - first]),
            }
        )


def evidence_in(frame: Frame, ctx: Context) -> Evidence:
    """Return what is known of a shard's items, and which of them are in the sample."""
    hashes, everything = frame.array("item_hash"), np.arange(frame.n)
    if ctx.config.reference is not None:
        # A reference is small, and every item of it counts.
        at, sets = reference_sets(ctx.config.reference, frame["item_id"], ctx)
        return Evidence(np.isin(everything, at), hashes, sets, at)
    sampled = _sampled(hashes, ctx)
    if GIVEN in ctx.columns:
        return Evidence(sampled, hashes, given_sets(frame, ctx), everything)
    given = frame.array("given")
    one, none = np.arange(frame.n + 1), np.zeros(frame.n + 1, np.int64)
    sets = from_flat(given, one, given[:0], none, n_classes=ctx.n_classes)
    return Evidence(sampled, hashes, sets, everything)


def _sampled(item_hash: np.ndarray, ctx: Context) -> np.ndarray:
    """Return which items cutoffs are chosen on: those whose hash is below a bar."""
    wanted = min(ctx.config.evidence_items, max(1, EVIDENCE_CELLS // ctx.n_classes))
    if wanted >= ctx.n_items:
        return np.ones(len(item_hash), bool)
    return np.asarray(item_hash <= np.uint64(wanted * 2**64 // ctx.n_items))


def collect_evidence(frame: Frame, ctx: Context) -> Arrays:
    """Return a shard's rows of evidence."""
    table = frame.file(evidence_folder(ctx)).combine_chunks()
    found: dict[str, np.ndarray] = {}
    for field in table.schema:
        column = table.column(field.name)
        values = column.chunk(0) if column.num_chunks else pa.array([], field.type)
        is_vector = pa.types.is_fixed_size_list(field.type)
        found[field.name] = vectors_of(values)[0] if is_vector else values.to_numpy()
    return found


def merge_evidence(a: Arrays, b: Arrays) -> Arrays:
    """Return the rows of both; `find_cutoffs` brings them into the order of their hashes."""
    return {name: np.concatenate([a[name], b[name]]) for name in a}


def find_cutoffs(summary: Arrays, ctx: Context) -> Arrays:
    """Choose a cutoff for every class; say on how many items, and by which rule.

    By F1 where it is known what items do not have; else by recall² over how often a class is found.
    """
    order = np.argsort(summary["item_hash"], kind="stable")
    table = summary["states"][order]
    choose = choose_cutoffs if (table == NO).any() else choose_cutoffs_from_positives
    return {
        "cutoff": choose(summary["peaks"][order], from_states(table)),
        "n_known_present": (table == YES).sum(axis=0),
        "n_known_absent": (table == NO).sum(axis=0),
        "n_items": np.array(len(table)),
        "rule": np.array("f1" if choose is choose_cutoffs else "recall^2 / found"),
    }
