"""Oracles: the closed form in NumPy, torchvision's RoIAlign on dense maps, planted pictures."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from labelops.label_maps import densify, pool, sparsify_maps, whole_boxes
from labelops.nn.architecture import build
from labelops.nn.label_pooling import pool_labels, pool_logits, to_batch
from labelops.nn.localized import CropPolicy, LocalizedCrops, View, draw_view, take_view
from labelops.nn.program_maps import ProgramMaps
from labelops.nn.score_maps import ScoreMaps, score_maps_of, squash
from tests.labelops.test_label_maps import random_boxes, random_scores

DOUBLE = torch.float64


@pytest.mark.parametrize("seed", range(30))
def test_pooling__is_the_closed_form(seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 20, 2)
    k = int(rng.integers(1, 8))
    maps = sparsify_maps(random_scores(seed, 6, 7, height, width), k=k, dtype=np.float64)
    boxes = random_boxes(rng, 6)
    got = pool_logits(to_batch(maps, dtype=DOUBLE), torch.from_numpy(boxes))
    np.testing.assert_allclose(got.numpy(), pool(maps, boxes), rtol=0, atol=1e-12)


def test_pooling__is_roi_align_on_the_dense_map():
    maps = sparsify_maps(random_scores(1), k=3, dtype=np.float64)
    boxes = random_boxes(np.random.default_rng(1), 2)
    dense = torch.from_numpy(densify(maps))
    rois = torch.from_numpy(boxes * [8, 5, 8, 5])
    want = torchvision.ops.roi_align(dense, [roi[None] for roi in rois], 1, aligned=True)
    got = pool_logits(to_batch(maps, dtype=DOUBLE), torch.from_numpy(boxes))
    torch.testing.assert_close(got, want[:, :, 0, 0], rtol=0, atol=1e-12)


def test_pooling__first_coordinate_is_along_columns():
    third = np.zeros((1, 2, 9, 9))
    third[0, 0, :, :3] = third[0, 1, :, 6:] = 10
    batch = to_batch(sparsify_maps(third))
    left, top = torch.tensor([[0, 0, 1 / 3, 1]]), torch.tensor([[0, 0, 1, 1 / 3]])
    np.testing.assert_allclose(pool_labels(batch, left)[0], [0.99995, 0.00005], atol=5e-6)
    np.testing.assert_allclose(pool_labels(batch, top)[0], [0.5, 0.5], atol=1e-6)


def test_pooling__of_no_crops():
    maps = to_batch(sparsify_maps(np.zeros((0, 3, 2, 2))))
    assert pool_labels(maps, torch.zeros(0, 4)).shape == (0, 3)


def test_pooling__box_outside_is_refused():
    maps = to_batch(sparsify_maps(np.zeros((1, 3, 2, 2))))
    with pytest.raises(ValueError, match=r"box 0 is \[0.0, 0.0, 2.0, 1.0\]. Were pixels passed"):
        pool_logits(maps, torch.tensor([[0.0, 0.0, 2.0, 1.0]]))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "densenet121", "shufflenet_v2_x0_5"])
def test_score_maps__whole_picture_is_what_the_model_says(name):
    torch.manual_seed(0)
    model = build(name, n_classes=11).eval()
    images = torch.randn(2, 3, 96, 64)
    scores = score_maps_of(model, name)(images)
    assert scores.shape[:2] == (2, 11)
    assert scores.shape[2] > scores.shape[3]
    maps = sparsify_maps(scores.numpy(), k=11, dtype=np.float64)
    with torch.no_grad():
        want = model(images).to(DOUBLE)
    got = pool(maps, whole_boxes(2))
    # The model pools and multiplies in single precision.
    np.testing.assert_allclose(got, want, atol=1e-4 * float(want.abs().max()) + 1e-6)


def test_score_maps__of_a_model_with_a_layer_behind_the_pooling_are_refused():
    torch.manual_seed(0)
    maps = score_maps_of(build("mobilenet_v3_small", n_classes=5), "mobilenet_v3_small")
    with pytest.raises(ValueError, match=r"^score maps: "):
        maps(torch.randn(1, 3, 64, 64))


def test_score_maps__of_a_model_with_a_nonlinear_head_are_refused():
    torch.manual_seed(0)
    head = nn.Linear(4, 2)
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Tanh(), head)
    with pytest.raises(ValueError, match=r"mean of a model's cells .* layer between pooling"):
        ScoreMaps(nn.Sequential(nn.Conv2d(3, 4, 1), *tail), head)(torch.randn(1, 3, 5, 5) * 3)


def test_score_maps__of_a_model_that_flattens_its_cells_are_refused():
    head = nn.Linear(4 * 25, 2)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), head)
    with pytest.raises(ValueError, match=r"pools 100 features .* networks that flatten"):
        ScoreMaps(model, head)(torch.randn(1, 3, 5, 5))


def test_score_maps__of_a_model_of_ones_own_are_the_head_at_every_cell():
    torch.manual_seed(0)
    features, head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 6)
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    images = torch.randn(2, 3, 5, 7)
    got = ScoreMaps(model, head)(images)
    with torch.no_grad():
        want = head(features(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def export(model: nn.Module, side: int, *, decompose: bool = False) -> nn.Module:
    n = torch.export.Dim("n", min=1, max=512)
    images = torch.zeros(2, 3, side, side)
    program = torch.export.export(model.eval(), (images,), dynamic_shapes=({0: n},))
    return (program.run_decompositions() if decompose else program).module()


@pytest.mark.parametrize("decompose", [False, True])
def test_program_maps__are_those_of_the_model_that_was_exported(decompose):
    torch.manual_seed(0)
    trunk = (nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
    head = nn.Linear(8, 5)
    tail = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5), head)
    model = nn.Sequential(*trunk, *tail).eval()
    images = torch.randn(3, 3, 16, 16)
    got = ProgramMaps(export(model, 16, decompose=decompose))(images)
    torch.testing.assert_close(got, ScoreMaps(model, head)(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bias", [True, False])
def test_program_maps__with_a_head_of_ones_own_are_those_of_both_together(bias):
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Linear(4, 2, bias=bias)
    images = torch.randn(2, 3, 9, 9)
    got = ProgramMaps(export(features, 9), head)(images)
    want = ScoreMaps(nn.Sequential(features, head), head)(images)
    torch.testing.assert_close(got, want)
    whole = ProgramMaps(export(nn.Sequential(features, head), 9))(images)
    torch.testing.assert_close(whole, want)


@pytest.mark.parametrize(
    ("tail", "said"),
    [
        ((nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2), nn.ReLU()), "'relu' at the end"),
        ((nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Tanh(), nn.Linear(4, 2)), "'tanh' where the"),
        ((nn.Flatten(), nn.Linear(4 * 25, 2)), "'conv2d' where the mean over cells"),
        ((nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)), r"cells of shape \(1, 4, 5, 5"),
    ],
)
def test_program_maps__of_programs_that_end_otherwise_are_refused(tail, said):
    with pytest.raises(ValueError, match=rf"mean over cells and one linear layer .*{said}"):
        ProgramMaps(export(nn.Sequential(nn.Conv2d(3, 4, 1), *tail), 5))(torch.zeros(1, 3, 5, 5))


def test_program_maps__of_what_is_no_program_are_refused():
    with pytest.raises(ValueError, match="a program was expected, got Linear"):
        ProgramMaps(nn.Linear(2, 2))


def test_score_maps__in_half_precision_are_held_against_what_that_can_hold():
    torch.manual_seed(0)
    features, head = nn.Conv2d(3, 8, 3), nn.Linear(8, 6)
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()
    images = torch.randn(2, 3, 12, 12)
    want = ScoreMaps(model, head)(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = ScoreMaps(model, head)(images)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want, rtol=0.02, atol=0.02)


def test_squash__keeps_the_place_of_everything():
    image = np.zeros((3, 40, 80), np.uint8)
    image[:, :, 60:] = 200
    small = squash(image, 20)
    assert small.shape == (3, 20, 20)
    assert small[0, 10, 13] == 0
    assert small[0, 10, 17] == 200


class Quarters:
    """Pictures of four colours, one a quarter, and maps that know which is where."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        self.classes = np.stack([rng.permutation(4).reshape(2, 2) for _ in range(n)])
        scores = np.zeros((n, 4, 2, 2))
        np.put_along_axis(scores, self.classes[:, None], 40.0, axis=1)
        self.maps = sparsify_maps(scores, k=1)

    def read(self, i: int) -> np.ndarray:
        colour = (self.classes[i] * 60 + 10).astype(np.uint8)
        return np.repeat(np.kron(colour, np.ones((30, 45), np.uint8))[None], 3, axis=0)


