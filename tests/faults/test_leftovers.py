"""What a killed process was writing does not stay behind."""

from pathlib import Path

import pytest

import pipelines.registry
import pipelines.run
from pipelines.recipe import parse_recipe
from tests.datasets import blobs, write_shards
from tests.toy import RECIPE


@pytest.mark.parametrize("folder", ["", "toy", "toy/_results", "source/_results", "toy_extra"])
def test_temporary_file_of_a_killed_run__is_gone_after_the_next(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    data = write_shards(tmp_path / "data", blobs(60), [20, 40])
    for _ in range(2):
        pipelines.run.run(
            parse_recipe(RECIPE, name="toy"), data=str(data), out=str(tmp_path / "out")
        )
        left = [path.name for path in (tmp_path / "out").rglob(".tmp-*")]
        assert left == []
        (tmp_path / "out" / folder / ".tmp-graph.npz-c400f04728fd").write_bytes(b"half")
