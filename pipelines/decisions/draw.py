"""Items drawn for people to check: a sheet to fill in, and what the answers say of all items.

The sheet is `review/estimate.parquet` of a run. Given back as the reviewed items of the stage that
decides, its answers count wrong labels without bias, whatever the model is worth.
"""

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from labelops.belief import UNIT
from labelops.decisions import NOBODY
from labelops.drawn import (
    N_STRATA,
    Count,
    allocate,
    count_wrong,
    drawing_order,
    first_of_each,
    half_width,
    stratum_of,
)
from pipelines.core.results import result_name
from pipelines.core.stage import Arrays, Context, Reduce
from pipelines.core.state import Run
from pipelines.decisions.counts import deciding_stage
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import arrays_of

SHEET_FILE = "review/estimate.parquet"

DRAW = "draw"

N_DRAWN = 60

P_WRONG = "carried_p_wrong"


class Measured(NamedTuple):
    """What people's answers on the drawn items say.

    Attributes
    ----------
    n_drawn, n_answered : items drawn, and those of them that people reviewed.
    n_reviewed : items that people reviewed, drawn or not.
    half_width : by how much the share of wrong labels will be uncertain when all are checked.
    wrong : how many labels are wrong in all; None until all drawn items are checked.
    """

    n_drawn: int
    n_answered: int
    n_reviewed: int
    half_width: float
    wrong: Count | None


def draw_step(ctx: Context) -> Reduce:
    """Return the step that draws items, and counts what people said of them."""
    return Reduce(
        name=DRAW,
        reads=["item_id", "item_hash", f"{ctx.stage}/_proposed", P_WRONG],
        summarize=_summarize,
        merge=_merge,
        finish=_finish,
    )


def _summarize(frame: Frame, ctx: Context) -> Arrays:
    """Return the first items of each stratum, and how many it has."""
    proposed = arrays_of(frame.file(f"{ctx.stage}/_proposed"))
    p_wrong = frame.array(P_WRONG).astype(np.float64)
    stratum, key = stratum_of(p_wrong), drawing_order(frame.array("item_hash"))
    at = first_of_each(stratum, key, N_DRAWN)
    sums = np.zeros(N_STRATA, np.int64)
    np.add.at(sums, stratum, np.rint(p_wrong * UNIT).astype(np.int64))
    ids = frame["item_id"].take(pa.array(at)).to_pylist()
    return {
        "n_of": np.bincount(stratum, minlength=N_STRATA),
        "sum_of": sums,
        "n_reviewed": np.array(int((proposed["truth"] != NOBODY).sum())),
        "stratum": stratum[at],
        "key": key[at],
        # As JSON: an array of text would drop a NUL at the end.
        "item_id": np.array([json.dumps(item) for item in ids], dtype=np.str_),
        **{name: proposed[name][at].astype(np.int64) for name in ("before", "truth")},
        "p_wrong": p_wrong[at],
    }


_ADDED = ("n_of", "sum_of", "n_reviewed")


def _merge(a: Arrays, b: Arrays) -> Arrays:
    both = {name: np.concatenate([a[name], b[name]]) for name in a if name not in _ADDED}
    at = first_of_each(both["stratum"], both["key"], N_DRAWN)
    return {name: a[name] + b[name] for name in _ADDED} | {n: x[at] for n, x in both.items()}


def _finish(summary: Arrays, ctx: Context) -> Arrays:
    n_of = summary["n_of"]
    p_of = summary["sum_of"] / UNIT / np.maximum(n_of, 1)
    drawn = allocate(n_of, p_of, N_DRAWN)
    place = np.arange(len(summary["key"]))
    place -= np.searchsorted(summary["stratum"], summary["stratum"])
    at = np.flatnonzero(place < drawn[summary["stratum"]])
    # By hash of the id: the strata in turn would tell people what is thought of them.
    at = at[np.argsort(summary["key"][at], kind="stable")]
    rows = {n: x[at] for n, x in summary.items() if n not in (*_ADDED, "key")}
    is_answered = rows["truth"] != NOBODY
    is_wrong = is_answered & (rows["truth"] != rows["before"])
    result = {
        **rows,
        "n_of": n_of,
        "n_reviewed": summary["n_reviewed"],
        "n_answered": np.array(int(is_answered.sum())),
        "half_width": np.array(half_width(n_of, p_of, drawn)),
    }
    if is_answered.all() and len(at):
        wrong = np.bincount(rows["stratum"][is_wrong], minlength=N_STRATA)
        counted = count_wrong(n_of, drawn, wrong)
        result |= {f"n_wrong{end}": np.array(x) for end, x in zip(ENDS, counted, strict=True)}
    return result


ENDS = ("", "_low", "_high")


def measured(result: Mapping[str, np.ndarray] | None) -> Measured | None:
    """Return what the result of `draw_step` says; None without one."""
    if result is None:
        return None
    wrong = None
    if "n_wrong" in result:
        wrong = Count(*(float(result[f"n_wrong{end}"]) for end in ENDS))
    return Measured(
        n_drawn=len(result["stratum"]),
        n_answered=int(result["n_answered"]),
        n_reviewed=int(result["n_reviewed"]),
        half_width=float(result["half_width"]),
        wrong=wrong,
    )


def write_sheet(run: Run) -> None:
    """Write the drawn items of a run, with a column for answers; nothing where none were drawn.

    What the model believes is not in it: people would follow.
    """
    stage = deciding_stage(run)
    if stage is None:
        return
    if not run.store.exists(result_name(stage, DRAW)):
        return
    ctx = run.context(stage, run.layout())
    drawn = ctx.own(DRAW)
    ids = [json.loads(text) for text in drawn["item_id"].tolist()]
    sheet = pa.table(
        {
            "item_id": pa.array(ids, ctx.types["item_id"]),
            "given_label": ctx.labels(drawn["before"]),
            "true_label": pa.nulls(len(ids), ctx.label_type),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(sheet, sink)
    run.store.write_atomic(SHEET_FILE, sink.getvalue().to_pybytes())
