"""Losses of `labelops.partial.cell_losses` as tensors, each with its derivative written out.

One pass gives the cost of every cell and its derivative by the logit, so that a loss of many terms
takes hardly longer than cross-entropy. Tensors have the shape (F, n, K); those of states alone,
(n, K). Settings are the constants of the definitions.

What holds of a cell is 1 or 0 in floating point, and cases are told apart by arithmetic: with truth
values every such step would take four times as long.
"""

# F folds, n items, K classes

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from labelops.partial import cell_losses as of


class Cost(NamedTuple):
    """What every cell costs, and the derivative by its logit; shape (F, n, K) each."""

    value: Tensor
    slope: Tensor


class Cells(NamedTuple):
    """States of the cells of a batch, float32, shape (n, K) each.

    Attributes
    ----------
    yes, unknown : 1 where a cell is, otherwise 0.
    """

    yes: Tensor
    unknown: Tensor


def cells_of(states: Tensor, dtype: torch.dtype) -> Cells:
    """Return the cells of states 1 (yes), 0 (no) and −1 (unknown), shape (n, K)."""
    signed = states.to(dtype)
    return Cells(signed.clamp(min=0), signed.clamp_(max=0).neg_())


def beyond(x: Tensor, least: Tensor | float) -> Tensor:
    """Return 1 where x is more than `least`, otherwise 0; in the type of x."""
    return torch.gt(x, least, out=torch.empty_like(x))


def cross_entropy(z: Tensor, target: Tensor) -> Cost:
    """Return −t log p − (1 − t) log (1 − p), for any t in [0, 1]."""
    return Cost(functional.softplus(z) - target * z, torch.sigmoid(z) - target)


def weighed(cost: Cost, weight: Tensor) -> Cost:
    """Return costs times a weight that has no derivative."""
    return Cost(cost.value * weight, cost.slope * weight)


def assume_negative(z: Tensor, cells: Cells) -> Cost:
    """See the definition."""
    return cross_entropy(z, cells.yes)


def weak_assume_negative(z: Tensor, cells: Cells) -> Cost:
    """See the definition."""
    weight = 1 - cells.unknown * (1 - 1 / max(z.shape[-1] - 1, 1))
    return weighed(cross_entropy(z, cells.yes), weight)


def smoothed(z: Tensor, cells: Cells) -> Cost:
    """See the definition."""
    return cross_entropy(z, of.SMOOTHING + (1 - 2 * of.SMOOTHING) * cells.yes)


def asymmetric(
    z: Tensor,
    cells: Cells,
    focus_no: Tensor | float = of.ASYMMETRIC[1],
    *,
    focus_yes: float = of.ASYMMETRIC[0],
) -> Cost:
    """See the definition; the powers, which focus, have no derivative."""
    p = torch.sigmoid(z)
    q = 1 - p
    shifted = (p - of.ASYMMETRIC[2]).clamp_(min=0)
    rest = 1 - shifted
    if isinstance(focus_no, Tensor):
        # The power itself, with an exponent for each class, takes half again as long.
        weight = torch.exp2(focus_no * torch.log2(shifted))
    else:
        weight = shifted.square().square_() if focus_no == 4 else shifted**focus_no
    one = torch.ones((), dtype=z.dtype)
    weight = torch.lerp(weight, one if focus_yes == 0 else q**focus_yes, cells.yes)
    # One logarithm for both: of p, or of 1 − p_m.
    of_state = torch.lerp(rest, p, cells.yes).clamp_(min=torch.finfo(z.dtype).tiny)
    slope = torch.lerp(p.div_(rest), -one, cells.yes)
    return Cost(of_state.log_().mul_(weight).neg_(), slope.mul_(q).mul_(weight))


def _where(yes: Tensor, first: Cost, second: Cost) -> Cost:
    """Return the first cost where yes is 1, the second where it is 0."""
    return Cost(
        torch.lerp(second.value, first.value, yes), torch.lerp(second.slope, first.slope, yes)
    )


