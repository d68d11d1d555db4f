"""Positive and unlabelled items: some are known to be positive, some perhaps not to be.

Stage `source` leaves `given_positive`: 1, 0, or −1 where nothing is known.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.decisions import Outcome, Proposals
from labelops.multilabel.labels import LabelSets, from_flat
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.labels.classes import some
from pipelines.storage.forms import is_number
from pipelines.storage.frame import Frame
from pipelines.storage.wording import shown

GIVEN = "given_positive"

NEGATIVE, POSITIVE, UNLABELLED = 0, 1, -1

MEANING = """\
| `positive_clean` | true for items labelled positive and those recovered, false for known \
negatives, null for all others; null in `set_aside/` |
| `p_positive` | probability that the item is positive |
| `decision` | keep, relabel (in `dataset/`); review (in `set_aside/`) |
| `reason` | why, in words |
| `confidence` | probability that a recovered label is right; 1 where nothing was proposed |
| `weight` | training weight: twice the confidence less one, at least 0 |"""


class Positives:
    """Positive, unlabelled, or known not to be positive."""

    name: str = "positive"
    source: tuple[str, ...] = ("positive",)
    given: tuple[str, ...] = (GIVEN,)
    clean: tuple[str, ...] = ("positive_clean",)
    carried: tuple[str, ...] = ("p_positive",)
    is_whole: bool = True
    may_be_open: bool = True
    meaning: str = MEANING

    def label_type(self, kind: pa.DataType) -> pa.DataType:
        """Return the type of the column."""
        return kind

    def given_types(self, ctx: Context) -> dict[str, pa.DataType]:
        """Return the column that stage `source` leaves; see `LabelSpace`."""
        kind = ctx.types[self.name]
        if not (is_number(kind) or pa.types.is_null(kind)):
            raise DataError(
                f"source: column {self.name!r} must hold true, false (known not to be positive) or "
                f"null (unlabelled), got {kind}. Convert it"
            )
        if len(ctx.data.classes) not in (0, 2):
            raise DataError(
                "source: data.classes must name two classes, the negative one first, where items "
                f"are positive or unlabelled; got {some(ctx.data.classes)}. Leave it out"
            )
        return {GIVEN: pa.int8()}

    def distinct(self, frame: Frame, ctx: Context) -> Arrays:
        """Return 0 and 1: there are these two classes, whether or not an item has them."""
        return {"numbers": np.array([NEGATIVE, POSITIVE])}

    def read(self, frame: Frame, ctx: Context) -> Mapping[str, pa.Array]:
        """Return what is known of the rows that can be used; reject the others."""
        labels = frame[self.name]
        if pa.types.is_floating(labels.type):
            # As pandas has null.
            labels = pc.if_else(pc.is_nan(labels), pa.scalar(None, labels.type), labels)
        said = (
            labels.cast(pa.float64(), safe=False)
            .fill_null(UNLABELLED)
            .to_numpy(zero_copy_only=False)
        )
        known = labels.is_valid().to_numpy(zero_copy_only=False)
        is_off = known & (said != POSITIVE) & (said != NEGATIVE)
        for row in np.flatnonzero(is_off).tolist():
            value = shown(labels[row].as_py())
            frame.reject([row], f"no answer: positive is {value}, neither true, false nor null")
        given = np.where(is_off, UNLABELLED, said).astype(np.int64)
        return {GIVEN: pa.array(given[frame.kept()], pa.int8())}

    def count(self, frame: Frame, ctx: Context) -> Arrays:
        """Count known negatives and positives, and items of which nothing is known."""
        given = frame.array(GIVEN)
        n_given = np.bincount(given[given >= 0], minlength=2).astype(np.int64)
        return {"n_given": n_given, "n_unlabelled": np.array(int((given < 0).sum()))}

    def check(self, summary: Arrays, ctx: Context) -> Arrays:
        """Refuse data without a labelled positive, or without an unlabelled item."""
        n_negative, n_positive = (int(n) for n in summary["n_given"])
        n_unlabelled = int(summary["n_unlabelled"])
        if not n_positive:
            raise DataError(
                "source: items labelled positive were expected, 'positive' is true nowhere "
                f"({n_negative:,} false, {n_unlabelled:,} null). Was the wrong column mapped to it?"
            )
        if not n_unlabelled:
            raise DataError(
                "source: unlabelled items were expected, 'positive' is null nowhere "
                f"({n_positive:,} true, {n_negative:,} false). If false means that nobody looked, "
                "write null; if every item is labelled, map the column to 'label'"
            )
        if not n_negative:
            return summary
        said = (
            f"{n_negative:,} items are known not to be positive: their labels are kept, and they "
            "do not count among the unlabelled"
        )
        return {**summary, "notices": np.array([said], dtype=np.str_)}

    def sets(self, frame: Frame, ctx: Context) -> LabelSets:
        """Return the class of each item of which it is known."""
        given = frame.array(GIVEN).astype(np.int64)
        start = np.concatenate([[0], np.cumsum(given >= 0)])
        none = np.zeros(frame.n + 1, np.int64)
        return from_flat(given[given >= 0], start, given[:0], none, n_classes=ctx.n_classes)

    def clean_fields(
        self, label: pa.DataType, columns: Collection[str]
    ) -> list[tuple[str, pa.DataType]]:
        """Return the column with clean labels."""
        return [(self.clean[0], label)]

    def apply(
        self, given: LabelSets, final: Proposals, items: Outcome, ctx: Context
    ) -> dict[str, pa.Array]:
        """Return the column with clean labels; null also for items that are set aside."""
        label = np.full(given.n_items, UNLABELLED, np.int64)
        label[np.diff(given.start) > 0] = given.ids
        label[final.row[final.is_change]] = final.after[final.is_change]
        return {self.clean[0]: ctx.labels(np.where(items.is_aside, UNLABELLED, label))}


SPACE = Positives()
