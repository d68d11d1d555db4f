"""Oracles: the same run with all pairs held; cleanlab; a bound on memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.confident import sparse_joint
from labelops.confident.estimates import unpack_matrix
from pipelines.core.results import load_result
from pipelines.core.state import load_run
from pipelines.recipe import parse_recipe
from pipelines.report import collect, write_report
from pipelines.report.limits import Limits
from tests.datasets import even, vectors, write_shards
from tests.labelops.confident.data import cleanlab_flags, make
from tests.pipelines.shown import section
from tests.pipelines.shown import table_of as shown_table

RECIPE = """
stages = ["source", "infer", "confident", "decide", "dataset"]
[data]
absent_classes = "allow"
[confident]
filter_by = "{filter_by}"
"""
MATRICES = ("confident_joint", "calibrated_joint", "noise_matrix", "inverse_noise_matrix")


def run(folder: Path, table: pa.Table, sizes: list[int], filter_by: str) -> Path:
    write_shards(folder / "src", table, sizes)
    recipe = parse_recipe(RECIPE.format(filter_by=filter_by), name="test")
    pipelines.run.run(recipe, data=str(folder / "src"), out=str(folder / "out"))
    return folder / "out"


def read(out: Path, stage: str) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((out / stage).glob("part-*")))


def table_of(probs: np.ndarray, given: np.ndarray) -> pa.Table:
    ids = [f"item-{i:05d}" for i in range(len(given))]
    return pa.table({"item_id": ids, "label": given, "pred_probs": vectors(probs)})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("filter_by", ["prune_by_noise_rate", "both", "low_self_confidence"])
def test_run__that_lists_pairs_writes_what_one_that_holds_all_of_them_writes(
    tmp_path: Path, filter_by: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probs, given, _ = make(31, n=500, n_classes=40, dtype=np.dtype(dtype).type, sharpness=6)
    # Ties, exact zeros and ones, and a class that nobody was given.
    probs[::9] = probs[0]
    probs[4::11] = np.eye(40)[given[4::11]]
    given = np.where(given == 17, 18, given)
    table = table_of(probs, given)
    whole = run(tmp_path / "whole", table, even(500, 2), filter_by)
    monkeypatch.setattr(sparse_joint, "DENSE_CLASSES", 3)
    listed = run(tmp_path / "listed", table, [0, 1, 300, 199], filter_by)
    assert read(listed, "confident").equals(read(whole, "confident"))
    results = [
        load_result(load_run(str(out)).store, "confident", "estimates") for out in (whole, listed)
    ]
    assert all(values.ndim == 1 for name, values in results[1].items() if name in MATRICES)
    for name, values in results[0].items():
        found = results[1][name]
        if name in MATRICES:
            found = unpack_matrix(results[1], name).toarray()
        assert np.array_equal(found, values, equal_nan=True), name
    for stage in ("decide", "dataset"):
        found, wanted = read(listed, stage), read(whole, stage)
        for name in set(wanted.column_names) - {"confidence", "weight", "shard"}:
            assert found[name].combine_chunks().equals(wanted[name].combine_chunks()), name
        for name in ("confidence", "weight"):
            # Columns of the noise matrix are summed otherwise.
            assert np.allclose(found[name].to_numpy(), wanted[name].to_numpy(), atol=1e-6)
    pages = [collect(str(out)) for out in (whole, listed)]
    for name in ("classes", "confusion"):
        assert section(pages[0], name) == section(pages[1], name)


def test_flags__of_more_classes_than_items_are_those_of_cleanlab(tmp_path: Path) -> None:
    n, k = 150, 1100
    probs, given, _ = make(32, n=n, n_classes=k, sharpness=12, noise=0.3)
    # No class of one item: into those nothing is counted.
    given[1::2] = given[::2]
    out = run(tmp_path, table_of(probs, given), even(n, 3), "prune_by_noise_rate")
    found = load_result(load_run(str(out)).store, "confident", "estimates")
    assert len(found["pair_given"]) <= n + k
    wanted = cleanlab_flags(probs, given, "prune_by_noise_rate")
    assert np.array_equal(read(out, "confident")["is_label_issue"].to_numpy(), wanted)


def test_page__shows_the_worst_of_many_classes_and_counts_the_rest(tmp_path: Path) -> None:
    probs, given, _ = make(33, n=300, n_classes=60, dtype=np.float32)
    out = run(tmp_path, table_of(probs, given), [300], "prune_by_noise_rate")
    small, whole = Limits(class_rows=5, most_classes=20), Limits()
    shown = Path(write_report(str(out), small)).read_text()
    everything = Path(write_report(str(out), whole)).read_text()
    n_classes = len(shown_table(collect(str(out)), "classes", "Class"))
    assert f"The first 20 of {n_classes} classes are shown" in shown
    assert "are shown; <code>confident" not in everything
    assert len(everything) - len(shown) > 300 * (n_classes - 20)


@pytest.mark.slow
def test_memory__is_that_of_the_data_not_of_all_pairs_of_classes(tmp_path: Path) -> None:
    n, k = 200, 12_000
    rng = np.random.default_rng(0)
    probs = rng.random((n, k), np.float32)
    given = rng.integers(0, k, n)
    probs[np.arange(n), given] += k
    probs /= probs.sum(axis=1, keepdims=True)
    write_shards(tmp_path / "src", table_of(probs, given), [n])
    command = [
        *(str(Path(sys.executable).with_name("labelops")), "run", "audit"),
        *("--data", str(tmp_path / "src")),
        *("--out", str(tmp_path / "out"), "--set", "data.absent_classes=allow", "--no-prefect"),
    ]
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=True
    )
    # One K × K matrix of 64-bit numbers has 1 099 MiB.
    peak = int(done.stdout.split()[-1]) / 1024
    assert peak < 800
    assert (tmp_path / "out" / "report.html").stat().st_size < 2_000_000
