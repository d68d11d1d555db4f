"""Oracles: planted classes, totals as the table says them, and enumeration of tiny bags."""

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from labelops.proportions.tail import false_discovery_rates
from pipelines.bags.table import open_table
from pipelines.core.state import Run
from pipelines.errors import DataError, LabelopsError, RecipeError
from pipelines.plan import plan
from pipelines.recipe import load_recipe
from pipelines.report import collect
from pipelines.report.limits import Limits
from pipelines.report.parts.bags import read_bags
from pipelines.storage.store import open_file
from tests.datasets import vectors, write_shards
from tests.pipelines.bagged import (
    FOURIER,
    ONE_ROUND,
    Planted,
    beliefs_of,
    found_in,
    learn,
    name_of,
    planted,
    replaced,
    rows_of,
    run_on,
    sums,
)

HALF_PRECISION = 1e-3
"""Probabilities are stored with eleven bits: 0.0005 off at 1; up to 14 of them are added."""


@pytest.fixture(scope="module")
def two() -> Planted:
    return planted()


@pytest.fixture(scope="module")
def learned(two: Planted, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return learn(tmp_path_factory.mktemp("learned"), two.items, two.bags, FOURIER)


# -- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["proportions", "proportions@2"])
def test_beliefs__of_every_bag_add_up_to_its_total_in_every_round(
    learned: Run, two: Planted, stage: str
) -> None:
    total = sums(two.bag, beliefs_of(learned, 2, stage))[:, 1]
    assert np.abs(total - two.bags["positives"].to_numpy()).max() < 14 * HALF_PRECISION


@pytest.mark.parametrize("stage", ["proportions", "proportions@2"])
def test_beliefs__find_planted_classes_that_only_totals_told(
    learned: Run, two: Planted, stage: str
) -> None:
    # The classes are three spreads apart: a supervised rule is right for 93 of 100 or more.
    right = (beliefs_of(learned, 2, stage)[:, 1] > 0.5) == two.true
    assert right.mean() > 0.9


def test_beliefs__of_three_classes_add_up_to_all_totals_and_find_them(tmp_path: Path) -> None:
    three = planted(n_classes=3, apart=5.0)
    run = learn(tmp_path, three.items, three.bags, recipe=ONE_ROUND)
    beliefs = beliefs_of(run, 3)
    wanted = np.array(three.bags["counts"].to_pylist())
    assert np.abs(sums(three.bag, beliefs) - wanted).max() < 14 * HALF_PRECISION
    assert (beliefs.argmax(axis=1) == three.true).mean() > 0.9
    assert rows_of(run, "proportions_bags").num_rows == 3 * 24


def test_second_round__reads_what_the_first_one_left(learned: Run) -> None:
    first, second = (rows_of(learned, stage) for stage in ("proportions", "proportions@2"))
    assert first.column_names == second.column_names
    assert first["bag_held_logits"].equals(second["bag_held_logits"])
    assert not first["bag_logits"].equals(second["bag_logits"])
    assert "census" not in {p.stem for p in (Path(learned.uri) / "proportions@2").rglob("*.npz")}


def test_held_out_totals__are_predicted_better_than_by_one_share_for_all(learned: Run) -> None:
    found = found_in(learned)
    assert len(found["held_out"]) == 4
    assert found["loss_start"] < found["loss_constant"] / 2


def test_embedding__is_learned_from_where_there_is_one(two: Planted, tmp_path: Path) -> None:
    audit = 'stages = ["source", "infer", "proportions"]\n[proportions]\nuse = "features"\n'
    labelled = two.items.append_column("label", pa.array((two.true).tolist()))
    run = learn(tmp_path, labelled, two.bags, recipe=audit)
    entry = run.entry("proportions")
    columns = frozenset(run.layout(before="proportions").types("proportions"))
    assert "embedding" in entry.stage.reads(entry.config, columns)
    assert np.abs(sums(two.bag, beliefs_of(run, 2))[:, 1] - two.bags["positives"]).max() < 0.014


# -- bags that contradict --------------------------------------------------------------------------


def test_improbable_bag__with_a_false_total_is_first_and_judged_without_its_own_count(
    two: Planted, tmp_path: Path
) -> None:
    sizes, k = two.bags["n"].to_numpy(), two.bags["positives"].to_numpy()
    victim = int(np.argmin(np.where(sizes >= 10, k / sizes, 2)))
    false = replaced(two.bags, "positives", victim, int(sizes[victim]))
    found = []
    for name, table in (("true", two.bags), ("false", false)):
        run = learn(tmp_path / name, two.items, table, recipe=ONE_ROUND)
        found.append(rows_of(run, "proportions_bags"))
    told = found[1].slice(0, 1).to_pylist()[0]
    assert told["bag_id"] == name_of(victim)
    assert told["q_value"] < 0.01
    assert told["count"] == told["n"]
    at = found[0]["bag_id"].to_pylist().index(name_of(victim))
    # Only the prior has seen the count; what is expected moves little beside what was said.
    assert abs(told["expected"] - found[0]["expected"][at].as_py()) < (sizes - k)[victim] / 4
    assert sum(q <= 0.05 for q in found[0]["q_value"].to_pylist()) <= 1


def test_totals__that_vary_more_than_the_model_allows_widen_what_is_improbable(
    tmp_path: Path,
) -> None:
    # Bags have shares of their own, of which the probabilities know nothing: beta-binomial counts,
    # of 1 + 39 · ρ = 4 times the binomial variance. One total is false besides.
    rng = np.random.default_rng(0)
    n_bags, size, rho = 200, 40, 3 / 39
    share = rng.beta(0.4 * (1 / rho - 1), 0.6 * (1 / rho - 1), n_bags)
    k = rng.binomial(size, share)
    k[7] = size
    bag = np.repeat(np.arange(n_bags), size)
    probs = np.tile([0.6, 0.4], (len(bag), 1))
    items = pa.table({"item_id": np.arange(len(bag)), "bag_id": bag, "pred_probs": vectors(probs)})
    bags = pa.table({"bag_id": np.arange(n_bags), "n": [size] * n_bags, "positives": k})
    run = learn(tmp_path, items, bags, recipe=ONE_ROUND)
    found = found_in(run, "constrain")
    # Of the variance. Counts are whole numbers: their median deviation is one of a few values.
    assert float(found["dispersion"]) == pytest.approx(4.0, rel=0.35)
    listed = rows_of(run, "proportions_bags")
    assert (listed["bag_id"][0].as_py(), listed["q_value"][0].as_py() < 0.01) == (7, True)
    assert sum(q <= 0.05 for q in listed["q_value"].to_pylist()) < 5
    # As they are, p-values would list a good part of the bags.
    assert (false_discovery_rates(found["p_value"][:, 1]) <= 0.05).sum() > 30
    page = (Path(run.uri) / "report.html").read_text()
    assert "times what the model allows" in page


# -- bad input -------------------------------------------------------------------------------------

BAD_TABLES = [
    (
        "positives",
        99,
        "bag table: positives must not be more than the items of the bag, got positives = 99 of "
        "n = {n} for bag 'bag-003'; at {path}. Correct the table",
    ),
    (
        "positives",
        -1,
        "bag table: positives must not be negative, got positives = -1 for bag 'bag-003'; at "
        "{path}. Correct the table",
    ),
    (
        "positives",
        None,
        "bag table: positives must be a finite number, got nan for bag 'bag-003'; at {path}. "
        "Correct the table",
    ),
    (
        "n",
        0,
        "bag table: n must be a whole number from 1 to 1000000000000000, got n = 0 for bag "
        "'bag-003'; at {path}. Correct the table",
    ),
    (
        "n",
        40,
        "bags: n of the table must be the number of items in the data; bag 'bag-003' has n = 40 "
        "and {n} items, and 1 of 24 bags differ; the table is at {path}. Was the data filtered "
        "after the table was made?",
    ),
    (
        "bag_id",
        "bag-004",
        "bag table: one row per bag was expected, got more for 1 bag(s): 'bag-004'; at {path}. Add "
        "up or remove the rows that are too many",
    ),
    (
        "bag_id",
        None,
        "bag table: every row must name its bag, got 1 null bag_id(s); at {path}. Remove those "
        "rows: items without a bag need none",
    ),
]


@pytest.mark.parametrize(("column", "value", "message"), BAD_TABLES)
def test_bad_table__is_refused_and_the_bag_is_named(
    two: Planted, tmp_path: Path, column: str, value: object, message: str
) -> None:
    with pytest.raises(DataError) as caught:
        learn(tmp_path, two.items, replaced(two.bags, column, 3, value), recipe=ONE_ROUND)
    path, n = tmp_path / "bags.parquet", two.bags["n"][3].as_py()
    assert str(caught.value) == message.format(path=path, n=n)


def test_counts__that_do_not_add_up_to_the_bag_are_refused(tmp_path: Path) -> None:
    three = planted(n_classes=3)
    counts = three.bags["counts"].to_pylist()
    counts[0][1] += 2
    n = three.bags["n"][0].as_py()
    with pytest.raises(DataError) as caught:
        learn(tmp_path, three.items, replaced(three.bags, "counts", 0, counts[0]), recipe=ONE_ROUND)
    assert str(caught.value) == (
        f"bag table: counts of a bag must add up to its n, got counts that add up to {n + 2} of "
        f"n = {n} for bag 'bag-000'; at {tmp_path / 'bags.parquet'}. Correct the table"
    )
    counts[0][1] = -3
    with pytest.raises(DataError, match=r"bag table: counts must not be negative, got \[.*-3"):
        learn(
            tmp_path / "b",
            three.items,
            replaced(three.bags, "counts", 0, counts[0]),
            recipe=ONE_ROUND,
        )
    with pytest.raises(DataError, match="counts must have one number for each of the 3 classes"):
        learn(
            tmp_path / "c",
            three.items,
            replaced(three.bags, "counts", 5, [1, 2]),
            recipe=ONE_ROUND,
        )


def test_bag__of_the_data_that_the_table_lacks_is_refused_unless_allowed(
    two: Planted, tmp_path: Path
) -> None:
    less = two.bags.slice(1)
    n = two.bags["n"][0].as_py()
    with pytest.raises(DataError) as caught:
        learn(tmp_path / "a", two.items, less, recipe=ONE_ROUND)
    assert str(caught.value) == (
        f"bags: the table must have every bag of the data; {n} items are in bags that it lacks "
        f"('bag-000'); the table is at {tmp_path / 'a' / 'bags.parquet'}. Add them, or set "
        "proportions.unlisted = 'allow' to use these items without a total"
    )
    run = learn(tmp_path / "b", two.items, less, "proportions.unlisted=allow", recipe=ONE_ROUND)
    assert found_in(run, "census")["n_unlisted"] == n
    residual = rows_of(run, "proportions")["bag_residual"]
    assert residual.null_count == n
    right = (beliefs_of(run, 2)[:, 1] > 0.5) == two.true
    assert right[two.bag == 0].mean() > 0.6


def test_bag__of_the_table_without_items_is_refused_unless_allowed(
    two: Planted, tmp_path: Path
) -> None:
    more = pa.concat_tables([two.bags, pa.table({"bag_id": ["ghost"], "n": [3], "positives": [1]})])
    with pytest.raises(DataError) as caught:
        learn(tmp_path / "a", two.items, more, recipe=ONE_ROUND)
    assert str(caught.value) == (
        "bags: the data must have every bag of the table; 1 of 25 have no item ('ghost'); the "
        f"table is at {tmp_path / 'a' / 'bags.parquet'}. Remove them from it, or set "
        "proportions.unlisted = 'allow'"
    )
    run = learn(tmp_path / "b", two.items, more, "proportions.unlisted=allow", recipe=ONE_ROUND)
    assert found_in(run, "census")["n_absent"] == 1
    assert found_in(run, "census")["notices"].tolist() == [
        "proportions.bags: 1 bags of the table have no item in the data and are ignored"
    ]


def test_table__of_other_data_altogether_is_refused(two: Planted, tmp_path: Path) -> None:
    other = two.bags.set_column(0, "bag_id", pa.array([f"x{b}" for b in range(24)]))
    with pytest.raises(DataError, match=r"got none of them.*Is it the table of other data"):
        learn(tmp_path, two.items, other, "proportions.unlisted=allow", recipe=ONE_ROUND)


def test_table__without_columns_or_file_is_refused(two: Planted, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        learn(tmp_path / "a", two.items, two.bags.select(["bag_id", "n"]), recipe=ONE_ROUND)
    assert str(caught.value) == (
        "bag table: columns bag_id, n and positives or counts were expected, got 'bag_id', 'n'; at "
        f"{tmp_path / 'a' / 'bags.parquet'}. Rename its columns, or correct proportions.bags"
    )
    both = two.bags.append_column("counts", pa.array([[1, 1]] * 24))
    with pytest.raises(DataError, match="was expected, got positives and counts"):
        learn(tmp_path / "b", two.items, both, recipe=ONE_ROUND)
    with pytest.raises(DataError, match="one row per bag was expected, got none"):
        learn(tmp_path / "c", two.items, two.bags.slice(0, 0), recipe=ONE_ROUND)
    gone = str(tmp_path / "gone.parquet")
    with pytest.raises(RecipeError, match="a readable file was expected at "):
        run_on(tmp_path / "d", two, gone)
    (tmp_path / "text.parquet").write_text("no table")
    with pytest.raises(DataError, match=r"bag table: a Parquet or CSV file .* was expected, got"):
        run_on(tmp_path / "e", two, str(tmp_path / "text.parquet"))


def test_no_table__is_asked_for_before_anything_starts(two: Planted, tmp_path: Path) -> None:
    write_shards(tmp_path / "data", two.items, [two.items.num_rows])
    with pytest.raises(DataError) as caught:
        plan(load_recipe("proportions"), data=str(tmp_path / "data"), out=str(tmp_path / "out"))
    assert str(caught.value) == (
        "stage 'proportions': a table with the totals of bags was expected, none is named. Give "
        "--set proportions.bags=URI, a Parquet or CSV file with bag_id, n, and positives or counts"
    )


def test_item__in_two_bags_is_refused(two: Planted, tmp_path: Path) -> None:
    again = two.items.slice(0, 1).set_column(1, "bag_id", pa.array(["bag-009"]))
    with pytest.raises(LabelopsError, match="item_id must be unique over the data set, got 1 id"):
        learn(tmp_path / "a", pa.concat_tables([two.items, again]), two.bags, recipe=ONE_ROUND)
    lists = pa.array([[b] for b in two.items["bag_id"].to_pylist()])
    with pytest.raises(DataError) as caught:
        learn(tmp_path / "b", two.items.set_column(1, "bag_id", lists), two.bags, recipe=ONE_ROUND)
    assert str(caught.value) == (
        "source: column 'bag_id' must be string or integer, got list<element: string>. Convert it, "
        "or map another column to it in data.columns"
    )


def test_fractional_counts__are_rounded_and_say_by_how_much(two: Planted, tmp_path: Path) -> None:
    k = two.bags["positives"].to_numpy().astype(np.float64)
    inside = (k > 0) & (k < two.bags["n"].to_numpy())
    said = two.bags.set_column(2, "positives", pa.array(k + 0.25 * inside))
    run = learn(tmp_path, two.items, said, recipe=ONE_ROUND)
    residual = rows_of(run, "proportions")["bag_residual"].to_numpy()
    assert residual.tolist() == (0.25 * inside)[two.bag].tolist()
    bags = read_bags(run, Limits())
    assert bags is not None
    assert (bags.rounded, bags.residual) == (int(inside.sum()), 0.25)
    total = sums(two.bag, beliefs_of(run, 2))[:, 1]
    assert np.abs(total - k).max() < 14 * HALF_PRECISION


def test_item_without_bag__is_believed_by_the_model_alone(two: Planted, tmp_path: Path) -> None:
    alone = two.items.slice(0, 1).set_column(1, "bag_id", pa.nulls(1, pa.string()))
    alone = alone.set_column(0, "item_id", pa.array(["alone"]))
    run = learn(tmp_path, pa.concat_tables([two.items, alone]), two.bags, recipe=ONE_ROUND)
    assert found_in(run, "census")["n_without_bag"] == 1
    last = rows_of(run, "proportions").to_pylist()[-1]
    assert (last["item_id"], last["bag_residual"]) == ("alone", None)
    assert sum(last["topk_probs"]) == pytest.approx(1, abs=HALF_PRECISION)


def test_missing_features__keep_the_item_in_its_bag(two: Planted, tmp_path: Path) -> None:
    values = np.array(two.items["features"].to_pylist(), np.float32)
    values[5, 2], values[6] = np.nan, np.inf
    run = learn(
        tmp_path, two.items.set_column(2, "features", vectors(values)), two.bags, recipe=ONE_ROUND
    )
    assert found_in(run)["n_without_vector"] == 2
    total = sums(two.bag, beliefs_of(run, 2))[:, 1]
    assert np.abs(total - two.bags["positives"].to_numpy()).max() < 14 * HALF_PRECISION


def test_constant_shares__are_said_to_teach_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    items = pa.table(
        {
            "item_id": [f"i{i}" for i in range(40)],
            "bag_id": np.arange(40) // 4,
            "features": vectors(rng.normal(size=(40, 3)).astype(np.float32)),
        }
    )
    bags = pa.table({"bag_id": np.arange(10), "n": [4] * 10, "positives": [1] * 10})
    run = learn(tmp_path, items, bags)
    for stage in ("proportions", "proportions@2"):
        assert np.abs(beliefs_of(run, 2, stage) - [0.75, 0.25]).max() == 0
    assert found_in(run, "census")["is_constant"]
    page = (Path(run.uri) / "report.html").read_text()
    assert "Totals cannot distinguish labels" in page
    assert "Nothing was learned." in page
    assert "all that can be known of any item" in (Path(run.uri) / "README.md").read_text()


def test_single_giant_bag__is_believed_at_its_share(two: Planted, tmp_path: Path) -> None:
    n = two.items.num_rows
    items = two.items.set_column(1, "bag_id", pa.array(["all"] * n))
    bags = pa.table({"bag_id": ["all"], "n": [n], "positives": [n // 4]})
    run = learn(tmp_path, items, bags, recipe=ONE_ROUND)
    assert np.abs(beliefs_of(run, 2)[:, 1] - n // 4 / n).max() < HALF_PRECISION
    assert found_in(run, "census")["is_constant"]
    assert len(found_in(run)["held_out"]) == 0
    assert "or there is but one" in (Path(run.uri) / "report.html").read_text()


def test_messages_that_do_not_settle__are_reported_and_their_bags_marked(
    two: Planted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labelops.nn.bag_rounds.choose_strength", lambda *args, **rest: 1.0)
    run = learn(tmp_path, two.items, two.bags, "proportions.max_sweeps=1", recipe=ONE_ROUND)
    n_open = int(found_in(run)["n_open"])
    assert n_open > 0
    converged = rows_of(run, "proportions_bags")["converged"].to_pylist()
    assert not all(converged)
    page = (Path(run.uri) / "report.html").read_text()
    assert "of bags did not converge" in page
    card = (Path(run.uri) / "README.md").read_text()
    assert f"| groups of bags that did not converge | {n_open} |" in card


def test_counts__of_another_number_of_classes_are_refused(tmp_path: Path) -> None:
    three = planted(n_classes=3)
    recipe = f'{ONE_ROUND}\n[data]\nclasses = ["a", "b"]\n'
    with pytest.raises(DataError, match=r"counts of the 2 classes \('a', 'b'\) were expected, got"):
        learn(tmp_path, three.items, three.bags, recipe=recipe)


# -- tables ----------------------------------------------------------------------------------------


def test_table__as_text_in_another_order_gives_the_same_beliefs(tmp_path: Path) -> None:
    three = planted(12, n_classes=3)
    first = learn(tmp_path / "a", three.items, three.bags, recipe=ONE_ROUND)
    mixed = three.bags.take(np.random.default_rng(0).permutation(12))
    text = [";".join(map(str, counts)) for counts in mixed["counts"].to_pylist()]
    pa.csv.write_csv(mixed.set_column(2, "counts", pa.array(text)), tmp_path / "bags.csv")
    second = run_on(tmp_path / "b", three, str(tmp_path / "bags.csv"))
    assert rows_of(first, "proportions").equals(rows_of(second, "proportions"))
    assert rows_of(first, "proportions_bags").equals(rows_of(second, "proportions_bags"))


def put(uri: str, path: Path) -> None:
    store, name = open_file(uri)
    store.write_atomic(name, path.read_bytes())


def test_table__in_an_object_store_gives_the_same_beliefs(two: Planted, tmp_path: Path) -> None:
    probs = np.stack([1 - 0.1 - 0.8 * two.true, 0.1 + 0.8 * two.true], axis=1)
    ready = two._replace(items=two.items.append_column("pred_probs", vectors(probs)))
    pq.write_table(two.bags, tmp_path / "bags.parquet")
    pa.csv.write_csv(two.bags, tmp_path / "bags.csv")
    local = run_on(tmp_path / "local", ready, str(tmp_path / "bags.parquet"))
    uri = f"memory://{tmp_path.name}/totals/bags.csv"
    put(uri, tmp_path / "bags.csv")
    run = run_on(tmp_path / "remote", ready, uri)
    assert rows_of(run, "proportions").equals(rows_of(local, "proportions"))
    put(uri.replace("csv", "parquet"), tmp_path / "bags.parquet")
    found, wanted = open_table(uri.replace("csv", "parquet")), open_table(uri)
    np.testing.assert_array_equal(found.counts, wanted.counts)
    np.testing.assert_array_equal(found.ids, wanted.ids)


def test_table__in_an_object_store_is_read_again_when_it_was_replaced(
    two: Planted, tmp_path: Path
) -> None:
    uri = f"memory://{tmp_path.name}/again/bags.parquet"
    for value in (3, 4):
        bags = replaced(two.bags, "positives", 0, value)
        pq.write_table(bags, tmp_path / "bags.parquet")
        put(uri, tmp_path / "bags.parquet")
        assert open_table(uri).counts[0, 1] == value


def test_table__that_cannot_be_read_from_an_object_store_is_named(
    two: Planted, tmp_path: Path
) -> None:
    gone = f"memory://{tmp_path.name}/gone/bags.parquet"
    with pytest.raises(RecipeError) as caught:
        run_on(tmp_path / "a", two, gone)
    assert str(caught.value).startswith(
        f"stage 'proportions': a readable file was expected at {gone}, got "
    )
    with pytest.raises(RecipeError, match=r"readable file was expected at nowhere://x/bags.csv"):
        run_on(tmp_path / "b", two, "nowhere://x/bags.csv")
    false = f"memory://{tmp_path.name}/false/bags.csv"
    (tmp_path / "bags.csv").write_text("bag_id,n,positives\nbag-000,4,9\n")
    put(false, tmp_path / "bags.csv")
    with pytest.raises(DataError) as wrong:
        open_table(false)
    assert str(wrong.value) == (
        "bag table: positives must not be more than the items of the bag, got positives = 9 of "
        f"n = 4 for bag 'bag-000'; at {false}. Correct the table"
    )


def test_numbers__as_ids_of_bags_are_matched_with_text_of_numbers(
    two: Planted, tmp_path: Path
) -> None:
    items = two.items.set_column(1, "bag_id", pa.array(two.bag, pa.int32()))
    bags = two.bags.set_column(0, "bag_id", pa.array([str(b) for b in range(24)]))
    run = learn(tmp_path / "a", items, bags, recipe=ONE_ROUND)
    assert rows_of(run, "proportions_bags").schema.field("bag_id").type == pa.int64()
    with pytest.raises(DataError, match="bag_id must be int64 as in the data, got text that is no"):
        learn(tmp_path / "b", items, two.bags, recipe=ONE_ROUND)


# -- ready probabilities ---------------------------------------------------------------------------


def enumerated(probs: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the posterior of one bag by going through all labelings."""
    n, n_classes = probs.shape
    weight = np.zeros((n, n_classes))
    for labels in itertools.product(range(n_classes), repeat=n):
        if (np.bincount(labels, minlength=n_classes) == counts).all():
            p = np.prod(probs[np.arange(n), list(labels)])
            weight[np.arange(n), list(labels)] += p
    return weight / weight.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_ready_probabilities__become_the_posterior_that_enumeration_gives(
    tmp_path: Path, n_classes: int
) -> None:
    rng = np.random.default_rng(n_classes)
    bag = np.repeat(np.arange(5), [5, 4, 1, 6, 3])[rng.permutation(19)]
    probs = rng.dirichlet(np.ones(n_classes), 19).astype(np.float32)
    true = np.array([rng.choice(n_classes, p=p / p.sum()) for p in probs.astype(np.float64)])
    counts = np.stack([np.bincount(bag, true == k, 5) for k in range(n_classes)], axis=1)
    items = pa.table({"item_id": np.arange(19), "bag_id": bag, "pred_probs": vectors(probs)})
    sizes = np.bincount(bag)
    bags = pa.table({"bag_id": np.arange(5), "n": sizes, "counts": counts.astype(int).tolist()})
    run = learn(tmp_path, items, bags, recipe=ONE_ROUND)
    found = np.array(rows_of(run, "proportions")["bag_probs"].to_pylist())
    for b in range(5):
        wanted = enumerated(probs[bag == b].astype(np.float64), counts[b])
        # Single precision on the way in and out.
        np.testing.assert_allclose(found[bag == b], wanted, atol=2e-6)


def test_ready_probabilities__that_are_none_cost_their_bag_its_total(
    two: Planted, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    p = np.clip(rng.normal(0.2 + 0.6 * two.true, 0.1), 0.01, 0.99)
    probs = np.stack([1 - p, p], axis=1)
    row = int(np.flatnonzero(two.bag == 7)[0])
    probs[row] = [0.9, 0.9]
    items = two.items.drop_columns(["features"]).append_column("pred_probs", vectors(probs))
    run = learn(tmp_path, items, two.bags, "data.max_bad_share=0.1", recipe=ONE_ROUND)
    assert found_in(run, "census")["n_incomplete"] == 1
    residual = rows_of(run, "proportions")["bag_residual"]
    assert residual.null_count == int((two.bag == 7).sum()) - 1
    bags = read_bags(run, Limits())
    assert bags is not None
    assert (bags.count, bags.incomplete, bags.is_learned) == (23, 1, False)


def test_another_round__of_ready_probabilities_is_refused(two: Planted, tmp_path: Path) -> None:
    probs = np.full((two.items.num_rows, 2), 0.5)
    items = two.items.append_column("pred_probs", vectors(probs))
    settings = ("proportions.use=features", "proportions@2.use=pred_probs")
    with pytest.raises(RecipeError, match="another round learns from features or an embedding"):
        learn(tmp_path, items, two.bags, *settings)


# -- the report ------------------------------------------------------------------------------------


def test_report__says_what_was_found_of_bags(learned: Run, two: Planted) -> None:
    report = collect(learned.uri)
    bags = read_bags(learned, Limits())
    assert bags is not None
    sizes = two.bags["n"].to_numpy()
    assert (bags.count, bags.items, bags.others) == (24, two.items.num_rows, 0)
    assert (bags.smallest, bags.largest) == (sizes.min(), sizes.max())
    share = two.bags["positives"].to_numpy() / sizes
    assert bags.shares.values("Mean")[0] == pytest.approx(two.true.mean())
    assert bags.shares.values("Spread")[0] == pytest.approx(share.std())
    assert bags.rounds.values("Stage") == ("proportions", "proportions@2")
    assert report.ledger.is_balanced
    page = (Path(learned.uri) / "report.html").read_text()
    assert "in 24 bags of known totals" in page
    assert "Labels from totals" in page
    assert "Labels changed" not in page


def test_report__escapes_ids_of_bags_and_names_of_classes(two: Planted, tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    ids = [evil if b == "bag-003" else b for b in two.items["bag_id"].to_pylist()]
    n = two.bags["n"][3].as_py()
    wrong = n if two.bags["positives"][3].as_py() * 2 < n else 0
    bags = replaced(replaced(two.bags, "bag_id", 3, evil), "positives", 3, wrong)
    recipe = f'{ONE_ROUND}\n[data]\nclasses = ["<b>no</b>", "<i>yes</i>"]\n'
    items = two.items.set_column(1, "bag_id", pa.array(ids))
    run = learn(tmp_path, items, bags, recipe=recipe)
    found = read_bags(run, Limits())
    assert found is not None
    assert evil in found.shown.values("Bag")
    page = (Path(run.uri) / "report.html").read_text()
    assert evil not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<i>yes</i>" not in page
    assert "&lt;i&gt;yes&lt;/i&gt;" in page
    assert "alert" not in (Path(run.uri) / "README.md").read_text()
