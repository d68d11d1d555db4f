"""Where a flow run is recorded: the API that is configured, or one embedded server for this run."""

import contextlib
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.errors import RunError
from pipelines.storage.address import redact

if TYPE_CHECKING:
    import urllib.request

STARTUP_S = 120.0
"""Deadline for the embedded server: seconds on idle cores, half a minute on very busy ones."""

ROOM_BYTES = 32_000_000
"""What a server writes for a run of some stages, with room to spare."""

ANSWER_S = 15.0
"""Deadline for a configured API to answer at all."""


def configured_api(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the URL of the Prefect API that the user has configured, or None.

    Looks where Prefect looks, the environment and the active profile, without importing it: that
    takes two seconds, and most runs have no use for it.
    """
    if url := environ.get("PREFECT_API_URL", "").strip():
        return url
    home = Path(environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    path = Path(environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").expanduser()
    try:
        profiles = tomllib.loads(path.read_text(encoding="utf-8"))
        name = environ.get("PREFECT_PROFILE") or profiles.get("active")
        return str(profiles["profiles"][name]["PREFECT_API_URL"]) or None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def quiet(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that keep Prefect from reporting home and from talking over our output.

    Whatever the user has set wins, but for telemetry, which stays off.
    """
    wanted = {
        # Ours is the message for people; the records themselves go to the API in full.
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_COLORS": "false",
        "PREFECT_CLI_PROMPT": "false",
    }
    settings = {name: value for name, value in wanted.items() if name not in environ}
    return settings | {"DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}


def default_template() -> Path | None:
    """Return where an empty database is kept between runs: beside the code that made it.

    In the virtual environment, so that it can be trusted as much as that, goes with it, and no
    folder of the user is touched; None outside of one.
    """
    if sys.prefix == sys.base_prefix:
        return None
    return Path(sys.prefix, ".cache", "labelops", f"prefect-{version('prefect')}.db")


class EmbeddedServer:
    """A Prefect server that lives as long as this object, or this process.

    Starting returns at once, so that the caller can import and plan meanwhile; `wait` before the
    first request. State is kept in a temporary folder that only this user can read and that is
    removed with the server. It listens on the loopback interface and asks for a password.

    Parameters
    ----------
    startup_s
        Deadline for `wait`, counted from here.
    template
        File in which an empty database is kept for the next server; saves most of its start.

    Attributes
    ----------
    home : its folder.
    url : where its API will be.
    settings : environment variables that lead Prefect's client to it.
    process : its process.
    """

    def __init__(self, startup_s: float = STARTUP_S, template: Path | None = None) -> None:
        self.startup_s = startup_s
        self._started = time.monotonic()
        login = f"labelops:{secrets.token_urlsafe(24)}"
        self.home = _make_home()
        environ = {
            name: value
            for name, value in os.environ.items()
            # It talks to nobody: no proxy is of use to it.
            if not name.lower().endswith("_proxy")
            and (not name.startswith("PREFECT_") or name.startswith("PREFECT_LOGGING_"))
        }
        environ |= {
            "DO_NOT_TRACK": "1",
            "PREFECT_HOME": self.home,
            "PREFECT_LOGGING_LEVEL": "ERROR",
            "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_AUTH_STRING": login,
            "PREFECT_UI_ENABLED": "false",
            # Forms for the pages that this server does not show; two seconds of its start.
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        }
        self._log = Path(self.home, "server.log")
        # Bound here and handed over, so that nobody else can take the port in between.
        listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        self.settings = {
            "PREFECT_HOME": self.home,
            "PREFECT_API_URL": self.url,
            "PREFECT_API_AUTH_STRING": login,
        }
        script = Path(__file__).with_name("server_process.py")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                # By path and with -P: neither the user's folder nor this package is searched for
                # modules. In the server's home no .env or prefect.toml of the user is found.
                [
                    *(sys.executable, "-P", str(script), str(listener.fileno()), self.home),
                    *([] if template is None else [str(template)]),
                ],
                pass_fds=[listener.fileno()],
                cwd=self.home,
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # Ctrl-C in the terminal is for the run, which then still has a server to report to.
                start_new_session=True,
            )
        listener.close()

    def wait(self) -> None:
        """Wait until the server answers.

        Raises
        ------
        RunError
            If it ends, or is not up before the deadline.
        """
        assert self.process.stdout is not None
        left = self.startup_s - (time.monotonic() - self._started)
        ready, _, _ = select.select([self.process.stdout], [], [], max(left, 0.0))
        line = self.process.stdout.readline() if ready else b""
        if not line.strip():
            seconds = time.monotonic() - self._started
            said = self._log.read_text(errors="replace").strip()[-600:] or "nothing"
            free = shutil.disk_usage(self.home).free
            self.close()
            if free < ROOM_BYTES:
                raise _no_room(os.path.dirname(self.home), f"{free / 1e6:.0f} MB are free")
            raise RunError(
                f"embedded Prefect server: an answer within {self.startup_s:.0f} s was expected, "
                f"{'it ended' if ready else 'none came'} after {seconds:.0f} s; it said: {said}. "
                "Try again when the machine is less busy, run without --prefect, or set "
                "PREFECT_API_URL to a running server"
            )

    def close(self) -> None:
        """Take the server down and remove its folder; harmless when repeated."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        shutil.rmtree(self.home, ignore_errors=True)

    def __enter__(self) -> "EmbeddedServer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _make_home() -> str:
    """Make a folder that only this user can read, where there is room for a server's state."""
    try:
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if free < ROOM_BYTES:
            raise _no_room(folder, f"{free / 1e6:.0f} MB are free")
        # Created with mode 0700.
        return tempfile.mkdtemp(prefix="labelops-prefect-")
    except OSError as err:
        raise _no_room(os.environ.get("TMPDIR", "/tmp"), str(err)) from err


def _no_room(folder: str, problem: str) -> RunError:
    return RunError(
        f"embedded Prefect server: a folder for temporary files was expected in {folder} that can "
        f"be written and has {ROOM_BYTES / 1e6:.0f} MB of room, got: {problem}. Make room, set "
        "TMPDIR to another folder, or run without --prefect"
    )


def check_api(url: str) -> None:
    """Check that a configured API answers.

    Raises
    ------
    RunError
        If it does not, within `ANSWER_S`.
    """
    import urllib.error
    import urllib.request

    if not url.startswith(("http://", "https://")):
        raise RunError(
            f"PREFECT_API_URL: an address beginning with http:// or https:// was expected, got "
            f"{redact(url)!r}. Correct it, or unset it to run without Prefect"
        )
    try:
        with urllib.request.urlopen(_health(url), timeout=ANSWER_S):
            return
    except urllib.error.HTTPError:
        # It answers; whether it lets us in, Prefect's client says better.
        return
    except (OSError, ValueError) as err:
        reason = getattr(err, "reason", err)
        raise RunError(
            f"Prefect API: an answer at {redact(url)} within {ANSWER_S:.0f} s was expected, none "
            f"came ({reason}). Start the server, correct PREFECT_API_URL, or run with --no-prefect"
        ) from err


def _health(url: str) -> "urllib.request.Request":
    """Return the request for an API's health; a login in its address goes into a header."""
    import base64
    import urllib.request
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    plain = parts._replace(netloc=host, path=f"{parts.path.rstrip('/')}/health").geturl()
    request = urllib.request.Request(plain)
    if at:
        login = base64.b64encode(unquote(user).encode()).decode()
        request.add_header("Authorization", f"Basic {login}")
    return request


def flush() -> None:
    """Send what Prefect's client still holds back (logs, events) while there is a server."""
    if "prefect" not in sys.modules:
        return
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (APILogWorker, EventsWorker):
        with contextlib.suppress(Exception):
            worker.drain_all(timeout=5)


@contextlib.contextmanager
def environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Set (or with None, unset) environment variables for a while; also for new processes."""
    before = {name: os.environ.get(name) for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
