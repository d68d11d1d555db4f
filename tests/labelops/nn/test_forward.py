"""Oracles: the bare model; what a device out of memory was seen to be asked for."""

import threading

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from labelops.nn import architecture
from labelops.nn.device import pick_device
from labelops.nn.forward import Forward
from labelops.nn.pixels import Pixels
from labelops.nn.threads import one_thread
from labelops.nn.transform import IMAGENET_MEAN, IMAGENET_STD, Normalised, augment, square

CPU = torch.device("cpu")


class Tight(nn.Module):
    """Runs out of memory above some rows."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.asked: list[int] = []

    def forward(self, rows: Tensor) -> Tensor:
        self.asked.append(len(rows))
        if len(rows) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 2 * rows


def test_forward__out_of_memory_halves_the_batch_and_goes_on() -> None:
    model = Tight(room=5)
    forward = Forward(model, device=CPU, batch_rows=16)
    rows = np.arange(40, dtype=np.float32)[:, None]
    assert np.array_equal(forward(rows), 2 * rows)
    assert model.asked == [16, 8, *[4] * 10]
    assert forward.batch_rows == 4


def test_forward__no_room_for_one_row_says_so() -> None:
    forward = Forward(Tight(room=0), device=CPU, batch_rows=4)
    with pytest.raises(MemoryError, match=r"^cpu: memory for a batch of one row was"):
        forward(np.zeros((3, 1), np.float32))


def test_forward__every_batch_has_the_same_rows() -> None:
    model = Tight(room=100)
    forward = Forward(model, device=CPU, batch_rows=8)
    assert [len(part) for part in forward.stream([np.zeros((n, 1)) for n in (20, 0, 3)])] == [
        20,
        0,
        3,
    ]
    assert set(model.asked) == {8}


@pytest.mark.parametrize("name", ["pixels", "resnet18", "shufflenet_v2_x0_5", "convnext_tiny"])
def test_forward__an_items_answer_does_not_depend_on_its_company(name: str) -> None:
    if name == "pixels":
        net = Normalised(Pixels(), mean=(0, 0, 0), std=(1, 1, 1))
    else:
        model = architecture.fresh_backbone(name, seed=0)
        net = Normalised(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    forward = Forward(net, device=CPU, batch_rows=16)
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 32, 32), dtype=np.uint8)
    whole = forward(images)
    order = np.random.default_rng(1).permutation(len(images))
    for part in np.array_split(order, 3):
        assert np.array_equal(forward(images[part]), whole[part])


def test_forward__equals_the_bare_model() -> None:
    model = architecture.fresh_backbone("resnet18", seed=0)
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    net = Normalised(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    features = Forward(net, device=CPU, batch_rows=8)(images)
    scaled = torch.from_numpy(images).float() / 255
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        expected = model((scaled - mean) / std).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


def test_one_thread__is_restored_in_every_thread() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    inside, started = threading.Event(), threading.Event()
    seen: dict[str, int] = {}

    def other() -> None:
        with one_thread():
            seen["inside"] = torch.get_num_threads()
            started.set()
            inside.wait(10)
        seen["after"] = torch.get_num_threads()

    thread = threading.Thread(target=other)
    with one_thread(), one_thread():
        thread.start()
        started.wait(10)
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    inside.set()
    thread.join()
    assert seen == {"inside": 1, "after": 2}
    new: list[int] = []
    last = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    last.start()
    last.join()
    assert new == [2]
    torch.set_num_threads(before)


def test_device__a_missing_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == CPU
    with pytest.raises(ValueError, match=r"^device 'cuda:1' was expected, but torch finds"):
        pick_device("cuda:1")


@pytest.mark.parametrize("name", ["resnet18", "vgg11", "vit_b_16", "swin_t", "efficientnet_b0"])
def test_architecture__the_number_of_features_is_that_before_the_head(name: str) -> None:
    expected = {"resnet18": 512, "vgg11": 4096, "vit_b_16": 768, "swin_t": 768}
    assert architecture.n_features(name) == expected.get(name, 1280)


def test_architecture__a_misspelt_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"got 'resnet-18'; did you mean .*resnet18"):
        architecture.check_name("resnet-18")


def test_architecture__a_model_without_a_linear_head_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^a model whose last layer is linear was .* squeeze"):
        architecture.n_features("squeezenet1_1")


def test_architecture__weights_load_whatever_the_head() -> None:
    whole = architecture.build("shufflenet_v2_x0_5", n_classes=7).eval()
    weights = whole.state_dict()
    model = architecture.load_backbone("shufflenet_v2_x0_5", weights)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = whole(images)
        logits = model(images) @ weights["fc.weight"].T + weights["fc.bias"]
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("fault", ["missing", "left over", "shape"])
def test_architecture__weights_of_another_model_are_refused(fault: str) -> None:
    weights = dict(architecture.build("shufflenet_v2_x0_5", n_classes=7).state_dict())
    if fault == "missing":
        del weights["conv1.0.weight"]
    elif fault == "left over":
        weights["conv1.0.extra"] = torch.zeros(1)
    else:
        weights["conv1.0.weight"] = torch.zeros(1)
    with pytest.raises(
        ValueError, match=r"^weights of shufflenet_v2_x0_5 were expected; 1 of \d+ .* conv1\.0\."
    ):
        architecture.load_backbone("shufflenet_v2_x0_5", weights)


def test_square__is_the_middle() -> None:
    image = np.zeros((3, 4, 10), np.uint8)
    image[:, :, 3:7] = 200
    assert (square(image, 8) == 200).all()
    assert square(image.transpose(0, 2, 1), 4).shape == (3, 4, 4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (4000, 1)])
def test_square__extreme_shapes_stay_small(shape: tuple[int, int]) -> None:
    assert (square(np.full((3, *shape), 9, np.uint8), 32) == 9).all()


def test_augment__every_picture_is_a_shifted_and_perhaps_mirrored_one() -> None:
    images = torch.arange(6 * 3 * 8 * 8, dtype=torch.float32).reshape(6, 3, 8, 8)
    changed = augment(images, flip=True, crop=2, generator=torch.Generator().manual_seed(1))
    seen = set()
    for before, after in zip(images, changed, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2), mode="reflect")
        matches = [
            (r, c, flip)
            for r in range(5)
            for c in range(5)
            for flip in (False, True)
            if torch.equal(_window(padded, before, r, c, flip), after)
        ]
        assert len(matches) == 1
        seen.add(matches[0])
    assert len(seen) > 1


def _window(padded: Tensor, image: Tensor, r: int, c: int, flip: bool) -> Tensor:
    if flip:
        padded = torch.nn.functional.pad(image.flip(-1), (2, 2, 2, 2), mode="reflect")
    return padded[:, r : r + 8, c : c + 8]


def test_pixels__features_are_finite_on_flat_pictures() -> None:
    features = Pixels()(torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)]))
    assert bool(features.isfinite().all())


def test_pixels__directions_are_told_apart() -> None:
    """A linear classifier on them separates horizontal from vertical edges at any place."""
    upright, flat = torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32)
    upright[..., 12:20], flat[..., 12:20, :] = 1, 1
    a, b = Pixels()(upright)[0], Pixels()(flat)[0]
    shifted = Pixels()(upright.roll(1, dims=-1))[0]
    assert (a - shifted).norm() < 0.5 * (a - b).norm()


@pytest.mark.gpu
def test_forward__a_gpu_gives_nearly_the_same() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    images = np.random.default_rng(0).integers(0, 256, (40, 3, 64, 64), dtype=np.uint8)
    features = []
    for kind in ("cpu", "cuda"):
        model = architecture.fresh_backbone("resnet18", seed=0)
        net = Normalised(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        features.append(Forward(net, device=torch.device(kind), batch_rows=16)(images))
    # bfloat16 has eight bits.
    assert np.abs(features[0] - features[1]).max() < 0.05 * np.abs(features[0]).max()
