"""Programs and weights that do not fit: a plain message before anything is worked on.

Oracle: the shapes that they were exported with, and where bytes were changed.
"""

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import pipelines.run
from labelops.nn.architecture import build
from pipelines.errors import LabelopsError, RecipeError
from pipelines.media.models import forget_models, load_weights
from pipelines.media.programs import load_program
from pipelines.recipe import load_recipe
from tests.datasets import write_shards
from tests.pipelines.inferred import png
from tests.pipelines.localized import mosaics, table_of

CPU = torch.device("cpu")
TRACES = re.compile(r"Traceback|\w(Error|Exception): |fault of")


class Flat(nn.Module):
    """An embedder that takes pictures of one size only."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * side * side, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1))


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.mean(dim=(2, 3)), images.amax(dim=(2, 3))


def export(path: Path, model: nn.Module, *shape: int, fixed: bool = False) -> Path:
    rows = {} if fixed else {0: torch.export.Dim("n", min=1, max=4096)}
    exported = torch.export.export(model.eval(), (torch.zeros(shape),), dynamic_shapes=(rows,))
    torch.export.save(exported, path)
    return path


@pytest.fixture(scope="module")
def pictures() -> pa.Table:
    pixels, classes = mosaics(12)
    return table_of([png(one) for one in pixels], classes[:, 0, 0].tolist())


def refused(folder: Path, table: pa.Table, *settings: str, recipe: str = "audit") -> str:
    forget_models()
    data = write_shards(folder / "data", table, [12])
    with pytest.raises(LabelopsError) as caught:
        pipelines.run.run(
            load_recipe(recipe, ["data.max_bad_share=1.0", *settings]),
            data=str(data),
            out=str(folder / "out"),
        )
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda path: export(path, Flat(16), 2, 3, 16, 16),
            "stage 'infer': a program for any number of pictures of 24 × 24 pixels in three "
            "colours was expected at PATH, got one made for pictures of shape any × 3 × 16 × 16 (",
        ),
        (
            lambda path: export(path, Flat(16), 2, 3, 16, 16),
            "). Set infer.image_size = 16, or export the model again",
        ),
        (
            lambda path: export(path, Flat(24), 2, 3, 24, 24, fixed=True),
            "). Export the model again with a first dimension of any size (torch.export.Dim)",
        ),
        (
            lambda path: export(path, nn.Flatten(), 2, 1, 24, 24),
            "got one made for pictures of shape any × 1 × 24 × 24 (",
        ),
        (lambda path: export(path, Pair(), 2, 3, 24, 24), "got one made for pictures of shape any"),
    ],
)
def test_program__for_other_pictures_is_refused_with_those_it_was_made_for(
    tmp_path: Path, pictures: pa.Table, make: Callable[[Path], Path], message: str
) -> None:
    path = make(tmp_path / "p.pt2")
    found = refused(tmp_path, pictures, f"infer.embedder={path}", "infer.image_size=24")
    assert message.replace("PATH", str(path)) in found


def test_program__of_maps_for_other_pictures_is_refused_likewise(
    tmp_path: Path, pictures: pa.Table
) -> None:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.LayerNorm([6, 16, 16]), *head)
    path = export(tmp_path / "p.pt2", net, 2, 3, 16, 16)
    found = refused(
        tmp_path,
        pictures,
        f"localize.classifier={path}",
        "localize.image_size=24",
        "infer.embedder=pixels",
        recipe="relabel",
    )
    assert "stage 'localize': a program for any number of pictures of 24 × 24 pixels" in found
    assert "got one made for pictures of shape any × 3 × 16 × 16 (" in found
    assert found.endswith("). Set localize.image_size = 16, or export the model again")


@pytest.mark.parametrize("kind", ["other", "empty", "numbers"])
def test_weights__of_another_architecture_are_refused_with_the_tensors_and_the_file(
    tmp_path: Path, pictures: pa.Table, kind: str
) -> None:
    path = tmp_path / "w.safetensors"
    weights: dict[str, Any] = {
        "other": lambda: build("mobilenet_v3_small", n_classes=3).state_dict(),
        "empty": dict,
        "numbers": lambda: {"conv1.weight": torch.zeros(3)},
    }[kind]()
    save_file(weights, path)
    found = refused(
        tmp_path, pictures, "infer.embedder=resnet18", f"infer.weights={path}",
        "infer.image_size=32",
    )  # fmt: skip
    assert "stage 'infer': weights of resnet18 were expected; " in found
    assert f"Is the file of another architecture? It is at {path}" in found


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small file of each kind that models come in."""
    folder = tmp_path_factory.mktemp("good")
    weights = {"a.weight": torch.arange(600.0).reshape(20, 30), "a.bias": torch.zeros(20)}
    save_file(weights, folder / "w.safetensors")
    torch.save(weights, folder / "w.pt")
    export(folder / "p.pt2", Flat(8), 2, 3, 8, 8)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Return bytes that were cut, filled with zeros in places, or changed in some bits."""
    kind = rng.randrange(4)
    if kind == 0:
        return data[: rng.randrange(len(data))]
    changed = bytearray(data)
    if kind == 1:
        first = rng.randrange(len(data))
        changed[first : first + 200] = bytes(len(changed[first : first + 200]))
    else:
        for _ in range(rng.choice([1, 3, 30])):
            changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt", "p.pt2"])
@pytest.mark.parametrize("seed", range(4))
def test_files__that_are_damaged_anywhere_are_read_or_refused(
    tmp_path: Path, good: dict[str, bytes], name: str, seed: int
) -> None:
    rng, n_refused = random.Random(seed), 0
    for _ in range(40):
        path = tmp_path / name
        path.write_bytes(damaged(good[name], rng))
        try:
            load_program(str(path), CPU) if name == "p.pt2" else load_weights(str(path))
        except RecipeError as err:
            n_refused += 1
            assert str(path) in str(err)  # noqa: PT017
            assert not TRACES.search(str(err))  # noqa: PT017
            assert "\n" not in str(err)  # noqa: PT017
    assert n_refused >= 8
