"""How far probabilities can be taken at their word, on a sample that the hashes of ids choose."""

import numpy as np
import pyarrow as pa

from labelops.hashing import is_sampled
from labelops.top_rows import Probs, TopRows
from pipelines.core.stage import Arrays, Context, Output, Reduce, join_summaries
from pipelines.inference.given import Labels, given_of
from pipelines.inference.settings import Config
from pipelines.inference.unknown import learned_of
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import arrays_of, list_array


def folder(ctx: Context) -> str:
    """Return the scratch folder of the sampled rows."""
    return f"{ctx.stage}/_sample"


def sample_output(ctx: Context, number: pa.DataType) -> dict[str, Output]:
    """Return the scratch of sampled rows, with probabilities of some type."""
    schema = pa.schema(
        [
            ("item_hash", pa.uint64()),
            ("given", given_of(ctx.columns).sample_type(ctx.n_classes)),
            ("pred_probs", pa.list_(number, ctx.n_classes)),
        ]
    )
    return {folder(ctx): Output(schema=schema, rows="some", ipc=True)}


def sample_table(
    item_hash: np.ndarray,
    given: Labels,
    probs: Probs,
    ctx: Context[Config],
    usable: np.ndarray | None = None,
) -> pa.Table:
    """Return the sampled ones of some items, if they are usable, as rows of the scratch folder.

    In the sample are the items whose hash is below a bar.
    """
    kind = learned_of(ctx)
    wanted = min(ctx.config.calibration_items, max(1, kind.sample_cells // ctx.n_classes))
    is_chosen = is_sampled(item_hash, wanted=wanted, total=ctx.n_items)
    rows = np.flatnonzero(is_chosen if usable is None else is_chosen & usable)
    chosen = probs[rows]
    if isinstance(chosen, TopRows):
        chosen = chosen.dense()
    if chosen.dtype == np.float16:
        chosen = chosen.astype(np.float32)
    return pa.table(
        {
            "item_hash": pa.array(item_hash[rows], pa.uint64()),
            "given": kind.sample(kind.choose(given, rows)),
            "pred_probs": list_array(chosen),
        }
    )


def summarize(frame: Frame, ctx: Context) -> Arrays:
    """Return a shard's sampled rows."""
    return arrays_of(frame.file(folder(ctx)))


def calibration_step(ctx: Context) -> "Reduce[Config]":
    """Return the step that measures on the sample."""
    return Reduce(
        name="calibration",
        reads=[folder(ctx)],
        summarize=summarize,
        merge=join_summaries,
        finish=finish,
    )


def finish(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Fit what helps; measure before and after it."""
    order = np.argsort(summary["item_hash"], kind="stable")
    given, probs = summary["given"][order], summary["pred_probs"][order]
    return learned_of(ctx).measure(given, probs, ctx.config.bins)
