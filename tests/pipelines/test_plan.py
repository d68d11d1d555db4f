"""The plan reads footers only, writes nothing, and tells what a run then does."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

import pipelines.registry
import pipelines.run
from pipelines.errors import RunError
from pipelines.plan import plan
from pipelines.recipe import parse_recipe
from tests.datasets import blobs, even, write_shards
from tests.toy import RECIPE


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")


@pytest.mark.usefixtures("toy")
def test_plan__reads_no_data_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_shards(tmp_path / "src", blobs(), even(240, 3))

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("data was read")

    for method in ("read", "read_row_group", "read_row_groups", "iter_batches"):
        monkeypatch.setattr(pq.ParquetFile, method, refuse)
    made = plan(parse_recipe(RECIPE, name="toy"), data=str(data), out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
    assert [(stage.name, stage.action) for stage in made.stages] == [
        ("source", "run"),
        ("toy", "run"),
    ]
    assert "240 items in 3 shards" in made.text()


@pytest.mark.usefixtures("toy")
def test_plan__of_a_finished_and_of_a_changed_run(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(), even(240, 3))
    recipe = parse_recipe(RECIPE, name="toy")
    pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "out"))
    made = plan(recipe, data=str(data), out=str(tmp_path / "out"))
    assert [stage.action for stage in made.stages] == ["keep", "keep"]
    changed = parse_recipe(RECIPE, name="toy", overrides=["toy.shift=3"])
    with pytest.raises(RunError, match="settings or version differ"):
        plan(changed, data=str(data), out=str(tmp_path / "out"))
    with pytest.raises(RunError, match=r"toy\.shift was 0 and is 3"):
        pipelines.run.run(changed, data=str(data), out=str(tmp_path / "out"))
