"""Linear models on fixed features: all folds fitted together, streaming, to the same bits.

Blocks of items stream by in a fixed order; each is worked on by one thread, in single precision;
losses and gradients are added up in double precision in the order of the blocks, so the number of
threads changes nothing. The losses are convex, so what is found does not depend on where the search
began.
"""

import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, Literal, NamedTuple, Protocol, Self, TypedDict, TypeVar

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import Tensor

from labelops.fast.products import affine
from labelops.nn.threads import one_thread

# N items, D features, K classes, F folds; the F · K columns of a product are all classes of fold 0,
# then of fold 1, …

BLOCK_CELLS = 1 << 22
"""Rows × folds × classes of a block stay below it: 16 MiB of logits."""

PREDICT_ROWS = 1024

CURVATURE = 0.25
"""The most that the loss of two classes is curved per unit of variance."""

CHOICES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 3e-4, 1e-4, 3e-5, 1e-5)
"""Penalties tried from the strongest down."""

Link = Literal["softmax", "sigmoid"]


G = TypeVar("G")


class Block(NamedTuple, Generic[G]):
    """Some items: features (n, D), what was said of them, folds (n,)."""

    features: np.ndarray
    given: G
    fold: np.ndarray


Blocks = Callable[[], Iterable[Block[G]]]
"""Gives the same blocks in the same order whenever it is called."""


class Scale(NamedTuple):
    """Mean and standard deviation of each feature, float64, shape (D,); 1 where it is constant."""

    mean: np.ndarray
    std: np.ndarray


