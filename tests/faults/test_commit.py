"""Whoever dies when: a visible shard is whole, a resumed run equals an uninterrupted one."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.registry
import pipelines.run
from pipelines.core.commit import commit_shard, load_record, record_name
from pipelines.core.lock import locked
from pipelines.core.reader import frames
from pipelines.core.results import check_result, save_result
from pipelines.core.stage import Map, Output
from pipelines.core.state import load_run
from pipelines.errors import CorruptShardError, LockedError, RunError
from pipelines.recipe import parse_recipe
from pipelines.storage.frame import Frame
from pipelines.storage.store import LocalStore
from pipelines.verify import verify_run
from tests.datasets import blobs, even, write_shards
from tests.toy import RECIPE

CLOCKS = {"timings.json", ".lock"}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("data") / "src", blobs(), [100, 0, 77, 1, 62])


def files_of(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name not in CLOCKS
    }


def run_toy(data: Path, out: Path) -> None:
    pipelines.run.run(parse_recipe(RECIPE, name="toy"), data=str(data), out=str(out))


def crash(data: Path, out: Path, point: str, shard: int, step: int) -> int:
    command = [sys.executable, "-m", "tests.faults.crashing_run"]
    done = subprocess.run(
        [*command, str(data), str(out), point, str(shard), str(step)], check=False, timeout=120
    )
    return done.returncode


@pytest.mark.parametrize("step", [0, 3])
@pytest.mark.parametrize(
    "point", ["opened", "written", "flushed", "hashed", "recorded", "renaming", "renamed"]
)
@pytest.mark.usefixtures("toy")
def test_killed_at_a_point_of_the_commit__resumed_equals_uninterrupted(
    data: Path, tmp_path: Path, point: str, step: int
) -> None:
    run_toy(data, tmp_path / "whole")
    assert crash(data, tmp_path / "killed", point, shard=2, step=step) == -signal.SIGKILL
    run_toy(data, tmp_path / "killed")
    assert files_of(tmp_path / "killed") == files_of(tmp_path / "whole")


@pytest.mark.parametrize("harm", ["torn", "emptied", "gone", "flipped"])
@pytest.mark.usefixtures("toy")
def test_file_of_an_unfinished_stage_that_power_tore__is_made_again(
    data: Path, tmp_path: Path, harm: str
) -> None:
    run_toy(data, tmp_path / "whole")
    assert crash(data, tmp_path / "out", "renamed", shard=2, step=3) == -signal.SIGKILL
    path = tmp_path / "out" / "toy" / "part-00002.parquet"
    good = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        kinds = {"torn": good[:-7], "emptied": b"", "flipped": good[:9] + b"?" + good[10:]}
        path.write_bytes(kinds[harm])
    run_toy(data, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


@pytest.mark.usefixtures("toy")
def test_files_and_names__are_on_the_disk_before_the_manifest_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, synced = tmp_path / "out", set[str]()
    real_sync, real_write = LocalStore.sync, LocalStore.write_atomic

    def sync(store: LocalStore, names: list[str]) -> None:
        assert all((out / name).is_file() for name in names)
        synced.update(names)
        real_sync(store, names)

    def write(store: LocalStore, name: str, content: bytes) -> None:
        if name == "_manifests/toy.json":
            assert {f"toy/part-{s:05d}.parquet" for s in range(5)} <= synced
            synced.add(name)
        real_write(store, name, content)

    monkeypatch.setattr(LocalStore, "sync", sync)
    monkeypatch.setattr(LocalStore, "write_atomic", write)
    run_toy(data, out)
    assert "_manifests/toy.json" in synced


@pytest.mark.usefixtures("toy")
def test_resumed_run__does_only_what_is_missing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert crash(data, tmp_path / "out", "recorded", shard=4, step=3) == -signal.SIGKILL
    committed = set(os.listdir(tmp_path / "out" / "toy" / "_commits" / "place"))
    done: list[tuple[str, int, int]] = []
    real = pipelines.run.do_map
    monkeypatch.setattr(
        pipelines.run,
        "do_map",
        lambda task: (done.append((task.stage, task.position, task.shard)), real(task))[1],
    )
    run_toy(data, tmp_path / "out")
    missing = {s for s in range(5) if f"{s:05d}.json" not in committed}
    assert 4 not in missing
    assert sorted(done) == [("toy", 3, s) for s in sorted(missing)]


@pytest.mark.usefixtures("toy")
def test_finished_run__given_again_executes_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_toy(data, tmp_path / "out")
    before = files_of(tmp_path / "out")

    def never(task: object) -> None:
        raise AssertionError(f"executed again: {task}")

    for name in ("do_map", "do_reduce", "do_fit"):
        monkeypatch.setattr(pipelines.run, name, never)
    run_toy(data, tmp_path / "out")
    assert files_of(tmp_path / "out") == before


@pytest.mark.usefixtures("toy")
def test_finished_stage__holds_exactly_its_shards(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "out")
    parts = [f"part-{s:05d}.parquet" for s in range(5)]
    assert sorted(os.listdir(tmp_path / "out" / "toy")) == ["_results", *parts]
    assert sorted(os.listdir(tmp_path / "out" / "toy_extra")) == parts


@pytest.mark.usefixtures("toy")
def test_deleting_a_stage_folder__undoes_the_stage(data: Path, tmp_path: Path) -> None:
    import shutil

    run_toy(data, tmp_path / "out")
    before = files_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "toy")
    run_toy(data, tmp_path / "out")
    assert files_of(tmp_path / "out") == before


def test_six_racing_workers__one_commit_wins_and_its_file_is_whole(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    step = Map(
        name="race",
        reads=[],
        writes={"race": Output(schema=pa.schema([("x", pa.float64())]))},
        apply=lambda frame, ctx: {},
    )
    for shard in range(20):
        barrier = threading.Barrier(6)

        def work(worker: int, shard: int = shard, barrier: threading.Barrier = barrier) -> None:
            frame = Frame(index=shard, label="s", n=9, files={}, columns={}, reads=[])
            # Not deterministic on purpose: every worker would write another file.
            table = pa.table({"x": np.random.default_rng(worker).normal(size=9)})
            barrier.wait()
            commit_shard(
                store,
                stage="race",
                step=step,
                frame=frame,
                tables={"race": table},
                item_ids=lambda: pa.nulls(9),
                source_rows=lambda: np.arange(9),
            )

        threads = [threading.Thread(target=work, args=(w,)) for w in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        record = load_record(store, record_name("race", "race", shard))
        written = (tmp_path / "race" / f"part-{shard:05d}.parquet").read_bytes()
        assert hashlib.sha256(written).hexdigest() == record["files"][0]["sha256"]
    assert [n for n in os.listdir(tmp_path / "race") if n.startswith(".tmp")] == []


def test_six_racing_results__one_wins_and_all_read_that_one(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    for race in range(20):
        barrier, said = threading.Barrier(6), set[str]()

        def work(
            me: int, race: int = race, at: threading.Barrier = barrier, said: set[str] = said
        ) -> None:
            at.wait()
            said.add(save_result(store, "race", f"r{race}", {"x": np.array([me])}))

        threads = [threading.Thread(target=work, args=(me,)) for me in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert said == {check_result(store, "race", f"r{race}").digest}


@pytest.mark.usefixtures("toy")
def test_runs_that_race_without_a_lock__leave_what_one_run_leaves(
    data: Path, tmp_path: Path
) -> None:
    run_toy(data, tmp_path / "whole")
    out = tmp_path / "raced"
    command = [sys.executable, "-m", "tests.faults.racing_run", str(data), str(out)]
    racers = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]
    # Each may find that another cleaned up what it was reading or writing, and stop, on a slow day
    # all of them; none may hang, be killed, or harm what the next run finds.
    assert {racer.wait(timeout=120) for racer in racers} <= {0, 1}
    run_toy(data, out)
    assert files_of(out) == files_of(tmp_path / "whole")
    assert verify_run(str(out)).damage == ()


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bit__is_noticed_and_names_the_shard_or_changes_nothing(
    data: Path, tmp_path: Path, seed: int
) -> None:
    run_toy(data, tmp_path / "out")
    path = tmp_path / "out" / "toy" / "part-00002.parquet"
    good = path.read_bytes()
    reads = ["item_id", "position", "share"]
    expected = [frame.table(reads) for frame in frames(load_run(str(tmp_path / "out")), reads)]
    rng = np.random.default_rng(seed)
    caught = 0
    for _ in range(60):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        try:
            found = [f.table(reads) for f in frames(load_run(str(tmp_path / "out")), reads)]
        except CorruptShardError as err:
            caught += "toy/part-00002.parquet" in str(err)
        else:
            assert all(a.equals(b) for a, b in zip(expected, found, strict=True))
    assert caught > 40


@pytest.mark.usefixtures("toy")
def test_stray_file_in_a_stage_folder__is_not_read(data: Path, tmp_path: Path) -> None:
    run_toy(data, tmp_path / "out")
    folder = tmp_path / "out" / "toy"
    (folder / "part-00009.parquet").write_bytes((folder / "part-00000.parquet").read_bytes())
    run = load_run(str(tmp_path / "out"))
    n = sum(frame["position"].__len__() for frame in frames(run, ["position"]))
    manifest = json.loads((tmp_path / "out" / "_manifests" / "toy.json").read_text())
    assert n == sum(shard["rows"] for shard in manifest["maps"][-1]["shards"]) < 240


def test_second_run_in_the_folder__is_refused_at_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    with locked(store), pytest.raises(LockedError, match="is in use by") as refused, locked(store):
        pass
    assert str(os.getpid()) in str(refused.value)
    with locked(store):
        pass


def test_holder_killed__lock_is_free(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pipelines.core.lock import locked\n"
        "from pipelines.storage.store import LocalStore\n"
        "with locked(LocalStore(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    with locked(LocalStore(tmp_path)):
        pass


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize("sizes", [even(240, 1), even(240, 7)])
def test_toy__is_the_same_however_the_data_is_cut(
    data: Path, tmp_path: Path, sizes: list[int]
) -> None:
    run_toy(data, tmp_path / "a")
    run_toy(write_shards(tmp_path / "src", blobs(), sizes), tmp_path / "b")
    reads = ["item_id", "position", "share"]
    tables = [
        pa.concat_tables(f.table(reads) for f in frames(load_run(str(out)), reads))
        for out in (tmp_path / "a", tmp_path / "b")
    ]
    assert tables[0].combine_chunks().equals(tables[1].combine_chunks())
    results = [
        (out / "toy" / "_results" / "fit.npz").read_bytes()
        for out in (tmp_path / "a", tmp_path / "b")
    ]
    assert results[0] == results[1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; needs the right to mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small tmpfs here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.usefixtures("toy")
def test_disk_full__clear_error_nothing_visible_and_resume_after_making_room(
    small_disk: Path, tmp_path: Path
) -> None:
    data = write_shards(tmp_path / "src", blobs(20_000), even(20_000, 8))
    ballast = small_disk / ".tmp-ballast"
    ballast.write_bytes(b"x" * 600_000)
    with pytest.raises(RunError) as refused:
        run_toy(data, small_disk / "out")
    assert "the disk is full" in str(refused.value)
    assert "make room and give the same command again" in str(refused.value)
    for path in small_disk.rglob("part-*.parquet"):
        pq.read_table(path)  # whatever is visible is whole
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    run_toy(data, small_disk / "out")
    run_toy(data, tmp_path / "out")
    assert files_of(small_disk / "out") == files_of(tmp_path / "out")


@pytest.mark.usefixtures("toy")
def test_record_emptied_by_a_loss_of_power__only_that_shard_is_done_again(
    data: Path, tmp_path: Path
) -> None:
    run_toy(data, tmp_path / "whole")
    assert crash(data, tmp_path / "out", "renamed", shard=4, step=3) == -signal.SIGKILL
    (tmp_path / "out" / "toy" / "_commits" / "place" / "00004.json").write_bytes(b"")
    run_toy(data, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")
