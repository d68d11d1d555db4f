"""Students from shards: what they are taught is the product, and what is said of them is so."""

import json
import re
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

import pipelines.run
from labelops import folds
from labelops.multilabel.labels import NO, UNKNOWN, YES, from_flat, label_sets
from labelops.nn.export_student import about_of, load_student
from labelops.nn.student import StudentTraining, fit_student
from labelops.nn.student_models import table_student
from labelops.soft.labels import SoftLabels, smooth
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError, RecipeError
from pipelines.media.programs import load_program
from pipelines.plan import plan
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.students.settings import Config
from pipelines.students.targets import ManyTargets, OneTargets, any_of, certain
from pipelines.verify import verify_run
from tests.datasets import blobs, even, tagged, vectors, write_shards
from tests.pipelines.localized import COLOURS, single_labelled

N = 600
QUICK = (
    "distill.epochs=4",
    "distill.batch_rows=64",
    "distill.hidden=16",
    "distill.learning_rate=0.02",
)


def run(folder: Path, table: pa.Table, *settings: str, shards: int = 3) -> Run:
    source = write_shards(folder / "src", table, even(table.num_rows, shards))
    recipe = load_recipe("full", [*QUICK, *settings])
    pipelines.run.run(recipe, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def rows(run: Run, folder: str) -> pa.Table:
    files = sorted((Path(run.uri) / folder).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def found(run: Run, step: str = "evidence") -> dict[str, np.ndarray]:
    return run.context("distill", run.layout()).own(step)


def plain(run: Run) -> dict[str, object]:
    return {name: value.item() for name, value in found(run).items()}


@cache
def noisy() -> tuple[pa.Table, np.ndarray]:
    """Return overlapping clouds of which a third has another label, and the true classes."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, N)
    x = rng.normal(np.eye(4)[true] * 2.2, 1).astype(np.float32)
    label = np.where(rng.random(N) < 0.33, rng.integers(0, 4, N), true)
    table = pa.table(
        {
            "item_id": [f"i{i:04d}" for i in range(N)],
            "features": vectors(x),
            "label": [f"class {c}" for c in label],
        }
    )
    return table, true


@cache
def finished() -> Run:
    folder = Path(mkdtemp(prefix="labelops-test-"))
    table, true = noisy()
    truth = pa.table({"item_id": table["item_id"], "true_label": [f"class {c}" for c in true]})
    pq.write_table(truth.slice(0, 400), folder / "truth.parquet")
    reference = f"evaluate.reference={folder / 'truth.parquet'}"
    return run(folder, table, reference)


# -- what is said of twins -------------------------------------------------------------------------


def test_evidence__is_that_of_the_answers_that_are_written() -> None:
    """All folds are held out of so few items: each answer is of a twin without the item."""
    made, (table, true) = finished(), noisy()
    said = rows(made, "distill")
    assert said["student_probs"].null_count == 0
    probs = np.stack(said["student_probs"].to_numpy())
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    best = probs.argmax(axis=1)
    given = np.array([int(name[-1]) for name in table["label"].to_pylist()])
    evidence = plain(made)
    arm = "before" if evidence["falls_back"] else "after"
    assert evidence[f"as_given_{arm}"] == pytest.approx((best == given).mean())
    assert evidence["as_given_n"] == N
    # By the reference, of those that it knows.
    assert evidence["as_true_n"] == 400
    assert evidence[f"as_true_{arm}"] == pytest.approx((best == true)[:400].mean())


def by_hand(run: Run, *, without: int | None) -> tuple[torch.nn.Module, np.ndarray, np.ndarray]:
    """Train the student of the arm that is kept with the library alone, in the order of hashes.

    Returns it, the items' order, and their folds; without the items of a fold.
    """
    ctx = run.context("distill", run.layout())
    config = ctx.config
    of_source, decided = rows(run, "source"), rows(run, "decide")
    hashes = of_source["item_hash"].to_numpy()
    order = np.argsort(hashes)
    given = of_source["given"].to_numpy()
    fold = folds.assign(given, hashes, ctx.own("folds")["fold_of"])
    if plain(run)["falls_back"]:
        labels, weights = given, np.ones(N)
    else:
        clean = decided["label_clean"].to_pylist()
        labels = np.array([-1 if name is None else int(name[-1]) for name in clean])
        weights = np.where(labels >= 0, decided["weight"].to_numpy(), 0.0)
    labels, weights = np.maximum(labels[order], 0), weights[order].astype(np.float64)
    if without is not None:
        weights[fold[order] == without] = 0
    x = np.stack(noisy()[0]["features"].to_numpy())[order]
    seed = ctx.seed("student") if without is None else ctx.seed("twins", without)
    model = fit_student(
        table_student(x[weights > 0], n_classes=4, n_hidden=config.hidden, seed=seed),
        lambda chosen: x[chosen],
        labels,
        weights,
        n_classes=4,
        training=StudentTraining(
            epochs=config.epochs,
            batch_rows=config.batch_rows,
            optimizer="adamw",
            learning_rate=config.rate,
            weight_decay=config.weight_decay,
        ),
        seed=seed,
        device=torch.device("cpu"),
    )
    return model, order, fold


def probs_by(model: torch.nn.Module) -> np.ndarray:
    with torch.no_grad():
        x = torch.from_numpy(np.stack(noisy()[0]["features"].to_numpy()))
        return torch.softmax(model(x).double(), dim=1).numpy()


def test_twins__are_what_the_trainer_makes_without_their_fold() -> None:
    made = finished()
    said = np.stack(rows(made, "distill")["student_probs"].to_numpy())
    for f in (0, 3):
        model, _, fold = by_hand(made, without=f)
        np.testing.assert_allclose(said[fold == f], probs_by(model)[fold == f], atol=1e-6)
        # Its own fold only: another twin was taught these.
        assert np.abs(said[fold != f] - probs_by(model)[fold != f]).max() > 0.01


def test_sidecar__and_student_are_the_same_for_any_shards(tmp_path: Path) -> None:
    table = noisy()[0]
    settings = ("distill.labels=soft",)
    few, many = (run(tmp_path / str(n), table, *settings, shards=n) for n in (1, 7))
    assert rows(few, "distill").equals(rows(many, "distill").combine_chunks())
    for made in (few, many):
        assert found(made, "student")["known"].tolist() == [True] * 4
    artifacts = [one.manifest("distill")["artifacts"] for one in (few, many)]
    assert (
        artifacts[0]["student"]["student.safetensors"]
        == (artifacts[1]["student"]["student.safetensors"])
    )


def test_labels_as_given__are_taught_where_the_product_teaches_no_better(tmp_path: Path) -> None:
    """Nothing is wrong, so nothing can be gained; asked to, the product is taught all the same."""
    table = blobs(400, noise=0.0)
    made = run(tmp_path / "a", table)
    assert plain(made)["falls_back"] is True
    page = (Path(made.uri) / "report.html").read_text()
    assert "The student learned from the labels as given" in page
    kept = run(tmp_path / "b", table, "distill.fall_back=false")
    assert plain(kept)["falls_back"] is False
    page = (Path(kept.uri) / "report.html").read_text()
    assert re.search(r"learned from all \d+ items of the product", page)


# -- kinds of labels -------------------------------------------------------------------------------


def test_lists__teach_sets(tmp_path: Path) -> None:
    table, _ = tagged(300, n_classes=5)
    made = run(tmp_path, table, "distill.fall_back=false", "distill.epochs=10")
    probs = np.stack(rows(made, "distill")["student_probs"].to_numpy())
    assert ((probs >= 0) & (probs <= 1)).all()
    assert probs.sum(axis=1).std() > 0.01
    given = np.zeros(probs.shape, int)
    for i, names in enumerate(table["labels"].to_pylist()):
        given[i, [int(name[-1]) for name in names]] = 1
    f1 = f1_score(given, probs >= 0.5, average="samples", zero_division=1.0)
    assert plain(made)["as_given_after"] == pytest.approx(f1)


def test_positives__are_compared_by_the_area_among_unlabelled(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    is_positive = rng.random(N) < 0.4
    x = rng.normal(is_positive[:, None] * 2.5, 1, (N, 3)).astype(np.float32)
    labelled = is_positive & (rng.random(N) < 0.5)
    positive = pa.array([True if one else None for one in labelled])
    table = pa.table({"item_id": np.arange(N), "features": vectors(x), "positive": positive})
    made = run(tmp_path, table, "distill.fall_back=false", "pu.resamples=50")
    p = np.stack(rows(made, "distill")["student_probs"].to_numpy())[:, 1].astype(np.float64)
    assert plain(made)["as_given_after"] == pytest.approx(roc_auc_score(labelled, p), abs=1e-12)
    assert p[is_positive & ~labelled].mean() > 0.5 > p[~is_positive].mean()


def test_candidates__are_taught_evenly_or_as_chosen(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    true = rng.integers(0, 3, N)
    x = rng.normal(np.eye(3)[true] * 3, 1).astype(np.float32)
    other = (true + rng.integers(1, 3, N)) % 3
    lists = [
        sorted({a, b}) if i % 4 else [a] for i, (a, b) in enumerate(zip(true, other, strict=True))
    ]
    table = pa.table(
        {"item_id": np.arange(N), "features": vectors(x), "candidates": pa.array(lists)}
    )
    made = run(tmp_path, table, "distill.fall_back=false", "distill.epochs=8")
    best = np.stack(rows(made, "distill")["student_probs"].to_numpy()).argmax(axis=1)
    hits = np.mean([b in one for b, one in zip(best, lists, strict=True)])
    assert plain(made)["as_given_after"] == pytest.approx(hits)
    assert (best == true).mean() > 0.85


def test_bags__teach_what_is_believed_without_anything_to_compare_with(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    true, bag = rng.integers(0, 2, N), np.arange(N) // 10
    x = rng.normal(true[:, None] * 3.0, 1, (N, 2)).astype(np.float32)
    table = pa.table({"item_id": np.arange(N), "features": vectors(x), "bag_id": bag})
    counts = pa.table(
        {
            "bag_id": np.arange(N // 10),
            "n": np.full(N // 10, 10),
            "positives": np.bincount(bag, true).astype(np.int64),
        }
    )
    pq.write_table(counts, tmp_path / "bags.parquet")
    made = run(tmp_path, table, f"proportions.bags={tmp_path / 'bags.parquet'}")
    assert plain(made)["as_given_n"] == 0
    assert not plain(made)["falls_back"]
    page = (Path(made.uri) / "report.html").read_text()
    assert "What it gains is not known: there are no labels as given." in page
    data = (Path(made.uri) / "student" / "student.safetensors").read_bytes()
    assert len(about_of(data).classes) == 2


# -- targets ---------------------------------------------------------------------------------------


def test_targets_among_some_classes__keep_their_sums() -> None:
    """Oracle: dense labels, with what is lost and the rest spread over classes not listed."""
    soft = SoftLabels(
        np.array([2, 0, 3, 1, 2, 0, 0], np.uint16),
        np.array([0.5, 0.25, 0.5, 0.25, 0.125, 0.125, 1.0], np.float16),
        np.array([0, 2, 6, 7], np.int32),
        np.array([0.25, 0.0, 0.0], np.float16),
        4,
    )
    targets = OneTargets(
        soft.ids.astype(np.int64), soft.probs.astype(float), soft.offsets, soft.tail, np.ones(3)
    )
    whole = targets.among(np.ones(4, bool))
    dense = whole.even[:, None].repeat(4, axis=1)
    np.add.at(dense, (np.arange(3)[:, None], whole.ids), whole.excess)
    np.testing.assert_allclose(dense, smooth(soft), atol=1e-12)
    some = targets.among(np.array([True, True, False, True]))
    dense = some.even[:, None].repeat(3, axis=1)
    np.add.at(dense, (np.arange(3)[:, None], some.ids), some.excess)
    # Item 0: class 2 is lost, its half and the tail go to classes 1 and 3.
    np.testing.assert_allclose(dense[0], [0.25, 0.375, 0.375])
    # Item 1: all that are left are listed, so that nothing is left to spread.
    np.testing.assert_allclose(dense[1], np.array([0.125, 0.25, 0.5]) / 0.875)
    np.testing.assert_allclose(dense.sum(axis=1), 1)


def test_targets__survive_their_columns() -> None:
    sets = label_sets([[0, 2], [], [1]], [[1], [0], []], n_classes=3)
    made = ManyTargets(sets, np.array([1.0, 0.5, 0.0]))
    again = ManyTargets.of(pa.table(made.columns("given")), "given", 3)
    assert again.sets.ids.tolist() == [0, 2, 1]
    assert again.sets.negative_ids is not None
    assert again.weight.tolist() == [1, 0.5, 0]
    closed = ManyTargets(label_sets([[0], []], n_classes=2), np.ones(2))
    assert ManyTargets.of(pa.table(closed.columns("x")), "x", 2).sets.negative_ids is None
    one = OneTargets.of(pa.table(certain(np.array([1, -1]), np.ones(2)).columns("x")), "x")
    assert (one.first().tolist(), one.weight.tolist()) == ([1, -1], [1, 0])
    each = any_of(from_flat(np.array([2, 0, 1]), np.array([0, 2, 2, 3]), n_classes=3))
    assert (each.first().tolist(), each.weight.tolist()) == ([0, -1, 1], [1, 0, 1])


def test_unknown_classes__count_as_absent_where_hardly_anyone_rules_them_out() -> None:
    present = [[0]] * 3 + [[]] * 17
    absent = [[]] * 3 + [[0]] + [[1]] * 10 + [[]] * 6
    targets = ManyTargets(label_sets(present, absent, n_classes=2), np.ones(20))
    table = targets.table(np.array([True, False]))
    assert (table[:, 0] == YES).sum() == 3
    assert (table[:, 0] == NO).sum() == 17
    assert (table[:, 1] == UNKNOWN).sum() == 10


# -- the kept student ------------------------------------------------------------------------------


def test_kept_student__is_what_the_trainer_makes_of_all_items() -> None:
    made = finished()
    model, _, _ = by_hand(made, without=None)
    folder = Path(made.uri) / "student"
    program = load_program(str(folder / "student.pt2"), torch.device("cpu"))
    np.testing.assert_allclose(probs_by(program), probs_by(model), atol=1e-6)
    data = (folder / "student.safetensors").read_bytes()
    assert about_of(data).classes == tuple(f"class {c}" for c in range(4))
    again = load_student(
        table_student(np.zeros((1, 4), np.float32), n_classes=4, n_hidden=16),
        data,
        classes=about_of(data).classes,
    )
    np.testing.assert_allclose(probs_by(again), probs_by(model), atol=1e-6)
    assert verify_run(made.uri).damage == ()


def test_pictures__are_taught_as_they_are(tmp_path: Path) -> None:
    table, _ = single_labelled()
    source = write_shards(tmp_path / "src", table, even(table.num_rows, 2))
    settings = [
        "infer.embedder=pixels",
        "distill.student=shufflenet_v2_x0_5",
        "distill.epochs=1",
        "distill.folds=2",
        "distill.held_out_items=10",
        "distill.fall_back=false",
        f"data.classes={json.dumps(list(COLOURS))}",
        "data.absent_classes=allow",
    ]
    recipe = load_recipe("full", settings)
    pipelines.run.run(recipe, data=str(source), out=str(tmp_path / "out"))
    made = load_run(str(tmp_path / "out"))
    about = about_of((tmp_path / "out" / "student" / "student.pt2").read_bytes())
    assert (about.dtype, about.shape) == ("uint8", (3, 32, 32))
    # One of two folds is held out, the other half was taught.
    probs = rows(made, "distill")["student_probs"]
    fold = found(made, "taught")["given"]
    assert len(probs) - probs.null_count >= fold[0]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "A shufflenet_v2_x0_5 of pictures of 32 × 32 pixels" in page


def test_networks_of_infer__are_students_of_the_same_pictures(tmp_path: Path) -> None:
    table, _ = single_labelled()
    source = write_shards(tmp_path / "src", table, even(table.num_rows, 2))
    settings = [
        *("infer.train=scratch", "infer.embedder=shufflenet_v2_x0_5", "infer.image_size=48"),
        *("infer.folds=2", "infer.epochs=1", "distill.epochs=1", "distill.folds=2"),
        *("distill.held_out_items=10", f"data.classes={json.dumps(list(COLOURS))}"),
        "data.absent_classes=allow",
    ]
    recipe = load_recipe("full", settings)
    pipelines.run.run(recipe, data=str(source), out=str(tmp_path / "out"))
    about = about_of((tmp_path / "out" / "student" / "student.pt2").read_bytes())
    assert about.shape == (3, 48, 48)


def test_product__that_teaches_nothing_leaves_the_labels_as_given(tmp_path: Path) -> None:
    """Probabilities that find another class everywhere: no label is believed."""
    table = noisy()[0].slice(0, 80).combine_chunks()
    given = np.array([int(name[-1]) for name in table["label"].to_pylist()])
    others = (given[:, None] + np.arange(1, 4)) % 4
    probs = np.full((80, 4), 0.05, np.float32)
    probs[np.arange(80), others[np.arange(80), np.arange(80) % 3]] = 0.85
    table = table.append_column("pred_probs", vectors(probs))
    made = run(tmp_path, table, "distill.fall_back=false")
    assert found(made, "taught")["product"].sum() == 0
    assert plain(made)["falls_back"] is True
    assert plain(made)["as_given_n"] == 0
    assert found(made, "student")["n_taught"] == 80
    page = (Path(made.uri) / "report.html").read_text()
    assert "What it gains is not known: with a part of the items held out" in page


def test_class__that_the_product_has_no_item_of_is_not_known(tmp_path: Path) -> None:
    table = blobs(300, noise=0.0)
    names = [*table["label"].to_pylist()]
    classes = [*sorted(set(names)), "nobody"]
    made = run(
        tmp_path,
        table,
        f"data.classes={json.dumps(classes)}",
        "data.absent_classes=allow",
        "distill.fall_back=false",
    )
    known = found(made, "student")["known"]
    assert known.tolist() == [True] * (len(classes) - 1) + [False]
    assert (
        "1 class the student does not know: &#39;nobody&#39;"
        in (Path(made.uri) / "report.html").read_text()
    )
    probs = np.stack(rows(made, "distill")["student_probs"].to_numpy())
    assert (probs[:, -1] == 0).all()


# -- recipes ---------------------------------------------------------------------------------------


KINDS = {
    "label": [i % 2 for i in range(40)],
    "labels": [[i % 2] for i in range(40)],
    "positive": [True if i % 3 == 0 else None for i in range(40)],
    "candidates": [[i % 3, (i + 1) % 3] for i in range(40)],
}
CHAINS = {
    "label": ["infer", "confident", "neighbours", "decide"],
    "labels": ["infer", "multilabel", "neighbours", "decide_labels"],
    "positive": ["infer", "pu", "neighbours", "decide_positives"],
    "candidates": ["infer", "partial", "neighbours", "decide_candidates"],
}


def source_of(folder: Path, **columns: object) -> str:
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    table = pa.table({"item_id": np.arange(40), "features": vectors(x), **columns})
    return str(write_shards(folder / "src", table, [20, 20]))


@pytest.mark.parametrize("kind", KINDS)
def test_chain__is_as_the_columns_present_call_for(tmp_path: Path, kind: str) -> None:
    data = source_of(tmp_path, **{kind: pa.array(KINDS[kind])})
    planned = plan(load_recipe("full"), data=data, out=str(tmp_path / "out"))
    at_work = [stage.name for stage in planned.stages if stage.action == "run"]
    taught = ["teach"] if kind == "label" else []
    assert at_work == ["source", *CHAINS[kind], "dataset", *taught, "distill"]
    why = {stage.name: stage.why for stage in planned.stages if stage.action == "skip"}
    other = "pu" if kind != "positive" else "confident"
    column = "positive" if kind != "positive" else "label"
    assert why[other] == f"it is optional, and there is no column {column!r}"


def test_bags__without_their_table_are_refused(tmp_path: Path) -> None:
    data = source_of(tmp_path, bag_id=np.arange(40) // 5)
    with pytest.raises(DataError, match="a table with the totals of bags was expected"):
        plan(load_recipe("full"), data=data, out=str(tmp_path / "out"))


def test_optional_stages__that_would_write_over_each_other_are_refused(tmp_path: Path) -> None:
    data = source_of(tmp_path, label=KINDS["label"])
    text = 'stages = ["source", "infer", "confident", "decide", "dataset?", "dataset@2?"]'
    recipe = parse_recipe(text, name="x")
    assert recipe.optional == {"dataset", "dataset@2"}
    assert parse_recipe(recipe.to_toml(), name="x") == recipe
    with pytest.raises(RecipeError, match="one stage was expected to write the folder set_aside/"):
        plan(recipe, data=data, out=str(tmp_path / "out"))


def test_student__without_anything_to_learn_from_is_left_out(tmp_path: Path) -> None:
    table = noisy()[0].drop_columns(["features"])
    probs = np.full((N, 4), 0.25, np.float32)
    table = table.append_column("pred_probs", vectors(probs))
    data = write_shards(tmp_path / "src", table, [N])
    planned = plan(load_recipe("full"), data=str(data), out=str(tmp_path / "out"))
    [last] = [stage for stage in planned.stages if stage.name == "distill"]
    assert last.action == "skip"
    assert "neither an embedding nor a features column" in last.why
    recipe = load_recipe("full", ["distill.student=resnet18"])
    with pytest.raises(DataError, match="'image'"):
        plan(recipe, data=str(data), out=str(tmp_path / "out"))


def test_settings__hold_out_as_many_folds_as_are_needed() -> None:
    config = Config()
    held_out = {n: config.n_held_out(n) for n in (0, 100, 10_000, 25_000, 26_000, 10**7)}
    assert held_out == {0: 5, 100: 5, 10_000: 5, 25_000: 2, 26_000: 2, 10**7: 1}
