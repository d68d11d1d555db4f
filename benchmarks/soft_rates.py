"""How fast stored soft labels are read, and what they cost a training beside class ids.

    python benchmarks/soft_rates.py [--views 20480] [--classes 10 100 1000] [--repeats 7]
        [--fits 30] [--only decode train]

*decode*: made-up soft labels (k = 5) and the same ones dense, in single and half precision, in
Parquet files in memory. Views a second and megabytes of the file a second: of the store to dense
rows by NumPy (float64) and by torch (float32), to the few classes that a loss needs by both, and to
probabilities of the stored classes by pyarrow alone; of dense rows to an array.

*train*: `fit_student` on 512 features, linear and with 256 hidden units, batches of 256 and the
same ones: class ids with the cross-entropy of the trainer; stored soft labels, decoded batch by
batch as they stand in the store; decoded all at once before, sparse or dense. Rates as share of
that of class ids (budget 0.95): medians of fits of one epoch, ways in turn.

One thread, processor time.
"""

import argparse
import io
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from soft_labels import packed, some_views

from labelops.distill import targets as of_targets
from labelops.nn import distill_losses, soft_views
from labelops.nn.student import Batch, Loss, StudentTraining, cross_entropy, fit_student
from labelops.nn.student_models import table_student
from labelops.nn.threads import one_thread
from labelops.soft import views as of_views
from labelops.soft.views import encode
from pipelines.soft.columns import (
    SoftFacts,
    Teacher,
    ViewRows,
    from_table,
    stored_probabilities,
    to_table,
)
from pipelines.storage.vectors import list_array, vectors_of

K_KEPT, FEATURES, HIDDEN, BATCH = 5, 512, 256, 256
KINDS = (("prob", "f16"), ("logit", "f16"))


def facts_of(kind: str, number: str, n_classes: int) -> SoftFacts:
    return SoftFacts(
        classes=tuple(str(c) for c in range(n_classes)), kind=kind, number=number,
        temperature=1.0, k=K_KEPT, teachers=(Teacher(name="made up", sha256="0" * 64),),
    )  # fmt: skip


