"""Written once, true for every stage: stopped at a commit it goes on; a second run does nothing."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.decisions import DECISIONS
from pipelines.core.commit import Record, ShardWriter
from pipelines.core.state import Run, load_run
from pipelines.core.work import Task, do_fit, do_map, do_reduce
from pipelines.decisions.counts import counts_of, deciding_stage
from pipelines.recipe import Recipe
from tests.contracts.data_sets import DATA_SETS, PAIRS, cuts

POINTS = ("opened", "written", "flushed", "hashed", "recorded", "renaming", "renamed")
CLOCKS = {"timings.json", "report.html", ".lock"}
SHARD = 2


class Killed(BaseException):
    """The process ends here."""


def run_files(run: Run, folder: str) -> list[Path]:
    return sorted((Path(run.uri) / folder).glob("*.parquet"))


def files_of(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in CLOCKS
    }


class Whole:
    """Uninterrupted runs by data set, made when first asked for: recipe, data, files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[str, tuple[Recipe, Path, Path]] = {}

    def get(self, name: str) -> tuple[Recipe, Path, Path]:
        if name not in self.held:
            data, folder = DATA_SETS[name], self.folder / name
            run = data.run(folder, cuts(len(data.items()))["seven"])
            self.held[name] = run.recipe, folder / "data", Path(run.uri)
        return self.held[name]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("ends"))


def _killed() -> Iterator[tuple[str, int]]:
    """Yield cases in which every stage is killed at every point, and on all data at two of them."""
    seen: set[str] = set()
    for name, data in DATA_SETS.items():
        is_new = not {stage.split("@")[0] for stage in data.active} <= seen
        seen |= {stage.split("@")[0] for stage in data.active}
        yield from ((name, first) for first in range(len(POINTS) if is_new else 2))


@pytest.mark.parametrize(("name", "first"), list(_killed()))
def test_killed_in_every_stage__goes_on_to_the_same_bytes(
    whole: Whole, name: str, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every stage is killed at one point of the commit; over all cases, at every one of them."""
    recipe, data, uninterrupted = whole.get(name)
    active, out = DATA_SETS[name].active, tmp_path / "out"
    # As a killed process leaves them: files are closed, and stay.
    leaving, discard = SimpleNamespace(remove=lambda name: None), ShardWriter.discard
    monkeypatch.setattr(ShardWriter, "discard", lambda self, store: discard(self, leaving))
    for at, stage in enumerate(active):
        point = POINTS[(at + first) % len(POINTS)]
        monkeypatch.setattr(pipelines.run, "do_map", partial(killed_at, stage, point, do_map))
        with pytest.raises(Killed):
            pipelines.run.run(recipe, data=str(data), out=str(out))
    monkeypatch.setattr(pipelines.run, "do_map", do_map)
    pipelines.run.run(recipe, data=str(data), out=str(out))
    assert files_of(out) == files_of(uninterrupted)


def killed_at(stage: str, point: str, real: Callable[..., Record], task: Task) -> Record:
    def die(reached: str) -> None:
        if reached == point:
            raise Killed

    here = task.stage == stage and task.shard == SHARD
    return real(task, crash=die) if here else real(task)


@pytest.mark.parametrize("name", DATA_SETS)
def test_second_run__does_nothing(whole: Whole, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, data, out = whole.get(name)
    before = files_of(out)
    for work in ("do_map", "do_reduce", "do_fit"):
        monkeypatch.setattr(pipelines.run, work, lambda task, work=work: pytest.fail(work))
    pipelines.run.run(recipe, data=str(data), out=str(out))
    assert files_of(out) == before


DECIDING = [
    name for name, data in DATA_SETS.items() if any(s.startswith("decide") for s in data.active)
]


@pytest.mark.parametrize("name", DECIDING)
def test_items_that_a_run_says_it_kept_and_changed__are_those_in_its_files(
    whole: Whole, name: str
) -> None:
    run = load_run(str(whole.get(name)[2]))
    counts, stage = counts_of(run), deciding_stage(run)
    decided = pa.concat_tables(map(pq.read_table, run_files(run, str(stage)))).to_pylist()
    assert decided
    for decision in DECISIONS.tolist():
        assert counts[decision] == sum(row["decision"] == decision for row in decided)
    less = [
        r
        for r in decided
        if r["decision"] == "keep" and r["rule"] != "no-issue" and r["weight"] < 1
    ]
    assert counts["softened"] == len(less)
    written = [len(pq.read_table(file)) for file in run_files(run, "dataset")]
    assert counts.get("dataset", 0) == sum(written)


@pytest.mark.parametrize(("stage", "name"), PAIRS)
def test_stage_whose_folder_was_removed__is_made_again_and_only_what_follows(
    whole: Whole, stage: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, data, finished = whole.get(name)
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    shutil.rmtree(out / stage)
    done: set[str] = set()

    def note(real: Callable[..., object], task: Task | list[Task]) -> object:
        done.update({one.stage for one in (task if isinstance(task, list) else [task])})
        return real(task)

    for work, real in (("do_map", do_map), ("do_reduce", do_reduce), ("do_fit", do_fit)):
        monkeypatch.setattr(pipelines.run, work, partial(note, real))
    pipelines.run.run(recipe, data=str(data), out=str(out))
    assert files_of(out) == files_of(finished)
    assert stage in done
    assert done <= set(DATA_SETS[name].active[DATA_SETS[name].active.index(stage) :])
