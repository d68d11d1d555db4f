"""Confident learning where an item may have any number of classes, on a data set in memory."""

from collections.abc import Iterator

import numpy as np

from labelops.confident.filters import Filter, Settings
from labelops.multilabel.cells import Cells, Engine, concatenate
from labelops.multilabel.estimates import Estimates
from labelops.multilabel.labels import LabelSets, take_rows
from labelops.multilabel.rules import Block, apply, check_block, fit

# N items, K classes

BLOCK_CELLS = 1 << 20


def find_label_issues(
    probs: np.ndarray,
    labels: LabelSets,
    *,
    filter_by: Filter = "prune_by_noise_rate",
    frac_noise: float = 1.0,
    min_examples_per_class: int = 1,
    item_hash: np.ndarray | None = None,
    engine: Engine | None = None,
) -> tuple[Cells, Estimates]:
    """Flag given classes that are probably wrong, and classes that are probably missing.

    Parameters
    ----------
    probs
        Out-of-sample probabilities, float32 or float64, shape (N, K); rows need not sum to one.
    labels
        Given classes.
    filter_by, frac_noise, min_examples_per_class
        As in `labelops.confident.issues.find_label_issues`, for every class against the rest.
    item_hash
        Distinct numbers by which ties are broken, uint64, shape (N,); the row number if absent.
    engine
        Who does the loops over rows; the readable one if absent.

    Returns
    -------
    Flagged cells, by row and class: `is_given` where a given class is probably wrong, otherwise a
    class is probably missing. And the estimates.

    Raises
    ------
    ValueError
        If the inputs do not fit or a setting is out of range.

    Notes
    -----
    The flags are those of ``cleanlab.multilabel_classification.filter.
    find_multilabel_issues_per_class`` wherever the latter does not depend on the order of equal
    values: it orders by p − (1 − p), which in single precision is one number for many tiny p, while
    here the smaller p comes first. An item is flagged if any of its classes is. A class that every
    item was given, which cleanlab refuses, has no labels that could be told from wrong ones.

    Examples
    --------
    >>> from labelops.multilabel.labels import label_sets
    >>> probs = np.array([[0.9], [0.8], [0.9], [0.1], [0.2], [0.1]])
    >>> labels = label_sets([[0], [0], [], [], [], [0]], n_classes=1)
    >>> cells, estimates = find_label_issues(probs, labels)
    >>> cells.row.tolist(), cells.is_given.tolist()
    ([2, 5], [False, True])
    >>> estimates.n_missing.tolist(), estimates.n_wrong.tolist()
    ([1], [1])
    """
    hashes = np.arange(len(probs), dtype=np.uint64) if item_hash is None else item_hash
    whole = check_block(Block(probs, labels, hashes), labels.n_classes)
    rules = fit(
        lambda: blocks_of(whole),
        n_classes=labels.n_classes,
        settings=Settings(filter_by, frac_noise, min_examples_per_class),
        engine=engine,
    )
    flagged, first = [], 0
    for block in blocks_of(whole):
        cells = apply(rules, block, engine=engine)
        flagged.append(cells._replace(row=cells.row + first))
        first += len(block.probs)
    return concatenate(flagged), rules.estimates


def blocks_of(whole: Block) -> Iterator[Block]:
    """Cut items into blocks; at least one, perhaps without items."""
    step = max(1, BLOCK_CELLS // max(1, whole.probs.shape[1]))
    for start in range(0, max(1, len(whole.probs)), step):
        rows = slice(start, start + step)
        yield Block(whole.probs[rows], take_rows(whole.labels, rows), whole.hashes[rows])
