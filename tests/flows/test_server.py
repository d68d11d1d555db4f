"""The embedded server: private, local, quick to go, and never left behind."""

import base64
import contextlib
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from flows import server as module
from flows.server import (
    EmbeddedServer,
    check_api,
    configured_api,
    default_template,
    environment,
    quiet,
)
from pipelines.errors import RunError
from tests.flows.conftest import ROOT, environ, family, is_gone, wait_for


def status(url: str, login: str | None = None) -> int:
    request = urllib.request.Request(url)
    if login is not None:
        token = base64.b64encode(login.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as err:
        return err.code


def test_server__answers_whoever_knows_the_password_only(server: EmbeddedServer) -> None:
    login = server.settings["PREFECT_API_AUTH_STRING"]
    assert status(f"{server.url}/health") == 200
    assert status(f"{server.url}/admin/version") == 401
    assert status(f"{server.url}/admin/version", "labelops:guess") == 401
    assert status(f"{server.url}/admin/version", login) == 200


def test_server__listens_on_the_loopback_interface_only(server: EmbeddedServer) -> None:
    listening = [
        connection.laddr
        for process in family(server.process.pid)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert [address.ip for address in listening] == ["127.0.0.1"]
    assert server.url == f"http://127.0.0.1:{listening[0].port}/api"


def test_server__keeps_its_state_where_only_this_user_can_read(server: EmbeddedServer) -> None:
    assert stat.S_IMODE(os.stat(server.home).st_mode) == 0o700
    assert Path(server.home, "prefect.db").is_file()


def test_server__asks_for_no_telemetry_and_inherits_no_settings(server: EmbeddedServer) -> None:
    found = psutil.Process(server.process.pid).environ()
    assert found["DO_NOT_TRACK"] == "1"
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert "PREFECT_API_URL" not in found
    assert found["PREFECT_HOME"] == server.home


def test_server__leaves_an_empty_database_from_which_the_next_one_starts(
    server: EmbeddedServer, template: Path
) -> None:
    with contextlib.closing(sqlite3.connect(template)) as kept:
        # What the server's own migrations have made, and nothing of any run or of this server.
        tables = {name for (name,) in kept.execute("SELECT name FROM sqlite_master")}
        assert {"flow_run", "task_run", "artifact", "alembic_version"} <= tables
        for table in ("flow_run", "task_run", "log", "artifact", "configuration"):
            assert kept.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    before = template.stat().st_mtime_ns
    with EmbeddedServer(180, template) as second:
        second.wait()
        login = second.settings["PREFECT_API_AUTH_STRING"]
        assert status(f"{second.url}/admin/version", login) == 200
    assert template.stat().st_mtime_ns == before
    assert [path.name for path in template.parent.iterdir()] == [template.name]


def test_server__that_cannot_start_from_what_was_kept_removes_it(tmp_path: Path) -> None:
    broken = tmp_path / "prefect.db"
    broken.write_text("no database " * 1000)
    server = EmbeddedServer(180, broken)
    with pytest.raises(RunError, match="it ended after"):
        server.wait()
    assert not broken.exists()
    assert not os.path.exists(server.home)


def test_template__lies_in_the_virtual_environment_or_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "prefix", "/opt/venv")
    found = default_template()
    assert found is not None
    assert found.is_relative_to("/opt/venv")
    monkeypatch.setattr(sys, "base_prefix", "/opt/venv")
    assert default_template() is None


def test_server__that_has_not_come_up_is_gone_as_well_when_closed() -> None:
    server = EmbeddedServer()
    began = time.monotonic()
    server.close()
    server.close()
    assert time.monotonic() - began < 10
    assert server.process.returncode is not None
    assert not os.path.exists(server.home)


def test_server__is_gone_with_its_folder_after_its_owner_was_killed() -> None:
    script = (
        "from flows.server import EmbeddedServer; import time\n"
        "server = EmbeddedServer(); print(server.process.pid, server.home, flush=True)\n"
        "time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, env=environ(), stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    pid, home = owner.stdout.readline().split()
    process = psutil.Process(int(pid))
    wait_for(Path(home, "prefect.db").exists, what="the server at work")
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_for(lambda: is_gone(process), 15, "end of the server")
    wait_for(lambda: not os.path.exists(home), 5, "end of its folder")


def test_server__that_is_too_slow_is_an_error_with_a_remedy() -> None:
    server = EmbeddedServer(startup_s=0.2)
    with pytest.raises(
        RunError,
        match=r"embedded Prefect server: an answer within 0 s was expected, none came after 0 s; "
        r"it said: nothing\. Try again .* PREFECT_API_URL to a running server",
    ):
        server.wait()
    assert server.process.returncode is not None


def test_server__that_ends_is_an_error_that_says_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server of another kind beside a copy of the module that starts it.
    monkeypatch.setattr(module, "__file__", str(tmp_path / "server.py"))
    (tmp_path / "server_process.py").write_text("raise SystemExit('port in flames')")
    server = EmbeddedServer()
    with pytest.raises(RunError, match=r"it ended after \d+ s; it said: port in flames\."):
        server.wait()


PROFILES = """
active = "work"
[profiles.work]
PREFECT_API_URL = "http://work:4200/api"
[profiles.play]
PREFECT_API_URL = "http://play:4200/api"
[profiles.none]
"""


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "http://work:4200/api"),
        ({"PREFECT_API_URL": "http://here/api"}, "http://here/api"),
        ({"PREFECT_API_URL": " "}, "http://work:4200/api"),
        ({"PREFECT_PROFILE": "play"}, "http://play:4200/api"),
        ({"PREFECT_PROFILE": "none"}, None),
        ({"PREFECT_PROFILE": "unknown"}, None),
        ({"PREFECT_PROFILES_PATH": "/nowhere"}, None),
        ({"PREFECT_HOME": "/nowhere"}, None),
    ],
)
def test_configured_api__is_looked_up_where_prefect_does(
    tmp_path: Path, more: dict[str, str], expected: str | None
) -> None:
    (tmp_path / "profiles.toml").write_text(PROFILES)
    assert configured_api({"PREFECT_HOME": str(tmp_path), **more}) == expected


