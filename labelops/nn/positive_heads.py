"""Linear models and small networks that learn from positive and unlabelled items, out of fold.

Which epoch is heard is chosen by how well the networks rank labelled above unlabelled items that
they have not seen (proxy AUC): nobody has to know a negative. See `labelops.partial.risks`.
"""

# N items, D features, H hidden units, F folds, E epochs

from typing import Literal, NamedTuple, get_args

import numpy as np
from scipy.special import expit

from labelops.nn.positive_losses import (
    Aligned,
    Ignoring,
    NonNegative,
    TowardsPositives,
    Unbiased,
    Variational,
)
from labelops.nn.shallow import Between, Networks, Objective, say, train_networks
from labelops.partial.choose import proxy_auc
from labelops.partial.prior import best_bin
from labelops.partial.risks import NEGATIVE, POSITIVE, Setting, check_states
from labelops.partial.scores import ScoreCounts, count_scores

Method = Literal["upu", "nnpu", "dist-pu", "vpu", "cvir", "tedn"]

METHODS: tuple[Method, ...] = get_args(Method)

NEEDS_PRIOR: tuple[Method, ...] = ("upu", "nnpu", "dist-pu", "cvir")

HIDDEN, EPOCHS = 128, 40

RATE_LINEAR, RATE = 3e-2, 3e-3
"""Learning rates at the beginning: linear models have further to go."""

ENTROPY = 0.004
"""Weight of the entropy of Dist-PU, as published."""

BETWEEN = 0.1
"""Weight of VPU's regulariser, of 0.0001 to 0.3 that were published."""

WARM_UP = 5
"""Of this many parts of the epochs CVIR warms up for one."""


class PositiveHeads(NamedTuple):
    """Networks of all folds that tell positives.

    Attributes
    ----------
    networks : of the epoch that was chosen.
    epoch : which, from 0.
    prior : share of positives among the unlabelled items that was given, or that TEDⁿ found; NaN
        where none is needed.
    proxy : AUC of labelled against unlabelled items at that epoch; NaN without either.
    """

    networks: Networks
    epoch: int
    prior: float
    proxy: float


def fit_positives(
    features: np.ndarray,
    state: np.ndarray,
    fold: np.ndarray,
    *,
    n_folds: int,
    method: Method,
    prior: float | None = None,
    setting: Setting = "one-sample",
    hidden: int = HIDDEN,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> PositiveHeads:
    """Fit one network a fold to the items outside it, all side by side.

    Parameters
    ----------
    features
        Finite, in an order that has nothing to do with what they are, shape (N, D).
    state
        1 (labelled positive), 0 (known negative) or −1 (unlabelled), shape (N,).
    fold
        Shape (N,).
    n_folds
        F.
    method
        "upu", "nnpu", "dist-pu", "vpu", "cvir", or "tedn", which estimates the prior itself.
    prior
        Share of positives among the unlabelled items; not for "vpu" and "tedn".
    setting
        Whether the unlabelled items lack the labelled ones ("one-sample"), or are a draw of the
        population on their own ("case-control").
    hidden
        H; 0 for a linear model.
    epochs
        E.
    seed
        Of the first weights, of the order of the items, and of VPU's pairs.

    Raises
    ------
    ValueError
        If a state or a setting is none, or a prior is missing or no share.

    Notes
    -----
    E epochs of O(N D H F); then each is asked for what it says of its own items, O(E N D H). The
    choice of the epoch, and the prior of TEDⁿ, see all labels; one number each.

    References
    ----------
    Wang et al.: Accessible, realistic, and fair evaluation of positive-unlabeled learning
    algorithms. ICLR 2026 (proxy AUC).

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x, fold = rng.normal(size=(600, 2)).astype(np.float32), np.arange(600) % 2
    >>> state = np.where((x[:, 0] > 0) & (rng.random(600) < 0.5), 1, -1)
    >>> heads = fit_positives(x, state, fold, n_folds=2, method="upu", prior=1 / 3, hidden=0)
    >>> says = positive_scores(heads, x, fold)
    >>> bool(((says > 0.5) == (x[:, 0] > 0)).mean() > 0.9)
    True
    """
    state = check_states(state)
    objective, between = _objective(
        state,
        fold,
        n_folds=n_folds,
        method=method,
        prior=prior,
        setting=setting,
        epochs=epochs,
        seed=seed,
    )
    networks = train_networks(
        features,
        fold,
        objective,
        n_outputs=1,
        n_folds=n_folds,
        seed=seed,
        hidden=hidden,
        epochs=epochs,
        rate=RATE if hidden else RATE_LINEAR,
        between=between,
    )
    counts = [
        _counts(say(networks.after(slice(e, e + 1)), features, fold)[:, 0], state)
        for e in range(epochs)
    ]
    proxies = [proxy_auc(of_epoch) for of_epoch in counts]
    chosen = int(np.argmax(np.nan_to_num(proxies)))
    if method == "tedn":
        prior = best_bin(counts[chosen]) if np.isfinite(proxies[chosen]) else 0.0
    return PositiveHeads(
        networks.after(slice(chosen, chosen + 1)),
        chosen,
        float("nan") if prior is None else prior,
        proxies[chosen],
    )


def _objective(
    state: np.ndarray,
    fold: np.ndarray,
    *,
    n_folds: int,
    method: Method,
    prior: float | None,
    setting: Setting,
    epochs: int,
    seed: int,
) -> tuple[Objective, Between | None]:
    if method not in METHODS:
        raise ValueError(f"the method must be one of {', '.join(METHODS)}; got {method!r}")
    if (prior is None) == (method in NEEDS_PRIOR):
        wants = "needs a" if prior is None else "takes no"
        raise ValueError(f"fit_positives: {method} {wants} prior")
    if method == "vpu":
        between = TowardsPositives(
            state, fold, n_folds=n_folds, setting=setting, weight=BETWEEN, seed=seed
        )
        return Variational(state, fold, n_folds=n_folds, setting=setting), between
    if method in {"cvir", "tedn"} or prior is None:
        warm_up = max(1, epochs // WARM_UP)
        return Ignoring(state, fold, n_folds=n_folds, prior=prior, warm_up=warm_up), None
    if method == "dist-pu":
        aligned = Aligned(
            state, fold, n_folds=n_folds, prior=prior, setting=setting, entropy=ENTROPY
        )
        return aligned, None
    if method == "nnpu":
        return NonNegative(state, fold, n_folds=n_folds, prior=prior, setting=setting), None
    return Unbiased(state, fold, n_folds=n_folds, prior=prior, setting=setting), None


def _counts(logits: np.ndarray, state: np.ndarray) -> ScoreCounts:
    known = state != NEGATIVE
    return count_scores(expit(logits[known]), state[known] == POSITIVE)


def positive_scores(heads: PositiveHeads, features: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Return what the networks of other folds say, as σ of a logit; float64, shape (N,).

    Higher is likelier to be positive; how likely is said by `labelops.partial.posteriors`. A row is
    the same whatever rows are beside it.

    Parameters
    ----------
    heads
        From `fit_positives`.
    features, fold
        Of the items, shapes (N, D) and (N,).
    """
    return np.asarray(expit(say(heads.networks, features, fold)[:, 0]))
