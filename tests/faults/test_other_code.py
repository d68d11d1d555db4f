"""Workers with other code: refused by both sides, named, and nothing of theirs is used."""

import json
import shutil
import time
from pathlib import Path

import distributed
import pytest

import pipelines.core.identity
import pipelines.core.work
import pipelines.run
from pipelines.core.graph import ThreadWorkers, open_workers
from pipelines.core.identity import PACKAGES, code, differences, source_hash
from pipelines.errors import OtherCodeError
from pipelines.recipe import parse_recipe
from tests.datasets import blobs, write_shards
from tests.faults.schedulers import ROOT, scheduler, worker

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

RECIPE = parse_recipe('stages = ["source"]\n', name="source only")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The project's code, for a worker of its own."""
    folder = tmp_path / "other"
    ignore = shutil.ignore_patterns("__pycache__")
    for package in ("labelops", "pipelines", "tests"):
        shutil.copytree(ROOT / package, folder / package, ignore=ignore)
    return folder


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def wait_for_workers(address: str, n: int) -> None:
    with distributed.Client(address, set_as_default=False) as client:
        client.wait_for_workers(n, timeout=60)


def test_worker_with_other_source__is_refused_before_anything_is_written(
    tmp_path: Path, copy: Path
) -> None:
    edit(copy / "labelops" / "hashing.py", "\n", "\n# mended here only\n")
    data, out = write_shards(tmp_path / "data", blobs(60), [20, 40]), tmp_path / "run"
    with (
        scheduler(tmp_path) as (address, _),
        worker(address),
        worker(address, path=copy),
    ):
        wait_for_workers(address, 2)
        with pytest.raises(OtherCodeError) as refused:
            pipelines.run.run(RECIPE, data=str(data), out=str(out), cluster=address)
    said = str(refused.value)
    assert "cluster: every worker must have the code of this run" in said
    assert f"source {source_hash(copy)} instead of {source_hash(ROOT)}" in said
    assert said.count("tcp://127.0.0.1:") == 1
    assert "numpy" not in said
    assert list(out.rglob("*.parquet")) == []


def test_worker_that_joins_late__is_refused_as_well(tmp_path: Path, copy: Path) -> None:
    edit(copy / "pipelines" / "core" / "work.py", "\n", "\n# mended here only\n")
    with (
        scheduler(tmp_path) as (address, _),
        worker(address),
        open_workers(cluster=address) as pool,
    ):
        assert list(pool.map(len, ["abc"])) == [3]
        with worker(address, path=copy), pytest.raises(OtherCodeError, match="source"):
            list(pool.map(time.sleep, [0.1] * 800))


@pytest.mark.parametrize("missing", ["pipelines/core/identity.py", "pipelines/core/cluster.py"])
def test_worker_too_old_to_say_what_it_has__is_refused(
    tmp_path: Path, copy: Path, missing: str
) -> None:
    (copy / missing).unlink()
    with (
        scheduler(tmp_path) as (address, _),
        worker(address, path=copy),
        pytest.raises(OtherCodeError, match=r"has (an earlier version|source \w+ instead)"),
        open_workers(cluster=address) as pool,
    ):
        list(pool.map(len, ["abc"]))


@pytest.mark.parametrize("found", ["labelops=0.0.9 python=3.9.1", None])
def test_worker__refuses_the_task_of_a_driver_with_other_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, found: str | None
) -> None:
    data = write_shards(tmp_path / "data", blobs(60), [20, 40])
    monkeypatch.setattr(pipelines.run, "code", lambda: found or "")
    with pytest.raises(OtherCodeError, match="its driver has") as refused:
        pipelines.run.run(RECIPE, data=str(data), out=str(tmp_path / "run"))
    assert ("an earlier version" if found is None else "python 3.9.1") in str(refused.value)


def commits(out: Path) -> list[Path]:
    return sorted(out.rglob("_commits/*/*.json"))


@pytest.mark.parametrize("what", ["other", "none"])
def test_record_of_other_code__is_made_again_on_resume(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str
) -> None:
    data = write_shards(tmp_path / "data", blobs(60), [20, 20, 20])
    out, straight = tmp_path / "run", tmp_path / "straight"
    pipelines.run.run(RECIPE, data=str(data), out=str(straight))
    done: list[int] = []
    real = pipelines.core.work.do_map

    def stopping(task: pipelines.core.work.Task) -> pipelines.core.work.Record:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(task.shard)
        return real(task)

    monkeypatch.setattr(pipelines.run, "do_map", stopping)
    monkeypatch.setattr(pipelines.core.graph, "ThreadWorkers", lambda: ThreadWorkers(1))
    with pytest.raises(KeyboardInterrupt):
        pipelines.run.run(RECIPE, data=str(data), out=str(out))
    first, second = commits(out)
    for path in (first, second):
        assert json.loads(path.read_text())["code"] == code()
    record = json.loads(first.read_text())
    record["code"] = "labelops=0.0.1"
    if what == "none":
        del record["code"]
    first.write_text(json.dumps(record))
    again: list[int] = []

    def counting(task: pipelines.core.work.Task) -> pipelines.core.work.Record:
        again.append(task.shard)
        return real(task)

    monkeypatch.setattr(pipelines.run, "do_map", counting)
    pipelines.run.run(RECIPE, data=str(data), out=str(out))
    assert again[:2] == [record["shard"], 2]
    for path in straight.rglob("*.parquet"):
        assert (out / path.relative_to(straight)).read_bytes() == path.read_bytes()
    # Finished stages do not depend on who made them.
    for path in (straight / "_manifests").glob("*.json"):
        assert (out / path.relative_to(straight)).read_bytes() == path.read_bytes()
        assert '"code"' not in path.read_text()


def test_shard_that_other_code_commits_first__stops_the_run_and_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, out = write_shards(tmp_path / "data", blobs(60), [20, 40]), tmp_path / "run"
    real = pipelines.core.work.do_map

    def foreign(task: pipelines.core.work.Task) -> pipelines.core.work.Record:
        return {**real(task), "code": "labelops=0.0.1"}

    monkeypatch.setattr(pipelines.run, "do_map", foreign)
    with pytest.raises(OtherCodeError, match=r"labelops 0\.0\.1 instead of .* end that worker"):
        pipelines.run.run(RECIPE, data=str(data), out=str(out))
    assert len(commits(out)) < 2


def test_code__names_all_that_decides_about_bytes() -> None:
    names = [part.partition("=")[0] for part in code().split()]
    assert names == ["labelops", "source", "python", *PACKAGES]
    assert all(part.partition("=")[2] not in ("", "none") for part in code().split())


def test_source_hash__sees_every_byte_and_every_name(tmp_path: Path) -> None:
    def tree(name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(text)
        return source_hash(tmp_path / name)

    one = tree("a", {"labelops/a.py": "x = 1\n", "pipelines/b.py": "y\n"})
    assert one == tree("b", {"labelops/a.py": "x = 1\n", "pipelines/b.py": "y\n", "flows/c.py": ""})
    assert one != tree("c", {"labelops/a.py": "x = 2\n", "pipelines/b.py": "y\n"})
    assert one != tree("d", {"labelops/c.py": "x = 1\n", "pipelines/b.py": "y\n"})
    assert one != tree("e", {"labelops/a.py": "x = 1\ny\n", "pipelines/b.py": ""})


def test_differences__are_in_words() -> None:
    assert differences("a=1 b=2", "a=1 b=3 c=4") == "b 3 instead of 2, c 4 instead of none"
    assert differences("a=1", "a=1") == ""
