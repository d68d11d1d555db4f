"""Train a student: any model on items with targets and weights, by any loss of an item.

The same bits for the same items, recipe and seed on a CPU, also where a training was stopped after
any step and resumed. Several processes share each batch and take the steps that one would take.
"""

# N items, D features, K classes, S side, n items of a batch

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from labelops.multilabel.labels import NO, UNKNOWN, YES
from labelops.nn.checkpoints import Checkpoint, Progress, restore
from labelops.nn.device import autocast, deterministic, moved
from labelops.nn.threads import one_thread
from labelops.nn.train import rate_at
from labelops.nn.transform import Changes, change, draw_changes, preprocessing

SUM_WITHIN = 1e-3
"""Probabilities of an item have to sum to 1 so closely: a target that sums to s is learned as if
its loss weighed s times as much, without a word."""

SLOWEST_START = 10
"""The average of weights after t steps forgets at least 9 / (10 + t): else it would be made of the
weights of the beginning for as long as decay means, which is longer than a short training."""


@dataclass(frozen=True, kw_only=True)
class StudentTraining:
    """How to train.

    Attributes
    ----------
    epochs : passes over the items.
    batch_rows : items a step at most, of all processes together.
    optimizer : SGD with Nesterov momentum 0.9, or AdamW.
    learning_rate : after warming up; falls to 0 along a cosine (`rate_at`).
    weight_decay : for all weights.
    ema_decay : of the moving average of weights that is the student in the end; None for the last
        weights.
    most_gradient : longer gradients are cut to this norm; None for no limit.
    flip, crop : random changes of pictures, see `augment`.
    """

    epochs: int
    batch_rows: int
    optimizer: Literal["sgd", "adamw"]
    learning_rate: float
    weight_decay: float
    ema_decay: float | None = None
    most_gradient: float | None = None
    flip: bool = False
    crop: int = 0


BLOCK_ROWS = 65_536


class Batch(NamedTuple):
    """What a loss is told of the items of a step.

    Attributes
    ----------
    rows : which items, int64, shape (n,); on the CPU, where what else a loss knows of items is.
    targets : theirs, on the device, shape (n,) or (n, K).
    """

    rows: Tensor
    targets: Tensor


class Share(NamedTuple):
    """Which part of every batch a process works on, where several train one student.

    Attributes
    ----------
    process : from 0.
    n : processes; more than one talk through the default group of `torch.distributed`.
    """

    process: int
    n: int


ALONE = Share(0, 1)

Items = Callable[[np.ndarray], np.ndarray]
"""Gives the items of some rows: features, float32, shape (n, D), or pictures, uint8, shape
(n, 3, S, S)."""

Loss = Callable[[Tensor, Batch], Tensor]
"""From logits, float32, shape (n, K), to the loss of each item, shape (n,)."""


class Second(NamedTuple):
    """Another view of every item, and a loss that hears of both.

    Attributes
    ----------
    items : gives the second view of some rows, as `Items` gives the first, and is not changed any
        more. The second argument is a seed, another at every step and the same in every process:
        what is drawn for an item should depend on it and on the row alone.
    loss : from logits of the first and of the second view, each (n, K), to the loss of each item.
    """

    items: Callable[[np.ndarray, int], np.ndarray]
    loss: Callable[[Tensor, Tensor, Batch], Tensor]


def cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the cross-entropy of class ids, int64, or of probabilities, shape (n, K).

    Examples
    --------
    >>> logits = torch.tensor([[0.0, 0.0]])
    >>> cross_entropy(logits, Batch(torch.tensor([0]), torch.tensor([1])))
    tensor([0.6931])
    """
    return functional.cross_entropy(logits, batch.targets, reduction="none")


def binary_cross_entropy(logits: Tensor, batch: Batch) -> Tensor:
    """Return the mean over K classes of the loss of 1 (yes) and 0 (no); −1 (unknown) counts 0.

    Examples
    --------
    >>> logits = torch.zeros(1, 4)
    >>> binary_cross_entropy(logits, Batch(torch.tensor([0]), torch.tensor([[1, 0, -1, -1]])))
    tensor([0.3466])
    """
    yes = (batch.targets == YES).to(logits.dtype)
    each = functional.binary_cross_entropy_with_logits(logits, yes, reduction="none")
    return each.masked_fill(batch.targets == UNKNOWN, 0.0).mean(dim=1)


def fit_student(
    model: nn.Module,
    items: Items,
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    n_classes: int,
    training: StudentTraining,
    seed: int,
    device: torch.device,
    loss: Loss = cross_entropy,
    second: Second | None = None,
    about: Mapping[str, object] | None = None,
    start: Checkpoint | None = None,
    after_step: Callable[[Progress], None] | None = None,
    share: Share = ALONE,
) -> nn.Module:
    """Train a student in place.

    A step goes down the gradient of (1 / n) Σ_i (w_i / w̄) ℓ_i over its items; w̄ is the mean weight
    of all items. So, on the whole, an item of weight 2 counts like two items, and one of weight 0
    is left out.

    Parameters
    ----------
    model
        From items to K logits. How items are normalised belongs to it (`Normalised`,
        `Standardised`).
    items
        Gives the items of some rows, in ascending order; in an order that does not depend on how
        they were stored.
    targets
        Class ids, int, shape (N,); or probabilities, float, shape (N, K); or states of lists, int8,
        1 (yes), 0 (no) and −1 (unknown), shape (N, K), with `binary_cross_entropy` or a like loss.
    weights
        ≥ 0, shape (N,).
    n_classes
        K.
    training
        How.
    seed
        ≥ 0; decides order, random changes of pictures and what the model drops.
    device
        Where.
    loss
        Of an item.
    second
        Another view of the items; then its loss counts instead of `loss`. Both views go through the
        model as one batch.
    about
        What else decides the training (which loss, which architecture, a hash of the items), as
        JSON has it: a checkpoint is resumed where all of it is the same.
    start
        Where to go on from.
    after_step
        Called after each step, in every process, with the state that `checkpoints.dump` stores. It
        must not change it.
    share
        Of this process. All are given the same arguments but for this one, and as much of the
        items as its rows are asked for.

    Returns
    -------
    The model, on the CPU, in evaluation mode; with averaged weights, where there is an average.

    Raises
    ------
    ValueError
        If shapes or values do not fit, all weights are 0, a class has no item left, the model has
        another number of classes, `start` is of another training, or weights are no longer finite
        or have no average.

    Notes
    -----
    Order depends on seed and epoch, all other randomness on seed and step, so there is none to be
    stored. Exact, bit for bit, on a CPU: repeated and resumed trainings with as many processes. On
    a GPU only as far as its kernels are deterministic. With another number of processes steps are
    equal up to the order of floating-point sums, unless the model normalises by statistics of a
    batch (each process takes its own part's, and the first one's are kept) or drops at random.

    An epoch's batches differ by one item in size at most; there is no rest that is left out.

    References
    ----------
    Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011 (Philox).
    Polyak, Juditsky: Acceleration of stochastic approximation by averaging. SIAM J. Control 1992.
    Li et al.: PyTorch Distributed: experiences on accelerating data parallel training. VLDB 2020.

    Examples
    --------
    >>> x = np.array([[-1.0], [1.0]], np.float32)
    >>> how = StudentTraining(
    ...     epochs=50, batch_rows=2, optimizer="sgd", learning_rate=1.0, weight_decay=0.0
    ... )
    >>> model = fit_student(
    ...     nn.Linear(1, 2), lambda rows: x[rows], np.array([0, 1]), np.ones(2),
    ...     n_classes=2, training=how, seed=0, device=torch.device("cpu"),
    ... )
    >>> model(torch.from_numpy(x)).argmax(dim=1)
    tensor([0, 1])
    """
    check_training(training, seed)
    rows = rows_to_learn(targets, weights, n_classes=n_classes)
    n_batches = -(-len(rows) // training.batch_rows)
    if len(rows) // n_batches < share.n:
        raise ValueError(
            f"student: an item for each of {share.n} processes was expected in every batch, got "
            f"batches of {len(rows) // n_batches}. Raise batch_rows, or take fewer processes"
        )
    relative = (weights / weights[rows].mean()).astype(np.float32)
    on_gpu = device.type == "cuda"
    memory = torch.channels_last if on_gpu else torch.preserve_format
    model.to(device).to(memory_format=memory)
    first = moved(_checked(items(rows[:1]), rows[:1]), device)
    _check_outputs(model, first, n_classes)
    changes = training.flip or training.crop > 0
    if changes and first.ndim != 4:
        raise ValueError(
            f"student: pictures to flip and crop were expected, got items of {first.ndim - 1} "
            "dimensions. Set flip = False and crop = 0"
        )
    model.train()
    progress = Progress(
        model=model,
        optimiser=_optimiser(model, training),
        average=_copy(model) if training.ema_decay is not None else None,
        recipe={
            **asdict(training),
            "seed": seed,
            "n_classes": n_classes,
            "n_items": len(rows),
            "preprocessing": preprocessing(model),
            "labels": _digest(targets, weights),
            **{f"about.{name}": fact for name, fact in (about or {}).items()},
        },
        n_steps=training.epochs * n_batches,
    )
    if start is not None:
        restore(progress, start)
    mine = slice(share.process, None, share.n)
    steps = range(progress.step, progress.n_steps)
    with contextlib.ExitStack() as stack:
        # One thread on a CPU: sums over a batch by several would depend on how many there are.
        stack.enter_context(contextlib.nullcontext() if on_gpu else one_thread())
        stack.enter_context(deterministic(device))
        stack.enter_context(torch.random.fork_rng(devices=[device] if on_gpu else []))
        net = model if share.n == 1 else DistributedDataParallel(model)
        for step, batch in zip(steps, batches(rows, steps, seed=seed, n=n_batches), strict=True):
            own = batch[mine]
            inputs = moved(_checked(items(own), own), device)
            if changes:
                # Drawn for the whole batch, so that they do not depend on who makes them.
                drawn = _changes(len(batch), training, seed=_seed(seed, step, 0)).of(mine)
                inputs = change(inputs, drawn, crop=training.crop)
            if second is not None:
                other = moved(_checked(second.items(own, _seed(seed, step, 0, 1)), own), device)
                inputs = _both(inputs, other)
            if inputs.ndim == 4:
                inputs = inputs.to(memory_format=memory)
            told = Batch(torch.from_numpy(own), moved(_as_target(targets[own]), device))
            _seed_device(device, _seed(seed, step, 1 + share.process))
            with autocast(device):
                logits: Tensor = net(inputs)
            if second is None:
                cost = loss(logits.float(), told)
            else:
                cost = second.loss(logits[: len(own)].float(), logits[len(own) :].float(), told)
            each = _of_items(cost, len(own))
            # Gradients of processes are averaged, not summed.
            total = (moved(relative[own], device) * each).sum() * (share.n / len(batch))
            _descend(progress, total, training)
            if progress.step % n_batches == 0:
                _check_finite(model, training.learning_rate)
            if after_step is not None:
                after_step(progress)
    if progress.average is not None:
        model.load_state_dict(_checked_average(progress.average))
    return model.to("cpu").to(memory_format=torch.contiguous_format).eval()


def batches(rows: np.ndarray, steps: range, *, seed: int, n: int) -> Iterator[np.ndarray]:
    """Yield the items of some steps in ascending order, of n steps an epoch.

    The order of an epoch depends on seed and epoch alone, so that any step can be begun with.

    Examples
    --------
    >>> both = [batch.tolist() for batch in batches(np.arange(5), range(4), seed=0, n=2)]
    >>> [len(batch) for batch in both], sorted(both[2] + both[3])
    ([3, 2, 3, 2], [0, 1, 2, 3, 4])
    >>> [batch.tolist() for batch in batches(np.arange(5), range(3, 4), seed=0, n=2)] == both[3:]
    True
    """
    order: list[np.ndarray] = []
    for step in steps:
        epoch, i = divmod(step, n)
        if i == 0 or not order:
            key = np.array([seed, epoch], np.uint64)
            rng = np.random.Generator(np.random.Philox(key=key))
            order = np.array_split(rows[rng.permutation(len(rows))], n)
        yield np.sort(order[i])


def ema_decay_at(step: int, decay: float) -> float:
    """Return how much of an average of weights stays at a step: min(decay, (1 + t) / (10 + t)).

    Examples
    --------
    >>> ema_decay_at(0, 0.99), ema_decay_at(10, 0.99), ema_decay_at(10_000, 0.99)
    (0.1, 0.55, 0.99)
    """
    return min(decay, (1 + step) / (SLOWEST_START + step))


def check_training(training: StudentTraining, seed: int) -> None:
    """Refuse settings that no training can have.

    Raises
    ------
    ValueError
        Names the first that is out of range.
    """
    decay, most = training.ema_decay, training.most_gradient
    wanted = {
        "seed ≥ 0": seed >= 0,
        "epochs ≥ 1": training.epochs >= 1,
        "batch_rows ≥ 1": training.batch_rows >= 1,
        "optimizer sgd or adamw": training.optimizer in ("sgd", "adamw"),
        "learning_rate > 0": 0 < training.learning_rate < np.inf,
        "weight_decay ≥ 0": 0 <= training.weight_decay < np.inf,
        "0 ≤ ema_decay < 1 or none": decay is None or 0 <= decay < 1,
        "most_gradient > 0 or none": most is None or 0 < most < np.inf,
        "crop ≥ 0": training.crop >= 0,
    }
    for what, is_so in wanted.items():
        if not is_so:
            raise ValueError(f"student: {what} was expected, got seed {seed} and {training}")


def rows_to_learn(targets: np.ndarray, weights: np.ndarray, *, n_classes: int) -> np.ndarray:
    """Return which items have a weight, once they are found fit to learn from.

    Raises
    ------
    ValueError
        If shapes do not fit, a weight is negative or not finite, all are 0, a target of an item
        with a weight is none, or a class has no item left.

    Examples
    --------
    >>> rows_to_learn(np.array([0, 1, 1]), np.array([1.0, 0.0, 2.0]), n_classes=2)
    array([0, 2])
    """
    if weights.ndim != 1 or targets.shape not in ((len(weights),), (len(weights), n_classes)):
        raise ValueError(
            f"student: targets of shape (N,) or (N, {n_classes}) and as many weights were "
            f"expected, got {targets.shape} and {weights.shape}"
        )
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise ValueError(
            f"student: weights must be finite and not negative; that of item {bad[0]} is "
            f"{weights[bad[0]]}"
        )
    rows = np.flatnonzero(weights)
    if not len(rows):
        raise ValueError(
            f"student: an item with a weight above 0 was expected, got none of {len(weights)}"
        )
    n_of_class = np.zeros(n_classes, np.int64)
    # In parts: there may be more probabilities than fit into memory.
    for start in range(0, len(rows), BLOCK_ROWS):
        block = rows[start : start + BLOCK_ROWS]
        n_of_class += _count_targets(targets[block], block, n_classes)
    if (n_of_class == 0).any():
        empty = np.flatnonzero(n_of_class == 0)
        raise ValueError(
            f"student: an item with a weight was expected of every class, got none of "
            f"{len(empty)} of {n_classes}, the first being {empty[0]}. Leave them out of the "
            "classes, or keep items of them"
        )
    return rows


def _count_targets(targets: np.ndarray, rows: np.ndarray, n_classes: int) -> np.ndarray:
    """Return how many items have some of each class, once all targets are found to be some."""
    is_id = targets.ndim == 1
    if is_id:
        is_bad = (targets < 0) | (targets >= n_classes) | (targets % 1 != 0)
        wanted = f"class ids in 0 … {n_classes - 1}"
    elif np.issubdtype(targets.dtype, np.floating):
        is_bad = ~((targets >= 0).all(axis=1) & (np.abs(targets.sum(axis=1) - 1) <= SUM_WITHIN))
        wanted = f"probabilities that sum to 1 within {SUM_WITHIN}"
    else:
        is_bad = ~np.isin(targets, (NO, YES, UNKNOWN)).all(axis=1)
        wanted = "states 1, 0 and −1"
    if is_bad.any():
        first = int(np.argmax(is_bad))
        raise ValueError(
            f"student: {wanted} were expected as targets; item {rows[first]} has "
            f"{targets[first] if is_id else _shown(targets[first])}"
        )
    if is_id:
        return np.bincount(targets.astype(np.int64), minlength=n_classes)
    n_of_class: np.ndarray = (targets > 0).sum(axis=0)
    return n_of_class


def _shown(values: np.ndarray) -> str:
    sign = f"sum {values.sum():.4f}, " if np.issubdtype(values.dtype, np.floating) else ""
    return f"values from {values.min()} to {values.max()} ({sign}of {len(values)})"


def _check_outputs(model: nn.Module, item: Tensor, n_classes: int) -> None:
    with torch.no_grad():
        found = tuple(model.eval()(item).shape)
    if found != (1, n_classes):
        raise ValueError(
            f"student: a model of {n_classes} classes was expected, its output for one item has "
            f"shape {found}"
        )


def _optimiser(model: nn.Module, training: StudentTraining) -> torch.optim.Optimizer:
    make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    if training.optimizer == "sgd":
        make = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    return make(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)


def _descend(progress: Progress, loss: Tensor, training: StudentTraining) -> None:
    """Take a step, and let the average follow."""
    for group in progress.optimiser.param_groups:
        group["lr"] = training.learning_rate * rate_at(progress.step, progress.n_steps)
    progress.optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    if training.most_gradient is not None:
        nn.utils.clip_grad_norm_(progress.model.parameters(), training.most_gradient)
    progress.optimiser.step()
    if progress.average is not None and training.ema_decay is not None:
        decay = ema_decay_at(progress.step, training.ema_decay)
        _follow(progress.average, progress.model, decay=decay)
    progress.step += 1


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def _follow(average: dict[str, Tensor], model: nn.Module, *, decay: float) -> None:
    """Move an average of a model's state towards it; what is counted is copied."""
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _changes(n: int, training: StudentTraining, *, seed: int) -> Changes:
    generator = torch.Generator().manual_seed(seed)
    return draw_changes(n, flip=training.flip, crop=training.crop, generator=generator)


