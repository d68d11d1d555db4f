"""Oracles: a loop in double precision with gradients by hand; trainings of one view."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labelops.nn import checkpoints
from labelops.nn.checkpoints import Checkpoint
from labelops.nn.mixing import consistency
from labelops.nn.student import Batch, Second, StudentTraining, batches, cross_entropy, fit_student
from tests.oracles import student as oracle

N, D, K = 23, 4, 3
SURE = 0.6
SGD = {"optimizer": "sgd", "learning_rate": 0.3, "weight_decay": 0.01}
ADAMW = {"optimizer": "adamw", "learning_rate": 0.05, "weight_decay": 0.1}


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D)).astype(np.float32)
    return x, rng.dirichlet(np.full(K, 0.5), N).astype(np.float32), rng.uniform(0.2, 3, N)


def linear() -> nn.Linear:
    model = nn.Linear(D, K)
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=p.shape)))
    return model


def dropping() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(D, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, K)
        )


def noisy(rows: np.ndarray, seed: int) -> np.ndarray:
    """The items with noise that depends on seed and row alone."""
    noise = [np.random.default_rng([seed, row]).normal(size=D) for row in rows]
    return data()[0][rows] + np.asarray(noise, np.float32) / 2


def agreeing(logits: Tensor, other: Tensor, batch: Batch) -> Tensor:
    return cross_entropy(logits, batch) + consistency(logits, other, threshold=SURE)


def fit(second: Second | None, model: nn.Module | None = None, **more: Any) -> nn.Module:
    x, q, weights = data()
    kind = more.pop("optimizer", SGD)
    return fit_student(
        model or linear(),
        lambda rows: x[rows],
        q,
        weights,
        n_classes=K,
        training=StudentTraining(**{"epochs": 3, "batch_rows": 8, **kind}),
        **{"seed": 5, "device": torch.device("cpu"), "second": second, **more},
    )


def theta(model: nn.Module) -> np.ndarray:
    weight, bias = (p.detach().numpy() for p in model.parameters())
    return np.vstack([weight.T, bias])


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_second__takes_the_steps_of_a_loop_with_gradients_by_hand(
    optimizer: dict[str, Any],
) -> None:
    x, q, weights = data()
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    seeds: list[int] = []

    def view(rows: np.ndarray, seed: int) -> np.ndarray:
        seen.append((rows, noisy(rows, seed)))
        seeds.append(seed)
        return seen[-1][1]

    model = fit(Second(view, agreeing), optimizer=optimizer)
    order = list(batches(np.arange(N), range(9), seed=5, n=3))
    assert [rows.tolist() for rows, _ in seen] == [rows.tolist() for rows in order]
    assert len(set(seeds)) == 9
    n_sure = 0

    def agreement(theta: np.ndarray, step: int) -> np.ndarray:
        """Of the mean of w_i times −log s_k(x′_i), k the class of which x_i is sure."""
        nonlocal n_sure
        rows, other = seen[step]
        total = np.zeros_like(theta)
        for i, row in enumerate(rows):
            s = oracle.softmax(np.append(x[row], 1.0) @ theta)
            if s.max() >= SURE:
                n_sure += 1
                one = np.append(other[i].astype(float), 1.0)
                d = oracle.softmax(one @ theta) - np.eye(K)[s.argmax()]
                total += weights[row] / weights.mean() * np.outer(one, d)
        return total / len(rows)

    last, _ = oracle.train(
        theta(linear()),
        *(x, q, weights, order),
        adamw=optimizer is ADAMW,
        learning_rate=optimizer["learning_rate"],
        weight_decay=optimizer["weight_decay"],
        more=agreement,
    )
    np.testing.assert_allclose(theta(model), last, atol=2e-5)
    assert 0 < n_sure < 3 * N
    assert np.abs(last - theta(fit(None, optimizer=optimizer))).max() > 0.05


def test_second__one_that_its_loss_does_not_hear_of_changes_nothing() -> None:
    deaf = Second(noisy, lambda logits, _, batch: cross_entropy(logits, batch))
    np.testing.assert_allclose(theta(fit(deaf)), theta(fit(None)), atol=1e-6)


def test_second__the_same_view_twice_is_as_one() -> None:
    x, _, _ = data()
    both = Second(
        lambda rows, _: x[rows],
        lambda one, two, batch: (cross_entropy(one, batch) + cross_entropy(two, batch)) / 2,
    )
    np.testing.assert_allclose(theta(fit(both)), theta(fit(None)), atol=1e-5)


def test_second__resumed_after_any_step_ends_with_the_same_bits() -> None:
    stored: list[bytes] = []

    def run(start: Checkpoint | None, later: list[bytes]) -> dict[str, Tensor]:
        return fit(
            Second(noisy, agreeing),
            dropping(),
            start=start,
            after_step=lambda progress: later.append(checkpoints.dump(progress)),
        ).state_dict()

    whole = run(None, stored)
    assert len(stored) == 9
    for step, state in enumerate(stored, 1):
        later: list[bytes] = []
        torch.manual_seed(step)
        again = run(checkpoints.load(state), later)
        assert all(torch.equal(again[name], whole[name]) for name in whole)
        assert later == stored[step:]


@pytest.mark.parametrize(
    ("view", "message"),
    [
        (lambda rows, _: np.zeros((len(rows), D + 1), np.float32), r"shape \(8, 4\), .*\(8, 5\)$"),
        (lambda rows, _: np.zeros((len(rows), D), np.uint8), r"got torch\.uint8 of \(8, 4\)$"),
        (lambda rows, _: np.zeros((len(rows) - 1, D), np.float32), r"8 items, .* got 7 of float32"),
        (lambda rows, _: np.full((len(rows), D), np.nan, np.float32), r"features must be finite"),
    ],
)
def test_second__a_view_unlike_the_first_is_refused(view: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fit(Second(view, agreeing))
