"""Posteriors of the items of bags, with gradients: what `labelops.proportions.cardinality` defines.

The gradient of the log evidence is belief − σ(log-odds). That of the beliefs is the covariance of
the labels given the count; it is never formed: being symmetric, its product with a vector is how
the beliefs change along that vector, and the recursion over items carries that change along.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from labelops.proportions.cardinality import REACH, check_bags
from labelops.proportions.counts import Counts

# M bags of a block, n items of the largest, S counts

CELLS = 1 << 24
"""Items × counts that are kept at a time: 128 MiB, twice in the backward pass."""

STEP_CELLS = {"cpu": 1 << 14, "cuda": 1 << 20}
"""Bags × counts of a step: what a core's cache holds, and what keeps a GPU busy."""

BISECTIONS = 50


class Posterior(NamedTuple):
    """What the bags' counts say of their items.

    Attributes
    ----------
    beliefs : P(y_i = 1 | log-odds, count), shape (N,).
    log_evidence : log E f(Σ y) under independent items, shape (B,); for an exact count log
        P(Σ y = k), the log-likelihood of the bag.
    """

    beliefs: Tensor
    log_evidence: Tensor


class _Block(NamedTuple):
    """Bags of about one size, as a rectangle; all but `mask` constant per bag, shape (M, 1).

    Attributes
    ----------
    items : which item, N where there is none, shape (M, n).
    mask : whether there is one, shape (M, n).
    sign : −1 where negatives are counted, because there can be fewer of them.
    low, high, centre, strength : of what is counted.
    """

    items: Tensor
    mask: Tensor
    sign: Tensor
    low: Tensor
    high: Tensor
    centre: Tensor
    strength: Tensor


def marginals(log_odds: Tensor, start: np.ndarray, counts: Counts) -> Posterior:
    """Return the exact posterior of every item given its bag's count, differentiable once.

    Parameters
    ----------
    log_odds
        q, finite, ordered by bag, shape (N,), on any device.
    start, counts
        As for `labelops.proportions.cardinality.marginals`.

    Returns
    -------
    Posterior, of the type and on the device of `log_odds`; computed in double precision.

    Raises
    ------
    ValueError
        If log-odds are not finite, arrays do not fit together, or a count is impossible.

    Notes
    -----
    O(n · min(high, n − low)) time, in n steps that are each done for many bags at once; the
    backward pass about four times that. −log_evidence of an exact count is the likelihood of the
    bag, as a loss; to train on the beliefs as soft labels, detach them.

    Examples
    --------
    >>> from labelops.proportions.counts import hard_counts
    >>> q = torch.tensor([0.5, -1.0, 2.0, 0.3], dtype=torch.float64, requires_grad=True)
    >>> found = marginals(q, np.array([0, 4]), hard_counts(np.array([2])))
    >>> found.log_evidence.sum().backward()
    >>> bool(torch.allclose(q.grad, found.beliefs - q.sigmoid()))
    True
    """
    if not bool(torch.isfinite(log_odds).all()):
        raise ValueError("marginals: log-odds must be finite; clip them, or remove certain items")
    _, start = check_bags(np.zeros(len(log_odds)), start, counts)
    # One more item stands in where a bag has none.
    q = functional.pad(log_odds.to(torch.float64), (0, 1))
    beliefs, items, evidence, order = [q[:0]], [np.empty(0, np.int64)], [q[:0]], []
    for bags in _blocks(start, counts, STEP_CELLS.get(q.device.type, 1 << 20)):
        block = _block(bags, start, counts, q.device)
        tilted = block.sign * q[block.items]
        b, log_evidence = _Count.apply(tilted, block)
        b = torch.where(block.sign > 0, b, 1 - b)
        beliefs.append(b[block.mask])
        items.append(block.items[block.mask].cpu().numpy())
        evidence.append(log_evidence)
        order.append(bags)
    place = torch.from_numpy(np.argsort(np.concatenate(items))).to(q.device)
    of_bag = np.argsort(np.concatenate(order)) if order else np.empty(0, np.int64)
    log_evidence = torch.cat(evidence)[torch.from_numpy(of_bag).to(q.device)]
    return Posterior(torch.cat(beliefs)[place].to(log_odds), log_evidence.to(log_odds))


