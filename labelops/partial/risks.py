"""Losses of learning from positive and unlabelled items, by their definitions.

Items have a state: labelled positive, known negative, or unlabelled. In *one sample* all of them
are one draw of the population, of which some positives are labelled: the unlabelled items lack
these. As *case–control* the unlabelled items are a draw of the population on their own, and the
positives another one; negatives known there are no draw of anything, and take no part.

The prior is the share of positives among the *unlabelled* items throughout. The weights of
`risk_weights` put what is labelled back where it belongs, so a loss is the same in both settings.

`labelops.nn.positive_losses` has the same for training.
"""

# N items

from typing import Literal, NamedTuple

import numpy as np
from scipy.special import expit, xlogy

POSITIVE, NEGATIVE, UNLABELLED = 1, 0, -1

Setting = Literal["one-sample", "case-control"]

Margin = Literal["logistic", "sigmoid"]
"""Loss of a logit z as positive, and as negative that of −z: log(1 + exp(−z)), or σ(−z)."""

SETTINGS: tuple[Setting, ...] = ("one-sample", "case-control")


class Shares(NamedTuple):
    """What the population consists of.

    Attributes
    ----------
    positive : share of positives in it, labelled or not.
    unlabelled, negative : shares of unlabelled and of known negative items; 1 and 0 as
        case–control. The rest is labelled.
    """

    positive: float
    unlabelled: float
    negative: float


class RiskWeights(NamedTuple):
    """The risk as a sum over items, Σ_i a_i ℓ(z_i) + b_i ℓ(−z_i); float64, shape (N,) each.

    Attributes
    ----------
    as_positive : a, of labelled positives only.
    as_negative : b: of unlabelled items, which also hold positives; negative of labelled positives,
        which take these out again; and of known negatives.
    """

    as_positive: np.ndarray
    as_negative: np.ndarray


def check_states(state: np.ndarray) -> np.ndarray:
    """Return states as int8.

    Raises
    ------
    ValueError
        If one is not 1 (labelled positive), 0 (known negative) or −1 (unlabelled).
    """
    states = np.asarray(state)
    is_one = np.isin(states, (POSITIVE, NEGATIVE, UNLABELLED))
    if not is_one.all():
        raise ValueError(
            "states must be 1 (labelled positive), 0 (known negative) or -1 (unlabelled); item "
            f"{int(np.argmin(is_one))} has {states[~is_one][0]}"
        )
    return states.astype(np.int8)


def check_prior(prior: float) -> float:
    """Return a share of positives.

    Raises
    ------
    ValueError
        If it is not in [0, 1].
    """
    if not 0 <= prior <= 1:
        raise ValueError(f"the prior must be in [0, 1], got {prior:g}")
    return prior


def population(state: np.ndarray, *, prior: float, setting: Setting = "one-sample") -> Shares:
    """Return what the population consists of.

    Parameters
    ----------
    state
        1, 0 or −1, shape (N,).
    prior
        Share of positives among the unlabelled items, in [0, 1].
    setting
        Whether the unlabelled items lack the labelled ones ("one-sample").

    Raises
    ------
    ValueError
        If the prior is no share, or there is no such setting.

    Examples
    --------
    >>> population(np.array([1, 1, -1, -1, -1, -1, -1, 0]), prior=0.4)
    Shares(positive=0.5, unlabelled=0.625, negative=0.125)
    >>> population(np.array([1, 1, -1, -1, -1, -1, -1, 0]), prior=0.4, setting="case-control")
    Shares(positive=0.4, unlabelled=1.0, negative=0.0)
    """
    check_prior(prior)
    if setting not in SETTINGS:
        raise ValueError(f"the setting must be one of {', '.join(SETTINGS)}; got {setting!r}")
    if setting == "case-control":
        return Shares(prior, 1.0, 0.0)
    n = max(len(state), 1)
    labelled, unlabelled, negative = (
        float(np.count_nonzero(state == s)) / n for s in (POSITIVE, UNLABELLED, NEGATIVE)
    )
    return Shares(labelled + prior * unlabelled, unlabelled, negative)


