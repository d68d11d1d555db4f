"""Stage `partial`: which of an item's candidates is its label, by predictions of stage `infer`.

Heads of `infer` have learned from candidate sets alone, and predict every item without having seen
it. Here it is found, on a sample, how sure they should be and how many sets lack the true class:
so that sets are likeliest, no surer than items of one candidate let them be, and no surer than a
rival agrees that learned the same sets from the other end, where it explains them as well. Then
every item's candidates are believed as its predictions say, within its set, and what is left is
that none of them is true (`tail_prob`). Beliefs are cautious where another model of how wrong
candidates come about finds them less probable.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field

from labelops.hashing import is_sampled
from labelops.multilabel.labels import YES, states, take_rows
from labelops.opinions.pool import FLOOR, pool
from labelops.partial.candidate_pairs import MOST_CLASSES, fit_rates, pair_weights
from labelops.partial.candidates import (
    candidate_beliefs,
    fit_candidate_pool,
    fit_power,
    is_unbelieved,
    limit_power,
    mass_of,
)
from labelops.soft.labels import sparsify
from labelops.top_belief import all_classes
from pipelines.core.stage import (
    Arrays,
    Beliefs,
    Blocks,
    Context,
    Fit,
    Map,
    Output,
    Reduce,
    Stage,
    Step,
    Tables,
    join_summaries,
)
from pipelines.labels.beliefs import block_rows
from pipelines.labels.candidates import GIVEN, candidate_sets, sets_in
from pipelines.labels.columns import SOFT, soft_columns, soft_fields
from pipelines.labels.predictions import WHOLE, blocks_of, dtype_of
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame, numpy_of
from pipelines.storage.vectors import vectors_of

FIT, RIVAL = "fit", "rival"

FOUND = ("predicted", "p_predicted", "p_none", "is_unbelieved")
"""The most believed candidate, with its probability; that none is true; and where none is believed
more than by chance."""

SAMPLE_ITEMS, SAMPLE_CELLS = 20_000, 1 << 23
"""Temperature and share of wrong sets are fitted on so many items, or probabilities."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `partial`."""

    top_k: int = Field(default=5, ge=1, description="Candidates stored in a soft label.")


FEATURES = ("fold", "embedding")
"""What a rival learns from; ready probabilities have neither, and none is looked for."""


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    return ["item_id", "item_hash", GIVEN, WHOLE, *_features(columns)]


def _features(columns: frozenset[str]) -> Sequence[str]:
    return FEATURES if columns.issuperset(FEATURES) else ()


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
    features = _features(ctx.columns)
    return [
        Reduce(
            name=FIT,
            reads=["item_hash", GIVEN, WHOLE],
            summarize=sample,
            merge=join_summaries,
            finish=fit,
        ),
        Fit(name=RIVAL, reads=["item_hash", GIVEN, WHOLE, *features], fit=look_for_rival),
        Map(
            name="believe",
            reads=["item_id", GIVEN, WHOLE],
            writes={ctx.stage: Output(schema=schema)},
            apply=write,
        ),
    ]


def look_for_rival(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Return the power that is left where other heads explain sets as well and choose otherwise.

    Returns
    -------
    `power`; and, where there are features to learn from, `is_as_good`, `gain`, and `agreement`, the
    share of items of several candidates of which both choose the same, on the first items.
    """
    power = float(ctx.own(FIT)["power"])
    if not _features(ctx.columns):
        return {"power": np.array(power)}
    from labelops.nn.candidate_heads import SEARCH_ITEMS, check_rival

    table = items.first(SEARCH_ITEMS)
    said, features = (vectors_of(table.column(name).chunk(0))[0] for name in (WHOLE, "embedding"))
    is_candidate = states(sets_in(table, ctx.n_classes)) == YES
    probs = pool(said[None].astype(np.float64), ctx.own(FIT)["weights"])
    chosen = np.where(is_candidate, probs, -1.0).argmax(axis=1)
    found = check_rival(
        features.astype(np.float32),
        is_candidate,
        numpy_of(table.column("fold").chunk(0), "fold"),
        chosen,
        n_folds=ctx.of("infer").config.folds,
        seed=ctx.seed(RIVAL),
    )
    agrees, several = found.choice == chosen, is_candidate.sum(axis=1) > 1
    if found.is_as_good:
        power = limit_power(probs, is_candidate, agrees, power=power)
    return {
        "power": np.array(power),
        "is_as_good": np.array(found.is_as_good),
        "gain": np.array(found.gain),
        "agreement": np.array(agrees[several].mean() if several.any() else 1.0),
    }


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
    """Return at which powers sets and labels are likeliest, how many sets are wrong, and pairs."""
    order = np.argsort(summary["item_hash"], kind="stable")
    probs, is_candidate = summary["probs"][order], summary["is_candidate"][order]
    found = fit_candidate_pool(probs[None], is_candidate)
    said = pool(probs[None], found.weights)
    power = fit_power(said, is_candidate)
    has_pairs = ctx.n_classes <= MOST_CLASSES
    return {
        "weights": found.weights,
        "power": np.array(power),
        **({"rates": fit_rates(said, is_candidate)} if has_pairs else {}),
        "n_labels": np.array(np.count_nonzero(is_candidate.sum(axis=1) == 1)),
        "wrong": np.array(found.wrong),
        "loss": np.array(found.loss),
        "n": np.array(len(order)),
    }


def blocks(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    """Yield what is believed of candidates; what is left, of no candidate."""
    found = ctx.result(ctx.beliefs_stage, FIT)
    power = float(ctx.result(ctx.beliefs_stage, RIVAL)["power"])
    wrong = float(found["wrong"])
    for here, said, is_candidate in _said(frame, ctx, found["weights"]):
        belief, none = candidate_beliefs(said, is_candidate, wrong=wrong, power=power)
        cautious = belief
        if "rates" in found:
            weights = pair_weights(said, is_candidate, found["rates"])
            cautious = np.minimum(belief, (1 - none)[:, None] * weights)
        yield here, all_classes(belief, cautious)._replace(others=none)


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
    wrong, power = float(found["wrong"]), float(ctx.own(RIVAL)["power"])
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
    found, rival = (ctx.result(ctx.beliefs_stage, step) for step in (FIT, RIVAL))
    return 1 / max(float(found["weights"][0]) * float(rival["power"]), FLOOR)


BELIEFS = Beliefs(
    kind="candidates",
    reads=lambda columns: [GIVEN, WHOLE],
    blocks=blocks,
    temperature=temperature,
)

STAGE = Stage(
    name="partial",
    version=2,
    doc="finds which of an item's candidates is its label",
    config=Config,
    steps=steps,
    reads=reads,
    writes=lambda config, columns: ["item_id", *SOFT, *FOUND],
    beliefs=BELIEFS,
)
