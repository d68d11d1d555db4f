"""Scheduled runs: prefect.yaml on a real server, one run at a time, the same bytes."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.conftest import ROOT, Command, environ, wait_for
from tests.flows.test_flow import digests


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def postgres() -> Iterator[str | None]:
    """Give the address of a database of our own, or None where there is no PostgreSQL."""
    tools = [shutil.which(name) for name in ("initdb", "pg_ctl", "createdb")]
    # It refuses to run as root, and then needs somebody else to be.
    other = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    if None in tools or (other and subprocess.run([*other, "true"], check=False).returncode):
        yield None
        return
    initdb, pg_ctl, createdb = tools
    port = free_port()
    # A short path of its own: the name of its socket has 107 characters at most.
    with tempfile.TemporaryDirectory(prefix="labelops-pg-", ignore_cleanup_errors=True) as folder:
        if other:
            shutil.chown(folder, "postgres")

        def call(*command: str | None) -> None:
            subprocess.run(
                [*other, *map(str, command)], cwd="/", check=True, stdout=subprocess.DEVNULL
            )

        data, log = f"{folder}/data", f"{folder}/log"
        call(initdb, "-D", data, "-U", "prefect", "--auth=trust", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {folder} -F"
        call(pg_ctl, "-D", data, "-w", "-l", log, "-o", options, "start")
        try:
            call(createdb, "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "prefect")
            yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/prefect"
        finally:
            call(pg_ctl, "-D", data, "-m", "immediate", "stop")


class Served:
    """A Prefect server as it is run for schedules, and how to talk to it."""

    def __init__(self, url: str, settings: dict[str, str], database: str) -> None:
        self.url = url
        self.settings = settings
        self.database = database

    def prefect(self, *arguments: str, cwd: Path = ROOT) -> str:
        """Call Prefect's own command line."""
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=cwd,
            env=environ(**self.settings),
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """Ask the API."""
        request = urllib.request.Request(
            f"{self.url}/{path}",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server on PostgreSQL where there is one, on SQLite elsewhere."""
    with postgres() as database:
        port = free_port()
        url = f"http://127.0.0.1:{port}/api"
        settings = {
            "PREFECT_HOME": str(tmp_path_factory.mktemp("prefect")),
            "PREFECT_API_URL": url,
            "PREFECT_UI_ENABLED": "false",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
            "DO_NOT_TRACK": "1",
        }
        if database:
            settings["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = database
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "prefect", "server", "start", "--no-ui"),
                *("--host", "127.0.0.1", "--port", str(port)),
            ],
            env=environ(**settings),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

        def is_up() -> bool:
            with contextlib.suppress(OSError):
                return urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
            return False

        try:
            wait_for(is_up, 120, "the server")
            yield Served(url, settings, "PostgreSQL" if database else "SQLite")
        finally:
            server.terminate()
            server.wait(timeout=60)


@pytest.mark.slow
def test_deployment__runs_one_at_a_time_with_the_bytes_of_a_direct_run(
    served: Served,
    labelops: Command,
    shards: Path,
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('stages = ["source"]\n')
    served.post("work_pools/", {"name": "labelops", "type": "process"})
    served.prefect("--no-prompt", "deploy", "--all")
    served.post("automations/", yaml.safe_load((ROOT / "flows" / "zombies.yaml").read_text()))

    (deployment,) = served.post("deployments/filter", {})
    assert deployment["name"] == "audit"
    assert deployment["work_pool_name"] == "labelops"
    assert deployment["global_concurrency_limit"]["limit"] == 1
    assert deployment["concurrency_options"]["collision_strategy"] == "CANCEL_NEW"
    assert [schedule["active"] for schedule in deployment["schedules"]] == [False]
    (automation,) = served.post("automations/filter", {})
    assert automation["enabled"] is True
    assert automation["trigger"]["posture"] == "Proactive"
    assert automation["actions"][0]["state"] == "CRASHED"

    parameters = {"data": str(shards), "out": str(tmp_path / "run-{date}"), "recipe": str(recipe)}
    for _ in range(3):
        served.post(
            f"deployments/{deployment['id']}/create_flow_run",
            {"parameters": parameters, "state": {"type": "SCHEDULED"}},
        )
    # As after an outage: three are due, one worker comes back.
    served.prefect("worker", "start", "--pool", "labelops", "--run-once", cwd=tmp_path)
    wait_for(
        lambda: all(
            run["state_type"] in ("COMPLETED", "CANCELLED", "FAILED", "CRASHED")
            for run in served.post("flow_runs/filter", {})
        ),
        what="the end of the runs",
    )
    runs = served.post("flow_runs/filter", {})
    assert sorted(run["state_type"] for run in runs) == ["CANCELLED", "CANCELLED", "COMPLETED"]

    (done,) = [run for run in runs if run["state_type"] == "COMPLETED"]
    (out,) = tmp_path.glob("run-*")
    assert out.name == f"run-{done['expected_start_time'][:10]}"
    direct = tmp_path / "direct"
    assert labelops("run", recipe, "--data", shards, "--out", direct).returncode == 0
    assert digests(out) == digests(direct)


def test_expand__uses_the_time_of_the_schedule_in_utc() -> None:
    from datetime import datetime, timedelta, timezone

    from flows.flow import expand

    moment = datetime(2024, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    assert expand("s3://b/{date}/{time}", moment) == "s3://b/2025-01-01/2025-01-01T013000Z"
    assert expand("runs/{other}", moment) == "runs/{other}"
