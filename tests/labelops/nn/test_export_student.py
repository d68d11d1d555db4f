"""Oracles: logits by hand from the stored weights; a loader of programs that trusts no one."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn

from labelops.nn.export_student import (
    ABOUT,
    Exported,
    about_of,
    check_names,
    export_student,
    load_student,
)
from labelops.nn.student_models import picture_student, table_student
from labelops.nn.transform import Normalised
from pipelines.media.programs import load_program

NAMES = ["cat", "dog", "Zürich|`<b>\n"]
X = np.random.default_rng(0).normal(3, [[1, 50, 0.01, 0]], (40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def made() -> Exported:
    student = table_student(X, n_classes=3, n_hidden=5, seed=1).eval()
    return export_student(student, X[:1], classes=NAMES, answers="many")


@pytest.mark.parametrize("n", [0, 1, 2, 40])
def test_program__answers_any_number_of_items_as_the_weights_say(
    made: Exported, n: int, tmp_path: Path
) -> None:
    (tmp_path / "student.pt2").write_bytes(made.program)
    program = load_program(str(tmp_path / "student.pt2"), torch.device("cpu"))
    with torch.no_grad():
        found = program(torch.from_numpy(X[:n])).numpy()
    w = {name: value.astype(float) for name, value in safetensors.numpy.load(made.weights).items()}
    scaled = (X[:n] - w["center"]) * w["factor"]
    hidden = np.maximum(scaled @ w["model.0.weight"].T + w["model.0.bias"], 0)
    expected = hidden @ w["model.2.weight"].T + w["model.2.bias"]
    np.testing.assert_allclose(found, expected, atol=1e-6)
    np.testing.assert_allclose(scaled[:, :3].std(axis=0) if n == 40 else 1, 1, atol=1e-3)


def test_program__holds_no_pickle(made: Exported) -> None:
    with zipfile.ZipFile(io.BytesIO(made.program)) as archive:
        sizes = {e.filename.partition("/")[2]: e.file_size for e in archive.infolist()}
        about = json.loads(archive.read(f"archive/extra/{ABOUT}"))
    assert sizes["data/sample_inputs/model.pt"] == 0
    assert about["classes"] == NAMES


def test_weights__go_into_a_student_built_anew(made: Exported) -> None:
    same = table_student(X[:2], n_classes=3, n_hidden=5, seed=1).eval()
    other = table_student(X[:2], n_classes=3, n_hidden=5, seed=2)
    load_student(other, made.weights, classes=NAMES)
    assert torch.equal(other.model[2].weight, same.model[2].weight)  # type: ignore[index, union-attr]
    assert not torch.equal(other.center, same.center)
    assert not other.training


def test_about__is_the_same_in_both_and_names_what_it_takes(made: Exported) -> None:
    assert about_of(made.program) == about_of(made.weights) == made.about
    assert made.about.classes == tuple(NAMES)
    assert (made.about.dtype, made.about.shape, made.about.answers) == ("float32", (4,), "many")


def test_pictures__normalising_is_in_the_program_and_told() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 2, 3),
        nn.BatchNorm2d(2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(1),
        nn.Linear(2, 2),
    )
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 8, 8)).astype(np.uint8)
    done = export_student(Normalised(net, mean=mean, std=std).eval(), images, classes=["a", "b"])
    about = about_of(done.program)
    assert (about.dtype, about.shape, about.answers) == ("uint8", (3, 8, 8), "one")
    assert (about.preprocessing["mean"], about.preprocessing["std"]) == (list(mean), list(std))
    by_hand = (images / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    program = torch.export.load(io.BytesIO(done.program)).module()
    with torch.no_grad():
        expected = net.eval()(torch.from_numpy(by_hand.astype(np.float32)))
        found = program(torch.from_numpy(images))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_load_student__other_classes_are_refused(made: Exported) -> None:
    student = table_student(X, n_classes=3, n_hidden=5)
    with pytest.raises(ValueError, match=r"one of 2 classes was expected, got one of 3$"):
        load_student(student, made.weights, classes=NAMES[:2])
    with pytest.raises(ValueError, match=r"class 0 was expected to be 'dog', the student's is 'c"):
        load_student(student, made.weights, classes=[NAMES[1], NAMES[0], NAMES[2]])
    wider = table_student(X, n_classes=3, n_hidden=6)
    with pytest.raises(ValueError, match=r"model\.0\.bias: \[5\] → \[6\], and 2 more$"):
        load_student(wider, made.weights, classes=NAMES)


class Deciding(nn.Module):
    """What it computes depends on what it sees, which no graph can hold."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :2] if float(x.sum()) > 0 else -x[:, :2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"classes": ["a", "b", "c"]},
            r"a model of 3 classes was expected, .* has shape \(2, 2\)$",
        ),
        ({"classes": ["a", "a"]}, r"different names .* were expected, got 'a' twice$"),
        ({"items": X[:0]}, r"a model in evaluation mode and an item were expected, got 0 items"),
        ({"model": nn.Linear(4, 2)}, r"got 1 items and training True$"),
        ({"model": Deciding().eval()}, r"a model that torch .* can export was expected, got "),
    ],
)
def test_export__bad_input_is_refused(changes: dict[str, Any], message: str) -> None:
    given = {"model": nn.Linear(4, 2).eval(), "items": X[:1], "classes": ["a", "b"], **changes}
    with pytest.raises(ValueError, match=message):
        export_student(**given)


@pytest.mark.parametrize(("names", "got"), [([], "none"), (["a", ""], "an empty one")])
def test_names__that_do_not_tell_classes_apart_are_refused(names: list[str], got: str) -> None:
    with pytest.raises(ValueError, match=rf"got {got}$"):
        check_names(names)


def test_about_of__damaged_bytes_are_refused(made: Exported) -> None:
    for whole in (made.program, made.weights):
        for data in (whole[:100], whole[100:], b"PK", b"\x08" + b"\x00" * 7 + b"[1]     "):
            with pytest.raises(ValueError, match=r"were expected, got \d+ bytes that are neither$"):
                about_of(data)


def test_table_student__weights_are_drawn_from_the_seed_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, other = (table_student(X, n_classes=2, n_hidden=3, seed=s).state_dict() for s in (0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert not torch.equal(one["model.0.weight"], other["model.0.weight"])
    assert not table_student(X, n_classes=2).model.weight.any()  # type: ignore[operator, union-attr]
    for bad in (X[:0], np.full((2, 3), np.nan, np.float32)):
        with pytest.raises(ValueError, match=r"items with finite features were expected"):
            table_student(bad, n_classes=2)


def test_table_student__does_not_look_at_a_feature_that_never_changed() -> None:
    student = table_student(X, n_classes=2, n_hidden=3)
    other = X.copy()
    other[:, 3] += 100
    answers = [student(torch.from_numpy(x)) for x in (X, other)]
    assert torch.equal(*answers)
    other[:, 0] += 100
    assert not torch.equal(student(torch.from_numpy(other)), answers[0])


def test_picture_student__begins_with_the_weights_of_all_but_the_head() -> None:
    name, how = "shufflenet_v2_x0_5", {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    first = picture_student(name, n_classes=2, seed=1, **how)  # type: ignore[arg-type]
    backbone = first.model[0].state_dict()  # type: ignore[index]
    second = picture_student(name, n_classes=5, seed=2, weights=backbone, **how)  # type: ignore[arg-type]
    again = second.model[0].state_dict()  # type: ignore[index]
    assert all(torch.equal(again[key], backbone[key]) for key in backbone)
    assert all(p.requires_grad for p in second.parameters())
