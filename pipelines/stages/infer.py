"""Stage `infer`: out-of-sample probabilities and an embedding for every item.

Ready `pred_probs` are only checked, and so are `topk_ids`, `topk_probs` and `tail_prob`, where just
the most probable classes are listed; those of several models are combined. `features`, or
embeddings of the `image`, go to heads of several kinds, whose opinions are combined likewise; where
items have lists of labels every class is a question of its own. Or a torchvision model is trained
once a fold. Where lists leave classes unknown, a network with a loss for missing labels leaves a
log of those that it takes for present (``infer_recalls/``). Whichever it is, how far probabilities
can be taken at their word is measured on a sample at the end.
"""

from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from pipelines.core.stage import Context, Fit, Map, Output, Reduce, Stage, Step
from pipelines.core.state import READY, TABLE
from pipelines.errors import DataError, RecipeError
from pipelines.inference import (
    class_order,
    embed,
    embedders,
    listed,
    opinions,
    ready,
    several,
    text,
    train,
)
from pipelines.inference.calibrate import calibration_step, sample_output
from pipelines.inference.folds import folds_step
from pipelines.inference.given import ONE_CLASS, given_of
from pipelines.inference.inputs import input_column
from pipelines.inference.missing import recalls_folder
from pipelines.inference.settings import Config
from pipelines.inference.table import encode_columns, encoding_of, raw
from pipelines.labels.predictions import LISTED, listed_fields
from pipelines.media.images import check_type
from pipelines.media.models import named_files
from pipelines.storage.vectors import width_of

GROUP_BYTES = 64 * 2**20
"""Aim for a row group of vectors."""


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns needed."""
    given = given_of(columns).columns(columns)
    column = input_column(config.use, columns)
    inputs = listed.source_columns(columns) if column == "topk_probs" else [column]
    return ["item_id", "item_hash", *given, *inputs]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    p_given = ["p_given"] if given_of(columns).has_p_given else []
    column = input_column(config.use, columns)
    if column == "pred_probs":
        return ["item_id", *p_given]
    if column == "topk_probs":
        return ["item_id", *p_given, *LISTED]
    said = ["opinions"] if opinions.are_several(config, columns) else []
    if column == READY:
        return ["item_id", "pred_probs", *p_given, *said]
    return ["item_id", "fold", "pred_probs", "embedding", *p_given, *said]


def files(config: Config) -> Sequence[str]:
    """Return the model files, whose content is part of the settings."""
    program = [config.embedder] if config.is_program else []
    return [*program, *named_files(config.weights)]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps of the way that settings and data call for."""
    column = input_column(config.use, ctx.columns)
    try:
        if column == "pred_probs":
            return _ready_steps(ctx)
        if column == "topk_probs":
            return _listed_steps(ctx)
        if column == READY:
            written = _pooled(ctx)
            return [*several.steps(ctx, written), calibration_step(ctx)]
        if column == "image":
            check_type(ctx.types["image"])
            if config.train != "heads":
                _check_trainable(config, ctx)
                return _train_steps(config, ctx)
            n_features = embedders.n_features(config)
        elif column == TABLE:
            n_features = encoding_of(ctx).width
        elif column == "text":
            n_features = text.n_features(config)
        else:
            n_features = width_of(ctx.types["features"], "features")
    except TypeError as err:
        raise DataError(f"stage {ctx.stage!r}: {err}") from err
    except ValueError as err:
        raise RecipeError(f"stage {ctx.stage!r}: {err}") from err
    return _head_steps(ctx, column, n_features)


def _check_trainable(config: Config, ctx: Context) -> None:
    if given_of(ctx.columns) is not ONE_CLASS:
        raise RecipeError(
            f"stage {ctx.stage!r}: train = 'heads' was expected for items of which not each has "
            f"one label, got {config.train!r}. Networks can be trained only for one class per "
            "item; name an embedder with weights, or bring pred_probs"
        )


def _ready_steps(ctx: Context[Config]) -> list[Step[Config]]:
    kind = ctx.types["pred_probs"]
    width = width_of(kind, "pred_probs")
    if width != ctx.n_classes:
        raise DataError(
            f"stage {ctx.stage!r}: pred_probs must have one column for each of the "
            f"{ctx.n_classes} classes, got {width}. Name the classes of the model in data.classes, "
            "in the order of its outputs"
        )
    values = pa.float64() if pa.types.is_float64(kind.value_type) else pa.float32()
    given = given_of(ctx.columns)
    schema = pa.schema([("item_id", ctx.types["item_id"]), *_p_given(ctx, values)])
    validated = Map(
        name="validate",
        reads=["item_id", "item_hash", *given.columns(ctx.columns), "pred_probs"],
        writes={ctx.stage: Output(schema=schema), **sample_output(ctx, values)},
        apply=ready.validate,
    )
    order = [class_order.order_step(ctx)] if given is ONE_CLASS else []
    return [validated, *order, calibration_step(ctx)]


