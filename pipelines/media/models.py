"""Model files: opened once a process, and never by running what is in a pickle."""

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.errors import RecipeError
from pipelines.storage.wording import why

if TYPE_CHECKING:
    from torch import Tensor

MOST_KEPT = 4

_models: dict[tuple[object, ...], Any] = {}
_lock = threading.Lock()


def once(key: tuple[object, ...], load: Any) -> Any:
    """Return what `load()` gives, called once a process for each key.

    The most recent are kept: a worker sees one stage at a time, which may have several heads.
    """
    with _lock:
        if key in _models:
            return _models[key]
        model = load()
        while len(_models) >= MOST_KEPT:
            del _models[next(iter(_models))]
        _models[key] = model
        return model


def forget_models() -> None:
    """Drop the models that this process holds."""
    with _lock:
        _models.clear()


def file_key(path: str) -> tuple[str, int, int]:
    """Return what tells a file from its successor of the same name."""
    status = os.stat(path)
    return (os.path.realpath(path), status.st_size, status.st_mtime_ns)


def refuse_unsafe_loading() -> None:
    """Stop where the environment tells torch to run pickles after all.

    Raises
    ------
    RecipeError
        If TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set.
    """
    name = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    if os.environ.get(name, "0").lower() not in {"", "0", "false", "n", "no"}:
        raise RecipeError(
            f"infer: weights are loaded without running code, but {name}={os.environ[name]} in the "
            "environment turns that off. Unset it"
        )


DEFAULT = "default"
"""Instead of a file: the weights that torchvision recommends for a model, fetched by it."""


def named_files(*paths: str | None) -> list[str]:
    """Return those settings that name a file."""
    return [path for path in paths if path is not None and path != DEFAULT]


def load_weights(path: str | None, model: str = "") -> dict[str, "Tensor"]:
    """Read a state dict: safetensors, or a torch file that holds tensors only.

    Parameters
    ----------
    path
        Of the file; or `DEFAULT`.
    model
        Name of the torchvision model that they are for.

    Raises
    ------
    RecipeError
        If the file cannot be read or fetched, or holds more than tensors.
    """
    refuse_unsafe_loading()
    assert path is not None, "settings that need weights name them"
    if path == DEFAULT:
        return _fetched(model)
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        import torch

        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:
        raise RecipeError(
            f"infer: a file with weights (safetensors, or a torch state dict of tensors only) was "
            f"expected at {path}, got: {why(err)}. Save it with "
            "safetensors.torch.save_file(model.state_dict(), path)"
        ) from err
    for outer in ("state_dict", "model"):
        if isinstance(weights, dict) and isinstance(weights.get(outer), dict):
            weights = weights[outer]
    if not isinstance(weights, dict) or not all(hasattr(v, "shape") for v in weights.values()):
        raise RecipeError(
            f"infer: a state dict was expected in {path}, got {type(weights).__name__}. Save "
            "model.state_dict(), not the model"
        )
    return {str(key).removeprefix("module."): value for key, value in weights.items()}


def _fetched(model: str) -> dict[str, "Tensor"]:
    """Return the weights that torchvision recommends, from its cache or the network."""
    from labelops.nn.architecture import recommended_weights

    try:
        fetched = recommended_weights(model)
    except Exception as err:
        raise RecipeError(
            f"infer: weights of {model!r} were expected to be fetched by torchvision (weights = "
            f"{DEFAULT!r}), got: {why(err)}. Where there is no network, fetch them elsewhere, save "
            "them with safetensors.torch.save_file(model.state_dict(), path), and name that file"
        ) from err
    return fetched
