"""Embedders by their settings, opened once a process."""

from typing import TYPE_CHECKING, Any

from pipelines.errors import LabelopsError, RecipeError
from pipelines.inference.settings import Config
from pipelines.media.models import file_key, load_weights, named_files, once
from pipelines.media.programs import unusable

if TYPE_CHECKING:
    from labelops.nn.forward import Forward


def n_features(config: Config) -> int:
    """Return the length of the embedding.

    Raises
    ------
    ValueError
        If the name is no classifier of torchvision.
    """
    if config.embedder == "pixels":
        from labelops.nn.pixels import Pixels

        return Pixels.n_features
    if config.is_program:
        import numpy as np

        blank = np.zeros((1, 3, config.side, config.side), np.uint8)
        forward = open_embedder(config)
        try:
            return int(forward(blank).shape[1])
        except (LabelopsError, MemoryError):
            raise
        except Exception as err:  # whatever a program of somebody else's raises
            program = forward.model.model
            raise unusable(
                program, err, stage="infer", path=config.embedder, side=config.side
            ) from err
    from labelops.nn import architecture

    return architecture.n_features(config.embedder)


def open_embedder(config: Config) -> "Forward":
    """Return the embedder on its device; one a process, whatever the number of shards."""
    path = config.embedder if config.is_program else config.weights
    key = (
        "embedder",
        config.embedder,
        tuple(map(file_key, named_files(path))),
        (config.mean, config.std, config.batch_rows, config.device),
    )
    embedder: Forward = once(key, lambda: _open(config))
    return embedder


def _open(config: Config) -> "Forward":
    from labelops.nn import architecture
    from labelops.nn.device import pick_device
    from labelops.nn.forward import Forward
    from labelops.nn.pixels import Pixels
    from labelops.nn.transform import Normalised

    device = pick_device(config.device)
    mean, std = config.mean, config.std
    if config.embedder == "pixels":
        model: Any = Pixels()
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif config.is_program:
        from pipelines.media.programs import load_program, tokenizer_of

        if tokenizer_of(config.embedder) is not None:
            raise RecipeError(
                f"stage 'infer': a program of pictures was expected at {config.embedder}, got one "
                "of texts. Name another embedder, or set infer.use = 'text'"
            )
        model = load_program(config.embedder, device)
    else:
        weights = load_weights(config.weights, config.embedder)
        try:
            model = architecture.load_backbone(config.embedder, weights)
        except ValueError as err:
            raise RecipeError(f"stage 'infer': {err} It is at {config.weights}") from err
    return Forward(
        Normalised(model, mean=mean, std=std), device=device, batch_rows=config.batch_rows
    )
