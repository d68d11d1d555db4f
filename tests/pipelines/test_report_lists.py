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
from pipelines.report.model import Patch, Report
from pipelines.report.overlays import overlay
from pipelines.report.render import render
from pipelines.storage.store import open_store
from tests.datasets import even, tagged, write_shards
from tests.pipelines.inferred import png
from tests.pipelines.listed_report import listed
from tests.pipelines.localized import COLOURS, PLAIN, colour_net, mosaics, save_program, table_of
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
    lists = collect(known).lists
    assert lists is not None
    found = rows(known, "multilabel")
    assert {c.name for c in lists.classes} == {f"class {k}" for k in range(5)}
    for c in lists.classes:
        k = int(c.name.removeprefix("class "))
        assert c.flagged_missing == sum(k in row["missing_ids"] for row in found)
        assert c.flagged_wrong == sum(k in row["wrong_ids"] for row in found)
        assert c.given == sum(c.name in labels for labels in tagged(N)[0]["labels"].to_pylist())
        assert c.given + c.ruled_out == N
        for estimate in (c.wrong, c.missing):
            assert estimate.low is not None
            assert estimate.high is not None
            assert estimate.low <= estimate.value <= estimate.high
    assert lists.wrong.value == sum(c.wrong.value for c in lists.classes)
    assert lists.flagged_items == sum(row["is_label_issue"] for row in found)
    assert lists.unknown == 0


@pytest.mark.parametrize("kind", ["missing", "wrong"])
def test_collect__shows_the_surest_of_each_class(known: str, kind: str) -> None:
    report = collect(known)
    assert report.lists is not None
    found = {row["item_id"]: row for row in rows(known, "multilabel")}
    given = dict(zip(*(tagged(N)[0][c].to_pylist() for c in ("item_id", "labels")), strict=True))
    n_shown = 0
    for group in report.lists.suspects:
        k = int(group.name.removeprefix("class "))
        p_of = {
            item: row[f"{kind}_probs"][row[f"{kind}_ids"].index(k)]
            for item, row in found.items()
            if k in row[f"{kind}_ids"]
        }
        shown = getattr(group, kind)
        surest = sorted(p_of.values(), reverse=True)[: len(shown)]
        assert [item.score for item in shown] == surest
        for item in shown:
            assert p_of[item.item_id] == item.score
            assert item.given == (", ".join(given[item.item_id]) or "none")
        n_shown += len(shown)
    assert n_shown > 10


def test_collect__shows_changed_lists_before_and_after(known: str) -> None:
    lists = collect(known).lists
    assert lists is not None
    given = dict(zip(*(tagged(N)[0][c].to_pylist() for c in ("item_id", "labels")), strict=True))
    decided = {row["item_id"]: row for row in rows(known, "decide_labels")}
    n_changed = sum(row["decision"] == "relabel" for row in decided.values())
    assert lists.n_edited == n_changed > 0
    assert len(lists.edits) == min(n_changed, Limits().changes)
    for edit in lists.edits:
        row = decided[edit.item.item_id]
        assert {*edit.kept, *edit.added} == set(row["labels_clean"])
        assert {*edit.kept, *edit.removed} == set(given[edit.item.item_id])
        assert edit.added or edit.removed
        assert edit.reason == row["reason"]
        assert edit.confidence == row["confidence"]
    # The least sure come first.
    sure = [edit.confidence for edit in lists.edits]
    assert sure == sorted(sure)
    log = rows(known, "decisions")
    assert lists.added == sum(
        r["action"] == "add" and decided[r["item_id"]]["decision"] == "relabel" for r in log
    )


