"""Every check that needs a GPU, in one script of nine minutes at most: same answers, and rates.

    python benchmarks/gpu.py [--sections losses heads …] [--limit 540] [--dry-run]

It needs nothing but this checkout; `make bench-gpu`. Without a GPU it says so and ends with 0;
`--dry-run` does everything in small sizes on the CPU, compared with itself. A line each: what, *ok*
or *FAILED*, figures; at last a line of JSON. The status is 1 if an answer of the GPU is further
from the CPU's than is tolerated; a rate below its budget is called *below*, and is no error. A
section that would not be done in time is left out, with a word.

Same answers (tolerances beside each): *losses*, values and derivatives, and what decodes stored
soft labels, in float32; *heads*, softmax and logistic regressions; *forward*, resnet18 with random
weights, in float32 and as it runs, in bfloat16; *training*, four steps of `train_folds` and
`fit_student` in float32 and in bfloat16; *embed*, embeddings and predictions of stage `infer`.
Networks of `labelops.nn.shallow` (cells with unknown classes, positive and unlabelled items) and
their losses run on the CPU, wherever the rest runs, so there is nothing to compare.

Rates: *inference*, `Forward` against the bare model on the same batches, which lie on the device
already; *student*, `fit_student` against the bare loop, pictures and features, and stored soft
labels against class ids (budget of all: 0.95); *pictures*, JPEG in Parquet to embeddings by stage
`infer`, decoded by all cores, with the share of time in which the GPU was idle.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infer import Cost, pictures, step_cost, write

from labelops.distill import targets as of_targets
from labelops.distill.losses import USKD
from labelops.label_maps import sparsify_maps
from labelops.multilabel.labels import from_states
from labelops.nn import architecture, binary_heads, distill_losses, mixing, soft_views, student
from labelops.nn import heads as softmax_heads
from labelops.nn import train as folds
from labelops.nn.classifier import new_classifier
from labelops.nn.device import autocast
from labelops.nn.forward import Forward
from labelops.nn.label_pooling import pool_logits, to_batch
from labelops.nn.linear import Block, predict
from labelops.nn.student_models import picture_student, table_student
from labelops.nn.transform import IMAGENET_MEAN, IMAGENET_STD, Normalised
from labelops.nn.trust import Known, Taught, hypergradient
from labelops.soft.views import Coding, encode
from pipelines.storage.vectors import vectors_of

BUDGET = 0.95
FLOAT32, TRAINED, BFLOAT16 = 1e-4, 1e-3, 5e-2
"""Tolerated, as share of the largest value: rounding of float32 in another order of sums, the same
after four steps, and eight bits of bfloat16 through eighteen layers."""


class Line(NamedTuple):
    """What was found.

    Attributes
    ----------
    name : of what.
    verdict : "ok", "FAILED", "below", "left out", or "-" for what has no budget.
    figures : by name.
    """

    name: str
    verdict: str
    figures: dict[str, float | str]


@dataclass
class Bench:
    """Where, how large, and what was found.

    Attributes
    ----------
    device : the GPU; in a dry run the CPU.
    is_dry : whether sizes are small.
    lines : found so far.
    """

    device: torch.device
    is_dry: bool
    lines: list[Line] = field(default_factory=list)

    def size(self, full: int, dry: int) -> int:
        return dry if self.is_dry else full

    def add(self, name: str, verdict: str, **figures: float | str) -> None:
        self.lines.append(Line(name, verdict, figures))
        shown = ", ".join(
            f"{key.replace('_', ' ')} {value if isinstance(value, str) else f'{value:.4g}'}"
            for key, value in figures.items()
        )
        print(f"{name:38} {verdict:9} {shown}", flush=True)

    def same(self, name: str, cpu: object, gpu: object, tolerance: float) -> None:
        """Compare two answers by their largest difference, as share of the largest value."""
        a, b = (
            np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, np.float64)
            for x in (cpu, gpu)
        )
        if a.shape != b.shape:
            self.add(name, "FAILED", shapes=f"{a.shape} and {b.shape}")
            return
        # Written so that NaN fails too.
        off = float(np.abs(a - b).max(initial=0.0) / max(np.abs(a).max(initial=0.0), 1e-12))
        self.add(name, "ok" if off <= tolerance else "FAILED", off=off, tolerated=tolerance)

    def rate(self, name: str, bare: list[float], ours: list[float], n: int, unit: str) -> None:
        """Compare rates: medians of seconds for n items each, ways in turn."""
        share = statistics.median(bare) / statistics.median(ours)
        self.add(
            name,
            "ok" if share >= BUDGET else "below",
            **{
                "share": share,
                f"{unit} a second": n / statistics.median(ours),
                "bare": n / statistics.median(bare),
            },
        )

    def seconds(self, work: Callable[[], object]) -> float:
        self.wait()
        began = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - began

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


CPU = torch.device("cpu")


@contextlib.contextmanager
def float32() -> Iterator[None]:
    """Let a GPU compute in single precision: no autocast, no TF32."""
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32
    cudnn.allow_tf32 = False
    try:
        with contextlib.ExitStack() as stack:
            for module in ("train", "student", "forward"):
                target = f"labelops.nn.{module}.autocast"
                stack.enter_context(mock.patch(target, return_value=contextlib.nullcontext()))
            yield
    finally:
        cudnn.allow_tf32 = before


# -- same answers ----------------------------------------------------------------------------------


def losses(bench: Bench) -> None:
    """Values and derivatives of whatever takes tensors of any device."""
    n, k = bench.size(4096, 64), bench.size(1000, 16)
    rng = np.random.default_rng(0)
    z, teacher, strong, weak = (
        torch.from_numpy(2 * rng.normal(size=(n, k))).float() for _ in range(4)
    )
    given, rival = (torch.from_numpy(rng.integers(0, k, n)) for _ in range(2))
    share = torch.from_numpy(rng.random(n)).float()
    q = torch.softmax(teacher, dim=1)
    states = torch.from_numpy(rng.integers(-1, 2, (n, k)).astype(np.int8))
    coding = Coding("logit", "f16", k)
    views = encode(teacher.numpy(), given.numpy(), coding=coding, k=5)
    target = of_targets.of_views(views, coding=coding, temperature=2.0)
    judge = distill_losses.Discriminator(max(k, 128), seed=0)
    batch = partial(student.Batch, torch.arange(n))

    def judged(z: Tensor, d: torch.device) -> Tensor:
        wide = functional.pad(z, (0, max(0, 128 - k)))
        said = (torch.softmax(x, dim=1) for x in (wide, wide.detach().flip(0)))
        return judge.to(d).loss(*said)

    ways: dict[str, Callable[[Tensor, torch.device], Tensor]] = {
        "cross_entropy": lambda z, d: distill_losses.cross_entropy(z, q.to(d)),
        "cross_entropy of stored": lambda z, d: distill_losses.cross_entropy(
            z, soft_views.to_tensors(target, device=d)
        ),
        "divergence of stored": lambda z, d: distill_losses.divergence(
            z, soft_views.to_tensors(target, device=d), temperature=2.0
        ),
        "distillation": lambda z, d: distill_losses.distillation(z, teacher.to(d), temperature=3.0),
        "nkd": lambda z, d: distill_losses.nkd(z, teacher.to(d), given.to(d)),
        "uskd": lambda z, d: sum(
            distill_losses.uskd(z, weak.to(d), given.to(d), weights=USKD), torch.zeros(())
        ),
        "mix_kd": lambda z, d: distill_losses.mix_kd(z, teacher.to(d), q.to(d)),
        "discriminator": judged,
        "decoupled": lambda z, d: mixing.decoupled(z, given.to(d), rival.to(d), share.to(d)),
        "ranked": lambda z, d: mixing.ranked(z, strong.to(d), (given != rival).to(d)),
        "rank_agreement": lambda z, d: mixing.rank_agreement(
            z, torch.stack([strong, weak]).to(d), torch.stack([share, 1 - share]).to(d)
        ),
        "consistency": lambda z, d: mixing.consistency(weak.to(d), z, threshold=0.1, kind="soft"),
        "student, class ids": lambda z, d: student.cross_entropy(z, batch(given.to(d))),
        "student, probabilities": lambda z, d: student.cross_entropy(z, batch(q.to(d))),
        "student, lists": lambda z, d: student.binary_cross_entropy(z, batch(states.to(d))),
    }
    for name, way in ways.items():
        found = []
        for device in (CPU, bench.device):
            logits = z.detach().to(device).requires_grad_()
            value = way(logits, device)
            value.sum().backward()
            found.append((value, logits.grad))
        for what, cpu, gpu in zip(("value", "derivative"), *found, strict=True):
            bench.same(f"{name}, {what}", cpu, gpu, FLOAT32)

    for temperature in (1.0, 4.0):
        both = (
            soft_views.decode(
                soft_views.load_views(views, coding=coding, device=d),
                coding=coding, temperature=temperature,
            )
            for d in (CPU, bench.device)
        )  # fmt: skip
        bench.same(f"stored, decoded at {temperature:g}", *both, FLOAT32)
    x = torch.from_numpy(rng.normal(size=(n, 8))).float()
    mixed = (mixing.mix_items(x.to(d), rival.to(d) % n, share.to(d)) for d in (CPU, bench.device))
    bench.same("mix_items", *mixed, FLOAT32)
    scores = rng.normal(size=(32, 20, 6, 6))
    boxes = torch.tensor([[0.1, 0.2, 0.7, 0.9]]).repeat(32, 1)
    maps = sparsify_maps(scores, k=3)
    pooled = (pool_logits(to_batch(maps, device=d), boxes) for d in (CPU, bench.device))
    bench.same("pool_logits", *pooled, FLOAT32)
    trusted = []
    for d in (CPU, bench.device):
        torch.manual_seed(0)
        net = nn.Linear(8, k).to(d)
        items = Taught(x.to(d), teacher.to(d), given.to(d))
        known = Known(x.flip(0).to(d), rival.to(d))
        trusted.append(hypergradient(net, items, known, share.to(d), rate=0.5)[1])
    bench.same("hypergradient", *trusted, TRAINED)


def blobs(n: int, d: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features about class means, classes and folds."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, k, n)
    given[:k] = np.arange(k)
    x = rng.normal(size=(n, d)) + 2 * rng.normal(size=(k, d))[given]
    return x.astype(np.float32), given, rng.integers(0, 5, n)


def heads(bench: Bench) -> None:
    """Minima of convex losses: probabilities of the same items."""
    n, d, k = bench.size(20_000, 400), bench.size(512, 16), bench.size(20, 4)
    x, given, fold = blobs(n, d, k)
    lists = from_states(np.where(np.eye(k, dtype=bool)[given], 1, 0).astype(np.int8))
    size = {"n_features": d, "n_classes": k, "n_folds": 5, "l2": 0.01, "tolerance": 1e-9}
    found: dict[str, list[np.ndarray]] = {"softmax": [], "logistic": []}
    took: dict[str, list[float]] = {name: [] for name in found}
    for device in (CPU, bench.device):
        began = time.perf_counter()
        one = softmax_heads.fit_heads(lambda: [Block(x, given, fold)], **size, device=device)
        took["softmax"].append(time.perf_counter() - began)
        found["softmax"].append(predict(one, x, fold))
        began = time.perf_counter()
        many = binary_heads.fit_binary_heads(lambda: [Block(x, lists, fold)], **size, device=device)
        took["logistic"].append(time.perf_counter() - began)
        found["logistic"].append(predict(many, x, fold, link="sigmoid"))
    for name, both in found.items():
        # As of the test of the same: where the loss is flat, minima differ more than losses.
        bench.same(f"heads, {name}", *both, 1e-2)
        bench.add(f"heads, {name}, seconds", "-", cpu=took[name][0], gpu=took[name][1])


def some_pictures(n: int, side: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    coarse = torch.from_numpy(rng.integers(0, 256, (n, 3, 4, 4)).astype(np.float32))
    smooth = functional.interpolate(coarse, size=side, mode="bicubic").clamp(0, 255)
    return smooth.to(torch.uint8).numpy()


def backbone() -> Normalised:
    model = architecture.fresh_backbone("resnet18", seed=0)
    return Normalised(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def forward(bench: Bench) -> None:
    """Embeddings of resnet18 with random weights."""
    images = some_pictures(bench.size(256, 8), bench.size(128, 32))

    def embed(device: torch.device) -> np.ndarray:
        return Forward(backbone(), device=device, batch_rows=64)(images)

    cpu = embed(CPU)
    with float32():
        bench.same("resnet18, float32", cpu, embed(bench.device), TRAINED)
    bench.same("resnet18, as it runs", cpu, embed(bench.device), BFLOAT16)


def training(bench: Bench) -> None:
    """Logits after four steps of the same training."""
    n, side, k = bench.size(256, 16), 32, 4
    images, given = some_pictures(n, side), np.arange(n) % k
    how = folds.Training(
        epochs=2, batch_rows=n // 4, optimizer="sgd", learning_rate=0.01, weight_decay=1e-4,
        flip=True, crop=2, mean=IMAGENET_MEAN, std=IMAGENET_STD,
    )  # fmt: skip
    x, classes, _ = blobs(bench.size(4096, 128), bench.size(512, 16), k)
    both = {
        "student of pictures": (images, given, 0.01),
        "student of features": (x, classes, 0.1),
    }

    def train_folds(device: torch.device) -> Tensor:
        build = partial(new_classifier, "resnet18", n_classes=k, seed=0)
        models = folds.train_folds(
            lambda f: build(), images, given, np.arange(n) % 2,
            n_folds=2, training=how, seeds=[0, 1], device=device,
        )  # fmt: skip
        return said([Normalised(m, mean=how.mean, std=how.std) for m in models], images)[..., -k:]

    def fit(name: str, device: torch.device) -> Tensor:
        items, labels, rate = both[name]
        recipe = student.StudentTraining(
            epochs=2, batch_rows=len(items) // 2, optimizer="sgd", learning_rate=rate,
            weight_decay=1e-4, ema_decay=0.9, flip=items.ndim == 4, crop=2 * (items.ndim == 4),
        )  # fmt: skip
        if items.ndim == 4:
            model: nn.Module = picture_student(
                "resnet18", n_classes=k, mean=IMAGENET_MEAN, std=IMAGENET_STD
            )
        else:
            model = table_student(items, n_classes=k, n_hidden=64)
        made = student.fit_student(
            model, items.__getitem__, labels, np.ones(len(items)), n_classes=k,
            training=recipe, seed=0, device=device,
        )  # fmt: skip
        return said([made], items)

    ways = {"train_folds": train_folds, **{name: partial(fit, name) for name in both}}
    for name, way in ways.items():
        cpu = way(CPU)
        with float32():
            bench.same(f"{name}, float32", cpu, way(bench.device), 10 * TRAINED)
        once = way(bench.device)
        bench.same(f"{name}, as it runs", cpu, once, 2 * BFLOAT16)
        is_same = bool(torch.equal(once, way(bench.device)))
        bench.add(f"{name}, again", "-", bits="the same" if is_same else "others")


def said(models: list[nn.Module], items: np.ndarray) -> Tensor:
    """Return what trained models say on the CPU in single precision."""
    with torch.inference_mode():
        return torch.stack([model(torch.from_numpy(items)) for model in models])


def settings(side: int, device: torch.device, weights: Path) -> list[str]:
    return [
        "infer.embedder=resnet18", f"infer.weights={weights}", f"infer.image_size={side}",
        "infer.batch_rows=256", f"infer.device={device.type}", "infer.l2=0.1",
        "infer.heads=['linear']",
    ]  # fmt: skip


def shards(n: int, side: int, folder: Path) -> tuple[Path, Path]:
    """Write JPEG pictures, a tenth of them different, and weights; return where."""
    from safetensors.torch import save_file

    drawn = pictures(max(n // 10, 40), max(side, 65))
    files = [drawn[i % len(drawn)] for i in range(n)]
    column = pa.array([{"bytes": f, "path": None} for f in files])
    weights = folder / "weights.safetensors"
    save_file(architecture.build("resnet18", n_classes=10).state_dict(), weights)
    return write(folder / "data", {"image": column}), weights


def embed(bench: Bench) -> None:
    """What stage `infer` writes of pictures, computed on either."""
    side = bench.size(128, 32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, weights = shards(bench.size(1000, 80), side, folder)
        found = []
        for i, device in enumerate((CPU, bench.device)):
            out = folder / f"out{i}"
            step_cost(data, out, "embed", settings(side, device, weights))
            table = ds.dataset(sorted(map(str, (out / "infer").glob("*.parquet")))).to_table()
            found.append(
                [vectors_of(table[c].combine_chunks())[0] for c in ("embedding", "pred_probs")]
            )
    for what, cpu, gpu in zip(("embedding", "pred_probs"), *found, strict=True):
        bench.same(f"stage infer, {what}", cpu, gpu, BFLOAT16)


# -- rates -----------------------------------------------------------------------------------------


def inference(bench: Bench) -> None:
    """`Forward` on pictures in memory against the bare model on batches on the device."""
    n, side, rows = bench.size(16_384, 32), bench.size(128, 32), bench.size(256, 16)
    images = np.resize(some_pictures(rows, side), (n, 3, side, side))
    ours = Forward(backbone(), device=bench.device, batch_rows=rows)
    kind = torch.channels_last if bench.device.type == "cuda" else torch.contiguous_format
    batches = [
        torch.from_numpy(images[a : a + rows]).to(bench.device).contiguous(memory_format=kind)
        for a in range(0, n, rows)
    ]

    def bare() -> None:
        with torch.inference_mode(), autocast(bench.device):
            for batch in batches:
                ours.model(batch)

    parts = [images[a : a + 4 * rows] for a in range(0, n, 4 * rows)]
    in_turn(bench, "inference, resnet18", bare, lambda: list(ours.stream(parts)), n, "pictures")


def in_turn(
    bench: Bench,
    name: str,
    bare: Callable[[], object],
    ours: Callable[[], object],
    n: int,
    unit: str,
) -> None:
    """Time two ways in turn; the first time does not count."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(bench.size(5, 2)):
        for seconds, way in zip(took, (bare, ours), strict=True):
            seconds.append(bench.seconds(way))
    bench.rate(name, took[0][1:], took[1][1:], n, unit)


