"""Bags: compiled messages of counts against the definition and against counting in logarithms.

    python benchmarks/bags.py [--items 1000000] [--bags 8,64,512,2048] [--repeats 3]

Every measurement is done in a process of its own, after imports and a first run on a few bags,
which loads what is compiled; the best of the repeats is printed. Contenders that are too slow for
all items are given fewer, and compared by items per second.

compiled   labelops.fast.cardinality.marginals, two threads, beliefs to 1e-12
one core   the same on one thread
exact      the same with nothing cut off
plain      labelops.proportions.cardinality.marginals, the definition in NumPy
logarithms the same recursion in logarithms for many bags of one size at a time, in NumPy

Then: sweeps of belief propagation with five neighbours an item, drawn at random, which is the worst
for a cache; how time grows from a tenth of the items to all; what cutting tails costs in accuracy.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from labelops.fast import cardinality as fast  # noqa: E402
from labelops.fast.propagate import propagate  # noqa: E402
from labelops.proportions import cardinality as plain  # noqa: E402
from labelops.proportions.counts import Counts, hard_counts  # noqa: E402
from labelops.proportions.edges import edges_of_neighbours  # noqa: E402

CONTENDERS = ("compiled", "one core", "exact", "plain", "logarithms")
# What each may get through in some seconds: items × items of a bag.
WORK = {"plain": 3e7, "logarithms": 3e7}
NEIGHBOURS = 5

Outcome = dict[str, Any]


def make(n_items: int, bag: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, Counts]:
    """Return a calibrated model's log-odds and bags of one size with their true counts."""
    rng = np.random.default_rng([bag, seed])
    n_items = max(n_items // bag, 1) * bag
    q = rng.normal(-1, 1.5, n_items)
    positive = rng.random(n_items) < 1 / (1 + np.exp(-q))
    start = np.arange(0, n_items + 1, bag)
    return q, start, hard_counts(np.add.reduceat(positive.astype(np.int64), start[:-1]))


def in_logarithms(q: np.ndarray, start: np.ndarray, counts: Counts) -> np.ndarray:
    """Return beliefs of bags of one size, some of them at a time, from tables of logarithms."""
    bag, top = int(start[1]), int(counts.high.max())
    beliefs = np.empty((len(start) - 1, bag))
    step = max(1, (1 << 22) // (bag * (top + 1)))
    for first in range(0, len(beliefs), step):
        x = q.reshape(-1, bag)[first : first + step]
        k = counts.high[first : first + step]
        forward = np.full((bag + 1, len(x), top + 1), -np.inf)
        forward[0, :, 0] = 0
        for i in range(bag):
            forward[i + 1] = forward[i]
            np.logaddexp(
                forward[i, :, 1:], forward[i, :, :-1] + x[:, i, None], out=forward[i + 1, :, 1:]
            )
        backward = np.full((len(x), top + 1), -np.inf)
        backward[np.arange(len(x)), k] = 0
        for i in reversed(range(bag)):
            up = np.logaddexp.reduce(forward[i, :, :-1] + backward[:, 1:], axis=1) + x[:, i]
            down = np.logaddexp.reduce(forward[i] + backward, axis=1)
            beliefs[first : first + step, i] = np.exp(up - np.logaddexp(up, down))
            backward[:, :-1] = np.logaddexp(backward[:, :-1], backward[:, 1:] + x[:, i, None])
    return beliefs.ravel()


def contender(name: str) -> Callable[..., np.ndarray]:
    """Return what takes log-odds, starts and counts, and gives beliefs."""
    return {
        "compiled": lambda *bags: fast.marginals(*bags).beliefs,
        "one core": lambda *bags: fast.marginals(*bags, n_threads=1).beliefs,
        "exact": lambda *bags: fast.marginals(*bags, accuracy=0.0).beliefs,
        "plain": lambda *bags: plain.marginals(*bags).beliefs,
        "logarithms": in_logarithms,
    }[name]


def best_of(repeats: int, work: Callable[[], object]) -> float:
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_marginals(name: str, n_items: int, bag: int, repeats: int) -> Outcome:
    work = contender(name)
    work(*make(4 * bag, bag))
    before, bags = peak_mib(), make(n_items, bag)
    wall_s = best_of(repeats, lambda: work(*bags))
    sample = make(4 * bag, bag, seed=1)
    off = np.abs(work(*sample) - plain.marginals(*sample).beliefs).max()
    return {
        "items": len(bags[0]),
        "wall_s": wall_s,
        "off": float(off),
        "peak_mib": peak_mib(),
        "base_mib": before,
    }


def measure_sweeps(name: str, n_items: int, bag: int, repeats: int) -> Outcome:
    """Time of one sweep: the difference between thirteen and three, over ten."""
    del name

    def run(n: int, sweeps: int) -> Callable[[], object]:
        q, start, counts = make(n, bag)
        neighbours = np.random.default_rng(0).integers(0, len(q), (len(q), NEIGHBOURS))
        edges = edges_of_neighbours(neighbours, np.full(neighbours.shape, 0.3))
        settings: Any = {"tolerance": 1e-300, "max_sweeps": sweeps}
        return lambda: propagate(q, start, counts, edges, **settings)

    run(10 * bag, 2)()
    before = peak_mib()
    few = best_of(repeats, run(n_items, 3))
    many = best_of(repeats, run(n_items, 13))
    return {
        "items": n_items,
        "wall_s": (many - few) / 10,
        "whole_s": many,
        "peak_mib": peak_mib(),
        "base_mib": before,
    }


def measure_accuracy(name: str, n_items: int, bag: int, repeats: int) -> Outcome:
    """Return error and bound of large bags for several accuracies."""
    del name, repeats
    bags = make(n_items, bag)
    exact = fast.marginals(*bags, accuracy=0.0).beliefs
    rows = []
    for accuracy in (1e-3, 1e-6, 1e-9, 1e-12):
        began = time.perf_counter()
        posterior, bound = fast.bounded_marginals(*bags, accuracy=accuracy)
        wall_s = time.perf_counter() - began
        off = float(np.abs(posterior.beliefs - exact).max())
        total = np.add.reduceat(posterior.beliefs, bags[1][:-1])
        sums = float(np.abs(total - bags[2].low).max())
        rows.append([accuracy, off, float(bound.max()), sums, wall_s])
    return {"rows": rows}


def in_process(what: str, name: str, n_items: int, bag: int, repeats: int) -> Outcome:
    command = [sys.executable, __file__, "--one", what, "--name", name]
    command += ["--items", str(n_items), "--bags", str(bag), "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{what} {name} failed:\n{done.stderr}")
    outcome: Outcome = json.loads(done.stdout.strip().splitlines()[-1])
    return outcome


def report_marginals(args: argparse.Namespace, bags: list[int]) -> None:
    print(f"{'':11}{'bag':>8}{'items':>10}{'s':>9}{'M items/s':>11}{'× compiled':>12}", end="")
    print(f"{'off by':>10}{'peak MiB':>10}{'of it before':>13}")
    for bag in bags:
        rate = 0.0
        for name in CONTENDERS:
            n_items = int(min(args.items, WORK.get(name, np.inf) / bag))
            outcome = in_process("marginals", name, n_items, bag, args.repeats)
            own = outcome["items"] / outcome["wall_s"]
            rate = rate or own
            print(
                f"{name:11}{bag:8}{outcome['items']:10}{outcome['wall_s']:9.3f}{own / 1e6:11.3f}"
                f"{rate / own:12.1f}{outcome['off']:10.0e}{outcome['peak_mib']:10.0f}"
                f"{outcome['base_mib']:13.0f}"
            )


def report_sweeps(args: argparse.Namespace, bags: list[int]) -> None:
    print(f"\none sweep, {NEIGHBOURS} random neighbours an item, two threads")
    print(f"{'bag':>9}{'items':>10}{'s':>9}{'13 sweeps s':>13}{'peak MiB':>10}{'of it before':>13}")
    for bag in bags:
        times = []
        for n_items in (args.items // 10, args.items):
            outcome = in_process("sweeps", "", n_items, bag, args.repeats)
            times.append(outcome["wall_s"])
            print(
                f"{bag:9}{outcome['items']:10}{outcome['wall_s']:9.3f}{outcome['whole_s']:13.2f}"
                f"{outcome['peak_mib']:10.0f}{outcome['base_mib']:13.0f}"
            )
        print(f"          time grows as items to the power {np.log10(times[1] / times[0]):.2f}")


def report_accuracy(args: argparse.Namespace) -> None:
    print("\nlarge bags against nothing cut off; sums: of beliefs against the count")
    print(f"{'bag':>9}{'items':>10}{'asked':>9}{'off by':>10}{'bound':>10}{'sums':>10}{'s':>8}")
    for bag, n_items in ((512, 1 << 19), (2048, 1 << 18), (16_384, 1 << 17), (131_072, 1 << 17)):
        n_items = min(n_items, max(args.items, bag))
        for row in in_process("accuracy", "", n_items, bag, 1)["rows"]:
            print(
                f"{bag:9}{n_items:10}{row[0]:9.0e}{row[1]:10.1e}{row[2]:10.1e}{row[3]:10.1e}"
                f"{row[4]:8.3f}"
            )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--bags", default="8,64,512,2048")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--name", default="", help=argparse.SUPPRESS)
    args = parser.parse_args()
    bags = [int(bag) for bag in args.bags.split(",")]
    if args.one:
        outcome = globals()[f"measure_{args.one}"](args.name, args.items, bags[0], args.repeats)
        print(json.dumps(outcome))
        return
    report_marginals(args, bags)
    report_sweeps(args, bags[-2:])
    report_accuracy(args)


if __name__ == "__main__":
    main()
