"""Stage `infer`: out-of-sample probabilities and an embedding for every item.

Ready `pred_probs` are only checked, and so are `topk_ids`, `topk_probs` and `tail_prob`, where just
the most probable classes are listed. `features`, or embeddings of the `image`, go to linear heads,
all folds fitted together; where items have lists of labels every class has a head of its own. Or a
torchvision model is trained once a fold. Whichever it is, how far the probabilities can be taken at
their word is measured on a sample at the end.
"""

from collections.abc import Sequence
from typing import Literal, Self

import pyarrow as pa
from pydantic import BaseModel, Field, model_validator

from pipelines.core.stage import Context, Fit, Map, Output, Reduce, Stage, Step
from pipelines.errors import DataError, RecipeError
from pipelines.inference import class_order, embed, embedders, heads, listed, ready, train
from pipelines.inference.calibrate import calibration_step, sample_output
from pipelines.inference.folds import folds_step
from pipelines.inference.given import given_of
from pipelines.inference.inputs import input_column
from pipelines.labels.lists import is_multi_label
from pipelines.labels.predictions import LISTED, listed_fields
from pipelines.media.images import Limits, check_type
from pipelines.storage.vectors import width_of

GROUP_BYTES = 64 * 2**20
"""Aim for a row group of vectors."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `infer`."""

    use: Literal["auto", "pred_probs", "topk_probs", "features", "image"] = Field(
        default="auto",
        description="What to predict from; auto: the first of pred_probs, topk_probs, features and "
        "image that the data has.",
    )
    folds: int = Field(
        default=5,
        ge=2,
        le=127,
        description="Cross-validation folds; each item is predicted by a model that was not "
        "trained on it.",
    )
    train: Literal["heads", "scratch", "finetune"] = Field(
        default="heads",
        description="heads: linear classifiers on a fixed embedding. scratch, finetune: train the "
        "torchvision model named by 'embedder' in each fold, from random weights or from "
        "'weights'.",
    )
    embedder: str = Field(
        default="pixels",
        description="pixels (built in, no weights), the name of a torchvision classifier, or the "
        "path of a torch.export program (.pt2).",
    )
    weights: str | None = Field(
        default=None, description="File with the weights of a torchvision model."
    )
    image_size: int | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="Pictures are cropped to a square and scaled to this side in pixels. Absent: "
        "32 for pixels and for training from scratch, else 224.",
    )
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406),
        description="Mean subtracted from each channel, after scaling to [0, 1].",
    )
    std: tuple[float, float, float] = Field(
        default=(0.229, 0.224, 0.225),
        description="Each channel is then divided by this standard deviation; not used by pixels.",
    )
    max_image_bytes: int = Field(
        default=64 * 2**20,
        ge=1,
        description="Bytes; larger image files are quarantined without decoding.",
    )
    max_image_pixels: int = Field(
        default=64_000_000, ge=1, description="Larger pictures are quarantined without decoding."
    )
    batch_rows: int = Field(default=64, ge=1, le=65_536, description="Batch size.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: a GPU if available.",
    )
    l2: float | None = Field(
        default=None,
        ge=0.0,
        description="L2 penalty of the heads. Absent: the one that predicts best out of sample.",
    )
    max_iter: int = Field(default=300, ge=1, description="Maximum iterations to fit the heads.")
    epochs: int = Field(default=20, ge=1, description="Training epochs of networks.")
    optimizer: Literal["sgd", "adamw"] = Field(default="sgd", description="Optimizer of networks.")
    learning_rate: float | None = Field(
        default=None,
        gt=0.0,
        description="Initial learning rate, with cosine decay to 0. Absent: 0.05 for sgd and "
        "0.001 for adamw, a fifth of it for finetune.",
    )
    weight_decay: float = Field(default=5e-4, ge=0.0, description="Weight decay of networks.")
    flip: bool = Field(
        default=True, description="Flip pictures horizontally at random in training."
    )
    crop: int = Field(
        default=0,
        ge=0,
        description="Shift pictures at random by up to this many pixels in training.",
    )
    sum_tolerance: float = Field(
        default=1e-3,
        ge=0.0,
        lt=1.0,
        description="How far the sum of given probabilities may be from 1.",
    )
    calibration_items: int = Field(
        default=50_000,
        ge=1,
        description="Calibration is measured on about this many items at most.",
    )
    bins: int = Field(default=15, ge=1, le=1000, description="Bins for calibration errors.")

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        named = self.embedder != "pixels" and not self.is_program
        if self.train != "heads" and not named:
            raise ValueError(
                f"train = {self.train!r} needs the name of a torchvision classifier as embedder, "
                f"got {self.embedder!r}, for example embedder = 'resnet18'"
            )
        needed = named and self.train != "scratch"
        if needed and self.weights is None:
            raise ValueError(
                f"embedder = {self.embedder!r} needs weights, the path of a safetensors file or a "
                "torch state dict; or train = 'scratch'"
            )
        if self.weights is not None and not needed:
            raise ValueError(
                f"weights are not used with embedder = {self.embedder!r} and train = "
                f"{self.train!r}; leave them out"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self

    @property
    def is_program(self) -> bool:
        """Whether the embedder is a torch.export program."""
        return self.embedder.endswith(".pt2")

    @property
    def side(self) -> int:
        """Side of the square that the model sees, in pixels."""
        if self.image_size is not None:
            return self.image_size
        return 32 if self.embedder == "pixels" or self.train == "scratch" else 224

    @property
    def rate(self) -> float:
        """Learning rate of training."""
        if self.learning_rate is not None:
            return self.learning_rate
        base = {"sgd": 0.05, "adamw": 0.001}[self.optimizer]
        return base if self.train == "scratch" else base / 5

    @property
    def limits(self) -> Limits:
        """What is refused before it is decoded."""
        return Limits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)


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
    return ["item_id", "fold", "pred_probs", "embedding", *p_given]