def _checked_average(average: dict[str, Tensor]) -> dict[str, Tensor]:
    bad = [name for name, value in average.items() if value.isnan().any()]
    if bad:
        raise ValueError(
            f"student: an average of numbers was expected, that of {bad[0]} is none. Is it "
            "infinite in the model? Train without ema_decay"
        )
    return average


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])


def _seed_device(device: torch.device, seed: int) -> None:
    """Seed what a model draws from there.

    `torch.manual_seed` seeds all kinds of devices, and notes where it was called from for each that
    is not in use: several times as long as a step of a small student.
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _checked(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    if len(values) != len(rows) or values.dtype not in (np.float32, np.uint8):
        raise ValueError(
            f"student: {len(rows)} items, float32 or uint8, were expected, got {len(values)} of "
            f"{values.dtype}"
        )
    if values.dtype == np.float32 and not np.isfinite(values).all():
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        raise ValueError(
            f"student: features must be finite; item {rows[bad][0]} has one that is not"
        )
    return values


def _both(inputs: Tensor, other: Tensor) -> Tensor:
    if (other.shape, other.dtype) != (inputs.shape, inputs.dtype):
        raise ValueError(
            f"student: a second view like the first, {inputs.dtype} of shape "
            f"{tuple(inputs.shape)}, was expected, got {other.dtype} of {tuple(other.shape)}"
        )
    return torch.cat([inputs, other])


def _as_target(targets: np.ndarray) -> np.ndarray:
    """Return targets in the type that torch's losses take."""
    is_float = np.issubdtype(targets.dtype, np.floating) and targets.ndim == 2
    kind = np.float32 if is_float else np.int64 if targets.ndim == 1 else np.int8
    return targets.astype(kind)


def _of_items(each: Tensor, n: int) -> Tensor:
    if each.shape != (n,):
        raise ValueError(
            f"student: a loss of each of {n} items was expected, got shape {tuple(each.shape)}"
        )
    return each


def _check_finite(model: nn.Module, learning_rate: float) -> None:
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise ValueError(
            f"student: training must keep weights finite; with learning_rate {learning_rate} it "
            "diverged. Lower it"
        )
