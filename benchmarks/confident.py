"""Confident learning from Parquet shards, beside a bare scan of the column and beside cleanlab.

Every contender runs in a process of its own, so that peak memory is its own; rounds are
interleaved, so that a busy machine is unfair to all alike; ratios are of medians within this run.

    python benchmarks/confident.py                                  # 1 M × 100 and 200 k × 1000
    python benchmarks/confident.py --shape 10000000x100 --no-cleanlab
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

ROWS_A_SHARD_BYTES = 40_000_000
"""Shards of about 40 MB."""

NOISE = 0.1


def make(folder: Path, n: int, k: int) -> None:
    """Write n items: a model that is right nine times in ten, labels of which a tenth is wrong."""
    per = max(1, ROWS_A_SHARD_BYTES // (4 * k))
    folder.mkdir(parents=True)
    for shard, start in enumerate(range(0, n, per)):
        rng = np.random.default_rng([n, k, shard])
        rows = min(per, n - start)
        true = rng.integers(0, k, rows)
        logits = rng.normal(0, 1, (rows, k)).astype(np.float32)
        logits[np.arange(rows), true] += 4.5
        probs = np.exp(logits)
        probs /= probs.sum(axis=1, keepdims=True)
        given = np.where(rng.random(rows) < NOISE, rng.integers(0, k, rows), true)
        table = pa.table(
            {
                "item_id": np.arange(start, start + rows),
                "label": given,
                "pred_probs": pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), k),
            }
        )
        # Probabilities do not repeat: a dictionary would only slow every reader down.
        pq.write_table(table, folder / f"part-{shard:05d}.parquet", use_dictionary=["label"])


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.parquet"))


def rss_mb() -> float:
    """Peak memory of this process and of its largest child."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return (own + child) / 1024


def scan(folder: Path, work: Path) -> dict[str, float]:
    """Read the column with two threads and do nothing with it."""

    def read(path: Path) -> int:
        return int(pq.read_table(path, columns=["pred_probs"], use_threads=False).num_rows)

    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        sum(pool.map(read, shards(folder)))
    return {"seconds": time.perf_counter() - began}


def ours(folder: Path, work: Path) -> dict[str, float]:
    """Run stage `confident` as a run does, with all that it writes; earlier stages are given."""
    import pipelines.run
    from pipelines.graph import open_workers
    from pipelines.recipe import parse_recipe

    text = 'stages = ["source", "infer", "confident"]\n'
    recipe = parse_recipe(text, name="benchmark")
    steps: dict[str, float] = {}

    def listen(event: pipelines.run.Event) -> None:
        steps[f"{event.stage} {event.step} {event.kind}"] = time.perf_counter()

    with open_workers() as pool:
        # Compiled code is loaded before the clock starts, as a worker does once in its life.
        warm = work / "warm"
        if not warm.exists():
            make(warm / "data", 2000, 10)
        with tempfile.TemporaryDirectory(dir=work) as out:
            run = pipelines.run.open_run(recipe, data=str(warm / "data"), out=out)
            for entry in run.entries:
                pipelines.run.run_stage(run, entry.name, pool)
        base = rss_mb()
        with tempfile.TemporaryDirectory(dir=work) as out:
            run = pipelines.run.open_run(recipe, data=str(folder), out=out)
            times = {}
            for entry in run.entries:
                began = time.perf_counter()
                pipelines.run.run_stage(run, entry.name, pool, listen=listen)
                times[entry.name] = time.perf_counter() - began
            n = sum(
                int(np.sum(pq.read_table(path)["is_label_issue"].to_numpy()))
                for path in shards(Path(out) / "confident")
            )
    scan_s = steps["confident estimates step"] - steps["confident scan step"]
    return {
        "seconds": times["confident"],
        "pass over the probabilities": scan_s,
        "source": times["source"],
        "infer (validate, calibrate)": times["infer"],
        "issues": n,
        "base_mb": base,
    }


