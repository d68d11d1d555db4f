"""Oracles: the models and metrics called by hand; what was planted; other cuts of the same data."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from sklearn.metrics import log_loss

from labelops.nn import architecture
from labelops.nn.pixels import Pixels
from pipelines.core.results import load_result
from pipelines.core.state import Run
from pipelines.errors import DataError, RecipeError, RunError
from pipelines.inference import embed
from pipelines.inference.settings import Config
from pipelines.media.models import forget_models
from tests.datasets import blobs, even, vectors
from tests.oracles import calibration as slow
from tests.pipelines.inferred import (
    drawing,
    infer,
    matrix,
    pictures,
    png,
    quarantine,
    sidecar,
)

SHUFFLE = "shufflenet_v2_x0_5"
ROOT = Path(__file__).resolve().parents[2]


def result(run: Run, step: str) -> dict[str, np.ndarray]:
    return load_result(run.store, "infer", step)


def same(a: Run, b: Run) -> bool:
    """Say whether two runs have the same sidecars and results, bit for bit."""
    steps = {"folds", "heads", "train", "calibration"}
    for step in steps:
        if a.store.exists(f"infer/_results/{step}.npz"):
            one, two = result(a, step), result(b, step)
            assert one.keys() == two.keys()
            assert all(one[k].tobytes() == two[k].tobytes() for k in one), step
    return bool(sidecar(a).equals(sidecar(b)))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    torch.manual_seed(3)
    save_file(architecture.build(SHUFFLE, n_classes=9).state_dict(), path)
    return path


def ways(weights: Path) -> dict[str, list[str]]:
    return {
        "pixels": [],
        "backbone": [
            f"infer.embedder={SHUFFLE}",
            f"infer.weights={weights}",
            "infer.image_size=32",
            "infer.batch_rows=16",
        ],
        "scratch": [
            f"infer.embedder={SHUFFLE}",
            "infer.train=scratch",
            "infer.epochs=1",
            "infer.folds=2",
            "infer.batch_rows=16",
            "infer.crop=2",
        ],
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> dict[str, Run]:
    """Every way on the same pictures in one shard."""
    return {
        way: infer(tmp_path_factory.mktemp(way), pictures(), [90], *settings)
        for way, settings in ways(weights).items()
    }


CUTS = {"two": [31, 59], "seven": even(90, 7), "with empty and single": [0, 1, 0, 89]}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("way", ["pixels", "backbone", "scratch"])
def test_infer__does_not_depend_on_the_cut(
    whole: dict[str, Run], weights: Path, tmp_path: Path, way: str, cut: str
) -> None:
    order = np.random.default_rng(1).permutation(90)
    shuffled = pictures().take(pa.array(order))
    run = infer(tmp_path, shuffled, CUTS[cut], *ways(weights)[way])
    assert same(run, whole[way])


@pytest.mark.parametrize("way", ["pixels", "backbone", "scratch"])
def test_infer__sidecar_is_complete(whole: dict[str, Run], way: str) -> None:
    table = sidecar(whole[way])
    several = [] if way == "scratch" else ["opinions"]
    own = ["item_id", "fold", "pred_probs", "embedding", "p_given"]
    assert table.column_names == [*own, *several]
    assert table.column("item_id").to_pylist() == list(range(90))
    probs = matrix(table, "pred_probs")
    assert probs.dtype == np.float32
    np.testing.assert_allclose(probs.sum(axis=1, dtype=np.float64), 1, atol=1e-5)
    given = np.arange(90) % 3
    assert np.array_equal(table.column("p_given").to_numpy(), probs[np.arange(90), given])
    folds = 2 if way == "scratch" else 5
    sizes = np.bincount(table.column("fold").to_numpy(), minlength=folds)
    assert sizes.min() >= 90 / folds - 3
    assert table.column("embedding").null_count == 0


def test_infer__plain_drawings_are_told_apart(whole: dict[str, Run]) -> None:
    probs = matrix(sidecar(whole["pixels"]), "pred_probs")
    assert (probs.argmax(axis=1) == np.arange(90) % 3).mean() > 0.9


@pytest.mark.parametrize("way", ["pixels", "backbone"])
def test_infer__embedding_is_the_models(whole: dict[str, Run], weights: Path, way: str) -> None:
    """Decoded, scaled and normalised by torchvision's own pipeline."""
    from safetensors.torch import load_file
    from torchvision.transforms import v2

    steps = [
        v2.PILToTensor(),
        v2.Resize(32, antialias=True),
        v2.CenterCrop(32),
        v2.ToDtype(torch.float32, scale=True),
    ]
    model: Any = Pixels()
    if way == "backbone":
        steps.append(v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        model = architecture.build(SHUFFLE, n_classes=9)
        model.load_state_dict(load_file(weights))
        model.fc = torch.nn.Identity()
        model.eval()
    prepare = v2.Compose(steps)
    files = [row["bytes"] for row in pictures().column("image").to_pylist()]
    images = [Image.open(io.BytesIO(file)) for file in files]
    with torch.no_grad():
        expected = model(torch.stack([prepare(image) for image in images])).numpy()
    found = matrix(sidecar(whole[way]), "embedding")
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=1e-4)


