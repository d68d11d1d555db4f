"""Stage `localize`: what a classifier sees in every cell of a picture, and so which classes it has.

A classifier that ends in "mean over cells, linear" is asked before the mean. What it says is stored
sparse (`map_ids`, `map_scores`, `map_rest`): a label for any crop (`labelops.nn.localized`). The
classes of the whole picture (`present_ids`) are those that some cell is sure enough of, with a
cutoff for each class chosen on items of known classes. Pictures with one label each thus get all of
theirs: from single to multi, from global to localized. `map_decisions/` has a row for every class
that is to be added, is confirmed, or given and not seen; stage `decide_maps` follows it.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa

from labelops import label_maps
from pipelines.core.stage import Context, Map, Output, Reduce, Stage, Step, Tables, join_summaries
from pipelines.errors import DataError
from pipelines.inference.embed import pictures, prepare
from pipelines.labels.columns import GIVEN
from pipelines.labels.log import log_schema
from pipelines.labels.reference import match_reference
from pipelines.labels.space import given_columns
from pipelines.maps.columns import COLUMNS, METADATA, MapFacts, columns_of, map_fields
from pipelines.maps.evidence import (
    evidence_folder,
    evidence_in,
    evidence_schema,
    find_cutoffs,
)
from pipelines.maps.score_maps import grid_of, open_models, program_of, view_of
from pipelines.maps.sets import BELIEFS, LOG_FOLDER, PEAKS, count_sets, find_sets, set_fields
from pipelines.maps.settings import INFER, Config
from pipelines.media.images import check_type
from pipelines.media.models import named_files
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import arrays_of

PIXEL_BYTES, SCORE_BYTES = 128 * 2**20, 64 * 2**20
"""Pictures, and scores of all classes in all cells, that are held at a time."""


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None."""
    if config.classifier is None:
        return "no classifier is named (localize.classifier)"
    return None if "image" in columns else "there is no column 'image'"


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    fold = ["fold"] if config.classifier == INFER else []
    return ["item_id", "item_hash", "image", *fold, *given_columns(columns)]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of the sidecar."""
    return ["item_id", *COLUMNS, "present_ids", "present_scores", "present_cells"]


def files(config: Config) -> Sequence[str]:
    """Return the files whose content is part of the settings."""
    return named_files(program_of(config.classifier), config.weights, config.reference)


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: maps of every picture, cutoffs from a sample, then the sets of classes."""
    try:
        check_type(ctx.types["image"])
    except TypeError as err:
        raise DataError(f"stage {ctx.stage!r}: {err}") from err
    labels = given_columns(ctx.columns)
    if not labels and config.reference is None:
        raise DataError(
            f"stage {ctx.stage!r}: labels or a reference were expected, to choose cutoffs on. Map "
            "a column to 'label' or 'labels' in data.columns, or set localize.reference"
        )
    facts = _facts(ctx)
    fields = map_fields(facts)
    item_id = ("item_id", ctx.types["item_id"])
    columns = [item_id, *fields, *set_fields(ctx.n_classes)]
    written = {
        ctx.stage: Output(
            schema=pa.schema(columns, metadata={METADATA: facts.to_json()}), row_group_rows=16_384
        )
    }
    if labels:
        log = log_schema(ctx.types["item_id"], ctx.label_type)
        written[LOG_FOLDER] = Output(schema=log, rows="some")
    return [
        match_reference("reference", "ids of the reference"),
        Map(
            name="maps",
            reads=reads(config, ctx.columns),
            writes={
                _maps_folder(ctx): Output(schema=pa.schema(fields), ipc=True),
                evidence_folder(ctx): Output(schema=evidence_schema(ctx), rows="some", ipc=True),
            },
            apply=make_maps,
        ),
        Reduce(
            name="cutoffs",
            reads=[evidence_folder(ctx)],
            summarize=lambda frame, ctx: arrays_of(frame.file(evidence_folder(ctx))),
            merge=join_summaries,
            finish=find_cutoffs,
        ),
        Map(
            name="sets",
            reads=["item_id", *COLUMNS, *labels],
            writes=written,
            apply=partial(find_sets, facts),
        ),
        Reduce(name="totals", reads=["present_ids"], summarize=count_sets),
    ]


def _maps_folder(ctx: Context) -> str:
    return f"{ctx.stage}/_maps"


def _facts(ctx: Context[Config]) -> MapFacts:
    config = ctx.config
    is_logistic = config.classifier == INFER and GIVEN in ctx.columns
    output = config.output or ("logistic" if is_logistic else "softmax")
    k = min(config.k, ctx.n_classes)
    return MapFacts(*grid_of(ctx), k, ctx.n_classes, output, view_of(ctx).side)


# -- maps ------------------------------------------------------------------------------------------


def make_maps(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write the maps of a shard's pictures, and what cutoffs are chosen on; reject bad pictures."""
    models, facts = open_models(ctx), _facts(ctx)
    evidence = evidence_in(frame, ctx)
    fold = frame.array("fold") if len(models) > 1 else np.zeros(frame.n, np.int64)
    for rows, images in _chunks(frame, ctx, facts):
        scores = np.empty((len(rows), facts.n_classes * facts.height * facts.width), np.float32)
        for f in np.unique(fold[rows]).tolist():
            here = np.flatnonzero(fold[rows] == f)
            scores[here] = models[f](images[here])
        grid = (facts.n_classes, facts.height, facts.width)
        maps = label_maps.sparsify_maps(scores.reshape(-1, *grid), k=facts.k)
        chosen = np.flatnonzero(evidence.is_wanted[rows])
        names = ("ids", "scores", "rest")
        part = maps._replace(**{name: getattr(maps, name)[chosen] for name in names})
        sure, _ = PEAKS[facts.output](part)
        yield {
            _maps_folder(ctx): pa.table(columns_of(maps)),
            evidence_folder(ctx): evidence.table(rows[chosen], sure),
        }


def _chunks(
    frame: Frame, ctx: Context[Config], facts: MapFacts
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield rows and pictures, as many as batches can be filled with, whatever fold they are of."""
    view = view_of(ctx)
    cells = facts.n_classes * facts.height * facts.width
    most = min(PIXEL_BYTES // (3 * view.side**2), SCORE_BYTES // (4 * cells))
    most = max(most, ctx.config.batch_rows)
    make = partial(prepare, is_whole=True, side=view.side, limits=view.limits)
    rows: list[int] = []
    held: list[np.ndarray] = []
    for row, image in pictures(frame, make, n_threads=1):
        rows.append(row)
        held.append(image)
        if len(rows) == most:
            yield np.array(rows), np.stack(held)
            rows, held = [], []
    if rows:
        yield np.array(rows), np.stack(held)


STAGE = Stage(
    name="localize",
    version=2,
    doc="writes label maps: which classes each cell of a picture shows, and the whole picture",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    skip=skip,
    files=files,
    gpu=True,
    folders=(LOG_FOLDER,),
    beliefs=BELIEFS,
)
