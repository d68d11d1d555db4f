"""Written once, true for every stage: the answer does not depend on how data or work are cut."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from pipelines import commit, frame
from pipelines.recipe import load_recipe
from pipelines.registry import STAGES, load_stage
from pipelines.state import Run, load_run
from pipelines.verify import verify_run
from tests.datasets import blobs, even, tagged, vectors, write_shards

N = 120
CUTS = {
    "one": [N],
    "two": [51, N - 51],
    "seven": even(N, 7),
    "with an empty and a single": [0, 1, 0, N - 1],
    "N": [1] * N,
}


BAG_OF_ITEM = np.random.default_rng(2).permutation(N) // 10
STAGE_NAMES = [*STAGES, "proportions@2"]
SOFT = {"topk_ids", "topk_probs", "tail_prob"}
"""Soft labels have the same names in every stage; those of the later one count."""

AUDIT = ["data.max_bad_share=0.05"]
SETTINGS = {
    "features": ("audit", AUDIT),
    "pred_probs": ("audit", AUDIT),
    "lists": ("multilabel", [*AUDIT, "decide_labels.min_class_size=2"]),
    "three states": (
        "multilabel",
        [*AUDIT, "multilabel.filter_by=both", "multilabel.score=softmin"],
    ),
    "bags": (
        "proportions",
        ["proportions.epochs=3", "proportions@2.epochs=3", "proportions.waves=10"],
    ),
}


def totals(source: str) -> pa.Table:
    """Return the totals of bags; in the middle of shards, items of some are quarantined."""
    labels = np.array(blobs(N)["label"].to_pylist())
    kinds = np.unique(labels)
    if source == "bags":
        positives = np.bincount(BAG_OF_ITEM, labels <= kinds[1]).astype(np.int64)
        return pa.table({"bag_id": np.arange(12), "n": [10] * 12, "positives": positives})
    counts = np.stack([np.bincount(BAG_OF_ITEM, labels == kind) for kind in kinds], axis=1)
    counts = counts.astype(np.int64).tolist()
    return pa.table({"bag_id": np.arange(12), "n": [10] * 12, "counts": counts})


def sources() -> dict[str, pa.Table]:
    """Return the data sets: features, ready probabilities with ties and exact 0 and 1, and bags.

    The last have no label; the others have bags, too.
    """
    table = blobs(N).append_column("bag_id", pa.array(BAG_OF_ITEM))
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(4) * 0.4, N).astype(np.float32)
    probs[:20] = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 20)]
    probs[20:40] = np.float32(0.25)
    # Rows that cannot be used, in the middle of shards: what follows must stay aligned.
    probs[75] = np.nan
    probs[76] = 0.5
    lists, _ = tagged(N, n_classes=5)
    return {
        "features": table,
        "lists": lists,
        "three states": three_states(),
        "pred_probs": table.append_column("pred_probs", vectors(probs)).drop_columns(["features"]),
        "bags": table.drop_columns(["label"]),
    }


def three_states() -> pa.Table:
    """Return lists of what is and what is not, with ready probabilities and rows to quarantine."""
    rng = np.random.default_rng(3)
    states = rng.choice([1, 0, -1], (N, 5), p=[0.3, 0.5, 0.2])
    probs = (1 / (1 + np.exp(-rng.normal(0, 2, (N, 5)) - 2 * states))).astype(np.float32)
    probs[:20], probs[20:30] = 0.75, np.round(probs[20:30])
    probs[75], probs[76] = np.nan, 1.5
    lists = [[np.flatnonzero(row == said).tolist() for row in states] for said in (1, 0)]
    lists[1][33] = lists[0][33] or [4]
    lists[0][33] = lists[1][33]
    return pa.table(
        {
            "item_id": np.arange(N) * 7,
            "labels": pa.array(lists[0], pa.list_(pa.int16())),
            "labels_negative": pa.array(lists[1], pa.list_(pa.int16())),
            "pred_probs": vectors(probs),
        }
    )


class Runs:
    """Finished runs by data set and cut, made when first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.held: dict[tuple[str, str, int | None], Run] = {}

    def get(self, source: str, cut: str, workers: int | None = None) -> Run:
        if (source, cut, workers) not in self.held:
            out = self.folder / f"out {source} {cut} {workers}"
            data = self.folder / f"src {source} {cut}"
            if not data.exists():
                write_shards(data, sources()[source], CUTS[cut])
            name, settings = SETTINGS[source]
            if name != "multilabel":
                bags = self.folder / f"bags of {source}.parquet"
                if not bags.exists():
                    pq.write_table(totals(source), bags)
                settings = [*settings, f"proportions.bags={bags}"]
            recipe = load_recipe(name, overrides=settings)
            pipelines.run.run(recipe, data=str(data), out=str(out), workers=workers)
            self.held[source, cut, workers] = load_run(str(out))
        return self.held[source, cut, workers]


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


def active(run: Run, stage: str) -> bool:
    return any(entry.name == stage and entry.skipped is None for entry in run.entries)


@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut != "one"])
@pytest.mark.parametrize("source", sorted(sources()))
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_output__is_the_same_bit_for_bit_for_every_cut(
    runs: Runs, stage: str, source: str, cut: str
) -> None:
    one, other = runs.get(source, "one"), runs.get(source, cut)
    if not active(one, stage):
        assert not active(other, stage)
        return
    for folder in folders(one, stage):
        a, b = sidecar(one, folder), sidecar(other, folder)
        if "run" in a.column_names:  # names the run, and with it the files that were read
            a, b = a.drop_columns(["run"]), b.drop_columns(["run"])
        if "shard" in a.column_names:  # the source's file, which is what a cut decides
            a, b = a.drop_columns(["shard"]), b.drop_columns(["shard"])
        assert a.schema.equals(b.schema)
        assert a.num_rows == b.num_rows
        for name in a.column_names:
            assert a[name].combine_chunks().equals(b[name].combine_chunks()), (folder, name)


