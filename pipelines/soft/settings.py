"""Settings of stage `teach`."""

from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from labelops.distill.regions import EPSILON, QUANTILES, Subject
from labelops.soft.geometry import AREA, ASPECT
from labelops.soft.views import Coding, Kind, Number, check_coding


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `teach`."""

    teacher: Literal["beliefs", "networks"] = Field(
        default="beliefs",
        description="Whose probabilities are stored. beliefs: what the last stage before it that "
        "says so believes of every item. networks: those that stage infer trained once a fold "
        "(infer.train = scratch or finetune), on views of every picture, each by the network that "
        "was not trained on it.",
    )
    k: int = Field(
        default=5,
        ge=1,
        description="Most probable classes stored of each view; the given one is stored besides.",
    )
    kind: Kind | None = Field(
        default=None,
        description="What is stored of them. prob: probabilities; logprob: their logarithms; "
        "logit: logits, of which a training makes probabilities at any temperature. Absent: prob "
        "for beliefs, logit for networks, logprob for u8.",
    )
    number: Number = Field(
        default="f16",
        description="Type of the numbers: f16 or f32; or u8, a byte, for logprob.",
    )
    temperature: float = Field(
        default=1.0,
        gt=0.0,
        description="Logarithms of probabilities, or logits, are divided by this first. With logit "
        "they are stored as they are; what the other classes have is exact at this temperature.",
    )
    views: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="Views of each picture, with networks: the first as stage infer saw it, the "
        "others random regions. They need networks, which beliefs and heads are not.",
    )
    area: tuple[float, float] = Field(
        default=AREA, description="Range of a region's share of the picture."
    )
    aspect: tuple[float, float] = Field(
        default=ASPECT, description="Range of a region's width over its height."
    )
    flip: bool = Field(default=True, description="Mirror half of the regions left to right.")
    seed: int = Field(
        default=0,
        ge=0,
        description="Regions are drawn from this, the item's id and the view's number alone: "
        "other teachers are asked about the same ones.",
    )
    calibrate: bool = Field(
        default=False,
        description="Judge every view (column calib): 0, its soft label stands; 1, the teacher is "
        "unsure, and the item's label is taught; 2, it is discarded, unless it is an item's last.",
    )
    quantiles: tuple[float, float, float] = Field(
        default=QUANTILES,
        description="Of the teacher's confidence over all views: below the first or above the last "
        "a view is discarded, below the second the item's label is taught.",
    )
    confidence: Subject = Field(
        default="max",
        description="Confidence in the most probable class (max) or in the given one (given).",
    )
    epsilon: float = Field(
        default=EPSILON,
        ge=0.0,
        lt=1.0,
        description="Where the item's label is taught, what other classes have together.",
    )

    @property
    def stored(self) -> Kind:
        """What is stored of the classes."""
        if self.kind is not None:
            return self.kind
        if self.number == "u8":
            return "logprob"
        return "prob" if self.teacher == "beliefs" else "logit"

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_coding(Coding(self.stored, self.number, 1, self.temperature))
        if self.views > 1 and self.teacher == "beliefs":
            raise ValueError(
                f"views = 1 was expected with teacher = 'beliefs', got {self.views}: there is one "
                "belief an item. Set teacher = 'networks' where stage infer trains networks"
            )
        for name, low, high in (("area", 0.0, 1.0), ("aspect", 0.0, 100.0)):
            a, b = getattr(self, name)
            if not low < a <= b <= high:
                raise ValueError(
                    f"{name} must be a range above 0 and up to {high:g}, got {a:g} to {b:g}"
                )
        a, b, c = self.quantiles
        if not 0 <= a <= b <= c <= 1:
            raise ValueError(f"quantiles must ascend from 0 to 1, got {[a, b, c]}")
        return self
