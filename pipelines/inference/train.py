"""Models trained once a fold: fitted over all items, applied shard by shard."""

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import softmax

from pipelines.core.stage import Arrays, Context, Tables
from pipelines.inference.folds import fold_of_items
from pipelines.inference.heads import even_blocks, predictions
from pipelines.inference.settings import Config
from pipelines.media.models import file_key, load_weights, once
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array, vectors_of

if TYPE_CHECKING:
    from labelops.nn.classifier import Classifier
    from labelops.nn.forward import Forward

CHUNK_BYTES = 64 * 2**20


def fit(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Train one model a fold; leave their weights as artefacts."""
    from safetensors.torch import save_file

    from labelops.nn.device import pick_device
    from labelops.nn.train import Training, train_folds

    config = ctx.config
    # Beside the folder of artefacts: gone with it when the step ends, whichever way.
    pixels = items.vectors("pixels", os.path.join(os.path.dirname(out), "pixels"))
    pictures = pixels.reshape(-1, 3, config.side, config.side)
    given = items.column("given")
    fold = fold_of_items(given, items.column("item_hash"), ctx)
    models = train_folds(
        _builder(ctx),
        pictures,
        given,
        fold,
        n_folds=config.folds,
        training=Training(
            epochs=config.epochs,
            batch_rows=config.batch_rows,
            optimizer=config.optimizer,
            learning_rate=config.rate,
            weight_decay=config.weight_decay,
            flip=config.flip,
            crop=config.crop,
            mean=config.mean,
            std=config.std,
        ),
        seeds=[ctx.seed("train", f) for f in range(config.folds)],
        device=pick_device(config.device),
    )
    for f, model in enumerate(models):
        save_file(model.state_dict(), os.path.join(out, weights_file(f)))
    return {"n_items": np.array(items.n)}


def weights_file(fold: int) -> str:
    """Return the name of the artefact with the weights of a fold's model."""
    return f"fold-{fold}.safetensors"


def _builder(ctx: Context[Config]) -> Any:
    from labelops.nn.classifier import new_classifier

    config = ctx.config
    weights = load_weights(config.weights, config.embedder) if config.train == "finetune" else None

    def build(fold: int) -> "Classifier":
        return new_classifier(
            config.embedder,
            n_classes=ctx.n_classes,
            seed=ctx.seed("weights", fold),
            weights=weights,
        )

    return build


def open_networks(ctx: Context[Config]) -> "list[Forward]":
    """Return the trained models of all folds on their device, opened once a process."""
    paths = [ctx.artifact("train", weights_file(f)) for f in range(ctx.config.folds)]
    key = ("trained", ctx.config.device, *map(file_key, paths))
    models: list[Forward] = once(
        key, lambda: [_open_one(ctx, fold) for fold in range(ctx.config.folds)]
    )
    return models


def trained(ctx: Context[Config], fold: int) -> "Classifier":
    """Return the trained model of a fold, on the CPU."""
    from labelops.nn.classifier import new_classifier

    model = new_classifier(ctx.config.embedder, n_classes=ctx.n_classes, seed=0)
    model.load_state_dict(load_weights(ctx.artifact("train", weights_file(fold))))
    return model


def _open_one(ctx: Context[Config], fold: int) -> "Forward":
    from labelops.nn.device import pick_device
    from labelops.nn.forward import Forward
    from labelops.nn.transform import Normalised

    config = ctx.config
    net = Normalised(
        trained(ctx, fold).eval().requires_grad_(False), mean=config.mean, std=config.std
    )
    return Forward(net, device=pick_device(config.device), batch_rows=config.batch_rows)


def predict(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Give every item the probabilities of the model that has not seen it.

    The embedding is that of fold 0's model for all items: of several models the features mean
    different things, and could not be compared.
    """
    models = open_networks(ctx)
    side = ctx.config.side
    given, hashes = frame.array("given"), frame.array("item_hash")
    fold, ids = fold_of_items(given, hashes, ctx), frame["item_id"]
    rows = max(ctx.config.batch_rows, CHUNK_BYTES // (3 * side**2))
    for here, column in even_blocks(frame, "pixels", rows):
        pixels = vectors_of(column)[0].reshape(-1, 3, side, side)
        first = models[0](pixels)
        n_features = first.shape[1] - ctx.n_classes
        probs = np.empty((len(pixels), ctx.n_classes), np.float32)
        for f in np.unique(fold[here]).tolist():
            members = np.flatnonzero(fold[here] == f)
            output = first[members] if f == 0 else models[f](pixels[members])
            probs[members] = softmax(output[:, n_features:].astype(np.float64), axis=1)
        embedding = list_array(first[:, :n_features])
        yield predictions(ctx, ids[here], hashes[here], given[here], fold[here], probs, embedding)
