"""Settings of stage `distill`."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipelines.media.images import Limits

VECTOR_STUDENTS = ("linear", "network")


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `distill`."""

    student: str = Field(
        default="auto",
        description="linear or network (one hidden layer), of the embedding of stage infer or the "
        "features; or the name of a torchvision classifier, trained on pictures. auto: what infer "
        "trained once a fold, if it did (infer.train), of pictures as it saw them; else network.",
    )
    hidden: int = Field(default=512, ge=1, le=65_536, description="Hidden units of the network.")
    labels: Literal["hard", "soft"] = Field(
        default="hard",
        description="What is learned of each item: the label decided on, or what is believed of "
        "its most probable classes.",
    )
    use_weights: bool = Field(
        default=True,
        description="Whether items count by their weight: how much more their label is believed "
        "than the best other class.",
    )
    folds: int = Field(
        default=5,
        ge=2,
        le=127,
        description="A fold of the items is held out while two students are trained, one on the "
        "product, one on the labels as given.",
    )
    held_out_items: int = Field(
        default=10_000,
        ge=1,
        description="As many folds are held out, one after the other, as have about so many items; "
        "all of them where there are fewer.",
    )
    fall_back: bool = Field(
        default=True,
        description="Teach the labels as given unless the student of the product is surely better "
        "on held-out items: the whole 95 % interval of its gain is above 0.",
    )
    epochs: int = Field(default=20, ge=1, description="Training epochs.")
    batch_rows: int = Field(default=256, ge=1, le=65_536, description="Items a step.")
    optimizer: Literal["sgd", "adamw"] = Field(default="adamw", description="Optimizer.")
    learning_rate: float | None = Field(
        default=None,
        gt=0.0,
        description="Initial learning rate, with cosine decay to 0. Absent: 0.001 for adamw, 0.05 "
        "for sgd.",
    )
    weight_decay: float = Field(default=0.01, ge=0.0, description="Weight decay.")
    ema_decay: float | None = Field(
        default=None,
        ge=0.0,
        lt=1.0,
        description="Decay of the moving average of weights that is the student in the end. "
        "Absent: the last weights are.",
    )
    flip: bool = Field(
        default=True, description="Flip pictures horizontally at random in training."
    )
    crop: int = Field(
        default=0,
        ge=0,
        description="Shift pictures at random by up to this many pixels in training.",
    )
    image_size: int = Field(
        default=32, ge=16, le=2048, description="Side of the pictures in pixels."
    )
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406),
        description="Mean subtracted from each channel, after scaling to [0, 1].",
    )
    std: tuple[float, float, float] = Field(
        default=(0.229, 0.224, 0.225),
        description="Each channel is then divided by this standard deviation.",
    )
    max_image_bytes: int = Field(
        default=64 * 2**20,
        ge=1,
        description="Bytes; larger image files are quarantined without decoding.",
    )
    max_image_pixels: int = Field(
        default=64_000_000, ge=1, description="Larger pictures are quarantined without decoding."
    )
    cutoff: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="Of lists, classes with at least this probability count as predicted.",
    )
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: a GPU if available.",
    )

    @model_validator(mode="after")
    def _check_std(self) -> Self:
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self

    def n_held_out(self, n_items: int) -> int:
        """Return how many folds are held out, one after the other."""
        return min(max(-(-self.held_out_items * self.folds // max(n_items, 1)), 1), self.folds)

    @property
    def is_of_pictures(self) -> bool:
        """Whether a torchvision classifier is named."""
        return self.student not in ("auto", *VECTOR_STUDENTS)

    @property
    def side(self) -> int:
        """Side of the pictures in pixels."""
        return self.image_size

    @property
    def rate(self) -> float:
        """Learning rate."""
        if self.learning_rate is not None:
            return self.learning_rate
        return {"sgd": 0.05, "adamw": 0.001}[self.optimizer]

    @property
    def limits(self) -> Limits:
        """What is refused before it is decoded."""
        return Limits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)
