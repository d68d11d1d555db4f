"""Mixed items with soft labels: who is mixed with whom, how labels are mixed, and what is learned.

What torchvision's MixUp and CutMix lack: a share of its own for each item, partners at random, of
the same picture or of a like value, a part of the batch only, and labels that are stored. Labels of
cleaned items are soft already: they are mixed as they are, and so are the weights of items.
"""

# N items, K classes, J mixes of each item, B items that look for a partner

from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax

from labelops.distill.losses import (
    Cost,
    check_given,
    check_logits,
    check_positive,
)
from labelops.distill.targets import SparseTarget, combine, take_items

DECOUPLED = 0.1
"""η of decoupled mixup."""

MARGIN = 2.0
"""m of RankMixup for CIFAR; 1 for Tiny-ImageNet."""


class Mix(NamedTuple):
    """Item i becomes λ_i x_i + (1 − λ_i) x_j.

    Attributes
    ----------
    partner : j, int64, shape (N,).
    share : λ in [0, 1], float64, shape (N,); 1 of an item that stays as it is.
    """

    partner: np.ndarray
    share: np.ndarray


def draw_mix(
    n: int,
    rng: np.random.Generator,
    *,
    alpha: float = 1.0,
    fraction: float = 1.0,
    groups: np.ndarray | None = None,
) -> Mix:
    """Draw partners and shares of a batch.

    Parameters
    ----------
    n
        N.
    rng
        What draws.
    alpha
        λ ∼ Beta(α, α), for each item.
    fraction
        Of the items; so many of them are mixed, to the nearest whole number, and the others stay as
        they are (partial mixup).
    groups
        Integers, shape (N,), for partners of the same group only: views of one picture (SelfMix).
        By default any item may be one, itself included.

    Raises
    ------
    ValueError
        If α is not positive, the fraction not in [0, 1], or there is not one group an item.

    References
    ----------
    Zhang et al.: mixup: beyond empirical risk minimization. ICLR 2018. Choi et al., WACV 2023
    (partial mixup, drawn with replacement in its code, where two fifths instead of a tenth stay
    mixed). Shen: FerKD. ICCV 2023 (SelfMix).

    Examples
    --------
    >>> mix = draw_mix(4, np.random.default_rng(0), fraction=0.5, groups=np.array([7, 7, 9, 9]))
    >>> mix.partner.tolist(), int((mix.share < 1).sum())
    ([1, 0, 3, 2], 2)
    """
    check_positive("draw_mix", alpha=alpha)
    if not 0 <= fraction <= 1:
        raise ValueError(f"draw_mix: a fraction in [0, 1] was expected, got {fraction}")
    if groups is not None and np.shape(groups) != (n,):
        raise ValueError(
            f"draw_mix: a group of each of {n} items was expected, got {np.shape(groups)}"
        )
    partner = rng.permutation(n) if groups is None else partners_within(groups, rng)
    share = rng.beta(alpha, alpha, n)
    # Without replacement: so many stay, not fewer.
    share[rng.permutation(n)[round(fraction * n) :]] = 1.0
    return Mix(partner.astype(np.int64), share)


