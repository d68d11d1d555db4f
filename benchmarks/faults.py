"""SIGKILL at random moments of a run, the same command again, and what is there in the end.

    python benchmarks/faults.py [--kills 50] [--data FOLDER] [--work FOLDER] [--set stage.key=value]

Two uninterrupted runs come first: they show how long a run takes, and which files hold times and
so differ from run to run anyway. Then runs are started through the command line, each in a folder
of its own; the whole process group is killed at a moment drawn uniformly from the time between the
run's first file and its end, and the same command is given again. Every other resumed run is
killed, too. When a run ends by itself, each of its files is compared, byte for byte, with the
uninterrupted ones.
"""

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
UNLIKE = {".lock", "report.html", "timings.json"}
"""The only files that may differ from run to run: they hold process numbers and times."""
STAGES = ("source", "infer", "confident", "neighbours", "decide", "dataset")
"""Of the recipe `audit`."""


def make_data(folder: Path, *, items: int, shards: int) -> Path:
    """Write shards of Gaussian features with partly wrong labels, copies and ties among them."""
    sys.path.insert(0, str(ROOT))
    from tests.datasets import blobs, even, write_shards

    return write_shards(folder, blobs(items, n_classes=6), even(items, shards))


def command(data: Path, settings: list[str]) -> list[str]:
    """Return the command line of a run; the folder is relative, so that no path differs."""
    options = [part for setting in settings for part in ("--set", setting)]
    base = [sys.executable, "-m", "flows.cli", "run", "audit", "--no-prefect"]
    return [*base, "--data", str(data.resolve()), "--out", "run", *options]


def launch(words: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """Start a run in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            words,
            cwd=folder,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def finished(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait for a run; a failure shows its last lines."""
    if process.wait(timeout=1800) != 0:
        tail = (folder / "log").read_text().splitlines()[-15:]
        raise SystemExit(f"a run failed with {process.returncode}:\n" + "\n".join(tail))


def digests(run: Path) -> dict[str, str]:
    """Return every file of a run with its hash."""
    files = sorted(path for path in run.rglob("*") if path.is_file())
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }


class Moment(NamedTuple):
    """Where a kill hit.

    Attributes
    ----------
    after_s : seconds since the run's first file.
    stage : the first stage that was not finished.
    files : number of files then in the run's folder.
    """

    after_s: float
    stage: str
    files: int


def where(run: Path) -> tuple[str, int]:
    """Return the stage that a killed run was in, and how many files it had written."""
    files = [path for path in run.rglob("*") if path.is_file()]
    if not (run / "run.json").exists():
        return "start", len(files)
    for name in STAGES:
        if not (run / "_manifests" / f"{name}.json").exists():
            return name, len(files)
    return "report", len(files)


def appeared(process: subprocess.Popen[bytes], run: Path) -> None:
    """Wait until a run has made its folder, or has ended."""
    while process.poll() is None and not run.exists():
        time.sleep(0.002)


def kill_at(process: subprocess.Popen[bytes], moment_s: float, run: Path) -> Moment | None:
    """Kill a run's process group so long after its first sign; None if it ended before."""
    appeared(process, run)
    try:
        process.wait(timeout=moment_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return Moment(moment_s, *where(run))
    return None


def differences(digests: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Return names of files that are missing, superfluous or other than they should be."""
    names = sorted(digests.keys() | wanted.keys())
    return [name for name in names if digests.get(name) != wanted.get(name)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--data", type=Path, help="shards; default: made, features of 6 classes")
    parser.add_argument("--items", type=int, default=4000, help="of the data that is made")
    parser.add_argument("--shards", type=int, default=12)
    parser.add_argument("--work", type=Path, help="default: a new temporary folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], dest="settings")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    work = args.work or Path(tempfile.mkdtemp(prefix="labelops-faults-"))
    work.mkdir(parents=True, exist_ok=True)
    data = args.data or make_data(work / "data", items=args.items, shards=args.shards)
    words = command(data, args.settings)

    spans: list[float] = []
    working: list[float] = []
    runs: list[dict[str, str]] = []
    for name in ("first", "second"):
        folder = work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        began = time.monotonic()
        process = launch(words, folder)
        appeared(process, folder / "run")
        ready = time.monotonic()
        finished(process, folder)
        spans.append(time.monotonic() - began)
        working.append(time.monotonic() - ready)
        runs.append(digests(folder / "run"))
    wanted = runs[0]
    anyway = set(differences(runs[1], wanted))
    print(f"uninterrupted: {spans[0]:.1f} s and {spans[1]:.1f} s, {len(wanted)} files; ", end="")
    print(f"the two runs differ in {sorted(anyway) or 'nothing'}", flush=True)
    if not anyway <= UNLIKE:
        raise SystemExit(f"only {sorted(UNLIKE)} may differ between runs")

    moments: list[Moment] = []
    compared = bad = ended = 0
    while len(moments) < args.kills:
        folder = work / f"killed-{compared:03d}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for attempt in range(3):
            process = launch(words, folder)
            if attempt and (attempt == 2 or rng.random() < 0.5):
                break
            moment = kill_at(process, float(rng.uniform(0, min(working))), folder / "run")
            if moment is None:
                ended += 1
                break
            moments.append(moment)
        finished(process, folder)
        actual = digests(folder / "run")
        wrong = [name for name in differences(actual, wanted) if name not in UNLIKE]
        missing = [name for name in UNLIKE if name not in actual and name in wanted]
        compared += 1
        bad += bool(wrong or missing)
        if wrong or missing:
            print(f"{folder.name}: differs in {wrong + missing}", flush=True)
        else:
            shutil.rmtree(folder)
        if compared % 10 == 0:
            print(f"{len(moments)} kills, {compared} runs compared, {bad} differ", flush=True)
    hits = Counter(moment.stage for moment in moments)
    places = ", ".join(f"{name} {hits[name]}" for name in ("start", *STAGES, "report"))
    print(f"kills by where they hit: {places}")
    print(f"runs that ended before their moment came: {ended}")
    print(
        f"{len(moments)} kills in {compared} runs; {compared - bad} runs equal the uninterrupted "
        f"one in all {len(wanted) - len(anyway)} files without times or process numbers, "
        f"{bad} do not"
    )
    if args.work is None and not bad:
        shutil.rmtree(work)
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()
