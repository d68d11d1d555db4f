"""A stage that uses everything the core offers, for tests of the core."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from pipelines.core.stage import Arrays, Context, Fit, Map, Output, Reduce, Stage, Step
from pipelines.storage.arrays import read_array
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame

REJECT_EVERY = 50


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of the toy."""

    shift: int = 0


def scan(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    hashes = frame.array("item_hash")
    bad = np.flatnonzero(hashes % np.uint64(REJECT_EVERY) == 0)
    frame.reject(bad, "toy: hash is a multiple")
    kept = frame.kept()
    low = pa.array((hashes[kept] & np.uint64(1023)).astype(np.int64) + ctx.config.shift)
    ids = frame["item_id"].take(pa.array(kept))
    some = pa.table({"low": low}).filter(pa.compute.greater(low, 512))
    return {"toy/_scan": pa.table({"item_id": ids, "low": low}), "toy/_some": some}


def count(frame: Frame, ctx: Context) -> Arrays:
    low = frame.array("low")
    extra = frame.file("toy/_some").num_rows
    return {"n": np.array(len(low)), "sum": np.array(low.sum()), "n_some": np.array(extra)}


def fit(items: Items, ctx: Context, folder: str) -> Arrays:
    order = items.column("item_hash")
    np.save(f"{folder}/order.npy", order)
    running = 0.0
    for block in items.blocks(16):
        # A float sum on purpose: canonical order must make even this reproducible.
        running = running * 0.999 + float(np.sin(np.asarray(block["low"], np.float64)).sum())
    return {"running": np.array(running)}


def place(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    order = read_array(ctx.artifact("fit", "order.npy"), "r")
    position = np.searchsorted(order, frame.array("item_hash"))
    share = frame.array("low") / ctx.own("count")["sum"] + ctx.own("fit")["running"]
    table = pa.table(
        {"item_id": frame["item_id"], "position": position, "share": share.astype(np.float32)}
    )
    return {"toy": table, "toy_extra": table.select(["position"]).slice(0, 1)}


def steps(config: Config, ctx: Context) -> Sequence[Step]:
    ids = ("item_id", pa.string())
    return [
        Map(
            name="scan",
            reads=["item_id", "item_hash"],
            writes={
                "toy/_scan": Output(schema=pa.schema([ids, ("low", pa.int64())]), ipc=True),
                "toy/_some": Output(schema=pa.schema([("low", pa.int64())]), rows="some"),
            },
            apply=scan,
        ),
        Reduce(name="count", reads=["low", "toy/_some"], summarize=count),
        Fit(name="fit", reads=["item_hash", "low"], fit=fit),
        Map(
            name="place",
            reads=["item_id", "item_hash", "low"],
            writes={
                "toy": Output(
                    schema=pa.schema([ids, ("position", pa.int64()), ("share", pa.float32())])
                ),
                "toy_extra": Output(schema=pa.schema([("position", pa.int64())]), rows="some"),
            },
            apply=place,
        ),
    ]


STAGE = Stage(
    name="toy",
    version=1,
    doc="Everything at once.",
    config=Config,
    steps=steps,
    reads=lambda config, columns: ["item_hash"],
    writes=lambda config, columns: ["position", "share"],
    folders=("toy_extra",),
)
RECIPE = 'stages = ["source", "toy"]\n[data]\nmax_bad_share = 0.2\n'