def load(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    tables = [pq.read_table(path, columns=["label", "pred_probs"]) for path in shards(folder)]
    k = tables[0].schema.field("pred_probs").type.list_size
    probs = np.concatenate(
        [
            table["pred_probs"].combine_chunks().flatten().to_numpy().reshape(-1, k)
            for table in tables
        ]
    )
    return np.concatenate([table["label"].to_numpy() for table in tables]), probs


def cleanlab(folder: Path, work: Path) -> dict[str, float]:
    """Read all shards into memory and call `find_label_issues` with its defaults."""
    from cleanlab.filter import find_label_issues

    began = time.perf_counter()
    labels, probs = load(folder)
    read = time.perf_counter() - began
    began = time.perf_counter()
    n = int(find_label_issues(labels, probs).sum())
    return {"seconds": time.perf_counter() - began, "reading": read, "issues": n}


def batched(folder: Path, work: Path) -> dict[str, float]:
    """Call `find_label_issues_batched` on memory-mapped arrays, its low-memory way."""
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched

    labels, probs = load(folder)
    with tempfile.TemporaryDirectory(dir=work) as temp:
        np.save(f"{temp}/probs.npy", probs)
        np.save(f"{temp}/labels.npy", labels)
        del probs, labels
        began = time.perf_counter()
        found = find_label_issues_batched(
            labels=np.load(f"{temp}/labels.npy", mmap_mode="r"),
            pred_probs=np.load(f"{temp}/probs.npy", mmap_mode="r"),
            verbose=False,
        )
        return {"seconds": time.perf_counter() - began, "issues": len(found)}


CONTENDERS = {"scan": scan, "ours": ours, "cleanlab": cleanlab, "batched": batched}


def measure(name: str, folder: Path, work: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--contender", name, "--data", str(folder)]
    done = subprocess.run(
        [*command, "--folder", str(work)], check=True, capture_output=True, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(n: int, k: int, names: list[str], rounds: int, work: Path) -> Iterator[str]:
    folder = work / f"{n}x{k}"
    if not folder.exists():
        make(folder, n, k)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            runs[name].append(measure(name, folder, work))
    median = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for name, found in runs.items()
    }
    size = n * k * 4
    base = median["scan"]["seconds"]
    yield f"{n:,} × {k:,} float32 ({size / 1e9:.2f} GB), medians of {rounds} rounds"
    yield f"{'':<44}{'seconds':>9}{'× scan':>9}{'GB/s':>8}{'peak MB':>9}{'issues':>10}"
    for name, found in median.items():
        seconds = found["seconds"]
        issues = f"{found['issues']:,.0f}" if "issues" in found else ""
        yield (
            f"{name:<44}{seconds:>9.2f}{seconds / base:>9.2f}{size / seconds / 1e9:>8.2f}"
            f"{found['peak_mb']:>9.0f}{issues:>10}"
        )
        for key in found:
            if key not in ("seconds", "peak_mb", "issues", "base_mb"):
                yield f"  {key:<42}{found[key]:>9.2f}{found[key] / base:>9.2f}"
    mine = median["ours"]["seconds"]
    yield f"ours / scan {mine / base:.2f} (budget ≤ 1.5)"
    if "cleanlab" in median:
        whole = median["cleanlab"]["seconds"] + median["cleanlab"]["reading"]
        bare = median["cleanlab"]["seconds"]
        yield (
            f"cleanlab in memory / ours {bare / mine:.1f} without reading, {whole / mine:.1f} with "
            "reading (budget ≥ 10)"
        )
        yield f"batched / ours {median['batched']['seconds'] / mine:.1f}"
        yield (
            f"memory over what an idle process holds: ours "
            f"{median['ours']['peak_mb'] - median['ours']['base_mb']:.0f} MB"
        )


def shape(text: str) -> tuple[int, int]:
    n, _, k = text.partition("x")
    return int(n), int(k)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=shape, action="append", help="ROWSxCLASSES")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-cleanlab", action="store_true", help="where it would not fit")
    parser.add_argument("--folder", type=Path, default=Path(".bench/confident"))
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    if chosen.contender:
        found = CONTENDERS[chosen.contender](chosen.data, chosen.folder.absolute())
        print(json.dumps({**found, "peak_mb": rss_mb()}))
        return
    names = ["scan", "ours"] if chosen.no_cleanlab else list(CONTENDERS)
    for n, k in chosen.shape or [(1_000_000, 100), (200_000, 1000)]:
        for line in compare(n, k, names, chosen.rounds, chosen.folder.absolute()):
            print(line, flush=True)
        print(flush=True)


if __name__ == "__main__":
    main()
