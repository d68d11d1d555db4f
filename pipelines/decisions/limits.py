"""How far a deciding stage may go."""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, Field

MaxReview = Annotated[
    int,
    Field(ge=0, description="At most this many items are set aside for review by a person."),
]
Gate = Annotated[
    Literal["expected", "measured"],
    Field(
        description="What lets a rule change labels. expected: a gain that the model expects is "
        "enough; measured: its gain must be measured on reviewed items."
    ),
]
Reviewed = Annotated[
    str | None,
    Field(description="Local Parquet or CSV file with item_id and true_labels of reviewed items."),
]
"""Settings that several deciding stages have."""

NO_LIMIT = 1 << 62
"""More than there ever are."""


class Limits(NamedTuple):
    """Limits of a deciding stage, as its settings have them.

    Attributes
    ----------
    max_change_share : so many labels are changed at most, as a share of those given; None for any.
    max_drop_share : so many items are dropped at most, as a share of all; None for any.
    max_review : at most so many items are set aside for people to look at.
    min_class_size : nothing leaves a class that would become smaller than this.
    must_be_measured : whether a rule changes labels only if reviewed items say that it gains.
    reviewed : table with true labels of reviewed items, or None.
    """

    max_change_share: float | None = None
    max_drop_share: float | None = None
    max_review: int = NO_LIMIT
    min_class_size: int = 0
    must_be_measured: bool = False
    reviewed: str | None = None

    @classmethod
    def of(cls, config: BaseModel) -> "Limits":
        """Return the limits that settings name; there are no others."""
        named = {name: value for name, value in config if name in cls._fields}
        return cls(**named, must_be_measured=getattr(config, "gate", "") == "measured")
