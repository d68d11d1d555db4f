"""The opinion of gradient-boosted trees: one model a fold, fitted to the items outside it.

scikit-learn's histogram trees, kept as plain arrays: nothing that is loaded can run code.
"""

# N items, D features, K classes, F folds, T trees, M nodes

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Self

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from labelops.multilabel.labels import UNKNOWN, YES

N_ROUNDS = 60

MAX_LEAVES, MAX_LEAVES_OF_MANY, MANY_CLASSES = 31, 15, 10
"""Where there are many classes, each round grows a tree of each, and they may be smaller."""

MAX_CELLS = 1 << 25
"""Items × features that trees are fitted to stay below it: 256 MiB."""

WORTHWHILE_CELLS = 4096
"""Features × classes up to which trees are worth their time, unless they are asked for."""


class Trees(NamedTuple):
    """Models of all folds.

    Attributes
    ----------
    feature : which one a node asks for, −1 in leaves; int32, shape (M,).
    threshold : up to which it goes left, float64, shape (M,).
    left, right : nodes below, int32, shape (M,).
    value : what a leaf adds to the score of its class, float64, shape (M,).
    root, tree_class, tree_fold : first node of a tree, whose class and fold it is for, int32,
        shape (T,); trees of a fold stand together, those of a class in the order of their rounds.
    baseline : scores before any tree, float64, shape (F, K); −inf for a class that is not there.
        Scores are log-probabilities but for a constant; of sets of classes, log-odds.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    root: np.ndarray
    tree_class: np.ndarray
    tree_fold: np.ndarray
    baseline: np.ndarray

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return everything as plain arrays."""
        return self._asdict()

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return the trees that `arrays` gave."""
        return cls(*(arrays[name] for name in cls._fields))


def n_items(n_features: int, n_states: int = 1) -> int:
    """Return how many items trees are fitted to at most, with so many numbers of each.

    Examples
    --------
    >>> n_items(54), n_items(512)
    (621378, 65536)
    """
    return max(1, MAX_CELLS // max(n_features, n_states, 1))


def fit_trees(
    features: np.ndarray,
    given: np.ndarray,
    fold: np.ndarray,
    *,
    n_classes: int,
    n_folds: int,
    n_threads: int = 1,
) -> Trees:
    """Fit trees for every fold to the items outside it.

    Parameters
    ----------
    features
        Finite, shape (N, D).
    given
        Class ids, shape (N,); of sets of classes 1 (yes), 0 (no) or −1 (unknown), shape (N, K).
    fold
        Shape (N,).
    n_classes, n_folds
        K, F.
    n_threads
        Folds fitted at a time. Does not change the answer.

    References
    ----------
    Friedman: Greedy function approximation: a gradient boosting machine. Annals of Statistics
    29(5), 2001. Ke et al.: LightGBM. NeurIPS 2017 (histograms).

    Examples
    --------
    >>> from labelops.fast.trees import predict_trees
    >>> x = np.arange(80.0)[:, None]
    >>> trees = fit_trees(x, x[:, 0] > 39, np.arange(80) % 2, n_classes=2, n_folds=2)
    >>> predict_trees(trees, np.array([[3.0], [70.0]]), np.array([0, 0])).round(2).tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    exact = features.astype(np.float64)

    def of_fold(f: int) -> _Fold:
        outside = fold != f
        # One thread each: sums of gradients by several depend on how many there are.
        with threadpool_limits(limits=1):
            fit = _fit_fold if given.ndim == 1 else _fit_sets
            return fit(exact[outside], given[outside], n_classes)

    with ThreadPoolExecutor(min(n_threads, n_folds)) as pool:
        return _joined(list(pool.map(of_fold, range(n_folds))))


class _Fold(NamedTuple):
    nodes: list[np.ndarray]
    classes: list[int]
    baseline: np.ndarray


def _fit_fold(features: np.ndarray, given: np.ndarray, n_classes: int) -> _Fold:
    baseline, given = np.full(n_classes, -np.inf), given.astype(np.int64)
    classes = np.unique(given)
    if len(classes) < 2:
        baseline[classes] = 0.0
        return _Fold([], [], baseline)
    start, nodes = _grown(features, given, many=len(classes) > MANY_CLASSES)
    if len(classes) == 2:
        # One score, of the second class against the first.
        baseline[classes] = 0.0, start[0]
        return _Fold(nodes, [int(classes[1])] * len(nodes), baseline)
    baseline[classes] = start
    return _Fold(nodes, [int(c) for c in classes] * (len(nodes) // len(classes)), baseline)


def _grown(
    features: np.ndarray, given: np.ndarray, *, many: bool
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return scores to begin with and the nodes of all trees, round by round."""
    model = HistGradientBoostingClassifier(
        max_iter=N_ROUNDS,
        max_leaf_nodes=MAX_LEAVES_OF_MANY if many else MAX_LEAVES,
        early_stopping=False,
        random_state=0,
    ).fit(features, given)
    start = np.asarray(model._baseline_prediction).ravel()
    return start, [tree.nodes for trees in model._predictors for tree in trees]


def _fit_sets(features: np.ndarray, states: np.ndarray, n_classes: int) -> _Fold:
    """Fit a model of each class to the items of which it is known."""
    nodes, classes, baseline = list[np.ndarray](), list[int](), np.zeros(n_classes)
    for k in range(n_classes):
        known = np.flatnonzero(states[:, k] != UNKNOWN)
        is_there = states[known, k] == YES
        n_there = int(is_there.sum())
        if n_there in (0, len(known)):
            baseline[k] = np.log(n_there + 0.5) - np.log(len(known) - n_there + 0.5)
            continue
        start, grown = _grown(features[known], is_there, many=n_classes > MANY_CLASSES)
        baseline[k] = start[0]
        nodes += grown
        classes += [k] * len(grown)
    return _Fold(nodes, classes, baseline)


def _joined(folds: list[_Fold]) -> Trees:
    trees = [nodes for fold in folds for nodes in fold.nodes]
    sizes = np.array([len(nodes) for nodes in trees], np.int64)
    root = np.cumsum(sizes) - sizes
    shift = np.repeat(root, sizes)

    def all_of(name: str) -> np.ndarray:
        return np.concatenate([np.zeros(0), *(nodes[name] for nodes in trees)])

    is_leaf = all_of("is_leaf") > 0
    return Trees(
        feature=np.where(is_leaf, -1, all_of("feature_idx")).astype(np.int32),
        threshold=all_of("num_threshold").astype(np.float64),
        left=(all_of("left") + shift).astype(np.int32),
        right=(all_of("right") + shift).astype(np.int32),
        value=np.where(is_leaf, all_of("value"), 0.0),
        root=root.astype(np.int32),
        tree_class=np.array([c for fold in folds for c in fold.classes], np.int32),
        tree_fold=np.repeat(np.arange(len(folds)), [len(f.nodes) for f in folds]).astype(np.int32),
        baseline=np.stack([fold.baseline for fold in folds]),
    )
