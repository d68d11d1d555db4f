"""Texts as vectors of a language model: a torch.export program that has its tokenizer with it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Context, Tables
from pipelines.errors import RecipeError
from pipelines.inference.settings import Config
from pipelines.media.models import file_key, once
from pipelines.media.programs import load_program, tokenizer_of
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array

if TYPE_CHECKING:
    from labelops.nn.forward import Forward

BLOCK_ROWS = 1024

STEP_TOKENS = 16
"""Texts are filled up to a multiple of so many tokens, whatever texts are beside them."""


def n_features(config: Config) -> int:
    """Return the length of the embedding.

    Raises
    ------
    RecipeError
        If the program is none of texts.
    """
    tokenizer, forward = open_encoder(config)
    try:
        return len(encode(["text"], tokenizer, forward)[0])
    except Exception as err:  # whatever a program of somebody else's raises
        raise RecipeError(
            f"stage 'infer': a program of texts was expected at {config.embedder}, got one that "
            f"fails. Make it with labelops export hf:FOLDER --out FILE.pt2"
        ) from err


def open_encoder(config: Config) -> "tuple[Any, Forward]":
    """Return tokenizer and program on its device; one a process."""
    key = ("encoder", file_key(config.embedder), config.batch_rows, config.device)
    opened: tuple[Any, Forward] = once(key, lambda: _open(config))
    return opened


def _open(config: Config) -> "tuple[Any, Forward]":
    from labelops.nn.device import pick_device
    from labelops.nn.forward import Forward

    description = tokenizer_of(config.embedder)
    if description is None:
        raise RecipeError(
            f"stage 'infer': a program of texts, with its tokenizer, was expected at "
            f"{config.embedder}, got one without. Make it with labelops export hf:FOLDER --out "
            "FILE.pt2; or leave embedder out, and texts become weighted counts of words"
        )
    try:
        from tokenizers import Tokenizer
    except ImportError as err:
        raise RecipeError(
            "stage 'infer': the package 'tokenizers' was expected for a program of texts. Install "
            "it on every machine of the run (pip install 'labelops[text]')"
        ) from err
    device = pick_device(config.device)
    program = load_program(config.embedder, device)
    tokenizer = Tokenizer.from_str(description)
    return tokenizer, Forward(program, device=device, batch_rows=config.batch_rows)


def encode(texts: list[str], tokenizer: Any, forward: "Forward") -> np.ndarray:
    """Return embeddings of texts, float32, shape (N, D)."""
    from labelops.nn.encoders import PADDING
    from labelops.texts import MAX_CHARACTERS

    found = tokenizer.encode_batch([text[:MAX_CHARACTERS] for text in texts])
    most = (tokenizer.truncation or {}).get("max_length", max(map(len, found)))
    length = np.array([max(len(one.ids), 1) for one in found])
    padded = np.minimum(-(-length // STEP_TOKENS) * STEP_TOKENS, most)
    rows: np.ndarray | None = None
    for width in np.unique(padded).tolist():
        mine = np.flatnonzero(padded == width)
        tokens = np.full((len(mine), width), PADDING, np.int64)
        for row, at in enumerate(mine.tolist()):
            ids = found[at].ids[:width]
            tokens[row, : len(ids)] = ids
        said = forward(tokens)
        rows = np.empty((len(texts), said.shape[1]), np.float32) if rows is None else rows
        rows[mine] = said
    assert rows is not None, "there is a text"
    return rows


def encode_texts(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write the vectors of a shard's texts; reject what is null."""
    tokenizer, forward = open_encoder(ctx.config)
    for start, table in frame.batches(["text"], BLOCK_ROWS):
        texts = table.column("text").to_pylist()
        empty = [row for row, text in enumerate(texts) if text is None]
        frame.reject([start + row for row in empty], "text missing: the row is null")
        if known := [text for text in texts if text is not None]:
            rows = encode(known, tokenizer, forward)
            yield {f"{ctx.stage}/_embedding": pa.table({"embedding": list_array(rows)})}
