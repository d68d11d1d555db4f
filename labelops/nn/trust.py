"""Trust in a teacher, item by item, learned beside a student; see `labelops.distill.trust`."""

# N items, M held-out items, K classes

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from labelops.distill.losses import check_positive
from labelops.distill.trust import N_FEATURES, class_means, sum_by_class
from labelops.nn.distill_losses import check_shape, distillation, exact
from labelops.nn.threads import one_thread

NET_RATE = 1e-2
"""Of Adam, for the network that says trust."""

RATE, STEPS = 1.0, 300
"""Of the student's gradient descent, on all items at once."""

Weights = dict[str, Tensor]


class Taught(NamedTuple):
    """Items that are trained on.

    Attributes
    ----------
    inputs : of the student, shape (N, …).
    teacher : logits or log-probabilities, shape (N, K).
    given : class ids, int64, shape (N,).
    """

    inputs: Tensor
    teacher: Tensor
    given: Tensor


class Known(NamedTuple):
    """Held-out items whose labels are right.

    Attributes
    ----------
    inputs : of the student, shape (M, …).
    given : class ids, int64, shape (M,).
    """

    inputs: Tensor
    given: Tensor


def trust_features(student: Tensor, teacher: Tensor, means: Tensor, given: Tensor) -> Tensor:
    """See the definition; probabilities of shape (N, K), T̄ of shape (K, K). No derivative.

    Examples
    --------
    >>> one = torch.tensor([[0.5, 0.5]])
    >>> trust_features(one, torch.eye(2)[:1], torch.eye(2), torch.tensor([1])).tolist()
    [[0.5, 0.5, 0.5, 2.0, 0.0, 0.0, 0.5, 1.0, 1.0]]
    """
    s, t = student.detach(), teacher.detach()
    check_shape(t, s.shape, "trust_features")
    mean = means[given]
    g = functional.one_hot(given, s.shape[1]).to(s.dtype)
    edges = torch.stack([mean - s, g - s, t - s, t - g, mean - g], dim=1)
    at = torch.stack([t, s, mean], dim=1).gather(2, given[:, None, None].expand(-1, 3, 1))[..., 0]
    return torch.cat([(edges * edges).sum(dim=2), at, t.amax(dim=1, keepdim=True)], dim=1)


