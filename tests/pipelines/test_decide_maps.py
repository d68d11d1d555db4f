"""Oracles: pictures of known content, truths drawn from planted chances, the log on its own."""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit

import pipelines.run
from pipelines.core.results import load_result
from pipelines.core.stage import Arrays
from pipelines.core.state import Run, load_run
from pipelines.decisions.counts import counts_of, summary_of
from pipelines.decisions.ledger import derive
from pipelines.errors import DataError, RecipeError
from pipelines.recipe import load_recipe
from pipelines.report import collect
from tests.datasets import write_shards
from tests.pipelines.inferred import png
from tests.pipelines.localized import (
    COLOURS,
    PLAIN,
    SIDE,
    colour_net,
    localize,
    mosaics,
    read,
    save_program,
    single_labelled,
    table_of,
)
from tests.pipelines.shown import drawn, section

AFTER = "decide_maps evaluate dataset"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_program(tmp_path_factory.mktemp("program") / "colours.pt2", colour_net()))


ADDING = [*PLAIN, "decide_maps.add_unmeasured=true"]


def relabel(folder: Path, program: str, table: pa.Table, sizes: list[int], *settings: str) -> Run:
    named = [f"localize.classifier={program}", *ADDING, *settings]
    return localize(folder, table, sizes, *named, after=AFTER)


def by_item(run: Run, folder: str = "dataset") -> dict[int, dict[str, object]]:
    return {row["item_id"]: row for row in read(run, folder).to_pylist()}


def in_order(lists: list[list[str]]) -> list[list[str]]:
    return [sorted(labels) for labels in lists]


def outcome(run: Run) -> Arrays:
    return load_result(run.store, "decide_maps", "outcome")


def card(run: Run) -> str:
    return (Path(run.uri) / "README.md").read_text()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, program: str) -> Run:
    return relabel(tmp_path_factory.mktemp("whole"), program, single_labelled()[0], [25, 35])


# -- one label an item -----------------------------------------------------------------------------


def test_product__lists_all_contents(whole: Run) -> None:
    table, classes = single_labelled()
    found = by_item(whole)
    for i, label in enumerate(table["label"].to_pylist()):
        holds = [COLOURS[c] for c in np.unique(classes[i])]
        clean = found[i]["labels_clean"]
        assert isinstance(clean, list)
        assert found[i]["label"] == label
        assert sorted(clean) == sorted(holds)
        assert found[i]["decision"] == ("relabel" if len(holds) > 1 else "keep")
    schema = read(whole, "dataset").schema
    assert schema.names[-5:] == ["labels_clean", "decision", "reason", "confidence", "weight"]
    assert schema.field("labels_clean").type == pa.list_(pa.string())


def test_product__says_nothing_of_how_sure_it_is_where_only_presence_is_known(whole: Run) -> None:
    for row in by_item(whole).values():
        assert row["confidence"] == (None if row["decision"] == "relabel" else 1.0)
        assert row["weight"] == 1.0
    log = read(whole, "decisions")
    assert set(log["rule"].to_pylist()) == {"map-seen"}
    assert log["p_correct"].null_count == len(log)
    gate = outcome(whole)
    assert gate["known"] == "presence only"
    assert np.isnan(gate["shipped_expected_fixed"][gate["shipped"] > 0]).all()
    n_added = int(gate["added"].sum())
    said = f"{n_added:,} labels were added to 60 given ones. The precision of added labels is not"
    assert said in card(whole)
    assert f"| `map-seen` | {n_added} | {n_added} | not known | not known | passed: not" in card(
        whole
    )


def test_nothing_is_lost__and_the_card_counts_it(whole: Run) -> None:
    counts, (_, classes) = counts_of(whole), single_labelled()
    n_several = sum(len(np.unique(one)) > 1 for one in classes)
    assert (counts["keep"], counts["relabel"], counts["review"]) == (60 - n_several, n_several, 0)
    assert summary_of(counts) == {
        "source": 60, "quarantined": 0, "keep": 60 - n_several, "relabel": n_several, "written": 60,
    }  # fmt: skip
    assert f"| relabelled | {n_several} |" in card(whole)
    assert f"| all of the source | {60} |" in card(whole)


