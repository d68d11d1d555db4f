"""What every cell costs where items may have several classes and present ones were left unsaid.

A cell is yes, no or unknown (`labelops.multilabel.labels`). All losses agree on what a known no
costs; they differ in what they make of the unknown ones: a no, a weak no, nothing, a guess, or, if
a rule recalls it (`labelops.partial.recall`), a yes.

One signature: logits and states, shape (n, K) each, and settings; the cost of every cell, float64,
shape (n, K). Its mean is the loss of a batch, also where parts of it belong to the whole batch.
"""

# n items, K classes

import numpy as np
from scipy.special import expit

from labelops.multilabel.labels import NO, UNKNOWN, YES

SMOOTHING = 0.1
ASYMMETRIC = (1.0, 4.0, 0.05)
"""Focus on yes, focus on no, and the margin of no."""

HILL = 1.5
FOCUS, MARGIN = 2.0, 1.0
"""Of Hill and SPLC: exponent, and what is taken from the logits of a given yes."""

ENTROPY, PSEUDO = 0.1, 0.2
"""Weights of the entropy of unknown cells and of their pseudo-labels: the middle of those of the
paper, 0.01 … 0.2 and 0.02 … 0.9."""

MULTI_FOCAL = (0.0, 3.0, 0.05)
TAIL_POWER, RECALL_TAIL_POWER = 1 / 3, 1 / 6
CORRECTOR = 0.2
"""Weight of COMIC's corrector beside its multi-focal loss."""

TEMPERATURE, BALANCE = 1.0, 0.55
"""α and γ of PU-MLC for COCO."""

LEAST_TEMPERATURE = 0.05
"""A class of which all logits are alike would be divided by zero."""


def _softplus(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.logaddexp(0.0, x))


