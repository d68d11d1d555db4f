"""Files that a stage leaves when a run ends: where it declared them, verified, and made again."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

import pipelines.run
from pipelines.core.stage import Context
from pipelines.errors import RunError
from pipelines.recipe import parse_recipe
from pipelines.registry import STAGES
from pipelines.verify import verify_run
from tests import toy
from tests.datasets import blobs, write_shards

FILES = ("README.md", "n.txt")


def notes(ctx: Context) -> Mapping[str, bytes]:
    n = int(ctx.own("count")["n"])
    return {"n.txt": b"%d" % n, "toy_notes/README.md": b"# Notes", "toy_notes/n.txt": b"%d\n" % n}


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(STAGES, "toy", "tests.toy:STAGE")
    stage = replace(toy.STAGE, files_at_end=notes, folders=("toy_extra", "toy_notes"))
    monkeypatch.setattr(toy, "STAGE", stage)
    write_shards(tmp_path / "data", blobs(60), [25, 35])
    return tmp_path / "out"


def run(out: Path) -> None:
    data = out.parent / "data"
    pipelines.run.run(parse_recipe(toy.RECIPE, name="x"), data=str(data), out=str(out))


def test_files__lie_where_the_stage_says_and_are_verified(out: Path) -> None:
    run(out)
    notes = out / "toy_notes"
    assert sorted(path.name for path in notes.iterdir()) == [*FILES]
    assert (notes / "n.txt").read_bytes() == (out / "toy" / "n.txt").read_bytes() + b"\n"
    assert verify_run(str(out)).damage == ()
    for leaf in ("n.txt", "other.txt"):
        (notes / leaf).write_bytes(b"0")
    damage = verify_run(str(out)).damage
    assert {d.name for d in damage} == {"toy_notes/n.txt", "toy_notes/other.txt"}
    (notes / "other.txt").unlink()
    run(out)
    assert verify_run(str(out)).damage == ()


def test_files__of_a_run_killed_at_its_end_are_no_strays_and_are_made_again(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("pipelines.report.collect", lambda *args, **rest: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(out)
    (out / "toy_notes" / ".tmp-1").write_bytes(b"half")
    found = verify_run(str(out))
    assert (found.damage, found.is_finished) == ((), False)
    run(out)
    assert sorted(path.name for path in (out / "toy_notes").iterdir()) == [*FILES]
    assert verify_run(str(out)).is_finished


def test_files__in_a_folder_that_is_not_declared_are_refused(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = replace(toy.STAGE, files_at_end=lambda ctx: {"elsewhere/n.txt": b"1"})
    monkeypatch.setattr(toy, "STAGE", stage)
    with pytest.raises(RunError, match="stage 'toy': a file in a folder of its own was expected"):
        run(out)
    assert not (out / "elsewhere").exists()