def risk_weights(
    state: np.ndarray, *, prior: float, setting: Setting = "one-sample"
) -> RiskWeights:
    """Return the weights that make a weighted sum of losses an unbiased risk.

    With π the share of positives, υ and ν those of unlabelled and known negative items, and α the
    prior: R = π E_P ℓ(z) + υ (E_U ℓ(−z) − α E_P ℓ(−z)) + ν E_N ℓ(−z), E the mean over a kind of
    items.

    Notes
    -----
    Unbiased if the labelled positives are a random draw of all. Known negatives may be chosen in
    any way: what they say is taken off nothing else.

    References
    ----------
    du Plessis, Niu, Sugiyama: Convex formulation for learning from positive and unlabeled data.
    ICML 2015 (case–control). The positives put back into the unlabelled term: E over all items,
    ρ E_P + υ E_U + ν E_N with ρ the share that is labelled, less π E_P, is the above.

    Examples
    --------
    >>> weights = risk_weights(np.array([1, -1, -1]), prior=0.5)
    >>> weights.as_positive.round(3).tolist(), weights.as_negative.round(3).tolist()
    ([0.667, 0.0, 0.0], [-0.333, 0.333, 0.333])
    """
    state = check_states(state)
    shares = population(state, prior=prior, setting=setting)
    is_positive, is_unlabelled, is_negative = (state == s for s in (POSITIVE, UNLABELLED, NEGATIVE))
    n_p, n_u, n_n = (
        max(int(is_kind.sum()), 1) for is_kind in (is_positive, is_unlabelled, is_negative)
    )
    as_negative = is_unlabelled * (shares.unlabelled / n_u)
    as_negative += is_negative * (shares.negative / n_n)
    as_negative -= is_positive * (shares.unlabelled * prior / n_p)
    return RiskWeights(is_positive * (shares.positive / n_p), as_negative)


def margin_loss(logits: np.ndarray, margin: Margin) -> np.ndarray:
    """Return the loss of logits as positives.

    Examples
    --------
    >>> margin_loss(np.array([0.0, 5.0]), "sigmoid").round(3).tolist()
    [0.5, 0.007]
    """
    return np.asarray(np.logaddexp(0, -logits) if margin == "logistic" else expit(-logits))


def upu(
    logits: np.ndarray,
    state: np.ndarray,
    *,
    prior: float,
    setting: Setting = "one-sample",
    margin: Margin = "logistic",
) -> float:
    """Return the unbiased risk; see `risk_weights`.

    Parameters
    ----------
    logits
        Of being positive, shape (N,).
    state
        1, 0 or −1, shape (N,).
    prior
        Share of positives among the unlabelled items.
    setting, margin
        See the module.

    Notes
    -----
    With the logistic loss what labelled positives have is (π − υ α) ℓ(z) − υ α z on average: convex
    in z, and without a lower bound for a model that can tell them from all others.

    Examples
    --------
    >>> round(upu(np.array([2.0, 1.0, -3.0]), np.array([1, -1, -1]), prior=0.5), 3)
    -0.17
    """
    a, b = risk_weights(state, prior=prior, setting=setting)
    return float(a @ margin_loss(logits, margin) + b @ margin_loss(-logits, margin))


def nnpu(
    logits: np.ndarray,
    state: np.ndarray,
    *,
    prior: float,
    setting: Setting = "one-sample",
    margin: Margin = "logistic",
) -> float:
    """Return the risk with its part of unlabelled negatives, which cannot be negative, at least 0.

    π E_P ℓ(z) + max(0, υ (E_U ℓ(−z) − α E_P ℓ(−z))) + ν E_N ℓ(−z); parameters as of `upu`.

    Notes
    -----
    Published with the sigmoid loss, which is bounded. The logistic loss ranks better on two real
    tables (DECISIONS.md), and what it says is calibrated afterwards.

    References
    ----------
    Kiryo, Niu, du Plessis, Sugiyama: Positive-unlabeled learning with non-negative risk estimator.
    NeurIPS 2017, equation 6.

    Examples
    --------
    >>> z, state = np.array([4.0, -9.0]), np.array([1, -1])
    >>> [round(risk(z, state, prior=0.5, margin="sigmoid"), 3) for risk in (upu, nnpu)]
    [-0.232, 0.013]
    """
    state = check_states(state)
    a, b = risk_weights(state, prior=prior, setting=setting)
    negative = b * margin_loss(-logits, margin)
    known = state == NEGATIVE
    hidden = max(0.0, float(negative[~known].sum()))
    return float(a @ margin_loss(logits, margin)) + hidden + float(negative[known].sum())