def _checked(logits: np.ndarray, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    z, states = np.asarray(logits, np.float64), np.asarray(states)
    if z.ndim != 2 or z.shape != states.shape:
        raise ValueError(
            f"cell losses: logits and states of one shape (n, K) were expected, got {z.shape} and "
            f"{states.shape}"
        )
    if not np.isin(states, (YES, NO, UNKNOWN)).all():
        raise ValueError(
            f"cell losses: states 1 (yes), 0 (no) and −1 (unknown) were expected, got "
            f"{np.unique(states)[:5].tolist()}"
        )
    if not np.isfinite(z).all():
        row, column = np.argwhere(~np.isfinite(z))[0]
        raise ValueError(
            f"cell losses: finite logits were expected; item {row}, class {column} has "
            f"{z[row, column]}"
        )
    return z, states


def assume_negative(logits: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return binary cross-entropy with every unknown cell a no.

    −log p of a yes, −log (1 − p) of others, p = σ(z).

    Raises
    ------
    ValueError
        Here and below: if shapes differ, a state is none of 1, 0 and −1, or a logit is not finite.

    Examples
    --------
    >>> assume_negative(np.array([[0.0, 2.0]]), np.array([[1, -1]])).round(3).tolist()
    [[0.693, 2.127]]
    """
    z, states = _checked(logits, states)
    return _softplus(np.where(states == YES, -z, z))


def weak_assume_negative(logits: np.ndarray, states: np.ndarray) -> np.ndarray:
    """Return `assume_negative` with unknown cells weighed by 1 / (K − 1).

    References
    ----------
    Cole et al.: Multi-label learning from single positive labels. CVPR 2021, equation 6.

    Examples
    --------
    >>> z, states = np.zeros((1, 3)), np.array([[1, -1, 0]])
    >>> weak_assume_negative(z, states).round(3).tolist()
    [[0.693, 0.347, 0.693]]
    """
    weight = 1 / max(np.shape(states)[1] - 1, 1)
    cost = assume_negative(logits, states)
    return np.asarray(np.where(np.asarray(states) == UNKNOWN, weight, 1.0) * cost)


def smoothed(logits: np.ndarray, states: np.ndarray, *, smoothing: float = SMOOTHING) -> np.ndarray:
    """Return `assume_negative` with targets 1 − s and s for 1 and 0.

    References
    ----------
    Cole et al. 2021, section 4.2.

    Examples
    --------
    >>> smoothed(np.array([[2.0, 2.0]]), np.array([[1, -1]])).round(3).tolist()
    [[0.327, 1.927]]
    """
    z, states = _checked(logits, states)
    target = np.where(states == YES, 1 - smoothing, smoothing)
    return np.asarray(_softplus(z) - target * z)


def asymmetric(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    focus_yes: float = ASYMMETRIC[0],
    focus_no: float | np.ndarray = ASYMMETRIC[1],
    margin: float = ASYMMETRIC[2],
) -> np.ndarray:
    """Return the asymmetric loss (ASL); unknown cells are a no.

    −(1 − p)^γ⁺ log p of a yes, −p_m^γ⁻ log (1 − p_m) of others, p_m = max(p − m, 0).

    Parameters
    ----------
    logits, states
        Shape (n, K).
    focus_yes, focus_no, margin
        γ⁺, γ⁻ (also one a class) and m.

    References
    ----------
    Ridnik et al.: Asymmetric loss for multi-label classification. ICCV 2021, equations 4 to 6.

    Examples
    --------
    >>> asymmetric(np.array([[0.0, 0.0, -3.0]]), np.array([[1, -1, 0]])).round(4).tolist()
    [[0.3466, 0.0245, 0.0]]
    """
    z, states = _checked(logits, states)
    p = expit(z)
    shifted = np.maximum(p - margin, 0.0)
    no = -(shifted**focus_no) * np.log1p(-shifted)
    if margin == 0:
        no = p**focus_no * _softplus(z)
    return np.asarray(np.where(states == YES, expit(-z) ** focus_yes * _softplus(-z), no))


def hill(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    height: float = HILL,
    margin: float = MARGIN,
    focus: float = FOCUS,
) -> np.ndarray:
    """Return the Hill loss; unknown cells are a no that costs less once p is high.

    −(1 − p′)^γ log p′ with p′ = σ(z − m) of a yes, (λ − p) p² of others.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    height, margin, focus
        λ, m, γ.

    References
    ----------
    Zhang et al.: Simple and robust loss design for multi-label learning with missing labels.
    arXiv 2112.07368, equations 6 and 7.

    Examples
    --------
    >>> hill(np.array([[1.0, 0.0, 9.0]]), np.array([[1, -1, -1]])).round(4).tolist()
    [[0.1733, 0.25, 0.5]]
    """
    z, states = _checked(logits, states)
    p = expit(z)
    return np.where(states == YES, _focal(z - margin, focus), (height - p) * p * p)


def _focal(z: np.ndarray, focus: float) -> np.ndarray:
    """Return −(1 − p)^γ log p."""
    return np.asarray(expit(-z) ** focus * _softplus(-z))


def splc(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    recalled: np.ndarray | None = None,
    margin: float = MARGIN,
    focus: float = FOCUS,
) -> np.ndarray:
    """Return the focal margin loss with recalled cells a yes (self-paced loss correction).

    −(1 − p′)^γ log p′ of a yes, with p′ = σ(z − m) where it is given and σ(z) where it is recalled;
    −p^γ log (1 − p) of others.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    recalled
        By `recall_mask` with a fixed threshold, from the second epoch on; bool, shape (n, K).
    margin, focus
        m, γ.

    References
    ----------
    Zhang et al., arXiv 2112.07368, section 3.3; that a recalled yes has no margin is from its code.

    Examples
    --------
    >>> z, states = np.array([[1.0, 1.0]]), np.array([[1, -1]])
    >>> splc(z, states, recalled=np.array([[False, True]])).round(4).tolist()
    [[0.1733, 0.0227]]
    """
    z, states = _checked(logits, states)
    is_yes = states == YES
    other = _focal(-z, focus)
    if recalled is not None:
        other = np.where(recalled, _focal(z, focus), other)
    return np.where(is_yes, _focal(z - margin, focus), other)


def rejected(
    logits: np.ndarray, states: np.ndarray, *, recalled: np.ndarray | None = None
) -> np.ndarray:
    """Return `assume_negative` with recalled cells left out (LL-R).

    Parameters
    ----------
    logits, states
        Shape (n, K).
    recalled
        By `recall_mask`, of the largest losses; bool, shape (n, K).

    References
    ----------
    Kim et al.: Large loss matters in weakly supervised multi-label classification. CVPR 2022,
    equation 5.

    Examples
    --------
    >>> z, states = np.zeros((1, 2)), np.array([[1, -1]])
    >>> rejected(z, states, recalled=np.array([[False, True]])).round(3).tolist()
    [[0.693, 0.0]]
    """
    cost = assume_negative(logits, states)
    return cost if recalled is None else np.where(recalled, 0.0, cost)


def corrected(
    logits: np.ndarray, states: np.ndarray, *, recalled: np.ndarray | None = None
) -> np.ndarray:
    """Return `assume_negative` with recalled cells a yes (LL-Ct; LL-Cp where they remain so).

    Parameters
    ----------
    logits, states, recalled
        As of `rejected`.

    References
    ----------
    Kim et al. 2022, equations 6 and 7.

    Examples
    --------
    >>> z, states = np.ones((1, 2)), np.array([[0, -1]])
    >>> corrected(z, states, recalled=np.array([[False, True]])).round(3).tolist()
    [[1.313, 0.313]]
    """
    z, states = _checked(logits, states)
    is_yes = states == YES
    return _softplus(np.where(is_yes if recalled is None else is_yes | recalled, -z, z))


def entropy_maximising(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    pseudo: np.ndarray | None = None,
    entropy: float = ENTROPY,
    weight: float = PSEUDO,
) -> np.ndarray:
    """Return the EM loss: unknown cells cost −α H(p), so that they are left undecided.

    −log p of a yes, −log (1 − p) of a no, −α H(p) of an unknown one, H the entropy of Bernoulli(p);
    with a pseudo-label p̂, β (−p̂ log p − (1 − p̂) log (1 − p)) instead.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    pseudo
        p̂ in [0, 1], NaN where there is none, shape (n, K); see `least_probable`.
    entropy, weight
        α and β.

    References
    ----------
    Zhou et al.: Acknowledging the unknown for multi-label learning with single positive labels.
    ECCV 2022, equations 4 and 9.

    Examples
    --------
    >>> z, states = np.zeros((1, 3)), np.array([[1, -1, -1]])
    >>> entropy_maximising(z, states, pseudo=np.array([[np.nan, np.nan, 0.1]])).round(3).tolist()
    [[0.693, -0.069, 0.139]]
    """
    z, states = _checked(logits, states)
    p = expit(z)
    cost = np.where(states == YES, _softplus(-z), _softplus(z))
    unknown = -entropy * (_softplus(z) - z * p)
    if pseudo is not None:
        of_pseudo = weight * (_softplus(z) - np.nan_to_num(pseudo) * z)
        unknown = np.where(np.isnan(pseudo), unknown, of_pseudo)
    return np.where(states == UNKNOWN, unknown, cost)


def least_probable(p: np.ndarray, is_free: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return the n_c free cells of each class with the least p: bool, shape (N, K).

    Those which asymmetric pseudo-labelling takes as about a no, after every epoch of its second
    half some more: their p at that time is their pseudo-label.

    Parameters
    ----------
    p
        Probabilities, shape (N, K).
    is_free
        Unknown and without a pseudo-label yet; bool, shape (N, K).
    n
        Shape (K,). Where fewer are free, all of them; of ties, the first.

    References
    ----------
    Zhou et al. 2022, section 3.3.

    Examples
    --------
    >>> p, free = np.array([[0.3], [0.1], [0.2]]), np.array([[True], [False], [True]])
    >>> least_probable(p, free, np.array([1]))[:, 0].tolist()
    [False, False, True]
    """
    order = np.argsort(np.where(is_free, p, np.inf), axis=0, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(len(p))[:, None], axis=0)
    return np.asarray((rank < n) & is_free)


def expected_positives(logits: np.ndarray, states: np.ndarray, *, expected: float) -> np.ndarray:
    """Return the loss of expected positive regularisation (EPR): unknown cells as a whole.

    −log p of a yes, −log (1 − p) of a no, nothing of an unknown one; and of the batch
    ((mean_i Σ_c p_ic) − κ)² / K².

    Parameters
    ----------
    logits, states
        Shape (n, K).
    expected
        κ: how many classes an item has on average.

    References
    ----------
    Cole et al. 2021, equation 8.

    Examples
    --------
    >>> z, states = np.zeros((1, 2)), np.array([[1, -1]])
    >>> expected_positives(z, states, expected=1.0).round(3).tolist()
    [[0.693, 0.0]]
    """
    z, states = _checked(logits, states)
    cost = np.where(states == UNKNOWN, 0.0, assume_negative(z, states))
    return np.asarray(cost + _excess(expit(z), expected))


def _excess(p: np.ndarray, expected: float) -> float:
    return float(np.square(p.sum() / max(len(p), 1) - expected) / p.shape[1] ** 2)


def role(
    logits: np.ndarray, states: np.ndarray, *, estimates: np.ndarray, expected: float
) -> np.ndarray:
    """Return the loss of a classifier p and of free estimates q of all cells that teach each other.

    ½ [EPR(p) + H(q, p) + EPR(q) + H(p, q)] with H(a, b) = −a log b − (1 − a) log (1 − b); its
    derivative leaves a out.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    estimates
        Logits of q, shape (n, K).
    expected
        κ of `expected_positives`.

    References
    ----------
    Cole et al. 2021, equations 9 to 11 (regularised online label estimation).
    """
    z, states = _checked(logits, states)
    e = np.asarray(estimates, np.float64)
    cross = _softplus(z) - expit(e) * z + _softplus(e) - expit(z) * e
    alone = [expected_positives(x, states, expected=expected) for x in (z, e)]
    return np.asarray((cross + alone[0] + alone[1]) / 2)


def positive_unlabelled(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    temperature: float = TEMPERATURE,
    balance: float = BALANCE,
) -> np.ndarray:
    """Return the variational loss of positive and unlabelled cells (PU-MLC), class by class.

    Of a class c with given positives P_c: m_c^γ log m_c − mean_{i ∈ P_c} log p_ic, with
    p_ic = σ(z_ic / τ_c), τ_c = min(1, α std_i z_ic), m_c = mean_i p_ic over all n items; no
    derivative of τ_c and m_c^γ. A no counts as unknown.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    temperature, balance
        α and γ; α = ∞ and γ = 0 leave the loss of VPU.

    Notes
    -----
    Only with γ = 0 does p / max p estimate the probability to be present: what γ > 0 says has to be
    calibrated. The mean of all cells is the sum over classes of the paper, over K.

    References
    ----------
    Yuan et al.: Positive label is all you need for multi-label classification. ICME 2024. Chen et
    al.: A variational approach for learning from positive and unlabeled data. NeurIPS 2020.

    Examples
    --------
    >>> z = np.array([[2, -1], [0.5, -2], [-1, 1], [-2, -3]])
    >>> states = np.array([[1, -1], [-1, -1], [-1, 1], [-1, -1]])
    >>> round(float(positive_unlabelled(z, states).mean() * 2), 6)
    -0.681588
    """
    z, states = _checked(logits, states)
    tau = np.clip(temperature * z.std(axis=0), LEAST_TEMPERATURE, 1.0) if len(z) else 1.0
    z, is_yes = z / tau, states == YES
    mean = expit(z).sum(axis=0) / max(len(z), 1)
    unlabelled = mean**balance * np.log(mean + 1e-10)
    share = len(z) / np.maximum(is_yes.sum(axis=0), 1)
    return np.asarray(unlabelled + np.where(is_yes, share * _softplus(-z), 0.0))


def mixed(logits: np.ndarray, states: np.ndarray, *, order: np.ndarray, share: float) -> np.ndarray:
    """Return how far a linear model's opinion of mixed items is from the mixture of its opinions.

    Items A (the first half, in another order) and B (the rest): (log (λ t_A + (1 − λ) t_B) −
    log σ(λ z_A + (1 − λ) z_B))² with t = 1 of a yes and σ(z) of others. Logits of a linear model
    are those of the mixed items; of a network they are not, so there it is a variant.

    Parameters
    ----------
    logits, states
        Shape (n, K), n ≥ 2.
    order
        Of the first ⌊n / 2⌋ items.
    share
        λ, drawn from Beta(0.3, 0.3).

    Returns
    -------
    float64, shape (⌊n / 2⌋, K).

    References
    ----------
    Chen et al. 2020, equation 9; as in the code of PU-MLC, of all positives, not in B alone.

    Examples
    --------
    >>> z, states = np.array([[0.0], [9.0]]), np.array([[-1], [1]])
    >>> mixed(z, states, order=np.array([0]), share=1.0).tolist()
    [[0.0]]
    """
    z, states = _checked(logits, states)
    half = len(z) // 2
    target = np.where(states == YES, 1.0, expit(z))
    a, b = order, slice(len(z) - half, None)
    wanted = np.log(share * target[:half][a] + (1 - share) * target[b])
    said = -_softplus(-(share * z[:half][a] + (1 - share) * z[b]))
    return np.asarray(np.square(wanted - said))


def tail_weights(n_yes: np.ndarray, *, power: float = TAIL_POWER) -> np.ndarray:
    """Return COMIC's weight of each class, 1 of the most frequent: (1 − ln(n_c / n_max))^power.

    Parameters
    ----------
    n_yes
        Given positives of each class, shape (K,); a class without any counts as with one.
    power
        1/3, or 1/6 together with recalled cells.

    References
    ----------
    Zhang et al.: Learning in imperfect environment: multi-label classification with long-tailed
    distribution and partial labels. ICCV 2023; exponents from its code.

    Examples
    --------
    >>> tail_weights(np.array([1240, 100, 20, 6])).round(6).tolist()
    [1.0, 1.520849, 1.724348, 1.84995]
    """
    n = np.maximum(np.asarray(n_yes, np.float64), 1.0)
    return np.asarray((1 - np.log(n / n.max())) ** power)


def multi_focal(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    n_yes: np.ndarray,
    recalled: np.ndarray | None = None,
    focus_yes: float = MULTI_FOCAL[0],
    focus_no: float = MULTI_FOCAL[1],
    margin: float = MULTI_FOCAL[2],
    power: float = TAIL_POWER,
) -> np.ndarray:
    """Return COMIC's multi-focal loss: `asymmetric` with w_c more focus on no, times w_c.

    γ⁻_c = γ⁻ + w_c, with w_c of `tail_weights`; recalled cells are a yes.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    n_yes
        Given positives of each class, and those recalled in the epoch so far; shape (K,).
    recalled
        By `recall_mask`, class-aware; bool, shape (n, K).
    focus_yes, focus_no, margin
        γ⁺, γ⁻, m.
    power
        Of `tail_weights`.

    References
    ----------
    Zhang et al., ICCV 2023, equations 4 to 6; constants and the outer weight from its code.

    Examples
    --------
    >>> z, states = np.array([[2, -1, 0.5, -3]]), np.array([[1, -1, -1, 1]])
    >>> multi_focal(z, states, n_yes=np.array([1240, 100, 20, 6])).round(6).tolist()
    [[0.126928, 0.000391, 0.10505, 5.639733]]
    """
    states = np.asarray(states)
    target = states if recalled is None else np.where(recalled, YES, states)
    weight = tail_weights(n_yes, power=power)
    cost = asymmetric(
        logits, target, focus_yes=focus_yes, focus_no=focus_no + weight, margin=margin
    )
    return np.asarray(cost * weight)


def reflected(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    n_yes: np.ndarray,
    recalled: np.ndarray | None = None,
) -> np.ndarray:
    """Return the loss of COMIC's corrector: `multi_focal` with a margin, per yes of the batch.

    The logits of a given yes are lowered by 1, the power of `tail_weights` is 1/6, and all is
    multiplied by n over the number of yes, given or recalled.

    Parameters
    ----------
    logits, states, n_yes, recalled
        As of `multi_focal`.

    References
    ----------
    Zhang et al., ICCV 2023, equation 3; the factor is that of its code, since the number of
    recalled cells alone may be 0.

    Examples
    --------
    >>> z, states = np.array([[1.0, 9.0]]), np.array([[1, -1]])
    >>> recalled = np.array([[False, True]])
    >>> reflected(z, states, n_yes=np.array([2, 2]), recalled=recalled).round(4).tolist()
    [[0.3466, 0.0001]]
    """
    is_yes = np.asarray(states) == YES
    n = int(is_yes.sum()) + (0 if recalled is None else int(recalled.sum()))
    cost = multi_focal(
        np.asarray(logits, np.float64) - MARGIN * is_yes,
        states,
        n_yes=n_yes,
        recalled=recalled,
        power=RECALL_TAIL_POWER,
    )
    return np.asarray(cost * (len(cost) / max(n, 1)))


def comic(
    logits: np.ndarray,
    states: np.ndarray,
    *,
    n_given: np.ndarray,
    n_recalled: np.ndarray | None = None,
    recalled: np.ndarray | None = None,
) -> np.ndarray:
    """Return the loss of COMIC: `multi_focal`, and a fifth of `reflected` once cells are recalled.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    n_given, n_recalled
        Given positives of each class, and those recalled in the epoch so far; shape (K,).
    recalled
        By `recall_mask`, class-aware, from the second epoch on; bool, shape (n, K).

    Notes
    -----
    Without the head-tail balancer of the paper, which did not help (`DECISIONS.md`).

    References
    ----------
    Zhang et al., ICCV 2023; the share of the corrector is that of its code.

    Examples
    --------
    >>> z, states = np.array([[1.0, 9.0]]), np.array([[1, -1]])
    >>> n, recalled = np.array([2, 1]), np.array([[False, True]])
    >>> comic(z, states, n_given=n).round(3).tolist()
    [[0.313, 2.876]]
    >>> both = comic(z, states, n_given=n, n_recalled=np.array([0, 1]), recalled=recalled)
    >>> both.round(3).tolist()
    [[0.383, 2.876]]
    """
    cost = multi_focal(logits, states, n_yes=n_given)
    if recalled is None:
        return cost
    n_yes = n_given if n_recalled is None else n_given + n_recalled
    return cost + CORRECTOR * reflected(logits, states, n_yes=n_yes, recalled=recalled)


def frequency(logits: np.ndarray, states: np.ndarray, *, share: float) -> np.ndarray:
    """Return minus the log-likelihood of what was said, if a share c of what is present was.

    −log c p of a yes, −log (1 − c p) of an unknown cell, −log (1 − p) of a no. With c = 1 it is
    `assume_negative`; with less, an unknown cell costs at most −log (1 − c), however high p is.

    Parameters
    ----------
    logits, states
        Shape (n, K).
    share
        c in (0, 1]: how probably a class that is present was said to be.

    References
    ----------
    Jaskie, Elkan, Spanias: A modified logistic regression for positive and unlabeled learning.
    Asilomar 2019; here with one share for all classes, so that many cells tell of it.

    Examples
    --------
    >>> z, states = np.array([[0.0, 0.0, 9.0]]), np.array([[1, -1, -1]])
    >>> frequency(z, states, share=0.5).round(3).tolist()
    [[1.386, 0.288, 0.693]]
    """
    z, states = _checked(logits, states)
    # 1 − c p = (1 + (1 − c) e^z) / (1 + e^z).
    rest = np.log1p(-share) if share < 1 else -np.inf
    cost = np.where(states == YES, _softplus(-z) - np.log(share), _softplus(z))
    return np.where(states == UNKNOWN, cost - _softplus(z + rest), cost)


def present(logits: np.ndarray, states: np.ndarray, *, share: float) -> np.ndarray:
    """Return how probably each class is present, once it is known what was said.

    1 of a yes, 0 of a no, (1 − c) p / (1 − c p) of an unknown cell. The sum of yes over that of
    all of these is the next guess of c (expectation maximisation of `frequency`).

    Parameters
    ----------
    logits, states, share
        As of `frequency`.

    Examples
    --------
    >>> present(np.zeros((1, 3)), np.array([[1, 0, -1]]), share=0.5).round(3).tolist()
    [[1.0, 0.0, 0.333]]
    """
    z, states = _checked(logits, states)
    p = expit(z)
    unknown = (1 - share) * p / np.maximum(1 - share * p, np.finfo(float).tiny)
    return np.asarray(np.where(states == UNKNOWN, unknown, states == YES))
