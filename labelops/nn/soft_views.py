"""Stored soft labels as tensors: decoded on the device that trains, tempered anew in every epoch.

The twin of `labelops.soft.views.decode` and `labelops.distill.targets`. What is stored of all views
is put on the device once, some 8 k bytes a view; a batch picks its rows, before or after they are
decoded.
"""

# V views, N items of a batch, K classes, k kept, m listed classes

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from labelops.distill.targets import SparseTarget, check_temperature
from labelops.soft.views import Coding, Rest, SoftViews, check_coding, read_values


class SparseTensors(NamedTuple):
    """Soft labels q_c = u + Σ_j e_j [i_j = c]; see `labelops.distill.targets.SparseTarget`.

    Attributes
    ----------
    ids : listed classes, int64, shape (N, m).
    excess : e, shape (N, m).
    even : u, shape (N,).
    n_classes : K.
    """

    ids: Tensor
    excess: Tensor
    even: Tensor
    n_classes: int


class ViewTensors(NamedTuple):
    """What is stored of V views.

    Attributes
    ----------
    ids : the k most probable classes, and the given one; int32, shape (V, k + 1).
    values : theirs, probabilities or logits, shape (V, k + 1).
    tail, tail_mean : as of `SoftViews`, shape (V,).
    """

    ids: Tensor
    values: Tensor
    tail: Tensor
    tail_mean: Tensor