def test_quarantined_pictures__are_counted(program: str, tmp_path: Path) -> None:
    table = single_labelled()[0].slice(0, 8)
    images = [row["bytes"] for row in table["image"].to_pylist()]
    images[3] = b"garbage"
    bad = table_of(images, table["label"].to_pylist())
    run = relabel(tmp_path, program, bad, [5, 3])
    assert sorted(by_item(run)) == [0, 1, 2, 4, 5, 6, 7]
    assert counts_of(run)["quarantined"] == 1
    assert sum(counts_of(run)[name] for name in ("keep", "relabel", "quarantined")) == 8


def test_not_adding_what_is_not_measured__leaves_all_as_given(program: str, tmp_path: Path) -> None:
    run = relabel(tmp_path, program, single_labelled()[0], [60], "decide_maps.add_unmeasured=false")
    for row in by_item(run).values():
        assert row["labels_clean"] == [row["label"]]
        assert row["decision"] == "keep"
    assert not outcome(run)["added"].any()
    assert outcome(run)["proposed"].sum() > 40
    assert "the gain of this rule" in by_item(run)[0]["reason"]  # type: ignore[operator]


def test_labels_that_are_numbers__stay_numbers(program: str, tmp_path: Path) -> None:
    table, classes = single_labelled()
    numbers = pa.array([10 + COLOURS.index(x) for x in table["label"].to_pylist()], pa.int16())
    table = table.set_column(2, "label", numbers).slice(0, 20)
    run = relabel(tmp_path, program, table, [20], "data.classes=[]")
    assert read(run, "dataset").schema.field("labels_clean").type == pa.list_(pa.int16())
    for i, row in by_item(run).items():
        assert sorted(row["labels_clean"]) == (10 + np.unique(classes[i])).tolist()  # type: ignore[call-overload]


@pytest.mark.parametrize("sizes", [[60], [0, 1, 0, 59]])
def test_output__does_not_depend_on_the_cut(
    whole: Run, program: str, tmp_path: Path, sizes: list[int]
) -> None:
    run = relabel(tmp_path, program, single_labelled()[0], sizes)
    assert read(run, "decide_maps").equals(read(whole, "decide_maps"))
    products = [read(r, "dataset").drop_columns(["shard"]) for r in (run, whole)]
    assert products[0].equals(products[1])
    logs = [read(r, "decisions").drop_columns(["run"]) for r in (run, whole)]
    keys = [("item_id", "ascending"), ("label_id", "ascending")]
    assert logs[0].sort_by(keys).equals(logs[1].sort_by(keys))
    for step in ("gate", "outcome"):
        one, two = (load_result(r.store, "decide_maps", step) for r in (run, whole))
        assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_recipe__has_the_product_of_its_stages(whole: Run, program: str, tmp_path: Path) -> None:
    """With stage `infer` before them, whose pixels have nothing to say here."""
    settings = [f"data.classes={list(COLOURS)}", f"localize.classifier={program}", *ADDING]
    data = write_shards(tmp_path / "data", single_labelled()[0], [25, 35])
    pipelines.run.run(load_recipe("relabel", settings), data=str(data), out=str(tmp_path / "out"))
    runs = (load_run(str(tmp_path / "out")), whole)
    found, expected = (read(r, "dataset").drop_columns(["shard"]) for r in runs)
    assert found.equals(expected)


# -- the log ---------------------------------------------------------------------------------------


def test_log__lists_follow_from_it_with_and_without_rules_and_items(
    whole: Run, program: str, tmp_path: Path
) -> None:
    source, log = single_labelled()[0].select(["item_id", "label"]), read(whole, "decisions")
    clean = derive(source, log)["labels_clean"].to_pylist()
    assert in_order(clean) == in_order(read(whole, "dataset")["labels_clean"].to_pylist())

    out = ["3", "41"]
    run = relabel(
        tmp_path / "a", program, single_labelled()[0], [25, 35], f"dataset.leave_out_items={out}"
    )
    rows, without = by_item(run), derive(source, log, leave_out_items=out)
    got = [rows[i]["labels_clean"] for i in range(60)]
    assert in_order(got) == in_order(without["labels_clean"].to_pylist())
    assert rows[3]["labels_clean"] == [rows[3]["label"]]
    assert rows[3]["reason"] == "left out: map-seen"
    assert (rows[3]["confidence"], rows[3]["weight"]) == (1.0, 1.0)
    run = relabel(
        tmp_path / "b", program, single_labelled()[0], [60], "dataset.leave_out_rules=['map-seen']"
    )
    assert all(row["labels_clean"] == [row["label"]] for row in by_item(run).values())
    with pytest.raises(RecipeError, match=r"must name rules of stage 'decide_maps', got \['x'\]"):
        relabel(
            tmp_path / "c", program, single_labelled()[0], [60], "dataset.leave_out_rules=['x']"
        )


