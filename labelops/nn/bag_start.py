"""What features say of items of two or more classes before neighbours and networks.

It is the regression on totals (`labelops.nn.bag_regression`), of more than two classes each against
the rest. Fitted to all bags, or to as many as time allows; once more without the bags that are held
out, and without each of some folds of them, so that every bag can be judged by a model that has not
seen its count.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax, softmax

from labelops.nn.bag_regression import BagModel, bag_log_odds, fit_bag_model, refit_bag_model
from labelops.nn.bags import BagTraining, hold_out, rows_of_bags
from labelops.ragged import owners

# N items, M of them in bags, B bags, K classes

PRIOR_ITEMS, PRIOR_BAGS = 20_000, 24
"""How strong the prior is and how wide the kernel is, is decided on so many items, in no fewer
bags: that takes a hundred fits, the coefficients themselves one."""

FOLDS = 5
"""Bags are judged by models that were fitted to four fifths of them."""


@dataclass(frozen=True)
class StartModel:
    """Logits of items from the regression on totals.

    Attributes
    ----------
    logits : by the model of all bags, log-probabilities up to a constant, float64, shape (N, K).
    held_logits : by that without the held-out bags, shape (N, K).
    judging : probabilities by a model without the item's own bag, shape (M, K).
    held_out : bags, int64, ascending.
    n_fitted : bags that the model was fitted to.
    log_evidence : of their counts, the sum over classes where there are more than two.
    left : nats that another step would have gained, the most of all classes; see `BagModel`.
    """

    logits: np.ndarray
    held_logits: np.ndarray
    judging: np.ndarray
    held_out: np.ndarray
    n_fitted: int
    log_evidence: float
    left: float


def fit_start(
    features: np.ndarray,
    start: np.ndarray,
    counts: np.ndarray,
    *,
    most_items: int,
    n_fourier: int,
    seed: int,
) -> StartModel:
    """Fit the regression on totals: one for two classes, each class against the rest for more.

    Parameters
    ----------
    features, n_fourier, seed
        As for `labelops.nn.bag_regression.fit_bag_model`.
    start, counts
        Bags of the first M items, and their counts of classes, shape (B, K).
    most_items
        About how many items to fit to at most, in bags drawn at random.

    Notes
    -----
    Folds are fitted with the prior and the Fourier features of the whole, so a bag's count has had
    its say in two or three numbers that all bags share, and in no other.
    """
    n_bags, n_classes = counts.shape
    held = hold_out(n_bags, share=BagTraining().held_out, seed=seed)
    chosen = _some_bags(np.diff(start), most_items, 8, seed)
    deciding = _some_bags(np.diff(start), min(PRIOR_ITEMS, most_items), PRIOR_BAGS, seed)
    fold = _folds(n_bags, seed)
    looked_at = [1] if n_classes == 2 else list(range(n_classes))
    ends = start[-1]
    plain = np.empty((len(features), len(looked_at)))
    held_logits, judging = np.empty_like(plain), np.empty((ends, len(looked_at)))
    evidence = left = 0.0
    bag_of_item = owners(start)
    for column, k in enumerate(looked_at):
        problem = _Problem(features, start, counts[:, k])
        model = problem.fit(deciding, n_fourier=n_fourier, seed=seed)
        if len(deciding) < len(chosen):
            model = problem.refit(model, chosen)
        evidence += model.log_evidence
        left = max(left, model.left)
        plain[:, column] = problem.log_odds(model)
        without = np.setdiff1d(chosen, held)
        held_logits[:, column] = (
            problem.log_odds(problem.refit(model, without)) if len(without) else 0.0
        )
        # Bags that were not drawn have never been seen.
        judging[:, column] = plain[:ends, column]
        for f in np.unique(fold[chosen]):
            rest, inside = chosen[fold[chosen] != f], chosen[fold[chosen] == f]
            rows = np.isin(bag_of_item, inside)
            if len(rest):
                judging[rows, column] = problem.log_odds(problem.refit(model, rest), rows)
            else:
                judging[rows, column] = plain[:ends][rows, column]
    return StartModel(
        as_logits(plain),
        as_logits(held_logits),
        softmax(as_logits(judging), axis=1),
        held,
        len(chosen),
        evidence,
        left,
    )


def as_logits(log_odds: np.ndarray) -> np.ndarray:
    """Return log-probabilities from log-odds of the second class, or of each against the rest.

    Of more than two classes each is believed by itself, log σ(q_k), and they share what there is.
    Log-odds have shape (N, 1) for two classes, or (N, K).

    Examples
    --------
    >>> as_logits(np.array([[0.0]])).round(4).tolist()
    [[-0.6931, -0.6931]]
    """
    q = np.concatenate([-log_odds, log_odds], axis=1) if log_odds.shape[1] == 1 else log_odds
    return np.asarray(log_softmax(-np.logaddexp(0.0, -q), axis=1))


class _Problem:
    """One class's counts."""

    def __init__(self, features: np.ndarray, start: np.ndarray, positives: np.ndarray) -> None:
        self.features, self.start, self.positives = features, start, positives

    def _rows(self, bags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        items, cut = rows_of_bags(bags, self.start)
        return np.asarray(self.features[items]), cut

    def fit(self, bags: np.ndarray, *, n_fourier: int, seed: int) -> BagModel:
        x, cut = self._rows(bags)
        return fit_bag_model(x, cut, self.positives[bags], n_fourier=n_fourier, seed=seed)

    def refit(self, model: BagModel, bags: np.ndarray) -> BagModel:
        x, cut = self._rows(bags)
        return refit_bag_model(model, x, cut, self.positives[bags])

    def log_odds(self, model: BagModel, rows: np.ndarray | None = None) -> np.ndarray:
        if rows is None:
            return bag_log_odds(model, self.features)
        return bag_log_odds(model, np.asarray(self.features[: len(rows)][rows]))


def _some_bags(sizes: np.ndarray, most_items: int, least_bags: int, seed: int) -> np.ndarray:
    """Return all bags, or some with about so many items, and no fewer than so many, ascending."""
    if sizes.sum() <= most_items:
        return np.arange(len(sizes))
    order = np.random.Generator(np.random.Philox([seed, 1])).permutation(len(sizes))
    n = int(np.searchsorted(np.cumsum(sizes[order]), most_items, side="right"))
    return np.sort(order[: max(n, least_bags)])


def _folds(n_bags: int, seed: int) -> np.ndarray:
    order = np.random.Generator(np.random.Philox([seed, 2])).permutation(n_bags)
    fold = np.empty(n_bags, np.int64)
    fold[order] = np.arange(n_bags) % FOLDS
    return fold
