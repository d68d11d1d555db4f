"""Stage `distill`: a student learns from the product, beside one of the labels as given.

Twins are trained on all folds but one, with the same first weights, order and settings: one on the
product of the run, one on the labels as given. What they say of the items that neither was taught
tells which labels teach better. The student that is kept learns from all items, from the labels as
given unless those of the product surely teach better; it is left in `student/`, as a program and
as weights, with class names and preprocessing inside.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.hashing import is_sampled
from labelops.multilabel.labels import UNKNOWN, YES, from_flat, states
from labelops.ragged import owners
from pipelines.core.stage import (
    Arrays,
    Context,
    Fit,
    Map,
    Output,
    Reduce,
    Stage,
    Step,
    Tables,
    join_summaries,
)
from pipelines.decisions import product
from pipelines.decisions.ledger import LOG_FOLDER
from pipelines.decisions.settings import Config as DatasetConfig
from pipelines.errors import RecipeError
from pipelines.inference import embed
from pipelines.inference.folds import fold_of_items, folds_step
from pipelines.inference.given import given_of
from pipelines.inference.heads import even_blocks
from pipelines.labels import candidates, positives
from pipelines.labels.columns import SOFT, flat
from pipelines.labels.reference import reference_sets
from pipelines.labels.space import clean_space, given_columns, given_sets, space_of
from pipelines.media.images import check_type
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import list_array, vectors_of
from pipelines.students import train
from pipelines.students.evidence import judge
from pipelines.students.settings import VECTOR_STUDENTS, Config
from pipelines.students.targets import (
    GIVEN,
    PRODUCT,
    ManyTargets,
    OneTargets,
    any_of,
    certain,
    field_types,
)

SAMPLE_ITEMS = 50_000
"""Twins are compared on about so many items at most."""

BLOCK_ROWS = 4096

FOLDER = "student"
"""Of a run: the student that is kept."""


def skip(config: Config, columns: frozenset[str]) -> str | None:
    """Return why there is nothing to do, or None."""
    if clean_space(columns) is None and not columns.issuperset(SOFT):
        return "nothing was decided about labels before it, and nothing is believed of them"
    if config.student in ("auto", *VECTOR_STUDENTS) and not {"embedding", "features"} & columns:
        return (
            "there is neither an embedding nor a features column to learn from; name a torchvision "
            "classifier as distill.student to learn from pictures"
        )
    return None


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    column = train.input_of(columns) if config.student in ("auto", *VECTOR_STUDENTS) else "image"
    return ["item_id", "item_hash", *_narrow(columns), column]


def _narrow(columns: frozenset[str]) -> list[str]:
    """Return what targets are made of."""
    space = clean_space(columns)
    if space is None:
        return [*given_columns(columns), *SOFT]
    wanted = [*product.narrow_columns(columns), *product.carried_columns(columns)]
    return [name for name in dict.fromkeys(wanted) if name != "item_id" and name in columns]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: what is taught, twins, what they show, and the student that is kept."""
    column, decoded = _input_steps(config, ctx)
    arms = (GIVEN, PRODUCT) if space_of(ctx.columns) is not None else (PRODUCT,)
    answers = "many" if train.is_many(ctx) else "one"
    fields = [("fold", pa.int8()), *field_types(answers, arms)]
    learns = ["item_hash", *(name for name, _ in fields), column]
    dealt: list[Step[Config]] = []
    twins: list[Step[Config]] = []
    if GIVEN in arms:
        dealt = [folds_step(ctx)]
        twins = [
            Fit(
                name=train.twins_step(fold),
                reads=learns,
                fit=train.fit_twins(fold),
            )
            for fold in range(config.n_held_out(ctx.n_items))
        ]
    files = [LOG_FOLDER] if _leaves_out(ctx) else []
    needed = ["item_id", "item_hash", *_narrow(ctx.columns), *files]
    return [
        *decoded,
        *dealt,
        Map(
            name="targets",
            reads=needed,
            writes={f"{ctx.stage}/_targets": Output(schema=pa.schema(fields), ipc=True)},
            apply=write_targets,
        ),
        *twins,
        Reduce(
            name="evidence",
            reads=["item_id", "item_hash", *(name for name, _ in fields), column],
            summarize=collect,
            merge=join_summaries,
            finish=judge,
        ),
        Fit(name=train.KEPT, reads=learns, fit=train.fit_kept, keeps=True),
        Map(
            name="answer",
            reads=["item_id", "fold", f"{PRODUCT}_weight", column],
            writes={ctx.stage: Output(schema=_schema(ctx))},
            apply=answer,
        ),
    ]