def test_without_maps__what_is_lacking_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"which has nothing to do: no classifier is named"):
        localize(tmp_path, single_labelled()[0], [60], after=AFTER)


# -- lists -----------------------------------------------------------------------------------------


def listed(unknown: bool) -> tuple[pa.Table, list[list[int]]]:
    """Return mosaics without one of their contents; of some, one that they have is ruled out."""
    pixels, classes = mosaics(90, seed=3)
    holds = [np.unique(one).tolist() for one in classes]
    given = [h[1:] if i % 3 == 1 else h for i, h in enumerate(holds)]
    named = [[COLOURS[c] for c in g] for g in given]
    table = table_of([png(one) for one in pixels], named, "labels")
    if unknown:
        no = [[COLOURS[c] for c in range(3) if c not in h] for h in holds]
        for i in (1, 4):
            no[i].append(COLOURS[holds[i][0]])
        table = table.append_column("labels_negative", pa.array(no, pa.list_(pa.string())))
    return table, holds


def test_complete_lists__are_not_contradicted(program: str, tmp_path: Path) -> None:
    table, _ = listed(unknown=False)
    run = relabel(tmp_path, program, table, [40, 50], "localize.output=softmax")
    rows = by_item(run)
    assert [rows[i]["labels_clean"] for i in range(90)] == table["labels"].to_pylist()
    found = outcome(run)
    assert found["proposed"][found["rules"] == "map-seen"] == 30
    assert "held back: the lists of labels count as complete" in card(run)
    assert "no label was added" in card(run)


def test_three_states__unknown_classes_are_added_and_ruled_out_ones_reviewed(
    program: str, tmp_path: Path
) -> None:
    table, holds = listed(unknown=True)
    run = relabel(tmp_path, program, table, [40, 50], "localize.output=softmax")
    rows, aside = by_item(run), by_item(run, "set_aside")
    assert sorted(aside) == [1, 4]
    for row in aside.values():
        assert row["labels_clean"] is None
        assert row["decision"] == "review"
        assert row["confidence"] < 0.5  # type: ignore[operator]
    for i, row in rows.items():
        assert sorted(row["labels_clean"]) == sorted(COLOURS[c] for c in holds[i])  # type: ignore[call-overload]
        assert row["labels_negative_clean"] == row["labels_negative"]
    assert counts_of(run)["review"] == 2
    assert outcome(run)["is_measured"].any()


# -- a reference -----------------------------------------------------------------------------------

N_TINTS, N_KNOWN = 1500, 500


@cache
def tints() -> tuple[pa.Table, np.ndarray]:
    """Return pictures of one tint, and contents drawn by chances that are far from the scores.

    The net's score of a colour is σ(20 s) of its strength s, the chance σ(8 s − 4): a strength of
    0.25 looks like 0.99 and is worth 0.12. One content is given, or any colour if there is none.
    """
    rng = np.random.default_rng(5)
    strength = rng.integers(0, 256, (N_TINTS, 3))
    has = rng.random((N_TINTS, 3)) < expit(8 * strength / 255 - 4)
    given = np.argmax(has + rng.random((N_TINTS, 3)), axis=1)
    pixels = np.broadcast_to(strength[:, None, None], (N_TINTS, SIDE, SIDE, 3)).astype(np.uint8)
    return table_of([png(one) for one in pixels], [COLOURS[c] for c in given]), has


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, program: str) -> Run:
    folder, (table, has) = tmp_path_factory.mktemp("measured"), tints()
    known = [[COLOURS[c] for c in np.flatnonzero(row)] for row in has[:N_KNOWN]]
    path = folder / "known.parquet"
    ids = [str(i) for i in range(N_KNOWN)]
    pq.write_table(pa.table({"item_id": ids, "true_labels": known}), path)
    truths = [[COLOURS[c] for c in np.flatnonzero(row)] for row in has]
    everything = pa.table({"item_id": list(map(str, range(N_TINTS))), "true_labels": truths})
    pq.write_table(everything, folder / "all.parquet")
    settings = [f"localize.reference={path}", "localize.output=logistic"]
    settings.append(f"evaluate.reference={folder / 'all.parquet'}")
    return relabel(folder, program, table, [700, 800], *settings)


