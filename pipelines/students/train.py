"""Training students: twins on all folds but one, and the one that is kept on all items."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from scipy.special import expit, softmax

from pipelines.bags.census import CENSUS
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.inference.unknown import hardly_ruled_out
from pipelines.labels.columns import RULED_OUT
from pipelines.media.models import file_key, load_weights, once
from pipelines.storage.arrays import new_array
from pipelines.storage.canonical import Items
from pipelines.storage.vectors import vectors_of
from pipelines.students.settings import VECTOR_STUDENTS, Config
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
    inputs : features, float32, shape (N, D), or pictures, uint8, shape (N, 3, S, S).
    targets : by arm.
    fold : shape (N,).
    """

    inputs: np.ndarray
    targets: dict[str, Targets]
    fold: np.ndarray


def read_items(items: Items, ctx: Context[Config], path: str, arms: tuple[str, ...]) -> Taught:
    """Bring the items into one array on the disk, in which a step finds its batch anywhere."""
    column = "pixels" if "pixels" in items.schema.names else input_of(items.schema.names)
    width = items.schema.field(column).type.list_size
    side = ctx.config.side
    shape = (items.n, 3, side, side) if column == "pixels" else (items.n, width)
    kind = np.uint8 if column == "pixels" else np.float32
    inputs = new_array(path, kind, shape) if items.n else np.empty(shape, kind)
    narrow: list[pa.Table] = [items.schema.empty_table().drop_columns([column])]
    start = 0
    for table in items.tables(BLOCK_ROWS):
        rows = vectors_of(table.column(column).combine_chunks())[0]
        inputs[start : start + len(rows)] = rows.reshape(-1, *shape[1:])
        start += len(rows)
        narrow.append(table.drop_columns([column]))
    table = pa.concat_tables(narrow).combine_chunks()
    targets: dict[str, Targets] = {}
    for arm in arms:
        is_many = f"{arm}_not_ids" in table.column_names
        targets[arm] = (
            ManyTargets.of(table, arm, n_classes_of(ctx)) if is_many else OneTargets.of(table, arm)
        )
    return Taught(inputs, targets, table["fold"].to_numpy())


def input_of(columns: "frozenset[str] | list[str]") -> str:
    """Return the column of vectors that students take."""
    return "embedding" if "embedding" in columns else "features"


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
        If there are not two classes among the items.
    """
    from labelops.nn.device import pick_device
    from labelops.nn.student import StudentTraining, binary_cross_entropy, fit_student

    config, targets = ctx.config, taught.targets[arm]
    weights = np.where(is_in, targets.weight, 0.0).astype(np.float64)
    if not config.use_weights:
        weights = (weights > 0).astype(np.float64)
    rows = np.flatnonzero(weights)
    device = pick_device(config.device)
    loss: Loss
    if isinstance(targets, OneTargets):
        present = targets.present(rows, n_classes_of(ctx))
        least = 2
        at = np.cumsum(present) - 1
        first = targets.first()
        aims = np.where((first >= 0) & present[first], at[first], 0)
        loss = _one_loss(targets, present, device)
    else:
        aims = targets.table(counted_absent(ctx))
        present = (aims[rows] == 1).any(axis=0)
        least, aims, loss = 1, aims[:, present], binary_cross_entropy
    if present.sum() < least:
        raise DataError(
            f"stage {ctx.stage!r}: items of at least {least} classes were expected to teach a "
            f"student, got {int(present.sum())} ({len(rows):,} items with a weight). Did the "
            "decisions set all others aside? Look at the report, or leave the stage out"
        )
    n = int(present.sum())
    model = fit_student(
        build(ctx, taught.inputs, n_classes=n, rows=rows, seed=seed),
        lambda chosen: np.asarray(taught.inputs[chosen]),
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

    config = ctx.config
    if inputs.ndim == 4:
        return picture_student(
            architecture(ctx), n_classes=n_classes, mean=config.mean, std=config.std, seed=seed
        )
    hidden = 0 if config.student == "linear" else config.hidden
    sample = np.asarray(inputs[rows[:SCALE_ITEMS]])
    return table_student(sample, n_classes=n_classes, n_hidden=hidden, seed=seed)


def architecture(ctx: Context[Config]) -> str:
    """Return the name of the torchvision classifier that is trained on pictures, or ''."""
    config = ctx.config
    if config.student not in ("auto", *VECTOR_STUDENTS):
        return config.student
    if config.student == "auto" and "infer" in ctx.earlier:
        infer = ctx.of("infer").config
        if getattr(infer, "train", "heads") != "heads":
            return str(getattr(infer, "embedder", ""))
    return ""


# -- steps -----------------------------------------------------------------------------------------


def fit_twins(fold: int) -> Callable[[Items, Context[Config], str], Arrays]:
    """Return what trains one student by each arm on all items but those of a fold."""

    def fit(items: Items, ctx: Context[Config], out: str) -> Arrays:
        from safetensors.torch import save_file

        path = os.path.join(os.path.dirname(out), "inputs")
        taught = read_items(items, ctx, path, (GIVEN, PRODUCT))
        found: Arrays = {"n": np.array(int((taught.fold == fold).sum()))}
        for arm in (GIVEN, PRODUCT):
            is_in = taught.fold != fold
            # The same seed: they begin with the same weights.
            model, known = train(taught, ctx, arm, is_in=is_in, seed=ctx.seed("twins", fold))
            save_file(model.state_dict(), os.path.join(out, f"{arm}.safetensors"))
            found[f"{arm}_known"] = known
        return found

    return fit


def fit_kept(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Train the student that is kept on all items, by the arm that the evidence speaks for."""
    from labelops.nn.export_student import export_student

    arm = GIVEN if bool(ctx.own("evidence")["falls_back"]) else PRODUCT
    taught = read_items(items, ctx, os.path.join(os.path.dirname(out), "inputs"), (arm,))
    everywhere = np.ones(items.n, bool)
    model, known = train(taught, ctx, arm, is_in=everywhere, seed=ctx.seed("student"))
    every = names_of(ctx)
    names = [every[c] for c in np.flatnonzero(known)]
    targets = taught.targets[arm]
    answers: Literal["one", "many"] = "one" if isinstance(targets, OneTargets) else "many"
    made = export_student(model, np.asarray(taught.inputs[:8]), classes=names, answers=answers)
    for name, data in ((PROGRAM, made.program), (WEIGHTS, made.weights)):
        with open(os.path.join(out, name), "wb") as file:
            file.write(data)
    return {"known": known, "n_taught": np.array(int((targets.weight > 0).sum()))}


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

    side, is_picture = ctx.config.side, bool(architecture(ctx))
    blank = (
        np.zeros((1, 3, side, side), np.uint8) if is_picture else np.zeros((1, width), np.float32)
    )
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
