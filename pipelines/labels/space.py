"""What a kind of label is, and which kinds there are."""

from collections.abc import Collection, Mapping
from typing import Protocol

import pyarrow as pa

from labelops.decisions import Outcome, Proposals
from labelops.multilabel.labels import LabelSets
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.registry import load_space
from pipelines.storage.contract import SPACES
from pipelines.storage.frame import Frame


class LabelSpace(Protocol):
    """One kind of given label: how it is read, what it says of an item, how it is written back.

    Attributes
    ----------
    name : the column of the source that announces it.
    source : all columns of the source that it reads.
    given : columns that stage `source` leaves of them, as class ids.
    clean : columns of a product that hold what became of them.
    carried : further columns of a product, that stages write besides.
    may_be_open : whether items that nothing is said of are trained on.
    is_whole : whether what is decided about is the whole label of an item, and not single classes.
    meaning : rows of a table in Markdown, column and meaning, of the clean columns and of what else
        depends on the kind of label.
    """

    name: str
    source: tuple[str, ...]
    given: tuple[str, ...]
    clean: tuple[str, ...]
    carried: tuple[str, ...]
    is_whole: bool
    may_be_open: bool
    meaning: str

    def label_type(self, kind: pa.DataType) -> pa.DataType:
        """Return the type of single labels, where the announcing column has some type."""
        ...

    def given_types(self, ctx: Context) -> dict[str, pa.DataType]:
        """Return the columns that stage `source` leaves on this data.

        Raises
        ------
        DataError
            If the source's columns hold something else.
        """
        ...

    def distinct(self, frame: Frame, ctx: Context) -> Arrays:
        """Return the distinct labels of a shard, as `labels.classes.distinct` has it."""
        ...

    def read(self, frame: Frame, ctx: Context) -> Mapping[str, pa.Array]:
        """Return the given classes of a shard's rows that can be used; reject the others."""
        ...

    def count(self, frame: Frame, ctx: Context) -> Arrays:
        """Count given labels, `n_given` by class, for `check` and for reports."""
        ...

    def check(self, summary: Arrays, ctx: Context) -> Arrays:
        """Return the counts over all shards.

        Raises
        ------
        DataError
            If nothing can be compared on such data.
        """
        ...

    def sets(self, frame: Frame, ctx: Context) -> LabelSets:
        """Return what is said of each item: classes it has, has not, and of which nothing is."""
        ...

    def clean_fields(
        self, label: pa.DataType, columns: Collection[str]
    ) -> list[tuple[str, pa.DataType]]:
        """Return names and types of the clean columns, where labels have some type."""
        ...

    def apply(
        self, given: LabelSets, final: Proposals, items: Outcome, ctx: Context
    ) -> dict[str, pa.Array]:
        """Return the clean columns, in the type of the source's labels."""
        ...


def announced(columns: Collection[str]) -> LabelSpace | None:
    """Return the kind of label that a source has; None without labels.

    Raises
    ------
    DataError
        If it has two, or only columns that go with another one.
    """
    for name in SPACES:
        beside = [column for column in load_space(name).source if column in columns]
        if beside and name not in columns:
            raise DataError(
                f"source: column {name!r} was expected beside {beside[0]!r}, there is none. Map "
                "the column with the classes that items have to it in data.columns"
            )
    names = [name for name in SPACES if name in columns]
    if len(names) > 1:
        raise DataError(
            f"source: one of the columns {' and '.join(map(repr, names))} was expected, of which "
            "each holds labels of another kind, the data has both. Map the other one away, for "
            f"example data.columns = {{ unused = {names[0]!r} }}"
        )
    return load_space(names[0]) if names else None


def space_of(columns: Collection[str]) -> LabelSpace | None:
    """Return the kind of label whose given classes are among some columns; None without any."""
    return next((space for space in map(load_space, SPACES) if space.given[0] in columns), None)


def given_columns(columns: Collection[str]) -> list[str]:
    """Return the columns with given classes; none where items have no labels."""
    space = space_of(columns)
    return [] if space is None else [name for name in space.given if name in columns]


def given_sets(frame: Frame, ctx: Context) -> LabelSets:
    """Return what was said of a shard's items; the columns with given classes must be readable."""
    space = space_of(frame.reads)
    assert space is not None
    return space.sets(frame, ctx)


def clean_space(columns: Collection[str]) -> LabelSpace | None:
    """Return the kind of label that was decided about; None where nothing was.

    Of several that write the same column, that of the given labels.
    """
    own = space_of(columns)
    spaces = [*([] if own is None else [own]), *map(load_space, SPACES)]
    return next((space for space in spaces if space.clean[0] in columns), None)
