"""Candidate sets: classes of which exactly one is an item's label.

Stage `source` leaves `candidate_ids`. A set of one class is a label; of larger ones nothing is
given until something chooses.
"""

from collections.abc import Collection, Mapping

import numpy as np
import pyarrow as pa

from labelops.decisions import Outcome, Proposals
from labelops.multilabel.labels import LabelSets, from_flat, n_yes
from labelops.ragged import offsets, owners
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.labels.classes import (
    check_absent,
    check_label_type,
    distinct,
    known_labels,
    out_of_range,
    plain,
)
from pipelines.labels.columns import SOFT, flat, lists_of
from pipelines.labels.lists import cells_in
from pipelines.storage.frame import Frame

CANDIDATES, GIVEN = "candidates", "candidate_ids"
"""Column of the source, and what stage `source` leaves of it."""

MEANING = """\
| `label_clean` | the label to train on, in the type of `candidates`; null in `set_aside/` |
| `decision` | keep (the only candidate), relabel (one of several was chosen); in `set_aside/` \
review, unresolved |
| `reason` | why, in words |
| `confidence` | probability that `label_clean` is right; in `set_aside/`, that a candidate drawn \
blindly is |
| `weight` | training weight: probability of the label less that of the best other candidate |"""


def sets_in(table: pa.Table, n_classes: int) -> LabelSets:
    """Return the candidates of a table's items."""
    values, start = flat(table.column(GIVEN))
    return from_flat(values.to_numpy(zero_copy_only=False), start, n_classes=n_classes)


def candidate_sets(frame: Frame, ctx: Context) -> LabelSets:
    """Return the candidates of a shard's items."""
    return sets_in(frame.table([GIVEN]), ctx.n_classes)


def sole(lists: pa.Array) -> pa.Array:
    """Return the label of lists that name only one, however often; null for others.

    Examples
    --------
    >>> sole(pa.array([["cat", "dog"], ["cat"], ["dog", "dog"], None])).to_pylist()
    [None, 'cat', 'dog', None]
    """
    values, start = flat(lists)
    code = values.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    row, size = owners(start), np.diff(start)
    first = code[np.minimum(start[:-1], max(len(code) - 1, 0))] if len(code) else code
    n_like_first = np.bincount(row[code == first[row]], minlength=len(size))
    is_sole = (size > 0) & (n_like_first == size)
    return values.take(pa.array(start[:-1], mask=~is_sole))