def load_views(
    views: SoftViews,
    *,
    coding: Coding,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ViewTensors:
    """Return stored views as tensors.

    Parameters
    ----------
    views, coding
        From `labelops.soft.views.encode`.
    device
        Where they are kept.
    dtype
        Of the numbers.

    Examples
    --------
    >>> from labelops.soft.views import encode
    >>> coding = Coding("prob", "f16", 4)
    >>> views = encode(np.log([[0.5, 0.25, 0.125, 0.125]]), np.array([3]), coding=coding, k=2)
    >>> load_views(views, coding=coding).ids.tolist()
    [[0, 1, 3]]
    """
    check_coding(coding)
    if coding.n_classes > np.iinfo(np.int32).max:
        raise ValueError(f"load_views: fewer than 2³¹ classes expected, got {coding.n_classes}")
    raw = read_values(np.column_stack([views.values, views.given_value]), coding)
    ids = np.column_stack([views.ids, views.given]).astype(np.int32)
    numbers = (raw, *(x.astype(np.float64) for x in (views.tail, views.tail_mean)))
    values, tail, mean = (torch.from_numpy(x).to(device, dtype) for x in numbers)
    return ViewTensors(torch.from_numpy(ids).to(device), values, tail, mean)


def take_views(views: ViewTensors, rows: Tensor) -> ViewTensors:
    """Return some views.

    Examples
    --------
    >>> one = ViewTensors(*(torch.tensor(x) for x in ([[1, 0]], [[0.5, 0.25]], [0.25], [0.0])))
    >>> take_views(one, torch.tensor([0, 0])).ids.tolist()
    [[1, 0], [1, 0]]
    """
    return ViewTensors(*(column.index_select(0, rows) for column in views))


def view_target(
    views: ViewTensors, *, coding: Coding, temperature: float | None = None, rest: Rest = "even"
) -> SparseTensors:
    """Return soft labels for losses of `labelops.nn.distill_losses`.

    Parameters
    ----------
    views
        Of a batch, or all.
    coding, temperature, rest
        As of `labelops.soft.views.decode`: another temperature than the stored one, as often as
        wished, of logits only.

    Raises
    ------
    ValueError
        If another temperature is asked of probabilities.

    Notes
    -----
    Of a batch this is some thirty small operations, which a small student would wait for. Where all
    views fit into memory once more (12 k + 16 bytes each), make the targets of all of them whenever
    the temperature changes, and let batches take theirs (`take_targets`).

    Examples
    --------
    >>> from labelops.soft.views import encode
    >>> coding = Coding("logit", "f32", 4)
    >>> views = encode(np.array([[2.0, 1.0, 0.0, -1.0]]), np.array([0]), coding=coding, k=2)
    >>> stored = load_views(views, coding=coding)
    >>> for tau in (1.0, 4.0):
    ...     dense(view_target(stored, coding=coding, temperature=tau))
    tensor([[0.6439, 0.2369, 0.0596, 0.0596]])
    tensor([[0.3500, 0.2726, 0.1887, 0.1887]])
    """
    check_coding(coding)
    tau = check_temperature(coding, temperature)
    ids, raw = views.ids.to(torch.int64), views.values
    k = ids.shape[1] - 1
    is_new = (ids[:, :k] != ids[:, k:]).all(dim=1)
    if coding.kind == "logit":
        level = torch.lerp(views.tail_mean, views.tail, coding.temperature / tau)
        # So none is above the highest that is stored, and that one has a mass of 1.
        other = torch.minimum(level, raw[:, :k].amin(dim=1).clamp(max=0))
        highest = raw.amax(dim=1)
        mass = ((raw - highest[:, None]) / tau).exp()
        even = ((other - highest) / tau).exp()
    else:
        n_others = (coding.n_classes - k - is_new.to(raw.dtype)).clamp(min=1)
        mass, even = raw, views.tail / n_others
    if rest == "none":
        even = torch.zeros_like(even)
    excess = mass - even[:, None]
    excess[:, k] *= is_new
    total = excess.sum(dim=1) + coding.n_classes * even
    if coding.kind == "logit":
        return SparseTensors(ids, excess / total[:, None], even / total, coding.n_classes)
    # All that was stored may have been rounded to nothing.
    is_some = total > 0
    total = torch.where(is_some, total, 1.0)
    return SparseTensors(
        ids,
        torch.where(is_some[:, None], excess / total[:, None], 0.0),
        torch.where(is_some, even / total, 1 / coding.n_classes),
        coding.n_classes,
    )


def decode(
    views: ViewTensors, *, coding: Coding, temperature: float | None = None, rest: Rest = "even"
) -> Tensor:
    """Return dense soft labels, shape (N, K): the twin of `labelops.soft.views.decode`.

    Examples
    --------
    >>> from labelops.soft.views import encode
    >>> coding = Coding("prob", "f32", 4)
    >>> views = encode(np.log([[0.5, 0.25, 0.125, 0.125]]), np.array([0]), coding=coding, k=1)
    >>> decode(load_views(views, coding=coding), coding=coding)
    tensor([[0.5000, 0.1667, 0.1667, 0.1667]])
    """
    return dense(view_target(views, coding=coding, temperature=temperature, rest=rest))


def to_tensors(
    target: SparseTarget,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> SparseTensors:
    """Return other sparse labels (drawn, averaged, mixed, of a product) as tensors.

    Examples
    --------
    >>> one = SparseTarget(np.array([[2]]), np.array([[0.25]]), np.array([0.25]), 3)
    >>> to_tensors(one).even.tolist()
    [0.25]
    """
    ids = torch.from_numpy(target.ids.astype(np.int64)).to(device)
    excess, even = (
        torch.from_numpy(np.asarray(x, np.float64)).to(device, dtype)
        for x in (target.excess, target.even)
    )
    return SparseTensors(ids, excess, even, target.n_classes)


def take_targets(target: SparseTensors, rows: Tensor) -> SparseTensors:
    """Return the soft labels of some items.

    Examples
    --------
    >>> two = SparseTensors(torch.tensor([[2], [0]]), torch.ones(2, 1), torch.zeros(2), 3)
    >>> take_targets(two, torch.tensor([1])).ids.tolist()
    [[0]]
    """
    ids, excess, even = (column.index_select(0, rows) for column in target[:3])
    return SparseTensors(ids, excess, even, target.n_classes)


def dense(target: SparseTensors) -> Tensor:
    """Return all probabilities, shape (N, K).

    Examples
    --------
    >>> one = SparseTensors(torch.tensor([[2]]), torch.tensor([[0.25]]), torch.tensor([0.25]), 3)
    >>> dense(one).tolist()
    [[0.25, 0.25, 0.5]]
    """
    whole = target.even[:, None].repeat(1, target.n_classes)
    return whole.scatter_add_(1, target.ids, target.excess)


def entropy(target: SparseTensors) -> Tensor:
    """Return the entropy of every label in nats, shape (N,).

    Examples
    --------
    >>> one = SparseTensors(torch.tensor([[2]]), torch.tensor([[0.25]]), torch.tensor([0.25]), 3)
    >>> round(entropy(one).item(), 4)
    1.0397
    """
    listed = torch.special.entr((target.even[:, None] + target.excess).clamp(min=0)).sum(dim=1)
    n_others = target.n_classes - target.ids.shape[1]
    found: Tensor = listed + n_others * torch.special.entr(target.even)
    return found
