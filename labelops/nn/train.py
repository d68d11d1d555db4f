"""Train one classifier a fold; the same answer for any number of cores."""

import contextlib
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from labelops.nn.classifier import Classifier
from labelops.nn.device import autocast, deterministic, moved
from labelops.nn.threads import one_thread
from labelops.nn.transform import Normalised, augment

# N items, K classes, S side, F folds

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises from 0; batch statistics settle first."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How to train.

    Attributes
    ----------
    epochs : passes over the items.
    batch_rows : items a step.
    optimizer : SGD with Nesterov momentum 0.9, or AdamW.
    learning_rate : after warming up; falls to 0 along a cosine.
    weight_decay : for all weights.
    flip, crop : random changes of the pictures, see `augment`.
    mean, std : pictures are normalised by, channel by channel.
    """

    epochs: int
    batch_rows: int
    optimizer: Literal["sgd", "adamw"]
    learning_rate: float
    weight_decay: float
    flip: bool
    crop: int
    mean: Sequence[float]
    std: Sequence[float]


def rate_at(step: int, n_steps: int) -> float:
    """Return the share of the learning rate at a step.

    Examples
    --------
    >>> [round(rate_at(step, 100), 2) for step in (0, 4, 52, 99)]
    [0.2, 1.0, 0.5, 0.0]
    """
    n_warm = max(1, round(WARM_UP * n_steps))
    if step < n_warm:
        return (step + 1) / n_warm
    return 0.5 * (1 + math.cos(math.pi * (step - n_warm + 1) / (n_steps - n_warm + 1)))


def train(
    model: Classifier,
    pictures: np.ndarray,
    given: np.ndarray,
    rows: np.ndarray,
    *,
    training: Training,
    seed: int,
    device: torch.device,
) -> Classifier:
    """Train a classifier in place on some of the items.

    Parameters
    ----------
    model
        From `new_classifier`.
    pictures
        uint8, shape (N, 3, S, S); may be a memory map, each step reads its batch.
    given
        Class ids, shape (N,).
    rows
        Which items to train on.
    training
        How.
    seed
        Decides the order of the items and the changes of the pictures.
    device
        Where.

    Returns
    -------
    The model, on the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        If a weight is no longer finite.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    generator = torch.Generator().manual_seed(seed)
    on_gpu = device.type == "cuda"
    memory = torch.channels_last if on_gpu else torch.preserve_format
    net = Normalised(model, mean=training.mean, std=training.std)
    net = net.to(device).to(memory_format=memory).train()
    make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW
    if training.optimizer == "sgd":
        make = partial(torch.optim.SGD, momentum=0.9, nesterov=True)
    optimiser = make(
        model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay
    )
    # A single item is left over to no step: its batch statistics would be undefined.
    starts = [s for s in range(0, len(rows), training.batch_rows) if len(rows) - s > 1]
    n_steps, step = training.epochs * len(starts), 0
    n_features = model.head.in_features
    # One thread on a CPU: sums over a batch by several would depend on how many there are.
    with contextlib.nullcontext() if on_gpu else one_thread():
        for _ in range(training.epochs):
            order = rows[rng.permutation(len(rows))]
            for start in starts:
                batch = np.sort(order[start : start + training.batch_rows])
                images = moved(pictures[batch], device).contiguous(memory_format=memory)
                wanted = moved(given[batch].astype(np.int64), device)
                images = augment(
                    images, flip=training.flip, crop=training.crop, generator=generator
                )
                for group in optimiser.param_groups:
                    group["lr"] = training.learning_rate * rate_at(step, n_steps)
                with autocast(device):
                    logits: Tensor = net(images)[:, n_features:]
                loss = functional.cross_entropy(logits.float(), wanted)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                step += 1
    if not all(bool(p.isfinite().all()) for p in model.parameters()):
        raise ValueError(
            f"training must end with finite weights; with learning_rate "
            f"{training.learning_rate} it diverged. Lower it"
        )
    return model.to("cpu").to(memory_format=torch.contiguous_format).eval()


def train_folds(
    build: Callable[[int], Classifier],
    pictures: np.ndarray,
    given: np.ndarray,
    fold: np.ndarray,
    *,
    n_folds: int,
    training: Training,
    seeds: Sequence[int],
    device: torch.device,
    n_threads: int | None = None,
) -> list[Classifier]:
    """Train one classifier for each fold on the items outside it.

    Parameters
    ----------
    build
        Gives the untrained classifier of a fold.
    pictures, given
        As in `train`; items in an order that does not depend on how they were stored.
    fold
        Each item's fold, shape (N,).
    n_folds
        F.
    training, device
        As in `train`.
    seeds
        One a fold.
    n_threads
        Folds trained beside each other on a CPU; None for one a core. Does not change the answer.

    Notes
    -----
    Deterministic on a CPU: a fold is trained by one thread, since sums over a batch by several
    depend on how many. A GPU trains one fold after the other, with cuDNN's deterministic
    algorithms.
    """

    def work(f: int) -> Classifier:
        rows = np.flatnonzero(fold != f)
        return train(
            models[f], pictures, given, rows, training=training, seed=seeds[f], device=device
        )

    models = [build(f) for f in range(n_folds)]
    with deterministic(device):
        if device.type != "cpu" or any(draws_at_random(model) for model in models):
            # Dropout draws from the one global generator, so there is no doing it side by side.
            trained = []
            for f in range(n_folds):
                with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                    torch.manual_seed(seeds[f])
                    trained.append(work(f))
            return trained
        threads = n_threads or len(os.sched_getaffinity(0))
        with ThreadPoolExecutor(min(threads, n_folds)) as pool:
            return list(pool.map(work, range(n_folds)))


def draws_at_random(model: nn.Module) -> bool:
    """Say whether a model in training drops something at random.

    Examples
    --------
    >>> draws_at_random(nn.Dropout(0.5)), draws_at_random(nn.Linear(1, 1))
    (True, False)
    """
    return any(
        ("Dropout" in type(module).__name__ or "StochasticDepth" in type(module).__name__)
        and float(getattr(module, "p", 0.0)) > 0
        for module in model.modules()
    )
