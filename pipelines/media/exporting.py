"""Models of torchvision, timm and Hugging Face as one file each: a program without any pickle.

A run needs that file alone: neither the library that the model came with nor a network, on any
worker, and what it says is fingerprinted by its content.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipelines.errors import RecipeError
from pipelines.media.models import DEFAULT, load_weights
from pipelines.media.programs import TOKENIZER
from pipelines.storage.wording import did_you_mean, why

if TYPE_CHECKING:
    from torch import Tensor, nn

TIMM, HUGGING_FACE = "timm:", "hf:"

MOST_TOKENS = 256
"""Of a longer text the beginning is read."""


class Opened(NamedTuple):
    """A model that embeds.

    Attributes
    ----------
    model : from normalised pictures (N, 3, S, S), or from tokens (N, L), to (N, D).
    side : S; 0 of a model of texts.
    tokenizer : JSON of the tokenizer of a model of texts.
    n_tokens : L at most.
    """

    model: "nn.Module"
    side: int
    tokenizer: str = ""
    n_tokens: int = 0


def export_model(name: str, out: str, *, weights: str | None = None, side: int = 0) -> str:
    """Write a model as a torch.export program, and say how to use it.

    Parameters
    ----------
    name
        Of a torchvision classifier; or ``timm:NAME``; or ``hf:`` with a folder or a name, of a
        model of pictures or of texts.
    out
        Path of the program, which must not be there.
    weights
        File with weights of a torchvision or timm model; None: those that the library recommends
        and fetches.
    side
        Of the pictures, in pixels; 0: what the model was trained with.

    Raises
    ------
    RecipeError
        If the model is not known, its weights do not fit or cannot be fetched, it cannot be
        exported, or there is a file at `out`.
    """
    if not out.endswith(".pt2") or os.path.exists(out):
        raise RecipeError(
            f"export: a path for a new file that ends in .pt2 was expected, got {out}. Choose "
            "another, or remove what is there"
        )
    opened = _open(name, weights, side)
    import torch

    from pipelines.media.programs import load_program

    model = opened.model.eval().requires_grad_(False)
    dims: dict[int, Any] = {0: torch.export.Dim("n")}
    if opened.side:
        example = torch.zeros(2, 3, opened.side, opened.side)
    else:
        example = torch.zeros(2, 8, dtype=torch.int64)
        dims[1] = torch.export.Dim("length", min=2, max=opened.n_tokens)
    extra = {TOKENIZER: opened.tokenizer} if opened.tokenizer else {}
    part = f"{out}.part.pt2"
    try:
        with torch.no_grad():
            program = torch.export.export(model, (example,), dynamic_shapes=(dims,), strict=False)
        torch.export.save(program, part, extra_files=extra)
        # As a run will open it.
        with torch.inference_mode():
            n_features = int(load_program(part, torch.device("cpu"))(example).shape[1])
        os.replace(part, out)
    except OSError as err:
        raise RecipeError(
            f"export: a file was expected to be written at {out}: {why(err)}"
        ) from err
    except Exception as err:
        raise RecipeError(
            f"export: {name} was expected to be exported by torch {torch.__version__}, got: "
            f"{why(err)}. Embed the items with the model's own library, and name the vectors with "
            "data.columns.features"
        ) from err
    finally:
        Path(part).unlink(missing_ok=True)
    takes = f"{opened.side} × {opened.side} pixels" if opened.side else "texts"
    sized = f" --set infer.image_size={opened.side}" if opened.side not in (0, 224) else ""
    made = f"{out}: from {takes} to {n_features} features"
    return f"{made}\nUse it with --set infer.embedder={out}{sized}"


def _open(name: str, weights: str | None, side: int) -> Opened:
    if name.startswith(TIMM):
        return _open_timm(name.removeprefix(TIMM), weights, side)
    if name.startswith(HUGGING_FACE):
        if weights is not None:
            raise RecipeError(
                f"export: no --weights were expected for {name}: those of its folder are used"
            )
        return _open_hugging_face(name.removeprefix(HUGGING_FACE), side)
    from labelops.nn.architecture import load_backbone

    try:
        model = load_backbone(name, load_weights(weights or DEFAULT, name))
    except ValueError as err:
        raise RecipeError(
            f"export: {err} (or timm:NAME, or hf:FOLDER of a model of Hugging Face)"
        ) from err
    return Opened(model, side or 224)


def _library(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as err:
        raise RecipeError(
            f"export: the package {name!r} was expected, which is not installed: {why(err)}. "
            "Install it where you export (pip install 'labelops[export]'); a run does not need it"
        ) from err


def _open_timm(name: str, weights: str | None, side: int) -> Opened:
    timm = _library("timm")
    known: list[str] = timm.list_models()
    plain = name.partition(".")[0]
    if plain not in known:
        raise RecipeError(
            f"export: a model of timm {timm.__version__} was expected, got {name!r}"
            f"{did_you_mean(plain, known)} timm.list_models() names all"
        )
    sized = {"img_size": side} if side and _takes_size(timm, plain) else {}
    try:
        model = timm.create_model(name, pretrained=weights is None, num_classes=0, **sized)
    except Exception as err:
        raise _not_fetched(f"timm:{name}", err) from err
    config = model.pretrained_cfg
    if weights is not None:
        state = load_weights(weights)
        head = config.get("classifier") or ()
        heads = (head,) if isinstance(head, str) else tuple(head)
        kept = {k: v for k, v in state.items() if not k.startswith(tuple(f"{h}." for h in heads))}
        _load(model, kept, f"timm:{name}", weights)
    from labelops.nn.encoders import Renormalised

    model = Renormalised(model, mean=config["mean"], std=config["std"])
    return Opened(model, side or int(config["input_size"][1]))


def _takes_size(timm: Any, name: str) -> bool:
    """Return whether a model is made for one size of pictures (transformers are)."""
    config = timm.get_pretrained_cfg(name)
    return bool(config is not None and config.fixed_input_size)


def _load(model: "nn.Module", state: "dict[str, Tensor]", name: str, path: str) -> None:
    expected = model.state_dict()
    wrong = sorted(
        key
        for key in expected.keys() | state.keys()
        if key not in state or key not in expected or state[key].shape != expected[key].shape
    )
    if wrong:
        raise RecipeError(
            f"export: weights of {name} were expected in {path}; {len(wrong)} of {len(expected)} "
            f"tensors are missing, left over or of another shape: {', '.join(wrong[:5])}"
        )
    model.load_state_dict(state)


def _not_fetched(name: str, err: Exception) -> RecipeError:
    return RecipeError(
        f"export: {name} was expected to be opened, got: {why(err)}. Where there is no network, "
        "name a folder that holds the model, or a file of --weights"
    )


def _open_hugging_face(name: str, side: int) -> Opened:
    transformers = _library("transformers")
    transformers.utils.logging.disable_progress_bar()
    # Weights that are tensors only, and no code that a repository brings.
    safe = {"trust_remote_code": False}
    is_folder = os.path.isdir(name)
    try:
        config = transformers.AutoConfig.from_pretrained(name, local_files_only=is_folder, **safe)
        model = transformers.AutoModel.from_pretrained(
            name,
            local_files_only=is_folder,
            use_safetensors=True,
            attn_implementation="eager",
            dtype="float32",
            **safe,
        )
    except Exception as err:
        raise _not_fetched(f"hf:{name}", err) from err
    from labelops.nn.encoders import PictureEncoder, Renormalised, TextEncoder

    if not hasattr(config, "vocab_size"):
        own = _processor(transformers, name, is_folder)
        model = Renormalised(PictureEncoder(model), mean=own["mean"], std=own["std"])
        native = getattr(config, "image_size", 224)
        return Opened(model, side or int(native if isinstance(native, int) else native[0]))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(
            name, local_files_only=is_folder, use_fast=True, **safe
        )
        most = int(getattr(config, "max_position_embeddings", MOST_TOKENS))
        # Models of the kind of RoBERTa begin to count positions after their padding.
        n_tokens = min(MOST_TOKENS, most - int(getattr(config, "pad_token_id", None) or 0) - 1)
        backend = tokenizer.backend_tokenizer
        backend.enable_truncation(n_tokens)
        backend.no_padding()
        text = backend.to_str()
    except Exception as err:
        raise RecipeError(
            f"export: hf:{name} was expected to have a tokenizer (tokenizer.json), got: {why(err)}"
        ) from err
    return Opened(TextEncoder(model), 0, tokenizer=text, n_tokens=n_tokens)


def _processor(transformers: Any, name: str, is_folder: bool) -> dict[str, tuple[float, ...]]:
    """Return mean and standard deviation of the pictures that a model was trained with."""
    from labelops.nn.transform import IMAGENET_MEAN, IMAGENET_STD

    try:
        own = transformers.AutoImageProcessor.from_pretrained(
            name, local_files_only=is_folder, trust_remote_code=False
        )
    except OSError:
        # Nothing is said of them.
        return {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
    except Exception as err:
        raise _not_fetched(f"hf:{name}", err) from err
    if not own.do_normalize:
        return {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    return {"mean": tuple(own.image_mean), "std": tuple(own.image_std)}
