"""Oracles: separable pictures are learned; one thread and several agree bit by bit."""

import numpy as np
import pytest
import torch

from labelops.nn import train as module
from labelops.nn.classifier import Classifier, new_classifier
from labelops.nn.train import Training, draws_at_random, train, train_folds

CPU = torch.device("cpu")
TRAINING = Training(
    epochs=2,
    batch_rows=16,
    optimizer="sgd",
    learning_rate=0.05,
    weight_decay=5e-4,
    flip=True,
    crop=2,
    mean=(0.5, 0.5, 0.5),
    std=(0.25, 0.25, 0.25),
)


def bright_and_dark(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    given = np.arange(n) % 2
    images = rng.integers(0, 100, (n, 3, 32, 32)) + 120 * given[:, None, None, None]
    return images.astype(np.uint8), given


def build(name: str = "shufflenet_v2_x0_5") -> Classifier:
    return new_classifier(name, n_classes=2, seed=5)


def test_train__learns_what_is_plain_to_see() -> None:
    images, given = bright_and_dark(64)
    training = Training(**{**vars(TRAINING), "epochs": 15, "batch_rows": 8})
    model = train(build(), images, given, np.arange(48), training=training, seed=1, device=CPU)
    net = module.Normalised(model, mean=TRAINING.mean, std=TRAINING.std).eval()
    with torch.no_grad():
        output = net(torch.from_numpy(images[48:]))
    assert output.shape == (16, 1024 + 2)
    assert (output[:, 1024:].argmax(dim=1).numpy() == given[48:]).all()


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_train_folds__the_number_of_threads_changes_no_bit(name: str) -> None:
    images, given = bright_and_dark(40)
    training = Training(**{**vars(TRAINING), "epochs": 1})
    states = []
    for threads in (1, 2):
        models = train_folds(
            lambda f: build(name),
            images,
            given,
            np.arange(40) % 2,
            n_folds=2,
            training=training,
            seeds=[3, 4],
            device=CPU,
            n_threads=threads,
        )
        states.append([model.state_dict() for model in models])
    assert draws_at_random(build(name)) == (name == "mobilenet_v3_small")
    for one, more in zip(*states, strict=True):
        assert all(torch.equal(one[key], more[key]) for key in one)
    assert any(not torch.equal(states[0][0][key], states[0][1][key]) for key in states[0][0])
    assert not torch.are_deterministic_algorithms_enabled()


def test_train__does_not_look_at_the_rows_left_out() -> None:
    images, given = bright_and_dark(24)
    states = []
    for filler in (0, 255):
        images[20:] = filler
        model = train(build(), images, given, np.arange(20), training=TRAINING, seed=1, device=CPU)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


@pytest.mark.parametrize("n", [0, 1])
def test_train__with_hardly_any_items_leaves_the_model_as_it_is(n: int) -> None:
    images, given = bright_and_dark(4)
    model = train(build(), images, given, np.arange(n), training=TRAINING, seed=1, device=CPU)
    before = build().state_dict()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_train__divergence_is_refused() -> None:
    images, given = bright_and_dark(32)
    wild = Training(**{**vars(TRAINING), "learning_rate": 1e30})
    with pytest.raises(ValueError, match=r"with learning_rate 1e\+30 it diverged\. Lower it$"):
        train(build(), images, given, np.arange(32), training=wild, seed=1, device=CPU)


def test_new_classifier__takes_the_weights_of_all_but_the_head() -> None:
    weights = {
        key.removeprefix("backbone."): value
        for key, value in build().state_dict().items()
        if key.startswith("backbone.")
    }
    model = new_classifier("shufflenet_v2_x0_5", n_classes=5, seed=9, weights=weights)
    state = model.backbone.state_dict()
    assert all(torch.equal(state[key], weights[key]) for key in weights)
    assert all(p.requires_grad for p in model.parameters())
    assert model.head.out_features == 5


def test_new_classifier__leaves_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    build()
    assert torch.equal(torch.rand(1), expected)
