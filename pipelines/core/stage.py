"""What a stage is: named steps over shards, declared as data.

A stage file under ``pipelines/stages/`` builds one `Stage`; the registry names it; everything that
runs it (threads, a Dask cluster, a Prefect flow) sees only what is declared here.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel
from typing_extensions import TypeVar

from pipelines.storage.forms import as_type

if TYPE_CHECKING:
    from labelops.top_belief import TopBelief
    from pipelines.recipe import Data
    from pipelines.storage.canonical import Items
    from pipelines.storage.frame import Frame

C = TypeVar("C", bound=BaseModel, default=BaseModel)
C_co = TypeVar("C_co", bound=BaseModel, default=BaseModel, covariant=True)
C_contra = TypeVar("C_contra", bound=BaseModel, default=BaseModel, contravariant=True)
"""Settings of a stage. What is annotated without them, as a `Context` alone, reads none of them."""

Arrays = dict[str, np.ndarray]
"""A summary (integers) or a result (any plain arrays); stored as .npz without pickles."""

Tables = Mapping[str, pa.Table]
"""Folder of a run → rows written there."""


@dataclass(frozen=True, kw_only=True)
class Context(Generic[C_co]):
    """What a step may know besides the rows in its hands.

    Attributes
    ----------
    stage : name of the stage as the recipe lists it, e.g. ``proportions@2``.
    config : its validated settings.
    columns : every column that can be read, from the source and from earlier stages.
    types : their Arrow types.
    n_items : number of items in the source (before quarantine).
    classes : class names in the order of their ids; empty before they are known.
    class_values : for labels that are numbers, the number of each class; empty otherwise.
    label_type : Arrow type of the source's `label`; null where there is none.
    source_schema : schema of the source's files, under their own names and with their metadata; a
        step reads a column of theirs, whatever it is mapped to, as ``/source/<name>``.
    run_key : hash that identifies data, recipe and code of this run.
    data : the recipe's `[data]` settings.
    files : names of the settings that name files.
    beliefs : what the stage that it asks believes, if it asks for any.
    beliefs_stage, deciding_stage : names of the last stage before that offers such beliefs, and of
        the one that decided; "" where there is none.
    earlier : names of the stages before it that had something to do.
    """

    stage: str
    config: C_co
    columns: frozenset[str]
    types: Mapping[str, pa.DataType]
    n_items: int
    classes: tuple[str, ...]
    class_values: tuple[int, ...]
    label_type: pa.DataType
    source_schema: pa.Schema
    run_key: str
    data: "Data"
    files: frozenset[str]
    beliefs: "Beliefs | None"
    beliefs_stage: str
    deciding_stage: str
    earlier: tuple[str, ...]
    lookup: Callable[[str, str], Arrays] = field(repr=False)
    artifacts: Callable[[str, str], str] = field(repr=False)
    contexts: Callable[[str], "Context[Any]"] = field(repr=False)

    @property
    def asked(self) -> "Beliefs":
        """The beliefs that the stage asks for."""
        assert self.beliefs is not None, f"stage {self.stage!r} asks for none"
        return self.beliefs

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    def result(self, stage: str, step: str) -> Arrays:
        """Return the finished result of another stage's step."""
        return self.lookup(stage, step)

    def own(self, step: str) -> Arrays:
        """Return the finished result of an earlier step of this stage."""
        return self.lookup(self.stage, step)

    def artifact(self, step: str, name: str) -> str:
        """Return the local path of a file that an earlier fit step of this stage left."""
        return self.artifacts(step, name)

    def of(self, stage: str) -> "Context[Any]":
        """Return the context of an earlier stage: its settings, results and artefacts."""
        return self.contexts(stage)

    def labels(self, classes: np.ndarray) -> pa.Array:
        """Return class ids as labels in the type of the source's label; −1 becomes null."""
        known = classes >= 0
        if self.class_values:
            values = np.asarray(self.class_values, np.int64)[np.where(known, classes, 0)]
            array = pa.array(values, mask=~known)
        else:
            names = pa.array(self.classes, pa.string())
            array = names.take(pa.array(classes, pa.int64(), mask=~known))
        return as_type(array, self.label_type)

    def seed(self, *parts: object) -> int:
        """Return a 63-bit seed that depends on the stage, its settings and `parts` only.

        Neither shards nor places enter, of the source or of files that settings name: the same
        items cut otherwise, with the same files elsewhere, must give the same answer.
        """
        settings = self.config.model_dump_json(exclude=set(self.files))
        text = "\x1f".join(str(part) for part in (self.stage, settings, *parts))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def add_summaries(a: Arrays, b: Arrays) -> Arrays:
    """Merge two summaries by adding their integers; exact, so order does not matter."""
    for name, value in a.items():
        if value.dtype.kind not in "iu":
            raise TypeError(
                f"summaries are merged in integers; {name!r} is {value.dtype}. Floats depend on "
                "the order of the shards: use fixed point, or give the step its own merge"
            )
    return {name: a[name] + b[name] for name in a}


def join_summaries(a: Arrays, b: Arrays) -> Arrays:
    """Merge two summaries by putting them together; whoever finishes brings them into an order."""
    return {name: np.concatenate([a[name], b[name]]) for name in a}


def keep_summary(summary: Arrays, ctx: Context) -> Arrays:
    """Return the merged summary itself as the result."""
    return summary


def always(ctx: Context) -> bool:
    """Return True: the step runs whatever came before."""
    return True