def processor_time(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def read(file: bytes) -> pa.Table:
    return pq.read_table(io.BytesIO(file), use_threads=False)


def ways_to_read(file: bytes, facts: SoftFacts) -> dict[str, Callable[[], object]]:
    """Return readers of a store."""
    coding = facts.coding

    def labels() -> of_views.SoftViews:
        return from_table(read(file), {})[0].labels

    def tensors() -> soft_views.ViewTensors:
        return soft_views.load_views(labels(), coding=coding)

    ways: dict[str, Callable[[], object]] = {
        "numpy, dense f64": lambda: of_views.decode(labels(), coding=coding),
        "torch, dense f32": lambda: soft_views.decode(tensors(), coding=coding),
        "numpy, sparse": lambda: of_targets.of_views(labels(), coding=coding),
        "torch, sparse": lambda: soft_views.view_target(tensors(), coding=coding),
    }
    if facts.kind != "logit":
        ways["pyarrow, stored classes"] = lambda: stored_probabilities(read(file))
    return ways


def dense_file(rows: ViewRows, probs: np.ndarray) -> bytes:
    return packed(pa.table({"item_id": rows.item_id, "probs": list_array(probs)}))


def decode(args: argparse.Namespace) -> None:
    """Print rates of readers."""
    for n_classes in args.classes:
        logits, given, rows = some_views(args.views, n_classes)
        files: dict[str, tuple[bytes, dict[str, Callable[[], object]]]] = {}
        for kind, number in KINDS:
            facts = facts_of(kind, number, n_classes)
            labels = encode(logits, given, coding=facts.coding, k=K_KEPT)
            file = packed(to_table(rows._replace(labels=labels), facts))
            files[f"{kind} {number}"] = file, ways_to_read(file, facts)
        probs = torch.softmax(torch.from_numpy(logits), dim=1).numpy()
        for name, number in (("f32", np.float32), ("f16", np.float16)):
            file = dense_file(rows, probs.astype(number))
            way = partial(lambda file: vectors_of(read(file)["probs"].combine_chunks())[0], file)
            files[f"dense {name}"] = file, {"an array": way}
        print(f"{len(logits):,} views, {n_classes:,} classes, k = {K_KEPT}")
        seconds = defaultdict(list)
        for _ in range(args.repeats):
            for title, (_, ways) in files.items():
                for name, way in ways.items():
                    seconds[title, name].append(processor_time(way))
        for (title, name), took in seconds.items():
            size, typical = len(files[title][0]), statistics.median(took)
            print(
                f"    {title:10} {name:24} {len(logits) / typical:12,.0f} views/s "
                f"{size / typical / 1e6:8.1f} MB/s of {size / len(logits):7.1f} bytes a view",
                flush=True,
            )


class Way(NamedTuple):
    """How a student is told what to learn."""

    targets: np.ndarray
    loss: Loss


def ways_to_learn(
    logits: np.ndarray, given: np.ndarray, *, kind: str, number: str
) -> dict[str, Way]:
    """Return ways to learn stored soft labels: decoded in every batch, or once."""
    coding = facts_of(kind, number, logits.shape[1]).coding
    views = encode(logits, given, coding=coding, k=K_KEPT)
    stored = soft_views.load_views(views, coding=coding)
    once = soft_views.view_target(stored, coding=coding)

    def of_batch(z: torch.Tensor, batch: Batch) -> torch.Tensor:
        some = soft_views.take_views(stored, batch.rows)
        return distill_losses.cross_entropy(z, soft_views.view_target(some, coding=coding))

    def of_all(z: torch.Tensor, batch: Batch) -> torch.Tensor:
        return distill_losses.cross_entropy(z, soft_views.take_targets(once, batch.rows))

    dense = soft_views.dense(once).numpy()
    return {
        f"{kind} {number}, a batch": Way(given, of_batch),
        f"{kind} {number}, once": Way(given, of_all),
        f"{kind} {number}, dense": Way(dense, cross_entropy),
    }


def train(args: argparse.Namespace) -> None:
    """Print rates of trainings."""
    training = StudentTraining(
        epochs=1, batch_rows=BATCH, optimizer="adamw", learning_rate=1e-3, weight_decay=1e-2
    )
    for n_classes in args.classes:
        logits, given, _ = some_views(args.views, n_classes)
        # Some item of each class, as the trainer wants it.
        given[:n_classes] = np.arange(n_classes)
        x = np.random.default_rng(1).normal(size=(len(given), FEATURES)).astype(np.float32)
        ways = {"class ids": Way(given, cross_entropy)}
        for kind, number in KINDS:
            ways |= ways_to_learn(logits, given, kind=kind, number=number)
        for n_hidden in (0, HIDDEN):
            seconds: dict[str, list[float]] = defaultdict(list)
            order = list(ways)
            for _ in range(args.fits):
                # Another one first each time, so that none always follows the same.
                order = [*order[1:], order[0]]
                for name in order:
                    model = table_student(x, n_classes=n_classes, n_hidden=n_hidden)
                    fit = partial(
                        fit_student, model, x.__getitem__, ways[name].targets, np.ones(len(x)),
                        n_classes=n_classes, training=training, seed=0, loss=ways[name].loss,
                        device=torch.device("cpu"),
                    )  # fmt: skip
                    seconds[name].append(processor_time(fit))
            base = seconds.pop("class ids")
            step = 1e3 * statistics.median(base) * BATCH / len(x)
            title = f"{n_classes:,} classes, {n_hidden or 'no'} hidden units"
            print(f"{title}: {step:.3f} ms a step of class ids")
            for name, took in seconds.items():
                share, least = (f(base) / f(took) for f in (statistics.median, min))
                print(f"    {name:20} {share:.3f}, of the fastest fits {least:.3f}", flush=True)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=20_480)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--fits", type=int, default=30)
    parser.add_argument("--only", nargs="+", choices=["decode", "train"])
    args = parser.parse_args()
    pa.set_cpu_count(1)
    with one_thread():
        if "decode" in (args.only or ["decode"]):
            decode(args)
        if "train" in (args.only or ["train"]):
            train(args)


if __name__ == "__main__":
    main()