def _input_steps(config: Config, ctx: Context[Config]) -> tuple[str, list[Step[Config]]]:
    """Return the column that students take, and the step that makes it."""
    if not train.architecture(ctx):
        return train.input_of(ctx.columns), []
    if "image" not in ctx.columns:
        raise RecipeError(
            f"stage {ctx.stage!r}: a column 'image' was expected for a student of pictures, "
            f"{config.student!r}, there is none. Set student = 'network', or leave it out"
        )
    check_type(ctx.types["image"])
    pixels = pa.list_(pa.uint8(), 3 * config.side**2)
    schema = pa.schema([("pixels", pixels)])
    decode = Map(
        name="decode",
        reads=["image"],
        writes={f"{ctx.stage}/_pixels": Output(schema=schema, ipc=True)},
        apply=embed.decode_images,
    )
    return "pixels", [decode]


def _schema(ctx: Context[Config]) -> pa.Schema:
    probs = pa.list_(pa.float32(), train.n_classes_of(ctx))
    return pa.schema([("item_id", ctx.types["item_id"]), ("student_probs", probs)])


# -- what is taught --------------------------------------------------------------------------------


def _product_context(ctx: Context[Config]) -> Context[DatasetConfig]:
    """Return the context in which the product was made: what was left out of it."""
    if "dataset" in ctx.earlier:
        return ctx.of("dataset")
    none: Context[Any] = ctx
    return replace(none, config=DatasetConfig())


def _leaves_out(ctx: Context[Config]) -> bool:
    return clean_space(ctx.columns) is not None and product.leaves_out(_product_context(ctx))


def write_targets(frame: Frame, ctx: Context[Config]) -> Tables:
    """Write what the product teaches of every item, and what its labels as given do."""
    columns: dict[str, pa.Array] = {}
    fold = np.zeros(frame.n, np.int8)
    if space_of(ctx.columns) is not None:
        given = given_of(ctx.columns).read(frame, ctx)
        fold = fold_of_items(given, frame.array("item_hash"), ctx).astype(np.int8)
        columns |= _given(frame, ctx).columns(GIVEN)
    columns |= _product(frame, ctx).columns(PRODUCT)
    return {f"{ctx.stage}/_targets": pa.table({"fold": pa.array(fold, pa.int8()), **columns})}


def _given(frame: Frame, ctx: Context[Config]) -> OneTargets | ManyTargets:
    """Return what labels as given teach: of candidates each as much, unlabelled as not positive."""
    ones = np.ones(frame.n)
    if train.is_many(ctx):
        return ManyTargets(given_sets(frame, ctx), ones)
    if candidates.GIVEN in ctx.columns:
        return any_of(candidates.candidate_sets(frame, ctx))
    if positives.GIVEN in ctx.columns:
        is_positive = frame.array(positives.GIVEN) == positives.POSITIVE
        return certain(is_positive.astype(np.int64), ones)
    return certain(frame.array("given").astype(np.int64), ones)


def _product(frame: Frame, ctx: Context[Config]) -> OneTargets | ManyTargets:
    """Return what the product teaches; nothing of items that are set aside."""
    space = clean_space(ctx.columns)
    if space is None:
        return _believed(frame, np.ones(frame.n))
    decided = product.with_left_out(frame, _product_context(ctx))
    weight = decided["weight"].to_numpy().astype(np.float64)
    clean = decided[space.clean[0]].combine_chunks()
    if train.is_many(ctx):
        return _many(decided, weight, ctx)
    is_here = clean.is_valid().to_numpy(zero_copy_only=False)
    if positives.GIVEN in ctx.columns:
        p = frame.array("p_positive").astype(np.float64)
        p = np.where(is_here, _ids(clean, ctx), p)
        is_taught = np.asarray(pc.is_in(decided["decision"], _in_product(space.may_be_open)))
        weight = np.where(is_taught, np.maximum(weight, 0.0), 0.0)
        if ctx.config.labels == "hard":
            return certain((p >= 0.5).astype(np.int64), weight)
        return _of_two(p, weight)
    weight = np.where(is_here, weight, 0.0)
    if ctx.config.labels == "soft" and set(SOFT) <= ctx.columns:
        return _believed(frame, weight)
    return certain(np.where(is_here, _ids(clean, ctx), -1), weight)


def _in_product(may_be_open: bool) -> pa.Array:
    return pa.array(["keep", "relabel", "abstain"])


