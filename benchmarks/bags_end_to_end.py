"""Bags from shards to beliefs: time, memory, growth, and what part of it messages take.

    python benchmarks/bags_end_to_end.py [--items 100000,1000000] [--bags 512,2048] [--folder DIR]
        [--shards 16] [--epochs 60] [--fourier-features 300] [--strength 1]

Items have 16 features, two classes and lie in bags drawn at random over all shards. A run is the
recipe `proportions` with one round, in a process of its own: check, group, regression on totals,
five neighbours, messages with the strength that held-out totals choose, network, beliefs written.
Messages are the propagation itself; choosing a strength propagates four times more. The goal is
that messages take at most a quarter of the time of training the network on the same data. Where
held-out totals choose to hear nothing from neighbours there is next to nothing to pass on;
--strength makes neighbours heard, to measure it.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

D = 16
PARTS = {
    "regression": ("labelops.nn.bag_start", "fit_start"),
    "neighbours": ("labelops.nn.bag_rounds", "neighbour_edges"),
    "strength": ("labelops.nn.bag_rounds", "choose_class_strength"),
    "messages": ("labelops.nn.bag_rounds", "spread_beliefs"),
    "training": ("labelops.nn.bags", "fit"),
}
"""Where the time of a part is taken."""


def make(folder: Path, n_items: int, bag: int, n_shards: int) -> None:
    rng = np.random.default_rng([n_items, bag])
    n_items = n_items // bag * bag
    bag_of_item = rng.permutation(n_items) // bag
    true = rng.random(n_items) < rng.beta(2, 5, n_items // bag)[bag_of_item]
    axis = rng.normal(size=D) / np.sqrt(D)
    (folder / "data").mkdir(parents=True)
    for shard, rows in enumerate(np.array_split(np.arange(n_items), n_shards)):
        x = rng.normal(size=(len(rows), D)) + 2.0 * np.outer(true[rows] - 0.5, axis) * 1.5
        flat = pa.array(x.astype(np.float32).ravel())
        table = pa.table(
            {
                "item_id": rows,
                "bag_id": bag_of_item[rows],
                "features": pa.FixedSizeListArray.from_arrays(flat, D),
            }
        )
        pq.write_table(table, folder / "data" / f"part-{shard:05d}.parquet")
    k = np.bincount(bag_of_item, true).astype(np.int64)
    bags = {"bag_id": np.arange(len(k)), "n": np.full(len(k), bag), "positives": k}
    pq.write_table(pa.table(bags), folder / "bags.parquet")
    np.save(folder / "true.npy", true)


def timed(seconds: dict[str, float], name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*args: Any, **settings: Any) -> Any:
        began = time.perf_counter()
        result = work(*args, **settings)
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - began
        return result

    return wrapped


def force(strength: float) -> None:
    """Let neighbours be heard so much, after the choice has taken its time."""
    from labelops.nn import bag_rounds

    choose = bag_rounds.choose_class_strength

    def forced(*args: Any, **settings: Any) -> float:
        choose(*args, **settings)
        return strength

    bag_rounds.choose_class_strength = forced


def run_one(folder: Path, epochs: int, fourier: int, strength: float | None) -> None:
    """Run the recipe and print what it took as JSON; for a process of its own."""
    import importlib

    import pipelines.run
    from pipelines.recipe import parse_recipe

    seconds: dict[str, float] = {}
    for name, (module, function) in PARTS.items():
        home = importlib.import_module(module)
        setattr(home, function, timed(seconds, name, getattr(home, function)))
    if strength is not None:
        force(strength)
    recipe = parse_recipe(
        'stages = ["source", "proportions"]',
        name="benchmark",
        overrides=[
            f"proportions.bags={folder / 'bags.parquet'}",
            f"proportions.epochs={epochs}",
            f"proportions.fourier_features={fourier}",
        ],
    )
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    began = time.perf_counter()
    pipelines.run.run(recipe, data=str(folder / "data"), out=str(folder / "out"))
    wall_s = time.perf_counter() - began
    arrays = np.load(folder / "out" / "proportions" / "_results" / "learn.npz")
    table = pq.read_table(folder / "out" / "proportions", columns=["item_id", "topk_ids"])
    first = np.array([ids[0] for ids in table["topk_ids"].to_pylist()])
    true = np.load(folder / "true.npy")[table["item_id"].to_numpy()]
    print(
        json.dumps(
            {
                "wall_s": wall_s,
                "parts": seconds,
                "base_mib": base,
                "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                "epoch": int(arrays["epoch"]),
                "n_sweeps": int(arrays["n_sweeps"]),
                "strength": float(arrays["strength"]),
                "n_open": int(arrays["n_open"]),
                "accuracy": float((first == true).mean()),
                "share": float(true.mean()),
            }
        )
    )


def in_process(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", str(folder), "--epochs", str(args.epochs)]
    command += ["--fourier-features", str(args.fourier_features)]
    if args.strength is not None:
        command += ["--strength", str(args.strength)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    outcome: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return outcome


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--items", default="100000,1000000")
    parser.add_argument("--bags", default="512,2048")
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--fourier-features", type=int, default=300)
    parser.add_argument("--strength", type=float)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        run_one(args.one, args.epochs, args.fourier_features, args.strength)
        return
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
    print(f"{'bag':>6}{'items':>9}{'all s':>8}", end="")
    print("".join(f"{name:>12}" for name in PARTS), end="")
    print(f"{'messages/training':>19}{'peak MiB':>10}{'before':>8}{'right':>7}", flush=True)
    for bag in map(int, args.bags.split(",")):
        times: list[tuple[int, float]] = []
        for n_items in map(int, args.items.split(",")):
            with tempfile.TemporaryDirectory(dir=args.folder) as place:
                folder = Path(place)
                make(folder, n_items, bag, args.shards)
                outcome = in_process(folder, args)
            times.append((n_items, outcome["wall_s"]))
            parts = outcome["parts"]
            share = parts["messages"] / parts["training"]
            print(f"{bag:6}{n_items:9}{outcome['wall_s']:8.1f}", end="")
            print("".join(f"{parts.get(name, 0.0):12.1f}" for name in PARTS), end="")
            print(
                f"{share:19.3f}{outcome['peak_mib']:10.0f}{outcome['base_mib']:8.0f}"
                f"{outcome['accuracy']:7.3f}"
            )
            print(
                f"       strength {outcome['strength']}, {outcome['n_sweeps']} sweeps, "
                f"{outcome['n_open']} groups not settled, best of epochs {outcome['epoch']}; "
                f"always the commoner class: {max(outcome['share'], 1 - outcome['share']):.3f}",
                flush=True,
            )
        for (a, t), (b, u) in itertools.pairwise(times):
            grown = np.log(u / t) / np.log(b / a)
            print(f"       {a} to {b} items: time grows with power {grown:.2f}", flush=True)


if __name__ == "__main__":
    main()
