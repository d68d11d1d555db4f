"""Multi-label confident learning against cleanlab, and at a size that cleanlab was left with.

    python benchmarks/multilabel.py [--part both|cleanlab|stages] [--rows 50000]
        [--classes 100] [--shard-rows 351133] [--shard-classes 1522] [--folder DIR]
        [--only-make] [--repeats 3]

Part `cleanlab`: flags of every row and class of made-up data in memory, ours (compiled) and
`cleanlab.multilabel_classification.filter.find_multilabel_issues_per_class` with one process and
with its default, turn by turn in one run, best of the repeats (cleanlab: of one); every flag is
compared. What is compiled was compiled before.

Part `stages`: 351 133 items × 1 522 classes, the size of cleanlab's issue 780, from Parquet shards
of float32 through the recipe, stages source, infer (which only checks ready probabilities),
multilabel and decide_labels, in a process of its own; time of each stage and step, beside a bare
scan on two threads, and peak memory.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from labelops.fast import multilabel as fast  # noqa: E402
from labelops.multilabel.labels import from_states  # noqa: E402

THREADS = 2
SHARD_BYTES = 50_000_000
BLOCK_BYTES = 1 << 22


def make(seed: list[int], n: int, n_classes: int, per_item: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (probs, present) of a fair model; a fifth of the positives is missing, some wrong."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(2, n_classes + 2)
    share *= per_item / share.sum()
    truth = rng.random((n, n_classes), dtype=np.float32) < share.astype(np.float32)
    logits = rng.standard_normal((n, n_classes), dtype=np.float32)
    logits += np.where(truth, np.float32(2.0), np.float32(-4.5))
    probs = 1 / (1 + np.exp(-logits))
    chance = rng.random((n, n_classes), dtype=np.float32)
    return probs, np.where(truth, chance > 0.2, chance < 0.02 * share.astype(np.float32))


def versus_cleanlab(args: argparse.Namespace) -> None:
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    probs, present = make([1], args.rows, args.classes, per_item=4.0)
    labels = from_states(present.astype(np.int8))
    lists = [np.flatnonzero(row).tolist() for row in present]
    fast.find_label_issues(probs[:500], from_states(present[:500].astype(np.int8)))

    def ours() -> np.ndarray:
        cells, _ = fast.find_label_issues(probs, labels, filter_by=args.filter_by)
        flags = np.zeros(probs.shape, bool)
        flags[cells.row, cells.class_id] = True
        return flags

    def theirs(n_jobs: int | None) -> Callable[[], np.ndarray]:
        return lambda: find_multilabel_issues_per_class(
            lists, probs, filter_by=args.filter_by, n_jobs=n_jobs
        )

    contenders = {"labelops": ours, "cleanlab, 1 process": theirs(1), "cleanlab": theirs(None)}
    took: dict[str, list[float]] = {name: [] for name in contenders}
    flags = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for turn in range(args.repeats):
            for name, find in contenders.items():
                if turn == 0 or name == "labelops":
                    start = time.perf_counter()
                    flags[name] = find()
                    took[name].append(time.perf_counter() - start)
    print(f"{args.rows:,} × {args.classes} float32, {args.filter_by}")
    best = min(took["labelops"])
    for name, times in took.items():
        differing = int((flags[name] != flags["labelops"]).sum())
        print(
            f"{name:20}{min(times):9.3f} s{min(times) / best:9.1f} ×{flags[name].sum():9,} flags, "
            f"{differing} differ"
        )
    ratio = min(min(times) for name, times in took.items() if name != "labelops") / best
    print(f"goal: 10 × cleanlab at its best; here {ratio:.1f} ×")


def make_shards(folder: Path, n: int, n_classes: int) -> None:
    """Write shards of probabilities and lists of given classes, one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = max(1, SHARD_BYTES // (4 * n_classes))
    for shard, start in enumerate(range(0, n, rows)):
        size = min(rows, n - start)
        probs, present = make([2, shard], size, n_classes, per_item=3.0)
        offsets = np.concatenate([[0], np.cumsum(present.sum(axis=1))]).astype(np.int32)
        lists = pa.ListArray.from_arrays(offsets, pa.array(np.nonzero(present)[1], pa.int32()))
        column = pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), n_classes)
        ids = pa.array(np.arange(start, start + size))
        table = pa.table({"item_id": ids, "labels": lists, "pred_probs": column})
        pq.write_table(table, folder / f"part-{shard:05d}.parquet", row_group_size=2048)