def partners_within(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the next item of the same group, in a random circle; the item itself if it is alone.

    Parameters
    ----------
    groups
        Integers, shape (N,).
    rng
        What draws.

    Returns
    -------
    int64, shape (N,); each item is the partner of one.

    Examples
    --------
    >>> partners_within(np.array([3, 5, 3]), np.random.default_rng(0)).tolist()
    [2, 1, 0]
    """
    order = np.lexsort((rng.random(len(groups)), groups))
    of_group = np.asarray(groups)[order]
    is_first = np.append(True, of_group[1:] != of_group[:-1])[: len(order)]
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
    is_last = np.roll(is_first, -1)
    following = np.where(is_last, order[first], np.roll(order, -1))
    partner = np.empty(len(order), np.int64)
    partner[order] = following
    return partner


def value_shares(values: np.ndarray, rows: np.ndarray, *, bandwidth: float) -> np.ndarray:
    """Return how probably each item is the partner of some, by how near their values are.

    exp(−|y_i − y_j|² / 2σ²) over its sum; the item itself has the largest.

    Parameters
    ----------
    values
        y of all items, shape (N,) or (N, Q).
    rows
        Items that look for a partner, shape (B,).
    bandwidth
        σ, in units of y: towards 0 items are mixed with themselves, towards ∞ with any.

    Returns
    -------
    float64, shape (B, N); rows sum to one. It is B × N numbers: take the rows of a batch.

    Raises
    ------
    ValueError
        If values are not finite, or σ is not positive.

    References
    ----------
    Yao et al.: C-Mixup: improving generalization in regression. NeurIPS 2022, equation 6.

    Examples
    --------
    >>> value_shares(np.array([0.0, 1, 2, 5]), np.array([0]), bandwidth=1.0).round(4).tolist()
    [[0.5741, 0.3482, 0.0777, 0.0]]
    """
    check_positive("value_shares", bandwidth=bandwidth)
    y = np.asarray(values, np.float64)
    if y.ndim not in (1, 2) or not np.isfinite(y).all():
        raise ValueError(
            f"value_shares: finite values of shape (N,) or (N, Q) were expected, got {y.shape}"
        )
    y = y if y.ndim == 2 else y[:, None]
    distance = np.zeros((len(rows), len(y)))
    for column in y.T:
        distance += (column[rows, None] - column[None, :]) ** 2
    # An item is at no distance from itself: the sum is 1 at least.
    near = np.exp(-distance / (2 * bandwidth**2))
    return np.asarray(near / near.sum(axis=1, keepdims=True))


def draw_by_value(
    values: np.ndarray, rows: np.ndarray, rng: np.random.Generator, *, bandwidth: float
) -> np.ndarray:
    """Draw a partner of like value for some items (C-Mixup); int64, shape (B,).

    Parameters
    ----------
    values, rows, bandwidth
        As of `value_shares`.
    rng
        What draws.

    Examples
    --------
    >>> y = np.array([0.0, 10.0, 0.0])
    >>> draw_by_value(y, np.array([1, 1]), np.random.default_rng(0), bandwidth=0.1).tolist()
    [1, 1]
    """
    until = np.cumsum(value_shares(values, rows, bandwidth=bandwidth), axis=1)
    at = (until <= rng.random((len(rows), 1)) * until[:, -1:]).sum(axis=1)
    return np.asarray(np.minimum(at, max(until.shape[1] - 1, 0)), np.int64)


def mix_items(x: np.ndarray, mix: Mix) -> np.ndarray:
    """Return λ_i x_i + (1 − λ_i) x_j: items, dense labels, values, or weights.

    Parameters
    ----------
    x
        Shape (N, …).
    mix
        From `draw_mix`, or made of `draw_by_value` and shares.

    Raises
    ------
    ValueError
        If there is not one partner and share an item, or a share is not in [0, 1].

    Examples
    --------
    >>> mix_items(np.array([[1.0, 0.0], [0.0, 1.0]]), Mix(np.array([1, 0]), np.array([0.75, 1])))
    array([[0.75, 0.25],
           [0.  , 1.  ]])
    """
    share = _shares(mix, len(x)).reshape(-1, *(1 for _ in np.shape(x)[1:]))
    return np.asarray(share * x + (1 - share) * np.asarray(x)[mix.partner])


def _shares(mix: Mix, n: int) -> np.ndarray:
    share = np.asarray(mix.share, np.float64)
    if share.shape != (n,) or np.shape(mix.partner) != (n,):
        raise ValueError(
            f"mixing: a partner and a share of each of {n} items were expected, got "
            f"{np.shape(mix.partner)} and {share.shape}"
        )
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError("mixing: shares in [0, 1] were expected, got others")
    return share


def mix_targets(target: SparseTarget, mix: Mix) -> SparseTarget:
    """Return stored labels mixed as their items are, without K numbers of any.

    The cross-entropy of the mixed label is exactly the mixed cross-entropy. The teacher has not
    seen the mixed item; it is its two answers that are mixed.

    Parameters
    ----------
    target
        From `labelops.distill.targets`.
    mix
        As of `mix_items`.

    Examples
    --------
    >>> target = SparseTarget(np.array([[0], [2]]), np.ones((2, 1)), np.zeros(2), 3)
    >>> mixed = mix_targets(target, Mix(np.array([1, 0]), np.array([0.75, 1.0])))
    >>> mixed.ids.tolist(), mixed.excess.tolist()
    ([[0, 2], [0, 2]], [[0.75, 0.25], [0.0, 1.0]])
    """
    share = _shares(mix, len(target.ids))
    return combine([target, take_items(target, mix.partner)], np.stack([share, 1 - share]))


class Cut(NamedTuple):
    """Of picture i a box is replaced by that of picture j.

    Attributes
    ----------
    box : first row, first column, and the ones after the last; int64, shape (N, 4).
    mix : partners, and what part of each picture stays: labels are mixed by these shares.
    """

    box: np.ndarray
    mix: Mix


def draw_boxes(mix: Mix, rng: np.random.Generator, *, height: int, width: int) -> Cut:
    """Draw a box of each picture, at most 1 − λ of it, around any cell, cut off at the border.

    Parameters
    ----------
    mix
        From `draw_mix`.
    rng
        What draws.
    height, width
        H and W of all pictures, at least 1.

    Returns
    -------
    Cut with λ = 1 − box / (H W), which is exact.

    References
    ----------
    Yun et al.: CutMix: regularization strategy to train strong classifiers with localizable
    features. ICCV 2019, equation 2; whole cells as torchvision takes them.

    Examples
    --------
    >>> mix = Mix(np.array([1, 0]), np.array([0.75, 1.0]))
    >>> cut = draw_boxes(mix, np.random.default_rng(1), height=8, width=8)
    >>> cut.box.tolist(), cut.mix.share.tolist()
    ([[1, 2, 5, 6], [6, 7, 6, 7]], [0.75, 1.0])
    """
    if min(height, width) < 1:
        raise ValueError(f"draw_boxes: pictures with cells were expected, got {height} × {width}")
    share = _shares(mix, len(mix.partner))
    sides = np.array([height, width])
    half = (0.5 * np.sqrt(1 - share)[:, None] * sides).astype(np.int64)
    centre = rng.integers(0, sides, (len(share), 2))
    first, after = np.maximum(centre - half, 0), np.minimum(centre + half, sides)
    area = (after - first).prod(axis=1)
    return Cut(np.hstack([first, after]), mix._replace(share=1 - area / (height * width)))


def cut_items(pictures: np.ndarray, cut: Cut) -> np.ndarray:
    """Return pictures with the box of their partner.

    Parameters
    ----------
    pictures
        Shape (N, …, H, W).
    cut
        From `draw_boxes`.

    Examples
    --------
    >>> pictures = np.stack([np.zeros((2, 2)), np.ones((2, 2))])
    >>> mix = Mix(np.array([1, 0]), np.array([0.75, 1.0]))
    >>> cut_items(pictures, Cut(np.array([[0, 1, 1, 2], [0, 0, 0, 0]]), mix)).tolist()
    [[[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]
    """
    x = np.asarray(pictures)
    _shares(cut.mix, len(x))
    row, column = (np.arange(n) for n in x.shape[-2:])
    top, left, bottom, right = (edge[:, None] for edge in cut.box.T)
    in_rows, in_columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    inside = in_rows[:, :, None] & in_columns[:, None, :]
    inside = inside.reshape(len(x), *(1 for _ in x.shape[1:-2]), *x.shape[-2:])
    return np.where(inside, x[cut.mix.partner], x)


# -- losses of mixed items -------------------------------------------------------------------------


def decoupled(
    logits: np.ndarray,
    one: np.ndarray,
    other: np.ndarray,
    share: np.ndarray,
    *,
    weight: float = DECOUPLED,
    power: float = 1.0,
) -> Cost:
    """Return cross-entropy with a mixed label, and with each of its classes as if alone.

    −λ log s_a − (1 − λ) log s_b − η λ^t log s_a|¬b − η (1 − λ)^t log s_b|¬a, where s_a|¬b is the
    softmax among all classes but b: so that the two need not compete. Where a = b, or nothing is
    mixed (λ = 0 or 1), cross-entropy alone.

    Parameters
    ----------
    logits
        z of the mixed items, shape (N, K).
    one, other
        Classes a and b, shape (N,).
    share
        λ, shape (N,).
    weight, power
        η and t.

    Notes
    -----
    Weights belong to a and b of each item. In the released code they are exchanged in all items if
    the first has a > b and t > 0.

    References
    ----------
    Liu et al.: Harnessing hard mixed samples with decoupled regularizer. NeurIPS 2023, equations 5
    and 6.

    Examples
    --------
    >>> one, other = np.array([0]), np.array([1])
    >>> decoupled(np.array([[2.0, 1, 0]]), one, other, np.array([0.75])).value.round(4).tolist()
    [0.675]
    """
    z = check_logits(logits, "decoupled")
    a, b = (check_given(x, z.shape, "decoupled") for x in (one, other))
    lam = _shares(Mix(b, np.asarray(share)), len(z))
    value, slope = np.zeros(len(z)), np.zeros(z.shape)
    rows = np.arange(len(z))
    is_mixed = (a != b) & (lam > 0) & (lam < 1)
    log_s = log_softmax(z, axis=1)
    for own, rival, part in ((a, b, lam), (b, a, 1 - lam)):
        label = np.arange(z.shape[1]) == own[:, None]
        value -= part * log_s[rows, own]
        slope += part[:, None] * (np.exp(log_s) - label)
        alone = np.where(is_mixed, weight * part**power, 0.0)
        is_rival = (np.arange(z.shape[1]) == rival[:, None]) & is_mixed[:, None]
        log_alone = log_softmax(np.where(is_rival, -np.inf, z), axis=1)
        value -= alone * log_alone[rows, own]
        slope += alone[:, None] * (np.exp(log_alone) - label)
    return Cost(value, slope)


class RankCost(NamedTuple):
    """What a mixed item costs beside the item it was made of; see `ranked`.

    Attributes
    ----------
    value : float64, shape (N,).
    slope : derivative by the logits of the item, shape (N, K).
    mixed_slope : by those of the mixed one, shape (N, K).
    """

    value: np.ndarray
    slope: np.ndarray
    mixed_slope: np.ndarray


def ranked(
    logits: np.ndarray, mixed: np.ndarray, is_other: np.ndarray, *, margin: float = MARGIN
) -> RankCost:
    """Return what is paid where a mixed item is not less certain than the item (RankMixup's MRL).

    max(0, max_k z̃_ik − max_k z_ik + m) where the labels differ, else 0; its mean over all items,
    times 0.1, is added to the cross-entropy of the items as they are.

    Parameters
    ----------
    logits
        z of the items as they are, shape (N, K).
    mixed
        z̃ of the mixed ones, shape (N, K).
    is_other
        Whether the label of the partner is another, bool, shape (N,).
    margin
        m.

    Notes
    -----
    Of ties in a maximum the first class has the derivative. The released code multiplies the mean
    over items by the share of those whose labels differ, by broadcasting (N,) against (N, 1).

    References
    ----------
    Noh et al.: RankMixup: ranking-based mixup training for network calibration. ICCV 2023,
    equation 5.

    Examples
    --------
    >>> found = ranked(np.array([[3.0, 0.0]]), np.array([[0.0, 2.0]]), np.array([True]))
    >>> found.value.tolist(), found.slope.tolist(), found.mixed_slope.tolist()
    ([1.0], [[-1.0, 0.0]], [[0.0, 1.0]])
    """
    z, t = check_logits(logits, "ranked"), check_logits(mixed, "ranked")
    differs = np.asarray(is_other)
    if t.shape != z.shape or differs.shape != (len(z),) or differs.dtype != bool:
        raise ValueError(
            f"ranked: mixed logits of shape {z.shape} and truth values of shape {z.shape[:1]} were "
            f"expected, got {t.shape} and {differs.dtype} of shape {differs.shape}"
        )
    gap = np.where(differs, t.max(axis=1) - z.max(axis=1) + margin, 0.0)
    value = np.maximum(gap, 0.0)
    pays = (value > 0)[:, None].astype(np.float64)
    down, up = (np.arange(z.shape[1]) == x.argmax(axis=1)[:, None] for x in (z, t))
    return RankCost(value, -pays * down, pays * up)


def rank_agreement(logits: np.ndarray, mixed: np.ndarray, certainty: np.ndarray) -> np.ndarray:
    """Return how far certainties of mixed items are from falling as they should (M-NDCG).

    1 − min(DCG / IDCG, IDCG / DCG): DCG = Σ_r c_r / log₂(r + 2) with c_0 = max softmax z, then
    those of the mixes from the least mixed on; IDCG the same with 1 and the largest parts of the
    mixed labels.

    Parameters
    ----------
    logits
        z of the items as they are, shape (N, K).
    mixed
        Those of J mixes of each, shape (J, N, K).
    certainty
        The largest part of each mixed label, shape (J, N); ties in the order of the mixes.

    Returns
    -------
    float64 in [0, 1), shape (N,).

    References
    ----------
    Noh et al., ICCV 2023, equations 7 to 9.

    Examples
    --------
    >>> z, mixed = np.log([[0.8, 0.2]]), np.log([[[0.5, 0.5]]])
    >>> rank_agreement(z, mixed, np.array([[0.75]])).round(4).tolist()
    [0.2428]
    """
    z = check_logits(logits, "rank_agreement")
    t, lam = np.asarray(mixed, np.float64), np.asarray(certainty, np.float64)
    if t.ndim != 3 or t.shape[1:] != z.shape or lam.shape != t.shape[:2]:
        raise ValueError(
            f"rank_agreement: mixed logits of shape (J, {len(z)}, {z.shape[1]}) and certainties of "
            f"shape (J, {len(z)}) were expected, got {t.shape} and {lam.shape}"
        )
    if not ((lam > 0) & (lam <= 1)).all():
        raise ValueError("rank_agreement: certainties in (0, 1] were expected, got others")
    order = np.argsort(-lam, axis=0, kind="stable")
    sure = np.take_along_axis(softmax(t, axis=2).max(axis=2), order, axis=0)
    ideal = np.take_along_axis(lam, order, axis=0)
    discount = 1 / np.log2(np.arange(len(t) + 1) + 2)[:, None]
    first = softmax(z, axis=1).max(axis=1)
    dcg = discount[0] * first + (discount[1:] * sure).sum(axis=0)
    idcg = discount[0] + (discount[1:] * ideal).sum(axis=0)
    return np.asarray(1 - np.minimum(dcg / idcg, idcg / dcg))
