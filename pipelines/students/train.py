"""Training students: twins on all folds but one, and the one that is kept on all items."""

import os
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.special import expit, softmax

from pipelines.bags.census import CENSUS
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.inference.settings import Config as InferConfig
from pipelines.inference.unknown import hardly_ruled_out
from pipelines.labels.columns import RULED_OUT
from pipelines.media.models import file_key, load_weights, once
from pipelines.storage.canonical import Items
from pipelines.students.settings import Config
from pipelines.students.targets import GIVEN, PRODUCT, ManyTargets, OneTargets, Targets

if TYPE_CHECKING:
    from torch import nn

    from labelops.nn.forward import Forward
    from labelops.nn.student import Loss

BLOCK_ROWS = 4096

SCALE_ITEMS = 65_536
"""Mean and spread of features are taken from so many items, the first by hash."""

PROGRAM, WEIGHTS = "student.pt2", "student.safetensors"
"""Artefacts of the step that trains the student that is kept."""

KEPT = "student"


def twins_step(fold: int) -> str:
    """Return the name of the step that trains the twins of a fold."""
    return f"twins_{fold}"


class Taught(NamedTuple):
    """All items in canonical order, as one array, and what is taught of them.

    Attributes
    ----------
    inputs : features, shape (N, D), or pictures, uint8, shape (N, 3, S, S).
    targets : by arm.
    fold : shape (N,).
    """

    inputs: np.ndarray
    targets: dict[str, Targets]
    fold: np.ndarray


def read_items(items: Items, ctx: Context[Config], out: str, arms: Sequence[str]) -> Taught:
    """Bring the items into one array on the disk, in which a step finds its batch anywhere."""
    column = input_of(items.schema.names)
    # Beside the folder of artefacts: gone with it when the step ends, whichever way.
    inputs = items.vectors(column, os.path.join(os.path.dirname(out), "inputs"))
    parts = [table.drop_columns([column]) for table in items.tables(BLOCK_ROWS)]
    empty = items.schema.empty_table().drop_columns([column])
    table = pa.concat_tables([empty, *parts]).combine_chunks()
    targets = {arm: targets_in(table, arm, ctx) for arm in arms}
    return Taught(as_inputs(inputs, column, ctx), targets, table["fold"].to_numpy())


def targets_in(table: pa.Table, arm: str, ctx: Context) -> Targets:
    """Return what an arm teaches the items of a table."""
    if is_many(ctx):
        return ManyTargets.of(table, arm, n_classes_of(ctx))
    return OneTargets.of(table, arm)


def input_of(columns: Collection[str]) -> str:
    """Return the column that students take."""
    return next(name for name in ("pixels", "embedding", "features") if name in columns)


def as_inputs(vectors: np.ndarray, column: str, ctx: Context[Config]) -> np.ndarray:
    """Return vectors of a column as students take them: pictures, or features."""
    side = settings_of(ctx).side
    return vectors.reshape(-1, 3, side, side) if column == "pixels" else vectors


def train(
    taught: Taught, ctx: Context[Config], arm: str, *, is_in: np.ndarray, seed: int
) -> tuple["nn.Module", np.ndarray]:
    """Train a student on some of the items.

    Returns
    -------
    The student; and which classes it knows, those that some of the items have; bool, shape (K,).

    Raises
    ------
    DataError
        If none of these items is taught.
    """
    from labelops.nn.device import pick_device
    from labelops.nn.student import StudentTraining, binary_cross_entropy, fit_student

    config, targets = settings_of(ctx), taught.targets[arm]
    weights = np.where(is_in, targets.weight, 0.0).astype(np.float64)
    if not config.use_weights:
        weights = (weights > 0).astype(np.float64)
    rows = np.flatnonzero(weights)
    device = pick_device(config.device)
    loss: Loss
    if isinstance(targets, OneTargets):
        present = targets.present(rows, n_classes_of(ctx))
        at = np.cumsum(present) - 1
        first = targets.first()
        aims = np.where((first >= 0) & present[first], at[first], 0)
        loss = _one_loss(targets, present, device)
    else:
        aims = targets.table(counted_absent(ctx))
        present = (aims[rows] == 1).any(axis=0)
        aims, loss = aims[:, present], binary_cross_entropy
    n = int(present.sum())
    if not n:
        raise DataError(
            f"stage {ctx.stage!r}: items with a label and a weight were expected to teach a "
            f"student, got none of {len(weights):,}. Look at the report, or leave the stage out"
        )
    model = fit_student(
        build(ctx, taught.inputs, n_classes=n, rows=rows, seed=seed),
        lambda chosen: of_kind(taught.inputs[chosen]),
        aims,
        weights,
        n_classes=n,
        training=StudentTraining(
            epochs=config.epochs,
            batch_rows=config.batch_rows,
            optimizer=config.optimizer,
            learning_rate=config.rate,
            weight_decay=config.weight_decay,
            ema_decay=config.ema_decay,
            flip=config.flip and taught.inputs.ndim == 4,
            crop=config.crop if taught.inputs.ndim == 4 else 0,
        ),
        seed=seed,
        device=device,
        loss=loss,
    )
    return model, present


