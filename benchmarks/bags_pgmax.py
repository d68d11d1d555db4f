"""Bags: exact messages of soft counts against PGMax on the dense pairwise expansion.

    python benchmarks/bags_pgmax.py --python PATH [--bags 8,64,512] [--pairs 300000] [--repeats 3]

PATH is the Python of an environment that has `pgmax` and a JAX it works with (pgmax 0.6.1 with jax
0.4.30, on the CPU); it is not that of this project, and nothing of this project is imported there.
A bag's count is a potential −λ (Σ y − k)². PGMax gets it as published code writes it: −2 λ y_i y_j
for every pair of items, 100 sweeps with damping 0.5. It has no factor for counts of its own that is
not as large. We get it as one factor. No neighbours: then the posterior of a bag is known exactly,
and both can be held against it. As many bags as have about so many pairs; both on one thread. Time
of PGMax is that of the sweeps, after compilation; building the graph is beside it.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SWEEPS, DAMPING = 100, 0.5
STRENGTHS = (1.0, 10.0)
"""λ: where the expansion still settles, and the published one."""


def run_pgmax(path: Path, repeats: int) -> dict[str, Any]:
    """Propagate over pairs; for the other environment."""
    from pgmax import fgraph, fgroup, infer, vgroup  # type: ignore[import-not-found]

    data = np.load(path)
    q, bag, k, strength = data["q"], int(data["bag"]), data["k"], float(data["strength"])
    began = time.perf_counter()
    items = vgroup.NDVarArray(num_states=2, shape=(len(q),))
    graph = fgraph.FactorGraph(variable_groups=[items])
    first, second = np.triu_indices(bag, 1)
    pairs = [
        [items[int(b + i)], items[int(b + j)]]
        for b in range(0, len(q), bag)
        for i, j in zip(first, second, strict=True)
    ]
    both = np.zeros((2, 2))
    both[1, 1] = -2 * strength
    graph.add_factors(
        fgroup.PairwiseFactorGroup(variables_for_factors=pairs, log_potential_matrix=both)
    )
    inferer = infer.build_inferer(graph.bp_state, backend="bp")
    evidence = np.zeros((len(q), 2))
    evidence[:, 1] = q - strength * (1 - 2 * np.repeat(k, bag))
    build_s = time.perf_counter() - began
    times = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        state = inferer.init(evidence_updates={items: evidence})
        state = inferer.run(state, num_iters=SWEEPS, damping=DAMPING, temperature=1.0)
        beliefs = np.asarray(infer.get_marginals(inferer.get_beliefs(state))[items])[:, 1]
        times.append(time.perf_counter() - began)
    np.save(path.with_suffix(".npy"), beliefs)
    return {"build_s": build_s, "wall_s": min(times[1:]), "first_s": times[0]}


def measure(python: str, bag: int, n_pairs: int, strength: float, repeats: int) -> None:
    """Print how both do on the same bags."""
    sys.path.insert(0, str(ROOT))
    from labelops.fast import cardinality as fast
    from labelops.proportions import cardinality as plain
    from labelops.proportions.counts import soft_counts

    n_bags = max(1, n_pairs // (bag * (bag - 1) // 2))
    rng = np.random.default_rng(bag)
    q = rng.normal(-1, 1.5, n_bags * bag)
    start = np.arange(0, len(q) + 1, bag)
    is_positive = rng.random(len(q)) < 1 / (1 + np.exp(-q))
    k = np.add.reduceat(is_positive.astype(np.int64), start[:-1])
    counts = soft_counts(k, strength=strength)
    exact = plain.marginals(q, start, counts).beliefs
    fast.marginals(q[:bag], start[:2], soft_counts(k[:1], strength=strength), n_threads=1)
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        ours = fast.marginals(q, start, counts, n_threads=1).beliefs
        times.append(time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bags.npz"
        np.savez(path, q=q, bag=bag, k=k, strength=strength)
        command = [python, __file__, "--inner", str(path), "--repeats", str(repeats)]
        one = {
            "OMP_NUM_THREADS": "1",
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
        }
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **one}
        )
        if done.returncode != 0:
            raise SystemExit(done.stderr)
        theirs = json.loads(done.stdout.strip().splitlines()[-1])
        dense = np.load(path.with_suffix(".npy"))
    off = np.abs(dense - exact)
    print(
        f"{bag:6}{len(q):8}{strength:6g}{min(times):11.5f}{theirs['wall_s']:10.3f}"
        f"{theirs['build_s']:10.2f}{theirs['wall_s'] / min(times):10.0f}"
        f"{np.abs(ours - exact).max():11.0e}{off.max():9.3f}{off.mean():9.3f}",
        flush=True,
    )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--python", help="of an environment with pgmax")
    parser.add_argument("--bags", default="8,64,512")
    parser.add_argument("--pairs", type=int, default=300_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--inner", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inner:
        print(json.dumps(run_pgmax(args.inner, args.repeats)))
        return
    if not args.python:
        parser.error("--python is needed: pgmax is no dependency of this project")
    print(f"{'bag':>6}{'items':>8}{'λ':>6}{'ours s':>11}{'PGMax s':>10}{'+ build':>10}", end="")
    print(f"{'ratio':>10}{'ours off':>11}{'PGMax off: most':>9}{'mean':>6}")
    for bag in map(int, args.bags.split(",")):
        for strength in STRENGTHS:
            measure(args.python, bag, args.pairs, strength, args.repeats)


if __name__ == "__main__":
    main()