def _listed_steps(ctx: Context[Config]) -> list[Step[Config]]:
    if given_of(ctx.columns) is not ONE_CLASS:
        raise RecipeError(
            f"stage {ctx.stage!r}: probabilities of all classes, pred_probs, were expected for "
            "items of which not each has one label, got use = 'topk_probs'. Write one probability "
            "for every class"
        )
    listed.check_classes(ctx)
    values = listed.value_type(ctx)
    fields = [
        ("item_id", ctx.types["item_id"]),
        ("p_given", values),
        *listed_fields(values),
    ]
    needed = ["item_id", "item_hash", "given", *listed.source_columns(ctx.columns)]
    return [
        Map(
            name="validate",
            reads=needed,
            writes={ctx.stage: Output(schema=pa.schema(fields)), **sample_output(ctx, values)},
            apply=listed.validate,
        ),
        class_order.order_step(ctx, what="class ids in topk_ids"),
        calibration_step(ctx),
        Reduce(
            name="listed",
            reads=list(LISTED),
            summarize=listed.count_tails,
            finish=listed.say_tails,
        ),
    ]


def _head_steps(ctx: Context[Config], column: str, n_features: int) -> list[Step[Config]]:
    schema = pa.schema([("embedding", pa.list_(pa.float32(), n_features))])
    ways = {"image": embed.embed_images, TABLE: encode_columns, "text": text.way(ctx.config)}
    learned = text.learn_steps(ctx) if column == "text" else []
    embedding = Map(
        name="embed",
        reads=raw(ctx) if column == TABLE else [column],
        writes={f"{ctx.stage}/_embedding": Output(schema=schema, ipc=True)},
        apply=ways.get(column, embed.copy_features),
    )
    given = given_of(ctx.columns).columns(ctx.columns)
    return [
        *learned,
        embedding,
        folds_step(ctx),
        *opinions.fit_steps(ctx),
        Map(
            name="predict",
            reads=["item_id", "item_hash", *given, "embedding"],
            writes=_predictions(ctx, n_features),
            apply=partial(opinions.predict, n_features=n_features),
        ),
        calibration_step(ctx),
    ]


def _train_steps(config: Config, ctx: Context[Config]) -> list[Step[Config]]:
    pixels = pa.list_(pa.uint8(), 3 * config.side**2)
    n_features = embedders.n_features(config)
    return [
        Map(
            name="decode",
            reads=["image"],
            writes={
                f"{ctx.stage}/_pixels": Output(schema=pa.schema([("pixels", pixels)]), ipc=True)
            },
            apply=embed.decode_images,
        ),
        folds_step(ctx),
        Fit(name="train", reads=["item_hash", "given", "pixels"], fit=train.fit, keeps=True),
        Map(
            name="predict",
            reads=["item_id", "item_hash", "given", "pixels"],
            writes=_predictions(ctx, n_features),
            apply=train.predict,
        ),
        calibration_step(ctx),
    ]


def _p_given(ctx: Context, number: pa.DataType) -> list[tuple[str, pa.DataType]]:
    return [("p_given", number)] if given_of(ctx.columns).has_p_given else []


def _pooled(ctx: Context[Config]) -> dict[str, Output]:
    fields = [
        ("item_id", ctx.types["item_id"]),
        ("pred_probs", pa.list_(pa.float32(), ctx.n_classes)),
        *_p_given(ctx, pa.float32()),
        *opinions.fields(ctx),
    ]
    rows = max(1024, min(GROUP_BYTES // (4 * ctx.n_classes), 131_072))
    output = Output(schema=pa.schema(fields), row_group_rows=rows)
    return {ctx.stage: output, **sample_output(ctx, pa.float32())}


def _predictions(ctx: Context[Config], n_features: int) -> dict[str, Output]:
    schema = pa.schema(
        [
            ("item_id", ctx.types["item_id"]),
            ("fold", pa.int8()),
            ("pred_probs", pa.list_(pa.float32(), ctx.n_classes)),
            ("embedding", pa.list_(pa.float32(), n_features)),
            *_p_given(ctx, pa.float32()),
            *opinions.fields(ctx),
        ]
    )
    rows = GROUP_BYTES // (4 * (ctx.n_classes + n_features))
    output = Output(schema=schema, row_group_rows=max(1024, min(rows, 131_072)))
    return {ctx.stage: output, **sample_output(ctx, pa.float32())}


STAGE = Stage(
    name="infer",
    version=4,
    doc="predicts out-of-sample class probabilities and an embedding for every item",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    files=files,
    gpu=True,
    folders=(recalls_folder("{stage}"),),
)
