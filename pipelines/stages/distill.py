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

from labelops.decisions import DECISIONS, SET_ASIDE
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
from pipelines.students.evidence import TAUGHT, can_compare, judge
from pipelines.students.settings import Config
from pipelines.students.targets import (
    GIVEN,
    PRODUCT,
    ManyTargets,
    OneTargets,
    any_of,
    certain,
    field_types,
    of_two,
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
    if not config.is_of_pictures and not {"embedding", "features"} & columns:
        return (
            "there is neither an embedding nor a features column to learn from; name a torchvision "
            "classifier as distill.student to learn from pictures"
        )
    return None


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that it needs."""
    column = "image" if config.is_of_pictures else train.input_of(columns)
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
        # A step each, so that a run that was stopped trains none of them twice.
        twins = [
            Fit(
                name=train.twins_step(fold),
                reads=learns,
                fit=train.fit_twins(fold),
                when=can_compare,
            )
            for fold in range(config.n_held_out(ctx.n_items))
        ]
    files = [LOG_FOLDER] if _leaves_out(ctx) else []
    needed = ["item_id", "item_hash", *_narrow(ctx.columns), *files]
    counted = [name for name, _ in fields if name.endswith(("fold", "_ids", "_weight"))]
    of_given = [name for name, _ in fields if name == "fold" or name.startswith(GIVEN)]
    return [
        *decoded,
        *dealt,
        Map(
            name="targets",
            reads=needed,
            writes={f"{ctx.stage}/_targets": Output(schema=pa.schema(fields), ipc=True)},
            apply=write_targets,
        ),
        Reduce(name=TAUGHT, reads=counted, summarize=count_taught),
        *twins,
        Reduce(
            name="evidence",
            reads=["item_id", "item_hash", *of_given, column],
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
    config = train.settings_of(ctx)
    if not config.is_of_pictures:
        return train.input_of(ctx.columns), []
    check_type(ctx.types["image"])
    pixels = pa.list_(pa.uint8(), 3 * config.side**2)
    schema = pa.schema([("pixels", pixels)])
    decode = Map(
        name="decode",
        reads=["image"],
        writes={f"{ctx.stage}/_pixels": Output(schema=schema, ipc=True)},
        apply=decode_images,
    )
    return "pixels", [decode]


def decode_images(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write the pictures as students take them; reject those that do not decode."""
    return embed.decode_images(frame, replace(ctx, config=train.settings_of(ctx)))


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
    is_aside = pc.is_in(decided["decision"], value_set=pa.array(DECISIONS[[*SET_ASIDE]]))
    weight = decided["weight"].to_numpy().astype(np.float64)
    weight[is_aside.to_numpy()] = 0.0
    if train.is_many(ctx):
        return _many(decided, weight, ctx)
    label = _ids(decided[space.clean[0]].combine_chunks(), ctx)
    is_soft = ctx.config.labels == "soft"
    if positives.GIVEN in ctx.columns:
        # Of items that nothing was decided about there is the belief alone.
        p = np.where(label >= 0, label, frame.array("p_positive").astype(np.float64))
        return of_two(p, weight) if is_soft else certain((p >= 0.5).astype(np.int64), weight)
    if is_soft and ctx.columns.issuperset(SOFT):
        return _believed(frame, weight)
    return certain(label, weight)


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
    names = ("labels_clean", "labels_negative_clean")
    columns = [flat(decided[name]) for name in names if name in decided.column_names]
    parts = [part for labels, start in columns for part in (_ids(labels, ctx), start)]
    return ManyTargets(from_flat(*parts, n_classes=train.n_classes_of(ctx)), weight)


def _ids(labels: pa.Array, ctx: Context) -> np.ndarray:
    """Return the class ids of labels; −1 of null."""
    known = ctx.labels(np.arange(train.n_classes_of(ctx)))
    found = pc.index_in(labels.cast(known.type), value_set=known).fill_null(-1)
    return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)


