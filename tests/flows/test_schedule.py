"""Scheduled runs: prefect.yaml on a real server, one run at a time, the same bytes."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.flows.conftest import ROOT, Command, environ, wait_for
from tests.flows.databases import free_port, lacking, postgres
from tests.flows.test_flow import digests


class Served:
    """A Prefect server as it is run for schedules, and how to talk to it."""

    def __init__(self, url: str, settings: dict[str, str]) -> None:
        self.url = url
        self.settings = settings

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

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Ask the API; it may take some time to answer."""
        request = urllib.request.Request(
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        for _ in range(20):
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    return json.loads(answer.read() or b"null")
            except (urllib.error.HTTPError, TimeoutError) as err:
                # SQLite is locked while others write: so is this server for a moment.
                if isinstance(err, urllib.error.HTTPError) and err.code != 503:
                    raise
            time.sleep(1.0)
        raise AssertionError(f"{method} {path}: locked, or silent, for too long")

    def post(self, path: str, body: Any) -> Any:
        """Ask the API."""
        return self.call("POST", path, body)

    @contextlib.contextmanager
    def worker(self, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
        """Keep a worker at work, which looks for runs every two seconds."""
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "worker", "start", "--pool", "labelops"],
            cwd=cwd,
            env=environ(**self.settings, PREFECT_WORKER_QUERY_SECONDS="2"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            # With what it has started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=60)

    def deploy(self, **changes: Any) -> dict[str, Any]:
        """Deploy what prefect.yaml says, with other parameters; no run of earlier is left."""
        with contextlib.suppress(urllib.error.HTTPError):
            self.post("work_pools/", {"name": "labelops", "type": "process"})
        for old in self.post("deployments/filter", {}):
            self.call("DELETE", f"deployments/{old['id']}")
        for run in self.post("flow_runs/filter", {}):
            self.call("DELETE", f"flow_runs/{run['id']}")
        self.prefect("--no-prompt", "deploy", "--all")
        (found,) = self.post("deployments/filter", {})
        if changes:
            self.call("PATCH", f"deployments/{found['id']}", changes)
        return dict(found)

    def forget_automations(self) -> None:
        """Delete the automations that there are."""
        for old in self.post("automations/filter", {}):
            self.call("DELETE", f"automations/{old['id']}")

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Return the runs there are, the first that is due first."""
        return list(
            self.post(
                "flow_runs/filter",
                {"sort": "EXPECTED_START_TIME_ASC", "flow_runs": filters or None},
            )
        )

    def in_state(self, state: str) -> list[dict[str, Any]]:
        """Return the runs that are in a state."""
        return [run for run in self.runs() if run["state_type"] == state]


ENDS = ("COMPLETED", "CANCELLED", "FAILED", "CRASHED")


@pytest.fixture(scope="module")
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A server on one of the databases that Prefect knows."""
    reason = lacking() if request.param == "PostgreSQL" else None
    if reason:
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
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
        if request.param == "PostgreSQL":
            database = stack.enter_context(postgres())
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
            yield Served(url, settings)
        finally:
            server.terminate()
            try:
                server.wait(timeout=60)
            finally:
                # Else it outlives the tests, and the next one is blamed for it.
                server.kill()
                server.wait()


BEST = "SQLite" if lacking() else "PostgreSQL"
EVERY = pytest.mark.parametrize("served", ["SQLite", "PostgreSQL"], indirect=True)
ONE = pytest.mark.parametrize("served", [BEST], indirect=True)


@pytest.mark.slow
@ONE
def test_deployment__runs_one_at_a_time_with_the_bytes_of_a_direct_run(
    served: Served,
    labelops: Command,
    shards: Path,
    tmp_path: Path,
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('stages = ["source"]\n')
    deployment = served.deploy()
    served.prefect("automation", "create", "--from-file", str(ROOT / "flows" / "zombies.yaml"))
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
        lambda: all(run["state_type"] in ENDS for run in served.runs()),
        what="the end of the runs",
    )
    runs = served.runs()
    assert sorted(run["state_type"] for run in runs) == ["CANCELLED", "CANCELLED", "COMPLETED"]

    (done,) = [run for run in runs if run["state_type"] == "COMPLETED"]
    (out,) = tmp_path.glob("run-*")
    assert out.name == f"run-{done['expected_start_time'][:10]}"
    direct = tmp_path / "direct"
    assert labelops("run", recipe, "--data", shards, "--out", direct).returncode == 0
    assert digests(out) == digests(direct)


def scheduled(served: Served, shards: Path, folder: Path) -> None:
    """Deploy a recipe that is due every ten seconds."""
    recipe = folder / "r.toml"
    recipe.write_text('stages = ["source"]\n')
    out = str(folder / "run-{time}")
    deployment = served.deploy(parameters={"data": str(shards), "out": out, "recipe": str(recipe)})
    assert served.runs() == []
    every = {"interval": 10.0, "anchor_date": "2025-01-01T00:00:00+00:00"}
    served.post(f"deployments/{deployment['id']}/schedules", [{"schedule": every, "active": True}])


@pytest.mark.slow
@EVERY
def test_schedule__fires_again_and_again(served: Served, shards: Path, tmp_path: Path) -> None:
    scheduled(served, shards, tmp_path)
    with served.worker(tmp_path):
        wait_for(lambda: len(served.in_state("COMPLETED")) >= 2, 200, "two runs nobody asked for")
    for run in served.in_state("COMPLETED"):
        assert run["auto_scheduled"] is True
        moment = datetime.fromisoformat(run["expected_start_time"]).astimezone(UTC)
        assert moment.second % 10 == 0
        assert (tmp_path / f"run-{moment:%Y-%m-%dT%H%M%SZ}" / "report.html").exists()


@pytest.mark.slow
@ONE
@pytest.mark.timeout(600)
def test_schedule__of_what_was_missed_one_run_is_made(
    served: Served, shards: Path, tmp_path: Path
) -> None:
    """Nobody works for some intervals; then all that was missed is due at once."""
    gone = datetime.now(UTC)
    scheduled(served, shards, tmp_path)

    def missed() -> list[str]:
        now = datetime.now(UTC)
        dues = {run["id"]: run["expected_start_time"] for run in served.in_state("SCHEDULED")}
        return [one for one, due in dues.items() if gone < datetime.fromisoformat(due) < now]

    wait_for(lambda: len(missed()) >= 3, 100, "three runs that are missed")
    late = missed()
    with served.worker(tmp_path):
        wait_for(
            lambda: all(r["state_type"] in ENDS for r in served.runs(id={"any_": late})),
            200,
            "the end of what was missed",
        )
        wait_for(lambda: bool(served.in_state("COMPLETED")), 100, "a run after the pause")
    # Those missed and the one that was due just then came together: one of them had its turn.
    ended = [run["state_type"] for run in served.runs(id={"any_": late})]
    assert set(ended) <= {"CANCELLED", "COMPLETED"}
    assert ended.count("CANCELLED") >= len(late) - 1


@pytest.mark.slow
@ONE
@pytest.mark.timeout(400)
def test_run__killed_before_it_began_makes_room_for_the_next(
    served: Served, shards: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "r.toml"
    recipe.write_text('stages = ["source"]\n')
    parameters = {"data": str(shards), "out": str(tmp_path / "run"), "recipe": str(recipe)}
    deployment = served.deploy(parameters=parameters)
    zombies = yaml.safe_load((ROOT / "flows" / "zombies.yaml").read_text())
    assert zombies["trigger"]["within"] == 90
    # The shortest time that Prefect allows instead, and apart from the one that is there.
    zombies["trigger"]["within"] = 10
    served.forget_automations()
    served.post("automations/", zombies)

    def start() -> str:
        run = served.post(
            f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}}
        )
        return str(run["id"])

    def state(run: str) -> str:
        return str(served.call("GET", f"flow_runs/{run}")["state_type"])

    first = start()
    with served.worker(tmp_path):
        wait_for(lambda: state(first) == "PENDING", 100, "a worker that takes the run")
    # Here the worker, and what it had started, were killed.
    assert state(first) == "PENDING"
    wait_for(lambda: state(first) == "CRASHED", 60, "the end of a run that never began")
    served.forget_automations()  # Ten seconds are too short for a run to begin.
    second = start()
    with served.worker(tmp_path):
        wait_for(lambda: state(second) in ENDS, 100, "the end of the next run")
    assert state(second) == "COMPLETED"


def test_expand__uses_the_time_of_the_schedule_in_utc() -> None:
    from datetime import datetime, timedelta, timezone

    from flows.flow import expand

    moment = datetime(2024, 12, 31, 23, 30, tzinfo=timezone(timedelta(hours=-2)))
    assert expand("s3://b/{date}/{time}", moment) == "s3://b/2025-01-01/2025-01-01T013000Z"
    assert expand("runs/{other}", moment) == "runs/{other}"