def files(config: Config) -> Sequence[str]:
    """Return the model files, whose content is part of the settings."""
    program = [config.embedder] if config.is_program else []
    return [*program, *([config.weights] if config.weights is not None else [])]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps of the way that settings and data call for."""
    column = input_column(config.use, ctx.columns)
    try:
        if column == "pred_probs":
            return _ready_steps(ctx)
        if column == "topk_probs":
            return _listed_steps(ctx)
        if column == "image":
            check_type(ctx.types["image"])
            if config.train != "heads":
                _check_trainable(config, ctx)
                return _train_steps(config, ctx)
            n_features = embedders.n_features(config)
        else:
            n_features = width_of(ctx.types["features"], "features")
    except TypeError as err:
        raise DataError(f"stage {ctx.stage!r}: {err}") from err
    except ValueError as err:
        raise RecipeError(f"stage {ctx.stage!r}: {err}") from err
    return _head_steps(ctx, column, n_features)


def _check_trainable(config: Config, ctx: Context) -> None:
    if is_multi_label(ctx.columns):
        raise RecipeError(
            f"stage {ctx.stage!r}: train = 'heads' was expected for items with lists of labels, "
            f"got {config.train!r}. Networks can be trained only for one class per item; name an "
            "embedder with weights, or bring pred_probs"
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
    order = [] if is_multi_label(ctx.columns) else [class_order.order_step(ctx)]
    return [validated, *order, calibration_step(ctx)]


def _listed_steps(ctx: Context[Config]) -> list[Step[Config]]:
    if is_multi_label(ctx.columns):
        raise RecipeError(
            f"stage {ctx.stage!r}: probabilities of all classes, pred_probs, were expected for "
            "items with lists of labels, got use = 'topk_probs'. Write one probability for every "
            "class"
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
    embedding = Map(
        name="embed",
        reads=[column],
        writes={f"{ctx.stage}/_embedding": Output(schema=schema, ipc=True)},
        apply=embed.embed_images if column == "image" else embed.copy_features,
    )
    given = given_of(ctx.columns).columns(ctx.columns)
    return [
        embedding,
        folds_step(ctx),
        Fit(name="heads", reads=["item_hash", *given, "embedding"], fit=heads.fit),
        Map(
            name="predict",
            reads=["item_id", "item_hash", *given, "embedding"],
            writes=_predictions(ctx, n_features),
            apply=heads.predict,
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


def _predictions(ctx: Context, n_features: int) -> dict[str, Output]:
    schema = pa.schema(
        [
            ("item_id", ctx.types["item_id"]),
            ("fold", pa.int8()),
            ("pred_probs", pa.list_(pa.float32(), ctx.n_classes)),
            ("embedding", pa.list_(pa.float32(), n_features)),
            *_p_given(ctx, pa.float32()),
        ]
    )
    rows = GROUP_BYTES // (4 * (ctx.n_classes + n_features))
    output = Output(schema=schema, row_group_rows=max(1024, min(rows, 131_072)))
    return {ctx.stage: output, **sample_output(ctx, pa.float32())}


STAGE = Stage(
    name="infer",
    version=1,
    doc="predicts out-of-sample class probabilities and an embedding for every item",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    files=files,
    gpu=True,
)