@pytest.mark.parametrize("text", ["active =", "profiles = 3", ""])
def test_configured_api__is_none_where_profiles_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "profiles.toml").write_text(text)
    assert configured_api({"PREFECT_HOME": str(tmp_path)}) is None


def test_configured_api__agrees_with_prefect_itself(tmp_path: Path) -> None:
    (tmp_path / "profiles.toml").write_text(PROFILES)
    settings = {"PREFECT_HOME": str(tmp_path), "PREFECT_PROFILE": "play"}
    script = "from prefect.settings import PREFECT_API_URL; print(PREFECT_API_URL.value())"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environ(**settings),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == configured_api(settings) == "http://play:4200/api"


def test_check__refuses_an_api_that_does_not_answer(server: EmbeddedServer) -> None:
    check_api(server.url)
    with pytest.raises(RunError, match=r"an answer at http://127\.0\.0\.1:9/api within 15 s was"):
        check_api("http://127.0.0.1:9/api")
    with pytest.raises(RunError, match="beginning with http:// or https:// was expected"):
        check_api("file:///etc/passwd")


def test_environment__is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELOPS_A", "before")
    monkeypatch.delenv("LABELOPS_B", raising=False)
    with contextlib.suppress(KeyError), environment({"LABELOPS_A": "1", "LABELOPS_B": "2"}):
        assert (os.environ["LABELOPS_A"], os.environ["LABELOPS_B"]) == ("1", "2")
        raise KeyError
    assert os.environ["LABELOPS_A"] == "before"
    assert "LABELOPS_B" not in os.environ


def test_quiet__keeps_what_the_user_set_but_never_telemetry() -> None:
    found = quiet({"PREFECT_LOGGING_COLORS": "true", "DO_NOT_TRACK": "0"})
    assert "PREFECT_LOGGING_COLORS" not in found
    assert found["DO_NOT_TRACK"] == "1"
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
