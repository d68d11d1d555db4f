"""Embedding by stage `infer` against the bare model in a tight loop, on the same batches.

    python benchmarks/infer.py [--items 4096] [--sides 32 64 224] [--arch resnet18] [--device auto]

The stage reads shards, decodes, scales, runs the model, and writes and commits embeddings. The bare
loop has its normalised batches in memory already: on a CPU with torch's own threads, and with one
thread a core over half the batches each, whichever is faster; on a GPU in bfloat16, channels last.
Both are repeated in turn; medians and their ratios are printed. Then the same for ready
probabilities: checking them against a bare scan of the column.
"""

import argparse
import io
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pipelines.run
from labelops.nn import architecture
from labelops.nn.device import autocast, pick_device
from labelops.nn.forward import Forward
from labelops.nn.transform import IMAGENET_MEAN, IMAGENET_STD, Normalised
from pipelines.inference.embed import prepare
from pipelines.media.images import Limits
from pipelines.recipe import parse_recipe
from pipelines.run import Event

SHARDS = 4
REPEATS = 3
CLASSES = 10


def pictures(n: int, side: int) -> list[bytes]:
    """Smooth shades with a little noise, about as compressible as photographs.

    As PNG up to 64 pixels a side, as small pictures are kept; above, as JPEG.
    """
    kind, options = ("PNG", {}) if side <= 64 else ("JPEG", {"quality": 90})
    rng = np.random.default_rng(0)
    files = []
    for _ in range(n):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
        noisy = smooth.astype(np.int64) + rng.integers(-6, 7, smooth.shape)
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


def write(folder: Path, columns: dict[str, pa.Array]) -> Path:
    folder.mkdir()
    n = len(next(iter(columns.values())))
    table = pa.table(
        {"item_id": pa.array(np.arange(n)), **columns, "label": np.arange(n) % CLASSES}
    )
    for shard, rows in enumerate(np.array_split(np.arange(n), SHARDS)):
        part = table.slice(int(rows[0]), len(rows))
        pq.write_table(part, folder / f"part-{shard:05d}.parquet", write_page_checksum=True)
    return folder


class Cost(NamedTuple):
    """Seconds on the clock, and of all cores: the latter hardly change when others are at work."""

    wall: float
    cpu: float


def now() -> Cost:
    return Cost(time.perf_counter(), time.process_time())


def since(began: Cost) -> Cost:
    end = now()
    return Cost(end.wall - began.wall, end.cpu - began.cpu)


def step_cost(data: Path, out: Path, step: str, settings: Sequence[str]) -> Cost:
    """Run `source` and `infer`; return what one step of the latter took, from start to commit."""
    recipe = parse_recipe('stages = ["source", "infer"]', name="bench", overrides=settings)
    costs: dict[str, Cost] = {}
    current: list[tuple[str, Cost]] = []

    def listen(event: Event) -> None:
        if event.kind in ("step", "done"):
            if current:
                name, began = current.pop()
                costs[name] = since(began)
            current.append((event.step, now()))

    pipelines.run.run(recipe, data=str(data), out=str(out), listen=listen)
    return costs[step]


def timed(work: Callable[[], object]) -> Cost:
    began = now()
    work()
    return since(began)


def median(costs: Sequence[Cost]) -> Cost:
    """Return the medians of all but the first, which imports, compiles and opens."""
    return Cost(*(statistics.median(values) for values in zip(*costs[1:], strict=True)))


def bare_loops(forward: Forward, batches: list[torch.Tensor]) -> dict[str, Callable[[], object]]:
    device, model = forward.device, forward.model.model

    def loop(some: list[torch.Tensor]) -> None:
        with torch.inference_mode(), autocast(device):
            for batch in some:
                output = model(batch)
        if device.type == "cuda":
            output.cpu()

    if device.type == "cuda":
        return {"bare": lambda: loop(batches)}

    def alone(some: list[torch.Tensor]) -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        loop(some)
        torch.set_num_threads(before)

    cores = len(os.sched_getaffinity(0))

    def side_by_side() -> None:
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(alone, [batches[c::cores] for c in range(cores)]))

    return {"bare, torch's threads": lambda: loop(batches), "bare, a thread a core": side_by_side}


