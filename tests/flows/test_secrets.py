"""Passwords of addresses: in no file, message or parameter, whatever is done with them."""

import base64
import http.server
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import cli
from flows.server import check_api
from flows.start import start
from pipelines.errors import AddressError, RunError
from tests.flows.conftest import ROOT, Command, environ

HUSH = "hu5h-hu5h"

ADDRESSES = (
    f"s3://AKIA:{HUSH}@bucket/x",
    f"https://me:{HUSH}@127.0.0.1:9/x.toml",
    f"https://127.0.0.1:9/x?sig={HUSH}",
    f"abfs://box@account/x;account_key={HUSH}",
)

COMMANDS = {
    "data": ("run", "audit", "--data", "{}", "--out", "run"),
    "data joined": ("run", "audit", "--data={}", "--out", "run"),
    "out": ("run", "audit", "--data", "data", "--out", "{}"),
    "recipe": ("run", "{}", "--data", "data", "--out", "run"),
    "setting": ("run", "audit", "--data", "data", "--out", "run", "--set", "decide.reviewed={}"),
    "quoted": ("run", "audit", "--data", "data", "--out", "run", "--set", 'infer.weights="{}"'),
    "cluster": ("run", "audit", "--data", "data", "--out", "run", "--cluster", "{}"),
    "workers": ("run", "audit", "--data", "data", "--out", "run", "--workers", "{}"),
    "prefect": ("run", "audit", "--data", "{}", "--out", "run", "--prefect"),
    "plan": ("plan", "audit", "--data", "{}", "--out", "run"),
    "plan out": ("plan", "audit", "--data", "data", "--out", "{}"),
    "resume": ("resume", "{}"),
    "report": ("report", "{}"),
    "schema": ("schema", "{}"),
    "stages": ("stages", "{}"),
    "no command": ("{}",),
}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS.keys())
@pytest.mark.parametrize("address", ADDRESSES)
def test_command__is_refused_at_once_and_leaves_nothing(
    inside: Command, tmp_path: Path, command: tuple[str, ...], address: str
) -> None:
    done = inside(*(part.format(address) for part in command))
    assert done.returncode == 2
    assert HUSH not in done.stdout + done.stderr
    assert "environment" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_recipe_file__with_a_secret_is_refused_and_leaves_nothing(
    inside: Command, tmp_path: Path
) -> None:
    for address in ADDRESSES:
        (tmp_path / "r.toml").write_text(
            f'stages = ["source", "decide"]\n[decide]\nreviewed = "{address}"\n'
        )
        done = inside("run", "r.toml", "--data", "data", "--out", "run")
        assert done.returncode == 2
        assert HUSH not in done.stdout + done.stderr
        assert "recipe.decide.reviewed" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "r.toml"]


def test_flow_with_a_secret__is_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.start.prefect_api", None)
    for address in ADDRESSES:
        with pytest.raises(AddressError) as refused:
            start("audit", data=address, out="run", prefect=True)
        assert HUSH not in str(refused.value)


def test_error_of_a_library__is_printed_without_its_passwords(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in (RunError, OSError, RuntimeError):

        def fail(_: object, kind: type[Exception] = kind, **__: object) -> None:
            raise kind(f"cannot open {ADDRESSES[0]} and {ADDRESSES[2]}")

        monkeypatch.setattr(cli, "app", fail)
        monkeypatch.setattr(sys, "argv", ["labelops", "stages"])
        with pytest.raises(SystemExit):
            cli.main()
        said = capfd.readouterr().err
        assert HUSH not in said
        assert "cannot open s3://***@bucket/x" in said


@pytest.fixture
def api() -> Iterator[tuple[str, list[str]]]:
    """A server that notes with which login it is asked."""
    logins: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            logins.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_port}/api", logins
    server.shutdown()
    thread.join()
    server.server_close()


def test_login_of_the_prefect_api__is_used(api: tuple[str, list[str]]) -> None:
    check_api(f"http://me%40home:{HUSH}@{api[0]}")
    assert api[1] == ["Basic " + base64.b64encode(f"me@home:{HUSH}".encode()).decode()]


def test_login_of_the_prefect_api__is_never_printed() -> None:
    for url in (f"http://me:{HUSH}@127.0.0.1:9/api", f"ftp://me:{HUSH}@127.0.0.1:9/api"):
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "run", "audit", "--data", "data", "--out", "run"],
            env=environ(PREFECT_API_URL=url, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        assert HUSH not in done.stdout + done.stderr
        assert "***@127.0.0.1:9/api" in done.stderr
        assert "Traceback" not in done.stderr
