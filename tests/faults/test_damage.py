"""Damage of any kind to any file of a run: noticed, named with its remedy, and never shipped."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import pipelines.core.reader
import pipelines.run
from pipelines.core.lock import locked
from pipelines.core.state import load_run
from pipelines.errors import CorruptShardError, LabelopsError, LockedError, RunError
from pipelines.recipe import load_recipe
from pipelines.storage.seal import dump_sealed, load_sealed
from pipelines.storage.store import LocalStore
from pipelines.verify import verify_run
from tests.faults import damage

FLIPS = 12
"""Of each run; `make bitflips` does 400."""


class Runs:
    """A finished run, stopped ones, a finished one of other settings, and their data."""

    def __init__(self, folder: Path) -> None:
        self.data = damage.make_data(folder / "data")
        self.folders = {"finished": damage.make_run(self.data, folder / "finished")}
        for name, stop in damage.STOPS.items():
            self.folders[name] = damage.make_run(self.data, folder / name, stop)
        self.wanted = damage.digests(self.folders["finished"])
        self.other = damage.make_run(
            damage.make_data(folder / "other data", seed=1), folder / "other"
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copy(runs: Runs, tmp_path: Path) -> Callable[[str], Path]:
    def of(name: str) -> Path:
        return Path(shutil.copytree(runs.folders[name], tmp_path / name))

    return of


def test_untouched__is_whole_and_going_on_gives_the_same_files(
    runs: Runs, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    for name in runs.folders:
        found = verify_run(str(copy(name)))
        assert found.damage == ()
        assert found.is_finished == (name == "finished")
        assert found.text().startswith(f"{tmp_path / name}: intact. {found.n_files} files of ")
        pipelines.run.resume(str(tmp_path / name))
        assert damage.digests(tmp_path / name) == runs.wanted
        assert verify_run(str(tmp_path / name)).is_finished


def test_verify__counts_every_file_there_is_and_changes_none(
    runs: Runs, copy: Callable[[str], Path]
) -> None:
    out = copy("finished")
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name != ".lock"}
    assert verify_run(str(out)).n_files == len(damage.files_of(out))
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.name != ".lock"} == before
    assert (out / ".lock").read_bytes() == b""


@pytest.mark.parametrize("harm", sorted(damage.HARMS))
@pytest.mark.parametrize("name", ["finished", *damage.STOPS])
def test_harm_to_any_file__is_noticed_and_nothing_wrong_comes_out(
    runs: Runs, name: str, harm: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng([len(name), len(harm)])
    there = damage.files_of(runs.folders[name], lost=harm == "lose")
    for position in rng.permutation(len(there))[: FLIPS if harm == "flip" else FLIPS // 3]:
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(runs.folders[name], tmp_path / "copy")
        damage.HARMS[harm](tmp_path / "copy" / there[position], rng)
        found = damage.try_out(tmp_path / "copy", runs.wanted, runs.data, tmp_path / "resumed")
        assert found.noticed.damage, there[position]
        assert found.after_resume in (None, True), there[position]
        assert found.after_remedy in (None, True), (there[position], found.noticed.text())


@pytest.mark.parametrize(
    "file",
    [
        *("run.json", "recipe.toml", "README.md", "report.html", "summary.json", "timings.json"),
        *("_manifests/_files.json", "_manifests/infer.json", "_manifests/dataset.json"),
        *("dataset/part-00001.parquet", "set_aside/part-00000.parquet"),
        *("decisions/part-00002.parquet", "quarantine/infer-part-00000.parquet"),
        *("decide/_results/outcome.npz", "neighbours/_results/graph.npz"),
    ],
)
@pytest.mark.parametrize("harm", ["flip", "lose"])
def test_every_kind_of_file_of_a_finished_run__is_missed_and_made_again(
    runs: Runs, file: str, harm: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    out = copy("finished")
    damage.HARMS[harm](out / file, np.random.default_rng(len(file)))
    if file == "run.json" and harm == "lose":
        with pytest.raises(RunError, match=r"with run\.json\) was expected"):
            verify_run(str(out))
        again = load_recipe(str(out / "recipe.toml"))
        pipelines.run.run(again, data=str(runs.data), out=str(out))
        assert damage.digests(out) == runs.wanted
        return
    found = damage.try_out(out, runs.wanted, runs.data, tmp_path / "resumed")
    assert file in {entry.name for entry in found.noticed.damage} or harm == "lose"
    assert found.noticed.damage
    assert found.after_resume in (None, True)
    assert found.after_remedy in (None, True)
    assert verify_run(str(tmp_path / "resumed" if found.after_resume else out)).damage == ()


# -- files that are whole, but not the right ones ------------------------------------------------


def swap(one: Path, other: Path) -> None:
    here, there = one.read_bytes(), other.read_bytes()
    one.write_bytes(there)
    other.write_bytes(here)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("finished", "dataset/part-00000.parquet", "dataset/part-00001.parquet"),
        ("finished", "decide/part-00000.parquet", "decide/part-00002.parquet"),
        ("finished", "dataset/part-00000.parquet", "set_aside/part-00000.parquet"),
        ("finished", "_manifests/infer.json", "_manifests/decide.json"),
        ("finished", "decide/_results/gate.npz", "decide/_results/coarse.npz"),
        ("finished", "summary.json", "timings.json"),
        ("finished", "_manifests/_files.json", "timings.json"),
        ("finished", "_manifests/infer.json", "summary.json"),
        ("finished", "run.json", "summary.json"),
        ("decisions", "decide/_done/gate.json", "decide/_commits/propose/00000.json"),
        ("decisions", "_manifests/infer.json", "timings.json"),
        ("decisions", "decide/_commits/propose/00000.json", "decide/_commits/propose/00001.json"),
        ("decisions", "decide/_results/gate.npz", "decide/_results/coarse.npz"),
        ("decisions", "decide/_done/gate.json", "decide/_done/coarse.json"),
    ],
)
def test_swapped_files__are_noticed(
    runs: Runs, name: str, one: str, other: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    out = copy(name)
    swap(out / one, out / other)
    found = damage.try_out(out, runs.wanted, runs.data, tmp_path / "resumed")
    assert found.noticed.damage
    assert found.after_resume in (None, True)
    assert found.after_remedy in (None, True)


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("finished", "_manifests/confident.json"),
        ("finished", "_manifests/_files.json"),
        ("finished", "run.json"),
        ("finished", "decide/_results/outcome.npz"),
        ("finished", "confident/part-00000.parquet"),
        ("decisions", "_manifests/infer.json"),
        ("decisions", "confident/_results/cuts.npz"),
    ],
)
def test_file_of_another_run__is_noticed(
    runs: Runs, name: str, files: str, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    out = copy(name)
    (out / files).write_bytes((runs.other / files).read_bytes())
    found = damage.try_out(out, runs.wanted, runs.data, tmp_path / "resumed")
    assert found.noticed.damage
    assert found.after_resume in (None, True)
    assert found.after_remedy in (None, True)


def test_unfinished_stage_of_another_run__is_made_again(
    runs: Runs, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    data = runs.other.parent / "other data"
    other = damage.make_run(data, tmp_path / "other", damage.STOPS["decisions"])
    out = copy("decisions")
    shutil.rmtree(out / "decide")
    shutil.copytree(other / "decide", out / "decide")
    assert any("another" in entry.what for entry in verify_run(str(out)).damage)
    pipelines.run.resume(str(out))
    assert damage.digests(out) == runs.wanted


def test_stage_folder_gone__is_noticed_and_made_again(
    runs: Runs, copy: Callable[[str], Path], tmp_path: Path
) -> None:
    out = copy("finished")
    shutil.rmtree(out / "confident")
    found = verify_run(str(out))
    assert [(entry.name, entry.stage) for entry in found.damage] == [("confident/", "confident")]
    damage.remedied(out, found, runs.data)
    assert damage.digests(out) == runs.wanted
    assert verify_run(str(out)).damage == ()


@pytest.mark.parametrize("place", ["dataset/part-00007.parquet", "notes.txt", "_manifests/x.json"])
def test_file_that_nobody_wrote__is_noticed_and_may_go(
    runs: Runs, place: str, copy: Callable[[str], Path]
) -> None:
    out = copy("finished")
    (out / place).write_bytes((out / "dataset/part-00000.parquet").read_bytes())
    found = verify_run(str(out))
    assert [(entry.name, entry.delete) for entry in found.damage] == [(place, place)]
    damage.remedied(out, found, runs.data)
    assert verify_run(str(out)).damage == ()


def test_lost_item__is_noticed_even_if_all_checksums_fit(
    runs: Runs, copy: Callable[[str], Path]
) -> None:
    out = copy("finished")
    path = out / "_manifests" / "infer.json"
    manifest = load_sealed(path.read_bytes())
    shard = manifest["maps"][0]["shards"][0]
    shard["rejected"], shard["reasons"] = [], {}
    path.write_bytes(dump_sealed(manifest, indent=None))
    found = verify_run(str(out))
    assert "do not add up" in found.text()


# -- what is said --------------------------------------------------------------------------------


def test_resume_of_a_damaged_stage__names_file_stage_and_remedy(
    runs: Runs, copy: Callable[[str], Path]
) -> None:
    out = copy("finished")
    damage.flip(out / "decisions/part-00001.parquet", np.random.default_rng(0))
    for again in (pipelines.run.resume, pipelines.run.report_again):
        with pytest.raises(CorruptShardError) as refused:
            again(str(out))
        assert "stage 'decide'" in str(refused.value)
        assert "decisions/part-00001.parquet: it has other bytes" in str(refused.value)
        assert f"delete the folder {out}/decide and give the command" in str(refused.value)


def test_report_of_a_damaged_run__writes_nothing(runs: Runs, copy: Callable[[str], Path]) -> None:
    out = copy("finished")
    damage.flip(out / "set_aside/part-00000.parquet", np.random.default_rng(0))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(CorruptShardError):
        pipelines.run.report_again(str(out))
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_flipped_bit_that_would_unquarantine_rows__ends_with_the_remedy(
    runs: Runs, copy: Callable[[str], Path]
) -> None:
    out = copy("decisions")
    path = out / "_manifests" / "infer.json"
    text = path.read_bytes()
    assert b'"rejected": [17]' in text
    path.write_bytes(text.replace(b'"rejected": [17]', b'"rejected": [16]'))
    with pytest.raises(CorruptShardError, match=r"_manifests/infer\.json.*delete the folder"):
        pipelines.run.resume(str(out))


def test_damaged_source__is_said_to_be_the_source(runs: Runs, tmp_path: Path) -> None:
    data = shutil.copytree(runs.data, tmp_path / "data")
    out = damage.make_run(data, tmp_path / "out", damage.STOPS["graph"])
    run = load_run(str(out))
    path = data / "part-00001.parquet"
    content = bytearray(path.read_bytes())
    content[: len(content) // 2] = bytes(len(content) // 2)
    path.write_bytes(content)
    _, frame, _ = pipelines.core.reader.frames(run, ["features"], before="neighbours")
    with pytest.raises(LabelopsError) as refused:
        frame.table(["features"])
    assert "part-00001.parquet" in str(refused.value)
    assert str(refused.value).startswith("source: ")
    assert re.search(r"damaged|restore it", str(refused.value))
    assert "delete" not in str(refused.value)


def test_run_of_an_older_version__is_told_from_a_damaged_one(
    runs: Runs, copy: Callable[[str], Path]
) -> None:
    out = copy("finished")
    facts = load_sealed((out / "run.json").read_bytes())
    (out / "run.json").write_text(json.dumps(facts, sort_keys=True, indent=1) + "\n")
    for act in (verify_run, pipelines.run.resume, pipelines.run.report_again):
        with pytest.raises(RunError, match=r"made by an older version .* Start a new run") as old:
            act(str(out))
        assert not isinstance(old.value, CorruptShardError)


def test_run_of_another_format__is_refused_with_what_to_do(
    runs: Runs, copy: Callable[[str], Path]
) -> None:
    out = copy("finished")
    facts = load_sealed((out / "run.json").read_bytes())
    del facts["format"]
    (out / "run.json").write_bytes(dump_sealed(facts))
    wanted = r"got format 1 in .*, made by an earlier version of labelops\. .* in a new folder"
    for act in (verify_run, pipelines.run.resume, pipelines.run.report_again):
        with pytest.raises(RunError, match=wanted) as old:
            act(str(out))
        assert not isinstance(old.value, CorruptShardError)


def test_verify_while_a_run_is_at_work__is_refused(runs: Runs, copy: Callable[[str], Path]) -> None:
    out = copy("finished")
    with locked(LocalStore(out)), pytest.raises(LockedError, match="is in use by"):
        verify_run(str(out))


def test_verify__names_some_and_counts_the_rest(runs: Runs, copy: Callable[[str], Path]) -> None:
    out = copy("finished")
    for path in damage.files_of(out):
        if path.suffix in (".npz", ".parquet"):
            damage.flip(out / path, np.random.default_rng(0))
    found = verify_run(str(out))
    assert len(found.damage) > 20
    assert f"and {len(found.damage) - 20} more" in found.text()
    assert re.search(r"Remedy: restore these files, or delete .*/source, ", found.text())


def test_verify_of_a_folder_that_may_only_be_read__works(
    runs: Runs, copy: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(store: LocalStore, name: str) -> int:
        raise PermissionError(13, "Permission denied")

    out = copy("finished")
    monkeypatch.setattr(LocalStore, "open_lock", refuse)
    assert verify_run(str(out)).damage == ()
