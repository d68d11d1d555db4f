"""Written once, true for every stage: the answer does not depend on how data or work are cut."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from pipelines.core import commit
from pipelines.core.cluster import local_cluster
from pipelines.core.state import Run
from pipelines.registry import STAGES, load_stage
from pipelines.storage import frame
from pipelines.verify import verify_run
from tests.contracts.data_sets import DATA_SETS, PAIRS, cuts
from tests.datasets import write_shards

SOFT = {"topk_ids", "topk_probs", "tail_prob"}
"""Soft labels have the same names in every stage; those of the later one count."""

CUTS = [cut for cut in cuts(1) if cut != "one"]


class Runs:
    """Finished runs by data set and cut, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[tuple[str, str], Run] = {}

    def folder_of(self, name: str, cut: str) -> Path:
        return self.folder / f"{name} {cut}"

    def make(self, name: str, cut: str, **where: Any) -> Run:
        data = DATA_SETS[name]
        return data.run(self.folder_of(name, cut), cuts(len(data.items()))[cut], **where)

    def get(self, name: str, cut: str) -> Run:
        if (name, cut) not in self.held:
            self.held[name, cut] = self.make(name, cut)
        return self.held[name, cut]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("contracts"))


def sidecar(run: Run, folder: str) -> pa.Table:
    """Return all rows of a folder, in the order of the shards."""
    paths = sorted((Path(run.uri) / folder).glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths).combine_chunks()


def folders(run: Run, stage: str) -> set[str]:
    manifest = run.manifest(stage)
    assert manifest is not None
    return {folder for entry in manifest["maps"] for folder in entry["schemas"]}


def test_every_stage_file__is_registered_under_its_name() -> None:
    here = {path.stem for path in (Path(pipelines.run.__file__).parent / "stages").glob("*.py")}
    ours = {name for name, where in STAGES.items() if where.startswith("pipelines.")}
    assert here - {"__init__"} == ours
    assert {name: load_stage(name).name for name in STAGES} == {name: name for name in STAGES}


def test_every_stage__is_at_work_on_some_data() -> None:
    assert {stage.split("@")[0] for stage, _ in PAIRS} == set(STAGES)


@pytest.mark.parametrize("name", DATA_SETS)
def test_stages__that_are_said_to_be_at_work_are(runs: Runs, name: str) -> None:
    entries = runs.get(name, "one").entries
    assert [entry.name for entry in entries if entry.skipped is None] == list(
        DATA_SETS[name].active
    )


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("stage", "name"), PAIRS)
def test_output__is_the_same_bit_for_bit_for_every_cut(
    runs: Runs, stage: str, name: str, cut: str
) -> None:
    one, other = runs.get(name, "one"), runs.get(name, cut)
    assert folders(one, stage)
    assert folders(one, stage) == folders(other, stage)
    for folder in folders(one, stage):
        a, b = sidecar(one, folder), sidecar(other, folder)
        # The run's key names the files that were read; "shard" is what a cut decides.
        known = [column for column in ("run", "shard") if column in a.column_names]
        a, b = a.drop_columns(known), b.drop_columns(known)
        assert a.schema.equals(b.schema)
        assert a.num_rows == b.num_rows
        for column in a.column_names:
            assert a[column].combine_chunks().equals(b[column].combine_chunks()), (folder, column)


