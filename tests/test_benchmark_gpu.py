"""The script of GPU checks: what it does on the CPU, and that it finds an answer that is wrong."""

import importlib
import json
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("gpu")


def table_in(text: str) -> dict[str, str]:
    lines = json.loads(text.splitlines()[-1])["lines"]
    return {line["name"]: line["verdict"] for line in lines}


def test_dry_run__compares_every_loss_and_head(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu.main(["--dry-run", "--sections", "losses", "heads"]) == 0
    found = table_in(capsys.readouterr().out)
    assert {"nkd, derivative", "hypergradient", "stored, decoded at 4", "heads, logistic"} <= set(
        found
    )
    assert set(found.values()) == {"ok", "-"}


@pytest.mark.parametrize("fault", ["value", "nan", "shape", "crash"])
def test_an_answer_that_is_wrong__is_found(
    gpu: ModuleType,
    fault: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = []

    def wrong(z: torch.Tensor, mixed: torch.Tensor, is_other: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        right = (z * mixed).sum(dim=1)
        if len(calls) < 2:
            return right
        if fault == "crash":
            raise RuntimeError("no kernel image")
        if fault == "shape":
            return right[1:]
        # As much more than is tolerated of the largest as makes no doubt.
        factor = torch.nan if fault == "nan" else 1 + 2 * gpu.FLOAT32
        return right * torch.where(right == right.max(), factor, 1.0)

    monkeypatch.setattr(gpu.mixing, "ranked", wrong)
    assert gpu.main(["--dry-run", "--sections", "losses", "heads"]) == 1
    found = table_in(capsys.readouterr().out)
    bad = {name for name, verdict in found.items() if verdict == "FAILED"}
    assert bad & {"ranked, value", "losses"}
    # The other sections are done all the same.
    assert found["heads, softmax"] == "ok"


def test_same__is_relative_to_the_largest_value(gpu: ModuleType) -> None:
    bench = gpu.Bench(gpu.CPU, is_dry=True)
    a = np.array([100.0, 0.0])
    for off, tolerance in ((0.9, 0.01), (1.1, 0.01), (0.0, 0.0)):
        bench.same("x", a, a + np.array([0.0, off]), tolerance)
    bench.same("x", np.zeros(0), np.zeros(0), 0.0)
    assert [line.verdict for line in bench.lines] == ["ok", "FAILED", "ok", "ok"]


def test_rate__below_the_budget_is_no_error(gpu: ModuleType) -> None:
    bench = gpu.Bench(gpu.CPU, is_dry=True)
    bench.rate("x", [9.0, 1.0, 1.0], [1.0, 1.04, 1.03], 10, "items")
    bench.rate("x", [1.0], [1.06], 10, "items")
    assert [line.verdict for line in bench.lines] == ["ok", "below"]
    assert bench.lines[1].figures["items a second"] == pytest.approx(10 / 1.06)


def test_sections__that_would_not_be_done_in_time_are_left_out(
    gpu: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    assert gpu.main(["--dry-run", "--limit", "0"]) == 0
    assert time.monotonic() - began < 1
    assert table_in(capsys.readouterr().out) == dict.fromkeys(gpu.SECTIONS, "left out")


@pytest.mark.slow
def test_script__without_a_gpu_says_so_in_a_line() -> None:
    if torch.cuda.is_available():
        pytest.skip("a CUDA device is here")
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("gpu: no CUDA device here; nothing was checked.")
    assert done.stdout.count("\n") == 1