def _of_two(p: np.ndarray, weight: np.ndarray) -> OneTargets:
    both = np.stack([p, 1 - p], axis=1)
    ids = np.tile([1, 0], (len(p), 1))
    order = np.argsort(-both, axis=1, kind="stable")
    start = np.arange(len(p) + 1) * 2
    flat_ids = np.take_along_axis(ids, order, axis=1).ravel()
    probs = np.take_along_axis(both, order, axis=1).ravel()
    return OneTargets(flat_ids, probs, start, np.zeros(len(p)), weight)


def _believed(frame: Frame, weight: np.ndarray) -> OneTargets:
    """Return the soft labels of a shard."""
    ids, start = flat(frame[SOFT[0]])
    probs, _ = flat(frame[SOFT[1]])
    return OneTargets(
        ids.to_numpy().astype(np.int64),
        probs.cast(pa.float32()).to_numpy(),
        start,
        frame[SOFT[2]].cast(pa.float32()).to_numpy().astype(np.float64),
        weight,
    )


def _many(decided: pa.Table, weight: np.ndarray, ctx: Context[Config]) -> ManyTargets:
    lists = [decided["labels_clean"].combine_chunks()]
    is_here = lists[0].is_valid().to_numpy(zero_copy_only=False)
    if "labels_negative_clean" in decided.column_names:
        lists.append(decided["labels_negative_clean"].combine_chunks())
    parts: list[np.ndarray] = []
    for column in lists:
        labels, start = flat(column)
        parts += [_ids(labels, ctx), start]
    sets = from_flat(*parts, n_classes=train.n_classes_of(ctx))
    return ManyTargets(sets, np.where(is_here, weight, 0.0))


def _ids(labels: pa.Array, ctx: Context) -> np.ndarray:
    """Return the class ids of labels; −1 of null."""
    known = ctx.labels(np.arange(train.n_classes_of(ctx)))
    found = pc.index_in(labels.cast(known.type), value_set=known).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


# -- what twins show -------------------------------------------------------------------------------


def _n_folds(ctx: Context[Config]) -> int:
    """Return how many folds were held out; none where there are no labels as given."""
    return ctx.config.n_held_out(ctx.n_items) if space_of(ctx.columns) is not None else 0


