"""The report on lists of labels: planted maps, the sidecars of real runs, strings that attack."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.label_maps import sparsify_maps
from pipelines.core.results import load_result
from pipelines.maps.columns import MapFacts, columns_of
from pipelines.recipe import parse_recipe
from pipelines.report import collect
from pipelines.report.limits import Limits
from pipelines.report.model import Change, Group, Items, Patch, Report
from pipelines.report.parts.overlays import overlay
from pipelines.report.render import render
from pipelines.storage.store import open_store
from tests.datasets import even, tagged, write_shards
from tests.pipelines import localized
from tests.pipelines.inferred import png
from tests.pipelines.localized import COLOURS, PLAIN, colour_net, mosaics, save_program
from tests.pipelines.planted_report import listed
from tests.pipelines.shown import drawn, items_of, section, table_of, worst_groups
from tests.pipelines.test_report_render import HOSTILE, Page

N = 240
STAGES = ["source", "infer", "multilabel", "decide_labels", "localize", "evaluate", "dataset"]


def run(folder: Path, table: pa.Table, sizes: list[int], *settings: str, stages: Any = None) -> str:
    data = write_shards(folder / "data", table, sizes)
    names = list(stages or STAGES)
    recipe = parse_recipe(f"stages = {names}", name="multilabel", overrides=settings)
    pipelines.run.run(recipe, data=str(data), out=str(folder / "out"))
    return str(folder / "out")


def rows(out: str, stage: str) -> list[dict[str, Any]]:
    paths = sorted((Path(out) / stage).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths]).to_pylist()


def flagged(row: dict[str, Any], kind: str) -> dict[int, float]:
    """Return the flagged classes of an item, and how probable they are to be missing or wrong."""
    columns = row[f"{kind}_ids"], row[f"{kind}_probs"], row[f"is_{kind}"]
    return {k: p for k, p, is_flagged in zip(*columns, strict=True) if is_flagged}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("lists")
    source, true = tagged(N)
    names = [[f"class {k}" for k in np.flatnonzero(row)] for row in true]
    pq.write_table(
        pa.table({"item_id": source["item_id"], "true_labels": names}), folder / "true.parquet"
    )
    return run(folder, source, [100, 140], *settings_of(folder / "true.parquet"))


def settings_of(path: Path) -> list[str]:
    """Reviewed throughout, so that lists are changed whatever the gate lets pass."""
    names = ("evaluate.reference", "decide_labels.reviewed")
    return [*(f"{name}={path}" for name in names), "decide_labels.min_class_size=0"]


def test_collect__says_of_every_class_what_the_sidecar_says(known: str) -> None:
    report, found = collect(known), rows(known, "multilabel")
    heads = ("Class", "Given", "Wrong", "Flagged wrong", "Missing", "Flagged missing")
    classes = table_of(report, "lists", *heads)
    assert {name for name, *_ in classes} == {f"class {k}" for k in range(5)}
    for name, given, wrong, n_wrong, missing, n_missing in classes:
        k = int(name.removeprefix("class "))
        assert n_missing == sum(k in flagged(row, "missing") for row in found)
        assert n_wrong == sum(k in flagged(row, "wrong") for row in found)
        assert given == sum(name in labels for labels in tagged(N)[0]["labels"].to_pylist())
        for estimate in (wrong, missing):
            assert estimate.low <= estimate.value <= estimate.high
    total = sum(wrong.value for _, _, wrong, *_ in classes)
    assert f"and {total:,.0f} wrong (" in section(report, "lists").lead
    tiles = {tile.name: tile.value for tile in section(report, "lists").tiles}
    assert tiles["Flagged items"] == str(sum(row["is_label_issue"] for row in found))
    assert "not counted here" not in str(section(report, "lists").blocks[0])


@pytest.mark.parametrize("kind", ["missing", "wrong"])
def test_collect__shows_the_surest_of_each_class(known: str, kind: str) -> None:
    report = collect(known)
    found = {row["item_id"]: row for row in rows(known, "multilabel")}
    given = dict(zip(*(tagged(N)[0][c].to_pylist() for c in ("item_id", "labels")), strict=True))
    n_shown = 0
    for group in section(report, "worst").blocks:
        if not isinstance(group, Group):
            continue
        k = int(group.name.removeprefix("class "))
        p_of = {
            item: flagged(row, kind)[k] for item, row in found.items() if k in flagged(row, kind)
        }
        blocks = [b for b in group.blocks if isinstance(b, Items) and b.score == f"P({kind})"]
        shown = items_of(blocks)
        surest = sorted(p_of.values(), reverse=True)[: len(shown)]
        assert [item.score for item in shown] == surest
        for item in shown:
            assert p_of[item.item_id] == item.score
            assert item.given == (", ".join(given[item.item_id]) or "none")
        n_shown += len(shown)
    assert n_shown > 10


def test_collect__shows_changed_lists_before_and_after(known: str) -> None:
    report = collect(known)
    edits: tuple[Change, ...] = drawn(report, "edits", "changes.html.j2")
    given = dict(zip(*(tagged(N)[0][c].to_pylist() for c in ("item_id", "labels")), strict=True))
    decided = {row["item_id"]: row for row in rows(known, "decide_labels")}
    n_changed = sum(row["decision"] == "relabel" for row in decided.values())
    said = str(section(report, "edits").blocks[0])
    assert f"in {n_changed} items;" in said
    assert len(edits) == min(n_changed, Limits().changes) > 0
    for edit in edits:
        row = decided[edit.item.item_id]
        assert edit.kept is not None
        assert {*edit.kept, *edit.added} == set(row["labels_clean"])
        assert {*edit.kept, *edit.removed} == set(given[edit.item.item_id])
        assert edit.added or edit.removed
        assert edit.reason == row["reason"]
        assert edit.confidence == row["confidence"]
    # The least sure come first.
    sure = [edit.confidence for edit in edits]
    assert sure == sorted(sure)
    log = rows(known, "decisions")
    n_added = sum(
        r["action"] == "add" and decided[r["item_id"]]["decision"] == "relabel" for r in log
    )
    assert said.startswith(f"{n_added} labels were added")


def test_collect__says_how_far_probabilities_of_classes_can_be_trusted(known: str) -> None:
    """Against the sidecar, all cells of it: in few items none is left out of the sample."""
    report = collect(known)
    p, given = [], []
    of = dict(zip(*(tagged(N)[0][c].to_pylist() for c in ("item_id", "labels")), strict=True))
    for row in rows(known, "infer"):
        p += row["pred_probs"]
        given += [f"class {k}" in of[row["item_id"]] for k in range(5)]
    heads = ("Confidence", "When", "Cells", "Mean confidence", "Share given")
    bins = {
        round(float(one[0].split("\u2009")[0]) * 15): one
        for one in table_of(report, "calibration", *heads)
        if one[1] == "before"
    }
    of_bin = np.ceil(np.array(p) * 15).astype(int) - 1
    assert set(bins) == set(of_bin.tolist())
    gap = 0.0
    for b, (_, _, n, confidence, accuracy) in bins.items():
        mine = of_bin == b
        assert n == mine.sum()
        assert confidence == pytest.approx(np.array(p)[mine].mean(), abs=1e-6)
        assert accuracy == pytest.approx(np.array(given)[mine].mean())
        gap += n * abs(confidence - accuracy)
    measures = {
        name: before for (name, _), before in table_of(report, "calibration", "Measure", "Before")
    }
    assert measures["ECE"] == pytest.approx(gap / (N * 5))
    found = load_result(open_store(known), "infer", "calibration")
    log_odds = np.log(np.divide(p, 1 - np.array(p)))
    scaled = 1 / (1 + np.exp(-(found["slope"] * log_odds + found["shift"])))
    # What fits best has the mean of what is given.
    assert scaled.mean() == pytest.approx(np.mean(given), abs=5e-3)
    said = str(section(report, "calibration").blocks[0])
    assert "When the model gives a class 80\u202f%" in said
    assert f"All classes of {N} items" in said
    assert "1,200 out-of-sample probabilities" in said
    assert f"log-odds times {found['slope']:.3f}" in said


def test_collect__gives_measures_against_the_reference_and_accounts(known: str) -> None:
    report = collect(known)
    evaluation = section(report, "evaluation")
    assert str(evaluation.blocks[0]).startswith(f"{N} items with")
    tables = {table.caption: table for _, table in evaluation.artifacts}
    assert set(tables) >= {"labels as given", "labels as cleaned", "model’s sets"}
    measured = load_result(open_store(known), "evaluate", "measures")
    values = {name: value for (name, _), value, _ in tables["labels as given"].rows}
    assert values["Micro-F1"].value == measured["given_micro_f1"][0]
    assert report.ledger.is_balanced
    page = render(report)
    for anchor in ("lists", "worst", "edits", "evaluation"):
        assert f'id="{anchor}"' in page
    assert 'id="maps"' not in page


def test_report__does_not_depend_on_the_cut(known: str, tmp_path: Path) -> None:
    settings = settings_of(Path(known).parent / "true.parquet")
    again = collect(run(tmp_path, tagged(N)[0], even(N, 7), *settings))
    one = collect(known)

    def shards_aside(report: Report) -> str:
        said = [section for section in report.sections if section.rank < 130]
        return re.sub(r"shard=\d+", "", repr((said, report.ledger)))

    assert shards_aside(again) == shards_aside(one)


def test_collect__marks_where_pictures_show_what_they_were_not_given(tmp_path: Path) -> None:
    """Quarters of colours: the overlay of a colour covers just its quarters."""
    program = save_program(tmp_path / "colours.pt2", colour_net())
    pixels, classes = mosaics(40, seed=5)
    given = classes.reshape(40, 4)[:, 0]
    table = localized.table_of([png(one) for one in pixels], [COLOURS[k] for k in given])
    settings = [f"localize.classifier={program}", f"data.classes={list(COLOURS)}", *PLAIN]
    report = collect(run(tmp_path, table, [15, 25], *settings, stages=["source", "localize"]))
    tiles = {tile.name: tile.value for tile in section(report, "maps").tiles}
    assert tiles["Given labels seen"] == "100\u202f%"
    holds = np.array([(classes == k).any(axis=(1, 2)) for k in range(3)])
    shown = worst_groups(report, "maps")
    n_new = 0
    for name, found, new in table_of(report, "maps", "Class", "Found in", "Not given"):
        k = COLOURS.index(name)
        assert found == holds[k].sum()
        assert new == (holds[k] & (given != k)).sum()
        n_new += new
        for item in shown[name]:
            i = int(item.item_id)
            assert item.given == COLOURS[given[i]] != name
            assert item.overlay is not None
            assert item.picture is not None
            drawn_at = np.zeros((4, 4), int)
            for patch in item.overlay.patches:
                drawn_at[patch.y, patch.x : patch.x + patch.width] = patch.level
            assert np.array_equal(drawn_at == 4, (classes[i] == k).repeat(2, 0).repeat(2, 1))
    words = re.sub(r"<[^>]*>", "", render(report))
    assert f"show {n_new} classes beyond the given ones in 40 pictures" in words


def row_of(scores: np.ndarray, k: int) -> tuple[dict[str, object], MapFacts]:
    maps = sparsify_maps(scores[None], k=k)
    facts = MapFacts(*scores.shape[1:], k, len(scores), "logistic", 64)
    return {name: column.to_pylist()[0] for name, column in columns_of(maps).items()}, facts


def test_overlay__runs_of_equal_cells_are_one_patch_and_weak_ones_none() -> None:
    log_odds = np.array([[[0.5, 2.0, -0.5, -9.0], [-1.5, -2.5, -9.0, 0.0]]])
    values, facts = row_of(log_odds, 1)
    found = overlay(values, facts, 0, "cat", cutoff=0.5, most=16)
    assert found is not None
    assert (found.name, found.columns, found.rows) == ("cat", 4, 2)
    assert found.patches == (
        Patch(0, 0, 2, 4), Patch(2, 0, 1, 3),
        Patch(0, 1, 1, 2), Patch(1, 1, 1, 1), Patch(3, 1, 1, 4),
    )  # fmt: skip
    higher = overlay(values, facts, 0, "cat", cutoff=1 / (1 + np.exp(-1.0)), most=16)
    assert higher is not None
    assert [patch.level for patch in higher.patches] == [3, 4, 2, 1, 3]


def test_overlay__fine_maps_are_drawn_coarser_by_their_largest_cells() -> None:
    scores = np.full((1, 5, 40), -9.0)
    scores[0, 4, 39] = 3.0
    values, facts = row_of(scores, 1)
    found = overlay(values, facts, 0, "cat", cutoff=0.5, most=10)
    assert found is not None
    assert (found.columns, found.rows) == (10, 5)
    assert found.patches == (Patch(9, 4, 1, 4),)


def test_overlay__of_what_is_not_seen_or_not_there_is_none() -> None:
    values, facts = row_of(np.array([[[5.0]], [[1.0]]]), 1)
    assert overlay(values, facts, 1, "dog", cutoff=0.5, most=16) is None
    assert overlay({}, facts, 0, "cat", cutoff=0.5, most=16) is None


# -- the page --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pictures", [True, False])
def test_page__is_well_formed_and_its_links_lead_somewhere(pictures: bool) -> None:
    page = Page(render(listed(pictures=pictures)))
    assert not page.errors
    ids = {value for _, name, value in page.attributes if name == "id"}
    links = {value for tag, name, value in page.attributes if (tag, name) == ("a", "href")}
    assert {link.removeprefix("#") for link in links} <= ids
    assert {"lists", "worst", "edits", "maps", "evaluation"} <= ids


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_page__shows_hostile_strings_as_text(text: str) -> None:
    harmless, html = (
        Page(render(listed(("a", "b"), text="c"))),
        render(listed((text, f"{text}2"), text=text)),
    )
    seen = Page(html)
    assert not seen.errors
    assert seen.tags == harmless.tags
    names = [(tag, name) for tag, name, _ in harmless.attributes]
    assert [(tag, name) for tag, name, _ in seen.attributes] == names
    assert not set(re.findall(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", html))


def test_page__draws_an_overlay_over_its_thumbnail() -> None:
    html = render(listed())
    assert 'viewBox="0 0 7 7" preserveAspectRatio="none" role="img"' in html
    assert '<rect class="o4" x="0" y="0" width="3" height="1"/>' in html
    assert "<rect" not in re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL)
    none = render(listed(pictures=False))
    assert 'class="o4"' not in none


def test_page__counts_labels_and_not_items_as_changed() -> None:
    text = re.sub(r"<[^>]*>", "", render(listed()))
    assert "of 255 changed" in text
    wanted = (
        r"About 40 of [\d,\s]+ given labels are wrong \(30 to 70\), and up to 180 may be missing."
    )
    assert re.search(wanted, text)
    assert "item-class pairs were neither given nor ruled out; they are unknown" in text
    assert "Label maps show only 38.6\u202f% of the given labels" in text
