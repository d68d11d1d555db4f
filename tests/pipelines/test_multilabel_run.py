"""The recipe as a whole: stopped anywhere and given again it ends with the same bytes."""

import hashlib
from pathlib import Path

import pytest

import pipelines.run
import pipelines.stages.multilabel
from pipelines.decisions.engine import Engine
from pipelines.recipe import load_recipe
from tests.datasets import even, tagged, write_shards

N = 120


def source(folder: Path) -> str:
    return str(write_shards(folder / "src", tagged(N, n_classes=4)[0], even(N, 3)))


def run(data: str, out: Path) -> None:
    recipe = load_recipe("multilabel", ["decide_labels.min_class_size=2"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        pipelines.run.run(recipe, data=data, out=str(out))


def content(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.suffix in (".parquet", ".npz")
    }


@pytest.mark.parametrize(
    ("module", "step"),
    [
        (pipelines.stages.multilabel.lc, "scan"),
        (pipelines.stages.multilabel, "learn_beliefs"),
        (pipelines.stages.multilabel, "write_flags"),
        (Engine, "propose"),
        (Engine, "judge"),
        (Engine, "settle"),
    ],
)
def test_stopped_in_a_step__given_again_it_equals_an_uninterrupted_run(
    tmp_path: Path, module: object, step: str
) -> None:
    data, calls = source(tmp_path), 0
    real = getattr(module, step)

    def failing(*args: object) -> object:
        nonlocal calls
        calls += 1
        # The second shard, or the only result.
        if calls == 2 or step in ("learn_beliefs", "judge"):
            raise ValueError("stopped")
        return real(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, step, failing)
        with pytest.raises(Exception, match="stopped"):
            run(data, tmp_path / "stopped")
    run(data, tmp_path / "stopped")
    run(data, tmp_path / "straight")
    assert content(tmp_path / "stopped") == content(tmp_path / "straight")


def test_deleting_a_stage__undoes_it_and_what_came_after_is_made_again(tmp_path: Path) -> None:
    import shutil

    data, out = source(tmp_path), tmp_path / "out"
    run(data, out)
    before = content(out)
    for stage in ("multilabel", "decide_labels", "decisions", "dataset", "set_aside"):
        shutil.rmtree(out / stage, ignore_errors=True)
    run(data, out)
    assert content(out) == before
