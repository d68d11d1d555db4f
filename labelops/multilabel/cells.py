"""What confident learning looks at in a block of rows when every class is a question of its own.

One class against the rest is confident learning with two classes, "no" (0) and "yes" (1), of
probabilities 1 − p and p. Much is simpler then. A given label that the model does not contradict
is never reported, whatever the filter; and among those it contradicts both the difference of the
two probabilities and the probability of the given state put items in one and the same order. So
all that is ever chosen from are *disagreeing* cells, few in a good model, kept as a list.

The loops here are written to be read; `labelops.fast.multilabel` has them compiled, with the same
bits.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from labelops.confident import thresholds as conf
from labelops.confident.thresholds import TOLERANCE, SelfConfidence, confident_bounds
from labelops.multilabel.labels import NO, YES, LabelSets, states

# N items, K classes; a group is a class and the given state, 2 · class + state


class Cells(NamedTuple):
    """Some (item, class) cells, by item and then class.

    Attributes
    ----------
    row : which item of the block, int64, shape (M,).
    class_id : which class, int64, shape (M,).
    is_given : whether the class was said to be present; otherwise it was ruled out. bool.
    p : probability that it is present, in the type of the probabilities.
    """

    row: np.ndarray
    class_id: np.ndarray
    is_given: np.ndarray
    p: np.ndarray

    @property
    def p_given(self) -> np.ndarray:
        """Probability of the given state; for disagreeing cells 1 − p is exact."""
        return np.asarray(np.where(self.is_given, self.p, 1 - self.p))

    def choose(self, which: np.ndarray) -> "Cells":
        """Return some of the cells."""
        return Cells(*(column[which] for column in self))


def concatenate(parts: Sequence[Cells]) -> Cells:
    """Return the cells of all parts; at least one part."""
    return Cells(*(np.concatenate(column) for column in zip(*parts, strict=True)))


class Counts(NamedTuple):
    """Counts over items that are added over blocks.

    Attributes
    ----------
    joint : items by class, given state and confident guess; int64, shape (K, 2, 2).
    disagreeing : cells whose given state is contradicted; int64, shape (K, 2), by given state.
    sure : those of them that are confidently counted into the other state; likewise.
    """

    joint: np.ndarray
    disagreeing: np.ndarray
    sure: np.ndarray


class Engine(Protocol):
    """Who does the loops over rows of probabilities."""

    def sums(self, probs: np.ndarray, labels: LabelSets) -> SelfConfidence:
        """Sum the probability of the given state by group; shape (2 K,)."""

    def counts(self, probs: np.ndarray, labels: LabelSets, bounds: np.ndarray) -> Counts:
        """Count by class, given state and guess."""

    def disagreeing(self, probs: np.ndarray, labels: LabelSets) -> Cells:
        """List the cells whose given state the model contradicts."""


def state_bounds(thresholds: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return the smallest confident probabilities by class and state, shape (K, 2)."""
    return confident_bounds(thresholds.ravel(), dtype).reshape(-1, 2)


def no_counts(n_classes: int) -> Counts:
    """Return the counts of no items."""
    pair = np.zeros((n_classes, 2), np.int64)
    return Counts(np.zeros((n_classes, 2, 2), np.int64), pair, pair.copy())


def add_counts(a: Counts, b: Counts) -> Counts:
    """Add the counts of two sets of items."""
    return Counts(*(x + y for x, y in zip(a, b, strict=True)))


class ReadableEngine:
    """The definition, in NumPy."""

    def sums(self, probs: np.ndarray, labels: LabelSets) -> SelfConfidence:
        """Sum the probability of the given state by class and state, exactly.

        Examples
        --------
        >>> from labelops.multilabel.labels import label_sets
        >>> probs = np.array([[0.75, 0.25], [0.5, 0.5]])
        >>> sums = ReadableEngine().sums(probs, label_sets([[0], []], n_classes=2))
        >>> conf.finish(sums).reshape(2, 2).tolist()
        [[0.5, 0.75], [0.625, 2.0]]
        """
        table = states(labels)
        row, class_id = np.nonzero(table >= NO)
        state = table[row, class_id]
        p = probs[row, class_id]
        p_given = np.where(state == YES, p, 1 - p)
        return conf.summarize(p_given, 2 * class_id + state, n_classes=2 * labels.n_classes)

    def counts(self, probs: np.ndarray, labels: LabelSets, bounds: np.ndarray) -> Counts:
        """Count by class, given state and the state that a cell confidently belongs to.

        Examples
        --------
        >>> from labelops.multilabel.labels import label_sets
        >>> probs = np.array([[0.75], [0.5], [0.9]])
        >>> bounds = np.array([[0.4, 0.7]])
        >>> ReadableEngine().counts(probs, label_sets([[0], [], []], n_classes=1), bounds).joint
        array([[[1, 1],
                [0, 1]]])
        """
        table, counts = states(labels), no_counts(labels.n_classes)
        for c in range(labels.n_classes):
            for state in (NO, YES):
                p = probs[table[:, c] == state, c]
                pair = np.stack([1 - p, p], axis=1)
                is_confident = pair >= bounds[c]
                # Argmax takes the first of equals: of two confident states that tie, "no".
                guess = np.where(is_confident.all(axis=1), pair.argmax(axis=1), is_confident[:, 1])
                guess = guess[is_confident.any(axis=1)]
                counts.joint[c, state] = np.bincount(guess, minlength=2)
                apart = ~_agrees(pair, state)
                counts.disagreeing[c, state] = apart.sum()
                counts.sure[c, state] = (apart & is_confident[:, 1 - state]).sum()
        return counts

    def disagreeing(self, probs: np.ndarray, labels: LabelSets) -> Cells:
        """List the cells whose given state the model contradicts.

        Examples
        --------
        >>> from labelops.multilabel.labels import label_sets
        >>> probs = np.array([[0.75, 0.25], [0.5, 0.875]])
        >>> cells = ReadableEngine().disagreeing(probs, label_sets([[0, 1], []], n_classes=2))
        >>> cells.row.tolist(), cells.class_id.tolist(), cells.is_given.tolist()
        ([0, 1], [1, 1], [True, False])
        """
        table = states(labels)
        pair = np.stack([1 - probs, probs], axis=2)
        apart = np.zeros(table.shape, bool)
        for state in (NO, YES):
            apart |= (table == state) & ~_agrees(pair, state)
        row, class_id = np.nonzero(apart)
        return Cells(row, class_id, table[row, class_id] == YES, probs[row, class_id])


def _agrees(pair: np.ndarray, state: int) -> np.ndarray:
    """Return whether a state is the more probable one, give or take 10⁻⁶."""
    raised = pair.copy()
    raised[..., state] += pair.dtype.type(TOLERANCE)
    return np.asarray(raised.argmax(axis=-1) == state)