class RatioNet(nn.Module):
    """What says trust: 9 → 32 → 16 → 1, LeakyReLU between, and a sigmoid.

    Parameters
    ----------
    seed
        Of its first weights.

    References
    ----------
    Hu et al., ICLR 2024; widths from the authors' script.

    Examples
    --------
    >>> RatioNet(seed=0)(torch.zeros(3, 9)).shape
    torch.Size([3])
    """

    def __init__(self, *, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.layers = nn.Sequential(
                *(nn.Linear(N_FEATURES, 32), nn.LeakyReLU()),
                *(nn.Linear(32, 16), nn.LeakyReLU()),
                nn.Linear(16, 1),
            )

    def forward(self, features: Tensor) -> Tensor:
        """Return α in (0, 1), shape (N,), of features of shape (N, 9)."""
        said: Tensor = torch.sigmoid(self.layers(features)[:, 0])
        return said


def _free(student: nn.Module) -> Weights:
    """Return what of a student is trained."""
    return {name: w for name, w in student.named_parameters() if w.requires_grad}


def _says(student: nn.Module, weights: Weights, inputs: Tensor) -> Tensor:
    said: Tensor = exact(functional_call(student, weights, (inputs,)))
    return said


def inner_loss(
    student: nn.Module, weights: Weights, items: Taught, trust: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """Return mean α_i KD_i + (1 − α_i) CE_i of a student with some weights.

    Examples
    --------
    >>> student = nn.Linear(1, 2)
    >>> weights = {name: torch.zeros_like(w) for name, w in student.named_parameters()}
    >>> items = Taught(torch.ones(1, 1), torch.zeros(1, 2), torch.tensor([1]))
    >>> round(inner_loss(student, weights, items, torch.tensor([0.5])).item(), 4)
    0.3466
    """
    z = _says(student, weights, items.inputs)
    taught = distillation(z, items.teacher, temperature=temperature)
    told = functional.cross_entropy(z, items.given, reduction="none")
    check_shape(trust, told.shape, "inner_loss")
    return (trust * taught + (1 - trust) * told).mean()


def hypergradient(
    student: nn.Module,
    items: Taught,
    held_out: Known,
    trust: Tensor,
    *,
    rate: float,
    temperature: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return the loss of held-out items after a step, and its derivative by trust, shape (N,).

    The closed form, for any student: ∇_θ L_in is linear in trust, and what it becomes with that of
    one item is (1 / N) ∇_θ (KD_i − CE_i). So the derivative of ⟨∇_θ L_in, ∇_θ′ L_out⟩ by trust has
    the inner products of all items at once.

    Parameters
    ----------
    student
        Whose logits of an item depend on no other item: no batch statistics. Not changed.
    items, trust, rate, temperature
        As of `labelops.distill.trust.step`.
    held_out
        At least one item.

    Raises
    ------
    ValueError
        If there is no held-out item.

    Examples
    --------
    >>> student = nn.Linear(1, 2, bias=False)
    >>> _ = nn.init.zeros_(student.weight)
    >>> items = Taught(torch.ones(1, 1), torch.tensor([[0.0, -torch.inf]]), torch.tensor([1]))
    >>> right = Known(torch.ones(1, 1), torch.tensor([0]))
    >>> loss, slope = hypergradient(student, items, right, torch.tensor([0.5]), rate=1.0)
    >>> round(loss.item(), 4), slope.tolist()
    (0.6931, [-1.0])
    """
    if not len(held_out.given):
        raise ValueError("hypergradient: at least one held-out item was expected, got none")
    weights = {name: w.detach().requires_grad_() for name, w in _free(student).items()}
    alpha = trust.detach().requires_grad_()
    inner = inner_loss(student, weights, items, alpha, temperature=temperature)
    down = torch.autograd.grad(inner, list(weights.values()), create_graph=True)
    after = {
        name: (w.detach() - rate * d.detach()).requires_grad_()
        for (name, w), d in zip(weights.items(), down, strict=True)
    }
    loss = functional.cross_entropy(_says(student, after, held_out.inputs), held_out.given)
    outer = torch.autograd.grad(loss, list(after.values()))
    along = torch.stack([(d * o).sum() for d, o in zip(down, outer, strict=True)]).sum()
    return loss.detach(), -rate * torch.autograd.grad(along, alpha)[0]


class TrustLearner:
    """A student and the network that says how far to trust its teacher, learned in turns.

    Each step: trust is said of features of the items; the network moves to where, after a step of
    the student, held-out items would cost less; trust is said again, and the student makes its step
    of gradient descent on it. A step costs about three of distillation.

    Parameters
    ----------
    student
        Trained in place; see `hypergradient`. Of a large network, its last layer.
    means
        T̄ from `labelops.distill.trust.class_means`, shape (K, K).
    rate
        η of the student.
    net_rate
        Of Adam, for the network.
    temperature
        τ of KD. Only at 1 what is learned is the cross-entropy with one soft label
        (`labelops.distill.trust.fused_target`).
    seed
        Of the network's first weights.

    References
    ----------
    Hu et al.: Less or more from teacher: exploiting trilateral geometry for knowledge distillation.
    ICLR 2024.

    Examples
    --------
    >>> learner = TrustLearner(nn.Linear(2, 3), torch.eye(3), seed=0)
    >>> items = Taught(torch.zeros(4, 2), torch.zeros(4, 3), torch.tensor([0, 1, 2, 0]))
    >>> loss = learner.step(items, Known(torch.zeros(1, 2), torch.tensor([0])))
    >>> learner.trust(items).shape
    torch.Size([4])
    """

    def __init__(
        self,
        student: nn.Module,
        means: Tensor,
        *,
        rate: float = RATE,
        net_rate: float = NET_RATE,
        temperature: float = 1.0,
        seed: int = 0,
    ) -> None:
        check_positive("TrustLearner", rate=rate, net_rate=net_rate, temperature=temperature)
        self.student, self.means = student, means
        self.rate, self.temperature = rate, temperature
        self.net = RatioNet(seed=seed).to(means.device, means.dtype)
        self.adam = torch.optim.Adam(self.net.parameters(), lr=net_rate)

    def features(self, items: Taught) -> Tensor:
        """Return what trust is said of, shape (N, 9), without a derivative."""
        with torch.no_grad():
            said, teacher = exact(self.student(items.inputs)), exact(items.teacher)
            return trust_features(
                torch.softmax(said, dim=1), torch.softmax(teacher, dim=1), self.means, items.given
            )

    def trust(self, items: Taught) -> Tensor:
        """Return α as the network says it now, shape (N,), without a derivative."""
        with torch.no_grad():
            said: Tensor = self.net(self.features(items))
            return said

    def step(self, items: Taught, held_out: Known) -> float:
        """Let the network learn, then the student; return the loss of the held-out items.

        The loss is that after a step of the student with trust as it was said before.
        """
        trust = self.net(self.features(items))
        loss, slope = hypergradient(
            self.student,
            items,
            held_out,
            trust,
            rate=self.rate,
            temperature=self.temperature,
        )
        self.adam.zero_grad()
        trust.backward(slope)
        self.adam.step()
        now = self.trust(items)
        weights = _free(self.student)
        inner = inner_loss(self.student, weights, items, now, temperature=self.temperature)
        down = torch.autograd.grad(inner, list(weights.values()))
        with torch.no_grad():
            for weight, slope in zip(weights.values(), down, strict=True):
                weight -= self.rate * slope
        return float(loss)


def learn_trust(
    student: nn.Module,
    items: Taught,
    held_out: Known,
    *,
    rate: float = RATE,
    n_steps: int = STEPS,
    temperature: float = 1.0,
    seed: int = 0,
) -> np.ndarray:
    """Return how far the teacher is trusted, item by item, once a student has learned with it.

    Parameters
    ----------
    student
        Trained in place, on all items at once; see `TrustLearner`.
    items
        What is trained on, and of which trust is said; at least one.
    held_out
        Items whose labels are right. Wrong ones among them would teach α the noise.
    rate, temperature, seed
        As of `TrustLearner`.
    n_steps
        How many steps.

    Returns
    -------
    α in [0, 1], float64, shape (N,); the same for the same seed and order of items, whatever the
    number of threads. Where a sure teacher and the given class differ, low trust says that the
    teacher is wrong, and high trust that the label is; where they agree it says nothing.

    Raises
    ------
    ValueError
        If there are no items, or no held-out ones.

    Examples
    --------
    >>> items = Taught(torch.eye(2), torch.zeros(2, 2), torch.tensor([0, 1]))
    >>> held_out = Known(torch.eye(2), torch.tensor([0, 1]))
    >>> trust = learn_trust(nn.Linear(2, 2), items, held_out, n_steps=20)
    >>> bool((trust < 0.5).all())
    True
    """
    if not len(items.given):
        raise ValueError("learn_trust: at least one item was expected, got none")
    with one_thread():
        said = torch.softmax(exact(items.teacher), dim=1)
        means = class_means(sum_by_class(said.cpu().numpy(), items.given.cpu().numpy()))
        learner = TrustLearner(
            student,
            torch.from_numpy(means).to(said.device, said.dtype),
            rate=rate,
            temperature=temperature,
            seed=seed,
        )
        for _ in range(n_steps):
            learner.step(items, held_out)
        return np.asarray(learner.trust(items).cpu().numpy(), np.float64)