def _one_loss(targets: OneTargets, present: np.ndarray, device: object) -> "Loss":
    """Return the loss of distributions; of certain classes the usual cross-entropy."""
    import torch
    from torch import Tensor

    from labelops.nn import distill_losses, student
    from labelops.nn.soft_views import SparseTensors, to_tensors

    assert isinstance(device, torch.device)
    if (targets.probs == 1).all() and (np.diff(targets.start) <= 1).all():
        return student.cross_entropy
    whole = to_tensors(targets.among(present), device=device)

    def loss(logits: Tensor, batch: student.Batch) -> Tensor:
        rows = batch.rows.to(device)
        parts = (whole.ids[rows], whole.excess[rows], whole.even[rows])
        return distill_losses.cross_entropy(logits, SparseTensors(*parts, whole.n_classes))

    return loss


def build(
    ctx: Context[Config], inputs: np.ndarray, *, n_classes: int, rows: np.ndarray, seed: int = 0
) -> "nn.Module":
    """Return a student that was not trained yet."""
    from labelops.nn.student_models import picture_student, table_student

    config = settings_of(ctx)
    if config.is_of_pictures:
        return picture_student(
            config.student, n_classes=n_classes, mean=config.mean, std=config.std, seed=seed
        )
    hidden = 0 if config.student == "linear" else config.hidden
    sample = of_kind(inputs[rows[:SCALE_ITEMS]])
    return table_student(sample, n_classes=n_classes, n_hidden=hidden, seed=seed)


def of_kind(inputs: np.ndarray) -> np.ndarray:
    """Return some inputs in the type that students take: pictures as they are."""
    return np.asarray(inputs, np.uint8 if inputs.ndim == 4 else np.float32)


def settings_of(ctx: Context[Config]) -> Config:
    """Return the settings, without *auto*: networks of stage `infer` are made anew as they were.

    Their embedding is that of one network that was taught most of the items, so a student of it
    would not be asked about anything new.
    """
    config = ctx.config
    if config.student != "auto":
        return config
    infer: Context[InferConfig] | None = ctx.of("infer") if "infer" in ctx.earlier else None
    if infer is None or infer.config.train == "heads":
        return config.model_copy(update={"student": "network"})
    theirs = infer.config
    pictures = {"image_size": theirs.side, "mean": theirs.mean, "std": theirs.std}
    return config.model_copy(update={"student": theirs.embedder, **pictures})


# -- steps -----------------------------------------------------------------------------------------


def fit_twins(fold: int) -> Callable[[Items, Context[Config], str], Arrays]:
    """Return what trains one student by each arm on all items but those of a fold."""

    def fit(items: Items, ctx: Context[Config], out: str) -> Arrays:
        from safetensors.torch import save_file

        taught = read_items(items, ctx, out, (GIVEN, PRODUCT))
        found: Arrays = {}
        is_in = taught.fold != fold
        for arm in (GIVEN, PRODUCT):
            # The same seed: they begin with the same weights.
            model, known = train(taught, ctx, arm, is_in=is_in, seed=ctx.seed("twins", fold))
            save_file(model.state_dict(), os.path.join(out, f"{arm}.safetensors"))
            found[f"{arm}_known"] = known
        return found

    return fit