def _most(start: np.ndarray, counts: Counts) -> np.ndarray:
    sizes = np.diff(start)
    return np.asarray(np.minimum(np.minimum(counts.high, sizes), sizes - counts.low))


def _blocks(start: np.ndarray, counts: Counts, step_cells: int) -> list[np.ndarray]:
    """Cut bags, smallest first, into blocks that do not differ by more than twice in size."""
    sizes, most = np.diff(start), _most(start, counts)
    order = np.lexsort([most, sizes])
    cut, first, width = [], 0, 0
    for at, b in enumerate(order):
        width = max(width, int(most[b]) + 1)
        step = (at + 1 - first) * width
        is_full = step > step_cells or step * int(sizes[b] + 1) > CELLS
        if at > first and (is_full or sizes[b] > 2 * sizes[order[first]] + 8):
            cut.append(at)
            first, width = at, int(most[b]) + 1
    return [part for part in np.split(order, cut) if len(part)]


def _block(bags: np.ndarray, start: np.ndarray, counts: Counts, device: torch.device) -> _Block:
    size = np.diff(start)[bags]
    at = np.arange(size.max(initial=1))
    mask = at < size[:, None]
    low, high = counts.low[bags].clip(min=0), np.minimum(counts.high[bags], size)
    is_flipped = size - low < high
    least, most = np.where(is_flipped, [size - high, size - low], [low, high])
    centre = np.where(is_flipped, size - counts.centre[bags], counts.centre[bags])

    def column(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float64)).to(device)[:, None]

    return _Block(
        torch.from_numpy(np.where(mask, start[:-1][bags][:, None] + at, start[-1])).to(device),
        torch.from_numpy(mask).to(device),
        column(np.where(is_flipped, -1, 1)),
        column(least),
        column(most),
        column(centre),
        column(counts.strength[bags]),
    )


def _tilt(q: Tensor, block: _Block) -> Tensor:
    """Return θ, shape (M, 1), as `labelops.proportions.cardinality.tilt` does."""
    inside = torch.where(block.mask, q, 0.0)
    n = block.mask.sum(1, keepdim=True).clamp(min=1)
    a = -inside.amax(1, keepdim=True) - torch.log(n) - 20
    b = -inside.amin(1, keepdim=True) + torch.log(n) + 20
    for _ in range(BISECTIONS):
        theta = (a + b) / 2
        best = torch.where(theta > 0, block.low, block.high)
        peak = block.centre - theta / (2 * block.strength.clamp(min=1e-300))
        peak = torch.maximum(torch.minimum(peak, block.high), block.low)
        best = torch.where(block.strength > 0, peak, best)
        expected = torch.where(block.mask, torch.sigmoid(q + theta), 0.0).sum(1, keepdim=True)
        is_short = expected < best
        a, b = torch.where(is_short, theta, a), torch.where(is_short, b, theta)
    return (a + b) / 2


