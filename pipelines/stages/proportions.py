"""Stage `proportions`: beliefs in the labels of items from the totals of their bags.

Three ways, by what there is. From `features` (or an `embedding`) alone a model is learned of which
only the totals are known; listed again as ``proportions@2`` it plays another round, on what the
first left. Ready `pred_probs` are brought to agree with the totals. So are, after stage
`confident`, beliefs in given labels; stage `decide` then decides by these.

Bags whose totals the model finds improbable are in ``proportions_bags/``. A bag may lie in many
shards: one task works on all items, regrouped by bag. Without totals are items whose `bag_id` is
null, or whose bag lost items to quarantine or (if allowed) is not in the table; what is believed of
them comes from the model alone.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa

from labelops.soft.labels import sparsify
from pipelines.bags import learn, totals
from pipelines.bags.census import (
    CENSUS,
    check_counts,
    class_names,
    count_bags,
    merge_counts,
    table_of,
)
from pipelines.bags.findings import bags_folder, bags_schema, bags_table
from pipelines.bags.settings import Config
from pipelines.core.stage import Context, Fit, Map, Output, Reduce, Stage, Step
from pipelines.errors import DataError, RecipeError
from pipelines.labels.beliefs import temperature_steps
from pipelines.labels.columns import SOFT, soft_columns, soft_fields
from pipelines.storage.arrays import read_array
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array, width_of

CONSTRAIN = "constrain"

Way = Literal["features", "pred_probs", "labels"]


def way_of(config: Config, columns: frozenset[str]) -> Way:
    """Return where beliefs come from before totals are known."""
    if config.use != "auto":
        return config.use
    if "bag_logits" in columns:
        return "features"
    if "pred_probs" in columns:
        return "labels" if "is_label_issue" in columns else "pred_probs"
    return "features"


def is_first(columns: frozenset[str]) -> bool:
    """Return whether no round came before."""
    return "bag_logits" not in columns


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None; only an audit can do without totals."""
    if "is_label_issue" in columns and config.bags is None and is_first(columns):
        return "proportions.bags names no table with totals of bags"
    return None


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs.

    Raises
    ------
    DataError
        If totals are needed, and none are named.
    """
    is_needed = is_first(columns) and skip(config, columns) is None
    if config.bags is None and is_needed and "bag_id" in columns:
        raise DataError(
            "stage 'proportions': a table with the totals of bags was expected, none is named. "
            "Give --set proportions.bags=URI, a Parquet or CSV file with bag_id, n, and positives "
            "or counts"
        )
    way = way_of(config, columns)
    if way == "features":
        carried = () if is_first(columns) else learn.CARRIED
        return ["item_id", "item_hash", "bag_id", learn.vector_column(columns), *carried]
    given = ["given"] if way == "labels" else []
    return ["item_id", "item_hash", "bag_id", "pred_probs", *given]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    more = learn.CARRIED if way_of(config, columns) == "features" else ("bag_probs",)
    return ["item_id", *SOFT, "bag_residual", *more]


OF_THE_FIRST = ("bags", "unlisted", "scaling", "start_items", "fourier_features", "seed")
"""Settings that later rounds share: these know the bags and the model from the first round."""


def _check_shared(config: Config, ctx: Context) -> None:
    first = ctx.of(learn.FIRST).config
    for name in OF_THE_FIRST:
        own, shared = getattr(config, name), getattr(first, name)
        if own != shared:
            raise RecipeError(
                f"stage {ctx.stage!r}: setting {name!r} must be that of stage {learn.FIRST!r}, "
                f"{shared!r}, got {own!r}. Set {learn.FIRST}.{name}: later rounds take it over"
            )


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: count bags, learn or constrain, write beliefs and the table of bags."""
    way = way_of(config, ctx.columns)
    first = is_first(ctx.columns)
    if not first and way != "features":
        raise RecipeError(
            f"stage {ctx.stage!r}: another round learns from features or an embedding, got use = "
            f"{way!r}, of which one round is enough. List the stage once"
        )
    if not first:
        _check_shared(config, ctx)
    needed = reads(config, ctx.columns)
    census = Reduce(
        name=CENSUS,
        reads=["bag_id"],
        summarize=count_bags,
        merge=merge_counts,
        finish=check_counts,
    )
    n_classes = (
        len(class_names(ctx, table_of(ctx).n_classes))
        if first
        else len(ctx.result(learn.FIRST, CENSUS)["classes"])
    )
    write = Map(
        name="write",
        reads=["item_id", "item_hash"],
        writes=_outputs(ctx, way, n_classes),
        apply=look_up,
    )
    if way == "features":
        _width(ctx, learn.vector_column(ctx.columns))
        fit = Fit(name=learn.LEARN, reads=needed[1:], fit=learn.learn)
        return [*([census] if first else []), fit, write]
    if (width := _width(ctx, "pred_probs")) != n_classes:
        raise DataError(
            f"stage {ctx.stage!r}: pred_probs must have one column for each of the {n_classes} "
            f"classes that the table of bags counts, got {width}; in {ctx.config.bags}"
        )
    constrain = Fit(name=CONSTRAIN, reads=needed[1:], fit=totals.constrain)
    if way == "labels":
        return [census, *temperature_steps(ctx), constrain, write]
    schema = pa.schema([("item_id", ctx.types["item_id"])])
    usable = Map(
        name="usable",
        reads=["item_id", "pred_probs"],
        writes={f"{ctx.stage}/_usable": Output(schema=schema, ipc=True)},
        apply=totals.reject_bad,
    )
    return [usable, census, constrain, write]


