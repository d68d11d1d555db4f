"""Oracles: loops in double precision, gradients by hand; equivalences of weights and targets."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labelops.nn import checkpoints, distill_losses
from labelops.nn.checkpoints import Checkpoint, Progress
from labelops.nn.soft_views import load_views, take_views, view_target
from labelops.nn.student import (
    Batch,
    StudentTraining,
    batches,
    binary_cross_entropy,
    cross_entropy,
    fit_student,
    rows_to_learn,
)
from labelops.nn.transform import Normalised, Standardised
from labelops.soft.views import Coding, decode, encode
from tests.oracles import student as oracle

CPU = torch.device("cpu")
N, D, K = 23, 4, 3
SGD = {"optimizer": "sgd", "learning_rate": 0.3, "weight_decay": 0.01}
ADAMW = {"optimizer": "adamw", "learning_rate": 0.05, "weight_decay": 0.1}


def how(**changes: Any) -> StudentTraining:
    return StudentTraining(**{"epochs": 3, "batch_rows": 8, **SGD, **changes})


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, probabilities and weights."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(K, 0.5), N).astype(np.float32)
    return rng.normal(size=(N, D)).astype(np.float32), probs, rng.uniform(0.2, 3, N)


def linear(seed: int = 0, n_classes: int = K) -> nn.Linear:
    model = nn.Linear(D, n_classes)
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.from_numpy(rng.normal(size=p.shape)))
    return model


def theta(model: nn.Module) -> np.ndarray:
    weight, bias = (p.detach().numpy() for p in model.parameters())
    return np.vstack([weight.T, bias])


def fit(
    x: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    *,
    model: nn.Module | None = None,
    training: StudentTraining | None = None,
    n_classes: int = K,
    **more: Any,
) -> nn.Module:
    return fit_student(
        model or linear(),
        lambda rows: x[rows],
        targets,
        weights,
        n_classes=n_classes,
        training=training or how(),
        **{"seed": 5, "device": CPU, **more},
    )


@pytest.mark.parametrize("kind", ["classes", "soft", "lists"])
@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
@pytest.mark.parametrize(("most", "decay"), [(None, None), (0.05, 0.6)])
def test_fit__takes_the_steps_of_a_loop_with_gradients_by_hand(
    kind: str, optimizer: dict[str, Any], most: float | None, decay: float | None
) -> None:
    x, q, weights = data()
    weights[[3, 7]] = 0
    targets: np.ndarray = q
    if kind == "classes":
        targets = q.argmax(axis=1)
        q = np.eye(K)[targets]
    if kind == "lists":
        targets = q = np.random.default_rng(1).integers(-1, 2, (N, K)).astype(np.int8)
    training = how(**optimizer, most_gradient=most, ema_decay=decay)
    kept = np.flatnonzero(weights)
    order = list(batches(kept, range(9), seed=5, n=3))
    assert {tuple(np.sort(np.concatenate(order[e : e + 3]))) for e in (0, 3, 6)} == {tuple(kept)}
    assert len({tuple(batch) for batch in order}) == 9
    last, average = oracle.train(
        theta(linear()),
        *(x, q, weights, order),
        lists=kind == "lists",
        adamw=optimizer is ADAMW,
        learning_rate=training.learning_rate,
        weight_decay=training.weight_decay,
        most=most,
        decay=decay,
    )
    loss = binary_cross_entropy if kind == "lists" else cross_entropy
    seen: list[np.ndarray] = []
    model = fit(
        x,
        targets,
        weights,
        training=training,
        loss=loss,
        after_step=lambda progress: seen.append(theta(progress.model).copy()),
    )
    assert len(seen) == 9
    np.testing.assert_allclose(seen[-1], last, atol=2e-5)
    np.testing.assert_allclose(theta(model), last if decay is None else average, atol=2e-5)
    assert np.abs(last - theta(linear())).max() > 0.1


def test_fit__hard_is_soft_with_all_on_one_class() -> None:
    x, q, weights = data()
    hard = q.argmax(axis=1)
    one, other = fit(x, hard, weights), fit(x, np.eye(K)[hard], weights)
    np.testing.assert_allclose(theta(one), theta(other), atol=1e-6)


def test_fit__an_item_of_weight_0_is_left_out_whatever_it_says() -> None:
    x, q, weights = data()
    out = np.array([2, 11, 22])
    weights[out], x[out], q[out] = 0, np.nan, -7
    kept = np.flatnonzero(weights)
    one, other = fit(x, q, weights), fit(x[kept], q[kept], weights[kept])
    assert (theta(one) == theta(other)).all()


def test_fit__an_item_of_double_weight_counts_like_two() -> None:
    x, q, _ = data()
    twice = np.concatenate([np.arange(N), [4, 9]])
    weights = np.bincount(twice)
    whole = how(batch_rows=100)
    one = fit(x, q, weights, training=whole)
    other = fit(x[twice], q[twice], np.ones(len(twice)), training=whole)
    np.testing.assert_allclose(theta(one), theta(other), atol=1e-5)
    scaled = fit(x, q, 8 * weights, training=whole)
    assert (theta(one) == theta(scaled)).all()


def dropping() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        hidden = nn.Sequential(
            nn.Linear(D, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.3), nn.Linear(6, K)
        )
    return Standardised(hidden, center=np.full(D, 0.1), scale=np.arange(D))


@pytest.mark.parametrize("optimizer", [SGD, ADAMW], ids=["sgd", "adamw"])
def test_fit__resumed_after_any_step_ends_with_the_same_bits(optimizer: dict[str, Any]) -> None:
    x, q, weights = data()
    training = how(**optimizer, ema_decay=0.9, epochs=2)
    stored: list[bytes] = []

    def run(start: Checkpoint | None = None, note: Callable[[Progress], None] | None = None) -> Any:
        model = fit(
            x, q, weights, model=dropping(), training=training, start=start, after_step=note
        )
        return model.state_dict()

    whole = run(note=lambda progress: stored.append(checkpoints.dump(progress)))
    assert len(stored) == 6
    for step, data_of_step in enumerate(stored, 1):
        later: list[bytes] = []
        torch.manual_seed(step)  # what another process would have drawn meanwhile
        again = run(
            checkpoints.load(data_of_step),
            lambda progress, later=later: later.append(checkpoints.dump(progress)),  # type: ignore[misc]
        )
        assert all(torch.equal(again[name], whole[name]) for name in whole)
        assert later == stored[step:]
    before = dropping().state_dict()
    assert not torch.equal(before["model.0.weight"], whole["model.0.weight"])
    # Counted, not averaged.
    assert whole["model.1.num_batches_tracked"] == 6


def test_fit__an_average_of_what_is_infinite_is_refused() -> None:
    x, q, weights = data()
    model = nn.Sequential(linear())
    model.register_buffer("mask", torch.full((1,), -torch.inf))
    fit(x, q, weights, model=model)
    with pytest.raises(ValueError, match=r"that of mask is none\. .* Train without ema_decay$"):
        fit(x, q, weights, model=model, training=how(ema_decay=0.5))


def test_fit__a_torn_checkpoint_is_made_again_from_the_one_before() -> None:
    x, q, weights = data()
    stored: list[bytes] = []
    whole = fit(
        x, q, weights, after_step=lambda progress: stored.append(checkpoints.dump(progress))
    )
    start = checkpoints.newest_whole([stored[6][:-1], stored[5], stored[4]])
    assert start is not None
    made: list[bytes] = []
    again = fit(
        x,
        q,
        weights,
        start=start,
        after_step=lambda progress: made.append(checkpoints.dump(progress)),
    )
    assert made == stored[6:]
    assert (theta(again) == theta(whole)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": how(batch_rows=9)}, r"differs in batch_rows: 8 → 9\. Train from"),
        ({"seed": 6}, r"differs in seed: 5 → 6\. "),
        ({"about": {"loss": "kd"}}, r'differs in about\.loss: absent → "kd"\. '),
        ({"weights": np.ones(N)}, r'differs in labels: "[0-9a-f]{64}" → "[0-9a-f]{64}"\. '),
        ({"model": nn.Sequential(linear())}, r"of another: model\.0\.bias: absent → \[3\]; "),
    ],
)
def test_fit__a_checkpoint_of_another_training_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    x, q, weights = data()
    stored: list[bytes] = []
    fit(x, q, weights, after_step=lambda progress: stored.append(checkpoints.dump(progress)))
    given = {"x": x, "targets": q, "weights": weights, "start": checkpoints.load(stored[0])}
    with pytest.raises(ValueError, match=message):
        fit(**{**given, **changes})


def test_fit__a_checkpoint_of_pictures_normalised_otherwise_is_refused() -> None:
    images, given = np.zeros((4, 3, 2, 2), np.uint8), np.arange(4) % 2
    stored: list[bytes] = []

    def run(mean: float, start: Checkpoint | None = None) -> None:
        model = Normalised(
            nn.Sequential(nn.Flatten(1), nn.Linear(12, 2)), mean=(mean,) * 3, std=(0.25,) * 3
        )
        fit(
            images,
            given,
            np.ones(4),
            model=model,
            n_classes=2,
            start=start,
            after_step=lambda progress: stored.append(checkpoints.dump(progress)),
        )

    run(0.5)
    with pytest.raises(ValueError, match=r"preprocessing: .*0\.5, 0\.5, 0\.5.* → .*0\.4, 0\.4"):
        run(0.4, checkpoints.load(stored[0]))


def test_fit__leaves_the_global_state_alone() -> None:
    x, q, weights = data()
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    fit(x, q, weights, model=dropping())
    assert torch.equal(torch.rand(1), expected)
    assert not torch.are_deterministic_algorithms_enabled()


def test_fit__pictures_are_learned_with_changes_drawn_by_step() -> None:
    rng = np.random.default_rng(0)
    given = np.arange(40) % 2
    images = rng.integers(0, 100, (40, 3, 8, 8)) + 120 * given[:, None, None, None]
    images = images.astype(np.uint8)

    def pictures() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            net = nn.Sequential(
                nn.Conv2d(3, 4, 3),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(4, 2),
            )
        return Normalised(net, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def run(**changes: Any) -> Tensor:
        training = how(epochs=10, learning_rate=0.1, **changes)
        ones = np.ones(40)
        model = fit(images, given, ones, model=pictures(), training=training, n_classes=2)
        with torch.no_grad():
            logits: Tensor = model(torch.from_numpy(images))
        return logits

    logits = run(flip=True, crop=2)
    assert (logits.argmax(dim=1).numpy() == given).all()
    assert torch.equal(logits, run(flip=True, crop=2))
    assert not torch.equal(logits, run(flip=False, crop=2))


def test_fit__tells_a_loss_of_the_items() -> None:
    x, q, weights = data()
    seen = []

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        seen.append(batch.rows.numpy())
        assert torch.equal(batch.targets, torch.from_numpy(q[batch.rows]))
        return cross_entropy(logits, batch)

    fit(x, q, weights, loss=loss)
    assert [rows.tolist() for rows in seen] == [
        rows.tolist() for rows in batches(np.arange(N), range(9), seed=5, n=3)
    ]
    with pytest.raises(ValueError, match=r"a loss of each of 8 items was expected, got shape \(\)"):
        fit(x, q, weights, loss=lambda logits, batch: logits.mean())


def test_fit__stored_soft_labels_are_learned_as_what_they_decode_to() -> None:
    x, q, weights = data()
    given, coding = q.argmax(axis=1), Coding("prob", "f32", K)
    stored = encode(np.log(q), given, coding=coding, k=1)
    views = load_views(stored, coding=coding)

    def loss(logits: Tensor, batch: Batch) -> Tensor:
        target = view_target(take_views(views, batch.rows), coding=coding)
        return distill_losses.cross_entropy(logits, target)

    one = fit(x, given, weights, loss=loss)
    other = fit(x, decode(stored, coding=coding), weights)
    np.testing.assert_allclose(theta(one), theta(other), atol=1e-5)
    assert np.abs(theta(one) - theta(fit(x, given, weights))).max() > 0.01


def test_fit__one_item_of_one_class_is_enough() -> None:
    x, _, _ = data()
    model = linear(n_classes=1)
    fit(x[:1], np.zeros(1, np.int64), np.ones(1), model=model, n_classes=1)
    # The gradient of its only possible answer is 0: what is left is weight decay.
    last, _ = oracle.train(
        theta(linear(n_classes=1)),
        *(x[:1], np.ones((1, 1)), np.ones(1), [np.array([0])] * 3),
        learning_rate=0.3,
        weight_decay=0.01,
    )
    np.testing.assert_allclose(theta(model), last, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": np.zeros(N)}, r"an item with a weight above 0 was expected, got none of 23$"),
        ({"weights": np.full(N, -1.0)}, r"not negative; that of item 0 is -1.0$"),
        ({"weights": np.append(np.ones(N - 1), np.inf)}, r"that of item 22 is inf$"),
        ({"weights": np.ones(N - 1)}, r"as many weights were expected, got \(23, 3\) and \(22,\)$"),
        ({"targets": np.zeros((N, 2))}, r"shape \(N,\) or \(N, 3\)"),
        ({"targets": np.zeros((N, K))}, r"item 0 has values from 0.0 to 0.0 \(sum 0.0000, of 3\)$"),
        ({"targets": np.full((N, K), 2, np.int8)}, r"states 1, 0 and −1 were expected"),
        ({"targets": np.full(N, 0.5)}, r"class ids in 0 … 2 .* item 0 has 0.5$"),
        ({"targets": np.zeros((N, K, 1))}, r"got \(23, 3, 1\) and \(23,\)$"),
        ({"targets": np.arange(N)}, r"class ids in 0 … 2 were expected as targets; item 3 has 3$"),
        ({"targets": np.arange(N) % 2}, r"got none of 1 of 3, the first being 2\. Leave them out"),
        ({"targets": np.zeros((N, K), np.int8)}, r"got none of 3 of 3, the first being 0"),
        ({"model": linear(n_classes=5)}, r"a model of 3 classes was expected, .*shape \(1, 5\)$"),
        ({"x": np.full((N, D), np.nan, np.float32)}, r"features must be finite; item \d+ has one"),
        ({"x": np.zeros((N, D), np.float32)[:, :, None] + 1j}, r"float32 or uint8, were expected"),
        ({"seed": -1}, r"seed ≥ 0 was expected, got seed -1"),
        ({"training": how(batch_rows=0)}, r"batch_rows ≥ 1 was expected"),
        ({"training": how(flip=True)}, r"pictures to flip and crop were .* items of 1 dimensions"),
        ({"training": how(ema_decay=1.0)}, r"0 ≤ ema_decay < 1 or none was expected"),
        ({"training": how(learning_rate=1e30)}, r"with learning_rate 1e\+30 it diverged\. Lower"),
    ],
)
def test_fit__bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    x, q, weights = data()
    with pytest.raises(ValueError, match=message):
        fit(**{"x": x, "targets": q, "weights": weights, **changes})


def test_rows_to_learn__a_class_without_an_item_of_weight_is_refused() -> None:
    weights = np.array([1.0, 1.0, 0.0])
    with pytest.raises(ValueError, match=r"got none of 1 of 3, the first being 2"):
        rows_to_learn(np.array([0, 1, 2]), weights, n_classes=3)
    with pytest.raises(ValueError, match=r"got none of 1 of 3, the first being 2"):
        rows_to_learn(np.eye(3), weights, n_classes=3)


def test_rows_to_learn__no_item_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got none of 0$"):
        rows_to_learn(np.zeros(0, np.int64), np.zeros(0), n_classes=3)
