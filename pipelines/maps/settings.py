"""Settings of stage `localize`."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from pipelines.media.images import Limits

INFER = "infer"
"""Classifier: the models of that stage."""


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `localize`."""

    classifier: str | None = Field(
        default=None,
        description="infer: the models trained by stage infer, each for the items held out from "
        "it. Or the name of a torchvision classifier, or the path of a torch.export program "
        "(.pt2), with outputs in the order of the classes. Absent: the stage is skipped.",
    )
    weights: str | None = Field(
        default=None,
        description="File with the weights of a torchvision classifier; or default: those that "
        "torchvision recommends, which it fetches once.",
    )
    output: Literal["softmax", "logistic"] | None = Field(
        default=None,
        description="softmax: classes of a cell exclude each other; logistic: they are "
        "independent. Absent: logistic for models that stage infer trained on lists of labels, "
        "else softmax.",
    )
    k: int = Field(default=5, ge=1, le=1000, description="Classes stored in each cell.")
    image_size: int | None = Field(
        default=None,
        ge=16,
        le=4096,
        description="Pictures are resized to a square of this side in pixels, not cropped. "
        "Absent: that of stage infer, or 224.",
    )
    mean: tuple[float, float, float] = Field(
        default=(0.485, 0.456, 0.406),
        description="Mean subtracted from each channel, after scaling to [0, 1]; models of stage "
        "infer use its own.",
    )
    std: tuple[float, float, float] = Field(
        default=(0.229, 0.224, 0.225),
        description="Each channel is then divided by this standard deviation; likewise.",
    )
    reference: str | None = Field(
        default=None,
        description="Parquet or CSV file (item_id, true_labels) on which cutoffs are chosen. "
        "Absent: they are chosen on the given labels.",
    )
    evidence_items: int = Field(
        default=50_000, ge=1, description="Cutoffs are chosen on about this many items at most."
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

    @model_validator(mode="after")
    def _check_classifier(self) -> Self:
        name = self.classifier
        wants_weights = name is not None and name != INFER and not name.endswith(".pt2")
        if wants_weights and self.weights is None:
            raise ValueError(
                f"classifier = {name!r} needs weights, the path of a safetensors file or a torch "
                "state dict; or classifier = 'infer'"
            )
        if self.weights is not None and not wants_weights:
            raise ValueError(f"weights are not used with classifier = {name!r}; leave them out")
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
        return self

    @property
    def limits(self) -> Limits:
        """What is refused before it is decoded."""
        return Limits(max_bytes=self.max_image_bytes, max_pixels=self.max_image_pixels)
