"""Ready probabilities of several models, against the pool of arrays, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.opinions.pool import fit_weights, pool
from labelops.opinions.sets import fit_cell_weights, pool_cells
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError, RecipeError
from pipelines.recipe import load_recipe
from tests.datasets import even, vectors, write_shards

N, K = 4000, 3
NAMES = ["first", "second"]


def said(seed: int, true: np.ndarray, skill: float) -> np.ndarray:
    """Return probabilities of a model that errs on its own."""
    rng = np.random.default_rng([seed, 7])
    logits = rng.normal(0, 1, (len(true), K))
    logits[np.arange(len(true)), true] += skill
    p = np.exp(logits)
    return np.asarray(p / p.sum(axis=1, keepdims=True), np.float32)


def made() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return true and given classes, and probabilities of two models, (2, N, K)."""
    rng = np.random.default_rng(3)
    true = rng.integers(0, K, N)
    given = np.where(rng.random(N) < 0.1, rng.integers(0, K, N), true)
    return true, given, np.stack([said(1, true, 5.0), said(2, true, 4.0)])


def table_of(given: np.ndarray, probs: np.ndarray) -> pa.Table:
    columns = {name: vectors(p) for name, p in zip(NAMES, probs, strict=False)}
    ids = [f"i{i:04d}" for i in range(len(given))]
    return pa.table({"item_id": ids, "label": given.astype(np.int64), **columns})


def audit(folder: Path, table: pa.Table, *settings: str, shards: int = 2) -> Run:
    source = write_shards(folder / "src", table, even(table.num_rows, shards))
    recipe = load_recipe("audit", [f"data.opinions={NAMES}", *settings])
    pipelines.run.run(recipe, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def rows(run: Run, folder: str) -> pa.Table:
    files = sorted((Path(run.uri) / folder).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def without_place(run: Run, folder: str) -> pa.Table:
    table = rows(run, folder)
    return table.drop_columns([name for name in table.column_names if name in ("shard", "row")])


def array(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist())


def test_columns__are_pooled_and_what_each_finds_is_kept(tmp_path: Path) -> None:
    true, given, probs = made()
    run = audit(tmp_path, table_of(given, probs))
    found = rows(run, "infer")
    weights = run.context("infer", run.layout()).own("weights")["weights"]
    np.testing.assert_allclose(weights, fit_weights(probs, given), atol=1e-3)
    wanted = pool(probs, weights).astype(np.float32)
    np.testing.assert_allclose(array(found, "pred_probs"), wanted, rtol=1e-6)
    assert np.array_equal(array(found, "p_given"), array(found, "pred_probs")[np.arange(N), given])
    assert np.array_equal(array(found, "opinions"), probs.argmax(axis=2).T)
    decided = rows(run, "decide")
    changed = np.flatnonzero(array(decided, "decision") == "relabel")
    new = array(decided, "label_clean")[changed]
    assert (new == true[changed]).mean() > 0.95
    assert len(changed) > 20
    # Only what both of them say.
    assert (probs.argmax(axis=2)[:, changed] == new.astype(int)).all()


def test_columns__cut_otherwise_give_the_same(tmp_path: Path) -> None:
    _, given, probs = made()
    one, seven = (
        audit(tmp_path / str(shards), table_of(given, probs), shards=shards) for shards in (1, 7)
    )
    for folder in ("infer", "confident", "decide", "dataset"):
        assert without_place(one, folder).equals(without_place(seven, folder))


def test_rows_that_are_no_probabilities__are_set_aside_with_the_name_of_the_column(
    tmp_path: Path,
) -> None:
    """Lists of any length, as pandas writes them."""
    _, given, probs = made()
    lists = [p.tolist() for p in probs]
    lists[0][5], lists[1][6], lists[1][7] = None, [0.5, 0.5], [2.0, 0.5, 0.5]
    table = table_of(given, probs[:0])
    for name, column in zip(NAMES, lists, strict=True):
        table = table.append_column(name, pa.array(column, pa.list_(pa.float64())))
    run = audit(tmp_path, table)
    files = sorted((Path(run.uri) / "quarantine").glob("infer-*.parquet"))
    bad = {
        row["item_id"]: row["reason"] for file in files for row in pq.read_table(file).to_pylist()
    }
    assert bad["i0005"] == "probabilities missing: null (first)"
    assert bad["i0006"] == "2 probabilities, one for each of 3 classes was expected (second)"
    assert bad["i0007"].endswith("(second)")
    assert len(bad) == 3
    assert rows(run, "infer").num_rows == N - 3


def test_model_that_always_says_the_same__agrees_with_nobody(tmp_path: Path) -> None:
    _, given, probs = made()
    probs[1] = [0.8, 0.1, 0.1]
    run = audit(tmp_path, table_of(given, probs))
    found = rows(run, "infer")
    assert (array(found, "opinions")[:, 1] == -1).all()
    assert not (array(rows(run, "decide"), "decision") == "relabel").any()


def test_columns_that_are_equal__are_refused(tmp_path: Path) -> None:
    _, given, probs = made()
    probs[1] = probs[0]
    with pytest.raises(DataError, match=r"'first' and 'second' are equal\. Name one of them"):
        audit(tmp_path, table_of(given, probs))


def test_column_in_another_order_of_classes__is_refused_by_name(tmp_path: Path) -> None:
    _, given, probs = made()
    probs[1] = probs[1][:, [1, 2, 0]]
    with pytest.raises(DataError, match="columns of 'second' in the order of the classes"):
        audit(tmp_path, table_of(given, probs))


def test_column_of_another_width__is_refused(tmp_path: Path) -> None:
    _, given, probs = made()
    table = table_of(given, probs[:1]).append_column("second", vectors(probs[1][:, :2]))
    with pytest.raises(DataError, match="'second' must have one column for each of the 3 classes"):
        audit(tmp_path, table)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (None, "columns of the source were expected, got 'second'"),
        (pa.array([0.5] * N), "one probability for every class were expected, got 'second' of"),
    ],
    ids=["absent", "numbers"],
)
def test_names_of_what_is_no_column_of_probabilities__are_refused(
    tmp_path: Path, column: pa.Array | None, message: str
) -> None:
    _, given, probs = made()
    table = table_of(given, probs[:1])
    if column is not None:
        table = table.append_column("second", column)
    with pytest.raises(RecipeError, match=message):
        audit(tmp_path, table)


