"""Runs to be damaged: a finished one and stopped ones, what may be done to them, and what is right.

Used by tests, and by `benchmarks/bitflips.py` for many more flips.
"""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

import pipelines.run
from pipelines.errors import LabelopsError
from pipelines.recipe import load_recipe
from pipelines.run import Event
from pipelines.verify import Verified, verify_run
from tests.datasets import blobs, even, write_shards

STOPS = {"graph": ("neighbours", "look_up"), "decisions": ("decide", "settle")}
"""Where the stopped runs were stopped: when the first shard of a step was done."""

SETTINGS = ["data.max_bad_share=0.05", "infer.folds=3"]
APART = {".lock", "timings.json", "report.html"}
"""Files that say when something happened, or who did it."""


class Stopped(BaseException):
    """Ends a run as a signal would."""


def make_data(folder: Path, *, n: int = 120, seed: int = 0) -> Path:
    """Write shards of features, with a row that has to be quarantined."""
    table = blobs(n, seed=seed)
    features = np.stack(table["features"].to_pylist())
    features[17] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel(), pa.float32()), 6)
    return write_shards(folder, table.set_column(1, "features", column), even(n, 3))


def make_run(data: Path, out: Path, stop: tuple[str, str] | None = None) -> Path:
    """Audit the data, or stop in a step when its first shard is done."""

    def listen(event: Event) -> None:
        if event.kind == "shard" and (event.stage, event.step) == stop:
            raise Stopped

    recipe, stopped = load_recipe("audit", SETTINGS), False
    try:
        pipelines.run.run(recipe, data=str(data), out=str(out), listen=listen)
    except Stopped:
        stopped = True
    assert stopped == (stop is not None)
    return out


def digests(run: Path) -> dict[str, str]:
    """Return the hash of every file that must not depend on when or how a run was made."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in APART
    }


def files_of(run: Path, *, lost: bool = False) -> list[Path]:
    """Return the files of a run that anything depends on; if one will be lost, save three kinds.

    Without `run.json` a folder is no run any more, which is said plainly. An unfinished run may
    have no times yet. A result without its note is what a process leaves that was killed between
    the two; whoever goes on writes it.
    """
    found = (path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file())
    apart = {".lock", *(["run.json"] if lost else [])}
    if lost and not (run / "report.html").exists():
        apart.add("timings.json")
    return [
        path
        for path in found
        if path.name not in apart
        and not path.name.startswith(".tmp-")
        and not (lost and path.parent.name == "_done")
    ]


def flip(path: Path, rng: np.random.Generator) -> None:
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def cut(path: Path, rng: np.random.Generator) -> None:
    """Leave only the beginning of a file, or nothing."""
    content = path.read_bytes()
    path.write_bytes(content[: rng.integers(len(content))])


def lose(path: Path, rng: np.random.Generator) -> None:
    """Remove a file."""
    path.unlink()


HARMS: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "flip": flip,
    "cut": cut,
    "lose": lose,
}


class Outcome(NamedTuple):
    """What became of a damaged run.

    Attributes
    ----------
    noticed : what `verify` said.
    refused : what `resume` said, or "" if it went on.
    after_resume, after_remedy : whether the products are the right ones then; None if it was
        refused, or nothing was to be remedied.
    """

    noticed: Verified
    refused: str
    after_resume: bool | None
    after_remedy: bool | None


def remedied(run: Path, found: Verified, data: Path) -> None:
    """Do what `verify` says."""
    for damage in found.damage:
        target = run / damage.delete
        if damage.delete and target.is_dir():
            shutil.rmtree(target)
        elif damage.delete:
            target.unlink(missing_ok=True)
    commands = {damage.command for damage in found.damage}
    if "run" in commands:
        again = load_recipe(str(run / "recipe.toml"))
        pipelines.run.run(again, data=str(data), out=str(run))
    elif "resume" in commands:
        pipelines.run.resume(str(run))
    else:
        pipelines.run.report_again(str(run))


def try_out(run: Path, wanted: dict[str, str], data: Path, work: Path) -> Outcome:
    """Verify a damaged run, go on with it, and if that is refused do what `verify` says."""
    noticed = verify_run(str(run))
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(run, work)
    refused, after_resume, after_remedy = "", None, None
    try:
        pipelines.run.resume(str(work))
        after_resume = digests(work) == wanted
    except LabelopsError as err:
        refused = str(err)
        remedied(run, noticed, data)
        after_remedy = digests(run) == wanted
    return Outcome(noticed, refused, after_resume, after_remedy)
