"""Oracles: the log derives the product, planted truth, and limits counted by hand."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.decisions.counts import counts_of, summary_of
from pipelines.decisions.ledger import derive
from pipelines.errors import DataError, RecipeError
from pipelines.recipe import load_recipe
from pipelines.run import finish
from tests.datasets import even, tagged, vectors, write_shards

N, K = 400, 6
CLASSES = [f"class {k}" for k in range(K)]


@cache
def data() -> tuple[pa.Table, np.ndarray]:
    """Return items with ready probabilities of a good model that knows no item's label."""
    table, true = tagged(N, n_classes=K, hidden=0.3, wrong=0.06)
    rng = np.random.default_rng(1)
    probs = 1 / (1 + np.exp(-(np.where(true, 4.5, -4.5) + rng.normal(0, 1.5, true.shape))))
    probs = vectors(probs.astype(np.float32))
    return table.drop_columns(["features"]).append_column("pred_probs", probs), true


@cache
def finished(*settings: str, three_states: bool = False) -> Run:
    """Return a run with some settings; those of one and the same settings are one run."""
    folder = Path(mkdtemp(prefix="labelops-test-"))
    table, _ = data()
    if three_states:
        ruled_out = [
            [CLASSES[k] for k in range(K) if CLASSES[k] not in given and (i + k) % 3]
            for i, given in enumerate(table["labels"].to_pylist())
        ]
        table = table.append_column("labels_negative", pa.array(ruled_out, pa.list_(pa.string())))
    write_shards(folder / "src", table, even(N, 3))
    recipe = load_recipe("multilabel", list(settings))
    with pytest.MonkeyPatch.context() as patch:
        # The report has its own tests.
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: str(counts_of(run)))
        pipelines.run.run(recipe, data=str(folder / "src"), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def read(run: Run, folder: str) -> pa.Table:
    paths = sorted((Path(run.uri) / folder).glob("*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths)


def outcome(run: Run) -> dict[str, np.ndarray]:
    return run.context("decide_labels", run.layout()).own("outcome")


def changes(run: Run) -> list[dict[str, object]]:
    return [r for r in read(run, "decisions").to_pylist() if r["action"] in ("add", "remove")]


def is_right(row: dict[str, object]) -> bool:
    number = int(str(row["item_id"]).removeprefix("item-"))
    return bool(data()[1][number, int(str(row["label_id"]))] == (row["action"] == "add"))


def test_changes__are_mostly_right_and_as_sure_as_they_say() -> None:
    rows = changes(finished())
    right = np.array([is_right(row) for row in rows])
    promised = np.array([row["p_correct"] for row in rows], float)
    assert len(rows) > 50
    # Three standard errors of a share.
    assert right.mean() > promised.mean() - 3 * (promised * (1 - promised)).sum() ** 0.5 / len(rows)
    assert {row["action"] for row in rows} == {"add", "remove"}


@pytest.mark.parametrize(("add_confidence", "n"), [(0.98, 20), (0.987, 0), (0.994, 0)])
def test_fewer_changes_in_all_than_beliefs_can_vouch_for__are_not_made(
    add_confidence: float, n: int
) -> None:
    """Of twenty cells twelve ship; of fifteen nine would, since others wait; the gate holds six."""
    sure = f"decide_labels.add_confidence={add_confidence}", "decide_labels.remove_confidence=1.0"
    run = finished(*sure)
    assert len(changes(run)) == n
    told = [
        why for why in outcome(run)["verdict"].tolist() if "fewer than 10 changes in all" in why
    ]
    assert bool(told) == (add_confidence == 0.994)
    assert outcome(run)["shipped"].sum() == (12 if n else 0)


def test_fewer_changes_that_limits_leave__are_not_made_either() -> None:
    run = finished("decide_labels.max_change_share=0.01")
    quota = int(0.01 * int(outcome(run)["sizes"].sum()))
    assert 0 < quota < 10
    assert outcome(run)["ships"][outcome(run)["changes_labels"]].any()
    assert changes(run) == []
    assert outcome(run)["shipped"].sum() == 0


@pytest.mark.parametrize("three_states", [False, True])
def test_sidecar__follows_from_source_and_log(three_states: bool) -> None:
    run = finished(three_states=three_states)
    source = pa.concat_tables(
        pq.read_table(path) for path in sorted(Path(run.source.uri).glob("*.parquet"))
    )
    derived = derive(source, read(run, "decisions"))
    sidecar = read(run, "decide_labels")
    assert derived["decision"].equals(sidecar["decision"])
    for name in ("labels_clean", *(["labels_negative_clean"] if three_states else [])):
        for a, b in zip(derived[name].to_pylist(), sidecar[name].to_pylist(), strict=True):
            assert (a is None) == (b is None)
            assert a is None or sorted(a) == b


def test_three_states__no_class_is_both_and_what_nobody_looked_for_stays_unknown() -> None:
    run = finished(three_states=True)
    rows = pa.concat_tables([read(run, "dataset"), read(run, "set_aside")])
    for row in rows.to_pylist():
        before = {*row["labels"], *row["labels_negative"]}
        if row["labels_clean"] is not None:
            yes, no = set(row["labels_clean"]), set(row["labels_negative_clean"])
            assert not yes & no
            assert yes | no == before


def test_product__has_every_item_once_and_the_columns_of_both() -> None:
    run = finished()
    table = pa.concat_tables([read(run, "dataset"), read(run, "set_aside")])
    assert sorted(table["item_id"].to_pylist()) == sorted(data()[0]["item_id"].to_pylist())
    assert table.column_names == [
        *("item_id", "labels", "pred_probs", "shard", "labels_clean"),
        *("decision", "reason", "confidence", "weight"),
    ]
    assert table.schema.field("labels_clean").type == pa.list_(pa.string())
    assert set(read(run, "set_aside")["decision"].to_pylist()) == {"review"}
    assert read(run, "set_aside")["labels_clean"].null_count == read(run, "set_aside").num_rows
    counts = summary_of(counts_of(run))
    assert counts["keep"] + counts["relabel"] + counts["review"] == N == counts["written"]


def test_product__opens_in_datasets_pandas_polars_and_duckdb(tmp_path: Path) -> None:
    run = finished()
    folder = Path(run.uri) / "dataset"
    expected = read(run, "dataset")["labels_clean"].to_pylist()
    loaded = load_dataset(
        "parquet", data_files=str(folder / "*.parquet"), split="train", cache_dir=str(tmp_path)
    )
    assert list(loaded["labels_clean"]) == expected
    assert [list(x) for x in pd.read_parquet(folder)["labels_clean"]] == expected
    assert pl.read_parquet(folder / "*.parquet")["labels_clean"].to_list() == expected
    query = f"SELECT labels_clean FROM '{folder}/*.parquet' ORDER BY item_id"
    assert [row[0] for row in duckdb.sql(query).fetchall()] == expected


def test_log__has_a_row_for_every_flagged_class_and_says_what_was_before_and_after() -> None:
    run = finished()
    flagged = read(run, "multilabel")
    lists = flagged["is_missing"].to_pylist() + flagged["is_wrong"].to_pylist()
    n_flagged = sum(map(sum, lists))
    assert n_flagged < sum(map(len, lists))
    log = read(run, "decisions").to_pylist()
    assert len(log) == n_flagged
    for row in log:
        name = CLASSES[row["label_id"]]
        pair = {"add": (None, name), "remove": (name, None)}.get(row["action"])
        assert pair is None or (row["before"], row["after"]) == pair
        p = row["evidence"]["p_believed"]
        expected = p if row["action"] in ("add", "remove") else 1 - p
        np.testing.assert_allclose(row["p_correct"], expected, atol=1e-6)


def test_outcome__adds_up_with_the_log() -> None:
    run = finished()
    found, log = outcome(run), read(run, "decisions")
    waits = set(read(run, "set_aside")["item_id"].to_pylist())
    by_action = {
        name: int(found["done"][:, i].sum()) for i, name in enumerate(found["actions"].tolist())
    }
    for action in ("keep", "add", "remove", "review"):
        assert log["action"].to_pylist().count(action) == by_action[action]
    shipped = [row for row in changes(run) if row["item_id"] not in waits]
    assert found["shipped"].sum() == len(shipped)
    assert found["added"].sum() == sum(row["action"] == "add" for row in shipped)
    np.testing.assert_allclose(
        found["total_fixed"], sum(float(str(r["p_correct"])) for r in shipped)
    )


@pytest.mark.parametrize("share", [0.0, 0.03])
def test_max_change_share__is_a_share_of_the_labels_and_the_surest_come_first(share: float) -> None:
    run = finished(f"decide_labels.max_change_share={share}")
    free = changes(finished("decide_labels.max_change_share=1.0"))
    some = changes(run)
    limit = int(share * sum(map(len, data()[0]["labels"].to_pylist())))
    assert len(some) == min(limit, len(free))
    if some:
        kept = sorted(float(str(row["p_correct"])) for row in some)
        every = sorted(float(str(row["p_correct"])) for row in free)
        assert kept == every[-len(kept) :]
    held = outcome(run)["held"].sum(axis=0)[
        outcome(run)["held_reasons"].tolist().index("max_change")
    ]
    assert held == len(free) - len(some)


@pytest.mark.parametrize("budget", [0, 5])
def test_max_review__sets_aside_the_most_suspicious_items(budget: int) -> None:
    run = finished(f"decide_labels.max_review={budget}")
    aside = read(run, "set_aside") if (Path(run.uri) / "set_aside").exists() else None
    n_aside = 0 if aside is None else aside.num_rows
    assert n_aside == budget
    worst: dict[str, float] = {}
    for row in read(run, "decisions").to_pylist():
        is_held = row["rule"].startswith(("add", "remove")) and row["action"] in ("keep", "review")
        if row["rule"].endswith("unsure") or is_held:
            p = row["evidence"]["p_believed"]
            worst[row["item_id"]] = max(worst.get(row["item_id"], 0.0), p)
    expected = sorted(worst.values())[len(worst) - budget :]
    chosen = [] if aside is None else [worst[i] for i in aside["item_id"].to_pylist()]
    np.testing.assert_allclose(sorted(chosen), expected)


def test_min_class_size__no_label_leaves_a_small_class() -> None:
    run = finished("decide_labels.min_class_size=400")
    assert {row["action"] for row in changes(run)} == {"add"}
    reasons = read(run, "decide_labels")["reason"].to_pylist()
    assert any("its class would become too small" in reason for reason in reasons)


def test_gate__measured_only_ships_nothing_without_reviews() -> None:
    run = finished("decide_labels.gate=measured")
    assert not changes(run)
    found = outcome(run)
    verdicts = found["verdict"][found["changes_labels"] & (found["proposed"] > 0)].tolist()
    assert all(v.endswith("held back until items are reviewed") for v in verdicts)


# -- reviews ---------------------------------------------------------------------------------------


def reviewed(tmp_path: Path, items: list[int], *, lie: bool = False) -> Path:
    true = data()[1] ^ lie
    lists = [[CLASSES[k] for k in np.flatnonzero(true[i])] for i in items]
    ids = [f"item-{i:05d}" for i in items]
    path = tmp_path / "seen.parquet"
    pq.write_table(
        pa.table({"item_id": ids, "true_labels": pa.array(lists, pa.list_(pa.string()))}), path
    )
    return path


def test_reviewed_items__get_the_labels_of_their_reviewers(tmp_path: Path) -> None:
    items = list(range(0, N, 4))
    run = finished(f"decide_labels.reviewed={reviewed(tmp_path, items)}")
    rows = {row["item_id"]: row for row in read(run, "decide_labels").to_pylist()}
    for i in items:
        row = rows[f"item-{i:05d}"]
        assert row["labels_clean"] == [CLASSES[k] for k in np.flatnonzero(data()[1][i])]
        assert (row["confidence"], row["weight"]) == (1.0, 1.0)
    mine = [r for r in read(run, "decisions").to_pylist() if r["rule"] == "reviewed"]
    assert mine
    assert {row["actor"] for row in mine} == {"reviewer"}
    assert outcome(run)["is_measured"].any()


def test_a_rule_that_reviewers_contradict__is_held_back(tmp_path: Path) -> None:
    seen = reviewed(tmp_path, list(range(0, N, 2)), lie=True)
    run = finished(f"decide_labels.reviewed={seen}", "decide_labels.gate=measured")
    found = outcome(run)
    assert not found["ships"][found["changes_labels"]].any()
    assert {row["rule"] for row in changes(run)} == {"reviewed"}


def test_a_measured_rule__ships_under_a_gate_that_asks_for_it(tmp_path: Path) -> None:
    seen = reviewed(tmp_path, list(range(0, N, 2)))
    run = finished(f"decide_labels.reviewed={seen}", "decide_labels.gate=measured")
    found = outcome(run)
    shipping = found["ships"] & found["is_measured"]
    assert shipping.any()
    assert found["shipped"][shipping].sum() > 0
    assert not found["shipped"][~found["ships"]].any()


# -- left out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["add-0.99", "remove-0.95", "missing-unsure", "wrong-unsure"])
@pytest.mark.parametrize("three_states", [False, True])
def test_left_out_rules__give_what_the_log_gives_without_them(
    rule: str, three_states: bool
) -> None:
    run = finished(f'dataset.leave_out_rules=["{rule}"]', three_states=three_states)
    source = pa.concat_tables(
        pq.read_table(path) for path in sorted(Path(run.source.uri).glob("*.parquet"))
    )
    derived = derive(source, read(run, "decisions"), leave_out_rules=[rule])
    expected = {row["item_id"]: row for row in derived.to_pylist()}
    parts = [read(run, f) for f in ("dataset", "set_aside") if (Path(run.uri) / f).exists()]
    table = pa.concat_tables(parts)
    assert table.num_rows == N
    changed = 0
    before = {row["item_id"]: row for row in read(run, "decide_labels").to_pylist()}
    for row in table.to_pylist():
        now = expected[row["item_id"]]
        assert row["decision"] == now["decision"]
        assert (row["labels_clean"] is None) == (now["labels_clean"] is None)
        assert row["labels_clean"] is None or row["labels_clean"] == sorted(now["labels_clean"])
        if row["labels_clean"] != before[row["item_id"]]["labels_clean"]:
            changed += 1
            assert "left out" in row["reason"]
    assert changed > 0


def test_left_out_items__stay_as_given() -> None:
    item = str(changes(finished())[0]["item_id"])
    run = finished(f'dataset.leave_out_items=["{item}"]')
    [row] = [r for r in read(run, "dataset").to_pylist() if r["item_id"] == item]
    assert row["labels_clean"] == sorted(row["labels"])
    assert (row["decision"], row["weight"]) == ("keep", 1.0)
    undone = [r for r in read(run, "decisions").to_pylist() if r["item_id"] == item]
    assert row["reason"] == f"left out: {undone[0]['rule']}"
    # As little as what was undone left of it.
    assert row["confidence"] == min(r["evidence"]["p_given"] for r in undone)


def test_left_out_rules__that_there_are_not_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"must name rules of stage 'decide_labels', got \['x'\]"):
        finished('dataset.leave_out_rules=["x"]')


def test_derive__of_several_rows_the_last_counts() -> None:
    source = pa.table({"item_id": ["a"], "labels": [["x"]]})
    log = pa.table(
        {
            "item_id": ["a", "a"],
            "label_id": [1, 1],
            "action": ["review", "add"],
            "before": pa.array([None, None], pa.string()),
            "after": pa.array([None, "y"]),
            "rule": ["r", "s"],
        }
    )
    assert derive(source, log)["labels_clean"].to_pylist() == [["x", "y"]]
    assert derive(source, log, leave_out_rules=["s"])["labels_clean"].to_pylist() == [None]
    assert derive(source, log.slice(0, 0))["labels_clean"].to_pylist() == [["x"]]


# -- card ------------------------------------------------------------------------------------------


def test_card_and_report__are_written_for_lists() -> None:
    run = finished()
    finish(run)
    card = (Path(run.uri) / "README.md").read_text()
    n_relabelled = read(run, "decide_labels")["decision"].to_pylist().count("relabel")
    assert f"| relabelled | {n_relabelled} |" in card
    assert "`labels_clean` | the labels to train on" in card
    assert "`pipelines.decisions.ledger.derive`" in card
    assert (Path(run.uri) / "report.html").stat().st_size > 10_000


def test_audit__of_lists_says_which_recipe_is_meant(tmp_path: Path) -> None:
    write_shards(tmp_path / "src", data()[0], [N])
    with pytest.raises(DataError, match="Recipe 'multilabel' is for lists of labels"):
        pipelines.run.run(load_recipe("audit"), data=str(tmp_path / "src"), out=str(tmp_path / "o"))