def test_infer__calibration_is_that_of_the_probabilities(whole: dict[str, Run]) -> None:
    found = result(whole["pixels"], "calibration")
    probs = matrix(sidecar(whole["pixels"]), "pred_probs").astype(np.float64)
    given = np.arange(90) % 3
    assert found["n"] == 90
    for name in ("ece", "mce", "adaptive_ece", "classwise_ece"):
        expected = getattr(slow, name)(probs, given, 15)
        assert float(found[f"before_{name}"]) == pytest.approx(expected, abs=1e-9)
    assert float(found["before_accuracy"]) == (probs.argmax(axis=1) == given).mean()
    clipped = np.maximum(probs, 2.0**-149)
    scaled = clipped ** (1 / float(found["temperature"]))
    scaled /= scaled.sum(axis=1, keepdims=True)
    assert float(found["after_nll"]) == pytest.approx(log_loss(given, scaled), rel=1e-6)
    assert found["after_nll"] <= found["before_nll"]
    assert found["before_bins_n"].sum() == 90
    assert found["before_bins_confidence"].shape == (15,)


def bad_pictures() -> tuple[pa.Table, dict[str, str]]:
    """Pictures of which some cannot be used, and why, by item id."""
    table = pictures(60)
    rows = table.column("image").to_pylist()
    grey = drawing(0, np.random.default_rng(5))[..., 0]
    rows[3]["bytes"] = b""
    rows[14]["bytes"] = b"not a picture"
    rows[15]["bytes"] = rows[15]["bytes"][:100]
    rows[30] = {"bytes": None, "path": "elsewhere.png"}
    rows[31] = None
    rows[44]["bytes"] = png(np.zeros((200, 300), np.uint8))
    rows[45]["bytes"] = png(grey)
    image = pa.array(rows, table.schema.field("image").type)
    reasons = {
        "3": "image is empty: 0 bytes",
        "14": "image does not decode: 13 bytes that are none of PNG, JPEG, WEBP, GIF, BMP, TIFF",
        "15": "image does not decode: OSError image file is truncated",
        "30": "image has a path only, and no file of the data's folder is there: 'elsewhere.png'",
        "31": "image is null: neither bytes nor a path",
        "44": "image has too many pixels: 300 x 200, at most 50000 are decoded",
    }
    return table.set_column(1, "image", image), reasons


@pytest.mark.parametrize("way", ["pixels", "scratch"])
def test_infer__undecodable_pictures_go_to_quarantine(
    tmp_path: Path, weights: Path, way: str
) -> None:
    table, reasons = bad_pictures()
    settings = [*ways(weights)[way], "infer.max_image_pixels=50000"]
    run = infer(tmp_path, table, [13, 18, 0, 29], *settings)
    found = quarantine(run)
    assert found.keys() == reasons.keys()
    assert all(found[key].startswith(reason) for key, reason in reasons.items())
    ids = sidecar(run).column("item_id").to_pylist()
    assert ids == [i for i in range(60) if str(i) not in reasons]


def with_probs(probs: np.ndarray) -> pa.Table:
    table = blobs(len(probs), n_classes=3)
    label = pa.array([f"class {k}" for k in np.arange(len(probs)) % 3])
    table = table.set_column(table.column_names.index("label"), "label", label)
    return table.append_column("pred_probs", vectors(probs))


def probabilities(n: int = 60, kind: type = np.float32) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(3), n).astype(kind)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_infer__ready_probabilities_are_only_checked(tmp_path: Path, kind: type) -> None:
    probs = probabilities(kind=kind)
    run = infer(tmp_path, with_probs(probs), [25, 35])
    table = sidecar(run)
    assert table.column_names == ["item_id", "p_given"]
    expected = probs[np.arange(60), np.arange(60) % 3]
    found = table.column("p_given").to_numpy()
    assert np.array_equal(found, expected)
    assert found.dtype == (np.float64 if kind is np.float64 else np.float32)
    assert run.manifest("infer") is not None
    assert float(result(run, "calibration")["before_ece"]) == pytest.approx(
        slow.ece(probs.astype(np.float64), np.arange(60) % 3, 15), abs=1e-6
    )


