"""What teachers say of views of a shard's items, and what is stored of it.

Beliefs of an earlier stage are one view of an item. Networks of stage `infer` see regions of every
picture; the network of an item's fold, which was not trained on it, sees those of the item.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.soft.geometry import central_squares, draw_flips, draw_regions, view_hashes
from labelops.soft.views import check_written, encode
from labelops.top_belief import log_beliefs, take_beliefs, with_certainty
from pipelines.core.stage import Context
from pipelines.decisions.reviews import reviewed_classes
from pipelines.errors import RecipeError
from pipelines.inference.embed import pictures
from pipelines.inference.inputs import input_column
from pipelines.inference.settings import Config as InferConfig
from pipelines.inference.train import open_networks, weights_file
from pipelines.labels.beliefs import block_rows, slices
from pipelines.media.images import BadImageError, decode
from pipelines.registry import load_stage
from pipelines.soft.columns import SoftFacts, Teacher, ViewRows
from pipelines.soft.settings import Config
from pipelines.storage.frame import Frame

# V views, K classes

INFER = "infer"

CHUNK_BYTES = 64 * 2**20
"""Pixels of views that are held at a time; of one picture all are."""

RESIZE = "box to square, bilinear, antialiased"


class Said(NamedTuple):
    """What a teacher says of V views, item by item.

    Attributes
    ----------
    row : of the item within the shard, int64, shape (V,).
    view_id : number of the view within its item, int64, shape (V,).
    logits : or logarithms of probabilities, float64, shape (V, K).
    box, size, is_flipped : as of `ViewRows`.
    """

    row: np.ndarray
    view_id: np.ndarray
    logits: np.ndarray
    box: np.ndarray
    size: np.ndarray
    is_flipped: np.ndarray


def networks_of(ctx: Context[Config]) -> Context[InferConfig]:
    """Return the context of stage `infer`, which trained networks on pictures.

    Raises
    ------
    RecipeError
        If it did not.
    """
    infer: Context[InferConfig] = ctx.of(INFER)
    config, column = infer.config, input_column(infer.config.use, infer.columns)
    if column != "image" or config.train == "heads":
        raise RecipeError(
            f"stage {ctx.stage!r}: networks that stage 'infer' trained on pictures were expected "
            f"for teacher = 'networks', it used {column!r} with train = {config.train!r}. Set "
            "infer.train = 'scratch' or 'finetune', or teach.teacher = 'beliefs'"
        )
    return infer


def reads_of(ctx: Context[Config]) -> Sequence[str]:
    """Return the columns and folders that a teacher is asked with."""
    if ctx.config.teacher == "networks":
        return ["item_id", "item_hash", "given", "image", "fold"]
    beliefs = [*ctx.asked.reads(ctx.columns), *ctx.asked.files]
    return list(dict.fromkeys(["item_id", "item_hash", "given", *beliefs]))


def facts_of(ctx: Context[Config]) -> SoftFacts:
    """Return what the soft labels are of."""
    config = ctx.config
    return SoftFacts(
        classes=ctx.classes,
        kind=config.stored,
        number=config.number,
        temperature=config.temperature,
        k=min(config.k, ctx.n_classes),
        teachers=(_network(ctx) if config.teacher == "networks" else _believer(ctx),),
        epsilon=config.epsilon if config.calibrate else None,
    )


def _believer(ctx: Context[Config]) -> Teacher:
    """Return who believes; there being no weights, by the settings that beliefs were made with."""
    made = [ctx.of(name) for name in dict.fromkeys((INFER, ctx.beliefs_stage))]
    settings = [of.config.model_dump_json(exclude=set(of.files)) for of in made]
    digest = hashlib.sha256("\x1f".join(settings).encode()).hexdigest()
    return Teacher(name=f"beliefs of stage {ctx.beliefs_stage!r}", sha256=digest)


def _network(ctx: Context[Config]) -> Teacher:
    infer = networks_of(ctx)
    digest = hashlib.sha256()
    for fold in range(infer.config.folds):
        with open(infer.artifact("train", weights_file(fold)), "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return Teacher(
        name=f"{infer.config.embedder}, {infer.config.folds} networks, out of fold",
        sha256=digest.hexdigest(),
        input_size=infer.config.side,
        resize=RESIZE,
        mean=infer.config.mean,
        std=infer.config.std,
    )


def say(frame: Frame, ctx: Context[Config], wanted: np.ndarray) -> Iterator[Said]:
    """Yield what the teacher says of those views of a shard that are wanted, bool, shape (n, M).

    All of an item's together, item by item. A view does not depend on which others are wanted.
    """
    if ctx.config.teacher == "networks":
        return _say_networks(frame, ctx, wanted)
    return _say_beliefs(frame, ctx, wanted[:, 0])


def _say_beliefs(frame: Frame, ctx: Context[Config], wanted: np.ndarray) -> Iterator[Said]:
    certain = _reviewed(frame, ctx)
    for rows, belief in ctx.asked.blocks(frame, ctx, ctx.config.k, certain):
        sure = with_certainty(belief, certain[rows])
        for part in slices(rows.stop - rows.start, block_rows(ctx.n_classes)):
            chosen = np.flatnonzero(wanted[rows][part])
            none = np.zeros((len(chosen), 4), np.uint16)
            yield Said(
                rows.start + part.start + chosen,
                np.zeros(len(chosen), np.int64),
                log_beliefs(take_beliefs(sure, part))[chosen],
                none,
                none[:, :2],
                none[:, 0].astype(bool),
            )


def _reviewed(frame: Frame, ctx: Context[Config]) -> np.ndarray:
    """Return the class that a reviewer gave each item, where the stage that decided knows any."""
    name = ctx.deciding_stage
    if name and load_stage(name).asks == "label":
        return reviewed_classes(frame, ctx.of(name))
    return np.full(frame.n, -1, np.int64)


def _say_networks(frame: Frame, ctx: Context[Config], wanted: np.ndarray) -> Iterator[Said]:
    from labelops.nn.threads import one_thread
    from labelops.nn.transform import cut

    infer = networks_of(ctx)
    models, side = open_networks(infer), infer.config.side
    fold, hashes = frame.array("fold"), frame.array("item_hash")
    most = max(infer.config.batch_rows, CHUNK_BYTES // (3 * side**2))
    held: list[Said] = []
    squares: list[np.ndarray] = []
    n_held = 0

    def flush() -> Said:
        said = Said(*map(np.concatenate, zip(*held, strict=True)))
        images, of_view = np.concatenate(squares), fold[said.row]
        logits = np.empty((len(images), ctx.n_classes))
        for f in np.unique(of_view).tolist():
            mine = np.flatnonzero(of_view == f)
            logits[mine] = models[f](images[mine])[:, -ctx.n_classes :]
        held.clear()
        squares.clear()
        return said._replace(logits=logits)

    def pixels_of(data: bytes) -> np.ndarray | str:
        try:
            return decode(data, infer.config.limits)
        except BadImageError as err:
            return str(err)

    found = pictures(frame, pixels_of, n_threads=1, wanted=np.asarray(wanted.any(axis=1)))
    for row, pixels in found:
        view = np.flatnonzero(wanted[row])
        of_item = np.full(len(view), hashes[row], np.uint64)
        size = np.tile(np.array([pixels.shape[1:]]), (len(view), 1))
        box, is_flipped = regions_of(size, of_item, view, ctx.config)
        with one_thread():
            squares.append(cut(pixels, box, is_flipped, side))
        none = np.empty((len(view), 0))
        held.append(Said(np.full(len(view), row), view, none, box, size, is_flipped))
        n_held += len(view)
        if n_held >= most:
            n_held = 0
            yield flush()
    if held:
        yield flush()


def regions_of(
    size: np.ndarray, item_hash: np.ndarray, view: np.ndarray, config: Config
) -> tuple[np.ndarray, np.ndarray]:
    """Return boxes of views, and which are mirrored: view 0 as stage `infer` saw the picture."""
    hashes = view_hashes(item_hash, view, seed=config.seed)
    drawn = draw_regions(size, hashes, area=config.area, aspect=config.aspect)
    is_whole = view == 0
    box = np.where(is_whole[:, None], central_squares(size), drawn)
    return box, draw_flips(hashes) & config.flip & ~is_whole


def rows_of(said: Said, frame: Frame, facts: SoftFacts) -> tuple[ViewRows, np.ndarray]:
    """Return what is stored of what was said, and the divergence of it in nats, shape (V,).

    Raises
    ------
    ArithmeticError
        If it is not what was said, up to the rounding of its numbers.
    """
    labels = encode(said.logits, frame.array("given")[said.row], coding=facts.coding, k=facts.k)
    lost = check_written(said.logits, labels, coding=facts.coding)
    ids = frame["item_id"].take(pa.array(said.row))
    rows = ViewRows(
        ids, said.view_id.astype(np.uint16), labels, said.box, said.size, said.is_flipped
    )
    return rows, lost
