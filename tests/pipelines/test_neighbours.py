"""Oracle: scikit-learn's brute force over the whole table, and planted copies."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.neighbors import NearestNeighbors

import pipelines.core.reader
import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.recipe import parse_recipe
from tests.datasets import even, vectors, write_shards

COLUMNS = ["item_id", "nn_distance", "outlier_score", "is_outlier", "duplicate_set"]
COLUMNS += ["is_duplicate_conflict"]
N = 150


def table(n: int = N, n_dims: int = 6) -> pa.Table:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, n_dims)).astype(np.float32)
    label = rng.integers(0, 3, n)
    if n > 100:
        x[20], x[21] = x[60], x[61] * np.float32(1.0001)
        label[20], label[60] = 0, 1
        label[21] = label[61]
        # One vector far more often than there are neighbours.
        x[100:130] = x[100]
        label[100:130] = 2
    return pa.table(
        {
            "item_id": [f"i{k}" for k in range(n)],
            "features": vectors(x),
            "label": [f"c{k}" for k in label],
        }
    )


def audit(folder: Path, data: pa.Table, sizes: list[int], settings: str = "") -> Run:
    source = write_shards(folder / "src", data, sizes)
    recipe = f'stages = ["source", "neighbours"]\n[data]\nmax_bad_share = 1.0\n{settings}'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        pipelines.run.run(
            parse_recipe(recipe, name="test"), data=str(source), out=str(folder / "out")
        )
    return load_run(str(folder / "out"))


def sidecar(run: Run) -> pa.Table:
    found = [frame.table(COLUMNS) for frame in pipelines.core.reader.frames(run, COLUMNS)]
    return pa.concat_tables(found)


def test_neighbours__equal_brute_force(tmp_path: Path) -> None:
    data = table()
    run = audit(tmp_path, data, even(N, 4))
    got = sidecar(run)
    assert got["item_id"].to_pylist() == data["item_id"].to_pylist()
    x = np.stack(data["features"].to_numpy())
    want, _ = (
        NearestNeighbors(n_neighbors=10, metric="cosine", algorithm="brute").fit(x).kneighbors()
    )
    np.testing.assert_allclose(got["nn_distance"], want[:, 0], atol=1e-6)
    mean = want.mean(axis=1)
    np.testing.assert_allclose(got["outlier_score"], np.exp(-mean / np.median(mean)), atol=1e-5)
    q1, q3 = np.percentile(mean, [25, 75])
    limit = q3 + (1 / 0.37037 - 1) * (q3 - q1)
    assert got["is_outlier"].to_pylist() == (mean > limit).tolist()
    totals = run.context("neighbours", run.layout()).own("graph")
    assert totals["recall"] == 1
    assert totals["n_distinct"] == N - 1 - 29


def test_duplicates__planted_sets_are_found_and_only_contradictions_are_conflicts(
    tmp_path: Path,
) -> None:
    got = sidecar(audit(tmp_path, table(), even(N, 3)))
    sets = got["duplicate_set"].to_pylist()
    assert sets[20] == sets[60] is not None
    assert sets[21] == sets[61] is not None
    assert len(set(sets[100:130])) == 1
    members = {20, 60, 21, 61, *range(100, 130)}
    assert {i for i, s in enumerate(sets) if s is not None} == members
    assert np.flatnonzero(got["is_duplicate_conflict"]).tolist() == [20, 60]
    run = load_run(str(tmp_path / "out"))
    hashes = np.concatenate(
        [f.array("item_hash") for f in pipelines.core.reader.frames(run, ["item_hash"])]
    )
    assert sets[20] == min(hashes[20], hashes[60])


@pytest.mark.parametrize("flat_limit", [50_000, 10])
def test_neighbours__do_not_depend_on_the_shards(tmp_path: Path, flat_limit: int) -> None:
    settings = f"[neighbours]\nflat_limit = {flat_limit}\n"
    data = table()
    whole = sidecar(audit(tmp_path / "1", data, [N], settings))
    for sizes in (even(N, 2), [0, 3, 100, 0, 40, 7, 0], [1] * N):
        got = sidecar(audit(tmp_path / str(len(sizes)), data, sizes, settings))
        assert got.equals(whole)


def test_neighbours__of_another_order_of_rows_are_the_same(tmp_path: Path) -> None:
    data = table()
    order = np.random.default_rng(1).permutation(N)
    straight = sidecar(audit(tmp_path / "a", data, even(N, 2)))
    mixed = sidecar(audit(tmp_path / "b", data.take(order), even(N, 2)))
    assert mixed.equals(straight.take(order))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_neighbours__few_items(tmp_path: Path, n: int) -> None:
    data = table(n).drop_columns(["label"])
    got = sidecar(audit(tmp_path, data, [n, 0]))
    assert got["nn_distance"].null_count == (1 if n == 1 else 0)
    assert not any(got["is_duplicate_conflict"].to_pylist())


def test_neighbours__items_without_a_usable_vector_have_no_distance(tmp_path: Path) -> None:
    data = table()
    x = np.array(np.stack(data["features"].to_numpy()))
    x[5, 2], x[6, 0] = np.nan, np.inf
    column = vectors(x).to_pylist()
    column[7] = None
    column[8][1] = None
    kind = pa.list_(pa.float32(), 6)
    data = data.set_column(1, "features", pa.array(column, kind))
    run = audit(tmp_path, data, even(N, 2))
    got = sidecar(run)
    for name in ("nn_distance", "outlier_score"):
        nulls = got[name].combine_chunks().is_null().to_numpy(zero_copy_only=False)
        assert np.flatnonzero(nulls).tolist() == [5, 6, 7, 8]
    assert run.context("neighbours", run.layout()).own("graph")["n_without_vector"] == 4


def test_neighbours__without_vectors_is_skipped_and_says_why(tmp_path: Path) -> None:
    data = table().drop_columns(["features"])
    run = audit(tmp_path, data, even(N, 2))
    assert run.entry("neighbours").skipped == (
        "there is neither an embedding nor a features column to find neighbours in"
    )
