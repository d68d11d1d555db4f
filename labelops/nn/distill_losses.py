"""Losses of `labelops.distill.losses` as tensors, which torch differentiates.

One signature: the student's logits, shape (N, K), what it is to learn, and settings; the cost of
every item, shape (N,). Nothing that a teacher says, and no label made of what a student says, has a
derivative. Logits in half precision are taken in single. A target is a tensor of probabilities,
shape (N, K), or `labelops.nn.soft_views.SparseTensors`. Values are not looked at, which would wait
for the device; shapes are, since a broadcast passes for a loss.
"""

# N items, K classes, T teachers

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from labelops.distill.losses import (
    LEAST_SPREAD,
    MIX_KD,
    NKD_WEIGHT,
    SMOOTHING,
    USKD,
    RankBy,
)
from labelops.nn.soft_views import SparseTensors, entropy

Mode = Literal["shared", "adversarial"]


def exact(logits: Tensor) -> Tensor:
    """Return logits in single precision at least.

    Examples
    --------
    >>> exact(torch.zeros(1, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    return logits if logits.dtype == torch.float64 else logits.float()


def check_shape(tensor: Tensor | SparseTensors, shape: torch.Size, who: str) -> None:
    """Refuse what would be broadcast.

    Raises
    ------
    ValueError
        If the shape is another.

    Examples
    --------
    >>> check_shape(torch.zeros(2, 3), torch.Size((2, 3)), "loss")
    """
    if isinstance(tensor, SparseTensors):
        found = torch.Size((len(tensor.ids), tensor.n_classes))
    else:
        found = tensor.shape
    if found != shape:
        raise ValueError(f"{who}: shape {tuple(shape)} was expected, got {tuple(found)}")


def cross_entropy(
    logits: Tensor, target: Tensor | SparseTensors, *, temperature: float = 1.0
) -> Tensor:
    """See the definition.

    Examples
    --------
    >>> z, q = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    >>> round(cross_entropy(z, q).item(), 4)
    0.9076
    """
    check_shape(target, logits.shape, "cross_entropy")
    z = exact(logits) if temperature == 1 else exact(logits) / temperature
    log_s = functional.log_softmax(z, dim=1)
    if isinstance(target, SparseTensors):
        cost: Tensor = _Expected.apply(log_s, *target[:3])
        return cost
    return -(target.detach() * log_s).sum(dim=1)


class _Expected(torch.autograd.Function):
    """−Σ_c q_c log s_c of a sparse q; its slope is written in one pass, and not added up of two."""

    @staticmethod
    def forward(ctx: Any, log_s: Tensor, ids: Tensor, excess: Tensor, even: Tensor) -> Tensor:
        ctx.save_for_backward(ids, excess, even)
        ctx.shape = log_s.shape
        listed = torch.linalg.vecdot(excess, log_s.gather(1, ids))
        return torch.addcmul(listed, even, log_s.sum(dim=1)).neg_()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        ids, excess, even = ctx.saved_tensors
        down = -slopes[0]
        slope = (down * even)[:, None].expand(ctx.shape).contiguous()
        return slope.scatter_add_(1, ids, down[:, None] * excess), None, None, None


def divergence(
    logits: Tensor, target: Tensor | SparseTensors, *, temperature: float = 1.0
) -> Tensor:
    """See the definition.

    Examples
    --------
    >>> z, q = torch.tensor([[2.0, 1.0, 0.0]]), torch.tensor([[0.5, 0.5, 0.0]])
    >>> round(divergence(z, q).item(), 4)
    0.2145
    """
    cost = cross_entropy(logits, target, temperature=temperature)
    if isinstance(target, SparseTensors):
        information = entropy(target)
    else:
        information = torch.special.entr(target.detach()).sum(dim=1)
    return temperature**2 * (cost - information)


def distillation(logits: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """See the definition.

    Examples
    --------
    >>> z, teacher = torch.tensor([[2.0, 1, 0, -1]]), torch.tensor([[3.0, 0, 1, -2]])
    >>> round(distillation(z, teacher).item(), 4)
    0.1698
    """
    said = torch.softmax(exact(teacher.detach()) / temperature, dim=1)
    return divergence(logits, said, temperature=temperature)


def average_softmax(teachers: Tensor) -> Tensor:
    """See the definition; of logits of shape (T, N, K).

    Examples
    --------
    >>> average_softmax(torch.tensor([[[0.0, 0.0]], [[0.0, -torch.inf]]])).tolist()
    [[0.75, 0.25]]
    """
    if teachers.ndim != 3 or not len(teachers):
        raise ValueError(
            "average_softmax: at least one teacher, shape (T, N, K), was expected, got "
            f"{tuple(teachers.shape)}"
        )
    return torch.softmax(exact(teachers.detach()), dim=2).mean(dim=0)


def _log_among(z: Tensor, is_in: Tensor) -> Tensor:
    """Return the log-softmax among some classes; 0 for the others, also if there are none."""
    # Not −∞, of which nothing but −∞ would have no derivative.
    inside = z.masked_fill(~is_in, torch.finfo(z.dtype).min)
    return functional.log_softmax(inside, dim=1).masked_fill(~is_in, 0.0)


def _among(t: Tensor, is_in: Tensor) -> Tensor:
    """Return the softmax of a teacher among some classes; 0 for the others and where all are 0."""
    is_there = is_in & (t > -torch.inf)
    return _log_among(t, is_there).exp() * is_there


def nkd(
    logits: Tensor,
    teacher: Tensor,
    given: Tensor,
    *,
    weight: float = NKD_WEIGHT,
    temperature: float = 1.0,
) -> Tensor:
    """See the definition.

    Examples
    --------
    >>> z, teacher = torch.tensor([[2.0, 1, 0, -1]]), torch.tensor([[3.0, 0, 1, -2]])
    >>> round(nkd(z, teacher, torch.tensor([0])).item(), 5)
    2.14417
    """
    check_shape(teacher, logits.shape, "nkd")
    check_shape(given, logits.shape[:1], "nkd")
    z, t = exact(logits), exact(teacher.detach())
    at = given[:, None]
    others = torch.ones_like(z, dtype=torch.bool).scatter(1, at, value=False)
    t_given = torch.softmax(t, dim=1).gather(1, at)[:, 0]
    own = -t_given * functional.log_softmax(z, dim=1).gather(1, at)[:, 0]
    rest = -(_among(t / temperature, others) * _log_among(z / temperature, others)).sum(dim=1)
    return own + weight * temperature**2 * rest


def uskd(
    logits: Tensor,
    weak: Tensor,
    labels: Tensor,
    *,
    weights: tuple[float, float, float] = USKD,
    rank_by: RankBy = "prob",
) -> tuple[Tensor, Tensor]:
    """See the definition; the cost of the student, and of the second head.

    Examples
    --------
    >>> z = torch.tensor([[2.0, 1, 0, -1], [0.5, 0, 1.5, 1]])
    >>> weak = torch.tensor([[1.0, 0, 2, 0.5], [0, 1, 0.5, -1]])
    >>> student, head = uskd(z, weak, torch.tensor([0, 2]))
    >>> round((student + head).mean().item(), 5)
    0.73225
    """
    check_shape(weak, logits.shape, "uskd")
    z, w = exact(logits), exact(weak)
    if labels.ndim == 1:
        label = functional.one_hot(labels, z.shape[1]).to(z.dtype)
    else:
        label = labels.detach().to(z.dtype)
    check_shape(label, z.shape, "uskd")
    is_target = label > 0
    log_s = functional.log_softmax(z, dim=1)
    with torch.no_grad():
        soft = _own_target(log_s.exp(), label)
        zipf = _zipf_target(z, w, is_target, rank_by=rank_by)
    on_target, on_others, on_weak = weights
    student = -on_target * (soft * log_s).sum(dim=1)
    student = student - on_others * (zipf * _log_among(z, ~is_target)).sum(dim=1)
    smooth = (1 - SMOOTHING) * label + SMOOTHING / z.shape[1]
    return student, on_weak * cross_entropy(w, smooth)


def _own_target(s: Tensor, label: Tensor) -> Tensor:
    order = torch.sort(label, dim=1, descending=True, stable=True).indices[:, :2]
    value, square = label.gather(1, order), s.gather(1, order) ** 2
    is_there = (value > 0).to(s.dtype)
    mean = (square * is_there).sum(dim=0) / is_there.sum(dim=0).clamp(min=1)
    return torch.zeros_like(s).scatter(1, order, (square + value - mean) * is_there)


def _zipf_target(z: Tensor, w: Tensor, is_target: Tensor, *, rank_by: RankBy) -> Tensor:
    score = _odds(w, is_target)
    if rank_by == "prob":
        score = score + _odds(z, is_target)
    elif rank_by == "logprob":
        log_s = functional.log_softmax(z, dim=1)
        score = score + log_s / (1 - (log_s * is_target).sum(dim=1, keepdim=True))
    else:
        raise ValueError(f"uskd: rank_by prob or logprob was expected, got {rank_by!r}")
    order = torch.sort(score, dim=1, descending=True, stable=True).indices
    law = 1 / torch.arange(1, z.shape[1] + 1, dtype=z.dtype, device=z.device)
    weight = torch.empty_like(z).scatter(1, order, law.expand_as(z)) * ~is_target
    total = weight.sum(dim=1, keepdim=True)
    return weight / torch.where(total > 0, total, 1.0)


def _odds(z: Tensor, is_target: Tensor) -> Tensor:
    others = z.masked_fill(is_target, -torch.inf).logsumexp(dim=1, keepdim=True)
    # e^80 is a number in single precision, too.
    return (z - others).clamp(max=80.0).exp()


def mix_kd(
    logits: Tensor,
    teacher: Tensor,
    target: Tensor | SparseTensors,
    *,
    weights: tuple[float, float] = MIX_KD,
) -> Tensor:
    """See the definition.

    Examples
    --------
    >>> z, teacher = torch.tensor([[2.0, 1, 0, -1]]), torch.tensor([[3.0, 0, 1, -2]])
    >>> one, other = (mix_kd(a * z + 3, teacher, torch.eye(4)[:1]) for a in (1, 10))
    >>> round(one.item(), 4) == round(other.item(), 4)
    True
    """
    z, t = (x / _spread(x) for x in (exact(logits), exact(teacher.detach())))
    return weights[0] * cross_entropy(z, target) + weights[1] * distillation(z, t)


def _spread(z: Tensor) -> Tensor:
    if z.shape[1] < 2:
        return torch.ones_like(z)
    # As a sum of squares: a standard deviation of 0 has no derivative.
    square = ((z - z.mean(dim=1, keepdim=True)) ** 2).sum(dim=1, keepdim=True) / (z.shape[1] - 1)
    return square.clamp(min=LEAST_SPREAD**2).sqrt()


class _Reversed(torch.autograd.Function):
    """The same forward; the derivative with the other sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> Tensor:
        return -outer


