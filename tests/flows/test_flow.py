"""The flow: the same bytes as a direct run, one task a stage, and an end that leaves nothing."""

import base64
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

import pipelines.run
from flows.server import environment
from pipelines.errors import DataError, LabelopsError, RunError
from pipelines.recipe import load_recipe
from tests.datasets import even, tagged, write_shards
from tests.flows.conftest import ROOT, TOY, Command, environ, family, is_gone, launch, wait_for

CLOCKS = {".lock", "timings.json", "report.html"}
"""Files that say when something happened, or who did it."""


def digests(run: Path) -> dict[str, str]:
    """Return the hash of every file of a run that must not depend on how it was run."""
    return {
        path.relative_to(run).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in CLOCKS
    }


Ask = Callable[[str, dict[str, Any]], Any]


@pytest.fixture(scope="session")
def ask(prefect_url: dict[str, str]) -> Ask:
    """Post to the server's API, apart from Prefect's client."""
    token = base64.b64encode(prefect_url["PREFECT_API_AUTH_STRING"].encode()).decode()

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{prefect_url['PREFECT_API_URL']}/{path}",
            data=json.dumps(body).encode(),
            headers={"Authorization": f"Basic {token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read(), parse_constant=refuse)

    return post


def flow_run_on(ask: Ask, out: Path) -> dict[str, Any]:
    """Return the last flow run on a run folder."""
    found = ask("flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 200})
    runs = [run for run in found if run["parameters"].get("out") == str(out)]
    assert runs, f"no flow run on {out}"
    return dict(runs[0])


@pytest.mark.slow
def test_flow__gives_the_same_bytes_as_a_direct_run_with_one_task_a_stage(
    labelops: Command, prefect_url: dict[str, str], ask: Ask, shards: Path, tmp_path: Path
) -> None:
    direct, flow = tmp_path / "direct", tmp_path / "flow"
    pipelines.run.run(load_recipe("audit"), data=str(shards), out=str(direct))
    # No option: that an API is configured is enough.
    done = labelops("run", "audit", "--data", shards, "--out", flow, program=None, **prefect_url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(flow / "report.html")
    assert digests(flow) == digests(direct)
    assert any(name.startswith("dataset/part-") for name in digests(flow))

    run = flow_run_on(ask, flow)
    assert run["state_type"] == "COMPLETED"
    ours = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    wait_for(
        lambda: len(ask("task_runs/filter", ours)) == 8, what="task runs recorded by the server"
    )
    tasks = ask("task_runs/filter", ours)
    assert sorted(task["name"] for task in tasks) == sorted(
        [
            *("source", "infer", "confident", "proportions"),
            *("neighbours", "decide", "dataset", "report"),
        ]
    )
    # Only addresses and names reach the server: no table, no array, nothing of the data.
    assert set(run["parameters"]["recipe"]) <= set("audit")
    assert all(isinstance(value, str | list | float | None) for value in run["parameters"].values())

    artifacts = {
        artifact["key"]: artifact
        for artifact in ask("artifacts/filter", {"limit": 200, **ours})
        if artifact["flow_run_id"] == run["id"] and artifact["key"]
    }
    assert set(artifacts) >= {
        "labelops-class-quality",
        "labelops-top-issues",
        "labelops-summary",
        "labelops-report",
    }
    classes = json.loads(artifacts["labelops-class-quality"]["data"])
    assert {row["Class"] for row in classes} == {"ant", "bee", "cow"}
    assert (flow / "report.html").as_uri() in artifacts["labelops-report"]["data"]


@pytest.mark.slow
def test_flow__of_lists_of_labels_gives_the_same_bytes_as_a_direct_run(
    labelops: Command, prefect_url: dict[str, str], ask: Ask, tmp_path: Path
) -> None:
    direct, flow = tmp_path / "direct", tmp_path / "flow"
    data = str(write_shards(tmp_path / "lists", tagged(200, n_classes=4)[0], even(200, 3)))
    settings = ["decide_labels.min_class_size=2"]
    pipelines.run.run(load_recipe("multilabel", settings), data=data, out=str(direct))
    said = ("run", "multilabel", "--data", data, "--out", flow, "--set", *settings)
    done = labelops(*said, program=None, **prefect_url)
    assert done.returncode == 0, done.stderr
    assert flow_run_on(ask, flow)["state_type"] == "COMPLETED"
    found = digests(flow)
    assert found == digests(direct)
    for folder in ("multilabel", "decisions", "dataset"):
        assert sum(name.startswith(f"{folder}/part-") for name in found) == 3
    changed = pq.read_table(flow / "dataset", columns=["decision"])["decision"].to_pylist()
    assert "relabel" in changed


def test_flow__shows_the_progress_of_a_stage_that_takes_longer(
    labelops: Command,
    prefect_url: dict[str, str],
    ask: Ask,
    shards: Path,
    nap_recipe: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    settings = ("--set", "nap.seconds=2.5")  # Progress is shown after two seconds.
    done = labelops("run", nap_recipe, "--data", shards, "--out", out, *settings, **prefect_url)
    assert done.returncode == 0, done.stderr
    run = flow_run_on(ask, out)
    ours = {"limit": 200, "flow_runs": {"id": {"any_": [run["id"]]}}}
    shown = {found["key"]: found for found in ask("artifacts/filter", ours)}
    assert float(shown["labelops-progress-nap"]["data"]) == 100.0
    assert shown["labelops-progress-nap"]["description"] == "Stage nap: finished"
    assert "labelops-progress-source" not in shown


def test_flow__fails_with_the_message_of_a_direct_run_and_is_not_tried_again_in_vain(
    labelops: Command,
    prefect_url: dict[str, str],
    ask: Ask,
    shards: Path,
    nap_recipe: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "run"
    done = labelops(
        "run", nap_recipe, "--data", shards, "--out", out, "--set", "nap.fail=data", **prefect_url
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        "labelops: error: stage 'nap': sleep was expected, got noise. Close the window"
    )
    assert "Traceback" not in done.stderr
    run = flow_run_on(ask, out)
    assert run["state_type"] == "FAILED"
    ours = {"flow_runs": {"id": {"any_": [run["id"]]}}}
    wait_for(
        lambda: any(t["state_type"] == "FAILED" for t in ask("task_runs/filter", ours)),
        what="the failed task",
    )
    (nap,) = [task for task in ask("task_runs/filter", ours) if task["name"] == "nap"]
    assert nap["run_count"] == 1


@pytest.mark.parametrize(
    ("number", "code", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "stopped")],
    ids=["SIGTERM", "SIGINT"],
)
@pytest.mark.parametrize("flow", [True, False], ids=["flow", "direct"])
def test_run__stopped_by_a_signal_ends_cleanly_and_goes_on_when_repeated(
    inside: Command,
    prefect_url: dict[str, str],
    ask: Ask,
    shards: Path,
    nap_recipe: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
    word: str,
    flow: bool,
) -> None:
    out = tmp_path / "run"
    settings = prefect_url if flow else {}
    command = ("run", nap_recipe, "--data", shards, "--out", out, "--set", "nap.seconds=1.5")
    process = launch(*command, **settings)
    wait_for((out / "nap").exists, what="the second stage", of=process)
    processes = family(process.pid)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == ""
    assert stderr.splitlines()[-1] == (
        f"labelops: {word}. Finished shards are kept; the same command goes on from there"
    )
    assert "Traceback" not in stderr
    wait_for(lambda: all(map(is_gone, processes)), 10, "end of every process")
    if flow:
        assert flow_run_on(ask, out)["state_type"] == "CRASHED"
    assert not (out / "_manifests" / "nap.json").exists()
    done = inside("resume", out)
    assert done.returncode == 0, done.stderr
    assert (out / "_manifests" / "nap.json").exists()


def test_run__killed_leaves_no_server_no_worker_and_no_folder_behind(
    labelops: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    out, scratch = tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()
    process = launch(
        "run", nap_recipe, "--data", shards, "--out", out, "--prefect", "--workers", "2",
        "--set", "nap.seconds=600",
        TMPDIR=str(scratch),
    )  # fmt: skip
    try:
        wait_for((out / "_manifests" / "source.json").exists, 120, "the first stage", of=process)
        processes = family(process.pid)
        names = [" ".join(p.cmdline()) for p in processes]
        assert sum("server_process.py" in name for name in names) == 1
        assert sum("spawn_main" in name for name in names) >= 2
        (home,) = scratch.glob("labelops-prefect-*")
        # Whoever reaches a scheduler or a server could run code on it: this machine only.
        for member in processes:
            for connection in member.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    assert connection.laddr.ip in ("127.0.0.1", "::1"), names
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    wait_for(lambda: all(map(is_gone, processes)), 30, "end of every process")
    wait_for(lambda: not home.exists(), 10, "end of the server's folder")


def can_cut_off() -> bool:
    """Say whether this machine lets us start a process without network."""
    command = shutil.which("unshare")
    return (
        bool(command) and not subprocess.run([str(command), "-rn", "true"], check=False).returncode
    )


LOOPBACK_ONLY = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    fcntl.ioctl(s, 0x8914, struct.pack('16sh', b'lo', 0x1 | 0x40))  # SIOCSIFFLAGS, up and running
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.mark.slow
@pytest.mark.skipif(not can_cut_off(), reason="needs unshare and the right to use it")
def test_embedded_server__works_without_network_and_leaves_nothing(
    inside: Command, shards: Path, nap_recipe: Path, tmp_path: Path
) -> None:
    direct, out, scratch = tmp_path / "direct", tmp_path / "run", tmp_path / "scratch"
    scratch.mkdir()
    command = [
        *("unshare", "-rn", sys.executable, "-c", LOOPBACK_ONLY, str(TOY)),
        *("run", str(nap_recipe), "--data", str(shards), "--out", str(out)),
        *("--prefect", "--workers", "2"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ(TMPDIR=str(scratch)),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(out / "report.html")]
    # Nothing but our own lines: no complaint about a host that could not be reached.
    assert "Error" not in done.stderr
    assert "Traceback" not in done.stderr
    assert list(scratch.glob("labelops-prefect-*")) == []
    assert not [p for p in psutil.process_iter() if scratch_of(p) == str(scratch)]
    # Two processes and a flow, threads and none: the same bytes.
    done = inside("run", nap_recipe, "--data", shards, "--out", direct)
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(direct)


def scratch_of(process: psutil.Process) -> str | None:
    """Return the folder for temporary files that a process was started with."""
    try:
        return process.environ().get("TMPDIR")
    except psutil.Error:
        return None


def caused(error: Exception, cause: Exception) -> Exception:
    """Return the error as `raise error from cause` makes it."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (DataError("source: no"), False),
        (LabelopsError("no"), False),
        (OSError(5, "Input/output error"), True),
        (KeyError("x"), False),
        (caused(RunError("no storage"), OSError(5, "Input/output error")), True),
        (caused(RunError("no cluster"), CancelledError()), True),
        (caused(RunError("a bug"), KeyError("x")), False),
    ],
    ids=lambda value: repr(value) if isinstance(value, Exception) else str(value),
)
def test_stage__is_tried_again_only_where_data_and_recipe_are_not_to_blame(
    error: Exception, again: bool
) -> None:
    from prefect.states import Failed

    from flows.flow import do_stage, is_passing

    assert do_stage.retries == 1
    assert do_stage.retry_condition_fn is is_passing
    assert is_passing(do_stage, None, Failed(data=error)) is again  # type: ignore[arg-type]


def test_flow__runs_in_a_process_that_has_prefect_under_other_settings(
    inside: Command,
    prefect_url: dict[str, str],
    ask: Ask,
    shards: Path,
    nap_recipe: Path,
    tmp_path: Path,
) -> None:
    from prefect.context import refresh_global_settings_context
    from prefect.settings import PREFECT_API_URL

    out = tmp_path / "run"
    assert PREFECT_API_URL.value() != prefect_url["PREFECT_API_URL"]
    with environment(prefect_url):
        done = inside("run", nap_recipe, "--data", shards, "--out", out, "--prefect")
    refresh_global_settings_context()
    assert done.returncode == 0, done.stderr
    assert flow_run_on(ask, out)["state_type"] == "COMPLETED"


def test_tasks__persist_and_cache_nothing() -> None:
    from prefect.cache_policies import NO_CACHE

    from flows.flow import audit, do_report, do_stage

    for task in (do_stage, do_report):
        assert task.cache_policy == NO_CACHE
        assert task.persist_result is False
    assert audit.persist_result is False


def test_api__that_is_configured_but_gone_is_an_error_at_once(
    labelops: Command, shards: Path, tmp_path: Path
) -> None:
    done = labelops(
        "run", "audit", "--data", shards, "--out", tmp_path / "run",
        program=None, PREFECT_API_URL="http://127.0.0.1:9/api",
    )  # fmt: skip
    assert done.returncode == 1
    assert (
        "Prefect API: an answer at http://127.0.0.1:9/api within 15 s was expected" in done.stderr
    )
    assert "or run with --no-prefect" in done.stderr
    assert not (tmp_path / "run").exists()