def test_one_name__is_refused_with_what_to_write_instead() -> None:
    with pytest.raises(RecipeError, match=r"data\.columns\.pred_probs"):
        load_recipe("audit", ['data.opinions=["first"]'])


def listed(folder: Path, table: pa.Table, shards: int) -> Run:
    source = write_shards(folder / "src", table, even(table.num_rows, shards))
    recipe = load_recipe("multilabel", [f"data.opinions={NAMES}"])
    pipelines.run.run(recipe, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def test_columns__of_lists_of_labels_are_pooled_cell_by_cell(tmp_path: Path) -> None:
    _, given, probs = made()
    probs[0, :5] = 0.0, 1.0, 0.5
    table = table_of(given, probs).drop_columns(["label"])
    table = table.append_column("labels", pa.array([[int(k)] for k in given]))
    one, seven = (listed(tmp_path / str(shards), table, shards) for shards in (1, 7))
    found = rows(one, "infer")
    assert found.column_names == ["item_id", "pred_probs"]
    weights = one.context("infer", one.layout()).own("weights")["weights"]
    states = np.eye(K, dtype=np.int8)[given]
    np.testing.assert_allclose(weights, fit_cell_weights(probs, states), atol=1e-3)
    wanted = pool_cells(probs, weights).astype(np.float32)
    np.testing.assert_allclose(array(found, "pred_probs"), wanted, rtol=1e-6)
    for folder in ("infer", "multilabel", "decide_labels", "dataset"):
        assert without_place(one, folder).equals(without_place(seven, folder))


def test_row_of_lists__that_is_no_probability_in_one_column_is_set_apart(tmp_path: Path) -> None:
    _, given, probs = made()
    probs[1, 7, 0] = 1.5
    table = table_of(given, probs).drop_columns(["label"])
    table = table.append_column("labels", pa.array([[int(k)] for k in given]))
    run = listed(tmp_path, table, 2)
    (line,) = pq.read_table(Path(run.uri) / "quarantine").to_pylist()
    assert line["item_id"] == "i0007"
    assert line["reason"].startswith("no probabilities: class 0 has 1.5, expected was [0, 1]")
    assert line["reason"].endswith("(second)")


@pytest.mark.parametrize(
    ("use", "setting"), [("opinions", "data.opinions"), ("table", "data.features")]
)
def test_use_of_columns_that_nobody_named__is_refused(
    tmp_path: Path, use: str, setting: str
) -> None:
    _, given, probs = made()
    source = write_shards(tmp_path / "src", table_of(given, probs), [N])
    recipe = load_recipe("audit", [f"infer.use={use}"])
    with pytest.raises(RecipeError, match=f"expected in {setting} for use = '{use}'"):
        pipelines.run.run(recipe, data=str(source), out=str(tmp_path / "out"))
