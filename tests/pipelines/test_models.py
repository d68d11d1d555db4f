"""Oracles: the model that was saved; pickles that would leave a trace if they were run."""

import io
import json
import pickle
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipelines.errors import RecipeError
from pipelines.media.models import forget_models, load_weights, once
from pipelines.media.programs import MODEL, SAMPLE_INPUTS, WEIGHTS_CONFIG, load_program

CPU = torch.device("cpu")


class Trace:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean(dim=(2, 3))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, nn.Module]:
    model = Tiny().eval()
    path = tmp_path_factory.mktemp("program") / "tiny.pt2"
    rows = torch.export.Dim("rows", min=1)
    exported = torch.export.export(model, (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: rows},))
    torch.export.save(exported, path)
    return path, model


def rewrite(source: Path, target: Path, changes: dict[str, bytes]) -> Path:
    """Copy an archive, with some records replaced or added."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for entry in old.namelist():
            if entry.partition("/")[2] not in changes:
                new.writestr(entry, old.read(entry))
        for name, data in changes.items():
            new.writestr(f"{root}/{name}", data)
    return target


def record(path: Path, name: str) -> Any:
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        return json.loads(archive.read(f"{root}/{name}"))


def test_program__gives_what_the_model_gave(program: tuple[Path, nn.Module]) -> None:
    path, model = program
    images = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(load_program(str(path), CPU)(images), model(images))


def test_program__pickled_sample_inputs_are_never_run(
    program: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    buffer = io.BytesIO()
    torch.save(((Trace(trace),), {}), buffer)
    bad = rewrite(program[0], tmp_path / "bad.pt2", {SAMPLE_INPUTS: buffer.getvalue()})
    load_program(str(bad), CPU)
    assert not trace.exists()
    # The control: torch itself does run it.
    torch.export.load(bad)
    assert trace.exists()


def test_program__pickled_weights_are_refused(
    program: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    config = record(program[0], WEIGHTS_CONFIG)
    config["config"]["conv.weight"]["use_pickle"] = True
    bad = rewrite(program[0], tmp_path / "bad.pt2", {WEIGHTS_CONFIG: json.dumps(config).encode()})
    with pytest.raises(RecipeError, match=r"got 'conv.weight', which is stored as a pickle"):
        load_program(str(bad), CPU)


def test_program__sizes_that_are_code_are_refused(
    program: tuple[Path, nn.Module], tmp_path: Path
) -> None:
    text = json.dumps(record(program[0], MODEL))
    symbol = r"Symbol\('s\d+', positive=True, integer=True\)"
    bad, n_changed = re.subn(symbol, "__import__('os').getcwd()", text)
    assert n_changed > 0
    path = rewrite(program[0], tmp_path / "bad.pt2", {MODEL: bad.encode()})
    with pytest.raises(RecipeError, match=r"got a size \"__import__\('os'\).getcwd\(\)\" that is"):
        load_program(str(path), CPU)


@pytest.mark.parametrize("name", ["data/constants/custom_obj_0", "data/aotinductor/model/x.so"])
def test_program__records_of_other_kinds_are_refused(
    program: tuple[Path, nn.Module], tmp_path: Path, name: str
) -> None:
    bad = rewrite(program[0], tmp_path / "bad.pt2", {name: pickle.dumps(1)})
    with pytest.raises(RecipeError, match=f"got a record '{name}' that is neither"):
        load_program(str(bad), CPU)


@pytest.mark.parametrize("content", [b"", b"garbage", None])
def test_program__what_is_none_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bad.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"^infer: a torch\.export program of a graph and plain"):
        load_program(str(path), CPU)


@pytest.mark.parametrize("form", ["safetensors", "pt", "nested", "parallel"])
def test_weights__are_read_from_every_form(tmp_path: Path, form: str) -> None:
    weights = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pt")
    if form == "safetensors":
        save_file(weights, path)
    else:
        stored: Any = weights
        if form == "parallel":
            stored = {f"module.{key}": value for key, value in weights.items()}
        torch.save({"state_dict": stored} if form == "nested" else stored, path)
    found = load_weights(str(path))
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)


def test_weights__a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "w.pt"
    torch.save({"weight": Trace(trace)}, path)
    with pytest.raises(RecipeError, match=r"^infer: a file with weights \(safetensors, or a torch"):
        load_weights(str(path))
    assert not trace.exists()


def test_weights__a_whole_model_or_a_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    torch.save(7, path)
    with pytest.raises(RecipeError, match=r"a state dict was expected in .*, got int\. Save model"):
        load_weights(str(path))


@pytest.mark.parametrize("value", ["1", "true", "yes"])
def test_weights__an_environment_that_turns_safety_off_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", value)
    with pytest.raises(RecipeError) as found:
        load_weights(str(tmp_path / "w.pt"))
    assert str(found.value) == (
        "infer: weights are loaded without running code, but "
        f"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD={value} in the environment turns that off. Unset it"
    )


def test_once__loads_once_and_keeps_four() -> None:
    forget_models()
    calls: list[str] = []

    def load(name: str) -> Any:
        return once((name,), lambda: calls.append(name) or name)

    for name in "aabbcdaeeba":
        assert load(name) == name
    assert calls == ["a", "b", "c", "d", "e", "a"]
    forget_models()


def test_default_weights__are_those_that_torchvision_recommends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    made = {"fc.weight": torch.ones(2, 2)}

    def fetch(url: str, **settings: Any) -> dict[str, Tensor]:
        asked.append(url)
        assert settings["check_hash"]
        return made

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    assert load_weights("default", "resnet18") is made
    assert re.search(r"/resnet18-[0-9a-f]+\.pth$", asked[0])


def test_default_weights__without_a_network_say_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fetch(url: str, **settings: Any) -> dict[str, Tensor]:
        raise OSError("Name or service not known")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fetch)
    with pytest.raises(RecipeError, match="'resnet18' were expected to be fetched") as refused:
        load_weights("default", "resnet18")
    assert "Where there is no network, fetch them elsewhere" in str(refused.value)