class Heads(NamedTuple):
    """One linear model a fold, fitted to the items outside it.

    Attributes
    ----------
    weight : float64, shape (F, D, K), for standardised features.
    bias : float64, shape (F, K).
    scale : how features are standardised.
    l2 : penalty used.
    n_passes : how often the items were gone through.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: Scale
    l2: float
    n_passes: int

    def arrays(self) -> Mapping[str, np.ndarray]:
        """Return everything as plain arrays."""
        return {
            "weight": self.weight,
            "bias": self.bias,
            "mean": self.scale.mean,
            "std": self.scale.std,
            "l2": np.array(self.l2),
            "n_passes": np.array(self.n_passes),
        }

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """Return the heads that `arrays` gave."""
        return cls(
            weight=arrays["weight"],
            bias=arrays["bias"],
            scale=Scale(arrays["mean"], arrays["std"]),
            l2=float(arrays["l2"]),
            n_passes=int(arrays["n_passes"]),
        )


def block_rows(*, n_classes: int, n_folds: int, least: int = 256) -> int:
    """Return how many rows a block should have.

    Examples
    --------
    >>> block_rows(n_classes=10, n_folds=5), block_rows(n_classes=1000, n_folds=5)
    (2048, 838)
    """
    return int(np.clip(BLOCK_CELLS // (n_classes * n_folds), least, 2048))


def measure_scale(blocks: Iterable[Block[G]], n_features: int) -> Scale:
    """Return mean and standard deviation of every feature, in double precision.

    Summed about the first item, so that a large offset does not cancel the digits.
    """
    n = 0
    origin = np.zeros(n_features)
    total, squares = np.zeros(n_features), np.zeros(n_features)
    for block in blocks:
        if n == 0 and len(block.features):
            origin = block.features[0].astype(np.float64)
        shifted = block.features.astype(np.float64) - origin
        total += shifted.sum(axis=0)
        squares += (shifted * shifted).sum(axis=0)
        n += len(shifted)
    mean = total / max(n, 1)
    variance = np.maximum(squares / max(n, 1) - mean * mean, 0.0)
    # What is left of a constant feature is rounding; dividing by it would make noise of it.
    constant = variance <= 1e-12 * np.maximum(squares / max(n, 1), 1e-30)
    return Scale(origin + mean, np.where(constant, 1.0, np.sqrt(variance)))


class Loss(Protocol[G]):
    """What is minimised, and what tells how well it predicts."""

    def error(self, logits: Tensor, block: Block[G]) -> tuple[Tensor, Tensor]:
        """Return a block's part of the loss of all folds, and its slope by the logits.

        Logits are float32 of shape (n, F · K), and may be overwritten; the loss is float64.
        """

    def held_out(self, logits: Tensor, block: Block[G]) -> tuple[Tensor, Tensor]:
        """Return the loss under the models that have not seen the items, and by what to divide."""


MakeLoss = Callable[[Iterable[Block[G]]], Loss[G]]
"""Makes the loss of some items, when it has seen how many there are of what."""


class _Problem(Generic[G]):
    """The penalised loss of all folds at once, as a function of one flat vector.

    The first row of the vector, as a table (1 + D, F · K), holds the biases.
    """

    def __init__(
        self,
        blocks: Blocks[G],
        make_loss: MakeLoss[G],
        scale: Scale,
        *,
        device: torch.device,
        n_threads: int,
    ) -> None:
        self.blocks = blocks
        self.device = device
        self.n_threads = n_threads
        self.mean = torch.from_numpy(scale.mean.astype(np.float32)).to(device)
        self.inverse_std = torch.from_numpy((1 / scale.std).astype(np.float32)).to(device)
        self.n_items = 0
        self.loss = make_loss(self._counted())
        self.n_passes = 0

    def _counted(self) -> Iterator[Block[G]]:
        for block in self.blocks():
            self.n_items += len(block.fold)
            yield block

    def inputs(self, block: Block[G]) -> Tensor:
        """Return standardised features on the device."""
        # A copy of its own: what numpy maps from a file is not aligned the same every time.
        x = torch.from_numpy(np.array(block.features, np.float32)).to(self.device)
        return x.sub_(self.mean).mul_(self.inverse_std)

    def loss_and_gradient(self, theta: Tensor, block: Block[G]) -> tuple[Tensor, Tensor]:
        """Return a block's part of the loss and its gradient."""
        x, single = self.inputs(block), theta.to(torch.float32)
        loss, flat = self.loss.error(torch.addmm(single[:1], x, single[1:]), block)
        bias = flat.sum(dim=0, keepdim=True, dtype=torch.float64)
        return loss, torch.cat([bias, (x.T @ flat).to(torch.float64)])

    def held_out_loss(self, theta: Tensor, block: Block[G]) -> tuple[Tensor, Tensor]:
        """Return a block's summed loss under the models that have not seen its items."""
        x, single = self.inputs(block), theta.to(torch.float32)
        return self.loss.held_out(torch.addmm(single[:1], x, single[1:]), block)

    def covariance(self, block: Block[G]) -> tuple[Tensor, Tensor]:
        """Return a block's number of items and sum of x xᵀ."""
        x = self.inputs(block)
        n = torch.tensor(float(len(x)), dtype=torch.float64, device=self.device)
        return n, (x.T @ x).to(torch.float64)

    def total(self, work: Callable[[Block[G]], tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Add up a function of the blocks in their order, whichever is ready first."""
        self.n_passes += 1
        first = second = None
        for a, b in self._in_order(work):
            first = a if first is None else first + a
            second = b if second is None else second.add_(b)
        zero = torch.zeros((), dtype=torch.float64, device=self.device)
        return (zero if first is None else first), (zero if second is None else second)

    def _in_order(
        self, work: Callable[[Block[G]], tuple[Tensor, Tensor]]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        def alone(block: Block[G]) -> tuple[Tensor, Tensor]:
            with one_thread():
                return work(block)

        blocks = iter(self.blocks())
        ahead = list(itertools.islice(blocks, 2))
        blocks = itertools.chain(ahead, blocks)
        if self.n_threads == 1 or len(ahead) < 2:
            yield from map(alone, blocks)
            return
        with ThreadPoolExecutor(self.n_threads) as pool:
            waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
            for block in blocks:
                waiting.append(pool.submit(alone, block))
                if len(waiting) > self.n_threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def minimise(
        self, theta: Tensor, covariance: Tensor, *, l2: float, max_iter: int, tolerance: float
    ) -> Tensor:
        """Return where L-BFGS with strong Wolfe line search ends, begun at `theta`.

        It searches in v with W = L⁻ᵀ v and L Lᵀ = CURVATURE · cov(x) + λ I, in which the loss is
        about equally curved everywhere.
        """
        eye = torch.eye(len(covariance), dtype=torch.float64, device=self.device)
        root = torch.linalg.cholesky(CURVATURE * covariance + max(l2, 1e-9) * eye)
        v = torch.cat([theta[:1], root.T @ theta[1:]]).requires_grad_(True)
        optimiser = torch.optim.LBFGS(
            [v],
            max_iter=max_iter,
            history_size=10,
            tolerance_grad=0.0,
            tolerance_change=tolerance,
            line_search_fn="strong_wolfe",
        )

        def natural(v: Tensor) -> Tensor:
            weight = torch.linalg.solve_triangular(root.T, v[1:], upper=True)
            return torch.cat([v[:1], weight])

        def closure() -> Tensor:
            with torch.no_grad():
                at = natural(v)
                loss, gradient = self.total(partial(self.loss_and_gradient, at))
                gradient = gradient + torch.zeros_like(at)
                by_weight = gradient[1:] + l2 * at[1:]
                by_weight = torch.linalg.solve_triangular(root, by_weight, upper=False)
                v.grad = torch.cat([gradient[:1], by_weight])
                return loss + 0.5 * l2 * at[1:].square().sum()

        optimiser.step(closure)  # type: ignore[no-untyped-call]
        return natural(v.detach())


class Search(TypedDict, total=False):
    """Settings of `fit_linear` that all models share."""

    l2: float | None
    max_iter: int
    tolerance: float
    choose_on: int
    device: torch.device | None
    n_threads: int | None


def fit_linear(
    blocks: Blocks[G],
    make_loss: MakeLoss[G],
    *,
    n_features: int,
    n_classes: int,
    n_folds: int,
    l2: float | None = None,
    max_iter: int = 300,
    tolerance: float = 1e-5,
    choose_on: int = 20_000,
    device: torch.device | None = None,
    n_threads: int | None = None,
) -> Heads:
    """Minimise the sum over folds of a loss plus λ/2 ‖W_f‖², streaming over blocks.

    Parameters
    ----------
    blocks
        Called once a pass; items in a fixed order, cut at fixed places.
    make_loss
        The loss of some items.
    n_features, n_classes, n_folds
        D, K, F.
    l2
        λ; biases are free. None: the one of `CHOICES` that predicts the items of the first blocks
        best out of sample. It is chosen on about `choose_on` items and divided by how many times
        more there are in all, as a fixed prior would be.
    max_iter
        Most iterations of L-BFGS.
    tolerance
        Done when an iteration lowers the mean loss of a fold by less, in nats.
    choose_on
        How many items are enough to choose the penalty on.
    device
        Where to compute; None for the CPU.
    n_threads
        Blocks worked on at a time on a CPU; None for one a core. Does not change the answer.

    Notes
    -----
    Each pass takes O(N · D · F · K); memory holds a few blocks and 24 copies of the weights.

    References
    ----------
    Liu, Nocedal: On the limited memory BFGS method for large scale optimization. Mathematical
    Programming 45, 1989.
    """
    device = device or torch.device("cpu")
    threads = (n_threads or len(os.sched_getaffinity(0))) if device.type == "cpu" else 1
    shape, tolerance = (n_features + 1, n_folds * n_classes), tolerance * n_folds
    with one_thread():
        scale = measure_scale(blocks(), n_features)

        def problem(blocks: Blocks[G]) -> _Problem[G]:
            return _Problem(blocks, make_loss, scale, device=device, n_threads=threads)

        whole, sample = problem(blocks), problem(_first(blocks, choose_on))
        theta = torch.zeros(shape, dtype=torch.float64, device=device)
        n, covariance = sample.total(sample.covariance)
        covariance = covariance / torch.clamp(n, min=1.0) + torch.zeros(
            n_features, n_features, dtype=torch.float64, device=device
        )
        if l2 is None:
            l2, theta = _choose_l2(sample, theta, covariance, tolerance)
            l2 *= float(n) / max(whole.n_items, 1)
        theta = whole.minimise(theta, covariance, l2=l2, max_iter=max_iter, tolerance=tolerance)
    thetas = theta.cpu().numpy().reshape(n_features + 1, n_folds, n_classes).transpose(1, 0, 2)
    n_passes = whole.n_passes + sample.n_passes
    return Heads(thetas[:, 1:].copy(), thetas[:, 0].copy(), scale, l2, n_passes)


def _first(blocks: Blocks[G], n: int) -> Blocks[G]:
    """Return the leading blocks, until they have n items."""

    def leading() -> Iterator[Block[G]]:
        seen = 0
        for block in blocks():
            yield block
            seen += len(block.fold)
            if seen >= n:
                return

    return leading


def _choose_l2(
    problem: _Problem[G], theta: Tensor, covariance: Tensor, tolerance: float
) -> tuple[float, Tensor]:
    """Return the penalty with the least held-out loss, and the heads it gives."""
    best: tuple[float, float, Tensor] | None = None
    for l2 in CHOICES:
        theta = problem.minimise(theta, covariance, l2=l2, max_iter=60, tolerance=10 * tolerance)
        loss, n = problem.total(partial(problem.held_out_loss, theta))
        mean = float(loss / torch.clamp(n, min=1.0))
        if best is not None and mean >= best[0]:
            break
        best = (mean, l2, theta)
    assert best is not None
    return best[1], best[2]


def predict(
    heads: Heads,
    features: np.ndarray,
    fold: np.ndarray,
    *,
    link: Link = "softmax",
) -> np.ndarray:
    """Return each item's probabilities from the model that has not seen it.

    An item's are the same bit for bit whatever items are beside it.

    Parameters
    ----------
    heads
        The models.
    features
        Shape (N, D).
    fold
        Each item's fold, shape (N,).
    link
        From logits to probabilities: softmax for one class an item, sigmoid for a model a class.

    Returns
    -------
    float32, shape (N, K); with softmax, rows sum to 1.
    """
    probs = np.empty((len(features), heads.weight.shape[2]), np.float32)
    for f in np.unique(fold).tolist():
        rows = np.flatnonzero(fold == f)
        for start in range(0, len(rows), PREDICT_ROWS):
            part = rows[start : start + PREDICT_ROWS]
            scaled = (features[part] - heads.scale.mean) / heads.scale.std
            logits = affine(scaled, heads.weight[f], heads.bias[f])
            probs[part] = softmax(logits, axis=1) if link == "softmax" else expit(logits)
    return probs
