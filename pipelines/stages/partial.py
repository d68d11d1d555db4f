"""Stage `partial`: which of an item's candidates is its label, by predictions of stage `infer`.

Heads of `infer` have learned from candidate sets alone, and predict every item without having seen
it. Here it is found, on a sample, how sure they should be and how many sets lack the true class:
so that sets are likeliest, and no surer than items of one candidate let them be. Then every item's
candidates are believed as its predictions say, within its set, and what is left is that none of
them is true (`tail_prob`).
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from labelops.hashing import is_sampled
from labelops.multilabel.labels import YES, states, take_rows
from labelops.opinions.pool import FLOOR, pool
from labelops.partial.candidates import (
    candidate_beliefs,
    fit_candidate_pool,
    fit_power,
    is_unbelieved,
    mass_of,
)
from labelops.soft.labels import sparsify
from labelops.top_belief import all_classes
from pipelines.core.stage import (
    Arrays,
    Beliefs,
    Blocks,
    Context,
    Map,
    Output,
    Reduce,
    Stage,
    Step,
    Tables,
    join_summaries,
)
from pipelines.labels.beliefs import block_rows
from pipelines.labels.candidates import GIVEN, candidate_sets
from pipelines.labels.columns import SOFT, soft_columns, soft_fields
from pipelines.labels.predictions import WHOLE, blocks_of, dtype_of
from pipelines.storage.frame import Frame

FIT = "fit"

FOUND = ("predicted", "p_predicted", "p_none", "is_unbelieved")
"""The most believed candidate, with its probability; that none is true; and where none is believed
more than by chance."""

SAMPLE_ITEMS, SAMPLE_CELLS = 20_000, 1 << 23
"""Temperature and share of wrong sets are fitted on so many items, or probabilities."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `partial`."""

    top_k: int = Field(default=5, ge=1, description="Candidates stored in a soft label.")


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    return ["item_id", "item_hash", GIVEN, WHOLE]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: fit on a sample, write beliefs, count by class."""
    schema = pa.schema(
        [
            ("item_id", ctx.types["item_id"]),
            *soft_fields(ctx.n_classes),
            ("predicted", pa.int32()),
            ("p_predicted", pa.float32()),
            ("p_none", pa.float32()),
            ("is_unbelieved", pa.bool_()),
        ]
    )
    return [
        Reduce(
            name=FIT,
            reads=["item_hash", GIVEN, WHOLE],
            summarize=sample,
            merge=join_summaries,
            finish=fit,
        ),
        Map(
            name="believe",
            reads=["item_id", GIVEN, WHOLE],
            writes={ctx.stage: Output(schema=schema)},
            apply=write,
        ),
    ]


def sample(frame: Frame, ctx: Context) -> Arrays:
    """Return candidates and predictions of a shard's sampled items."""
    hashes, sets = frame.array("item_hash"), candidate_sets(frame, ctx)
    wanted = min(SAMPLE_ITEMS, max(1, SAMPLE_CELLS // ctx.n_classes))
    chosen = is_sampled(hashes, wanted=wanted, total=ctx.n_items)
    none = np.empty((0, ctx.n_classes))
    probs, is_candidate = [none], [none.astype(bool)]
    for first, block in blocks_of(frame, dtype_of(ctx), ctx.n_classes):
        here = slice(first, first + len(block))
        probs.append(block[chosen[here]])
        is_candidate.append((states(take_rows(sets, here)) == YES)[chosen[here]])
    return {
        "item_hash": hashes[chosen],
        "probs": np.concatenate(probs).astype(np.float64),
        "is_candidate": np.concatenate(is_candidate),
    }


def fit(summary: Arrays, ctx: Context) -> Arrays:
    """Return the power at which sets are likeliest, how many are wrong, and a power for labels."""
    order = np.argsort(summary["item_hash"], kind="stable")
    probs, is_candidate = summary["probs"][order], summary["is_candidate"][order]
    found = fit_candidate_pool(probs[None], is_candidate)
    power = fit_power(pool(probs[None], found.weights), is_candidate)
    return {
        "weights": found.weights,
        "power": np.array(power),
        "n_labels": np.array(np.count_nonzero(is_candidate.sum(axis=1) == 1)),
        "wrong": np.array(found.wrong),
        "loss": np.array(found.loss),
        "n": np.array(len(order)),
    }


def blocks(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    """Yield what is believed of candidates; what is left, of no candidate."""
    found = ctx.result(ctx.beliefs_stage, FIT)
    wrong, power = float(found["wrong"]), float(found["power"])
    for here, said, is_candidate in _said(frame, ctx, found["weights"]):
        belief, none = candidate_beliefs(said, is_candidate, wrong=wrong, power=power)
        yield here, all_classes(belief)._replace(others=none)


def _said(
    frame: Frame, ctx: Context, weights: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield rows of a shard, what is said of them, and their candidates."""
    sets, step = candidate_sets(frame, ctx), block_rows(ctx.n_classes)
    for first, block in _whole_blocks(frame, ctx):
        for start in range(0, max(len(block), 1), step):
            probs = block[start : start + step]
            here = slice(first + start, first + start + len(probs))
            is_candidate = states(take_rows(sets, here)) == YES
            yield here, pool(probs[None], weights), is_candidate


def _whole_blocks(frame: Frame, ctx: Context) -> Iterator[tuple[int, np.ndarray]]:
    """Yield predictions of a shard; one empty block where there are none."""
    if frame.n:
        yield from blocks_of(frame, dtype_of(ctx), ctx.n_classes)
    else:
        yield 0, np.empty((0, ctx.n_classes))


def write(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write the beliefs of a shard."""
    ids, found = frame["item_id"], ctx.own(FIT)
    wrong, power = float(found["wrong"]), float(found["power"])
    for here, said, is_candidate in _said(frame, ctx, found["weights"]):
        belief, none = candidate_beliefs(said, is_candidate, wrong=wrong, power=power)
        mass, size = mass_of(said, is_candidate), is_candidate.sum(axis=1)
        unbelieved = is_unbelieved(mass, size, n_classes=ctx.n_classes)
        best = belief.argmax(axis=1)
        soft = sparsify(belief, k=ctx.config.top_k)
        tail = (soft.tail.astype(np.float64) + none).astype(np.float16)
        yield {
            ctx.stage: pa.table(
                {
                    "item_id": ids[here],
                    **dict(zip(SOFT, soft_columns(soft._replace(tail=tail)), strict=True)),
                    "predicted": pa.array(best, pa.int32()),
                    "p_predicted": pa.array(belief[np.arange(len(best)), best], pa.float32()),
                    "p_none": pa.array(none, pa.float32()),
                    "is_unbelieved": pa.array(unbelieved),
                }
            )
        }


def temperature(ctx: Context) -> float:
    """Return by which predictions are divided within sets."""
    found = ctx.result(ctx.beliefs_stage, FIT)
    return 1 / max(float(found["weights"][0]) * float(found["power"]), FLOOR)


BELIEFS = Beliefs(
    kind="candidates",
    reads=lambda columns: [GIVEN, WHOLE],
    blocks=blocks,
    temperature=temperature,
)

STAGE = Stage(
    name="partial",
    version=1,
    doc="finds which of an item's candidates is its label",
    config=Config,
    steps=steps,
    reads=reads,
    writes=lambda config, columns: ["item_id", *SOFT, *FOUND],
    beliefs=BELIEFS,
)
