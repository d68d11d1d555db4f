"""Other users of the machine reach every port of it; none of ours does anything for them."""

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.core.cluster import ClusterWorkers
from pipelines.core.graph import open_workers
from tests.faults.chores import memory

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def listening(process: psutil.Process) -> list[tuple[str, int]]:
    """Return where a process and all it has started listen."""
    return sorted(
        (connection.laddr.ip, connection.laddr.port)
        for member in (process, *process.children(recursive=True))
        for connection in member.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    )


def ask(ports: list[int]) -> list[str]:
    """Return how a stranger is answered: another user, where we may be one."""
    other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    may = os.getuid() == 0 and shutil.which("setpriv")
    done = subprocess.run(
        [*(other if may else []), sys.executable, "tests/faults/stranger.py", *map(str, ports)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", "TMPDIR": "/tmp"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


BEFORE = pytest.StashKey[list[tuple[str, int]]]()
"""Where other tests of this process listen."""


@pytest.fixture(scope="module")
def pool(request: pytest.FixtureRequest) -> Iterator[ClusterWorkers]:
    request.node.stash[BEFORE] = listening(psutil.Process())
    with open_workers(workers=2) as pool:
        assert isinstance(pool, ClusterWorkers)
        yield pool


def test_every_port_of_a_local_cluster__refuses_strangers(
    pool: ClusterWorkers, request: pytest.FixtureRequest
) -> None:
    module = request.node.getparent(pytest.Module)
    found = [where for where in listening(psutil.Process()) if where not in module.stash[BEFORE]]
    # A scheduler, and two workers with a nanny each; no pages for people.
    assert len(found) == 5
    assert {ip for ip, _ in found} == {"127.0.0.1"}
    answers = ask([port for _, port in found])
    assert len(answers) == 10
    assert [answer for answer in answers if " refused " not in answer] == []
    # The cluster is none the worse for it.
    assert len(pool.client.run(memory)) == 2


def test_stranger__would_be_answered_by_a_cluster_without_certificates() -> None:
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", processes=True
    ) as cluster:
        port = cluster.scheduler_address.rpartition(":")[2]
        # That the refusals above are refusals.
        assert " answered " in ask([int(port)])[0]


def spill_folder(dask_worker: object = None) -> str:
    return str(dask_worker.local_directory)  # type: ignore[union-attr]


def test_spilled_data_of_a_local_cluster__is_for_its_owner_alone(pool: ClusterWorkers) -> None:
    for path in map(Path, pool.client.run(spill_folder).values()):
        (top,) = [folder for folder in path.parents if folder.name.startswith("labelops-dask-")]
        assert stat.S_IMODE(top.stat().st_mode) == 0o700