def test_collect__says_how_far_probabilities_of_classes_can_be_trusted(known: str) -> None:
    """Against the sidecar, all cells of it: in few items none is left out of the sample."""
    found = collect(known).calibration
    assert found is not None
    assert found.temperature is None
    assert (found.items, found.cells) == (N, N * 5)
    p, given = [], []
    of = dict(zip(*(tagged(N)[0][c].to_pylist() for c in ("item_id", "labels")), strict=True))
    for row in rows(known, "infer"):
        p += row["pred_probs"]
        given += [f"class {k}" in of[row["item_id"]] for k in range(5)]
    of_bin = np.ceil(np.array(p) * len(found.before)).astype(int) - 1
    for b, one in enumerate(found.before):
        mine = of_bin == b
        assert one.count == mine.sum()
        if one.count:
            assert one.confidence == pytest.approx(np.array(p)[mine].mean(), abs=1e-6)
            assert one.accuracy == pytest.approx(np.array(given)[mine].mean())
    ece = {metric.name: metric for metric in found.metrics}["ECE"]
    gaps = [one.count * abs(one.confidence - one.accuracy) for one in found.before]
    assert ece.before == pytest.approx(sum(gaps) / (N * 5))
    scaled = 1 / (1 + np.exp(-(found.slope * np.log(np.divide(p, 1 - np.array(p))) + found.shift)))
    # What fits best has the mean of what is given.
    assert scaled.mean() == pytest.approx(np.mean(given), abs=5e-3)
    page = (Path(known) / "report.html").read_text()
    assert "When the model says 80&#8239;% of a class" in page
    assert "1,200 out-of-sample probabilities" in page.replace("1\u202f200", "1,200")


def test_collect__gives_measures_against_the_reference_and_accounts(known: str) -> None:
    report = collect(known)
    (evaluation,) = (section for section in report.sections if section.title)
    assert evaluation.intro.startswith(f"{N} items with")
    bands = dict(evaluation.tables[0].bands)
    assert set(bands) >= {"labels as given", "labels as cleaned", "model’s sets"}
    measured = load_result(open_store(known), "evaluate", "measures")
    (f1,) = (row for row in bands["labels as given"] if row.name == "Micro-F1")
    assert f1.values[0] == f"{measured['given_micro_f1'][0]:.3f}"
    assert report.ledger.is_balanced
    assert report.maps is None
    page = render(report)
    for anchor in ("lists", "suspects", "edits", "evaluation"):
        assert f'id="{anchor}"' in page
    assert 'id="maps"' not in page


def test_report__does_not_depend_on_the_cut(known: str, tmp_path: Path) -> None:
    settings = settings_of(Path(known).parent / "true.parquet")
    again = collect(run(tmp_path, tagged(N)[0], even(N, 7), *settings))
    one = collect(known)

    def shards_aside(report: Report) -> str:
        return re.sub(r"shard=\d+", "", repr((report.lists, report.sections, report.ledger)))

    assert shards_aside(again) == shards_aside(one)


def test_collect__marks_where_pictures_show_what_they_were_not_given(tmp_path: Path) -> None:
    """Quarters of colours: the overlay of a colour covers just its quarters."""
    program = save_program(tmp_path / "colours.pt2", colour_net())
    pixels, classes = mosaics(40, seed=5)
    given = classes.reshape(40, 4)[:, 0]
    table = table_of([png(one) for one in pixels], [COLOURS[k] for k in given])
    settings = [f"localize.classifier={program}", f"data.classes={list(COLOURS)}", *PLAIN]
    report = collect(run(tmp_path, table, [15, 25], *settings, stages=["source", "localize"]))
    maps = report.maps
    assert maps is not None
    assert maps.given_seen == 1.0
    holds = np.array([(classes == k).any(axis=(1, 2)) for k in range(3)])
    for seen in maps.classes:
        k = COLOURS.index(seen.name)
        assert seen.found == holds[k].sum()
        assert seen.new == (holds[k] & (given != k)).sum()
        for item in seen.items:
            i = int(item.item_id)
            assert item.given == COLOURS[given[i]] != seen.name
            assert item.overlay is not None
            assert item.picture is not None
            drawn = np.zeros((4, 4), int)
            for patch in item.overlay.patches:
                drawn[patch.y, patch.x : patch.x + patch.width] = patch.level
            assert np.array_equal(drawn == 4, (classes[i] == k).repeat(2, 0).repeat(2, 1))
    assert maps.found_new == sum(seen.new for seen in maps.classes)
    assert "beyond the given ones in 40 pictures" in re.sub(r"<[^>]*>", "", render(report))


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
    assert {"lists", "suspects", "edits", "maps", "evaluation"} <= ids


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
    assert "About 1,000 labels seem to be missing, and 500 of 4,100 given ones wrong." in text
    assert "12 classes of items were neither given nor ruled out" in text
    assert "Label maps show only 42.0\u202f% of the given labels" in text
