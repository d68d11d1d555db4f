"""Flipped bits in finished and unfinished runs: what `verify` notices, and what comes out.

    python benchmarks/bitflips.py [--flips 400] [--harm flip|cut|lose] [--seed 0] [--work FOLDER]

A random bit of a random file is flipped in a copy of a run: a finished one, one stopped between
the neighbours' graph and its sidecar, one stopped while decisions were written, in turn. `verify`
has to notice it. Then the run is gone on with: either it is refused, and what `verify` says is
done, or it ends by itself; both must give, byte for byte, the files of a run that nobody touched.
"""

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.faults import damage  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flips", type=int, default=400)
    parser.add_argument("--harm", choices=sorted(damage.HARMS), default="flip")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="default: a new temporary folder")
    args = parser.parse_args()
    work = args.work or Path(tempfile.mkdtemp(prefix="labelops-bitflips-"))
    data = damage.make_data(work / "data")
    runs = {"finished": damage.make_run(data, work / "finished")}
    for name, stop in damage.STOPS.items():
        runs[name] = damage.make_run(data, work / name, stop)
    wanted = damage.digests(runs["finished"])
    rng = np.random.default_rng(args.seed)
    counts: Counter[str] = Counter()
    names = list(runs)
    for number in range(args.flips):
        run = runs[names[number % len(names)]]
        there = damage.files_of(run, lost=args.harm == "lose")
        hit = there[rng.integers(len(there))]
        copy = work / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        damage.HARMS[args.harm](copy / hit, rng)
        trial = damage.try_out(copy, wanted, data, work / "resumed")
        bad = {
            "unnoticed": not trial.noticed.damage,
            "wrong after resume": trial.after_resume is False,
            "wrong after remedy": trial.after_remedy is False,
        }
        counts.update(name for name, happened in bad.items() if happened)
        counts["refused"] += bool(trial.refused)
        if any(bad.values()):
            print(f"{number} {run.name}/{hit}: {bad} {trial.noticed.text()}", flush=True)
        if number % 50 == 49:
            print(f"{number + 1} done", flush=True)
    wrong = {
        name: counts[name] for name in ("unnoticed", "wrong after resume", "wrong after remedy")
    }
    print(
        f"{args.flips} times {args.harm}: {', '.join(f'{k} {v}' for k, v in wrong.items())}; "
        f"{counts['refused']} runs were refused and mended as said, the others went on"
    )
    if args.work is None:
        shutil.rmtree(work)
    raise SystemExit(any(wrong.values()))


if __name__ == "__main__":
    main()
