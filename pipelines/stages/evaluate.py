"""Stage `evaluate`: how right labels and predictions are, on items whose classes people settled.

What is compared with the reference: the labels as given, as cleaned, what the classifier predicts,
what is believed in the end where labels are incomplete, and what label maps show. Of candidates all
count as given; of positive and unlabelled items the unlabelled ones count as not positive.
Everything has an interval, from items drawn with replacement; classes that the reference does not
know of an item count neither for nor against. Nothing depends on this stage: the reference chooses
nothing here.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from labelops.multilabel.accuracy import real_share
from labelops.multilabel.evaluate import (
    micro_f1_gain,
    rank_measures,
    set_measures,
    wrong_cells,
)
from labelops.multilabel.labels import UNKNOWN, YES, LabelSets, from_flat, from_states, states
from labelops.multilabel.resampling import Share, average, draws, measure
from labelops.ragged import owners
from pipelines.core.stage import Arrays, Context, Map, Output, Reduce, Stage, Step, join_summaries
from pipelines.labels import candidates, positives
from pipelines.labels.columns import GIVEN, flat
from pipelines.labels.reference import match_reference, n_rows, reference_sets
from pipelines.labels.space import given_columns, given_sets, space_of
from pipelines.storage.frame import Frame

SETS = ("given", "clean", "model", "believed", "maps")
"""Sets of classes that can be compared; which of them there are depends on the earlier stages."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `evaluate`."""

    reference: str | None = Field(
        default=None,
        description="Local Parquet or CSV file with item_id and true_labels of some items. "
        "Absent: the stage is skipped.",
    )
    cutoff: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="A class with at least this probability counts as predicted, if items may have "
        "several classes; else the most probable one does.",
    )
    max_items: int = Field(
        default=50_000, ge=1, description="About this many items at most are compared."
    )
    n_draws: int = Field(default=200, ge=20, description="Bootstrap draws for intervals.")


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None."""
    if config.reference is None:
        return "no reference is named (evaluate.reference)"
    if space_of(columns) is None:
        return "items have no labels"
    return None


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    optional = [*CLEAN, "pred_probs", "predicted", "p_positive", "present_ids"]
    found = [name for name in optional if name in columns]
    return ["item_id", "item_hash", *given_columns(columns), *found]


CLEAN = ("labels_clean", "label_clean", "positive_clean")

COLUMNS = {"wrong_as_given": "given", "wrong_as_cleaned": "clean"}


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: wrong labels of every item that is known, then measures."""
    needed = reads(config, ctx.columns)
    fields = [("item_id", ctx.types["item_id"]), *((name, pa.int32()) for name in COLUMNS)]
    narrow = [name for name in needed if name not in ("pred_probs", "item_hash")]
    return [
        match_reference("reference", "ids of the reference"),
        Map(
            name="compare",
            reads=narrow,
            writes={ctx.stage: Output(schema=pa.schema(fields))},
            apply=count_wrong,
        ),
        Reduce(
            name="measures",
            reads=needed,
            summarize=collect,
            merge=join_summaries,
            finish=measure_all,
        ),
    ]


# -- sets of classes -------------------------------------------------------------------------------


def _present(frame: Frame, ctx: Context[Config], rows: np.ndarray) -> dict[str, np.ndarray]:
    """Return which classes some items have, as given, cleaned, and seen in maps; bool, (n, K)."""
    has_candidates = candidates.GIVEN in ctx.columns
    sets = candidates.candidate_sets(frame, ctx) if has_candidates else given_sets(frame, ctx)
    given = _as_table(sets, rows)
    if positives.GIVEN in ctx.columns:
        given[:, positives.NEGATIVE] |= ~given[:, positives.POSITIVE]
    present = {"given": given}
    clean = _clean(frame, ctx, rows)
    if clean is not None:
        table, is_settled = clean
        # What waits for a person is as given until then.
        present["clean"] = np.where(is_settled[:, None], table, given)
    if has_candidates and "predicted" in frame:
        present["believed"] = np.arange(ctx.n_classes) == frame.array("predicted")[rows, None]
    elif "p_positive" in frame:
        is_positive = frame.array("p_positive")[rows] >= ctx.config.cutoff
        present["believed"] = np.stack([~is_positive, is_positive], axis=1)
    if "present_ids" in frame:
        ids, start = flat(frame["present_ids"])
        sets = from_flat(ids.to_numpy(), start, n_classes=ctx.n_classes)
        present["maps"] = _as_table(sets, rows)
    return present


def _as_table(sets: LabelSets, rows: np.ndarray) -> np.ndarray:
    """Return which classes are present in some rows."""
    at = np.full(sets.n_items, -1)
    at[rows] = np.arange(len(rows))
    item = at[owners(sets.start)]
    table = np.zeros((len(rows), sets.n_classes), bool)
    table[item[item >= 0], sets.ids[item >= 0]] = True
    return table


