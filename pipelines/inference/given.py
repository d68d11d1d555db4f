"""What inference does in one way for one class an item, and in another for sets of classes.

Of one class an item, probabilities sum to one. In a set every class is a question of its own, with
two answers; what is said of their probabilities in the end is of single cells. Of candidates one is
true, and probabilities sum to one over all classes.

A class that hardly any item rules out can only be told from items that were not given it: there
heads learn who is given the class, and unknown cells count as absent.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pyarrow as pa

from labelops import calibration, simplex
from labelops.calibration import Bins
from labelops.multilabel import calibration as of_cells
from labelops.multilabel.labels import (
    YES,
    LabelSets,
    choose_rows,
    states,
    take_rows,
    with_unknown_absent,
)
from labelops.multilabel.opinion import model_log_odds
from labelops.opinions.pool import fit_weights, pool
from labelops.opinions.sets import fit_cell_weights, pool_cells
from labelops.partial.candidates import fit_candidate_pool
from labelops.ragged import owners
from labelops.temperature import apply_temperature, fit_temperature
from pipelines.core.stage import Arrays, Context
from pipelines.labels import candidates, positives
from pipelines.labels.lists import given_columns, is_multi_label, sets_in
from pipelines.labels.space import given_sets
from pipelines.storage.frame import Frame, numpy_of
from pipelines.storage.vectors import list_array

if TYPE_CHECKING:
    from labelops.nn.linear import Block, Blocks, Heads, Link

Labels: TypeAlias = Any
"""Given labels of some items: ids in an array, or `LabelSets`. Each class below knows its own."""

Checked = tuple[np.ndarray, np.ndarray | None]
"""Rows that are no probabilities, and all probabilities of the given class, if it is one."""


class OneClass:
    """One class an item: its id.

    Attributes
    ----------
    link : from logits to probabilities.
    has_p_given : whether the sidecar has the probability of the given class.
    least_rows : of a block that heads are fitted to.
    sample_cells : items × classes of the sample for calibration stay about below it.
    """

    link: "Link" = "softmax"
    has_p_given = True
    least_rows = 256
    sample_cells = 1 << 23
    """32 MiB, however many classes there are."""

    def columns(self, columns: Collection[str]) -> list[str]:
        """Return `given`."""
        return ["given"]

    def read(self, frame: Frame, ctx: Context) -> Labels:
        """Return class ids."""
        return frame.array("given")

    def in_table(self, table: pa.Table, ctx: Context) -> Labels:
        """Return class ids."""
        return numpy_of(table.column("given").chunk(0), "given")

    def choose(self, given: Labels, rows: slice | np.ndarray) -> Labels:
        """Return the ids of some items."""
        return given[rows]

    def strata(self, given: np.ndarray, ctx: Context) -> tuple[np.ndarray, int]:
        """Return the given class."""
        return given, ctx.n_classes

    def fit(self, blocks: "Blocks[np.ndarray]", **settings: Any) -> "Heads":
        """Fit softmax regressions, one a fold."""
        from labelops.nn.heads import fit_heads

        return fit_heads(blocks, **settings)

    def check(self, probs: np.ndarray, given: np.ndarray, tolerance: float) -> Checked:
        """Return the rows that are no distributions, and all probabilities of the given class."""
        from labelops.fast.simplex import check_rows

        return check_rows(probs, given, tolerance=tolerance)

    def what_is_wrong(self, probs: np.ndarray) -> str:
        """Return why a row is no distribution."""
        return simplex.what_is_wrong(probs)

    def sample_type(self, n_classes: int) -> pa.DataType:
        """Return the type of ids."""
        return pa.int32()

    def sample(self, given: np.ndarray) -> pa.Array:
        """Return ids."""
        return pa.array(given, pa.int32())

    def as_array(self, given: np.ndarray) -> np.ndarray:
        """Return ids."""
        return given

    def weigh(self, probs: np.ndarray, given: np.ndarray) -> Arrays:
        """Return how much each opinion counts, and whether it finds more than one class probable.

        Opinions on a sample, shape (H, n, K), and its labels as `sample` gives them.
        """
        leading = probs.argmax(axis=2)
        tells = (leading != leading[:, :1]).any(axis=1)
        return {"weights": fit_weights(probs, given), "tells": tells}

    def pool(self, said: np.ndarray, found: Arrays) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what opinions (H, n, K) say together, and the most probable class of each.

        float32, shape (n, K), and int32, shape (n, H); −1 of opinions that tell nothing.
        """
        from labelops.fast.pool import pool_and_lead

        probs, leading = pool_and_lead(said, found["weights"])
        leading[:, ~found["tells"]] = -1
        return probs, leading

    def measure(self, given: np.ndarray, probs: np.ndarray, n_bins: int) -> Arrays:
        """Fit a temperature for all classes."""
        temperature = fit_temperature(calibration.log_safe(probs), given)
        metrics: Arrays = {"temperature": np.array(temperature), "n": np.array(len(given))}
        scaled = apply_temperature(probs, temperature=temperature)
        for when, p in (("before", probs.astype(np.float64)), ("after", scaled)):
            bins = calibration.top_reliability(p, given, n_bins=n_bins)
            metrics |= _measured(when, calibration.metrics(p, given, n_bins=n_bins), bins)
        return metrics