def images(side: int, n: int, args: argparse.Namespace, folder: Path) -> None:
    device = pick_device(args.device)
    files = pictures(n, side)
    data = write(folder / "data", {"image": pa.array([{"bytes": f, "path": None} for f in files])})
    weights = folder / "weights.safetensors"
    save_file(architecture.build(args.arch, n_classes=CLASSES).state_dict(), weights)
    settings = [
        f"infer.embedder={args.arch}",
        f"infer.weights={weights}",
        f"infer.image_size={side}",
        f"infer.batch_rows={args.batch_rows}",
        f"infer.device={args.device}",
        "infer.max_iter=1",
        "infer.l2=1.0",
    ]
    model = architecture.fresh_backbone(args.arch, seed=0)
    net = Normalised(model, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    forward = Forward(net, device=device, batch_rows=args.batch_rows)
    ready = np.stack([np.asarray(prepare(file, side, Limits())) for file in files])
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    memory = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    batches = [
        ((torch.from_numpy(ready[s : s + args.batch_rows]) / 255 - mean) / std)
        .to(device)
        .contiguous(memory_format=memory)
        for s in range(0, len(ready), args.batch_rows)
    ]
    loops = bare_loops(forward, batches)
    costs: dict[str, list[Cost]] = {name: [] for name in [*loops, "stage"]}
    for repeat in range(REPEATS + 1):
        for name, loop in loops.items():
            costs[name].append(timed(loop))
        costs["stage"].append(step_cost(data, folder / f"out{repeat}", "embed", settings))
    typical = {name: median(values) for name, values in costs.items()}
    best = min((typical[name] for name in loops), key=lambda cost: cost.wall)
    print(f"{args.arch}, {side} x {side}, {n} pictures, {device}")
    for name, cost in typical.items():
        print(
            f"  {name:<24} {n / cost.wall:10.1f} items/s, CPU {1e3 * cost.cpu / n:8.3f} ms an item"
        )
    print(f"  stage / bare, items/s    {best.wall / typical['stage'].wall:10.3f}   (budget 0.95)")
    print(f"  bare / stage, CPU time   {best.cpu / typical['stage'].cpu:10.3f}")


def ready_probabilities(rows: int, classes: int, folder: Path) -> None:
    flat = np.random.default_rng(0).random((rows, classes), dtype=np.float32)
    flat /= flat.sum(axis=1, keepdims=True)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel()), classes)
    data = write(folder / "data", {"pred_probs": column})

    def scan() -> None:
        paths = sorted(data.glob("*.parquet"))
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            list(pool.map(read, paths))

    def read(path: Path) -> int:
        return int(pq.read_table(path, columns=["pred_probs"], use_threads=False).num_rows)

    scans, checks = [], []
    names = ", ".join(f"'{k}'" for k in range(classes))
    settings = [f"data.classes=[{names}]", "data.absent_classes=allow"]
    for repeat in range(REPEATS + 1):
        scans.append(timed(scan))
        checks.append(step_cost(data, folder / f"out{repeat}", "validate", settings))
    bare, ours = median(scans), median(checks)
    print(f"ready probabilities, {rows} x {classes}")
    print(f"  scan of the column       {rows / bare.wall:10.0f} rows/s")
    print(f"  stage, step validate     {rows / ours.wall:10.0f} rows/s")
    print(f"  stage / scan             {ours.wall / bare.wall:10.2f} in time")
    print(f"                           {ours.cpu / bare.cpu:10.2f} in CPU time")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=4096, help="at most")
    parser.add_argument("--sides", type=int, nargs="*", default=[32, 64, 224])
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--batch-rows", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int, default=400_000, help="of ready probabilities")
    args = parser.parse_args()
    for side in args.sides:
        with tempfile.TemporaryDirectory() as folder:
            # About as long for every size, but no fewer than two batches a shard.
            items = max(2 * SHARDS * args.batch_rows, args.items * 32**2 // side**2)
            images(side, min(items, args.items), args, Path(folder))
    if args.rows:
        with tempfile.TemporaryDirectory() as folder:
            ready_probabilities(args.rows, 100, Path(folder))


if __name__ == "__main__":
    main()
