"""Runs on local worker processes: what the user reads is what a direct run says, and no more."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.flows.conftest import ROOT, TOY, Command, environ, family, is_gone, wait_for


def without_shard(message: str) -> str:
    before, _, after = message.partition(", shard ")
    return before + after.partition(".parquet)")[2]


@pytest.mark.parametrize("fail", ["data", "bug", "io", "memory"])
def test_error__is_that_of_a_direct_run(
    inside: Command, labelops: Command, shards: Path, nap_recipe: Path, tmp_path: Path, fail: str
) -> None:
    def command(out: str) -> list[str | Path]:
        chosen = ["--set", f"nap.fail={fail}"]
        return ["run", nap_recipe, "--data", shards, "--out", tmp_path / out, *chosen]

    direct = inside(*command("run"))
    began = time.monotonic()
    done = labelops(*command("run"), "--workers", "2")
    assert time.monotonic() - began < 90
    assert done.returncode == direct.returncode == 1
    said, expected = done.stderr.splitlines()[-1], direct.stderr.splitlines()[-1]
    assert said.startswith("labelops: error: ")
    # Which of the shards fails first is left to chance.
    cut = [
        text.partition(", shard ")[0] + text.partition(".parquet)")[2] for text in (said, expected)
    ]
    assert cut[0] == cut[1]
    # A trace is for mistakes of ours, and stands before the message; Dask adds none of its own.
    assert ("Traceback" in done.stderr) == (fail == "bug")
    assert ("fault of labelops" in said) == (fail == "bug")
    assert "distributed." not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("when", ["starting", "at work"])
def test_signal_to_all_processes__ends_them_without_a_trace(
    shards: Path, nap_recipe: Path, tmp_path: Path, number: signal.Signals, when: str
) -> None:
    out = tmp_path / "run"
    options = ["--workers", "2", "--set", "nap.seconds=600"]
    process = subprocess.Popen(
        [sys.executable, TOY, "run", nap_recipe, "--data", shards, "--out", out, *options],
        cwd=ROOT,
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    sign = out / ("run.json" if when == "starting" else "_manifests/source.json")
    wait_for(sign.exists, 120, what=when, of=process)
    # Workers are processes that are just being started, or have a shard in hand.
    time.sleep(1.5)
    processes = family(process.pid)
    # As a terminal does, and a supervisor.
    os.killpg(process.pid, number)
    began = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert time.monotonic() - began < 30
    word = "stopped" if number == signal.SIGINT else "terminated"
    assert stderr.splitlines()[-1] == (
        f"labelops: {word}. Finished shards are kept; the same command goes on from there"
    )
    assert "Traceback" not in stderr
    assert "KeyboardInterrupt" not in stderr
    wait_for(lambda: all(map(is_gone, processes)), 20, "end of every process")