def dist_pu(
    logits: np.ndarray,
    state: np.ndarray,
    *,
    prior: float,
    setting: Setting = "one-sample",
    entropy: float = 0.0,
) -> float:
    """Return how far mean predictions are from what they should be.

    With p = σ(z): (π + υ α) |E_P p − 1| + υ |E_U p − α| + ν E_N p + μ E_U H(p), where μ is
    `entropy` and H the entropy in nats: predictions should be sure, too. Parameters as of `upu`.

    Notes
    -----
    As case–control 2 α |E_P p − 1| + |E_U p − α|, as published. In one sample the mean over the
    unlabelled items is compared with their own share, not with that of the population.

    References
    ----------
    Zhao, Xu, Jiang, Wen, Huang: Dist-PU: Positive-unlabeled learning from a label distribution
    perspective. CVPR 2022, equations 5 and 9.

    Examples
    --------
    >>> round(dist_pu(np.array([50.0, 50.0, -50.0]), np.array([1, -1, -1]), prior=0.5), 6)
    0.0
    """
    state, p = check_states(state), expit(logits)
    shares = population(state, prior=prior, setting=setting)
    of_positive, of_unlabelled, of_negative = (
        float(p[state == s].mean()) if (state == s).any() else wanted
        for s, wanted in ((POSITIVE, 1.0), (UNLABELLED, prior), (NEGATIVE, 0.0))
    )
    unsure = -xlogy(p, p) - xlogy(1 - p, 1 - p)
    is_unlabelled = state == UNLABELLED
    return (
        (shares.positive + shares.unlabelled * prior) * abs(of_positive - 1)
        + shares.unlabelled * abs(of_unlabelled - prior)
        + shares.negative * of_negative
        + entropy * (float(unsure[is_unlabelled].mean()) if is_unlabelled.any() else 0.0)
    )


def vpu(logits: np.ndarray, state: np.ndarray, *, setting: Setting = "one-sample") -> float:
    """Return log E Φ − E_P log Φ with Φ = σ(z); E over all items, as case–control the unlabelled.

    Needs no prior: Φ is least wrong where it is proportional to the probability of being positive.
    What E goes over is the population, so in one sample labelled items are part of it.

    References
    ----------
    Chen et al.: A variational approach for learning from positive and unlabeled data. NeurIPS 2020,
    equation 6.

    Examples
    --------
    >>> z, state = np.array([2.0, 2.0, -9.0, -9.0]), np.array([1, -1, -1, -1])
    >>> round(vpu(z, state), 3)
    -0.693
    """
    state, log_phi = check_states(state), -np.logaddexp(0, -np.asarray(logits, np.float64))
    of_all = log_phi[state == UNLABELLED] if setting == "case-control" else log_phi
    of_positive = log_phi[state == POSITIVE]
    total = float(np.log(np.exp(of_all).mean())) if len(of_all) else 0.0
    return total - (float(of_positive.mean()) if len(of_positive) else 0.0)


def vpu_between(logits: np.ndarray, share: np.ndarray, mixed: np.ndarray) -> float:
    """Return the regulariser of VPU: how far log Φ is from linear towards labelled positives.

    E (log(γ Φ(x) + 1 − γ) − log Φ(γ x + (1 − γ) x′))² with x′ a labelled positive.

    Parameters
    ----------
    logits, share, mixed
        Of items x, γ, and logits of the points between, shape (M,) each.

    References
    ----------
    Chen et al. 2020, equation 8; γ ~ Beta(0.3, 0.3).

    Examples
    --------
    >>> round(vpu_between(np.zeros(1), np.array([0.5]), np.array([np.log(3)])), 6)
    0.0
    """
    wanted = np.log(share * expit(logits) + 1 - share)
    return float(np.square(wanted + np.logaddexp(0, -mixed)).mean()) if len(mixed) else 0.0


def kept_unlabelled(logits: np.ndarray, state: np.ndarray, *, prior: float) -> np.ndarray:
    """Return which unlabelled items CVIR keeps: all but the ⌊α n⌋ of highest logits; shape (N,).

    Of equal ones those that come first go first.

    Examples
    --------
    >>> kept_unlabelled(np.array([9.0, 3.0, 1.0]), np.array([1, -1, -1]), prior=0.5).tolist()
    [False, False, True]
    """
    kept = check_states(state) == UNLABELLED
    rows = np.flatnonzero(kept)
    order = np.argsort(-np.asarray(logits)[rows], kind="stable")
    kept[rows[order[: int(check_prior(prior) * len(rows))]]] = False
    return np.asarray(kept)


def cvir_weights(state: np.ndarray, kept: np.ndarray) -> RiskWeights:
    """Return the weights of CVIR: labelled positives against the kept items and known negatives.

    Half of the weight each; what is left of the unlabelled items has none. The loss is logistic.

    Parameters
    ----------
    state
        1, 0 or −1, shape (N,).
    kept
        From `kept_unlabelled`; all unlabelled ones to begin with.

    References
    ----------
    Garg, Wu, Smola, Balakrishnan, Lipton: Mixture proportion estimation and PU learning: a modern
    approach. NeurIPS 2021, algorithm 2.

    Examples
    --------
    >>> state = np.array([1, -1, -1])
    >>> cvir_weights(state, np.array([False, False, True])).as_negative.tolist()
    [0.0, 0.0, 0.5]
    """
    both = state == POSITIVE, kept | (state == NEGATIVE)
    return RiskWeights(*(part * (0.5 / max(int(part.sum()), 1)) for part in both))