@dataclass(frozen=True, kw_only=True)
class Reduce(Generic[C_contra]):
    """summarize → merge → finish: one small result from all shards, exact for any cut."""

    name: str
    reads: Sequence[str]
    summarize: Callable[["Frame", Context[C_contra]], Arrays]
    merge: Callable[[Arrays, Arrays], Arrays] = add_summaries
    finish: Callable[[Arrays, Context[C_contra]], Arrays] = keep_summary
    when: Callable[[Context[C_contra]], bool] = always


@dataclass(frozen=True, kw_only=True)
class Output:
    """One folder that a map step writes.

    Attributes
    ----------
    schema : columns of its files.
    rows : "all" live items in their order, or "some" of them.
    row_group_rows : at most so many rows in a row group.
    options : further arguments of the Parquet writer.
    ipc : store as uncompressed Arrow IPC, for scratch that is read without decoding.
    """

    schema: pa.Schema
    rows: str = "all"
    row_group_rows: int = 131_072
    options: Mapping[str, Any] = field(default_factory=dict)
    ipc: bool = False


@dataclass(frozen=True, kw_only=True)
class Map(Generic[C_contra]):
    """One shard in, its output shards out, committed together.

    `apply` returns the tables by folder, or yields such mappings chunk by chunk when a shard is
    better not held in memory.
    """

    name: str
    reads: Sequence[str]
    writes: Mapping[str, Output]
    apply: Callable[["Frame", Context[C_contra]], Tables | Iterable[Tables]]
    when: Callable[[Context[C_contra]], bool] = always


@dataclass(frozen=True, kw_only=True)
class Fit(Generic[C_contra]):
    """Many shards in, one artefact out: a single task over all items in canonical order.

    `fit` gets the items, the context and an empty local folder for files that are too big for
    the result; those are committed with it and found again through `Context.artifact`. They are
    removed when the stage is finished, unless a later stage may want them (`keeps`).
    """

    name: str
    reads: Sequence[str]
    fit: Callable[["Items", Context[C_contra], str], Arrays]
    keeps: bool = False
    when: Callable[[Context[C_contra]], bool] = always


Step = Reduce[C_contra] | Map[C_contra] | Fit[C_contra]


class Cells(NamedTuple):
    """What is believed of single classes of items, where a stage says anything of them.

    Attributes
    ----------
    row, class_id : int64, shape (M,).
    is_given : whether the class was said to be present; bool.
    p : probability that it is not as given, float64; NaN where it is not known.
    kind : what the stage says of it, in codes of its own; int64.
    """

    row: np.ndarray
    class_id: np.ndarray
    is_given: np.ndarray
    p: np.ndarray
    kind: np.ndarray


Blocks = Iterator[tuple[slice, "TopBelief"]]
"""Beliefs in the labels of some rows of a shard, one block after the other."""


def _not_offered(*rest: Any) -> Any:
    raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Beliefs:
    """What a stage believes of the labels of items; later stages ask the last one that offers any.

    Attributes
    ----------
    kind : who may ask: "label" is about the one label of items, "classes" about each class by
        itself, "maps" about classes that parts of pictures show.
    reads : what is read; they are offered where all of these columns are there.
    files : folders that are read besides.
    steps : what whoever asks does first; the results are its own.
    blocks : of one label: (rows, beliefs in the k most probable classes, the given and a certain
        one); the last is −1 for none, int64, shape (N,).
    cells : of classes.
    temperature : by which predictions were divided.
    """

    kind: str
    reads: Callable[[frozenset[str]], Sequence[str]]
    files: tuple[str, ...] = ()
    steps: Callable[[Context], Sequence[Step]] = lambda ctx: ()
    blocks: Callable[["Frame", Context, int, np.ndarray], Blocks] = _not_offered
    cells: Callable[["Frame", Context], Cells] = _not_offered
    temperature: Callable[[Context], float] = lambda ctx: 1.0


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[C]):
    """One line of a recipe.

    Attributes
    ----------
    name : as in the registry.
    version : raised whenever the same settings would give other output.
    doc : one line for people.
    config : pydantic model of its settings (frozen, unknown keys forbidden).
    steps : builds the steps, when all earlier stages are finished.
    reads : columns needed, given the settings and the columns there are; for the plan.
    writes : columns of its sidecar, likewise.
    skip : why the stage has nothing to do on this data, or None.
    files_at_end : files beside its tables that are written when a run is finished, by name; a name
        such as ``student/README.md`` puts one into a folder of `folders`.
    files : local files whose content is part of its settings (weights, reviewed rows).
    gpu : whether its map steps want a GPU worker.
    folders : folders of the run that it alone may write, besides the one of its own name;
        ``{stage}`` stands for its name in the recipe.
    decides : whether it decides about items; of such stages a recipe has one at most.
    beliefs : what it offers later stages to read.
    asks : the kind of beliefs that it reads itself.
    """

    name: str
    version: int
    doc: str
    config: type[C]
    steps: Callable[[C, Context[C]], Sequence[Step[C]]]
    reads: Callable[[C, frozenset[str]], Sequence[str]]
    writes: Callable[[C, frozenset[str]], Sequence[str]]
    skip: Callable[[C, frozenset[str]], str | None] = lambda config, columns: None
    files: Callable[[C], Sequence[str]] = lambda config: ()
    files_at_end: Callable[[Context[C]], Mapping[str, bytes]] | None = None
    gpu: bool = False
    folders: tuple[str, ...] = ()
    decides: bool = False
    beliefs: Beliefs | None = None
    asks: str | None = None
