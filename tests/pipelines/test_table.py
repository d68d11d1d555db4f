"""Columns of a table by their names: which are taken, what is refused, and what they are worth."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.errors import RecipeError
from pipelines.inference.table import columns_of
from pipelines.recipe import load_recipe, parse_recipe
from tests.contracts.data_sets import columns
from tests.datasets import even, write_shards

N = len(columns())


def infer(folder: Path, table: pa.Table, features: list[str], *settings: str) -> Run:
    source = write_shards(folder / "src", table, even(N, 2))
    recipe = load_recipe("audit", [f"data.features={features}", *settings])
    pipelines.run.run(recipe, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def taken(run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return columns_of(run.context("infer", run.layout()))


def test_every__are_all_columns_of_numbers_and_categories_that_nothing_else_uses(
    tmp_path: Path,
) -> None:
    run = infer(tmp_path, columns(), ["*", "-town"])
    assert taken(run) == (("age", "income", "since", "paid"), ("job", "is_new", "nothing"))
    files = sorted((tmp_path / "out" / "infer").glob("part-*.parquet"))
    rows = pa.concat_tables([pq.read_table(file) for file in files])
    embedding = np.array(rows["embedding"].to_pylist())
    source = columns()
    age = source["age"].to_numpy()
    assert np.array_equal(
        embedding[:, 0], np.where(np.isnan(age), np.nanmedian(age), age).astype("f4")
    )
    days = source["since"].to_numpy().astype("datetime64[D]").astype(int)
    assert np.array_equal(embedding[:, 2], days)
    probs = np.array(rows["pred_probs"].to_pylist())
    true = np.unique(source["label"].to_pylist(), return_inverse=True)[1]
    assert (probs.argmax(axis=1) == true).mean() > 0.8
    assert ", job " in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_left_out__is_the_column_of_that_very_name(tmp_path: Path) -> None:
    table = columns().append_column("page", pa.array(np.arange(N)))
    assert taken(infer(tmp_path, table, ["page", "job", "-age"])) == (("page",), ("job",))


def test_named__are_taken_even_where_the_data_has_ready_features(tmp_path: Path) -> None:
    table = columns().append_column("features", pa.array([[0.0, 1.0]] * N))
    assert taken(infer(tmp_path, table, ["job", "age"])) == (("age",), ("job",))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (["ages"], "columns of the source were expected, got 'ages'; did you mean 'age'?"),
        (["*", "-ages"], "got 'ages'"),
        (["label"], "which is read as something else"),
        (["parts"], "columns of numbers, truth values, dates or text were expected, got 'parts'"),
        (["-age"], "at least one column was expected"),
    ],
)
def test_names__that_cannot_be_used_are_refused_in_words(
    tmp_path: Path, features: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said.replace("?", r"\?")):
        infer(tmp_path, columns(), features)


def test_ten_thousand_columns__are_no_trouble(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = {f"x{i:05d}": rng.normal(size=N).astype(np.float32) for i in range(10_000)}
    table = pa.table({**{n: columns()[n] for n in ("item_id", "label")}, **wide})
    source = write_shards(tmp_path / "src", table, [N])
    settings = ["data.features=['*']", "infer.heads=['nearest']"]
    recipe = parse_recipe('stages = ["source", "infer"]', name="test", overrides=settings)
    pipelines.run.run(recipe, data=str(source), out=str(tmp_path / "out"))
    assert len(taken(load_run(str(tmp_path / "out")))[0]) == 10_000
