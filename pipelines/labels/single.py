"""One label an item."""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.decisions import Outcome, Proposals
from labelops.multilabel.labels import LabelSets, from_flat
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.labels import classes
from pipelines.labels.columns import SOFT
from pipelines.storage.frame import Frame

MEANING = """\
| `{clean}` | the label to train on, in the type of `{name}`; null in `set_aside/` |
| `decision` | keep, relabel, abstain (in `dataset/`); drop, review, unresolved (in `set_aside/`) |
| `reason` | why, in words |
| `confidence` | probability that `{clean}` is right; in `set_aside/`, that the given label is |
| `weight` | training weight: probability of the label less that of the best other class |"""


class Single:
    """One class an item.

    Parameters
    ----------
    name
        Column of the source.
    given, clean
        Columns that stage `source` and a product have of it.
    carried
        Further columns of a product.
    """

    is_whole: bool = True
    may_be_open: bool = False

    def __init__(self, name: str, given: str, clean: str, carried: tuple[str, ...] = ()) -> None:
        self.name = name
        self.carried = carried
        self.source: tuple[str, ...] = (name,)
        self.given: tuple[str, ...] = (given,)
        self.clean: tuple[str, ...] = (clean,)
        self.meaning = MEANING.format(name=name, clean=clean)

    def label_type(self, kind: pa.DataType) -> pa.DataType:
        """Return the type of the column."""
        return kind

    def given_types(self, ctx: Context) -> dict[str, pa.DataType]:
        """Return the column that stage `source` leaves; see `LabelSpace`."""
        classes.check_label_type(ctx.label_type, self.name)
        return {self.given[0]: pa.int32()}

    def distinct(self, frame: Frame, ctx: Context) -> Arrays:
        """Return the distinct labels of a shard, sorted."""
        return classes.distinct(classes.plain(frame[self.name], self.name))

    def read(self, frame: Frame, ctx: Context) -> Mapping[str, pa.Array]:
        """Return the given classes of the rows that can be used; reject the others."""
        labels = classes.plain(frame[self.name], self.name)
        names, known = classes.known_labels(ctx)
        given = classes.classes_of(labels, known)
        frame.reject(np.flatnonzero(labels.is_null()), f"no label: {self.name} is null")
        if ctx.own("values")["is_named"] and pa.types.is_integer(labels.type):
            # Hugging Face's test sets are written so.
            unlabelled = np.flatnonzero(pc.equal(labels, classes.UNLABELLED).fill_null(False))
            frame.reject(unlabelled, f"no label: {self.name} is {classes.UNLABELLED}")
        for row in np.flatnonzero(given < 0).tolist():
            frame.reject([row], classes.out_of_range(labels[row].as_py(), names))
        return {self.given[0]: pa.array(given[frame.kept()], pa.int32())}

    def count(self, frame: Frame, ctx: Context) -> Arrays:
        """Count the items of each class."""
        given, n_classes = frame.array(self.given[0]), ctx.own("values")["names"].size
        return {"n_given": np.bincount(given, minlength=n_classes).astype(np.int64)}

    def check(self, summary: Arrays, ctx: Context) -> Arrays:
        """Refuse data of fewer than two classes, and classes that nobody has unless allowed."""
        counts = summary["n_given"]
        present = np.flatnonzero(counts)
        if present.size < 2:
            only = ctx.own("values")["names"].tolist()[int(present[0])] if present.size else "none"
            raise DataError(
                "source: items of at least two classes were expected, got one class only "
                f"({only!r}). Was the data set filtered, or the wrong column mapped to "
                f"{self.name!r}?"
            )
        classes.check_absent(counts, ctx)
        return {**summary, **classes.said_of_single(counts, ctx)}

    def sets(self, frame: Frame, ctx: Context) -> LabelSets:
        """Return the given classes of a shard's items.

        One label says what an item has, and nothing of what it has not: all else is unknown.
        """
        start, none = np.arange(frame.n + 1), np.zeros(frame.n + 1, np.int64)
        given = frame.array(self.given[0]).astype(np.int64)
        return from_flat(given, start, given[:0], none, n_classes=ctx.n_classes)

    def clean_fields(
        self, label: pa.DataType, columns: Collection[str]
    ) -> list[tuple[str, pa.DataType]]:
        """Return the column with clean labels."""
        return [(self.clean[0], label)]

    def apply(
        self, given: LabelSets, final: Proposals, items: Outcome, ctx: Context
    ) -> dict[str, pa.Array]:
        """Return the column with clean labels; null for items that are set aside."""
        label = given.ids.astype(np.int64)
        label[final.row[final.is_change]] = final.after[final.is_change]
        return {self.clean[0]: ctx.labels(np.where(items.is_aside, -1, label))}


SPACE = Single("label", "given", "label_clean", carried=SOFT)
