"""Texts of items as vectors: learned from a sample of them, applied shard by shard."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Arrays, Context, Fit, Tables
from pipelines.errors import RecipeError
from pipelines.inference import encode
from pipelines.inference.settings import Config
from pipelines.media.models import file_key, once
from pipelines.storage.arrays import read_array
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array

FIT_ITEMS = 20_000
"""Dimensions are found in the texts of so many items, the first by hash."""

BLOCK_ROWS = 1024

STEP = "texts"


def n_features(config: Config) -> int:
    """Return the length of the vectors.

    Raises
    ------
    RecipeError
        If the embedder is none of texts.
    """
    if config.is_program:
        return encode.n_features(config)
    if config.embedder != "pixels":
        raise RecipeError(
            "stage 'infer': a program of texts (.pt2) was expected as embedder of a column of "
            f"texts, got {config.embedder!r}. Make one with labelops export hf:FOLDER --out "
            "FILE.pt2; or leave it out, and texts become weighted counts of words"
        )
    from labelops.texts import N_DIMS

    return N_DIMS


def way(config: Config) -> Callable[[Frame, Context[Config]], Iterator[Tables]]:
    """Return what makes vectors of a shard's texts."""
    return encode.encode_texts if config.is_program else embed_texts


def learn_steps(ctx: Context[Config]) -> "list[Fit[Config]]":
    """Return the step that finds the dimensions of texts, where no program knows them."""
    if ctx.config.is_program:
        return []
    return [Fit(name=STEP, reads=["item_hash", "text"], fit=_fit)]


def _fit(items: Items, ctx: Context[Config], out: str) -> Arrays:
    from labelops.texts import find_dimensions

    texts: list[str] = []
    for table in items.tables(BLOCK_ROWS):
        texts += [text for text in table.column("text").to_pylist() if text is not None]
        if len(texts) >= FIT_ITEMS:
            break
    found = find_dimensions(texts[:FIT_ITEMS])
    for name, values in found._asdict().items():
        np.save(os.path.join(out, f"{name}.npy"), values)
    return {"n": np.array(min(len(texts), FIT_ITEMS)), "n_kept": np.array(len(found.kept))}


def embed_texts(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write the vectors of a shard's texts; reject what is null."""
    from labelops.texts import Dimensions, place

    paths = [ctx.artifact(STEP, f"{name}.npy") for name in Dimensions._fields]
    key = ("texts", *map(file_key, paths))
    dimensions = once(key, lambda: Dimensions(*map(read_array, paths)))
    for start, table in frame.batches(["text"], BLOCK_ROWS):
        texts = table.column("text").to_pylist()
        empty = [row for row, text in enumerate(texts) if text is None]
        frame.reject([start + row for row in empty], "text missing: the row is null")
        known = [text for text in texts if text is not None]
        if known:
            rows = place(known, dimensions)
            yield {f"{ctx.stage}/_embedding": pa.table({"embedding": list_array(rows)})}
