"""Classifiers that tell what they see in every cell: those of stage `infer`, or one of the user's.

Of stage `infer` every item is looked at by the models of its fold, which were not trained on it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipelines.core.stage import Context
from pipelines.errors import LabelopsError, RecipeError
from pipelines.inference.inputs import input_column
from pipelines.inference.settings import Config as InferConfig
from pipelines.inference.train import trained, weights_file
from pipelines.maps.settings import INFER, Config
from pipelines.media.images import Limits
from pipelines.media.models import file_key, load_weights, named_files, once
from pipelines.media.programs import unusable
from pipelines.storage.wording import why

if TYPE_CHECKING:
    from torch import nn

    from labelops.nn.forward import Forward


class View(NamedTuple):
    """How pictures are shown to a classifier: side of the square, normalisation, limits."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    limits: Limits


def _infer(ctx: Context[Config]) -> Context[InferConfig] | None:
    return ctx.of(INFER) if ctx.config.classifier == INFER else None


def view_of(ctx: Context[Config]) -> View:
    """Return how pictures are shown, by the settings of stage `localize`."""
    config, infer = ctx.config, _infer(ctx)
    side = config.image_size or (224 if infer is None else infer.config.side)
    shown = config if infer is None else infer.config
    return View(side, shown.mean, shown.std, shown.limits)


def open_models(ctx: Context[Config]) -> "list[Forward]":
    """Return one model a fold, or one for all items, on their device; opened once a process.

    Raises
    ------
    RecipeError
        If there is no such classifier, or it does not end in "mean over cells, linear".
    """
    key = ("maps", ctx.run_key, ctx.stage, *(file_key(path) for path in _files(ctx)))

    def load() -> "list[Forward]":
        try:
            return _open(ctx)
        except ValueError as err:
            raise RecipeError(f"stage {ctx.stage!r}: {err}") from err

    models: list[Forward] = once(key, load)
    return models


def grid_of(ctx: Context[Config]) -> tuple[int, int]:
    """Return height and width of the maps in cells, by asking the model with an empty picture.

    Raises
    ------
    RecipeError
        As `open_models`; so a model without score maps is refused before work starts.
    """
    import torch

    forward, side = open_models(ctx)[0], view_of(ctx).side
    blank = torch.zeros(1, 3, side, side, dtype=torch.uint8, device=forward.device)
    try:
        with torch.inference_mode():
            shape = forward.model(blank).shape
    except (LabelopsError, MemoryError):
        raise
    except Exception as err:  # whatever a program of somebody else's raises
        path = program_of(ctx.config.classifier)
        if path and not isinstance(err, ValueError):
            # The whole of it, not what was cut from it for its cells.
            program = _load_program(ctx.config.device, path)
            raise unusable(program, err, stage=ctx.stage, path=path, side=side) from err
        raise RecipeError(
            f"stage {ctx.stage!r}: a classifier with score maps, for pictures of {side} × {side} "
            f"pixels, was expected as classifier = {ctx.config.classifier!r}; {why(err)}"
        ) from err
    if shape[1] != ctx.n_classes:
        raise RecipeError(
            f"stage {ctx.stage!r}: a classifier of the {ctx.n_classes} classes was expected as "
            f"classifier = {ctx.config.classifier!r}, it has {shape[1]}. Name the classes of the "
            "model in data.classes, in the order of its outputs"
        )
    return int(shape[2]), int(shape[3])


def _files(ctx: Context[Config]) -> Sequence[str]:
    """Return the files of the models."""
    config, infer = ctx.config, _infer(ctx)
    if infer is None:
        return named_files(program_of(config.classifier), config.weights)
    made = infer.config
    if made.train != "heads":
        return [infer.artifact("train", weights_file(f)) for f in range(made.folds)]
    return named_files(program_of(made.embedder), made.weights)


def program_of(name: str | None) -> str | None:
    """Return the path of a torch.export program that a setting names; None where it does not."""
    return name if name is not None and name.endswith(".pt2") else None


def _open(ctx: Context[Config]) -> "list[Forward]":
    from labelops.nn.device import pick_device
    from labelops.nn.forward import Forward
    from labelops.nn.transform import Normalised

    config, view, infer = ctx.config, view_of(ctx), _infer(ctx)
    device = pick_device(config.device)
    nets = _own(ctx) if infer is None else _of_infer(infer)
    return [
        Forward(
            Normalised(net.eval().requires_grad_(False), mean=view.mean, std=view.std),
            device=device,
            batch_rows=config.batch_rows,
        )
        for net in nets
    ]


def _own(ctx: Context[Config]) -> "list[nn.Module]":
    from labelops.nn.architecture import load_classifier
    from labelops.nn.program_maps import ProgramMaps
    from labelops.nn.score_maps import score_maps_of

    config = ctx.config
    if path := program_of(config.classifier):
        return [ProgramMaps(_load_program(config.device, path))]
    assert config.classifier is not None
    weights = load_weights(config.weights, config.classifier)
    model = load_classifier(config.classifier, weights, n_classes=ctx.n_classes)
    return [score_maps_of(model, config.classifier)]


def _load_program(device: str, path: str) -> "nn.Module":
    from labelops.nn.device import pick_device
    from pipelines.media.programs import load_program

    return load_program(path, pick_device(device))


def _of_infer(infer: Context[InferConfig]) -> "list[nn.Module]":
    from labelops.nn import architecture
    from labelops.nn.program_maps import ProgramMaps

    config = infer.config
    if (column := input_column(config.use, infer.columns)) != "image":
        raise ValueError(
            f"models that stage 'infer' made from pictures were expected, it used {column!r}. Set "
            "infer.use = 'image', or name a classifier of your own as localize.classifier"
        )
    if config.train != "heads":
        models = [trained(infer, fold) for fold in range(config.folds)]
        return [_joined(model.backbone, model.head) for model in models]
    if config.embedder == "pixels":
        raise ValueError(
            "an embedder that averages over cells was expected in stage 'infer', got 'pixels', "
            "which does not. Name a classifier of torchvision as infer.embedder, or one of your "
            "own as localize.classifier"
        )
    heads = [_head(infer, f) for f in range(config.folds)]
    if config.is_program:
        program = _load_program(config.device, config.embedder)
        return [ProgramMaps(program, head) for head in heads]
    backbone = architecture.load_backbone(
        config.embedder, load_weights(config.weights, config.embedder)
    )
    return [_joined(backbone, head) for head in heads]


def _joined(backbone: "nn.Module", head: "nn.Linear") -> "nn.Module":
    from torch import nn

    from labelops.nn.score_maps import ScoreMaps

    return ScoreMaps(nn.Sequential(backbone, nn.Flatten(), head), head)


def _head(infer: Context, fold: int) -> "nn.Linear":
    """Return the head of a fold for features as they come, not standardised."""
    import torch
    from torch import nn

    heads = infer.own("heads")
    weight = heads["weight"][fold] / heads["std"][:, None]
    bias = heads["bias"][fold] - heads["mean"] @ weight
    with torch.random.fork_rng(devices=[]):
        head = nn.Linear(*weight.shape)
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight.T.copy()))
        head.bias.copy_(torch.from_numpy(bias))
    return head