def _clean(frame: Frame, ctx: Context, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    name = next((name for name in CLEAN if name in frame), None)
    if name is None:
        return None
    column = frame[name]
    is_settled = column.is_valid().to_numpy(zero_copy_only=False)
    if name == "labels_clean":
        labels, start = flat(column)
    else:
        labels, start = column.drop_null(), np.append(0, np.cumsum(is_settled))
    known = ctx.labels(np.arange(ctx.n_classes))
    ids = pc.index_in(labels.cast(known.type), value_set=known).to_numpy(zero_copy_only=False)
    return _as_table(from_flat(ids, start, n_classes=ctx.n_classes), rows), is_settled[rows]


def count_wrong(frame: Frame, ctx: Context[Config]) -> Mapping[str, pa.Table]:
    """Write how many known classes of each item are wrong; null for what nobody settled."""
    rows, truth = reference_sets("reference", frame["item_id"], ctx)
    table, present = states(truth), _present(frame, ctx, rows)
    columns = {"item_id": frame["item_id"]}
    for name, kind in COLUMNS.items():
        n_wrong, is_known = np.zeros(frame.n, np.int32), np.zeros(frame.n, bool)
        if kind in present:
            n_wrong[rows] = wrong_cells(present[kind], table).sum(axis=1)
            is_known[rows] = True
        columns[name] = pa.array(n_wrong, mask=~is_known)
    return {ctx.stage: pa.table(columns)}


# -- measures --------------------------------------------------------------------------------------


def collect(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Return a shard's items that the reference knows, dense."""
    rows, truth = reference_sets("reference", frame["item_id"], ctx)
    hashes = frame.array("item_hash")[rows]
    table = states(truth)
    if ctx.config.max_items < ctx.n_items:
        # By hash, so that it does not matter which shard an item is in.
        share = min(1.0, ctx.config.max_items / max(n_rows(ctx, "reference"), 1))
        chosen = hashes <= np.uint64(min(int(share * 2**64), 2**64 - 1))
        rows, hashes, table = rows[chosen], hashes[chosen], table[chosen]
    result: Arrays = {"item_hash": hashes, "truth": table, **_present(frame, ctx, rows)}
    if "pred_probs" in frame:
        result["probs"] = frame.array("pred_probs")[rows].astype(np.float32)
    return result


def measure_all(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Measure everything that there is.

    Returns
    -------
    For sets `given`, `clean`, `model`, `believed`, `maps`: `<set>_subset_accuracy`,
    `<set>_micro_f1`, `<set>_macro_f1`, each (value, low, high), `<set>_class_f1` (K,) and
    `<set>_micro_f1_gain` over `given`. Of probabilities: `mean_average_precision`,
    `real_accuracy`, `multilabel_accuracy`, `exact_set_accuracy`, `class_average_precision`. Where
    items have one label each: `given_real_accuracy`, `clean_real_accuracy` and
    `believed_real_accuracy`, of those items that have just one class there; of candidates,
    `given_has_truth`. `n_items`, `n_known_cells`;
    `n_present` (K,).
    """
    order = np.argsort(summary["item_hash"], kind="stable")
    items = {name: values[order] for name, values in summary.items()}
    truth = from_states(items["truth"])
    measures: Arrays = {
        "n_items": np.array(truth.n_items),
        "n_known_cells": np.array(int((items["truth"] != UNKNOWN).sum())),
        "n_present": (items["truth"] == 1).sum(axis=0),
    }
    if "probs" in items:
        measures |= _rank(items["probs"], truth, ctx)
        items["model"] = _predicted(items["probs"], ctx)
    for name in SETS:
        if name in items:
            measures |= _set(name, items, truth, ctx)
    return measures


def _predicted(probs: np.ndarray, ctx: Context[Config]) -> np.ndarray:
    if GIVEN in ctx.columns:
        return np.asarray(probs >= ctx.config.cutoff)
    return np.asarray(np.arange(probs.shape[1]) == probs.argmax(axis=1)[:, None])


def _rng(ctx: Context) -> np.random.Generator:
    # The same for all measures: they are of the same draws.
    return np.random.default_rng(ctx.seed("draws"))


def _rank(probs: np.ndarray, truth: LabelSets, ctx: Context[Config]) -> Arrays:
    measures = rank_measures(probs, truth, rng=_rng(ctx), n_draws=ctx.config.n_draws)
    return {name: np.array(value, np.float64) for name, value in measures._asdict().items()}


def _set(name: str, items: Arrays, truth: LabelSets, ctx: Context[Config]) -> Arrays:
    n_draws, table = ctx.config.n_draws, items[name]
    measured = set_measures(table, truth, rng=_rng(ctx), n_draws=n_draws)
    measures = {f"{name}_{key}": np.array(value) for key, value in measured._asdict().items()}
    if name == "given" and candidates.GIVEN in ctx.columns:
        has_it = (table & (items["truth"] == YES)).any(axis=1).astype(np.float64)
        share = Share(has_it, np.ones(len(has_it)))
        weights = draws(truth.n_items, rng=_rng(ctx), n_draws=n_draws)
        measures["given_has_truth"] = np.array(measure(average(share, weights)))
    if name != "given":
        gain = micro_f1_gain(table, items["given"], truth, rng=_rng(ctx), n_draws=n_draws)
        measures[f"{name}_micro_f1_gain"] = np.array(gain)
    one_each = ["given"] if "labels_clean" in ctx.columns else ["given", "clean"]
    one_each.append("believed")
    is_one = table.sum(axis=1) == 1
    if GIVEN not in ctx.columns and name in one_each and is_one.any():
        weights = draws(truth.n_items, rng=_rng(ctx), n_draws=n_draws) * is_one
        real = measure(average(real_share(table.argmax(axis=1), truth), weights))
        measures[f"{name}_real_accuracy"] = np.array(real)
    return measures


STAGE = Stage(
    name="evaluate",
    version=2,
    doc="measures the accuracy of labels and predictions against reference labels",
    config=Config,
    steps=steps,
    reads=reads,
    writes=lambda config, columns: ["item_id", *COLUMNS],
    skip=skip,
    files=lambda config: [config.reference] if config.reference else [],
)
