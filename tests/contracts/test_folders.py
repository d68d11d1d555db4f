"""Written once, true for every stage: a folder of a run has one stage that writes it."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from pipelines import recipe as recipes
from pipelines import registry
from pipelines.core.stage import Map, Output
from pipelines.core.state import Run, load_run
from pipelines.errors import RecipeError, RunError
from pipelines.recipe import STAGE_NAME, load_recipe, parse_recipe, recipe_names, recipe_schema
from pipelines.registry import STAGES, load_stage
from pipelines.storage.folders import OF_THE_RUN, folders_of
from tests import toy
from tests.datasets import blobs, tagged, vectors, write_shards
from tests.pipelines.localized import colour_net, localize, save_program, single_labelled

OF_SOME_DATA = {"infer_recalls"}
"""Written only where classes are unknown."""


def listed(*stages: str) -> str:
    return f"stages = {list(stages)}"


def probabilities(n: int, k: int) -> pa.Array:
    return vectors(np.random.default_rng(0).dirichlet(np.ones(k), n).astype(np.float32))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Runs in which, together, every stage that declares folders is at work."""
    folder, found = tmp_path_factory.mktemp("folders"), []
    single = blobs(80).drop_columns(["features"])
    label, bags = single["label"].to_numpy(), folder / "bags.parquet"
    counts = [[int((label[at : at + 10] == f"class {k}").sum()) for k in range(4)]
              for at in range(0, 80, 10)]  # fmt: skip
    pq.write_table(pa.table({"bag_id": range(8), "n": [10] * 8, "counts": counts}), bags)
    single = single.append_column("bag_id", pa.array(np.arange(80) // 10))
    lists = tagged(80)[0].drop_columns(["features"])
    pairs = pa.array([[kind, f"class {i % 4}"] for i, kind in enumerate(label)])
    sets = single.drop_columns(["label", "bag_id"]).append_column("candidates", pairs)
    state = pa.array([True if i % 3 == 0 else None for i in range(80)])
    some = single.drop_columns(["label", "bag_id"]).append_column("positive", state)
    for name, table, k in (
        *(("audit", single, 4), ("multilabel", lists, 5), ("partial", sets, 4)),
        *(("pu", some, 2), ("full", blobs(80), 4)),
    ):
        data = write_shards(
            folder / name, table.append_column("pred_probs", probabilities(80, k)), [30, 50]
        )
        out = str(folder / f"{name} out")
        settings = [f"proportions.bags={bags}"] if name == "audit" else []
        pipelines.run.run(load_recipe(name, settings), data=str(data), out=out)
        found.append(load_run(out))
    data = write_shards(
        folder / "soft", single.append_column("pred_probs", probabilities(80, 4)), [30, 50]
    )
    soft = parse_recipe(listed("source", "infer", "confident", "teach"), name="soft")
    pipelines.run.run(soft, data=str(data), out=str(folder / "soft out"))
    found.append(load_run(str(folder / "soft out")))
    program = save_program(folder / "colours.pt2", colour_net())
    maps = localize(
        folder / "maps",
        single_labelled()[0],
        [25, 35],
        f"localize.classifier={program}",
        "localize.mean=[0, 0, 0]",
        "localize.std=[1, 1, 1]",
        "localize.image_size=32",
        after="decide_maps dataset",
    )
    data = write_shards(folder / "unknown", tagged(80)[0], [30, 50])
    unknown = load_recipe("multilabel", ["data.absent_labels=unknown", "infer.heads=['network']"])
    pipelines.run.run(unknown, data=str(data), out=str(folder / "unknown out"))
    return [*found, maps, load_run(str(folder / "unknown out"))]


def test_registry__no_two_stages_and_no_stage_and_the_run_share_a_folder() -> None:
    names = [*STAGES, *OF_THE_RUN]
    assert len(set(names)) == len(names)
    for name in STAGES:
        assert STAGE_NAME.fullmatch(name)
        assert not set(folders_of(name, load_stage(name))[1:]) & set(names)
    # The log of decisions is the one folder that several write: of those a recipe has one.
    owners: dict[str, list[str]] = {}
    for name in STAGES:
        for folder in folders_of(name, load_stage(name))[1:]:
            owners.setdefault(folder, []).append(name)
    shared = {folder: set(stages) for folder, stages in owners.items() if len(stages) > 1}
    assert shared == {"decisions": {name for name in STAGES if load_stage(name).decides}}


def test_folders__of_a_finished_run_are_the_declared_ones_and_all_of_those(
    finished: Sequence[Run],
) -> None:
    seen, written = set[str](), set[str]()
    for run in finished:
        stages = {e.name: e.stage for e in run.entries if e.skipped is None}
        declared = {folder for name in stages for folder in folders_of(name, stages[name])}
        there = {path.name for path in Path(run.uri).iterdir() if path.is_dir()}
        assert there - set(OF_THE_RUN) - OF_SOME_DATA == declared - OF_SOME_DATA
        assert there - set(OF_THE_RUN) <= declared
        written |= there
        seen |= {stage.name for stage in stages.values() if stage.folders}
    ours = {name for name, where in STAGES.items() if where.startswith("pipelines.")}
    assert seen == {name for name in ours if load_stage(name).folders}
    assert written >= OF_SOME_DATA


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            ("source", "infer", "confident", "decide", "localize", "decide_maps", "dataset"),
            "recipe: one stage that decides was expected, got 'decide' and 'decide_maps'; in the "
            "recipe. There is one log of decisions (decisions/), and the product follows it: list "
            "one of them, and give the other a recipe and a run (--out) of its own",
        ),
        (
            ("source", "decide_labels", "decide", "decide_maps"),
            "recipe: one stage that decides was expected, got 'decide_labels' and 'decide' and "
            "'decide_maps'; in the recipe",
        ),
        (("source", "decide", "decide@2"), "got 'decide' and 'decide@2'; in the recipe"),
        (
            ("source", "localize", "localize@2"),
            "recipe: one stage was expected to write the folder map_decisions/, got 'localize' and "
            "'localize@2', of which the second would write over the first; in the recipe. List one",
        ),
        (("decide", "dataset", "dataset@2"), "the folder set_aside/, got 'dataset' and"),
        (
            ("source", "proportions@2"),
            "recipe: rounds of a stage are listed one after the other as 'proportions', "
            "'proportions@2', 'proportions@3', …; got 'proportions@2' without 'proportions' before "
            "it; in the recipe. List 'proportions' first, or 'proportions' alone",
        ),
        (("proportions@2", "proportions"), "got 'proportions@2' without 'proportions' before it"),
        (("proportions", "proportions@3"), "got 'proportions@3' without 'proportions@2' before"),
        (("source", "decide@2", "dataset"), "got 'decide@2' without 'decide' before it"),
        (("source", "proportions@1"), "a stage is listed as name or name@2, got 'proportions@1'"),
        (("source", "proportions@0"), "a stage is listed as name or name@2"),
        (("source", "proportions@02"), "a stage is listed as name or name@2"),
        (("source", "proportions@" + "9" * 5000), "a stage is listed as name or name@2"),
    ],
)
def test_recipe__whose_stages_would_write_over_each_other_is_refused_when_it_is_read(
    stages: tuple[str, ...], message: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(listed(*stages), name="x")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", recipe_names())
def test_recipe__of_the_project_writes_every_folder_once(name: str) -> None:
    recipe = load_recipe(name)
    stages = [stage for stage in recipe.stages if stage not in recipe.optional]
    folders = [folder for stage in stages for folder in folders_of(stage, load_stage(stage))]
    assert len(set(folders)) == len(folders)


def test_recipe__further_rounds_may_follow() -> None:
    stages = ["source", "proportions", *(f"proportions@{n}" for n in range(2, 13))]
    assert parse_recipe(listed(*stages), name="x").stages == tuple(stages)


def test_schema__lists_the_names_that_are_read() -> None:
    pattern = recipe_schema()["properties"]["stages"]["items"]["pattern"]
    for name, good in {"infer": 1, "infer@2": 1, "infer@10": 1, "infer@1": 0, "infer@": 0}.items():
        assert bool(re.fullmatch(pattern, name)) is bool(good)


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("quarantine",), "would write quarantine/, a folder of the run itself"),
        (("_manifests",), "would write _manifests/, a folder of the run itself"),
        (("source",), "to write the folder source/, got 'source' and 'toy'"),
    ],
)
def test_recipe__a_stage_with_a_folder_of_the_run_or_of_another_stage_is_refused(
    monkeypatch: pytest.MonkeyPatch, folders: tuple[str, ...], message: str
) -> None:
    stage = SimpleNamespace(
        config=toy.Config, files=lambda config: [], folders=folders, decides=False
    )
    real = registry.load_stage
    monkeypatch.setattr(recipes, "load_stage", lambda n: stage if n == "toy" else real(n))
    with pytest.raises(RecipeError) as caught:
        parse_recipe(listed("source", "toy"), name="x")
    assert message in str(caught.value)