def count_taught(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Count items of a shard that an arm teaches a class, by fold."""
    fold, n_folds = frame.array("fold"), ctx.config.folds
    counts = {}
    for arm in (GIVEN, PRODUCT):
        if f"{arm}_ids" in frame.reads:
            has_any = np.diff(flat(frame[f"{arm}_ids"])[1]) > 0
            is_taught = has_any & (frame.array(f"{arm}_weight") > 0)
            counts[arm] = np.bincount(fold[is_taught], minlength=n_folds)
    return counts


# -- what twins show -------------------------------------------------------------------------------


def _n_folds(ctx: Context[Config]) -> int:
    """Return how many folds were held out; none where there was nothing to compare."""
    return ctx.config.n_held_out(ctx.n_items) if can_compare(ctx) else 0


def _answers(
    frame: Frame, ctx: Context[Config], arms: Sequence[str], is_asked: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, dict[str, np.ndarray]]]:
    """Yield rows of a shard, what students take, and what twins say that were not taught them.

    Of items that are not asked about they say 0; float32, shape (n, K).
    """
    fold, column = frame.array("fold"), train.input_of(frame.reads)
    for here, block in even_blocks(frame, column, BLOCK_ROWS):
        inputs = train.of_kind(train.as_inputs(vectors_of(block)[0], column, ctx))
        said = {arm: np.zeros((len(inputs), train.n_classes_of(ctx)), np.float32) for arm in arms}
        for f in np.unique(fold[here][is_asked[here]]).tolist():
            mine = np.flatnonzero((fold[here] == f) & is_asked[here])
            for arm, probs in said.items():
                probs[mine] = train.says_of_fold(ctx, f, arm, inputs.shape[1])(inputs[mine])
        yield here, inputs, said


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
    summary: Arrays = {"item_hash": hashes[rows]}
    none = np.zeros((0, train.n_classes_of(ctx)), np.float32)
    parts: dict[str, list[np.ndarray]] = {GIVEN: [none], PRODUCT: [none]}
    if n_folds:
        for here, _, said in _answers(frame, ctx, (GIVEN, PRODUCT), chosen):
            for arm, probs in said.items():
                parts[arm].append(probs[chosen[here]])
    truth = _truth(frame, ctx, rows)
    for arm, blocks in parts.items():
        probs = np.concatenate(blocks)
        summary[arm] = _scores(probs, frame, rows, ctx) if n_folds else np.zeros(0)
        summary[f"{arm}_true"] = _against(probs, truth, ctx)
    if positives.GIVEN in ctx.columns:
        first = OneTargets.of(_of_given(frame), GIVEN).first()
        summary["is_positive"] = first[rows] == positives.POSITIVE
    return summary


def _of_given(frame: Frame) -> pa.Table:
    return frame.table([name for name in frame.reads if name.startswith(f"{GIVEN}_")])


def _scores(probs: np.ndarray, frame: Frame, rows: np.ndarray, ctx: Context[Config]) -> np.ndarray:
    """Return how well answers agree with labels as given, from 0 to 1.

    Of positive and unlabelled items it is the probability of being positive, to be ranked by.
    """
    target = train.targets_in(_of_given(frame), GIVEN, ctx)
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


def answer(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write what students say that were not taught the item; null where each was."""
    arm, ids = train.arm_of(ctx), frame["item_id"]
    is_held_out = frame.array("fold") < _n_folds(ctx)
    # What was set aside the kept student was not taught.
    is_aside = ~is_held_out & (frame.array(f"{PRODUCT}_weight") == 0) & (arm == PRODUCT)
    for here, inputs, said in _answers(frame, ctx, (arm,), is_held_out):
        probs, mine = said[arm], np.flatnonzero(is_aside[here])
        if len(mine):
            probs[mine] = train.says_kept(ctx, inputs.shape[1])(inputs[mine])
        is_silent = pa.array(~(is_held_out | is_aside)[here])
        values = list_array(probs).flatten()
        lists = pa.FixedSizeListArray.from_arrays(values, probs.shape[1], mask=is_silent)
        yield {ctx.stage: pa.table({"item_id": ids[here], "student_probs": lists})}


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
