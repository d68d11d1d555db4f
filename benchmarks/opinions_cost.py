"""What each opinion costs from shards, and what combining costs beside a scan of what is combined.

    python benchmarks/opinions_cost.py [--items 1000000] [--features 512] [--classes 100]
        [--heads linear nearest trees network] [--folder DIR]
    python benchmarks/opinions_cost.py --only-combine [--items 1000000] [--classes 100]

Made-up vectors of classes in Gaussian clouds, a tenth of the labels wrong. Every head alone, then
those by default together, each as a run of stages source and infer in a process of its own; the
seconds of its steps, of the whole process by the processors' clocks, peak memory of the process,
and the accuracy against the true classes. Then two ready columns of probabilities
(`data.opinions`): seconds of its steps, beside pyarrow's own scan of both columns on two threads.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SHARD_ROWS = 62_500


def vectors(rows: np.ndarray) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(rows, np.float32).ravel())
    return pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])


def make(folder: Path, args: argparse.Namespace, *, ready: bool) -> Path:
    """Write shards with features, or with two columns of probabilities."""
    folder.mkdir(parents=True)
    k = args.classes
    centres = np.random.default_rng(0).normal(0, 0.35, (k, args.features)).astype(np.float32)
    for part, start in enumerate(range(0, args.items, SHARD_ROWS)):
        rng = np.random.default_rng([1, part])
        n = min(SHARD_ROWS, args.items - start)
        true = rng.integers(0, k, n)
        given = np.where(rng.random(n) < 0.1, rng.integers(0, k, n), true)
        columns = {"item_id": pa.array(range(start, start + n)), "label": pa.array(given)}
        if ready:
            for name in ("a", "b"):
                logits = rng.normal(0, 1, (n, k)).astype(np.float32)
                logits[np.arange(n), true] += 6
                np.exp(logits, out=logits)
                columns[name] = vectors(logits / logits.sum(axis=1, keepdims=True))
        else:
            noise = rng.normal(0, 1, (n, args.features)).astype(np.float32)
            columns["features"] = vectors(centres[true] + noise)
        np.save(folder.parent / f"{folder.name}-true-{part}.npy", true)
        pq.write_table(pa.table(columns), folder / f"part-{part:05d}.parquet")
    return folder


def run_one(data: str, out: str, settings: list[str]) -> None:
    """Run stages source and infer, and print seconds by step and peak memory."""
    from pipelines.recipe import parse_recipe
    from pipelines.run import run

    recipe = parse_recipe('stages = ["source", "infer"]', name="cost", overrides=settings)
    began = time.perf_counter()
    run(recipe, data=data, out=out)
    timings = json.loads((Path(out) / "timings.json").read_text())["infer"]
    wall, used = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cost = {"wall": wall, "processor": time.process_time(), "peak": used.ru_maxrss / 2**20}
    print(json.dumps({**timings, **cost}))


def measured(data: Path, out: Path, settings: list[str]) -> dict:
    command = [sys.executable, __file__, "--run", str(data), str(out), *settings]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def accuracy(data: Path, out: Path) -> float:
    """Return how often the most probable class is the true one."""
    right = n = 0
    for part, file in enumerate(sorted((out / "infer").glob("part-*.parquet"))):
        probs = pq.read_table(file, columns=["pred_probs"])["pred_probs"].combine_chunks()
        true = np.load(data.parent / f"{data.name}-true-{part}.npy")
        lead = probs.flatten().to_numpy().reshape(len(probs), -1).argmax(axis=1)
        right, n = right + int((lead == true).sum()), n + len(true)
    return right / n


def show(name: str, cost: dict, more: str = "") -> None:
    steps = ", ".join(f"{step} {s:.1f}" for step, s in cost["steps"].items() if s >= 0.05)
    print(
        f"{name}: {cost['seconds']:.1f} s ({steps}), {cost['processor']:.0f} s of processor time, "
        f"peak {cost['peak']:.2f} GiB{more}",
        flush=True,
    )


def scan(data: Path) -> float:
    """Return the seconds of pyarrow's own scan of both columns, the second of two."""
    pa.set_cpu_count(2)
    for _ in range(2):
        began = time.perf_counter()
        scanner = ds.dataset(data).scanner(columns=["a", "b"], use_threads=True)
        total = sum(batch.num_rows for batch in scanner.to_batches())
        seconds = time.perf_counter() - began
    assert total
    return seconds


def arithmetic(data: Path) -> float:
    """Return the seconds that two threads take to combine both columns, once they are read."""
    from labelops.fast.pool import pool_and_lead

    def combine(file: Path) -> float:
        rows = pq.read_table(file, columns=["a", "b"], use_threads=False)
        width = rows.schema.field("a").type.list_size
        columns = [rows[name].combine_chunks().flatten().to_numpy() for name in ("a", "b")]
        probs = np.stack([column.reshape(-1, width) for column in columns])
        began = time.perf_counter()
        pool_and_lead(probs, np.array([0.6, 0.5]))
        return time.perf_counter() - began

    files = sorted(data.glob("*.parquet"))
    combine(files[0])
    with ThreadPoolExecutor(2) as threads:
        return sum(threads.map(combine, files)) / 2


def main() -> None:
    """Measure heads, then the combination of ready columns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--features", type=int, default=512)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--heads", nargs="+", default=["linear", "nearest", "trees", "network"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--only-combine", action="store_true")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run:
        run_one(args.run[0], args.run[1], args.run[2:])
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        work = Path(folder)
        print(f"{args.items:,} items × {args.features} features × {args.classes} classes")
        if not args.only_combine:
            data = make(work / "data", args, ready=False)
            both = ["linear", "nearest"]
            kinds = [[kind] for kind in args.heads] + [both] * set(both).issubset(args.heads)
            for heads in kinds:
                out = work / "-".join(heads)
                cost = measured(data, out, [f"infer.heads={heads}"])
                show(" and ".join(heads), cost, f"; right {accuracy(data, out):.3f}")
        ready = make(work / "ready", args, ready=True)
        cost = measured(ready, work / "pooled", ["data.opinions=['a', 'b']"])
        bare = scan(ready)
        whole, alone = cost["steps"]["pool"] / bare, arithmetic(ready) / bare
        more = f"; a scan of both {bare:.2f} s; to read, combine and write {whole:.2f} × it, to "
        show("two ready columns", cost, f"{more}combine alone {alone:.2f} ×")


if __name__ == "__main__":
    main()