class Labelled(OneClass):
    """Positive and unlabelled items: whether they are labelled positive, 1 or 0."""

    has_p_given = False

    def columns(self, columns: Collection[str]) -> list[str]:
        """Return what is known of items."""
        return [positives.GIVEN]

    def read(self, frame: Frame, ctx: Context) -> Labels:
        """Return 1 for labelled positives, 0 for all others."""
        return (frame.array(positives.GIVEN) == positives.POSITIVE).astype(np.int32)

    def in_table(self, table: pa.Table, ctx: Context) -> Labels:
        """Return 1 for labelled positives, 0 for all others."""
        given = numpy_of(table.column(positives.GIVEN).chunk(0), positives.GIVEN)
        return (given == positives.POSITIVE).astype(np.int32)


class ClassSets:
    """Classes said to be present, ruled out, or not looked for.

    Parameters
    ----------
    is_counted
        Classes of which unknown cells count as absent, bool, shape (K,); None: of none.
    """

    def __init__(self, is_counted: np.ndarray | None = None) -> None:
        self.is_counted = is_counted

    link: "Link" = "sigmoid"
    has_p_given = False
    least_rows = 64
    sample_cells = 1 << 20
    """Every cell is a binary answer; so many tell a slope and a shift to three digits."""

    def columns(self, columns: Collection[str]) -> list[str]:
        """Return one column of lists, or with three states two."""
        return given_columns(columns)

    def read(self, frame: Frame, ctx: Context) -> Labels:
        """Return the sets of a shard."""
        return given_sets(frame, ctx)

    def in_table(self, table: pa.Table, ctx: Context) -> Labels:
        """Return the sets of a table."""
        return sets_in(table, ctx.n_classes)

    def choose(self, given: Labels, rows: slice | np.ndarray) -> Labels:
        """Return the sets of some items."""
        return take_rows(given, rows) if isinstance(rows, slice) else choose_rows(given, rows)

    def strata(self, given: LabelSets, ctx: Context) -> tuple[np.ndarray, int]:
        """Return the rarest class of each item, K for none: one of few items is in all folds."""
        counts = ctx.result("source", "census")["n_given"]
        rarity = np.empty(len(counts), np.int64)
        rarity[np.argsort(counts, kind="stable")] = np.arange(len(counts))
        rarest = np.full(given.n_items, len(counts), np.int64)
        np.minimum.at(rarest, owners(given.start), rarity[given.ids])
        return rarest, ctx.n_classes + 1

    def fit(self, blocks: "Blocks[LabelSets]", **settings: Any) -> "Heads":
        """Fit logistic regressions, one a class and fold."""
        from labelops.nn.binary_heads import fit_binary_heads

        def counted() -> "Iterator[Block[LabelSets]]":
            return (block._replace(given=self._counted(block.given)) for block in blocks())

        return fit_binary_heads(counted, **settings)

    def _counted(self, given: LabelSets) -> LabelSets:
        return given if self.is_counted is None else with_unknown_absent(given, self.is_counted)

    def check(self, probs: np.ndarray, given: LabelSets, tolerance: float) -> Checked:
        """Return the rows with a number outside [0, 1]; they need not sum to one."""
        # Written so that NaN fails too.
        return np.flatnonzero(~((probs >= 0) & (probs <= 1)).all(axis=1)), None

    def what_is_wrong(self, probs: np.ndarray) -> str:
        """Return the first number outside [0, 1]."""
        column = int(np.flatnonzero(~((probs >= 0) & (probs <= 1)))[0])
        return (
            f"no probabilities: class {column} has {probs[column]:g}, expected was [0, 1]. Were "
            "logits passed?"
        )

    def sample_type(self, n_classes: int) -> pa.DataType:
        """Return the type of a row of states."""
        return pa.list_(pa.int8(), n_classes)

    def sample(self, given: LabelSets) -> pa.Array:
        """Return yes, no or unknown of every class."""
        return list_array(self.as_array(given))

    def as_array(self, given: LabelSets) -> np.ndarray:
        """Return yes, no or unknown of every class; int8, shape (n, K)."""
        return states(self._counted(given))

    def weigh(self, probs: np.ndarray, given: np.ndarray) -> Arrays:
        """Return how much each opinion counts, on the known cells of a sample."""
        return {"weights": fit_cell_weights(probs, given)}

    def pool(self, said: np.ndarray, found: Arrays) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what opinions (H, n, K) say together, float32, shape (n, K)."""
        return pool_cells(said, found["weights"]).astype(np.float32), None

    def measure(self, given: np.ndarray, probs: np.ndarray, n_bins: int) -> Arrays:
        """Fit one slope and shift of log-odds for all classes, to known cells."""
        p, is_given = of_cells.known_cells(probs, given)
        slope, shift = of_cells.pooled_scaling(p, is_given)
        after = 1 / (1 + np.exp(-(slope * model_log_odds(p) + shift)))
        metrics: Arrays = {
            "slope": np.array(slope),
            "shift": np.array(shift),
            "n": np.array(len(given)),
            "n_cells": np.array(len(p)),
        }
        if self.is_counted is not None:
            metrics["n_counted"] = np.array(np.count_nonzero(self.is_counted))
        for when, values in (("before", p), ("after", after)):
            bins = calibration.reliability(values, is_given, n_bins=n_bins)
            metrics |= _measured(when, of_cells.metrics(values, is_given, n_bins=n_bins), bins)
        return metrics


class CandidateSets(ClassSets):
    """Classes of which exactly one is true."""

    link: "Link" = "softmax"

    def columns(self, columns: Collection[str]) -> list[str]:
        """Return `candidate_ids`."""
        return [candidates.GIVEN]

    def read(self, frame: Frame, ctx: Context) -> Labels:
        """Return the candidates of a shard."""
        return candidates.candidate_sets(frame, ctx)

    def in_table(self, table: pa.Table, ctx: Context) -> Labels:
        """Return the candidates of a table."""
        return candidates.sets_in(table, ctx.n_classes)

    def check(self, probs: np.ndarray, given: LabelSets, tolerance: float) -> Checked:
        """Return the rows that are no distributions."""
        from labelops.fast.simplex import check_rows

        none = np.zeros(len(probs), np.int64)
        return check_rows(probs, none, tolerance=tolerance)[0], None

    def what_is_wrong(self, probs: np.ndarray) -> str:
        """Return why a row is no distribution."""
        return simplex.what_is_wrong(probs)

    def sample_type(self, n_classes: int) -> pa.DataType:
        """Return the type of a row of classes."""
        return pa.list_(pa.int8(), n_classes)

    def sample(self, given: LabelSets) -> pa.Array:
        """Return 1 for candidates, else 0."""
        return list_array(self.as_array(given).astype(np.int8))

    def as_array(self, given: LabelSets) -> np.ndarray:
        """Return whether each class is a candidate; bool, shape (n, K)."""
        return np.asarray(states(given) == YES)

    def weigh(self, probs: np.ndarray, given: np.ndarray) -> Arrays:
        """Return how much each opinion counts, by how probable it finds sets of a sample."""
        return {"weights": fit_candidate_pool(probs, given == YES).weights}

    def pool(self, said: np.ndarray, found: Arrays) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what opinions (H, n, K) say together, float32, shape (n, K)."""
        return pool(said, found["weights"]).astype(np.float32), None

    def measure(self, given: np.ndarray, probs: np.ndarray, n_bins: int) -> Arrays:
        """Measure nothing: which candidate is true, nobody said. Stage `partial` fits to sets."""
        return {"n": np.array(len(given)), "n_cells": np.array(0)}


def _measured(when: str, metrics: Mapping[str, float], bins: Bins) -> Arrays:
    return {
        **{f"{when}_{name}": np.array(value) for name, value in metrics.items()},
        **{f"{when}_bins_{name}": values for name, values in bins._asdict().items()},
    }


ONE_CLASS, LABELLED = OneClass(), Labelled()
CLASS_SETS, CANDIDATE_SETS = ClassSets(), CandidateSets()


def given_of(columns: Collection[str]) -> OneClass | ClassSets:
    """Return the kind of given labels among some columns; one class an item if there are none."""
    if candidates.GIVEN in columns:
        return CANDIDATE_SETS
    if is_multi_label(columns):
        return CLASS_SETS
    return LABELLED if positives.GIVEN in columns else ONE_CLASS