@pytest.mark.parametrize("rule", ["map-seen", "map-agrees", "map-unseen"])
def test_p_correct__is_how_often_it_is_right_on_items_that_are_not_in_the_reference(
    measured: Run, rule: str
) -> None:
    _, has = tints()
    log = [row for row in read(measured, "map_decisions").to_pylist() if row["rule"] == rule]
    log = [row for row in log if row["item_id"] >= N_KNOWN]
    p = np.array([row["p_correct"] for row in log])
    right = np.array([has[row["item_id"], row["label_id"]] for row in log])
    for low, high in ((0.0, 0.6), (0.6, 0.8), (0.8, 1.0)):
        mine = (p >= low) & (p < high)
        if mine.sum() >= 20:
            # Of the planted truths, and of what 500 items say of a chance.
            error = np.sqrt(0.25 / mine.sum() + 0.25 / 100)
            assert abs(p[mine].mean() - right[mine].mean()) < 3 * error
    assert len(p) > 50
    # The scores themselves promise nearly 1.
    if rule == "map-seen":
        peak = np.array([row["evidence"]["p_believed"] for row in log])
        assert peak.mean() > 0.99
        assert right.mean() < 0.9


def test_gate__adds_what_held_out_items_support_and_no_more(measured: Run) -> None:
    (_, has), rows, gate = tints(), by_item(measured), outcome(measured)
    changes = gate["changes_labels"]
    assert gate["is_measured"][changes].any()
    assert (gate["ships"][changes] == (gate["gain_low"][changes] > 0)).all()
    assert gate["ships"][changes].any()
    shipped, expected = gate["shipped"].sum(), gate["shipped_expected_fixed"].sum()
    added = [(i, x) for i, row in rows.items() for x in row["labels_clean"] if x != row["label"]]
    assert len(added) == shipped == gate["added"].sum()
    n_right = sum(has[i, COLOURS.index(x)] for i, x in added)
    assert abs(n_right - expected) < 0.1 * shipped
    # Weights: twice how sure the least sure label is, less one.
    log = read(measured, "decisions").to_pylist()
    for i in range(0, N_TINTS, 97):
        least = min([1.0, *(r["p_correct"] for r in log if r["item_id"] == i)])
        assert rows[i]["confidence"] == pytest.approx(least, abs=1e-6)
        assert rows[i]["weight"] == pytest.approx(max(2 * least - 1, 0), abs=1e-6)
    assert f"{shipped} labels were added to 1,500 given ones" in card(measured).replace(
        f"{shipped:,}", str(shipped)
    )
    assert "from 500 items of the reference" in card(measured)


def test_evaluation__lists_are_better_than_single_labels(measured: Run) -> None:
    (_, has), found = tints(), load_result(measured.store, "evaluate", "measures")
    rows = by_item(measured)
    clean = np.array([[c in rows[i]["labels_clean"] for c in COLOURS] for i in range(N_TINTS)])  # type: ignore[operator]
    f1 = 2 * (clean & has).sum() / (clean.sum() + has.sum())
    assert found["clean_micro_f1"][0] == pytest.approx(f1)
    assert found["clean_micro_f1_gain"][1] > 0
    assert "given_real_accuracy" in found
    # A list has no first class of which it could be asked whether it is right.
    assert "clean_real_accuracy" not in found


def test_report__shows_the_gate_and_the_changed_lists(whole: Run, measured: Run) -> None:
    for run, known in ((whole, False), (measured, True)):
        report, gate = collect(run.uri), outcome(run)
        n_added, n_edited = int(gate["added"].sum()), counts_of(run)["relabel"]
        said = str(section(report, "edits").blocks[0])
        assert said.startswith(f"{n_added} labels were added and 0 labels removed")
        assert f"in {n_edited} items" in said
        assert report.ledger.relabelled == n_edited
        edit = drawn(report, "edits", "changes.html.j2")[0]
        row = by_item(run)[int(edit.item.item_id)]
        assert sorted(edit.kept + edit.added) == sorted(row["labels_clean"])  # type: ignore[call-overload]
        assert edit.kept == (row["label"],)
        rules = drawn(report, "rules", "gate.html.j2")
        assert all((rule.gain is not None) == known for rule in rules)
        assert sum(rule.shipped for rule in rules) == n_added
        page = (Path(run.uri) / "report.html").read_text()
        assert ("Expected fixed" in page) == known
        assert "Changed lists of labels" in page


def test_add_confidence__must_be_the_edge_of_a_band(program: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="add_confidence must be one of"):
        relabel(tmp_path, program, single_labelled()[0], [60], "decide_maps.add_confidence=0.55")