class Discriminator(nn.Module):
    """MEAL V2's discriminator: K → K / 8 → K / 64 → 2, whether student or teacher speaks.

    Parameters
    ----------
    n_classes
        K.
    mode
        *adversarial*: the student learns what the discriminator mistakes for the teacher, by a
        derivative with the other sign. *shared*: as released, where both lower one loss, which
        drives the student away from its teacher.
    last_relu
        As released; then the loss is ½ log 2 at least.
    seed
        Of its first weights.

    References
    ----------
    Shen, Savvides: MEAL V2. arXiv 2009.08453, section 3.3. Ganin, Lempitsky: Unsupervised domain
    adaptation by backpropagation. ICML 2015 (reversed derivative).

    Examples
    --------
    >>> judge = Discriminator(1000, seed=0)
    >>> [tuple(layer.weight.shape) for layer in judge.layers]
    [(125, 1000), (15, 125), (2, 15)]
    >>> said = torch.softmax(torch.zeros(3, 1000), dim=1)
    >>> judge.loss(said, said).shape
    torch.Size([3])
    """

    def __init__(
        self,
        n_classes: int,
        *,
        mode: Mode = "adversarial",
        last_relu: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if mode not in ("shared", "adversarial"):
            raise ValueError(f"Discriminator: shared or adversarial was expected, got {mode!r}")
        self.mode, self.last_relu = mode, last_relu
        widths = (n_classes, max(n_classes // 8, 2), max(n_classes // 64, 2), 2)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.ModuleList(nn.Linear(one, other) for one, other in pairwise(widths))

    def forward(self, values: Tensor) -> Tensor:
        """Return two outputs of every vector, shape (N, 2)."""
        for place, layer in enumerate(self.layers):
            values = layer(values)
            if self.last_relu or place + 1 < len(self.layers):
                values = torch.relu(values)
        return values

    def loss(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return what is added to every item's cost, shape (N,); one step lowers it for both.

        `student` and `teacher` are probabilities, or logits where both are at hand, shape (N, K).
        """
        check_shape(teacher, student.shape, "Discriminator")
        if self.mode == "adversarial":
            student = _Reversed.apply(student)
        signs = torch.tensor([1.0, -1.0], dtype=student.dtype, device=student.device)
        of_student, of_teacher = self(student), self(teacher.detach())
        parts = [functional.softplus(-of_student * signs), functional.softplus(of_teacher * signs)]
        return torch.cat(parts, dim=1).mean(dim=1)