def _width(ctx: Context, column: str) -> int:
    try:
        return width_of(ctx.types[column], column)
    except TypeError as err:
        raise DataError(f"stage {ctx.stage!r}: {err}") from err


def _outputs(ctx: Context, way: Way, n_classes: int) -> Mapping[str, Output]:
    fields = [
        ("item_id", ctx.types["item_id"]),
        *soft_fields(n_classes),
        ("bag_residual", pa.float32()),
    ]
    by_class = pa.list_(pa.float32(), n_classes)
    if way == "features":
        kinds = (by_class, by_class, pa.list_(pa.float32(), learn.EMBEDDING))
        fields += list(zip(learn.CARRIED, kinds, strict=True))
    else:
        fields.append(("bag_probs", by_class))
    return {
        ctx.stage: Output(schema=pa.schema(fields)),
        bags_folder(ctx.stage): Output(schema=bags_schema(ctx.types["bag_id"]), rows="some"),
    }


def look_up(frame: Frame, ctx: Context[Config]) -> Mapping[str, pa.Table]:
    """Return what was found of a shard's items; with the first shard, the table of all bags."""
    step, first, more = CONSTRAIN, ctx.stage, {"bag_probs": "beliefs"}
    if way_of(ctx.config, ctx.columns) == "features":
        step, first, more = learn.LEARN, learn.FIRST, {name: name for name in learn.CARRIED}
    census = ctx.result(first, CENSUS)

    def opened(name: str) -> np.ndarray:
        return read_array(ctx.artifact(step, f"{name}.npy"), "r")

    at = np.searchsorted(opened("item_hash"), frame.array("item_hash"))
    bag = np.asarray(opened("bag")[at])
    residual = census["residual"][np.maximum(bag, 0)]
    beliefs = opened("beliefs")[at].astype(np.float64)
    soft = sparsify(beliefs / beliefs.sum(axis=1, keepdims=True), k=ctx.config.top_k)
    table = pa.table(
        {
            "item_id": frame["item_id"],
            **dict(zip(SOFT, soft_columns(soft), strict=True)),
            "bag_residual": pa.array(residual.astype(np.float32), mask=bag < 0),
            **{name: list_array(opened(file)[at]) for name, file in more.items()},
        }
    )
    bags = bags_table(ctx, census, ctx.own(step))
    return {ctx.stage: table, bags_folder(ctx.stage): bags if frame.index == 0 else bags[:0]}


STAGE = Stage(
    name="proportions",
    version=4,
    doc="learns item labels from the totals of bags, or adjusts probabilities to these totals",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    skip=skip,
    files=lambda config: [] if config.bags is None else [config.bags],
    folders=(bags_folder("{stage}"),),
    beliefs=totals.BELIEFS,
)