class Student:
    """One student and its items, trained by the trainer or by the bare loop."""

    def __init__(self, bench: Bench, items: np.ndarray, labels: np.ndarray, *, k: int, rows: int):
        self.bench, self.items, self.labels, self.k = bench, items, labels, k
        self.recipe = student.StudentTraining(
            epochs=1, batch_rows=rows, optimizer="sgd", learning_rate=1e-3, weight_decay=1e-4
        )

    def model(self) -> nn.Module:
        if self.items.ndim == 4:
            return picture_student(
                "resnet18", n_classes=self.k, mean=IMAGENET_MEAN, std=IMAGENET_STD
            )
        return table_student(self.items[:1024], n_classes=self.k, n_hidden=256)

    def fit(self, loss: student.Loss = student.cross_entropy) -> None:
        student.fit_student(
            self.model(), self.items.__getitem__, self.labels, np.ones(len(self.items)),
            n_classes=self.k, training=self.recipe, seed=0, device=self.bench.device, loss=loss,
        )  # fmt: skip

    def bare(self) -> None:
        """Train as a user would write it, on the same batches."""
        device, on_gpu = self.bench.device, self.bench.device.type == "cuda"
        kind = torch.channels_last if on_gpu else torch.preserve_format
        model = self.model().to(device).to(memory_format=kind).train()
        optimiser = torch.optim.SGD(
            model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=1e-4
        )
        n, everything = -(-len(self.items) // self.recipe.batch_rows), np.arange(len(self.items))
        for batch in student.batches(everything, range(n), seed=0, n=n):
            x, y = torch.from_numpy(self.items[batch]), torch.from_numpy(self.labels[batch])
            if on_gpu:
                x, y = (part.pin_memory().to(device, non_blocking=True) for part in (x, y))
            if x.ndim == 4:
                x = x.to(memory_format=kind)
            with autocast(device):
                logits = model(x)
            loss = functional.cross_entropy(logits.float(), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()

    def soft(self) -> dict[str, student.Loss]:
        """Return losses of stored soft labels, decoded in every batch or once."""
        coding, device = Coding("logit", "f16", self.k), self.bench.device
        logits = np.random.default_rng(2).normal(size=(len(self.items), self.k))
        views = encode(logits, self.labels, coding=coding, k=5)
        stored = soft_views.load_views(views, coding=coding, device=device)
        once = soft_views.view_target(stored, coding=coding)

        def of_batch(z: Tensor, batch: student.Batch) -> Tensor:
            some = soft_views.take_views(stored, batch.rows.to(device))
            return distill_losses.cross_entropy(z, soft_views.view_target(some, coding=coding))

        def of_all(z: Tensor, batch: student.Batch) -> Tensor:
            some = soft_views.take_targets(once, batch.rows.to(device))
            return distill_losses.cross_entropy(z, some)

        return {"a batch": of_batch, "once": of_all}


def rate_of_student(bench: Bench) -> None:
    """`fit_student` against the bare loop, and stored soft labels against class ids."""
    k = bench.size(100, 8)
    n_images, side = bench.size(32_768, 64), bench.size(64, 32)
    images = np.resize(some_pictures(64, side), (n_images, 3, side, side))
    x, classes, _ = blobs(bench.size(262_144, 2048), bench.size(512, 16), k)
    rows = bench.size(256, 16), bench.size(1024, 256)
    for name, one in {
        "pictures": Student(bench, images, np.arange(n_images) % k, k=k, rows=rows[0]),
        "features": Student(bench, x, classes, k=k, rows=rows[1]),
    }.items():
        n = len(one.items)
        in_turn(bench, f"student of {name}", one.bare, one.fit, n, "items")
        for title, loss in one.soft().items():
            what = f"{name}, soft labels decoded {title}"
            in_turn(bench, what, one.fit, partial(one.fit, loss), n, "items")


@contextlib.contextmanager
def watched() -> Iterator[list[float]]:
    """Give the shares of time in which the GPU was at work, five times a second, at the end."""
    found: list[float] = []
    program = shutil.which("nvidia-smi")
    if program is None:
        yield found
        return
    query = [program, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(query, stdout=said) as process:
        try:
            yield found
        finally:
            process.terminate()
            process.wait()
            said.seek(0)
            found += [float(line) / 100 for line in said if line.strip().isdigit()]


def rate_of_pictures(bench: Bench) -> None:
    """JPEG in Parquet to embeddings, end to end, and the share of the bare model's rate."""
    n, side = bench.size(20_000, 80), bench.size(128, 32)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, weights = shards(n, side, folder)
        choice = settings(side, bench.device, weights)
        # Opens the model and the GPU once before.
        costs: list[Cost] = []
        figures: dict[str, float | str] = {}
        for i in range(2):
            with watched() as busy:
                costs.append(step_cost(data, folder / f"out{i}", "embed", choice))
            if busy and bench.device.type == "cuda":
                figures["GPU idle in the whole run"] = 1 - statistics.mean(busy)
    best = min(costs, key=lambda cost: cost.wall)
    bench.add(
        f"stage infer, JPEG of {max(side, 65)} pixels", "-", pictures_a_second=n / best.wall,
        cores=float(len(os.sched_getaffinity(0))), core_ms_a_picture=1e3 * best.cpu / n, **figures,
    )  # fmt: skip


SECTIONS: dict[str, tuple[Callable[[Bench], None], int]] = {
    "losses": (losses, 20),
    "heads": (heads, 60),
    "forward": (forward, 20),
    "training": (training, 60),
    "embed": (embed, 60),
    "inference": (inference, 30),
    "student": (rate_of_student, 120),
    "pictures": (rate_of_pictures, 90),
}
"""With seconds that each may take on a GPU; it is not begun when fewer are left."""


def main(arguments: list[str] | None = None) -> int:
    """Run the sections; return the status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--limit", type=float, default=540.0, help="seconds in all")
    parser.add_argument("--dry-run", action="store_true", help="small sizes, on the CPU")
    args = parser.parse_args(arguments)
    if not args.dry_run and not torch.cuda.is_available():
        print("gpu: no CUDA device here; nothing was checked. --dry-run runs it on the CPU")
        return 0
    device = CPU if args.dry_run else torch.device("cuda")
    bench = Bench(device, args.dry_run)
    named = "CPU, dry run" if args.dry_run else torch.cuda.get_device_name(device)
    cores = len(os.sched_getaffinity(0))
    print(f"{named}, {cores} cores, torch {torch.__version__}", flush=True)
    began = time.monotonic()
    for name in args.sections:
        section, needed = SECTIONS[name]
        left = args.limit - (time.monotonic() - began)
        if left < (1 if args.dry_run else needed):
            bench.add(name, "left out", seconds_left=left)
            continue
        try:
            section(bench)
        except Exception as err:
            # The others are worth having all the same: a GPU is lent for minutes.
            bench.add(name, "FAILED", error=f"{type(err).__name__}: {err}")
    seconds = time.monotonic() - began
    lines = [{"name": x.name, "verdict": x.verdict, **x.figures} for x in bench.lines]
    print(json.dumps({"device": named, "cores": cores, "seconds": seconds, "lines": lines}))
    return int(any(line.verdict == "FAILED" for line in bench.lines))


if __name__ == "__main__":
    sys.exit(main())
