"""A stage that takes its time, and the command line with it; runs as a program of its own.

Processes of a cluster start by importing the main module, so they know the stage, too.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import pyarrow as pa
from pydantic import BaseModel

from pipelines import registry
from pipelines.core.stage import Context, Map, Output, Stage, Step
from pipelines.errors import DataError
from pipelines.storage.frame import Frame


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `nap`."""

    seconds: float = 0.0
    fail: str = ""


def nap(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    """Sleep, or fail in the way that was asked for."""
    time.sleep(ctx.config.seconds)
    if ctx.config.fail == "data":
        raise DataError("stage 'nap': sleep was expected, got noise. Close the window")
    if ctx.config.fail == "bug":
        raise KeyError("pillow")
    if ctx.config.fail == "memory":
        raise MemoryError("Unable to allocate 74.5 GiB")
    if ctx.config.fail == "io":
        raise OSError(5, "Input/output error", "part-00000.parquet")
    ids = frame["item_id"]
    return {"nap": pa.table({"item_id": ids, "slept": pa.array([1] * len(ids), pa.int64())})}


def steps(config: Config, ctx: Context) -> Sequence[Step]:
    """One step: sleep beside every shard."""
    schema = pa.schema([("item_id", ctx.types["item_id"]), ("slept", pa.int64())])
    step = Map(name="nap", reads=["item_id"], writes={"nap": Output(schema=schema)}, apply=nap)
    return [step]


STAGE = Stage(
    name="nap",
    version=1,
    doc="Sleep beside every shard.",
    config=Config,
    steps=steps,
    reads=lambda config, columns: ["item_id"],
    writes=lambda config, columns: ["item_id", "slept"],
)


def register() -> None:
    """Make the stage known to this process."""
    module: Any = ModuleType("labelops_toy")
    module.STAGE = STAGE
    sys.modules["labelops_toy"] = module
    registry.STAGES["nap"] = "labelops_toy:STAGE"


if __name__ in ("__main__", "__mp_main__"):
    register()

if __name__ == "__main__":
    from flows.cli import main

    main()