def read_blocks(file: Path) -> Iterator[np.ndarray]:
    """Yield a shard's probabilities in blocks of rows."""
    reader = pq.ParquetFile(file)
    n_classes = reader.schema_arrow.field("pred_probs").type.list_size
    rows = max(16, BLOCK_BYTES // (4 * n_classes))
    for batch in reader.iter_batches(rows, columns=["pred_probs"], use_threads=False):
        yield batch.column("pred_probs").flatten().to_numpy().reshape(-1, n_classes)


def bare(folder: Path) -> float:
    """Return the time of reading every block once and throwing it away."""

    def read(file: Path) -> int:
        return sum(len(probs) for probs in read_blocks(file))

    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(read, sorted(folder.glob("*.parquet"))))
    return time.perf_counter() - start


def run_stages(folder: Path) -> None:
    """Run the stages on the shards of a folder and print what they took as JSON."""
    import pipelines.run
    from pipelines.core.intact import read_timings
    from pipelines.recipe import parse_recipe
    from pipelines.storage.store import open_store

    # No report: it reads what the stages left, and is not what is measured.
    pipelines.run.finish = lambda run, listen=None: "none"  # type: ignore[assignment]
    text = 'stages = ["source", "infer", "multilabel", "decide_labels"]\n'
    recipe = parse_recipe(text, name="bench", overrides=["data.absent_classes=allow"])
    with tempfile.TemporaryDirectory(prefix="labelops-bench-") as out:
        start = time.perf_counter()
        pipelines.run.run(recipe, data=str(folder), out=out)
        wall_s = time.perf_counter() - start
        timings = read_timings(open_store(out))
    outcome = {
        "wall_s": wall_s,
        "stages": {
            name: {"s": t["seconds"], "steps": {k: v for k, v in t["steps"].items() if v >= 0.5}}
            for name, t in timings.items()
        },
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(outcome))


def through_stages(args: argparse.Namespace) -> None:
    folder = args.folder / f"multilabel-{args.shard_rows}-{args.shard_classes}"
    if not folder.exists():
        make_shards(folder, args.shard_rows, args.shard_classes)
    if args.only_make:
        return
    scan = bare(folder)
    command = [sys.executable, __file__, "--run-stages", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    outcome = json.loads(done.stdout.strip().splitlines()[-1])
    print(
        f"{args.shard_rows:,} × {args.shard_classes:,} from {len(list(folder.iterdir()))} shards "
        f"through the stages: {outcome['wall_s']:.1f} s (a bare scan: {scan:.1f} s), peak "
        f"{outcome['peak_mib']:.0f} MiB"
    )
    for name, took in outcome["stages"].items():
        print(f"  {name:14}{took['s']:8.1f} s  {took['steps']}")
    print(f"goal: 30 minutes; here {outcome['wall_s'] / 60:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=["both", "cleanlab", "stages"], default="both")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--shard-rows", type=int, default=351_133)
    parser.add_argument("--shard-classes", type=int, default=1522)
    parser.add_argument("--filter-by", default="prune_by_noise_rate")
    parser.add_argument("--folder", type=Path, help="for the shards; kept if given")
    parser.add_argument("--only-make", action="store_true", help="make the shards and stop")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--run-stages", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.run_stages:
        run_stages(args.run_stages)
        return
    if args.part in ("both", "cleanlab") and not args.only_make:
        versus_cleanlab(args)
    if args.part != "cleanlab":
        with tempfile.TemporaryDirectory(prefix="labelops-bench-") as temporary:
            args.folder = args.folder or Path(temporary)
            through_stages(args)


if __name__ == "__main__":
    main()
