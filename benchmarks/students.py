"""Two small students and what they are trained on; every arm gets the same recipe.

The settings below were fixed before any of them was run, are the same for all sets and arms, and
use no truth: not to find a good student, but to see what each way of treating wrong labels does to
an ordinary one. The linear student averages errors out; the network remembers them.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

EPOCHS = 20
BATCH = 256
RATE = 1e-3
DECAY = 1e-2
HIDDEN = 512
DIMENSIONS = 256
"""Main axes of the features that students see; more only cost time."""
RIDGE = 1e-3
"""Per item and coefficient of standardised features, in the linear student."""


class TrainingSet(NamedTuple):
    """What a student is trained on.

    Attributes
    ----------
    rows : positions of the items, (M,).
    targets : probability of every class, (M, K).
    weights : (M,).
    """

    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


def hard(
    rows: np.ndarray, labels: np.ndarray, n_classes: int, weights: object = 1.0
) -> TrainingSet:
    """Return a training set of one class an item."""
    targets = np.zeros((len(rows), n_classes), np.float32)
    targets[np.arange(len(rows)), labels] = 1
    return TrainingSet(rows, targets, np.broadcast_to(np.float32(weights), len(rows)))


def inputs(train: np.ndarray, test: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both sets standardised and turned onto the main axes of all items of the first.

    No label plays a part, and every arm sees the same inputs.
    """
    mean = train.mean(axis=0, dtype=np.float64)
    std = np.maximum(train.std(axis=0, dtype=np.float64), 1e-6)

    def scaled(array: np.ndarray) -> np.ndarray:
        return np.asarray((array - mean) / std).astype(np.float32)

    x = scaled(train)
    axes = np.linalg.eigh((x.T @ x).astype(np.float64))[1][:, ::-1][:, :DIMENSIONS]
    turn = axes.astype(np.float32)
    return torch.from_numpy(x @ turn), torch.from_numpy(scaled(test) @ turn)


def linear(x: torch.Tensor, data: TrainingSet, seed: int) -> nn.Module:
    """Fit multinomial logistic regression from zero; convex, so the seed plays no part."""
    inputs, targets, weights = _tensors(x, data)
    model = nn.Linear(x.shape[1], targets.shape[1])
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(
        model.parameters(), max_iter=100, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = _loss(model(inputs), targets, weights) + RIDGE * model.weight.square().sum() / 2
        value.backward()
        return value

    optimizer.step(loss)
    return model


def network(x: torch.Tensor, data: TrainingSet, seed: int) -> nn.Module:
    """Train a network with one hidden layer by AdamW with a cosine schedule."""
    torch.manual_seed(seed)
    inputs, targets, weights = _tensors(x, data)
    model = nn.Sequential(
        nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, targets.shape[1])
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    # As many steps for every arm, whatever it has left out.
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    done = 0
    while done < steps:
        for part in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            _loss(model(inputs[part]), targets[part], weights[part]).backward()
            optimizer.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    return model


STUDENTS = {"linear": linear, "network": network}


def accuracy(model: nn.Module, x: torch.Tensor, true: np.ndarray) -> float:
    """Return the share of test items that a student gets right."""
    with torch.inference_mode():
        return float((model(x).argmax(dim=1).numpy() == true).mean())


def _tensors(x: torch.Tensor, data: TrainingSet) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = torch.from_numpy(np.asarray(data.rows, np.int64))
    weights = torch.from_numpy(np.array(data.weights, np.float32))
    return (
        x[rows],
        torch.from_numpy(np.array(data.targets, np.float32)),
        weights / weights.mean(),
    )


def _loss(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted mean cross-entropy with soft targets."""
    return (nn.functional.cross_entropy(logits, targets, reduction="none") * weights).mean()
