"""What holds for every test: no network, and nothing is written outside folders of the test."""

import gc
import ipaddress
import os
import signal
import socket
import tempfile
from functools import partialmethod
from pathlib import Path
from types import CodeType
from typing import Any

import jinja2
import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# The same examples on every run, so that a red test is red for everybody; no deadline, because
# two busy cores and a first compilation are slow without being wrong.
settings.register_profile("suite", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("suite")

# Set before anything is imported that reads them once.
for name, value in {
    "DO_NOT_TRACK": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_OFFLINE": "1",
    "MPLBACKEND": "agg",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
}.items():
    os.environ[name] = value


def pytest_configure(config: pytest.Config) -> None:
    """Caches and state of libraries go to a folder of this run, not to the user's home.

    A hook, not a fixture: modules of tests import these libraries while they are collected.
    """
    folder = tempfile.TemporaryDirectory(prefix="labelops-tests-", ignore_cleanup_errors=True)
    config.add_cleanup(folder.cleanup)
    for name in ("HF_HOME", "PREFECT_HOME"):
        os.environ[name] = str(Path(folder.name) / name.lower())
    os.environ.setdefault("MPLCONFIGDIR", str(Path(folder.name) / "matplotlib"))
    # A shell ignores Ctrl-C for what it starts in the background, and what that starts inherits it.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """What was imported stays: collecting garbage need not look at it again and again."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that processes that share the files end together."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path.name not in FIRST, item.path not in slow))


FIRST = ("test_cuts.py", "test_style.py", "test_storage_errors.py")
"""One compiles what all others then need, meanwhile the other two need nothing of it."""


def _is_local(address: object) -> bool:
    """Whether a socket address names this machine; paths of Unix sockets do."""
    if not isinstance(address, tuple):
        return True
    host = str(address[0])
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return host == socket.gethostname()


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Any:
    """A connection to anywhere but this machine fails at once and by name."""
    with pytest.MonkeyPatch.context() as patch:
        for method in ("connect", "connect_ex"):
            real = getattr(socket.socket, method)

            def guarded(self: socket.socket, address: Any, _real: Any = real) -> Any:
                # Datagrams may: "connecting" one sends nothing; so Dask finds its own address.
                if self.type == socket.SOCK_STREAM and not _is_local(address):
                    raise OSError(f"tests connect to this machine only; got {address!r}")
                return _real(self, address)

            patch.setattr(socket.socket, method, guarded)
        yield


class _Templates(jinja2.BytecodeCache):
    """Compiled templates: a small run takes no longer than the compilation of its report."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        bucket.code = self.held.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: jinja2.bccache.Bucket) -> None:
        assert bucket.code is not None
        self.held[bucket.key, bucket.checksum] = bucket.code


@pytest.fixture(scope="session", autouse=True)
def _templates_are_compiled_once() -> Any:
    """Runs of tests make hundreds of reports from the same templates."""
    with pytest.MonkeyPatch.context() as patch:
        real = partialmethod(jinja2.Environment.__init__, bytecode_cache=_Templates())
        patch.setattr(jinja2.Environment, "__init__", real)
        yield


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """The folder of shards that comes with the project."""
    return ROOT / "sample_data" / "fashion_mnist"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets that may not be shipped; tests that want them skip where they are absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder of shared data sets beside the checkout")
    return folder
