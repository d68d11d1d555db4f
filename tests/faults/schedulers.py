"""Schedulers and workers as processes of their own, as on a cluster."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def _start(
    tool: str, *arguments: str, env: Mapping[str, str], path: Path
) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.{tool}", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path), **env},
    )


@contextlib.contextmanager
def scheduler(
    folder: Path, *, protocol: str = "tcp", env: Mapping[str, str] | None = None
) -> "Iterator[tuple[str, subprocess.Popen[bytes]]]":
    """Give the address of a scheduler, and its process."""
    file = folder / "scheduler.json"
    file.unlink(missing_ok=True)
    process = _start(
        "dask_scheduler",
        *("--host", "127.0.0.1", "--port", "0", "--dashboard-address", "127.0.0.1:0"),
        *("--protocol", protocol, "--scheduler-file", str(file)),
        env=env or {},
        path=ROOT,
    )
    try:
        deadline = time.monotonic() + 60
        while not file.exists() or not file.read_text():
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        yield json.loads(file.read_text())["address"], process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def worker(
    address: str, *, path: Path = ROOT, env: Mapping[str, str] | None = None
) -> "Iterator[subprocess.Popen[bytes]]":
    """Keep a worker that finds the project's code under a path."""
    process = _start(
        "dask_worker",
        *(address, "--nthreads", "1", "--no-dashboard", "--no-nanny"),
        *("--host", "127.0.0.1", "--death-timeout", "20"),
        env=env or {},
        path=path,
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