class Steps:
    """A stage of two steps, whose folders a test names."""

    def __init__(self, *folders: str) -> None:
        self.folders = folders

    def __call__(self, config: Any, ctx: Any) -> list[Map]:
        output = Output(schema=pa.schema([("item_id", pa.string())]))
        return [
            Map(
                name=f"step {at}",
                reads=["item_id"],
                writes={folder: output},
                apply=lambda frame, ctx, folder=folder: {folder: frame.table(["item_id"])},
            )
            for at, folder in enumerate(self.folders)
        ]


@pytest.mark.parametrize(
    ("folders", "refused"),
    [
        (["toy", "toy_extra"], None),
        (["toy", "toy/more", "toy/_rows"], None),
        (["quarantine"], "stage 'toy', step 'step 0': a folder of its own was expected"),
        (["toy", "elsewhere"], "stage 'toy', step 'step 1': a folder of its own was expected (toy, "
         "toy_extra, or one inside toy/), got 'elsewhere'. Declare it in the stage's folders"),
        (["decisions"], "got 'decisions'"),
        (["source"], "got 'source'"),
        (["source/_rows"], "got 'source/_rows'"),
        (["toyota"], "got 'toyota'"),
        (["toy/_results"], "got 'toy/_results'"),
        (["toy/_commits/x"], "got 'toy/_commits/x'"),
        (["toy/../source"], "got 'toy/../source'"),
        (["toy/"], "got 'toy/'"),
        (["toy", "toy"], "a folder that no other step writes was expected, got 'toy', which step "
         "'step 0' wrote. Give each step its own"),
    ],
)  # fmt: skip
def test_driver__refuses_what_a_stage_did_not_declare_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: list[str], refused: str | None
) -> None:
    monkeypatch.setitem(STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(toy, "STAGE", replace(toy.STAGE, steps=Steps(*folders)))
    data = write_shards(tmp_path / "data", blobs(20), [8, 12])
    recipe = parse_recipe(listed("source", "toy"), name="x")
    out = tmp_path / "out"
    if refused is None:
        pipelines.run.run(recipe, data=str(data), out=str(out))
        assert all((out / folder).is_dir() for folder in folders if not folder.startswith("toy/_"))
        return
    with pytest.raises(RunError) as caught:
        pipelines.run.run(recipe, data=str(data), out=str(out))
    assert refused in str(caught.value)
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(
        {"source", "_manifests", *(["toy"] if folders[0] == "toy" else [])}
    )
