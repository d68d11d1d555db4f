"""Leases on object stores: one holder at a time, and whoever lost it writes nothing more."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

import pipelines.core.lock
import pipelines.registry
import pipelines.run
from pipelines.core.commit import Record
from pipelines.core.lock import (
    CLOCK_STEP_S,
    Lease,
    act_under,
    claim,
    epoch_name,
    last_epoch,
    locked,
)
from pipelines.core.work import Task
from pipelines.errors import LinkError, LockedError, StorageError
from pipelines.recipe import parse_recipe
from pipelines.storage.store import GUARDS, LocalStore, ObjectStore
from tests.datasets import blobs, even, write_shards
from tests.pipelines.conftest import Requests
from tests.toy import RECIPE

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

READS = ("GET", "HEAD", "LIST")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["s3", "memory"])
def place(request: pytest.FixtureRequest, bucket: str) -> Iterator[str]:
    """An empty folder on each kind of object store."""
    name = request.node.name.replace("[", "-").replace("]", "")
    yield f"{bucket}/{name}" if request.param == "s3" else f"memory://{name}"
    fsspec.filesystem("memory").store.clear()


def race(uri: str, takers: int) -> list[int]:
    """Let some take the folder at the same moment; returns the epochs of those who hold it."""
    barrier, held, after = threading.Barrier(takers), list[int](), threading.Event()
    tried = threading.Semaphore(0)

    def take() -> None:
        store = ObjectStore(uri)
        barrier.wait()
        try:
            lease = pipelines.core.lock.take(store)
        except LockedError:
            tried.release()
            return
        held.append(lease.epoch)
        tried.release()
        after.wait(60)
        lease.release()

    threads = [threading.Thread(target=take) for _ in range(takers)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert tried.acquire(timeout=60)
    after.set()
    for thread in threads:
        thread.join()
    return held


def test_two_takers__race_fifty_times_and_one_holds_the_folder(place: str) -> None:
    assert [race(place, 2) for _ in range(50)] == [[epoch] for epoch in range(1, 51)]


def test_takers_of_a_lease_that_ran_out__one_holds_it(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(place)
    for _ in range(50):
        dead = last_epoch(store) + 1
        store.write_atomic(epoch_name(dead), claim("of the dead"))
        # Whoever comes later finds the new holder alive, whoever comes now the dead one.
        monkeypatch.setattr(
            pipelines.core.lock,
            "_age_s",
            lambda _, name, dead=dead: 1e6 * (name == epoch_name(dead)),
        )
        assert race(place, 2) == [dead + 1]


def test_lease__refuses_a_second_run_and_says_who_holds_it(place: str) -> None:
    store = ObjectStore(place)
    with locked(store):
        with pytest.raises(LockedError, match=f"in use by process {os.getpid()} on "):
            pipelines.core.lock.take(ObjectStore(place))
        assert not [name for name in store.list(".lock-epochs") if "now" in name]
    with locked(store):
        assert last_epoch(store) == 2
    assert GUARDS == {}


@pytest.mark.parametrize("torn", [b"", b"{", b"null", b"[1]", b'{"pid": "x"}', b"\xff\xfe"])
def test_torn_epoch__is_held_by_somebody_until_it_runs_out(
    place: str, torn: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ObjectStore(place)
    store.write_atomic(epoch_name(1), torn)
    store.write_atomic(f"{pipelines.core.lock.FOLDER}/stray.txt", b"")
    with pytest.raises(LockedError, match="in use by another process"):
        pipelines.core.lock.take(store)
    monkeypatch.setattr(pipelines.core.lock, "LEASE_S", -9.0)
    pipelines.core.lock.take(store).release()
    assert last_epoch(store) == 2


@pytest.mark.parametrize("torn", ["", "{", "null", "\x00"])
def test_torn_lock_file__is_no_trace(tmp_path: Path, torn: str) -> None:
    (tmp_path / ".lock").write_text(torn)
    with locked(LocalStore(tmp_path)):
        (tmp_path / ".lock").write_text(torn)
        with (
            pytest.raises(LockedError, match="in use by another process"),
            locked(LocalStore(tmp_path)),
        ):
            pass


def test_link_in_place_of_the_lock_file__is_refused_and_what_it_leads_to_is_kept(
    tmp_path: Path,
) -> None:
    (tmp_path / "precious").write_text("kept")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(LinkError, match="a symbolic link"), locked(LocalStore(tmp_path / "run")):
        pass
    assert (tmp_path / "precious").read_text() == "kept"


def test_clock_of_the_taker__does_not_count(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(place)
    store.create_if_absent(epoch_name(1), claim("alive"))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e6)
    with pytest.raises(LockedError):
        pipelines.core.lock.take(store)


@pytest.mark.parametrize("alive", [True, False])
def test_storage_without_times__is_watched_for_the_length_of_a_lease(
    bucket: str, monkeypatch: pytest.MonkeyPatch, alive: bool
) -> None:
    monkeypatch.setattr(ObjectStore, "written_s", lambda store, name: None)
    monkeypatch.setattr(pipelines.core.lock, "LEASE_S", 0.8)
    store = ObjectStore(f"{bucket}/watched-{alive}")
    store.create_if_absent(epoch_name(1), claim("of the dead"))
    if alive:
        lease = Lease(store, 1, "alive")
        with pytest.raises(LockedError):
            pipelines.core.lock.take(store)
        lease.release()
    else:
        pipelines.core.lock.take(store).release()
        assert last_epoch(store) == 2


def test_failed_renewals__are_tried_again(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.core.lock, "LEASE_S", 2.0)
    real, failing = ObjectStore.write_atomic, threading.Event()

    def flaky(store: ObjectStore, name: str, data: bytes) -> None:
        if failing.is_set():
            raise OSError(5, "no answer")
        real(store, name, data)

    monkeypatch.setattr(ObjectStore, "write_atomic", flaky)
    store = ObjectStore(place)
    with locked(store):
        before = store.read_bytes(epoch_name(1))
        failing.set()
        time.sleep(1.2)  # at least two renewals fail
        assert store.read_bytes(epoch_name(1)) == before
        failing.clear()
        time.sleep(0.6)
        assert store.read_bytes(epoch_name(1)) != before
        store.write_atomic("a", b"1")
    failing.set()
    with (  # noqa: PT012 - the last line is the one meant
        pytest.raises(LockedError, match=r"was expected to be renewed within 2 s.*no answer"),
        locked(store),
    ):
        time.sleep(2.9)
        store.create_if_absent("b", b"1")
    assert not store.exists("b")


def test_whoever_was_overtaken__writes_nothing_by_any_verb_and_says_who_took_over(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines.core.lock, "FRESH_S", 0.0)
    store, worker = ObjectStore(place), ObjectStore(place)
    store.write_atomic("kept", b"1")
    taker = json.dumps({"pid": 77, "host": "elsewhere"}).encode()
    with (  # noqa: PT012 - the last line is the one meant
        pytest.raises(LockedError, match="process 77 on elsewhere took it over"),
        locked(store),
    ):
        act_under(worker, 1)
        worker.write_atomic("ours", b"1")
        temp = worker.open_temp("late")
        temp.write(b"1")
        temp.close()
        fs, path = fsspec.core.url_to_fs(f"{place}/{epoch_name(2)}")
        fs.pipe_file(path, taker)
        for one in (store, worker, ObjectStore(place)):
            for write in (
                lambda s: s.write_atomic("late", b"1"),
                lambda s: s.create_if_absent("late", b"1"),
                lambda s: s.remove("kept"),
                lambda s: s.remove_tree("kept"),
            ):
                with pytest.raises(LockedError):
                    write(one)
        with pytest.raises(LockedError):
            worker.publish(temp.name, "late")
        store.write_atomic("late", b"1")
    assert not store.exists("late")
    assert store.read_bytes("kept") == b"1"


def test_storage_that_replaces_what_is_there__is_refused(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(store: ObjectStore, name: str, data: bytes) -> bool:
        store.write_atomic(name, data)
        return True

    monkeypatch.setattr(ObjectStore, "create_if_absent", replace)
    with pytest.raises(StorageError, match="two runs could not be kept apart"):
        pipelines.core.lock.take(ObjectStore(f"{bucket}/careless"))


@pytest.mark.slow
@pytest.mark.parametrize("after", [2, 7, 14])
def test_holder_that_slept_through_its_lease__commits_nothing_more_and_the_product_is_right(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: Requests, after: int
) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    monkeypatch.setattr(pipelines.core.lock, "LEASE_S", 1.5)
    data = write_shards(tmp_path / "src", blobs(), even(240, 6))
    recipe, out = parse_recipe(RECIPE, name="toy"), f"{bucket}/slept-{after}"
    pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "whole"))
    with subprocess.Popen(
        [sys.executable, "-m", "tests.pipelines.leasing", str(data), out, "1.5", str(after)],
        cwd=ROOT,
        env=os.environ | {"AWS_ACCESS_KEY_ID": "holder"},
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        stopped = os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert stopped is not None
        assert stopped.si_code == os.CLD_STOPPED, holder.stdout.read()
        time.sleep(1.5 + CLOCK_STEP_S + 1.2)
        woken, real = threading.Event(), pipelines.run.do_map

        def wake_it_first(task: Task) -> Record:
            if not woken.is_set():
                requests.clear()
                woken.set()
                os.kill(holder.pid, signal.SIGCONT)
                holder.wait(timeout=60)
            return real(task)

        monkeypatch.setattr(pipelines.run, "do_map", wake_it_first)
        pipelines.run.run(recipe, data=str(data), out=out)
        said = holder.stdout.read()
    assert holder.returncode == 3, said
    assert f"process {os.getpid()} on " in said
    assert "took it over" in said
    written = {r.path for r in requests if r.who == "holder" and r.kind not in READS}
    assert {path.rpartition("/")[0].rpartition("/")[2] for path in written} <= {".lock-epochs"}
    store = ObjectStore(out)
    for path in sorted((tmp_path / "whole").rglob("part-*")):
        name = path.relative_to(tmp_path / "whole").as_posix()
        assert store.read_bytes(name) == path.read_bytes(), name
    assert store.list(".tmp-objects") == []