@pytest.mark.parametrize("cut", [cut for cut in CUTS if cut != "one"])
@pytest.mark.parametrize("source", sorted(sources()))
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_results__are_the_same_bit_for_bit_for_every_cut(
    runs: Runs, stage: str, source: str, cut: str
) -> None:
    one, other = runs.get(source, "one"), runs.get(source, cut)
    found = [
        {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((Path(run.uri) / stage / "_results").glob("*"))
        }
        for run in (one, other)
    ]
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("source", "workers"), [("features", 4), ("pred_probs", 1), ("lists", 2), ("bags", 2)]
)
def test_files__are_the_same_for_any_number_of_processes(
    runs: Runs, source: str, workers: int
) -> None:
    threads, processes = runs.get(source, "seven"), runs.get(source, "seven", workers)
    for stage in STAGE_NAMES:
        if active(threads, stage):
            for folder in folders(threads, stage):
                names = [p.name for p in sorted((Path(threads.uri) / folder).glob("*.parquet"))]
                for name in names:
                    a = (Path(threads.uri) / folder / name).read_bytes()
                    assert a == (Path(processes.uri) / folder / name).read_bytes(), (folder, name)
    # They hold the hashes of all else: results, the card, the summary.
    manifests = sorted((Path(threads.uri) / "_manifests").iterdir())
    assert "_files.json" in {path.name for path in manifests}
    for path in manifests:
        assert path.read_bytes() == (Path(processes.uri) / "_manifests" / path.name).read_bytes()


@pytest.mark.parametrize("source", sorted(sources()))
@pytest.mark.parametrize("cut", ["one", "with an empty and a single"])
def test_finished_run__is_whole(runs: Runs, source: str, cut: str) -> None:
    found = verify_run(runs.get(source, cut).uri)
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
    data, out = runs.folder / "src pred_probs seven", runs.folder / "out read again"
    pipelines.run.run(remembered.recipe, data=str(data), out=str(out))
    assert any(name.startswith("decide/_proposed/") for name in reads)
    for path in sorted(out.rglob("*.parquet")):
        name = path.relative_to(out)
        assert path.read_bytes() == (Path(remembered.uri) / name).read_bytes(), name


@pytest.mark.parametrize("source", sorted(sources()))
@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_sidecar__has_the_declared_columns_and_every_live_item_in_order(
    runs: Runs, stage: str, source: str
) -> None:
    run = runs.get(source, "seven")
    if not active(run, stage):
        return
    entry = run.entry(stage)
    before = frozenset(run.layout(before=stage).types(stage))
    declared = set(entry.stage.writes(entry.config, before))
    manifest = run.manifest(stage)
    assert manifest is not None
    for part in manifest["maps"]:
        if stage in part["aligned"]:
            table = sidecar(run, stage)
            assert set(table.column_names) == declared | {"item_id"}
            assert table.column_names[0] == "item_id"
            ids = list(map(str, table["item_id"].to_pylist()))
            bad = (
                set(pq.read_table(Path(run.uri) / "quarantine")["item_id"].to_pylist())
                if (Path(run.uri) / "quarantine").exists()
                else set()
            )
            order = list(map(str, sources()[source]["item_id"].to_pylist()))
            # What a later stage rejected is still there.
            assert ids == [item for item in order if item in set(ids)]
            assert set(order) - set(ids) <= bad


@pytest.mark.parametrize("source", ["features", "pred_probs", "lists", "three states"])
def test_nothing_is_lost__every_item_is_somewhere_once(runs: Runs, source: str) -> None:
    run = runs.get(source, "two")
    ids: list[str] = []
    expected = sorted(map(str, sources()[source]["item_id"].to_pylist()))
    for folder in ("dataset", "set_aside", "quarantine"):
        if (Path(run.uri) / folder).exists():
            for path in sorted((Path(run.uri) / folder).glob("*.parquet")):
                ids += map(str, pq.read_table(path)["item_id"].to_pylist())
    assert sorted(ids) == expected


def test_every_stage_file__is_registered_under_its_name() -> None:
    here = {path.stem for path in (Path(pipelines.run.__file__).parent / "stages").glob("*.py")}
    assert here - {"__init__"} == set(STAGES)
    assert {name: load_stage(name).name for name in STAGES} == {name: name for name in STAGES}


@pytest.mark.parametrize("source", ["features", "lists", "three states"])
def test_no_two_stages__write_one_column(runs: Runs, source: str) -> None:
    run = runs.get(source, "two")
    seen: dict[str, str] = {}
    for entry in run.entries:
        if entry.skipped is None:
            before = frozenset(run.layout(before=entry.name).types(entry.name))
            for column in entry.stage.writes(entry.config, before):
                repeated = column in {"item_id", *SOFT}
                assert column not in seen or repeated, (column, seen, entry.name)
                seen[column] = entry.name


def test_source__is_never_modified(runs: Runs) -> None:
    run = runs.get("features", "two")
    written = pa.concat_tables(
        pq.read_table(path) for path in sorted(Path(run.source.uri).glob("*.parquet"))
    )
    assert written.equals(sources()["features"])
