"""From label maps to the classes of whole pictures, with a log of what is new and what is missed.

The log has the form of that of decisions, and says what maps propose. Where it is known what some
items do not have, "p_correct" of a class that was found and not given is a probability brought to
what is known of those items (`pipelines.maps.evidence`); with a reference also that of a given one.
Otherwise it is how sure the surest cell is: evidence, and no probability.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.label_peaks import binary_peaks, peaks
from labelops.multilabel.cutoffs import sets_from
from labelops.multilabel.labels import NO, YES, states, take_rows
from labelops.soft.labels import id_type
from pipelines.core.stage import Arrays, Beliefs, Cells, Context, Tables
from pipelines.labels.columns import RULED_OUT, ids_type, lists_of
from pipelines.labels.log import log_rows
from pipelines.labels.space import given_columns, given_sets
from pipelines.maps.columns import COLUMNS, MapFacts, maps_of
from pipelines.maps.evidence import REFERENCE, is_calibrated, known, probability_of
from pipelines.storage.frame import Frame

LOG_FOLDER = "map_decisions"
"""Apart from `decisions/`, from which the product follows: a run may have both."""

PEAKS = {"softmax": peaks, "logistic": binary_peaks}

BLOCK_BYTES = 64 * 2**20

RULES = (
    ("map-seen", "add"),
    ("map-agrees", "keep"),
    ("map-unseen", "keep"),
    ("map-contradicts", "review"),
)
SEEN, AGREES, UNSEEN, CONTRADICTED = range(4)
"""Found though not given; given and found; given and not found; found though ruled out."""


def set_fields(n_classes: int) -> list[tuple[str, pa.DataType]]:
    """Return the columns of the classes found."""
    return [
        ("present_ids", ids_type(n_classes)),
        ("present_scores", pa.list_(pa.float32())),
        ("present_cells", pa.list_(pa.uint32())),
    ]


def find_sets(facts: MapFacts, frame: Frame, ctx: Context) -> Iterator[Tables]:
    """Write the maps with the classes of the whole picture, the surest first, and the log."""
    cutoffs, ids = ctx.own("cutoffs")["cutoff"], frame["item_id"]
    given = given_sets(frame, ctx) if given_columns(ctx.columns) else None
    most = max(64, BLOCK_BYTES // (8 * ctx.n_classes))
    for start, table in frame.batches(COLUMNS, most):
        sure, cell = PEAKS[facts.output](maps_of(table, facts))
        # Compared as the cutoffs were chosen, in single precision.
        single = sure.astype(np.float32)
        is_present = sets_from(single, cutoffs) & (cell >= 0)
        here = ids.slice(start, len(table))
        columns = {name: table.column(name) for name in COLUMNS}
        tables = {
            ctx.stage: pa.table({"item_id": here, **columns, **_lists(single, cell, is_present)})
        }
        if given is not None:
            said = states(take_rows(given, slice(start, start + len(table))))
            # Where lists are complete, "not listed" is what the maps are asked about.
            is_no = (said == NO) & (RULED_OUT in ctx.columns)
            tables[LOG_FOLDER] = _log(here, single, is_present, said == YES, is_no, ctx)
        yield tables


def _lists(sure: np.ndarray, cell: np.ndarray, is_present: np.ndarray) -> Mapping[str, pa.Array]:
    item, class_id = np.nonzero(is_present)
    order = np.lexsort((class_id, -sure[item, class_id], item))
    item, class_id = item[order], class_id[order]
    start = np.searchsorted(item, np.arange(len(sure) + 1))
    return {
        "present_ids": lists_of(class_id.astype(id_type(sure.shape[1])), start),
        "present_scores": lists_of(sure[item, class_id], start),
        "present_cells": lists_of(cell[item, class_id].astype(np.uint32), start),
    }


def _log(
    item_id: pa.Array,
    sure: np.ndarray,
    is_present: np.ndarray,
    is_given: np.ndarray,
    is_ruled_out: np.ndarray,
    ctx: Context,
) -> pa.Table:
    """Return one row for every class of a picture that is given or found."""
    item, class_id = np.nonzero(is_present | is_given)
    given, present = is_given[item, class_id], is_present[item, class_id]
    new = np.where(is_ruled_out[item, class_id], CONTRADICTED, SEEN)
    rule = np.where(given, np.where(present, AGREES, UNSEEN), new)
    names, actions = (np.array(column) for column in zip(*RULES, strict=True))
    action, peak = actions[rule], sure[item, class_id]
    p = probability_of(peak, class_id, given, ctx.own("cutoffs"))

    def labels(where: np.ndarray) -> pa.Array:
        return ctx.labels(np.where(where, class_id, -1))

    return log_rows(
        item_id=item_id.take(pa.array(item)),
        label_id=class_id.astype(np.int32),
        before=labels(given),
        after=labels(action != "review"),
        action=action,
        p_correct=np.where(action == "review", 1 - p, p).astype(np.float32),
        rule=names[rule],
        evidence={
            "p_given": pa.array(peak, mask=~given),
            "p_believed": peak,
            "believed": labels(present),
            "label_score": pa.nulls(len(item), pa.float32()),
        },
        actor=np.full(len(item), f"stage {ctx.stage}"),
        run=ctx.run_key,
    )


def believed_cells(frame: Frame, ctx: Context) -> Cells:
    """Return classes on which maps and labels do not plainly agree, by item and class.

    `kind` is a position in `RULES`.
    """
    log = frame.file(LOG_FOLDER)
    names = pa.array([name for name, _ in RULES])
    kind = pc.index_in(log["rule"], value_set=names).to_numpy().astype(np.int64)
    at = np.flatnonzero(kind != AGREES)
    row = pc.index_in(log["item_id"], value_set=frame["item_id"]).to_numpy()[at].astype(np.int64)
    class_id = log["label_id"].to_numpy()[at].astype(np.int64)
    is_given, peak = kind[at] == UNSEEN, log["evidence"].combine_chunks().field("p_believed")
    p = np.full(len(at), np.nan)
    if is_calibrated(ctx):
        cutoffs = ctx.result(ctx.beliefs_stage, "cutoffs")
        p = probability_of(peak.to_numpy(zero_copy_only=False)[at], class_id, is_given, cutoffs)
        # A class that is not there has its own probability; of given ones only a reference tells.
        p = np.where(is_given, 1 - p if known(ctx) == REFERENCE else np.nan, p)
    return Cells(row, class_id, is_given, p.astype(np.float64), kind[at])


BELIEFS = Beliefs(
    kind="maps",
    reads=lambda columns: ["item_id", "present_ids"],
    files=(LOG_FOLDER,),
    cells=believed_cells,
)
"""What stage `localize` offers."""


def count_sets(frame: Frame, ctx: Context) -> Arrays:
    """Count in how many pictures each class was found, and how many have how many classes."""
    lists, n_classes = frame["present_ids"], ctx.n_classes
    return {
        "n_present": np.bincount(lists.flatten(), minlength=n_classes),
        "n_items_with": np.bincount(lists.value_lengths(), minlength=n_classes + 1),
    }