def hill(z: Tensor, cells: Cells) -> Cost:
    """See the definition."""
    p = torch.sigmoid(z)
    square = p * p
    no = Cost((of.HILL - p) * square, square * (1 - p) * (2 * of.HILL - 3 * p))
    return _where(cells.yes, _focal(z - of.MARGIN), no)


def _focal(z: Tensor) -> Cost:
    """Return −q² log p, with q = 1 − p."""
    q, cost = torch.sigmoid(-z), functional.softplus(-z)
    square = q * q
    return Cost(square * cost, -square * (of.FOCUS * (1 - q) * cost + q))


def splc(z: Tensor, cells: Cells, recalled: Tensor | None = None) -> Cost:
    """See the definition."""
    # −p² log q is −q² log p of the negative logit; a recalled yes has no margin.
    is_yes = cells.yes.expand_as(z) if recalled is None else cells.yes + recalled
    sign = 2 * is_yes - 1
    found = _focal(sign * (z - of.MARGIN * cells.yes))
    return Cost(found.value, sign * found.slope)


def rejected(z: Tensor, cells: Cells, recalled: Tensor | None = None) -> Cost:
    """See the definition."""
    cost = cross_entropy(z, cells.yes)
    return cost if recalled is None else weighed(cost, 1 - recalled)


def corrected(z: Tensor, cells: Cells, recalled: Tensor | None = None) -> Cost:
    """See the definition."""
    return cross_entropy(z, cells.yes if recalled is None else cells.yes + recalled)


def entropy_maximising(z: Tensor, cells: Cells, pseudo: Tensor | None = None) -> Cost:
    """See the definition; pseudo-labels are NaN where there are none, shape (F, n, K)."""
    p, softplus = torch.sigmoid(z), functional.softplus(z)
    known = Cost(softplus - cells.yes * z, p - cells.yes)
    unknown = Cost((z * p - softplus) * of.ENTROPY, z * p * (1 - p) * of.ENTROPY)
    if pseudo is not None:
        has = torch.eq(pseudo, pseudo, out=torch.empty_like(pseudo))
        target = pseudo.nan_to_num()
        taught = Cost((softplus - target * z) * of.PSEUDO, (p - target) * of.PSEUDO)
        unknown = _where(has, taught, unknown)
    return _where(cells.unknown.expand_as(z), unknown, known)


def expected_positives(z: Tensor, cells: Cells, outside: Tensor, expected: Tensor) -> Cost:
    """See the definition; κ of shape (F, 1, 1).

    Over the items of a fold's network, `outside` 1 or 0 of shape (F, n, 1). What the batch costs
    lies on its cells evenly.
    """
    p = torch.sigmoid(z)
    n = outside.sum(dim=1, keepdim=True).clamp_(min=1)
    k = z.shape[-1]
    excess = (p * outside).sum(dim=(1, 2), keepdim=True) / n - expected
    known = 1 - cells.unknown
    value = (functional.softplus(z) - cells.yes * z) * known + (excess / k) ** 2
    return Cost(value, (p - cells.yes) * known + excess * (2 / k) * p * (1 - p))


def role(
    z: Tensor, cells: Cells, outside: Tensor, expected: Tensor, estimates: Tensor
) -> tuple[Cost, Cost]:
    """See the definition; costs of the logits and of the estimates, which have one shape."""
    p, q = torch.sigmoid(z), torch.sigmoid(estimates)
    both = []
    for own, other in ((z, q), (estimates, p)):
        alone = expected_positives(own, cells, outside, expected)
        cross = cross_entropy(own, other)
        value, slope = ((a + b) / 2 for a, b in zip(alone, cross, strict=True))
        both.append(Cost(value, slope))
    return both[0], both[1]


def positive_unlabelled(
    z: Tensor, cells: Cells, outside: Tensor, *, balance: float = of.BALANCE
) -> Cost:
    """See the definition; over the items of a fold's network, `outside` of shape (F, n, 1)."""
    n = outside.sum(dim=1, keepdim=True).clamp_(min=1)
    mean = (z * outside).sum(dim=1, keepdim=True) / n
    variance = ((z - mean).square_() * outside).sum(dim=1, keepdim=True) / n
    tau = (of.TEMPERATURE * variance.sqrt_()).clamp_(of.LEAST_TEMPERATURE, 1.0)
    z = z / tau
    p = torch.sigmoid(z)
    q = 1 - p
    mean = (p * outside).sum(dim=1, keepdim=True) / n + 1e-10
    weight = mean**balance
    yes = cells.yes * outside
    share = yes * (n / yes.sum(dim=1, keepdim=True).clamp_(min=1))
    value = weight * mean.log() + share * functional.softplus(-z)
    return Cost(value, q * (weight / mean * p - share) / tau)


