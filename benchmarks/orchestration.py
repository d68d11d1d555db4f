"""What a run costs beside the work itself: fixed, and for every shard.

Shards of ten items, so that nothing but orchestration is left to measure: the command line in a
process of its own, from its start to its end, at three numbers of shards, in three ways. A straight
line through them gives the fixed cost and the cost of a shard. Prints the budgets beside them.

    python benchmarks/orchestration.py [--shards 10,100,1000] [--recipes source,audit]
"""

import argparse
import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from flows.server import EmbeddedServer, environment  # noqa: E402

ITEMS = 10
CLASSES = 3

FIXED_S = 3.0
SHARD_S = 0.020
FLOW_S = 3.0

RECIPES = {
    "source": 'stages = ["source"]\n',
    "audit": 'stages = ["source", "infer", "confident", "neighbours", "decide", "dataset"]\n',
}


def make_shards(folder: Path, n_shards: int) -> None:
    """Write small shards with ready predictions, so that no stage has a model to fit."""
    folder.mkdir()
    rng = np.random.default_rng(n_shards)
    for shard in range(n_shards):
        given = rng.integers(0, CLASSES, ITEMS)
        probs = rng.dirichlet(np.ones(CLASSES), ITEMS)
        probs[np.arange(ITEMS), given] += 1
        probs /= probs.sum(1, keepdims=True)
        table = pa.table(
            {
                "item_id": [f"{shard}-{row}" for row in range(ITEMS)],
                "label": pa.array(given),
                "pred_probs": pa.FixedSizeListArray.from_arrays(
                    pa.array(probs.astype(np.float32).ravel()), CLASSES
                ),
            }
        )
        pq.write_table(table, folder / f"{shard:05d}.parquet")


def cpu_s() -> float:
    """Return the processor time of all processes that have ended so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(
    recipe: Path, data: Path, out: Path, *more: str, env: Mapping[str, str]
) -> tuple[float, float]:
    """Return how long the command line takes from its start to its end, and its processor time."""
    command = [sys.executable, "-m", "flows.cli", "run", str(recipe), "--data", str(data)]
    began, used = time.perf_counter(), cpu_s()
    done = subprocess.run(
        [*command, "--out", str(out), *more],
        cwd=ROOT,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    taken = time.perf_counter() - began, cpu_s() - used
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    shutil.rmtree(out)
    return taken


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", default="10,100,1000")
    parser.add_argument("--recipes", default="source,audit")
    options = parser.parse_args()
    counts = [int(n) for n in options.shards.split(",")]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="labelops-bench-")))
        quiet = {
            "PREFECT_API_URL": "",
            "OMP_NUM_THREADS": "1",
            # As on any machine where Python may keep what it has compiled.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(folder / "pycache"),
        }
        stack.enter_context(environment(quiet))
        for _ in range(2):
            began = time.perf_counter()
            server = stack.enter_context(EmbeddedServer())
            server.wait()
            started = time.perf_counter() - began
        ways: dict[str, tuple[list[str], Mapping[str, str]]] = {
            "direct": (["--no-prefect"], quiet),
            "flow": (["--prefect"], {**quiet, **server.settings}),
            "2 workers": (["--no-prefect", "--workers", "2"], quiet),
        }
        for n in counts:
            make_shards(folder / f"data-{n}", n)
        print(f"{len(os.sched_getaffinity(0))} cores; shards of {ITEMS} items")
        for recipe in options.recipes.split(","):
            path = folder / f"{recipe}.toml"
            path.write_text(RECIPES[recipe])
            # Once for the caches of bytecode and compiled loops, as every run but the first has.
            seconds(path, folder / f"data-{counts[0]}", folder / "out", env=quiet)
            measure(recipe, path, folder, counts, ways)
            print(f"embedded server: up after {started:.1f} s")


def measure(
    recipe: str,
    path: Path,
    folder: Path,
    counts: list[int],
    ways: Mapping[str, tuple[list[str], Mapping[str, str]]],
) -> None:
    """Measure one recipe in all ways; print the table."""
    width = max(map(len, ways))
    heads = "".join(f"{f'{n} shards':>14}" for n in counts)
    print(f"\nrecipe of {recipe}\n{'':<{width}}{heads}{'fixed':>10}{'a shard':>12}")
    fixed: dict[str, float] = {}
    for way, (more, env) in ways.items():
        measured = [
            seconds(path, folder / f"data-{n}", folder / "out", *more, env=env) for n in counts
        ]
        taken = [wall for wall, _ in measured]
        # The least squares of relative errors: the largest number would decide alone otherwise.
        weights = 1 / np.array(taken)
        slope, fixed[way] = np.polyfit(counts, taken, 1, w=weights) if len(counts) > 1 else (0, 0)
        shown = "".join(f"{t:>12.2f} s" for t in taken)
        print(f"{way:<{width}}{shown}{fixed[way]:>8.2f} s{1000 * slope:>9.2f} ms")
        # On a machine that has other work the processor time says more than the clock.
        shown = "".join(f"{cpu:>12.2f} s" for _, cpu in measured)
        print(f"{'  (cpu)':<{width}}{shown}")
        if way == "direct":
            verdict("direct, fixed", fixed[way], FIXED_S)
            verdict("direct, a shard", slope, SHARD_S)
    verdict("flow, fixed, more than direct", fixed["flow"] - fixed["direct"], FLOW_S)


def verdict(what: str, value: float, budget: float) -> None:
    """Print a number beside its budget."""
    ratio = value / budget
    print(f"    {what}: {value:.3f} s of {budget:g} s ({ratio:.2f} of the budget)")


if __name__ == "__main__":
    main()
