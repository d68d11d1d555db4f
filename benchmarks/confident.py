"""Confident learning from Parquet against a bare scan of the column, and against cleanlab.

    python benchmarks/confident.py [--rows 1000000] [--classes 100] [--folder DIR] [--repeats 3]
        [--contenders scan,dataset,read,stage,arrays,cleanlab,batched]
        [--filter-by prune_by_noise_rate]

Makes shards of made-up predictions (streamed, so 10 000 000 rows need disk and no memory), then
runs every contender in processes of its own, turn by turn, and prints the best time of each as a
multiple of the bare scan's, its processor time, and its peak memory. Everything is measured after
imports and after a first run on a tiny data set, which loads what is compiled. The flags of all
contenders that say the same are compared row by row.

scan      reads the column in blocks and throws it away, two threads
dataset   the same by pyarrow's own scanner of data sets, two threads
read      reads the column shard by shard into memory, two threads
stage     stage `confident` as a run does it: checksums, commits, sidecar, ranks
arrays    labelops.fast.confident.find_label_issues, after reading everything into memory
cleanlab  cleanlab.filter.find_label_issues, after reading everything into memory
batched   cleanlab's find_label_issues_batched on memory-mapped .npy files; another method: the
          lowest self-confidences, as many as are off the diagonal of the calibrated joint
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

THREADS = 2
SHARD_BYTES = 50_000_000
BLOCK_BYTES = 1 << 20
SAME = ("cleanlab", "stage", "arrays")
CONTENDERS = ("scan", "dataset", "read", "stage", "arrays", "cleanlab", "batched")
# Copies that cleanlab makes of the probabilities, roughly; more than the machine has is skipped.
COPIES = {"arrays": 2.5, "cleanlab": 4.0}

RECIPE = """
stages = ["source", "infer", "confident"]
[data]
absent_classes = "allow"
[confident]
filter_by = "{filter_by}"
"""

Outcome = dict[str, Any]


# -- data ------------------------------------------------------------------------------------------


def make_shards(folder: Path, n: int, n_classes: int, *, rows: int = 0) -> None:
    """Write shards of a model that is right four times in five, and labels wrong one time in ten.

    Half of the wrong labels are of a class that is easily mistaken, half of any.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows or max(1, SHARD_BYTES // (4 * n_classes))
    for shard, start in enumerate(range(0, n, rows)):
        rng = np.random.default_rng([n_classes, shard])
        size = min(rows, n - start)
        at = np.arange(size)
        true = rng.integers(0, n_classes, size)
        rival = (true * 7 + 3) % n_classes
        probs = rng.standard_normal((size, n_classes), dtype=np.float32) * 1.5
        probs[at, true] += rng.normal(8.0, 2.5, size).astype(np.float32)
        probs[at, rival] += rng.normal(2.0, 1.5, size).astype(np.float32)
        probs -= probs.max(axis=1, keepdims=True)
        np.exp(probs, out=probs)
        probs /= probs.sum(axis=1, keepdims=True)
        kind = rng.random(size)
        given = np.where(kind < 0.05, rng.integers(0, n_classes, size), true)
        given = np.where(kind > 0.95, rival, given)
        column = pa.FixedSizeListArray.from_arrays(pa.array(probs.ravel()), n_classes)
        ids = [f"item-{i:09d}" for i in range(start, start + size)]
        table = pa.table({"item_id": ids, "label": given, "pred_probs": column})
        pq.write_table(table, folder / f"part-{shard:05d}.parquet")


def shards(folder: Path) -> list[Path]:
    """Return the files of the source."""
    return sorted(folder.glob("*.parquet"))


def in_memory(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return all probabilities and labels."""
    table = pq.read_table(folder, columns=["label", "pred_probs"])
    n_classes = table.schema.field("pred_probs").type.list_size
    column = table.column("pred_probs").combine_chunks()
    return column.flatten().to_numpy().reshape(-1, n_classes), table.column("label").to_numpy()


def make_arrays(source: Path, folder: Path) -> None:
    """Write the data as .npy files, shard by shard."""
    files = shards(source)
    n = sum(pq.read_metadata(file).num_rows for file in files)
    n_classes = pq.read_schema(files[0]).field("pred_probs").type.list_size
    folder.mkdir(exist_ok=True)
    probs = np.lib.format.open_memmap(
        folder / "probs.npy", mode="w+", dtype=np.float32, shape=(n, n_classes)
    )
    given = np.lib.format.open_memmap(folder / "given.npy", mode="w+", dtype=np.int64, shape=(n,))
    start = 0
    for file in files:
        part, labels = in_memory(file)
        probs[start : start + len(part)] = part
        given[start : start + len(part)] = labels
        start += len(part)


# -- contenders: each runs in a process of its own -------------------------------------------------


class Clock:
    """Measures wall and processor time, children included."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), self._cpu()

    @staticmethod
    def _cpu() -> float:
        times = os.times()
        return times.user + times.system + times.children_user + times.children_system

    def read(self) -> dict[str, float]:
        return {"wall_s": time.perf_counter() - self.wall, "cpu_s": self._cpu() - self.cpu}


def over_shards(folder: Path, work: Callable[[Path], int]) -> Outcome:
    clock = Clock()
    with ThreadPoolExecutor(THREADS) as pool:
        n = sum(pool.map(work, shards(folder)))
    return clock.read() | {"rows": n}


def scan(folder: Path, tiny: Path, work: Path, filter_by: str) -> Outcome:
    def stream(file: Path) -> int:
        reader = pq.ParquetFile(file)
        n_classes = reader.schema_arrow.field("pred_probs").type.list_size
        rows = max(16, BLOCK_BYTES // (4 * n_classes))
        batches = reader.iter_batches(batch_size=rows, columns=["pred_probs"], use_threads=False)
        return sum(batch.num_rows for batch in batches)

    over_shards(tiny, stream)
    return over_shards(folder, stream)


def dataset(folder: Path, tiny: Path, work: Path, filter_by: str) -> Outcome:
    pa.set_cpu_count(THREADS)

    def stream(source: Path) -> int:
        scanner = pads.dataset(source).scanner(columns=["pred_probs"])
        return sum(batch.num_rows for batch in scanner.to_batches())

    stream(tiny)
    clock = Clock()
    n = stream(folder)
    return clock.read() | {"rows": n}


def read(folder: Path, tiny: Path, work: Path, filter_by: str) -> Outcome:
    def whole(file: Path) -> int:
        return pq.ParquetFile(file).read(columns=["pred_probs"], use_threads=False).num_rows

    over_shards(tiny, whole)
    return over_shards(folder, whole)


def stage(folder: Path, tiny: Path, work: Path, filter_by: str) -> Outcome:
    import pipelines.run
    from pipelines.core.graph import ThreadWorkers
    from pipelines.recipe import parse_recipe

    recipe = parse_recipe(RECIPE.format(filter_by=filter_by), name="benchmark")
    pool = ThreadWorkers(THREADS)
    outcome: Outcome = {}
    for source, out in ((tiny, work / "tiny"), (folder, work / "run")):
        shutil.rmtree(out / "confident", ignore_errors=True)
        run = pipelines.run.open_run(recipe, data=str(source), out=str(out))
        for name in ("source", "infer"):
            pipelines.run.run_stage(run, name, pool)
        clock = Clock()
        pipelines.run.run_stage(run, "confident", pool)
        outcome = clock.read()
    steps = json.loads((work / "run" / "timings.json").read_bytes())["confident"]["steps"]
    files = shards(work / "run" / "confident")
    parts = [pq.read_table(path, columns=["is_label_issue"]) for path in files]
    keep_flags(work, "stage", np.asarray(pa.concat_tables(parts)["is_label_issue"]))
    return outcome | {"steps": steps}


def prepare(folder: Path, tiny: Path, work: Path, filter_by: str) -> Outcome:
    """Run the stages before `confident`, in a process whose memory nobody measures."""
    import pipelines.run
    from pipelines.core.graph import ThreadWorkers
    from pipelines.recipe import parse_recipe

    recipe = parse_recipe(RECIPE.format(filter_by=filter_by), name="benchmark")
    for source, out in ((tiny, work / "tiny"), (folder, work / "run")):
        run = pipelines.run.open_run(recipe, data=str(source), out=str(out))
        for name in ("source", "infer"):
            pipelines.run.run_stage(run, name, ThreadWorkers(THREADS))
    return {}


def from_memory(
    folder: Path, tiny: Path, find: Callable[[np.ndarray, np.ndarray], np.ndarray]
) -> tuple[Outcome, np.ndarray]:
    find(*in_memory(tiny))
    reading = Clock()
    probs, given = in_memory(folder)
    read_s = reading.read()["wall_s"]
    clock = Clock()
    flags = find(probs, given)
    return clock.read() | {"read_s": read_s}, flags


def arrays(folder: Path, tiny: Path, work: Path, filter_by: Any) -> Outcome:
    from labelops.fast.confident import find_label_issues

    outcome, flags = from_memory(
        folder, tiny, lambda probs, given: find_label_issues(probs, given, filter_by=filter_by)
    )
    keep_flags(work, "arrays", flags)
    return outcome


def cleanlab(folder: Path, tiny: Path, work: Path, filter_by: str) -> Outcome:
    from cleanlab.filter import find_label_issues

    outcome, flags = from_memory(
        folder, tiny, lambda probs, given: find_label_issues(given, probs, filter_by=filter_by)
    )
    keep_flags(work, "cleanlab", flags)
    return outcome


def batched(folder: Path, tiny: Path, work: Path, filter_by: str) -> Outcome:
    from cleanlab.experimental.label_issues_batched import find_label_issues_batched

    outcome: Outcome = {}
    for source in (tiny, folder):
        files = work / f"arrays-{source.name}"
        if not files.exists():
            make_arrays(source, files)
        given = np.load(files / "given.npy", mmap_mode="r")
        probs = np.load(files / "probs.npy", mmap_mode="r")
        clock = Clock()
        issues = find_label_issues_batched(given, probs, n_jobs=THREADS, verbose=False)
        outcome = clock.read() | {"issues": len(issues)}
    return outcome


def keep_flags(work: Path, name: str, flags: np.ndarray) -> None:
    np.save(work / f"flags-{name}.npy", flags)


# -- the driver ------------------------------------------------------------------------------------


def alone(args: argparse.Namespace) -> None:
    """Run one contender in this process and print what it took as JSON."""
    work = args.folder
    source = work / f"source-{args.rows}-{args.classes}"
    outcome = globals()[args.one](source, work / "source-tiny", work, args.filter_by)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    print(json.dumps(outcome | {"peak_mib": own / 1024, "peak_child_mib": children / 1024}))


def in_process(name: str, args: argparse.Namespace) -> Outcome:
    command = [sys.executable, __file__, "--one", name, "--folder", str(args.folder)]
    command += ["--rows", str(args.rows), "--classes", str(args.classes)]
    command += ["--filter-by", args.filter_by]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr}")
    outcome: Outcome = json.loads(done.stdout.strip().splitlines()[-1])
    return outcome


def best(outcomes: list[Outcome]) -> Outcome:
    """Return the fastest run, with the smallest of every number."""
    chosen = dict(min(outcomes, key=lambda outcome: outcome["wall_s"]))
    for key, value in chosen.items():
        if isinstance(value, float):
            chosen[key] = min(outcome[key] for outcome in outcomes)
    return chosen


def report(outcomes: Mapping[str, Outcome], work: Path) -> None:
    bare = outcomes["scan"]
    print(f"{'':10}{'wall s':>9}{'× scan':>8}{'cpu s':>9}{'× scan':>8}{'peak MiB':>10}  of which")
    for name, outcome in outcomes.items():
        notes = []
        if "read_s" in outcome:
            notes.append(f"and {outcome['read_s']:.2f} s before that for reading")
        if outcome["peak_child_mib"] > outcome["peak_mib"] / 10 and name == "cleanlab":
            notes.append(f"each of its processes {outcome['peak_child_mib']:.0f} MiB")
        notes += [f"{step} {s:.2f}" for step, s in outcome.get("steps", {}).items() if s >= 0.02]
        print(
            f"{name:10}{outcome['wall_s']:9.3f}{outcome['wall_s'] / bare['wall_s']:8.2f}"
            f"{outcome['cpu_s']:9.3f}{outcome['cpu_s'] / bare['cpu_s']:8.2f}"
            f"{outcome['peak_mib']:10.0f}  {', '.join(notes)}"
        )
    if "cleanlab" in outcomes:
        for name in ("stage", "arrays"):
            if name in outcomes:
                spent = outcomes["cleanlab"]["wall_s"] / outcomes[name]["wall_s"]
                whole = spent + outcomes["cleanlab"]["read_s"] / outcomes[name]["wall_s"]
                print(f"cleanlab takes {spent:.1f} × {name}; {whole:.1f} × with its reading")
    flags = {name: np.load(work / f"flags-{name}.npy") for name in outcomes if name in SAME}
    for name, values in flags.items():
        first, reference = next(iter(flags.items()))
        differing = np.count_nonzero(values != reference)
        print(f"{name}: {np.count_nonzero(values)} issues, {differing} rows differ from {first}")
    if "stage" in outcomes:
        ratios = [
            f"{outcomes['stage']['wall_s'] / outcomes[name]['wall_s']:.2f} × {name}"
            for name in ("scan", "dataset", "read")
            if name in outcomes
        ]
        print(f"budget: stage at most 1.5 × a bare scan; here {' and '.join(ratios)}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--folder", type=Path, help="for the data; kept if given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contenders", default=",".join(CONTENDERS))
    parser.add_argument("--filter-by", default="prune_by_noise_rate")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        alone(args)
        return
    with tempfile.TemporaryDirectory(prefix="labelops-bench-") as temporary:
        args.folder = args.folder or Path(temporary)
        measure(args)


def measure(args: argparse.Namespace) -> None:
    source = args.folder / f"source-{args.rows}-{args.classes}"
    n_bytes = 4 * args.rows * args.classes
    if not source.exists():
        make_shards(source, args.rows, args.classes)
    # Of the same width, so that the same code is compiled and the same shapes are warm.
    shutil.rmtree(args.folder / "source-tiny", ignore_errors=True)
    n_tiny = 20 * args.classes
    make_shards(args.folder / "source-tiny", n_tiny, args.classes, rows=n_tiny // THREADS)
    for leaf in ("run", "tiny"):
        shutil.rmtree(args.folder / leaf, ignore_errors=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    chosen = []
    for name in args.contenders.split(","):
        if COPIES.get(name, 0) * n_bytes > memory:
            print(f"{name}: left out, it would need about {COPIES[name] * n_bytes / 2**30:.0f} GiB")
        else:
            chosen.append(name)
    chosen = ["scan", *(name for name in chosen if name != "scan")]
    if "stage" in chosen:
        in_process("prepare", args)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in chosen}
    for _ in range(args.repeats):
        for name in chosen:
            outcomes[name].append(in_process(name, args))
    print(
        f"{args.rows:,} × {args.classes} float32 ({n_bytes / 1e9:.2f} GB) in "
        f"{len(shards(source))} shards, {args.filter_by}, best of {args.repeats}"
    )
    report({name: best(runs) for name, runs in outcomes.items()}, args.folder)


if __name__ == "__main__":
    main()
