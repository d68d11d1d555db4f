"""Oracle: the student of one process, up to the order of sums."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from labelops.nn.student import ALONE, Share
from tests.labelops.nn import two_processes

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="this torch is built without gloo, through which processes on CPUs talk",
)
def test_torchrun__two_processes_take_the_steps_of_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", two_processes.__file__, str(tmp_path)),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    # Both processes hold the same student, and so do those that resumed: bit for bit.
    same = "again-0", "again-1", "whole-0", "whole-1"
    assert sorted(files) == [*same[:2], "views-0", "views-1", *same[2:]]
    assert len({files[name] for name in same}) == 1
    assert files["views-0"] == files["views-1"]
    before = two_processes.student().state_dict()
    for name, views in (("whole-0", False), ("views-0", True)):
        found = safetensors.torch.load(files[name])
        alone, stored = two_processes.train(ALONE, views=views)
        assert len(stored) == 6
        for part, value in alone.state_dict().items():
            torch.testing.assert_close(found[part], value, atol=1e-6, rtol=0)
            assert (value - before[part]).abs().max() > 0.01


def test_share__batches_smaller_than_processes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"an item for each of 8 processes .* got batches of 7\. "):
        two_processes.train(Share(0, 8))