def test_infer__bad_probabilities_go_to_quarantine_with_the_reason(tmp_path: Path) -> None:
    probs = probabilities()
    probs[5, 1] = np.nan
    probs[6, 2] = np.inf
    probs[7] = (1.25, -0.25, 0.0)
    probs[30] = (3.0, 0.2, 0.017)
    probs[31] = (0.4, 0.3, 0.2)
    probs[59] = 0.0
    table = with_probs(probs)
    listed = table.column("pred_probs").to_pylist()
    listed[40], listed[41] = None, [0.5, None, 0.5]
    column = pa.array(listed, pa.list_(pa.float32(), 3))
    table = table.set_column(table.column_names.index("pred_probs"), "pred_probs", column)
    run = infer(tmp_path, table, [20, 0, 40])
    hint = "Were logits passed instead of probabilities?"
    assert quarantine(run) == {
        "item-00005": "probabilities not finite: class 1 has nan",
        "item-00006": "probabilities not finite: class 2 has inf",
        "item-00007": f"probabilities negative: class 1 has -0.25. {hint}",
        "item-00030": f"probabilities do not sum to 1: they sum to 3.2170. {hint}",
        "item-00031": f"probabilities do not sum to 1: they sum to 0.9000. {hint}",
        "item-00040": "probabilities missing: pred_probs is null",
        "item-00041": "probabilities not finite: class 1 has nan",
        "item-00059": f"probabilities do not sum to 1: they sum to 0.0000. {hint}",
    }
    table = sidecar(run)
    kept = [i for i in range(60) if i not in (5, 6, 7, 30, 31, 40, 41, 59)]
    assert table.column("item_id").to_pylist() == [f"item-{i:05d}" for i in kept]
    expected = probs[kept, np.array(kept) % 3]
    assert np.array_equal(table.column("p_given").to_numpy(), expected)
    assert int(result(run, "calibration")["n"]) == len(kept)


def test_infer__bad_features_go_to_quarantine(tmp_path: Path) -> None:
    table = blobs(60)
    rows = table.column("features").to_pylist()
    rows[2], rows[3][1], rows[50][5] = None, float("nan"), float("inf")
    column = pa.array(rows, pa.list_(pa.float64(), 6))
    table = table.set_column(table.column_names.index("features"), "features", column)
    run = infer(tmp_path, table, [30, 30])
    assert quarantine(run) == {
        "item-00002": "features missing: the row is null",
        "item-00003": "features not finite: number 1 is nan",
        "item-00050": "features not finite: number 5 is inf",
    }
    found = matrix(sidecar(run), "embedding")
    expected = [rows[i] for i in range(60) if i not in (2, 3, 50)]
    assert np.array_equal(found, np.array(expected, np.float32))


@pytest.mark.parametrize("n", [2, 3])
def test_infer__hardly_any_items_are_enough(tmp_path: Path, n: int) -> None:
    table = blobs(40).filter(pa.array(np.arange(40) < n))
    table = table.set_column(
        table.column_names.index("label"), "label", pa.array(["a", "b", "a"][:n])
    )
    run = infer(tmp_path, table, [1] * n)
    probs = matrix(sidecar(run), "pred_probs")
    assert probs.shape == (n, 2)
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


def test_infer__a_class_without_items_has_a_column(tmp_path: Path) -> None:
    settings = [
        "data.classes=['class 0','class 1','class 2','class 3','never']",
        "data.absent_classes=allow",
    ]
    run = infer(tmp_path, blobs(100), [60, 40], *settings)
    probs = matrix(sidecar(run), "pred_probs")
    assert probs.shape == (100, 5)
    assert probs[:, 4].max() < 0.2


def test_infer__the_sample_for_calibration_is_bounded_and_chosen_by_hash(tmp_path: Path) -> None:
    settings = ("infer.calibration_items=50",)
    one = infer(tmp_path / "one", blobs(240), [240], *settings)
    many = infer(tmp_path / "many", blobs(240), even(240, 7), *settings)
    assert same(one, many)
    assert 25 <= int(result(one, "calibration")["n"]) <= 75


@pytest.mark.parametrize(("change", "message"), [
    ({"embedder": "resnet18"}, "embedder = 'resnet18' needs weights, the path of a safetensors"),
    ({"weights": "w.pt"}, "weights are not used with embedder = 'pixels' and train = 'heads'"),
    ({"train": "scratch"}, "train = 'scratch' needs the name of a torchvision classifier as emb"),
    ({"train": "finetune", "embedder": "resnet18"}, "embedder = 'resnet18' needs weights, the"),
    ({"std": (1.0, 0.0, 1.0)}, "std must be positive, got (1.0, 0.0, 1.0)"),
    ({"device": "tpu"}, "String should match pattern"),
    ({"folds": 1}, "Input should be greater than or equal to 2"),
])  # fmt: skip
def test_config__contradictions_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as found:
        Config(**change)
    assert message in str(found.value)


