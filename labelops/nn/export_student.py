"""A trained student as two files' bytes, each of which says what it takes and what it answers.

One is a `torch.export` program, which runs without the code that the model came with; the other its
weights as safetensors, to go on training. How items are normalised is inside of both. Neither holds
a pickle: `pipelines.media.programs.load_program` opens programs without trusting them.
"""

import io
import json
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from labelops.nn.checkpoints import differences, safetensors_metadata
from labelops.nn.device import moved
from labelops.nn.transform import preprocessing

# N items, K classes

ABOUT = "labelops.student.json"
"""Extra file of the program, and key of the header of the weights."""

FORMAT = 1

WITHIN = 1e-6
"""A program answers as its model does, up to so much relative to the greatest logit (or 1)."""

MAX_ABOUT_BYTES = 1 << 26


@dataclass(frozen=True, kw_only=True)
class About:
    """What a student takes and what it answers.

    Attributes
    ----------
    classes : names of K classes, in the order of the logits.
    answers : *one* class, to be read through a softmax; or *many*, each through a sigmoid.
    dtype : of the items, ``float32`` or ``uint8``.
    shape : of an item.
    preprocessing : what the program itself does to an item, in words and numbers; nothing of it is
        to be done before.
    format : of this description.
    """

    classes: tuple[str, ...]
    answers: Literal["one", "many"]
    dtype: str
    shape: tuple[int, ...]
    preprocessing: Mapping[str, object]
    format: int = FORMAT


class Exported(NamedTuple):
    """A student as bytes.

    Attributes
    ----------
    program : of `torch.export.save`.
    weights : safetensors of the state dict.
    about : what both say of themselves.
    """

    program: bytes
    weights: bytes
    about: About


def export_student(
    model: nn.Module,
    items: np.ndarray,
    *,
    classes: Sequence[str],
    answers: Literal["one", "many"] = "one",
) -> Exported:
    """Return a student as a program and as weights, with its class names in both.

    Parameters
    ----------
    model
        On the CPU, in evaluation mode, as `fit_student` returns it.
    items
        A few, as the model takes them, first dimension N ≥ 1. The program is opened again, and has
        to answer them as the model does.
    classes
        K names, in the order of the logits.
    answers
        One class an item, or lists.

    Raises
    ------
    ValueError
        If the model has not as many classes as there are names, a name is there twice, or torch
        cannot export the model, or the program answers otherwise.

    Notes
    -----
    The program takes any number of items of the shape of these. Sample inputs, which torch stores
    as a pickle, are left out.

    Examples
    --------
    >>> model = nn.Linear(2, 3).eval()
    >>> made = export_student(model, np.zeros((1, 2), np.float32), classes=["a", "b", "c"])
    >>> about_of(made.program).classes, about_of(made.program) == made.about
    (('a', 'b', 'c'), True)
    """
    check_names(classes)
    if not len(items) or model.training:
        raise ValueError(
            "export: a model in evaluation mode and an item were expected, got "
            f"{len(items)} items and training {model.training}"
        )
    # Two, since a dimension of size one is taken for one of that size only.
    example = moved(items[np.arange(max(2, len(items))) % len(items)], torch.device("cpu"))
    with torch.no_grad():
        expected = model(example)
    if expected.shape != (len(example), len(classes)):
        raise ValueError(
            f"export: a model of {len(classes)} classes was expected, as many as there are names; "
            f"its output for {len(example)} items has shape {tuple(expected.shape)}"
        )
    about = About(
        classes=tuple(classes),
        answers=answers,
        dtype=str(items.dtype),
        shape=items.shape[1:],
        preprocessing=preprocessing(model),
    )
    text = json.dumps(asdict(about), ensure_ascii=False)
    program = _program(model, example, text)
    with torch.no_grad():
        found = torch.export.load(io.BytesIO(program)).module()(example)
    most = WITHIN * max(1.0, float(expected.abs().max()))
    off = float((found - expected).abs().max())
    if not off <= most:
        raise ValueError(
            f"export: a program that answers as its model does within {most:.1e} was expected, "
            f"got one that is off by {off:.1e}"
        )
    # Copies, since tied weights share their memory, which safetensors refuses.
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    weights = safetensors.torch.save(state, metadata={ABOUT: text})
    return Exported(program, weights, about)