def _inputs(frame: Frame, ctx: Context[Config]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield some rows of a shard after the other, and what students take of them."""
    column = next(name for name in ("pixels", "embedding", "features") if name in frame.reads)
    side = ctx.config.side
    for here, block in even_blocks(frame, column, BLOCK_ROWS):
        values = vectors_of(block)[0]
        is_picture = column == "pixels"
        rows = np.arange(here.start, here.stop)
        yield rows, values.reshape(-1, 3, side, side) if is_picture else values.astype(np.float32)


def _answers(
    frame: Frame, ctx: Context[Config], arms: Sequence[str], is_asked: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what the twins that were not taught an item say of it, for some items of a shard."""
    fold = frame.array("fold")
    said = {arm: np.zeros((frame.n, train.n_classes_of(ctx)), np.float32) for arm in arms}
    for rows, inputs in _inputs(frame, ctx):
        for f in np.unique(fold[rows][is_asked[rows]]).tolist():
            here = np.flatnonzero((fold[rows] == f) & is_asked[rows])
            for arm, probs in said.items():
                probs[rows[here]] = train.says_of_fold(ctx, f, arm, inputs.shape[1])(inputs[here])
    return said


def collect(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Return what both twins score on the held-out items of a shard's sample.

    By the labels as given (`given`, `product`), and by a reference where there is one
    (`given_true`, `product_true`; NaN where it knows nothing).
    """
    fold, hashes = frame.array("fold"), frame.array("item_hash")
    n_folds = _n_folds(ctx)
    total = ctx.n_items * n_folds / ctx.config.folds
    chosen = is_sampled(hashes, wanted=SAMPLE_ITEMS, total=max(1, int(total))) & (fold < n_folds)
    rows = np.flatnonzero(chosen)
    whole = _answers(frame, ctx, (GIVEN, PRODUCT), chosen)
    said = {arm: probs[rows] for arm, probs in whole.items()}
    summary: Arrays = {"item_hash": hashes[rows]}
    truth = _truth(frame, ctx, rows)
    target = _own_targets(frame, ctx) if n_folds else None
    for arm, probs in said.items():
        summary[arm] = _scores(probs, target, rows, ctx) if target is not None else np.zeros(0)
        summary[f"{arm}_true"] = _against(probs, truth, ctx)
    if positives.GIVEN in ctx.columns and isinstance(target, OneTargets):
        summary["is_positive"] = target.first()[rows] == positives.POSITIVE
    return summary


def _own_targets(frame: Frame, ctx: Context[Config]) -> OneTargets | ManyTargets:
    table = frame.table([name for name in frame.reads if name.startswith(f"{GIVEN}_")])
    if train.is_many(ctx):
        return ManyTargets.of(table, GIVEN, train.n_classes_of(ctx))
    return OneTargets.of(table, GIVEN)


def _scores(
    probs: np.ndarray, target: OneTargets | ManyTargets, rows: np.ndarray, ctx: Context[Config]
) -> np.ndarray:
    """Return how well answers agree with labels as given, from 0 to 1.

    Of positive and unlabelled items it is the probability of being positive, to be ranked by.
    """
    if isinstance(target, ManyTargets):
        known = target.table(train.counted_absent(ctx))
        return agreement(probs >= ctx.config.cutoff, known[rows])
    if positives.GIVEN in ctx.columns:
        return probs[:, positives.POSITIVE].astype(np.float64)
    best = np.full(len(target.weight), -1)
    best[rows] = probs.argmax(axis=1)
    item = owners(target.start)
    is_hit = np.bincount(item[target.ids == best[item]], minlength=len(best)) > 0
    return np.asarray(is_hit[rows], np.float64)


def agreement(has: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the F1 of each item's set over the classes that are known; 1 where both are empty.

    Examples
    --------
    >>> agreement(np.array([[True, True, False]]), np.array([[1, 0, -1]]))
    array([0.66666667])
    """
    both = (has & (known == YES)).sum(axis=1)
    either = (has & (known != UNKNOWN)).sum(axis=1) + (known == YES).sum(axis=1)
    return np.asarray(np.where(either > 0, 2 * both / np.maximum(either, 1), 1.0))


def _truth(frame: Frame, ctx: Context[Config], rows: np.ndarray) -> np.ndarray:
    """Return what a reference says of some items, as states; unknown where there is none."""
    table = np.full((frame.n, train.n_classes_of(ctx)), UNKNOWN, np.int8)
    if "evaluate" in ctx.earlier:
        known, truth = reference_sets("reference", frame["item_id"], ctx.of("evaluate"))
        table[known] = states(truth)
    return np.asarray(table[rows])


def _against(probs: np.ndarray, truth: np.ndarray, ctx: Context[Config]) -> np.ndarray:
    is_known = (truth != UNKNOWN).any(axis=1)
    if train.is_many(ctx):
        scores = agreement(probs >= ctx.config.cutoff, truth)
    else:
        scores = (truth[np.arange(len(probs)), probs.argmax(axis=1)] == YES).astype(np.float64)
        is_known = (truth == YES).any(axis=1)
    return np.asarray(np.where(is_known, scores, np.nan))


def answer(frame: Frame, ctx: Context[Config]) -> Mapping[str, pa.Table]:
    """Write what students say that were not taught the item; null where each was."""
    arm = GIVEN if bool(ctx.own("evidence")["falls_back"]) else PRODUCT
    is_held_out = frame.array("fold") < _n_folds(ctx)
    probs = _answers(frame, ctx, (arm,), is_held_out)[arm]
    # What was set aside the kept student was not taught.
    is_aside = ~is_held_out & (frame.array(f"{PRODUCT}_weight") == 0) & (arm == PRODUCT)
    for rows, inputs in _inputs(frame, ctx):
        here = np.flatnonzero(is_aside[rows])
        if len(here):
            probs[rows[here]] = train.says_kept(ctx, inputs.shape[1])(inputs[here])
    said, is_said = list_array(probs), is_held_out | is_aside
    column_of = pa.FixedSizeListArray.from_arrays(
        said.flatten(), train.n_classes_of(ctx), mask=pa.array(~is_said)
    )
    return {ctx.stage: pa.table({"item_id": frame["item_id"], "student_probs": column_of})}


def files_at_end(ctx: Context[Config]) -> Mapping[str, bytes]:
    """Return the student that is kept: its program, and its weights."""
    files = {}
    for name in (train.PROGRAM, train.WEIGHTS):
        with open(ctx.artifact(train.KEPT, name), "rb") as file:
            files[f"{FOLDER}/{name}"] = file.read()
    return files


STAGE = Stage(
    name="distill",
    version=1,
    doc="trains a student on the product, and compares it with one of the labels as given",
    config=Config,
    steps=steps,
    reads=reads,
    writes=lambda config, columns: ["item_id", "student_probs"],
    skip=skip,
    gpu=True,
    folders=(FOLDER,),
    files_at_end=files_at_end,
)
