"""Settings of stages that flag as many labels as the joint says."""

from typing import Self

from pydantic import BaseModel, Field, model_validator

from labelops.confident.filters import BY_CLASSES, BY_PAIRS, Filter, Settings


class Pruning(BaseModel, frozen=True, extra="forbid"):
    """What decides what is flagged; names and defaults are those of cleanlab."""

    filter_by: Filter = "prune_by_noise_rate"
    frac_noise: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="Share of the estimated errors to flag; only for prune_by_… and both.",
    )
    min_examples_per_class: int = Field(
        default=1,
        ge=0,
        description="Nothing is flagged in classes of this size or smaller; only for prune_by_… "
        "and both.",
    )

    @model_validator(mode="after")
    def _prunes(self) -> Self:
        prunes = self.filter_by in BY_PAIRS | BY_CLASSES
        if not prunes and (self.frac_noise != 1.0 or self.min_examples_per_class != 1):
            raise ValueError(
                "frac_noise and min_examples_per_class apply to prune_by_noise_rate, "
                f"prune_by_class and both only, not to {self.filter_by}"
            )
        return self

    @property
    def settings(self) -> Settings:
        """What the mathematics is told."""
        return Settings(self.filter_by, self.frac_noise, self.min_examples_per_class)