def _program(model: nn.Module, example: torch.Tensor, about: str) -> bytes:
    dims = {0: torch.export.Dim("n")}
    try:
        with torch.no_grad():
            made = torch.export.export(model, (example,), dynamic_shapes=(dims,), strict=False)
        made.example_inputs = None
        buffer = io.BytesIO()
        torch.export.save(made, buffer, extra_files={ABOUT: about})
    except Exception as err:  # torch raises a dozen kinds, by what of the model it cannot trace
        raise ValueError(
            f"export: a model that torch {torch.__version__} can export was expected, got "
            f"{type(err).__name__}: {str(err).splitlines()[0] if str(err) else ''}"
        ) from err
    return buffer.getvalue()


def about_of(data: bytes) -> About:
    """Return what a program, or weights, of `export_student` say of themselves; runs nothing.

    Raises
    ------
    ValueError
        If they are neither.

    Examples
    --------
    >>> about_of(b"")
    Traceback (most recent call last):
    ValueError: student: a program or weights of export_student were expected, got 0 bytes that \
are neither
    """
    try:
        if data[:2] == b"PK":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                # All records lie in one folder, whose name is free.
                entry = next(
                    entry
                    for entry in archive.infolist()
                    if entry.filename.partition("/")[2] == f"extra/{ABOUT}"
                    and entry.file_size <= MAX_ABOUT_BYTES
                )
                text = archive.read(entry).decode()
        else:
            text = safetensors_metadata(data)[ABOUT]
        said = json.loads(text)
        said |= {name: tuple(said[name]) for name in ("classes", "shape")}
        about = About(**said)
    except (StopIteration, LookupError, TypeError, ValueError, zipfile.BadZipFile) as err:
        raise ValueError(
            f"student: a program or weights of export_student were expected, got {len(data)} "
            "bytes that are neither"
        ) from err
    if about.format != FORMAT:
        raise ValueError(f"student: format {FORMAT} was expected, got {about.format}")
    return about


def load_student(model: nn.Module, weights: bytes, *, classes: Sequence[str]) -> nn.Module:
    """Bring stored weights into a student that was built anew, in place.

    Parameters
    ----------
    model
        Of the same architecture.
    weights
        Of `export_student`.
    classes
        Names of the classes that it is to predict, in the order of the logits.

    Returns
    -------
    The model, in evaluation mode.

    Raises
    ------
    ValueError
        If the student has other classes, or the weights are of another model.
    """
    check_classes(about_of(weights), classes)
    try:
        state = safetensors.torch.load(weights)
    except SafetensorError as err:
        raise ValueError(f"student: weights were expected that are whole, got: {err}") from err
    sizes = [{k: list(v.shape) for k, v in s.items()} for s in (state, model.state_dict())]
    found = differences(*sizes)
    if found:
        raise ValueError(
            f"student: weights of this model were expected, got those of another: {found[0]}, and "
            f"{len(found) - 1} more"
        )
    model.load_state_dict(state)
    return model.eval()


def check_names(classes: Sequence[str]) -> None:
    """Refuse names of classes that are not told apart.

    Raises
    ------
    ValueError
        If there is none, or one is empty or there twice.

    Examples
    --------
    >>> check_names(["cat", "dog"])
    """
    twice = [name for name, n in Counter(classes).items() if n > 1]
    if not classes or "" in classes or twice:
        fault = f"{twice[0]!r} twice" if twice else "an empty one" if classes else "none"
        raise ValueError(f"student: different names of its classes were expected, got {fault}")


def check_classes(about: About, classes: Sequence[str]) -> None:
    """Refuse a student of other classes than are expected, or in another order.

    Raises
    ------
    ValueError
        Says how many there are, or which is the first that differs.

    Examples
    --------
    >>> about = About(
    ...     classes=("a", "b"), answers="one", dtype="float32", shape=(2,), preprocessing={}
    ... )
    >>> check_classes(about, ["b", "a"])
    Traceback (most recent call last):
    ValueError: student: class 0 was expected to be 'b', the student's is 'a'
    """
    if len(about.classes) != len(classes):
        raise ValueError(
            f"student: one of {len(classes)} classes was expected, got one of {len(about.classes)}"
        )
    for i, (found, wanted) in enumerate(zip(about.classes, classes, strict=True)):
        if found != wanted:
            raise ValueError(
                f"student: class {i} was expected to be {wanted!r}, the student's is {found!r}"
            )