@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_crops__label_says_what_the_pixels_show(flip):
    data = Quarters(12)
    policy = CropPolicy(side=32, scale=(0.02, 0.1), flip=flip)
    crops = LocalizedCrops(data.read, data.maps, policy, seed=3)
    n_pure = 0
    for i in range(len(crops)):
        pixels, label = crops[i]
        assert pixels.shape == (3, 32, 32)
        assert label.sum() == pytest.approx(1, abs=1e-6)
        shown = np.unique((pixels[0].numpy().astype(int) - 10 + 30) // 60)
        view = crops.view(i, 60, 90)
        centre = view.top + view.height / 2, view.left + view.width / 2
        inside = all(abs(x - half) > half / 2 for x, half in zip(centre, (30, 45), strict=True))
        if len(shown) == 1 and inside:
            n_pure += 1
            assert label.argmax() == shown[0]
    assert n_pure >= 2


def test_crops__depend_on_seed_epoch_and_position_only():
    data = Quarters(3)
    policy = CropPolicy(side=8)
    first, second = (LocalizedCrops(data.read, data.maps, policy, seed=1) for _ in range(2))
    state = torch.random.get_rng_state()
    want = [first[i] for i in range(3)]
    assert torch.equal(torch.random.get_rng_state(), state)
    for i in (2, 0, 1):
        for a, b in zip(second[i], want[i], strict=True):
            assert torch.equal(a, b)
    second.epoch = 1
    assert any(second.view(i, 60, 90) != first.view(i, 60, 90) for i in range(3))


def test_crops__load_in_batches():
    data = Quarters(6)
    crops = LocalizedCrops(data.read, data.maps, CropPolicy(side=16), seed=0)
    pixels, labels = next(iter(torch.utils.data.DataLoader(crops, batch_size=6)))
    assert pixels.shape == (6, 3, 16, 16)
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(6))


def test_crops__of_a_picture_that_is_not_there():
    crops = LocalizedCrops(Quarters(1).read, Quarters(1).maps, CropPolicy(), seed=0)
    with pytest.raises(IndexError, match=r"pictures 0…0 were expected, got 1"):
        crops[1]


def test_views__keep_to_their_policy():
    policy = CropPolicy(scale=(0.25, 0.5), ratio=(0.5, 2.0), flip=0.5)
    views = [draw_view(100, 200, policy, seed=s) for s in range(200)]
    for view in views:
        assert 0.23 <= view.height * view.width / 20_000 <= 0.52
        x1, y1, x2, y2 = view.box(100, 200)[0].tolist()
        assert 0 <= x1 < x2 <= 1
        assert 0 <= y1 < y2 <= 1
    assert 60 < sum(view.is_mirrored for view in views) < 140


def test_view__whole_picture_is_taken_as_it_is():
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 255, (3, 6, 6), np.uint8))
    assert torch.equal(take_view(image, View(0, 0, 6, 6, False), 6), image)
    assert torch.equal(take_view(image, View(0, 0, 6, 6, True), 6), image.flip(2))