def _chances(q: Tensor, theta: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return P(y = 1) and P(y = 0) of tilted items, 0 and 1 where there is none."""
    t = (q + theta).clamp(-REACH, REACH)
    return torch.where(mask, torch.sigmoid(t), 0.0), torch.where(mask, torch.sigmoid(-t), 1.0)


def _potential(theta: Tensor, block: _Block) -> tuple[Tensor, Tensor]:
    """Return g(s), whose maximum is 1, and the logarithm of what it was divided by."""
    s = torch.arange(int(block.high.max()) + 1, device=theta.device, dtype=theta.dtype)
    log_g = -block.strength * (s - block.centre) ** 2 - theta * s
    log_g = torch.where((s >= block.low) & (s <= block.high), log_g, -torch.inf)
    shift = log_g.amax(1, keepdim=True)
    return torch.exp(log_g - shift), shift[:, 0]


def _up(values: Tensor) -> Tensor:
    return functional.pad(values[..., :-1], (1, 0))


def _down(values: Tensor) -> Tensor:
    return functional.pad(values[..., 1:], (0, 1))


class _Count(torch.autograd.Function):
    """Beliefs (M, n) and log evidence (M,) of a block of bags."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, block: _Block) -> tuple[Tensor, Tensor]:
        theta = _tilt(q, block)
        p, not_p = _chances(q, theta, block.mask)
        g, shift = _potential(theta, block)
        with_it, without, total = _forward_backward(p, not_p, g)
        up, down = p * with_it, not_p * without
        beliefs = up / (up + down)
        # torch's softplus takes x for log(1 + e^x) beyond 20, which is off by 2e-9.
        gained = functional.logsigmoid(-q) - functional.logsigmoid(-q - theta)
        gained = torch.where(block.mask, gained, 0.0).sum(1)
        ctx.save_for_backward(q, theta, beliefs)
        ctx.block = block
        return beliefs, gained + shift + torch.log(total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_belief: Tensor, by_evidence: Tensor) -> tuple[Tensor, None]:
        q, theta, beliefs = ctx.saved_tensors
        block = ctx.block
        gradient = by_evidence[:, None] * (beliefs - torch.sigmoid(q))
        if bool((by_belief != 0).any()):
            gradient = gradient + _change(q, theta, block, beliefs, by_belief)
        return torch.where(block.mask, gradient, 0.0), None


def _forward_backward(p: Tensor, not_p: Tensor, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return E[g | y_i = 1], E[g | y_i = 0], E g, as the definition does."""
    n = p.shape[1]
    forward = [functional.pad(torch.ones_like(g[:, :1]), (0, g.shape[1] - 1))]
    for i in range(n - 1):
        forward.append(not_p[:, i, None] * forward[i] + p[:, i, None] * _up(forward[i]))
    with_it, without, backward = torch.empty_like(p), torch.empty_like(p), g
    for i in reversed(range(n)):
        shifted = _down(backward)
        with_it[:, i] = (forward[i] * shifted).sum(1)
        without[:, i] = (forward[i] * backward).sum(1)
        backward = not_p[:, i, None] * backward + p[:, i, None] * shifted
    return with_it, without, backward[:, 0]


def _change(q: Tensor, theta: Tensor, block: _Block, beliefs: Tensor, along: Tensor) -> Tensor:
    """Return how beliefs change along a direction of the log-odds: Cov(y | count) · along."""
    p, not_p = _chances(q, theta, block.mask)
    g, _ = _potential(theta, block)
    change = p * not_p * along
    n = p.shape[1]
    # Each is a pair: values, and their change.
    zero = torch.zeros_like(g)
    forward = [(functional.pad(torch.ones_like(g[:, :1]), (0, g.shape[1] - 1)), zero)]
    for i in range(n - 1):
        a, da = forward[i]
        up, stay, d = p[:, i, None], not_p[:, i, None], change[:, i, None]
        forward.append((stay * a + up * _up(a), stay * da + up * _up(da) + d * (_up(a) - a)))
    b, db = g, zero
    found = torch.empty_like(p)
    for i in reversed(range(n)):
        a, da = forward[i]
        up, stay, d = p[:, i, None], not_p[:, i, None], change[:, i, None]
        above, d_above = _down(b), _down(db)
        with_it, without = (a * above).sum(1), (a * b).sum(1)
        d_with = d[:, 0] * with_it + up[:, 0] * (da * above + a * d_above).sum(1)
        d_without = stay[:, 0] * (da * b + a * db).sum(1) - d[:, 0] * without
        total = up[:, 0] * with_it + stay[:, 0] * without
        belief = beliefs[:, i]
        found[:, i] = ((1 - belief) * d_with - belief * d_without) / total
        b, db = stay * b + up * above, stay * db + up * d_above + d * (above - b)
    return found
