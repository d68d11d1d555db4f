"""What tables of bags may say, and what has to be refused. Oracle: counts by hand."""

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pipelines.bags.table import BagTable, open_table
from pipelines.errors import DataError, RecipeError
from tests.datasets import vectors
from tests.pipelines.bagged import ONE_ROUND, Planted, found_in, learn, planted


@pytest.fixture(scope="module")
def two() -> Planted:
    return planted()


def opened(folder: Path, table: dict[str, object], kind: str = "parquet") -> BagTable:
    path = folder / f"bags.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table(table), path)
    else:
        pa.csv.write_csv(pa.table(table), path)
    return open_table(str(path))


def test_shares__are_counts_divided_by_the_size(tmp_path: Path) -> None:
    found = opened(tmp_path, {"bag_id": [1, 2], "n": [10, 8], "share": [0.3, 0.24]})
    np.testing.assert_array_equal(found.counts, [[7, 3], [6, 2]])
    np.testing.assert_allclose(found.residual, [0.0, 0.08], atol=1e-12)
    lists = {"bag_id": [1, 2], "n": [10, 8], "shares": ["0.3;0.7", "0.25;0.75"]}
    np.testing.assert_array_equal(opened(tmp_path, lists, "csv").counts, [[3, 7], [2, 6]])
    third = {"bag_id": [1], "n": [30], "shares": [[0.33, 0.33, 0.33]]}
    np.testing.assert_array_equal(opened(tmp_path, third).counts, [[10, 10, 10]])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            {"positives": [0.3, 1.0]},
            "positives must be numbers of items, got 0.3, like a share: name the column share if "
            "it is, for bag 1; at ",
        ),
        ({"share": [0.3, 3.0]}, "share must be at most 1, got 3 for bag 2; at "),
        (
            {"shares": [[0.5, 0.5], [0.5, 0.6]]},
            "shares of a bag must add up to 1, got [0.5, 0.6] for bag 2; at ",
        ),
        ({"share": [0.3, 0.3], "positives": [3, 3]}, "got positives and share; at "),
    ],
)
def test_shares__that_are_none_are_refused(
    tmp_path: Path, more: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        opened(tmp_path, {"bag_id": [1, 2], "n": [10, 10], **more})


def test_ids__that_are_one_number_are_one_bag(two: Planted, tmp_path: Path) -> None:
    items = two.items.set_column(
        two.items.column_names.index("bag_id"), "bag_id", pa.array(two.bag.astype(np.int64))
    )
    sizes = np.bincount(two.bag)
    ids = [str(b) for b in range(len(sizes))]
    told = {"n": sizes, "positives": np.bincount(two.bag, two.true).astype(int)}
    twice = {
        "bag_id": [*ids, "07"],
        **{name: np.append(values, values[7]) for name, values in told.items()},
    }
    with pytest.raises(
        DataError, match=r"one row per bag was expected, got more for 1 bag\(s\): 7"
    ):
        learn(tmp_path / "a", items, pa.table(twice), recipe=ONE_ROUND)
    odd = {"bag_id": [*ids[:-1], "2_3"], **told}
    with pytest.raises(DataError, match=r"got text that is no number: '2_3'"):
        learn(tmp_path / "b", items, pa.table(odd), recipe=ONE_ROUND)


def test_ids__that_no_signed_number_holds_are_refused(two: Planted, tmp_path: Path) -> None:
    large = pa.array([2**64 - 1] * two.items.num_rows, pa.uint64())
    items = two.items.set_column(two.items.column_names.index("bag_id"), "bag_id", large)
    numbered = two.bags.set_column(0, "bag_id", pa.array(range(len(two.bags))))
    with pytest.raises(DataError, match=r"'bag_id' must hold whole numbers that fit into 64"):
        learn(tmp_path, items, numbered, recipe=ONE_ROUND)
    doubles = {"bag_id": [1.0, 2.0], "n": [3, 3], "positives": [1, 1]}
    with pytest.raises(
        DataError, match=r"got double, .* pandas makes doubles of numbers with gaps"
    ):
        opened(tmp_path, doubles)


def test_bag__that_lost_all_its_items_to_quarantine_does_not_stop_the_others(
    two: Planted, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    p = np.clip(rng.normal(0.2 + 0.6 * two.true, 0.1), 0.01, 0.99)
    probs = np.stack([1 - p, p], axis=1)
    probs[two.bag == 7] = np.nan
    items = two.items.drop_columns(["features"]).append_column("pred_probs", vectors(probs))
    run = learn(tmp_path, items, two.bags, "data.max_bad_share=0.2", recipe=ONE_ROUND)
    census = found_in(run, "census")
    assert (int(census["n_incomplete"]), int(census["n_absent"])) == (1, 0)
    assert len(census["sizes"]) == len(two.bags) - 1


def test_whole_scaling__leaves_constant_columns_out(two: Planted, tmp_path: Path) -> None:
    """Half of an embedding's units are dead: the others must not shrink for it."""
    x = np.array(two.items["features"].to_pylist()) * 0.02
    at = two.items.column_names.index("features")
    runs = []
    for name, features in (("live", x), ("dead", np.concatenate([x, np.full_like(x, 3.0)], 1))):
        items = two.items.set_column(at, "features", vectors(features.astype(np.float32)))
        run = learn(tmp_path / name, items, two.bags, "proportions.scaling=whole", recipe=ONE_ROUND)
        runs.append(found_in(run, "learn"))
    np.testing.assert_allclose(runs[0]["loss_start"], runs[1]["loss_start"], rtol=1e-6)


def test_later_rounds__take_over_the_settings_of_the_first(two: Planted, tmp_path: Path) -> None:
    run = learn(tmp_path / "a", two.items, two.bags, "proportions.max_sweeps=7")
    assert run.recipe.settings("proportions@2").max_sweeps == 7
    with pytest.raises(RecipeError, match=r"setting 'seed' must be that of stage 'proportions', 0"):
        learn(tmp_path / "b", two.items, two.bags, "proportions@2.seed=4")
