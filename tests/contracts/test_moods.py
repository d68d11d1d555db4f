"""A kind of label that is one file of 80 lines: from shards to product, log, undo and report."""

import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.core.state import Run
from pipelines.decisions.counts import counts_of
from pipelines.decisions.ledger import derive
from pipelines.errors import DataError, RecipeError
from pipelines.plan import plan
from pipelines.recipe import parse_recipe
from tests import moods
from tests.contracts.data_sets import DATA_SETS, REGISTERED, N
from tests.datasets import even, write_shards

ROOT = Path(__file__).resolve().parents[2]
MOODS = DATA_SETS["moods"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return MOODS.run(tmp_path_factory.mktemp("moods"), even(N, 3))


def read(run: Run, *folders: str) -> pa.Table:
    paths = [path for name in folders for path in sorted((Path(run.uri) / name).glob("*.parquet"))]
    return pa.concat_tables(pq.read_table(path) for path in paths)


def test_it__is_one_short_file_and_the_guide_names_it() -> None:
    lines = Path(moods.__file__).read_text().splitlines()
    assert len(lines) <= 80
    assert "`tests/moods.py`" in (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`(SPACES|STAGES|PARTS)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) == len(REGISTERED)
    for package in ("labelops", "pipelines", "flows"):
        for path in (ROOT / package).rglob("*.py"):
            assert "mood" not in path.read_text()


def test_product__follows_from_source_and_log_and_holds_every_item(run: Run) -> None:
    product, source = read(run, "dataset", "set_aside"), MOODS.items()
    derived = {row["item_id"]: row for row in derive(source, read(run, "decisions")).to_pylist()}
    counts = counts_of(run)
    assert product.num_rows == N == counts["dataset"] + counts["set_aside"]
    for row in product.to_pylist():
        wanted = derived[row["item_id"]]
        assert (row["decision"], row["mood_clean"]) == (wanted["decision"], wanted["mood_clean"])
    assert set(product["decision"].to_pylist()) == {"keep", "relabel", "review", "unresolved"}


def test_limits__are_those_of_the_decider(run: Run) -> None:
    counts = counts_of(run)
    assert counts["relabel"] == int(0.3 * N)
    assert counts["review"] == 5


def test_undo__leaves_items_as_they_were_given(run: Run, tmp_path: Path) -> None:
    recipe = MOODS.recipe + '\n[dataset]\nleave_out_rules = ["sure"]\n'
    undone = replace(MOODS, recipe=recipe).run(tmp_path, even(N, 2))
    table = read(undone, "dataset", "set_aside")
    log = read(run, "decisions")
    derived = derive(MOODS.items(), log, leave_out_rules=["sure"])
    wanted = {row["item_id"]: row["mood_clean"] for row in derived.to_pylist()}
    assert {row["item_id"]: row["mood_clean"] for row in table.to_pylist()} == wanted
    assert "relabel" not in table["decision"].to_pylist()


def test_report_and_card__say_what_its_part_says(run: Run) -> None:
    page, card = ((Path(run.uri) / name).read_text() for name in ("report.html", "README.md"))
    assert '<section id="moods"' in page
    assert '<a href="#moods">Moods</a>' in page
    assert "Changed to it" in page
    assert "\nA poll.\n" in card
    assert "| `mood_clean` | the label to train on, in the type of `mood`" in card


def refused(tmp_path: Path, items: pa.Table, stages: str) -> str:
    data = write_shards(tmp_path / "src", items, [N])
    recipe = parse_recipe(f"stages = {stages.split()}", name="test")
    with pytest.raises((DataError, RecipeError)) as error:
        plan(recipe, data=str(data), out=str(tmp_path / "out"))
    return str(error.value)


def test_decider__without_beliefs_before_it_is_refused_with_the_stage_that_offers_them(
    tmp_path: Path,
) -> None:
    said = refused(tmp_path, MOODS.items(), "source decide_moods dataset")
    assert said == (
        "stage 'decide_moods': a stage before it was expected that says what is believed of labels "
        "('poll'), listed before it: 'source'. List one of them before 'decide_moods'"
    )


def test_two_kinds_of_labels__in_one_source_are_refused(tmp_path: Path) -> None:
    both = MOODS.items().append_column("label", MOODS.items()["mood"])
    assert "one of the columns 'label' and 'mood' was expected" in refused(
        tmp_path, both, "source poll decide_moods"
    )


def test_kind_of_label__that_the_source_lacks_is_asked_for(tmp_path: Path) -> None:
    said = refused(tmp_path, MOODS.items().drop_columns(["mood"]), "source poll decide_moods")
    assert "a column 'mood' was expected" in said


def test_two_deciders__are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="one stage that decides was expected"):
        parse_recipe('stages = ["source", "poll", "decide_moods", "decide"]', name="test")
