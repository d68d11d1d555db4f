"""Workers that die, hang or vanish: no finished shard is done again, no wait is endless."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.core.cluster import ClusterWorkers
from pipelines.core.graph import ThreadWorkers, open_workers
from pipelines.errors import RunError
from tests.faults.chores import (
    broken_disk,
    die_once_at_nine,
    executions,
    flaky_disk,
    poison_three,
    wait_long,
)

# Worker processes that are killed on purpose leave sockets that asyncio complains about.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def tasks(folder: Path, n: int) -> list[tuple[str, int]]:
    return [(str(folder), i) for i in range(n)]


def test_worker_dies_at_the_last_of_ten_tasks__only_that_one_is_done_again(tmp_path: Path) -> None:
    with open_workers(workers=1) as pool:
        assert sorted(pool.map(die_once_at_nine, tasks(tmp_path, 10))) == list(range(10))
    assert [executions(tmp_path, n) for n in range(10)] == [1] * 9 + [2]


def test_poisonous_shard__is_named_and_not_retried_for_ever(tmp_path: Path) -> None:
    with (
        open_workers(workers=1) as pool,
        pytest.raises(RunError, match="4 died in a row") as refused,
    ):
        list(pool.map(poison_three, tasks(tmp_path, 5)))
    assert f"({str(tmp_path)!r}, 3)" in str(refused.value)
    assert 3 <= executions(tmp_path, 3) <= 5


def test_scheduler_lost__fails_at_once_instead_of_waiting(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler"]
    options = ["--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"]
    path = tmp_path / "scheduler.json"
    scheduler = subprocess.Popen(
        [*command, *options, "--scheduler-file", str(path)], stderr=subprocess.DEVNULL
    )
    worker = None
    try:
        while not path.exists() or not path.read_text():
            time.sleep(0.1)
        import json

        address = json.loads(path.read_text())["address"]
        worker = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli.dask_worker", address, "--nthreads", "1",
             "--no-dashboard", "--death-timeout", "5", "--no-nanny"],
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        with open_workers(cluster=address) as pool:
            assert isinstance(pool, ClusterWorkers)
            results = pool.map(wait_long, tasks(tmp_path, 2))
            import threading

            threading.Timer(3.0, scheduler.send_signal, [signal.SIGKILL]).start()
            began = time.monotonic()
            with pytest.raises(RunError, match="no answer from the scheduler"):
                next(results)
            assert time.monotonic() - began < 45
    finally:
        for process in (scheduler, worker):
            if process is not None:
                process.kill()
                process.wait()


def test_no_scheduler_at_the_address__says_what_to_do() -> None:
    with (
        pytest.raises(RunError, match=r"a Dask scheduler was expected at tcp://127\.0\.0\.1:9"),
        open_workers(cluster="tcp://127.0.0.1:9", connect_s=2.0),
    ):
        pass


def test_wait_with_a_deadline__ends(tmp_path: Path) -> None:
    with open_workers(workers=1, deadline_s=2.0) as pool:
        began = time.monotonic()
        with pytest.raises(RunError, match="within 2 s"):
            list(pool.map(wait_long, tasks(tmp_path, 1)))
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("n_workers", [1, 3])
def test_passing_io_error__is_tried_again_in_threads(tmp_path: Path, n_workers: int) -> None:
    assert sorted(ThreadWorkers(n_workers).map(flaky_disk, tasks(tmp_path, 4))) == [0, 1, 2, 3]
    assert [executions(tmp_path, n) for n in range(4)] == [3] * 4


def test_building_the_work__computes_nothing(tmp_path: Path) -> None:
    results = ThreadWorkers(2).map(poison_three, tasks(tmp_path, 5))
    assert results is not None
    assert list(tmp_path.iterdir()) == []


def test_error_of_a_task_on_a_cluster__is_that_error(tmp_path: Path) -> None:
    with open_workers(workers=1) as pool, pytest.raises(OSError, match="Input/output error"):
        list(pool.map(broken_disk, tasks(tmp_path, 2)))
