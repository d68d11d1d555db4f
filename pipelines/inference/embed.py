"""Vectors of a shard: embeddings of its pictures, or its features as they are."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.core.stage import Context, Tables
from pipelines.inference.embedders import open_embedder
from pipelines.inference.settings import Config
from pipelines.media.images import BadImageError, Limits, decode, encoded
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array, vectors_of

DECODE_ROWS = 64
MAX_DECODERS = 8
"""Threads that decode for one GPU; shards beside each other use the cores of a CPU already."""

ROWS_A_TABLE = 1024
CHUNK_BYTES = 32 * 2**20


def copy_features(frame: Frame, ctx: Context) -> Iterator[Tables]:
    """Take the source's features as embedding; reject what is null or not finite."""
    width = ctx.types["features"].list_size
    for start, table in frame.batches(["features"], max(1024, CHUNK_BYTES // (8 * width))):
        values, null = vectors_of(table.column("features").combine_chunks())
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
        finite = np.isfinite(single).all(axis=1)
        for row in np.flatnonzero(~finite).tolist():
            if null[row]:
                why = "features missing: the row is null"
            else:
                column = int(np.flatnonzero(~np.isfinite(single[row]))[0])
                why = f"features not finite: number {column} is {values[row, column]}"
            frame.reject([start + row], why)
        yield _table(ctx, "embedding", single if finite.all() else single[finite])


def embed_images(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Embed the pictures; reject those that do not decode."""
    forward = open_embedder(ctx.config)
    threads = 1 if forward.device.type == "cpu" else min(MAX_DECODERS, os.cpu_count() or 1)
    made = squares(frame, ctx, n_threads=threads)
    held: list[np.ndarray] = []
    n_held = 0
    for features in forward.stream(batches(made, forward.batch_rows)):
        held.append(features)
        n_held += len(features)
        if n_held >= ROWS_A_TABLE:
            yield _table(ctx, "embedding", np.concatenate(held))
            held, n_held = [], 0
    if held:
        yield _table(ctx, "embedding", np.concatenate(held))


def decode_images(frame: Frame, ctx: Context[Any]) -> Iterator[Tables]:
    """Write the pictures in the size that is trained on; reject those that do not decode.

    Settings have `side` and `limits`.
    """
    made = squares(frame, ctx, n_threads=1)
    for batch in batches(made, max(1, ROWS_A_TABLE * 1024 // ctx.config.side**2)):
        yield _table(ctx, "pixels", batch.reshape(len(batch), -1))


def _table(ctx: Context, name: str, rows: np.ndarray) -> Tables:
    return {f"{ctx.stage}/_{name}": pa.table({name: list_array(rows)})}


def batches(made: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """Yield stacks of exactly `rows` pictures; the last may be smaller."""
    held: list[np.ndarray] = []
    for picture in made:
        held.append(picture)
        if len(held) == rows:
            yield np.stack(held)
            held = []
    if held:
        yield np.stack(held)


def squares(frame: Frame, ctx: Context[Any], *, n_threads: int) -> Iterator[np.ndarray]:
    """Yield a shard's pictures, decoded, cut and scaled; reject the others with a reason."""
    side, limits = ctx.config.side, ctx.config.limits
    made = pictures(frame, lambda data: prepare(data, side, limits), n_threads=n_threads)
    return (picture for _, picture in made)


def pictures(
    frame: Frame,
    make: Callable[[bytes], np.ndarray | str],
    *,
    n_threads: int,
    wanted: np.ndarray | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the row of each of a shard's pictures, and what was made of it; reject the others.

    Of all rows, or of those that are wanted, bool, shape (n,).
    """

    def work(data: bytes | str) -> np.ndarray | str:
        return data if isinstance(data, str) else make(data)

    chosen = np.ones(frame.n, bool) if wanted is None else wanted

    def groups() -> Iterator[list[bytes | str]]:
        for start, table in frame.batches(["image"], DECODE_ROWS):
            mine = pa.array(chosen[start : start + len(table)])
            yield encoded(table.column("image").filter(mine).combine_chunks())

    rows = iter(np.flatnonzero(chosen).tolist())
    for chunk in _ahead(work, groups(), n_threads):
        for picture, row in zip(chunk, rows, strict=False):
            if isinstance(picture, str):
                frame.reject([row], picture)
            else:
                yield row, picture


def _ahead(
    work: Callable[[bytes | str], np.ndarray | str],
    groups: Iterable[list[bytes | str]],
    n_threads: int,
) -> Iterator[list[np.ndarray | str]]:
    """Apply `work` to every member of every group, in order; with threads, two groups ahead."""
    if n_threads == 1:
        from labelops.nn.threads import one_thread

        for group in groups:
            with one_thread():
                done = [work(member) for member in group]
            yield done
        return
    with ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[list[Future[np.ndarray | str]]] = deque()
        for group in groups:
            waiting.append([pool.submit(work, member) for member in group])
            if len(waiting) > 2:
                yield [future.result() for future in waiting.popleft()]
        while waiting:
            yield [future.result() for future in waiting.popleft()]


def prepare(data: bytes, side: int, limits: Limits, *, is_whole: bool = False) -> np.ndarray | str:
    """Return a picture, cut or squashed to a square, as uint8 (3, S, S), or why it cannot be."""
    if is_whole:
        from labelops.nn.score_maps import squash as fit
    else:
        from labelops.nn.transform import square as fit
    try:
        # Twice the side: what is scaled down once more by a good filter keeps its edges.
        return fit(decode(data, limits, at_least=2 * side), side)
    except BadImageError as err:
        return str(err)