def results(run: Run, stage: str) -> dict[str, str]:
    """Return the hashes of a stage's results."""
    paths = sorted((Path(run.uri) / stage / "_results").glob("*"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


REDUCING = [(stage, name) for stage, name in PAIRS if stage not in ("dataset", "poll")]
"""Stages with results of all items together: the product has none, nor has the tests' own poll."""


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(("stage", "name"), REDUCING)
def test_results__are_the_same_bit_for_bit_for_every_cut(
    runs: Runs, stage: str, name: str, cut: str
) -> None:
    found = results(runs.get(name, "one"), stage)
    assert found
    assert found == results(runs.get(name, cut), stage)


def check_same_files(name: str, threads: Run, processes: Run) -> None:
    for stage in DATA_SETS[name].active:
        for folder in folders(threads, stage):
            files = [p.name for p in sorted((Path(threads.uri) / folder).glob("*.parquet"))]
            for file in files:
                a = (Path(threads.uri) / folder / file).read_bytes()
                assert a == (Path(processes.uri) / folder / file).read_bytes(), (folder, file)
    # They hold the hashes of all else: results, the card, the summary.
    manifests = sorted((Path(threads.uri) / "_manifests").iterdir())
    assert "_files.json" in {path.name for path in manifests}
    for path in manifests:
        assert path.read_bytes() == (Path(processes.uri) / "_manifests" / path.name).read_bytes()


@pytest.mark.slow
def test_files__are_the_same_from_processes_of_the_run(runs: Runs) -> None:
    processes = runs.make("pred_probs", "seven", workers=3)
    check_same_files("pred_probs", runs.get("pred_probs", "seven"), processes)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Two processes, which import all that stages need once."""
    with local_cluster(2) as address:
        yield address


@pytest.mark.slow
@pytest.mark.parametrize("name", ["features", "lists", "bags", "pictures"])
def test_files__are_the_same_from_processes_of_a_cluster(
    runs: Runs, cluster: str, name: str
) -> None:
    processes = runs.make(name, "seven", cluster=cluster)
    check_same_files(name, runs.get(name, "seven"), processes)


@pytest.mark.parametrize("name", DATA_SETS)
@pytest.mark.parametrize("cut", ["one", "with an empty and a single"])
def test_finished_run__is_whole(runs: Runs, name: str, cut: str) -> None:
    found = verify_run(runs.get(name, cut).uri)
    assert (found.is_finished, found.damage) == (True, ())


def test_files__are_the_same_whether_small_ones_are_remembered_or_read_again(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    remembered = runs.get("pred_probs", "seven")
    monkeypatch.setattr(frame, "SMALL_BYTES", 0)
    monkeypatch.setattr(commit, "SMALL_BYTES", -1)
    reads: list[str] = []
    real = frame.read_columns
    monkeypatch.setattr(
        frame, "read_columns", lambda ref, names: (reads.append(ref.name), real(ref, names))[1]
    )
    folder = runs.folder_of("pred_probs", "seven")
    out = folder / "read again"
    pipelines.run.run(remembered.recipe, data=str(folder / "data"), out=str(out))
    assert any(name.startswith("decide/_proposed/") for name in reads)
    for path in sorted(out.rglob("*.parquet")):
        name = path.relative_to(out)
        assert path.read_bytes() == (Path(remembered.uri) / name).read_bytes(), name


@pytest.mark.parametrize(("stage", "name"), PAIRS)
def test_sidecar__has_the_declared_columns_and_every_live_item_in_order(
    runs: Runs, stage: str, name: str
) -> None:
    run = runs.get(name, "seven")
    entry = run.entry(stage)
    before = run.context(stage, run.layout(before=stage)).columns
    declared = set(entry.stage.writes(entry.config, before))
    manifest = run.manifest(stage)
    assert manifest is not None
    aligned = [part for part in manifest["maps"] if stage in part["aligned"]]
    if not declared:  # the product, whose rows are divided between two folders
        assert (stage, aligned) == ("dataset", [])
        return
    assert len(aligned) == 1
    table = sidecar(run, stage)
    assert set(table.column_names) == declared | {"item_id"}
    assert table.column_names[0] == "item_id"
    ids = list(map(str, table["item_id"].to_pylist()))
    quarantine = Path(run.uri) / "quarantine"
    bad = set(pq.read_table(quarantine)["item_id"].to_pylist()) if quarantine.exists() else set()
    order = list(map(str, DATA_SETS[name].items()["item_id"].to_pylist()))
    # What a later stage rejected is still there.
    assert ids == [item for item in order if item in set(ids)]
    assert set(order) - set(ids) <= bad


@pytest.mark.parametrize("name", [name for stage, name in PAIRS if stage == "dataset"])
def test_nothing_is_lost__every_item_is_somewhere_once(runs: Runs, name: str) -> None:
    run = runs.get(name, "two")
    ids: list[str] = []
    expected = sorted(map(str, DATA_SETS[name].items()["item_id"].to_pylist()))
    for folder in ("dataset", "set_aside", "quarantine"):
        if (Path(run.uri) / folder).exists():
            for path in sorted((Path(run.uri) / folder).glob("*.parquet")):
                ids += map(str, pq.read_table(path)["item_id"].to_pylist())
    assert sorted(ids) == expected


@pytest.mark.parametrize("name", sorted(set(DATA_SETS) - {"bags"}))
def test_no_two_stages__write_one_column(runs: Runs, name: str) -> None:
    run = runs.get(name, "two")
    seen: dict[str, str] = {}
    for entry in run.entries:
        if entry.skipped is None:
            before = run.context(entry.name, run.layout(before=entry.name)).columns
            for column in entry.stage.writes(entry.config, before):
                repeated = column in {"item_id", *SOFT}
                assert column not in seen or repeated, (column, seen, entry.name)
                seen[column] = entry.name


@pytest.mark.parametrize("name", DATA_SETS)
def test_source__is_never_modified(runs: Runs, name: str, tmp_path: Path) -> None:
    runs.get(name, "two")
    items = DATA_SETS[name].items()
    again = write_shards(tmp_path, items, cuts(len(items))["two"])
    for path in sorted(again.iterdir()):
        there = runs.folder_of(name, "two") / "data" / path.name
        assert there.read_bytes() == path.read_bytes()
