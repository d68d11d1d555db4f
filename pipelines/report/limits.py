"""How much of a large data set one page shows, so that it stays light for 1 M items."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Most of each thing that is shown; the rest is counted and its place in the run named."""

    table_classes: int = 30
    """Up to so many classes the confusion matrix is shown cell by cell."""
    part_classes: int = 24
    """Beyond that, so many of the most confused classes are."""
    map_blocks: int = 50
    confusions: int = 60
    open_confusions: int = 12
    """Rows of the ranked confusions before the rest is folded away."""
    worst_items: int = 480
    worst_per_class: int = 12
    worst_classes: int = 120
    duplicate_sets: int = 40
    duplicate_members: int = 6
    outliers: int = 48
    open_outliers: int = 18
    """Outliers before the rest is folded away."""
    changes: int = 60
    open_changes: int = 18
    """Changed labels before the rest is folded away."""
    change_pairs: int = 12
    reasons: int = 20
    points: int = 600
    """Points of a drawing; of more, those that matter and others evenly."""
    suspects: int = 480
    """Items with a class that is missing or wrong, of each stage that finds any."""
    suspects_per_class: int = 6
    overlay_side: int = 16
    """Cells of an overlay a side; finer maps are drawn coarser."""
    labels_named: int = 8
    """Labels of an item that are named; the others are counted."""
    quarantine_examples: int = 5
    quarantine_reasons: int = 50
    excerpt: int = 200
    columns_named: int = 6
    """Of a table, for an item."""
    thumbnail_side: int = 96
    thumbnail_bytes: int = 24_000
    """A re-encoded thumbnail is a few kB; one beyond this is left out."""
    picture_bytes: int = 12_000_000
    """All pictures together, as embedded (base64)."""
    open_classes: int = 6
    """Classes whose worst items are unfolded from the start."""
    class_rows: int = 40
    """Rows of the class table before the rest is folded away."""
    most_classes: int = 2000
    """Rows of the class table at all: some 700 bytes each."""


def worst_per_class(n_classes: int, limits: Limits) -> tuple[int, int]:
    """Number of classes whose worst items are shown, and items for each of them.

    Examples
    --------
    >>> worst_per_class(10, Limits()), worst_per_class(1000, Limits())
    ((10, 12), (120, 4))
    """
    classes = min(n_classes, limits.worst_classes)
    return classes, max(1, min(limits.worst_per_class, limits.worst_items // max(classes, 1)))
