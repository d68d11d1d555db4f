"""States of a training as bytes: resumed exactly, or refused.

Tensors are stored as safetensors, everything else as JSON in its header, and a checksum of all of
it before that. Nothing is pickled. Where the bytes are kept is for the caller to say.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

MAGIC = b"labelops checkpoint 1\n"
HEADER = "labelops"
DIGEST_BYTES = hashlib.sha256().digest_size

MOST_SHOWN = 5


class TornError(ValueError):
    """Bytes that are no whole checkpoint."""


@dataclass(kw_only=True)
class Progress:
    """All that a training is made of between two steps.

    There is no state of a random generator: each step draws from generators of its own, which the
    seed and the number of the step decide.

    Attributes
    ----------
    model : as it is trained.
    optimiser : of its parameters.
    average : of the model's state over steps, by the names of its state dict; None without one.
    recipe : everything that decides the training, as JSON has it, so that differences have names.
    n_steps : of the whole training.
    step : how many were taken.
    """

    model: nn.Module
    optimiser: torch.optim.Optimizer
    average: dict[str, Tensor] | None
    recipe: Mapping[str, object]
    n_steps: int
    step: int = 0


class Checkpoint(NamedTuple):
    """What was stored of a `Progress`.

    Attributes
    ----------
    step : how many were taken.
    recipe : of the training.
    tensors : on the CPU; names begin with ``model.``, ``average.`` or ``optimiser.``.
    """

    step: int
    recipe: Mapping[str, object]
    tensors: Mapping[str, Tensor]


def dump(progress: Progress) -> bytes:
    """Return a training between two steps as bytes, wherever its tensors are.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> sgd = torch.optim.SGD(model.parameters())
    >>> now = Progress(
    ...     model=model, optimiser=sgd, average=None, recipe={"seed": 0}, n_steps=9, step=3
    ... )
    >>> stored = load(dump(now))
    >>> stored.step, stored.recipe, sorted(stored.tensors)
    (3, {'seed': 0}, ['model.bias', 'model.weight'])
    """
    named = {f"model.{name}": value for name, value in progress.model.state_dict().items()}
    named |= {f"average.{name}": value for name, value in (progress.average or {}).items()}
    # Its groups hold settings only, which the recipe decides.
    for i, state in progress.optimiser.state_dict()["state"].items():
        named |= {f"optimiser.{i}.{name}": value for name, value in state.items()}
    # Copies, since tied weights share their memory, which safetensors refuses.
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in named.items()}
    about = {"step": progress.step, "recipe": dict(progress.recipe)}
    body = safetensors.torch.save(tensors, metadata={HEADER: json.dumps(about, allow_nan=False)})
    return MAGIC + hashlib.sha256(body).digest() + body


def load(data: bytes) -> Checkpoint:
    """Return a stored checkpoint.

    Raises
    ------
    TornError
        If a byte of it is missing or differs from what was stored.

    Examples
    --------
    >>> load(b"half a checkpoint")
    Traceback (most recent call last):
    labelops.nn.checkpoints.TornError: checkpoint: bytes that `dump` made were expected, got 17 \
that begin otherwise
    """
    begin = len(MAGIC) + DIGEST_BYTES
    if not data.startswith(MAGIC) or len(data) < begin:
        raise TornError(
            f"checkpoint: bytes that `dump` made were expected, got {len(data)} that begin "
            "otherwise"
        )
    body = data[begin:]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : begin]:
        raise TornError(
            f"checkpoint: bytes that fit their checksum were expected, these {len(data)} do not. "
            "Was the run killed while they were written?"
        )
    try:
        tensors = safetensors.torch.load(body)
        about = json.loads(safetensors_metadata(body)[HEADER])
        return Checkpoint(int(about["step"]), dict(about["recipe"]), tensors)
    except (SafetensorError, LookupError, TypeError, ValueError) as err:
        raise TornError(
            f"checkpoint: tensors and a recipe were expected, got {type(err).__name__}: {err}"
        ) from err


def safetensors_metadata(data: bytes) -> dict[str, str]:
    """Return what the header of safetensors says beside names and sizes.

    Raises
    ------
    ValueError, LookupError
        If there is no such header.

    Examples
    --------
    >>> safetensors_metadata(safetensors.torch.save({"a": torch.zeros(1)}, metadata={"by": "x"}))
    {'by': 'x'}
    """
    size = int.from_bytes(data[:8], "little")
    found: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return found


def newest_whole(stored: Iterable[bytes]) -> Checkpoint | None:
    """Return the first checkpoint that is whole, of some in order from the newest; None without.

    Read one by one, so that an iterator need not read more than is wanted.

    Examples
    --------
    >>> newest_whole([b"torn", b""]) is None
    True
    """
    for data in stored:
        try:
            return load(data)
        except TornError:
            continue
    return None


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Return in which settings two recipes differ, by name.

    Examples
    --------
    >>> differences({"seed": 0, "batch_rows": 32}, {"seed": 0, "batch_rows": 64, "flip": True})
    ['batch_rows: 32 → 64', 'flip: absent → true']
    """
    shown = [
        {name: json.dumps(value, ensure_ascii=False) for name, value in recipe.items()}
        for recipe in (before, now)
    ]
    return [
        f"{name}: {shown[0].get(name, 'absent')} → {shown[1].get(name, 'absent')}"
        for name in sorted(shown[0].keys() | shown[1].keys())
        if shown[0].get(name) != shown[1].get(name)
    ]


def restore(progress: Progress, checkpoint: Checkpoint) -> None:
    """Bring a training that has not begun to where another of the same recipe was, in place.

    Raises
    ------
    ValueError
        If the recipe is another, or the model: says in what.
    """
    found = differences(checkpoint.recipe, progress.recipe)
    if found:
        raise ValueError(
            "resume: the recipe of the checkpoint was expected, got one that differs in "
            f"{_first(found)}. Train from the beginning, or take the recipe back"
        )
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimiser": {}}
    for name, value in checkpoint.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = value
    average = progress.average or {}
    found = [
        *_unlike(parts["model"], progress.model.state_dict(), who="model"),
        *_unlike(parts["average"], average, who="average"),
    ]
    if found:
        raise ValueError(
            f"resume: a checkpoint of this model was expected, got one of another: {_first(found)}"
        )
    progress.model.load_state_dict(parts["model"])
    for name, value in parts["average"].items():
        average[name].copy_(value)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in parts["optimiser"].items():
        i, _, rest = name.partition(".")
        state.setdefault(int(i), {})[rest] = value
    groups = progress.optimiser.state_dict()["param_groups"]
    progress.optimiser.load_state_dict({"state": state, "param_groups": groups})
    progress.step = checkpoint.step


def _unlike(before: Mapping[str, Tensor], now: Mapping[str, Tensor], *, who: str) -> list[str]:
    sizes = [{name: list(value.shape) for name, value in state.items()} for state in (before, now)]
    return [f"{who}.{line}" for line in differences(*sizes)]


def _first(found: list[str]) -> str:
    more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    return "; ".join(found[:MOST_SHOWN]) + more