def test_config__survives_json() -> None:
    config = Config(embedder="resnet18", train="scratch", l2=0.5)
    assert Config(**json.loads(config.model_dump_json())) == config
    assert (config.side, config.rate) == (32, 0.05)


def test_infer__names_the_columns_it_could_use(tmp_path: Path) -> None:
    with pytest.raises(DataError) as found:
        infer(tmp_path, blobs(20).drop_columns(["features"]), [20])
    assert str(found.value).startswith(
        "stage 'infer': a column to predict from was expected, one of 'pred_probs' (lists "
        "with one probability per class), "
    )


@pytest.mark.parametrize(("column", "kind", "message"), [
    ("features", pa.float32(),
     "source: column 'features' must hold vectors, lists of numbers of one length, got float"),
    ("image", pa.list_(pa.float32()),
     "source: column 'image' must hold encoded pictures (binary), paths of files beside the "),
])  # fmt: skip
def test_infer__columns_of_the_wrong_type_are_refused(
    tmp_path: Path, column: str, kind: pa.DataType, message: str
) -> None:
    table = blobs(20).drop_columns(["features"])
    value = [[1.0]] * 20 if pa.types.is_list(kind) else [1.0] * 20
    table = table.append_column(column, pa.array(value, kind))
    with pytest.raises(DataError) as found:
        infer(tmp_path, table, [20])
    assert str(found.value).startswith(message)


def test_infer__a_misspelt_architecture_is_a_fault_of_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"^stage 'infer': an image classifier of torchvision"):
        infer(tmp_path, pictures(12), [12], "infer.embedder=resnet81", "infer.train=scratch")


def test_infer__a_program_embeds(tmp_path: Path) -> None:
    class Halves(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.unflatten(3, (2, 8)).mean(dim=(2, 4)).flatten(1)

    path = tmp_path / "halves.pt2"
    rows = torch.export.Dim("rows", min=1)
    example = (torch.zeros(2, 3, 16, 16),)
    exported = torch.export.export(Halves(), example, dynamic_shapes=({0: rows},))
    torch.export.save(exported, path)
    settings = [
        f"infer.embedder={path}",
        "infer.image_size=16",
        "infer.mean=[0.0,0.0,0.0]",
        "infer.std=[1.0,1.0,1.0]",
    ]
    run = infer(tmp_path, pictures(30), [30], *settings)
    found = matrix(sidecar(run), "embedding")
    assert found.shape == (30, 6)
    assert found.min() > 0
    assert found.max() < 1


def test_infer__finetuning_starts_from_the_weights(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def untrained(build: Any, *rest: Any, n_folds: int, **others: Any) -> list[Any]:
        return [build(fold) for fold in range(n_folds)]

    monkeypatch.setattr("labelops.nn.train.train_folds", untrained)
    settings = [
        f"infer.embedder={SHUFFLE}",
        f"infer.weights={weights}",
        "infer.image_size=32",
        "infer.batch_rows=16",
    ]
    tuned = infer(tmp_path / "tuned", pictures(30), [30], *settings, "infer.train=finetune")
    frozen = infer(tmp_path / "frozen", pictures(30), [30], *settings)
    assert np.array_equal(*(matrix(sidecar(run), "embedding") for run in (tuned, frozen)))


def test_infer__opens_the_model_once_for_all_shards(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget_models()
    opened: list[str] = []
    real = architecture.load_backbone

    def counted(name: str, *rest: Any) -> torch.nn.Module:
        opened.append(name)
        return real(name, *rest)

    monkeypatch.setattr(architecture, "load_backbone", counted)
    infer(tmp_path, pictures(30), even(30, 6), *ways(weights)["backbone"])
    assert opened == [SHUFFLE]


def test_infer__decoders_beside_each_other_keep_the_order(
    tmp_path: Path, whole: dict[str, Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, where decoding has threads of its own."""
    real = embed.squares
    monkeypatch.setattr(
        embed, "squares", lambda frame, ctx, n_threads: real(frame, ctx, n_threads=3)
    )
    run = infer(tmp_path, pictures(), [40, 50])
    assert same(run, whole["pixels"])


def test_infer__an_unexpected_fault_while_decoding_names_the_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*rest: Any) -> Any:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(embed, "prepare", broken)
    with pytest.raises(RunError, match=r"step 'embed', shard 0 \(part-00000\.parquet\): ZeroDiv"):
        infer(tmp_path, pictures(10), [10])


def test_infer__is_listed_without_torch() -> None:
    code = "import sys, pipelines.stages.infer; print({'torch', 'numba'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
