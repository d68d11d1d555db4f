"""How far a deciding stage may go."""

from typing import NamedTuple

NO_LIMIT = 1 << 62
"""More than there ever are."""


def room(share: float | None, n: int) -> int:
    """Return how many of n a share lets through; None sets no limit."""
    return NO_LIMIT if share is None else int(share * n)


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