def fit_kept(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Train the student that is kept on all items, by the arm that the evidence speaks for."""
    from labelops.nn.export_student import export_student

    arm = arm_of(ctx)
    taught = read_items(items, ctx, out, (arm,))
    everywhere = np.ones(items.n, bool)
    model, known = train(taught, ctx, arm, is_in=everywhere, seed=ctx.seed("student"))
    every = names_of(ctx)
    names = [every[c] for c in np.flatnonzero(known)]
    answers: Literal["one", "many"] = "many" if is_many(ctx) else "one"
    made = export_student(model, of_kind(taught.inputs[:8]), classes=names, answers=answers)
    for name, data in ((PROGRAM, made.program), (WEIGHTS, made.weights)):
        with open(os.path.join(out, name), "wb") as file:
            file.write(data)
    n_taught = np.count_nonzero(taught.targets[arm].weight)
    return {"known": known, "n_taught": np.array(n_taught)}


def arm_of(ctx: Context[Config]) -> str:
    """Return by which labels the student is taught that is kept."""
    return GIVEN if bool(ctx.own("evidence")["falls_back"]) else PRODUCT


# -- what they say ---------------------------------------------------------------------------------


def says_of_fold(ctx: Context[Config], fold: int, arm: str, width: int) -> "Says":
    """Return the student of an arm that was not taught a fold, opened once a process."""
    known = ctx.own(twins_step(fold))[f"{arm}_known"]
    path = ctx.artifact(twins_step(fold), f"{arm}.safetensors")
    return _open(ctx, path, known, width)


def says_kept(ctx: Context[Config], width: int) -> "Says":
    """Return the student that is kept, opened once a process."""
    return _open(ctx, ctx.artifact(KEPT, WEIGHTS), ctx.own(KEPT)["known"], width)


class Says:
    """A student: inputs in, probabilities of all classes out; 0 of those that it does not know."""

    def __init__(self, forward: "Forward", known: np.ndarray, *, is_one: bool) -> None:
        self.forward = forward
        self.known = known
        self.is_one = is_one

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities, float32, shape (n, K)."""
        logits = self.forward(inputs).astype(np.float64)
        probs = np.zeros((len(inputs), len(self.known)), np.float32)
        probs[:, self.known] = softmax(logits, axis=1) if self.is_one else expit(logits)
        return probs


def _open(ctx: Context[Config], path: str, known: np.ndarray, width: int) -> Says:
    key = ("student", ctx.config.device, file_key(path))
    said: Says = once(key, lambda: _read(ctx, path, known, width))
    return said


def _read(ctx: Context[Config], path: str, known: np.ndarray, width: int) -> Says:
    from labelops.nn.device import pick_device
    from labelops.nn.forward import Forward

    blank = np.zeros((1, width), np.float32)
    model = build(ctx, blank, n_classes=int(known.sum()), rows=np.zeros(1, np.int64))
    model.load_state_dict(load_weights(path))
    device = pick_device(ctx.config.device)
    forward = Forward(model.eval(), device=device, batch_rows=ctx.config.batch_rows)
    return Says(forward, known, is_one=not is_many(ctx))


def names_of(ctx: Context) -> tuple[str, ...]:
    """Return the names of the classes; where only totals of bags name them, those of these."""
    if ctx.classes or "proportions" not in ctx.earlier:
        return ctx.classes
    return tuple(ctx.result("proportions", CENSUS)["classes"].tolist())


def n_classes_of(ctx: Context) -> int:
    """Return K."""
    return len(names_of(ctx))


def counted_absent(ctx: Context) -> np.ndarray:
    """Return the classes that count as absent where nothing is known of them; bool, shape (K,).

    As for heads of stage `infer`; and all, where one label was given and says nothing of others.
    """
    if "given_ids" not in ctx.columns:
        return np.ones(n_classes_of(ctx), bool)
    if RULED_OUT not in ctx.columns:
        return np.zeros(n_classes_of(ctx), bool)
    return hardly_ruled_out(ctx)


def is_many(ctx: Context) -> bool:
    """Return whether items have any number of classes."""
    return "given_ids" in ctx.columns or "labels_clean" in ctx.columns
