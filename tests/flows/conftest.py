"""A small data set, recipes for it, the command line as a process, and one Prefect server."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.server import EmbeddedServer, environment
from pipelines import registry

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).with_name("toy.py")

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four shards of unequal size: feature vectors around three class means, some labels wrong."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(7)
    first = 0
    for shard, n in enumerate((90, 15, 120, 75)):
        true = rng.integers(0, 3, n)
        features = rng.normal(size=(n, 8)).astype(np.float32)
        features[:, :3] += 4 * np.eye(3, dtype=np.float32)[true]
        given = np.where(rng.random(n) < 0.1, (true + 1) % 3, true)
        table = pa.table(
            {
                "item_id": [f"item-{first + row:04d}" for row in range(n)],
                "features": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), 8),
                "label": [("ant", "bee", "cow")[k] for k in given],
            }
        )
        pq.write_table(table, folder / f"s{shard}.parquet")
        first += n
    return folder


@pytest.fixture(scope="session")
def nap_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe whose second stage takes as long as it is told to."""
    path = tmp_path_factory.mktemp("recipe") / "nap.toml"
    path.write_text('stages = ["source", "nap"]\n')
    return path


def environ(**more: str) -> dict[str, str]:
    """Return an environment without the caller's Prefect, and with a home of the test's own."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "COV_"))}
    own = {"PREFECT_HOME": os.environ["PREFECT_HOME"], "OMP_NUM_THREADS": "1"}
    return kept | own | compiled() | more


def compiled() -> dict[str, str]:
    """Let processes keep what they compile: a thousand modules take longer than all else here.

    Where it usually lies, so that what is compiled already is used; only where this process is not
    to write there, in a folder of its own.
    """
    if not sys.dont_write_bytecode:
        return {}
    folder = Path(os.environ["PREFECT_HOME"]).with_name("pycache")
    return {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(folder)}


def launch(
    *arguments: str | Path, program: Path | None = TOY, **more: str
) -> subprocess.Popen[str]:
    """Start the command line (with the stage that sleeps) as a process."""
    start = [str(program)] if program else ["-m", "flows.cli"]
    return subprocess.Popen(
        [sys.executable, *start, *map(str, arguments)],
        cwd=ROOT,
        env=environ(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="session")
def labelops() -> Command:
    """Run the command line to its end."""

    def call(
        *arguments: str | Path, program: Path | None = TOY, **more: str
    ) -> subprocess.CompletedProcess[str]:
        process = launch(*arguments, program=program, **more)
        out, err = process.communicate(timeout=200)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    return call


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command line in this process, which saves its imports: two seconds a call."""
    from flows import cli
    from tests.flows import toy

    monkeypatch.setitem(registry.STAGES, "nap", "tests.flows.toy:STAGE")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert toy.STAGE.name == "nap"

    def call(*arguments: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setattr(sys, "argv", ["labelops", *map(str, arguments)])
        for name, value in more.items():
            monkeypatch.setenv(name, value)
        capfd.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        caught = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code, caught.out, caught.err)

    return call


def wait_for(
    condition: Callable[[], bool],
    seconds: float = 60.0,
    what: str = "condition",
    of: subprocess.Popen[str] | None = None,
) -> None:
    """Wait until something holds; fail when it does not in time, or who should do it has ended."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        if of is not None and of.poll() is not None and not condition():
            raise AssertionError(f"{what}: never came; {of.communicate()}")
        time.sleep(0.05)


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all it has started."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def is_gone(process: psutil.Process) -> bool:
    """Say whether a process has ended (a zombie that nobody has collected has)."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers of these tests keep their empty database."""
    return tmp_path_factory.mktemp("template") / "kept" / "prefect.db"


@pytest.fixture(scope="session")
def server(template: Path) -> Iterator[EmbeddedServer]:
    """One Prefect server for all tests of this folder that do not need one of their own."""
    with environment(compiled()), EmbeddedServer(180, template) as server:
        server.wait()
        yield server


@pytest.fixture(scope="session")
def prefect_url(server: EmbeddedServer) -> dict[str, str]:
    """Settings that lead to the server."""
    return server.settings
