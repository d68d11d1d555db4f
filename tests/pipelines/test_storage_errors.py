"""What a storage refuses is said plainly, soon, and as nobody's fault but whose it is."""

import gc
import http.server
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import pipelines.registry
import pipelines.run
from flows.ending import BUGS
from pipelines.errors import LabelopsError, StorageTrouble
from pipelines.recipe import parse_recipe
from pipelines.storage.store import ObjectStore
from tests.datasets import blobs, even, write_shards
from tests.toy import RECIPE

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    # Sessions with servers that are gone cannot take leave of them.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT = Path(__file__).resolve().parents[2]

XML = "<?xml version='1.0'?><Error><Code>{0}</Code><Message>{1}</Message></Error>"

ANSWERS = {
    "no permission": (403, "AccessDenied", "Access Denied", "the right to read, or to write"),
    "unknown key": (403, "InvalidAccessKeyId", "No such key id", "the right to read, or to write"),
    "wrong key": (403, "SignatureDoesNotMatch", "Bad signature", "the right to read, or to write"),
    "no bucket": (404, "NoSuchBucket", "The specified bucket does not exist", "an existing bucket"),
    "elsewhere": (400, "AuthorizationHeaderMalformed", "region is wrong", "the region"),
    "overloaded": (503, "ServiceUnavailable", "Try later", "expected to be read or written"),
    "broken": (500, "InternalError", "We failed", "expected to be read or written"),
}


@pytest.fixture
def answering() -> Iterator[Callable[[int, str, str], str]]:
    """Start a server that gives every request one answer."""
    servers: list[tuple[http.server.ThreadingHTTPServer, threading.Thread]] = []

    def start(status: int, code: str, message: str) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                body = XML.format(code, message).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = answer

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def run_command(*arguments: str, **more: str) -> tuple[subprocess.CompletedProcess[str], float]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_"))}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments],
        cwd=ROOT,
        env=kept | more,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, time.monotonic() - began


def said_plainly(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    for word in ("Traceback", "fault of labelops", "Unclosed", "Error:", "Exception"):
        assert word not in done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


KEYS = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import s3fs

    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    s3fs.S3FileSystem.clear_instance_cache()
    gc.collect()


@pytest.mark.usefixtures("keys")
@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("use", ["data", "out", "resume"])
def test_refusal_of_a_storage__is_said_with_place_and_remedy(
    answering: Callable[[int, str, str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    use: str,
) -> None:
    status, code, message, said = ANSWERS[name]
    monkeypatch.setenv("AWS_ENDPOINT_URL", answering(status, code, message))
    monkeypatch.setattr("pipelines.storage.store.PATIENCE_S", 0.5)
    data = str(write_shards(tmp_path / "src", blobs(60), even(60, 2)))
    recipe = parse_recipe('stages = ["source"]', name="short")
    calls: dict[str, Callable[[], object]] = {
        "data": lambda: pipelines.run.open_run(
            recipe, data="s3://box/x", out=str(tmp_path / "run")
        ),
        "out": lambda: pipelines.run.open_run(recipe, data=data, out="s3://box/x"),
        "resume": lambda: pipelines.run.resume("s3://box/x"),
    }
    with pytest.raises((LabelopsError, StorageTrouble)) as refused:
        calls[use]()
    if not (use == "resume" and name == "no bucket" and "folder of a run" in str(refused.value)):
        assert said in str(refused.value)
    assert "s3://box/x" in str(refused.value)
    assert "Errno" not in str(refused.value)
    assert not isinstance(refused.value.__cause__, BUGS)
    assert not (tmp_path / "run").exists()


def test_refused_command__ends_in_one_line(
    answering: Callable[[int, str, str], str], tmp_path: Path
) -> None:
    data = str(write_shards(tmp_path / "src", blobs(60), even(60, 2)))
    url = answering(403, "AccessDenied", "Access Denied")
    done, seconds = run_command(
        *("run", "audit", "--data", data, "--out", "s3://box/run"), AWS_ENDPOINT_URL=url, **KEYS
    )
    assert "the right to read, or to write, s3://box/run" in said_plainly(done)
    assert seconds < 60


@pytest.mark.slow
def test_storage_that_nobody_let_us_into_or_that_is_not_there__is_said_soon(
    tmp_path: Path,
) -> None:
    arguments = ("report", "s3://box/run")
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done, seconds = run_command(*arguments, **nowhere)
    assert "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in said_plainly(done)
    assert seconds < 60
    for url in ("http://127.0.0.1:9", "http://localhost.invalid"):
        done, seconds = run_command(*arguments, AWS_ENDPOINT_URL=url, **KEYS)
        line = said_plainly(done)
        assert "an answer was expected for s3://box/run" in line
        assert url in line
        assert seconds < 60


@pytest.mark.slow
@pytest.mark.usefixtures("keys")
def test_storage_that_is_silent__is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("pipelines.storage.store.READ_TIMEOUT_S", 2)
        store = ObjectStore("s3://box/run")
        began = time.monotonic()
        with pytest.raises(StorageTrouble, match="none came"):
            store.read_bytes("run.json")
        assert time.monotonic() - began < 40


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["before", "after"])
def test_run_on_a_storage_that_fails_every_fifth_time__gives_the_files_of_a_local_run(
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    # Before: the request was not carried out; after: it was, but its answer got lost.
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication

    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    data = write_shards(tmp_path / "src", blobs(), even(240, 3))
    recipe = parse_recipe(RECIPE, name="toy")
    pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "out"))
    dice, failed, real = random.Random(3), [], DomainDispatcherApplication.__call__

    def failing(app: Any, environ: dict[str, Any], start: Any) -> Any:
        if dice.random() >= 0.2:
            return real(app, environ, start)
        failed.append(environ["REQUEST_METHOD"])
        if lost == "after":
            list(real(app, environ, lambda *_: lambda data: None))
        start("503 Slow Down", [("Content-Type", "text/xml"), ("Connection", "close")])
        return [XML.format("ServiceUnavailable", "Try later").encode()]

    monkeypatch.setattr(DomainDispatcherApplication, "__call__", failing)
    pipelines.run.run(recipe, data=str(data), out=f"{bucket}/{lost}")
    monkeypatch.setattr(DomainDispatcherApplication, "__call__", real)
    assert failed.count("PUT") > 3
    store = ObjectStore(f"{bucket}/{lost}")
    for path in sorted((tmp_path / "out").rglob("part-*")):
        name = path.relative_to(tmp_path / "out").as_posix()
        assert store.read_bytes(name) == path.read_bytes(), name
