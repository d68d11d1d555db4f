"""What a stage lacks is said in words of the data contract. Oracle: sentences written by hand."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import tomli_w

from pipelines.core.needs import HOLDS, given_from
from pipelines.core.state import Run
from pipelines.errors import DataError, RecipeError
from pipelines.recipe import parse_recipe, recipe_names
from pipelines.registry import STAGES
from pipelines.storage.contract import KNOWN_COLUMNS
from pipelines.storage.source import open_source
from tests.datasets import vectors, write_shards

N = 12
IDS = pa.array([f"i{k}" for k in range(N)])
LABEL = pa.array(np.arange(N) % 3)
PROBS = vectors(np.full((N, 3), 1 / 3, np.float32))
NUMBERS = pa.array(np.linspace(0, 1, N))
PICTURES = pa.array([b"x"] * N)
LISTS = pa.array([["a", "b"]] * N)

INNER = re.compile(
    r"'(given|given_ids|given_not_ids|item_hash|fold|p_given|present_ids|is_label_issue|"
    r"label_score|missing_ids|wrong_ids|rule|decision)'"
)
"""Names that only we know."""


def refused(folder: Path, columns: Mapping[str, pa.Array], stages: str, *settings: str) -> str:
    data = write_shards(folder / "data", pa.table(dict(columns)), [N])
    text = f"stages = {stages.split()}"
    recipe = parse_recipe(text, name="x", overrides=settings)
    source = open_source(str(data), columns=recipe.data.columns)
    with pytest.raises(DataError) as caught:
        Run(str(folder / "out"), recipe, source)
    message = str(caught.value)
    assert not INNER.search(message)
    return message.replace(str(data), "DATA")


AUDIT = "source infer confident decide dataset"


@pytest.mark.parametrize(
    ("columns", "stages", "message"),
    [
        (
            {"item_id": IDS, "category": LABEL, "pred_probs": PROBS},
            AUDIT,
            "stage 'infer': a column 'label' (one class per item, text or whole number) was "
            "expected; the source has 'item_id', 'category', 'pred_probs'; in DATA. Map yours: "
            "data.columns.label = 'category'",
        ),
        (
            {"item_id": IDS, "Label": LABEL, "note": IDS, "pred_probs": PROBS},
            AUDIT,
            "Map yours: data.columns.label = 'Label'",
        ),
        # Of several that could be it none is named by chance; one of another type never is.
        (
            {"item_id": IDS, "a": LABEL, "b": LABEL, "pred_probs": PROBS},
            AUDIT,
            "the source has 'item_id', 'a', 'b', 'pred_probs'; in DATA. Map yours with "
            "data.columns.label = '…'",
        ),
        (
            {"item_id": IDS, "label_": NUMBERS, "pred_probs": PROBS},
            AUDIT,
            "Map yours with data.columns.label = '…'",
        ),
        (
            {"item_id": IDS, "label": LABEL, "x0": NUMBERS, "x1": NUMBERS},
            AUDIT,
            "stage 'infer': a column to predict from was expected, one of 'pred_probs' (lists "
            "with one probability per class), 'topk_probs' (lists of the probabilities of "
            "'topk_ids'), 'features' (vectors of one length), 'image' (encoded pictures), "
            "'text' (text); the source has 'item_id', 'label', 'x0', 'x1'; in DATA. Columns of a "
            "table ('x0', 'x1') are named with data.features = [\"*\"], or one by one",
        ),
        (
            {"item_id": IDS, "label": LABEL, "img": PICTURES},
            AUDIT,
            "the source has 'item_id', 'label', 'img'; in DATA. Map yours: data.columns.image = "
            "'img'",
        ),
        (
            {"item_id": IDS, "label": LABEL, "probabilities": PROBS},
            AUDIT,
            "Map yours: data.columns.pred_probs = 'probabilities'",
        ),
        (
            {"item_id": IDS, "label": LABEL},
            AUDIT,
            "the source has 'item_id', 'label'; in DATA. Map yours with data.columns.pred_probs "
            "= '…', or add one",
        ),
        (
            {"item_id": IDS, "labels": LISTS, "pred_probs": PROBS},
            "source infer confident",
            "stage 'confident': a column 'label' (one class per item, text or whole number) was "
            "expected; the source has 'item_id', 'labels', 'pred_probs'; in DATA. Recipe "
            "'multilabel' is for lists of labels",
        ),
        (
            {"item_id": IDS, "label": LABEL, "pred_probs": PROBS},
            "source infer multilabel",
            "stage 'multilabel': a column 'labels' (lists of classes) was expected; the source has "
            "'item_id', 'label', 'pred_probs'; in DATA. Recipe 'audit' is for one label per item",
        ),
        (
            {"item_id": IDS, "tags": LISTS, "pred_probs": PROBS},
            "source multilabel",
            "Map yours: data.columns.labels = 'tags'",
        ),
        (
            {"item_id": IDS, "label": LABEL, "pred_probs": PROBS},
            "infer source",
            "stage 'infer': stage 'source' was expected before it, which reads ids and labels; "
            "listed before it: nothing. List 'source' first",
        ),
        (
            {"item_id": IDS, "label": LABEL, "pred_probs": PROBS},
            "source confident",
            "stage 'confident': results of stage 'infer' were expected, listed before it: "
            "'source'. List 'infer' before 'confident'",
        ),
        (
            {"item_id": IDS, "label": LABEL, "pred_probs": PROBS},
            "source infer decide",
            "stage 'decide': results of stage 'confident' were expected, listed before it: "
            "'source', 'infer'. List 'confident' before 'decide'",
        ),
        (
            {"item_id": IDS, "label": LABEL, "pred_probs": PROBS},
            "source infer confident dataset",
            "stage 'dataset': results of stage 'decide' were expected, listed before it: 'source', "
            "'infer', 'confident'. List 'decide' before 'dataset'",
        ),
        (
            {"item_id": IDS, "label": LABEL, "image": PICTURES},
            "source localize decide_maps",
            "stage 'decide_maps': results of stage 'localize' were expected, which has nothing to "
            "do: no classifier is named (localize.classifier). Change that, or leave "
            "'decide_maps' out of the recipe",
        ),
        (
            {"item_id": IDS, "group": LABEL, "features": PROBS},
            "source proportions",
            "stage 'proportions': a column 'bag_id' (the bag of each item, text or whole number) "
            "was expected; the source has 'item_id', 'group', 'features'; in DATA. Map yours: "
            "data.columns.bag_id = 'group'",
        ),
    ],
)
def test_missing_column__is_asked_for_with_what_there_is(
    tmp_path: Path, columns: dict[str, pa.Array], stages: str, message: str
) -> None:
    settings = []
    if "proportions" in stages:
        (tmp_path / "bags.csv").write_text("bag_id,n,positives\n0,4,1\n")
        settings = [f"proportions.bags={tmp_path / 'bags.csv'}"]
    found = refused(tmp_path, columns, stages, *settings)
    assert found == message if message.startswith("stage") else found.endswith(message)


@pytest.mark.parametrize("use", ["image", "features", "pred_probs"])
def test_missing_column__that_a_setting_asks_for(tmp_path: Path, use: str) -> None:
    found = refused(
        tmp_path, {"item_id": IDS, "label": LABEL, "a": NUMBERS}, AUDIT, f"infer.use={use}"
    )
    assert found.startswith(f"stage 'infer': a column {use!r} ({HOLDS[use]}) was expected; the")


def test_missing_column__names_columns_that_hide_nothing(tmp_path: Path) -> None:
    columns = {"item_id": IDS, "lab\u202eel\n": NUMBERS, "x" * 10**5: NUMBERS, "pred_probs": PROBS}
    found = refused(tmp_path, columns, AUDIT)
    assert r"'lab\u202eel\n'" in found
    assert "\n" not in found
    assert len(found) < 1000


@pytest.mark.parametrize("stage", list(STAGES))
def test_missing_column__has_words_for_every_stage_alone(tmp_path: Path, stage: str) -> None:
    """Whatever stage is listed alone or after `source`: none of our own names is in the answer."""
    if stage == "source":
        return
    for stages in (stage, f"source {stage}"):
        message = said(tmp_path / stages, stages)
        assert not INNER.search(message)
        assert "Error" not in message


def said(folder: Path, stages: str) -> str:
    """Return what a recipe says of data without any column but ids; nothing if it would run."""
    source = open_source(str(write_shards(folder / "data", pa.table({"item_id": IDS}), [N])))
    recipe = parse_recipe(f"stages = {stages.split()}", name="x")
    try:
        Run(str(folder / "out"), recipe, source)
    except DataError as err:
        return str(err)
    return ""


def test_words__are_of_the_contract() -> None:
    assert set(HOLDS) <= set(KNOWN_COLUMNS)
    assert set(given_from().values()) <= set(HOLDS)


# -- data.columns ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "hint"),
    [
        ("lable", "got 'lable'; did you mean 'label'? Known: ['item_id', "),
        ("Label", "got 'Label'; did you mean 'label'? Known: ['item_id', "),
        ("given", "got 'given'. Known: ['item_id', "),
        ("embedding", "got 'embedding'. Known: ['item_id', "),
        ("item_hash", "got 'item_hash'; did you mean 'item_id'? Known: ['item_id', "),
        ("", "got ''. Known: ['item_id', "),
        ("x" * 10**6, "… (1000000 characters). Known: ['item_id', "),
        ("label\x00", r"got 'label\x00'; did you mean 'label'? Known: ['item_id', "),
        ("Unused", "got 'Unused'. Known: ['item_id', "),
    ],
)
def test_mapping__of_a_column_that_the_contract_lacks_is_refused_when_the_recipe_is_read(
    ours: str, hint: str
) -> None:
    text = tomli_w.dumps({"stages": ["source"], "data": {"columns": {ours: "y"}}})
    with pytest.raises(RecipeError) as caught:
        parse_recipe(text, name="x")
    message = str(caught.value)
    assert hint in message
    assert message.startswith("data: setting 'columns': a column of the data contract was expected")
    assert message.endswith("'unused' hides a column; in the recipe")
    assert len(message) < 700


def test_mapping__may_hide_columns() -> None:
    text = 'stages = ["source"]\n[data.columns]\nlabel = "y"\nunused = "label"\nunused_2 = "text"'
    assert parse_recipe(text, name="x").data.columns["unused_2"] == "text"


@pytest.mark.parametrize("name", recipe_names())
def test_mapping__from_the_command_line_is_said_to_be_from_there(name: str) -> None:
    with pytest.raises(RecipeError, match=r"; in .* with --set$"):
        parse_recipe('stages = ["source"]', name=name, overrides=["data.columns.lable=y"])
