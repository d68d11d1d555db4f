"""What students are taught of every item, in columns: by the product, and by the labels as given.

Of one class an item a target is a distribution over few classes; of lists it is which classes an
item has, has not, and of which nothing is known. An item without weight is not taught.
"""

# N items, K classes

from typing import NamedTuple, Self

import numpy as np
import pyarrow as pa

from labelops.distill.targets import SparseTarget, of_labels
from labelops.multilabel.labels import LabelSets, from_flat, states, with_unknown_absent
from labelops.ragged import offsets, owners
from labelops.soft.labels import SoftLabels
from pipelines.labels.columns import flat, lists_of

PRODUCT, GIVEN = "product", "given"
"""By which labels a student is taught."""


class OneTargets(NamedTuple):
    """Distributions over classes.

    Attributes
    ----------
    ids, probs : classes and their probabilities, item after item, the first the most probable.
    start : where each item begins, int64, shape (N + 1,).
    tail : probability of all other classes, shape (N,).
    weight : shape (N,).
    """

    ids: np.ndarray
    probs: np.ndarray
    start: np.ndarray
    tail: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, table: pa.Table, arm: str) -> Self:
        """Read the columns of one of the arms."""
        ids, start = flat(table[f"{arm}_ids"])
        probs, _ = flat(table[f"{arm}_probs"])
        narrow = (table[f"{arm}_{name}"].to_numpy() for name in ("tail", "weight"))
        return cls(ids.to_numpy().astype(np.int64), probs.to_numpy(), start, *narrow)

    def columns(self, arm: str) -> dict[str, pa.Array]:
        """Return the columns."""
        return {
            f"{arm}_ids": lists_of(self.ids.astype(np.uint32), self.start),
            f"{arm}_probs": lists_of(self.probs.astype(np.float32), self.start),
            f"{arm}_tail": pa.array(self.tail.astype(np.float32)),
            f"{arm}_weight": pa.array(self.weight.astype(np.float32)),
        }

    def first(self) -> np.ndarray:
        """Return the first class of each item, −1 where none is listed."""
        has_any = np.diff(self.start) > 0
        first = np.full(len(has_any), -1)
        first[has_any] = self.ids[self.start[:-1][has_any]]
        return first

    def present(self, rows: np.ndarray, n_classes: int) -> np.ndarray:
        """Return the classes that come first in some of these items; bool, shape (K,)."""
        first = self.first()[rows]
        return np.bincount(first[first >= 0], minlength=n_classes) > 0

    def among(self, present: np.ndarray) -> SparseTarget:
        """Return the targets among some of the classes, in a numbering of their own."""
        at = np.cumsum(present) - 1
        is_in, item = present[self.ids], owners(self.start)
        lost = np.bincount(item[~is_in], self.probs[~is_in], minlength=len(self.tail))
        sizes = np.bincount(item[is_in], minlength=len(self.tail))
        n_classes = int(present.sum())
        # Where all classes are listed there are no others that the rest could be of.
        tail = np.where(sizes < n_classes, self.tail + lost, 0.0)
        soft = SoftLabels(at[self.ids[is_in]], self.probs[is_in], offsets(sizes), tail, n_classes)
        return of_labels(soft)


class ManyTargets(NamedTuple):
    """Classes that items have, have not, or of which nothing is known.

    Attributes
    ----------
    sets : the classes.
    weight : shape (N,).
    """

    sets: LabelSets
    weight: np.ndarray

    @classmethod
    def of(cls, table: pa.Table, arm: str, n_classes: int) -> Self:
        """Read the columns of one of the arms."""
        names = ["ids"] if table[f"{arm}_not_ids"].null_count else ["ids", "not_ids"]
        parts = [flat(table[f"{arm}_{name}"]) for name in names]
        flattened = [x for ids, start in parts for x in (ids.to_numpy().astype(np.int64), start)]
        sets = from_flat(*flattened, n_classes=n_classes)
        return cls(sets, table[f"{arm}_weight"].to_numpy())

    def columns(self, arm: str) -> dict[str, pa.Array]:
        """Return the columns."""
        ids, not_ids = self.sets.ids, self.sets.negative_ids
        # Null: all classes that an item has not are ruled out.
        ruled_out = pa.nulls(len(self.weight), pa.list_(pa.uint32()))
        if not_ids is not None and self.sets.negative_start is not None:
            ruled_out = lists_of(not_ids.astype(np.uint32), self.sets.negative_start)
        return {
            f"{arm}_ids": lists_of(ids.astype(np.uint32), self.sets.start),
            f"{arm}_not_ids": ruled_out,
            f"{arm}_weight": pa.array(self.weight.astype(np.float32)),
        }

    def table(self, is_counted: np.ndarray) -> np.ndarray:
        """Return the states of all items; int8, shape (N, K).

        Of classes that count as absent where nothing is known of them, none is unknown.
        """
        return states(with_unknown_absent(self.sets, is_counted))


Targets = OneTargets | ManyTargets


def certain(class_id: np.ndarray, weight: np.ndarray) -> OneTargets:
    """Return targets of one certain class an item; of −1 none.

    Examples
    --------
    >>> made = certain(np.array([2, -1]), np.ones(2))
    >>> made.first().tolist(), made.weight.tolist()
    ([2, -1], [1.0, 0.0])
    """
    is_known = class_id >= 0
    ids = class_id[is_known]
    start = offsets(is_known.astype(np.int64))
    none = np.zeros(len(class_id))
    return OneTargets(ids, np.ones(len(ids)), start, none, np.where(is_known, weight, 0.0))


def of_two(p: np.ndarray, weight: np.ndarray) -> OneTargets:
    """Return targets of two classes, by the probability of the second.

    Examples
    --------
    >>> made = of_two(np.array([0.75, 0.25]), np.ones(2))
    >>> made.ids.tolist(), made.probs.tolist()
    ([1, 0, 0, 1], [0.75, 0.25, 0.75, 0.25])
    """
    first = (p >= 0.5).astype(np.int64)
    likelier = np.maximum(p, 1 - p)
    ids, probs = np.stack([first, 1 - first], axis=1), np.stack([likelier, 1 - likelier], axis=1)
    start = 2 * np.arange(len(p) + 1)
    return OneTargets(ids.ravel(), probs.ravel(), start, np.zeros(len(p)), weight)


def any_of(sets: LabelSets) -> OneTargets:
    """Return targets by which each class of a set is as probable as the others.

    Examples
    --------
    >>> made = any_of(from_flat(np.array([0, 2]), np.array([0, 2]), n_classes=3))
    >>> made.ids.tolist(), made.probs.tolist()
    ([0, 2], [0.5, 0.5])
    """
    sizes = np.diff(sets.start)
    probs = np.repeat(1 / np.maximum(sizes, 1), sizes)
    none = np.zeros(len(sizes))
    return OneTargets(sets.ids.astype(np.int64), probs, sets.start, none, (sizes > 0) * 1.0)


def field_types(answers: str, arms: tuple[str, ...]) -> list[tuple[str, pa.DataType]]:
    """Return the columns of targets of some arms; for answers *one* or *many*."""
    ids, probs, number = pa.list_(pa.uint32()), pa.list_(pa.float32()), pa.float32()
    kinds = {"ids": ids, "probs": probs, "tail": number, "weight": number}
    if answers == "many":
        kinds = {"ids": ids, "not_ids": ids, "weight": number}
    return [(f"{arm}_{name}", kind) for arm in arms for name, kind in kinds.items()]
