"""A stand-in for stage `confident` whose flags and noise are those that a test planted."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel

from labelops.belief import noise_at
from pipelines.core.stage import Arrays, Context, Map, Output, Reduce, Stage, Step
from pipelines.labels.beliefs import OF_PREDICTIONS
from pipelines.storage.frame import Frame

SCHEMA = [
    ("is_label_issue", pa.bool_()),
    ("label_score", pa.float32()),
    ("predicted", pa.int32()),
]


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings: the share of wrong labels."""

    noise: float = 0.2


def flag(frame: Frame, ctx: Context) -> Mapping[str, pa.Table]:
    probs, given = frame.array("pred_probs"), frame.array("given")
    p_given = probs[np.arange(frame.n), given]
    issue = probs.max(axis=1) > p_given
    columns = [frame["item_id"], issue, p_given, probs.argmax(axis=1).astype(np.int32)]
    table = pa.table(columns, names=["item_id", *dict(SCHEMA)])
    return {ctx.stage: table}


def count(frame: Frame, ctx: Context) -> Arrays:
    return {"n": np.array(frame.n)}


def estimate(summary: Arrays, ctx: Context) -> Arrays:
    k = ctx.n_classes
    noise = noise_at(np.full(k, ctx.config.noise), np.zeros((k, k)))
    joint = noise * int(summary["n"]) / k
    found = {"confident_joint": joint, "calibrated_joint": joint}
    for end, n in (("", 60), ("_low", 50), ("_high", 70)):
        found[f"n_errors{end}"] = np.array(n)
        found[f"total_noise_rate{end}"] = np.array(ctx.config.noise)
        found[f"noise_rate{end}"] = np.full(k, ctx.config.noise)
    return found


def surest(summary: Arrays, ctx: Context) -> Arrays:
    n_wrong = {"n_wrong": np.array(60.0), "n_wrong_low": np.array(50.0)}
    n_wrong["n_wrong_high"] = np.array(70.0)
    rate = np.full(ctx.n_classes, ctx.config.noise)
    return {"rate": rate, "is_flat": np.array(True), **n_wrong}


def steps(config: Config, ctx: Context) -> Sequence[Step]:
    schema = pa.schema([("item_id", ctx.types["item_id"]), *SCHEMA])
    return [
        Map(
            name="flag",
            reads=["item_id", "given", "pred_probs"],
            writes={ctx.stage: Output(schema=schema)},
            apply=flag,
        ),
        Reduce(name="estimates", reads=["given"], summarize=count, finish=estimate),
        Reduce(name="surest", reads=["given"], summarize=count, finish=surest),
    ]


STAGE = Stage(
    name="confident",
    version=1,
    doc="flags what the test planted",
    config=Config,
    steps=steps,
    reads=lambda config, columns: ["item_id", "given", "pred_probs"],
    writes=lambda config, columns: ["item_id", *dict(SCHEMA)],
    beliefs=OF_PREDICTIONS,
)
