"""Mixing and consistency of `labelops.distill` as tensors, which torch differentiates.

Partners and shares are drawn by `labelops.distill.mixing.draw_mix`.
"""

# N items, K classes, J mixes of each item

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from labelops.distill.consistency import THRESHOLD, Kind
from labelops.distill.mixing import DECOUPLED, MARGIN
from labelops.nn.distill_losses import check_shape, divergence, exact
from labelops.nn.soft_views import SparseTensors


def mix_items(x: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """See the definition; of x of shape (N, …), partners int64 and shares, shape (N,).

    Examples
    --------
    >>> mix_items(torch.eye(2), torch.tensor([1, 0]), torch.tensor([0.75, 1.0])).tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    for part in (partner, share):
        check_shape(part, x.shape[:1], "mix_items")
    weight = share.to(x.dtype).view(-1, *(1 for _ in x.shape[1:]))
    return weight * x + (1 - weight) * x[partner]


def cut_items(pictures: Tensor, box: Tensor, partner: Tensor) -> Tensor:
    """See the definition; of shape (N, …, H, W), boxes (N, 4), partners (N,).

    Labels are mixed by the shares that `labelops.distill.mixing.draw_boxes` returns.

    Examples
    --------
    >>> pictures = torch.stack([torch.zeros(2, 2), torch.ones(2, 2)])
    >>> box = torch.tensor([[0, 1, 1, 2], [0, 0, 0, 0]])
    >>> cut_items(pictures, box, torch.tensor([1, 0])).tolist()
    [[[0.0, 1.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]]
    """
    check_shape(partner, pictures.shape[:1], "cut_items")
    check_shape(box, torch.Size((len(pictures), 4)), "cut_items")
    row, column = (torch.arange(n, device=box.device) for n in pictures.shape[-2:])
    top, left, bottom, right = (edge[:, None] for edge in box.unbind(dim=1))
    in_rows, in_columns = (row >= top) & (row < bottom), (column >= left) & (column < right)
    inside = in_rows[:, :, None] & in_columns[:, None, :]
    inside = inside.view(-1, *(1 for _ in pictures.shape[1:-2]), *pictures.shape[-2:])
    return torch.where(inside, pictures[partner], pictures)


def mix_targets(target: SparseTensors, partner: Tensor, share: Tensor) -> SparseTensors:
    """See the definition.

    Examples
    --------
    >>> target = SparseTensors(torch.tensor([[0], [2]]), torch.ones(2, 1), torch.zeros(2), 3)
    >>> mixed = mix_targets(target, torch.tensor([1, 0]), torch.tensor([0.75, 1.0]))
    >>> mixed.ids.tolist(), mixed.excess.tolist()
    ([[0, 2], [0, 2]], [[0.75, 0.25], [0.0, 1.0]])
    """
    for part in (partner, share):
        check_shape(part, target.even.shape, "mix_targets")
    lam = share.to(target.even.dtype)
    ids = torch.cat([target.ids, target.ids[partner]], dim=1)
    parts = [lam[:, None] * target.excess, (1 - lam[:, None]) * target.excess[partner]]
    ids, order = torch.sort(ids, dim=1, stable=True)
    excess = torch.cat(parts, dim=1).gather(1, order)
    # A class that is listed again has its excess at its first place.
    is_first = torch.ones_like(ids, dtype=torch.bool)
    is_first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    places = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
    first = torch.where(is_first, places, 0).cummax(dim=1).values
    even = lam * target.even + (1 - lam) * target.even[partner]
    merged = torch.zeros_like(excess).scatter_add_(1, first, excess)
    return SparseTensors(ids, merged, even, target.n_classes)


def decoupled(
    logits: Tensor,
    one: Tensor,
    other: Tensor,
    share: Tensor,
    *,
    weight: float = DECOUPLED,
    power: float = 1.0,
) -> Tensor:
    """See the definition; the cost of every item, shape (N,).

    Examples
    --------
    >>> z, one, other = torch.tensor([[2.0, 1, 0]]), torch.tensor([0]), torch.tensor([1])
    >>> round(decoupled(z, one, other, torch.tensor([0.75])).item(), 4)
    0.675
    """
    for part in (one, other, share):
        check_shape(part, logits.shape[:1], "decoupled")
    z = exact(logits)
    lam = share.to(z.dtype)
    is_mixed = (one != other) & (lam > 0) & (lam < 1)
    log_s = functional.log_softmax(z, dim=1)
    value = torch.zeros_like(lam)
    for own, rival, part in ((one, other, lam), (other, one, 1 - lam)):
        is_rival = functional.one_hot(rival, z.shape[1]).to(torch.bool) & is_mixed[:, None]
        log_alone = functional.log_softmax(z.masked_fill(is_rival, -torch.inf), dim=1)
        alone = torch.where(is_mixed, weight * part**power, 0.0)
        value = value - part * log_s.gather(1, own[:, None])[:, 0]
        value = value - alone * log_alone.gather(1, own[:, None])[:, 0]
    return value


def ranked(logits: Tensor, mixed: Tensor, is_other: Tensor, *, margin: float = MARGIN) -> Tensor:
    """See the definition; the cost of every item, shape (N,).

    Examples
    --------
    >>> z, mixed = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0]])
    >>> ranked(z, mixed, torch.tensor([True])).tolist()
    [1.0]
    """
    check_shape(mixed, logits.shape, "ranked")
    check_shape(is_other, logits.shape[:1], "ranked")
    # `max` along a dimension, unlike `amax`, gives the derivative to one class.
    high, low = (exact(z).max(dim=1).values for z in (mixed, logits))
    return torch.relu(high - low + margin) * is_other


def rank_agreement(logits: Tensor, mixed: Tensor, certainty: Tensor) -> Tensor:
    """See the definition; shape (N,).

    Examples
    --------
    >>> z, mixed = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([[[0.5, 0.5]]]).log()
    >>> round(rank_agreement(z, mixed, torch.tensor([[0.75]])).item(), 4)
    0.2428
    """
    check_shape(mixed, torch.Size((len(mixed), *logits.shape)), "rank_agreement")
    check_shape(certainty, mixed.shape[:2], "rank_agreement")
    z, t = exact(logits), exact(mixed)
    ideal, order = torch.sort(certainty.to(z.dtype), dim=0, descending=True, stable=True)
    sure = torch.softmax(t, dim=2).max(dim=2).values.gather(0, order)
    ranks = torch.arange(len(t) + 1, dtype=z.dtype, device=z.device)
    discount = 1 / torch.log2(ranks + 2)[:, None]
    first = torch.softmax(z, dim=1).max(dim=1).values
    dcg = discount[0] * first + (discount[1:] * sure).sum(dim=0)
    idcg = discount[0] + (discount[1:] * ideal).sum(dim=0)
    return 1 - torch.minimum(dcg / idcg, idcg / dcg)


def consistency(
    weak: Tensor,
    strong: Tensor,
    *,
    threshold: float | np.ndarray = THRESHOLD,
    kind: Kind = "hard",
    temperature: float = 1.0,
) -> Tensor:
    """See the definition, `labelops.distill.consistency.consistency`; shape (N,).

    The weak view has no derivative. Of the loss the mean over all items is taken.

    Examples
    --------
    >>> weak = torch.tensor([[4.0, 0.0], [1.0, 0.0]])
    >>> consistency(weak, torch.zeros(2, 2))
    tensor([0.6931, 0.0000])
    """
    check_shape(weak, strong.shape, "consistency")
    if kind not in ("hard", "soft"):
        raise ValueError(f"consistency: kind hard or soft was expected, got {kind!r}")
    z = exact(weak.detach())
    limit = torch.as_tensor(threshold, dtype=z.dtype, device=z.device).expand(z.shape[1])
    p, top = torch.softmax(z, dim=1), z.argmax(dim=1)
    is_sure = p.amax(dim=1) >= limit[top]
    if kind == "hard":
        target = functional.one_hot(top, z.shape[1]).to(z.dtype)
    else:
        target = torch.softmax(z / temperature, dim=1)
    return torch.where(is_sure, divergence(strong, target), 0.0)
