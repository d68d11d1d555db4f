"""Temperature and calibration errors, on a sample that the hashes of the ids choose."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from labelops import calibration
from labelops.temperature import apply_temperature, fit_temperature
from labelops.top_rows import Probs, TopRows
from pipelines.core.stage import Arrays, Context
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array, vectors_of

if TYPE_CHECKING:
    from pipelines.stages.infer import Config

SAMPLE_CELLS = 1 << 23
"""Items × classes of the sample stay about below it: 32 MiB, however many classes there are."""


def folder(ctx: Context) -> str:
    """Return the scratch folder of the sampled rows."""
    return f"{ctx.stage}/_sample"


def sampled(item_hash: np.ndarray, ctx: "Context[Config]", cells: int = SAMPLE_CELLS) -> np.ndarray:
    """Return which items are in the sample: those whose hash is below a bar."""
    wanted = min(ctx.config.calibration_items, max(1, cells // ctx.n_classes))
    if wanted >= ctx.n_items:
        return np.ones(len(item_hash), bool)
    return np.asarray(item_hash <= np.uint64(wanted * 2**64 // ctx.n_items))


def sample_table(
    item_hash: np.ndarray,
    given: np.ndarray,
    probs: Probs,
    ctx: "Context[Config]",
    usable: np.ndarray | None = None,
) -> pa.Table:
    """Return the sampled ones of some items, if they are usable, as rows of the scratch folder."""
    chosen_rows = sampled(item_hash, ctx)
    rows = np.flatnonzero(chosen_rows if usable is None else chosen_rows & usable)
    chosen = probs[rows]
    if isinstance(chosen, TopRows):
        chosen = chosen.dense()
    if chosen.dtype == np.float16:
        chosen = chosen.astype(np.float32)
    return pa.table(
        {
            "item_hash": pa.array(item_hash[rows], pa.uint64()),
            "given": pa.array(given[rows], pa.int32()),
            "pred_probs": list_array(chosen),
        }
    )


def summarize(frame: Frame, ctx: Context) -> Arrays:
    """Return a shard's sampled rows."""
    table = frame.file(folder(ctx)).combine_chunks()
    columns = {name: table.column(name) for name in table.column_names}
    whole = {
        name: column.chunk(0) if column.num_chunks else pa.array([], column.type)
        for name, column in columns.items()
    }
    return {
        "item_hash": whole["item_hash"].to_numpy(),
        "given": whole["given"].to_numpy(),
        "probs": vectors_of(whole["pred_probs"])[0],
    }


def finish(summary: Arrays, ctx: "Context[Config]") -> Arrays:
    """Fit the temperature; measure before and after it."""
    order = np.argsort(summary["item_hash"], kind="stable")
    given, probs = summary["given"][order], summary["probs"][order]
    temperature = fit_temperature(calibration.log_safe(probs), given)
    found: Arrays = {"temperature": np.array(temperature), "n": np.array(len(given))}
    scaled = apply_temperature(probs, temperature=temperature)
    for when, p in (("before", probs.astype(np.float64)), ("after", scaled)):
        for name, value in calibration.metrics(p, given, n_bins=ctx.config.bins).items():
            found[f"{when}_{name}"] = np.array(value)
        bins = calibration.top_reliability(p, given, n_bins=ctx.config.bins)
        for name, values in bins._asdict().items():
            found[f"{when}_bins_{name}"] = values
    return found