class Candidates:
    """Classes of which exactly one is true."""

    name: str = CANDIDATES
    source: tuple[str, ...] = (CANDIDATES,)
    given: tuple[str, ...] = (GIVEN,)
    clean: tuple[str, ...] = ("label_clean",)
    carried: tuple[str, ...] = SOFT
    is_whole: bool = True
    may_be_open: bool = False
    meaning: str = MEANING

    def label_type(self, kind: pa.DataType) -> pa.DataType:
        """Return the type of the lists' elements."""
        return getattr(kind, "value_type", kind)

    def given_types(self, ctx: Context) -> dict[str, pa.DataType]:
        """Return the column that stage `source` leaves; see `LabelSpace`."""
        kind = ctx.types[CANDIDATES]
        is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        if not is_list and not pa.types.is_fixed_size_list(kind):
            raise DataError(
                f"source: column {CANDIDATES!r} must hold lists of integers or strings, got "
                f"{kind}. A single class per item goes into 'label'"
            )
        check_label_type(ctx.label_type, CANDIDATES)
        return {GIVEN: pa.list_(pa.uint32())}

    def distinct(self, frame: Frame, ctx: Context) -> Arrays:
        """Return the distinct labels in a shard's lists, sorted."""
        values, _ = flat(frame[CANDIDATES])
        if pa.types.is_null(values.type):
            return {"numbers": np.empty(0, np.int64)}
        return distinct(plain(values, CANDIDATES))

    def read(self, frame: Frame, ctx: Context) -> Mapping[str, pa.Array]:
        """Return the candidates of the rows that can be used, each once; reject the others."""
        names, known = known_labels(ctx)
        cells = cells_in(frame, CANDIDATES, known)
        is_missing = frame[CANDIDATES].is_null().to_numpy(zero_copy_only=False)
        frame.reject(np.flatnonzero(is_missing), f"no candidates: {CANDIDATES} is null")
        has_any = np.bincount(cells.row, minlength=frame.n) > 0
        frame.reject(
            np.flatnonzero(~has_any & ~is_missing), f"no candidates: {CANDIDATES} is empty"
        )
        null = cells.label.is_null().to_numpy(zero_copy_only=False)
        frame.reject(cells.row[null], f"no label: {CANDIDATES} has a null among its labels")
        for at in np.flatnonzero((cells.class_id < 0) & ~null).tolist():
            frame.reject([cells.row[at]], out_of_range(cells.label[at].as_py(), names))
        kept = frame.kept()
        mine = np.isin(cells.row, kept)
        row = np.searchsorted(kept, cells.row[mine])
        start = np.searchsorted(row, np.arange(len(kept) + 1))
        sets = from_flat(cells.class_id[mine], start, n_classes=names.size)
        return {GIVEN: lists_of(sets.ids.astype(np.uint32), sets.start)}

    def count(self, frame: Frame, ctx: Context) -> Arrays:
        """Count the items of each candidate, and those of one candidate and of all classes."""
        n_classes = known_labels(ctx)[0].size
        sets = sets_in(frame.table([GIVEN]), n_classes)
        size = np.diff(sets.start)
        return {
            "n_given": n_yes(sets),
            "n_items": np.array(frame.n),
            "n_sole": np.array(np.count_nonzero(size == 1)),
            "n_open": np.array(np.count_nonzero(size == n_classes)),
        }

    def check(self, summary: Arrays, ctx: Context) -> Arrays:
        """Refuse data of one class, sets that rule nothing out, and classes in no set."""
        present = np.flatnonzero(summary["n_given"])
        if present.size < 2:
            names = ctx.own("values")["names"].tolist()
            only = names[int(present[0])] if present.size else "none"
            raise DataError(
                "source: items of at least two classes were expected, got one class only "
                f"({only!r}). Was the data set filtered, or the wrong column mapped to "
                f"{CANDIDATES!r}?"
            )
        if summary["n_open"] == summary["n_items"]:
            raise DataError(
                f"source: sets in {CANDIDATES!r} were expected that leave classes out, all of them "
                f"have all {len(summary['n_given'])} classes, which says nothing"
            )
        check_absent(summary["n_given"], ctx)
        return summary

    def sets(self, frame: Frame, ctx: Context) -> LabelSets:
        """Return the labels of a shard's items, as far as one candidate leaves no choice.

        Of all else it is not known which class an item has; what is ruled out is not listed.
        """
        sets = candidate_sets(frame, ctx)
        is_sole = np.diff(sets.start) == 1
        none = np.zeros(frame.n + 1, np.int64)
        return from_flat(
            sets.ids[sets.start[:-1][is_sole]],
            offsets(is_sole),
            sets.ids[:0],
            none,
            n_classes=ctx.n_classes,
        )

    def clean_fields(
        self, label: pa.DataType, columns: Collection[str]
    ) -> list[tuple[str, pa.DataType]]:
        """Return the column with clean labels."""
        return [(self.clean[0], label)]

    def apply(
        self, given: LabelSets, final: Proposals, items: Outcome, ctx: Context
    ) -> dict[str, pa.Array]:
        """Return the column with clean labels; null for items that are set aside."""
        label = np.full(given.n_items, -1)
        label[owners(given.start)] = given.ids
        label[final.row[final.is_change]] = final.after[final.is_change]
        return {self.clean[0]: ctx.labels(np.where(items.is_aside, -1, label))}


SPACE = Candidates()