def mixed(z: Tensor, cells: Cells, outside: Tensor, order: Tensor, *, share: float) -> Cost:
    """See the definition; derived through targets and opinions, by the logits of all n items.

    Value of shape (F, ⌊n / 2⌋, K), of pairs that a fold's network is trained on both items of.
    """
    half = z.shape[1] // 2
    last = slice(z.shape[1] - half, None)
    target = torch.lerp(torch.sigmoid(z), torch.ones((), dtype=z.dtype), cells.yes)
    # The derivative of p, and nothing where a yes is given: its target is 1, whatever is said.
    moves = torch.addcmul(target, target, target, value=-1)

    def mixture(x: Tensor) -> Tensor:
        return torch.lerp(x[:, last], x.index_select(1, order), share)

    logits = mixture(z)
    targets = mixture(target).clamp_(min=torch.finfo(z.dtype).tiny)
    both = outside.index_select(1, order) * outside[:, last]
    off = (targets.log() + functional.softplus(-logits)) * both
    twice = 2 * off
    further, said = twice / targets, twice * torch.sigmoid(-logits)
    slope = torch.zeros_like(z)
    slope.index_copy_(1, order, (further * moves.index_select(1, order)).sub_(said).mul_(share))
    slope[:, last] = (further * moves[:, last]).sub_(said).mul_(1 - share)
    return Cost(off.square(), slope)


def tail_weights(n_yes: Tensor, *, power: float = of.TAIL_POWER) -> Tensor:
    """See the definition; of each fold, shape (F, 1, K)."""
    n = n_yes.clamp(min=1)
    return (1 - torch.log(n / n.amax(dim=-1, keepdim=True))) ** power


def multi_focal(z: Tensor, cells: Cells, n_yes: Tensor) -> Cost:
    """See the definition; given positives of shape (F, 1, K)."""
    weight = tail_weights(n_yes)
    focus_yes, focus_no, _ = of.MULTI_FOCAL
    return weighed(asymmetric(z, cells, focus_no + weight, focus_yes=focus_yes), weight)


def lowered(z: Tensor, cells: Cells) -> Tensor:
    """Return logits with the margin taken from those of a given yes."""
    return torch.sub(z, cells.yes, alpha=of.MARGIN)


def comic(z: Tensor, cells: Cells, outside: Tensor, n_yes: Tensor, recalled: Tensor) -> Cost:
    """See the definition; of logits that are `lowered`, by which cells are recalled, too.

    Yes are counted over the items of a fold's network.
    """
    yes = cells.yes + recalled
    n = (yes * outside).sum(dim=(1, 2), keepdim=True).clamp_(min=1)
    weight = tail_weights(n_yes, power=of.RECALL_TAIL_POWER)
    focus_yes, focus_no, _ = of.MULTI_FOCAL
    cost = asymmetric(z, cells._replace(yes=yes), focus_no + weight, focus_yes=focus_yes)
    return weighed(cost, weight * (outside.sum(dim=1, keepdim=True) / n))


def frequency(z: Tensor, cells: Cells, share: Tensor) -> tuple[Cost, Tensor]:
    """See the definition; and how probably each class is present, by a share of shape (F, 1, 1)."""
    p = torch.sigmoid(z)
    left = 1 - share * p
    known = 1 - cells.unknown
    value = (functional.softplus(z) - cells.yes * (z + share.log())) * known
    value -= left.log() * cells.unknown
    unknown = cells.unknown * p * (1 - p) / left
    slope = (p - cells.yes) * known + share * unknown
    return Cost(value, slope), cells.yes + cells.unknown * p * (1 - share) / left
