"""Oracles: scikit-learn's measures, counts by hand, and the same from any cut of the data."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score, f1_score

import pipelines.run
from labelops.gate import Interval, Verdict
from labelops.multilabel.labels import UNKNOWN
from pipelines.core.results import load_result
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError
from pipelines.recipe import parse_recipe
from pipelines.stages.evaluate import Config, skip
from pipelines.verify import verify_run
from tests.datasets import even, tagged, vectors, write_shards

N = 240
SHIPS = Verdict(True, Interval(1.0, 1.0, 1.0), False, "whatever")
DECIDED = ["source", "infer", "multilabel", "decide_labels", "evaluate"]


def evaluate(
    folder: Path, table: pa.Table, sizes: list[int], *settings: str, stages: list[str] = DECIDED
) -> Run:
    data = write_shards(folder / "data", table, sizes)
    recipe = parse_recipe(f"stages = {stages}", name="test", overrides=settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        pipelines.run.run(recipe, data=str(data), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def measures(run: Run) -> dict[str, np.ndarray]:
    return load_result(run.store, "evaluate", "measures")


def read(run: Run, stage: str) -> pa.Table:
    paths = sorted((Path(run.uri) / stage).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths]).sort_by("item_id")


def lists(table: np.ndarray, state: int = 1) -> pa.Array:
    rows = [[f"class {k}" for k in np.flatnonzero(row == state)] for row in table]
    return pa.array(rows, pa.list_(pa.string()))


def table_in(lists: Any, n_classes: int = 5) -> np.ndarray:
    table = np.zeros((len(lists), n_classes), bool)
    for row, labels in enumerate(lists):
        table[row, [int(label.removeprefix("class ")) for label in labels]] = True
    return table


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, np.ndarray, np.ndarray, str]:
    """A run whose reference knows two items in three, with a cell in ten unknown; and the truth."""
    folder = tmp_path_factory.mktemp("known")
    source, true = tagged(N)
    rng = np.random.default_rng(1)
    states = np.where(rng.random(true.shape) < 0.1, UNKNOWN, true).astype(np.int8)
    is_known = np.arange(N) % 3 > 0
    reference = pa.table({
        "item_id": source["item_id"], "true_labels": lists(states),
        "true_labels_negative": lists(states, 0),
    }).filter(pa.array(is_known))  # fmt: skip
    path = str(folder / "reference.parquet")
    # In another order than the data.
    pq.write_table(reference.take(pa.array(rng.permutation(len(reference)))), path)
    run = evaluate(folder, source, [100, 140], f"evaluate.reference={path}")
    return run, states, is_known, path


def test_evaluate__measures_are_those_of_scikit_learn(known: Any) -> None:
    run, states, is_known, _ = known
    found, (source, _) = measures(run), tagged(N)
    given = table_in(source["labels"].to_pylist())
    clean = read(run, "decide_labels")["labels_clean"].to_pylist()
    waits = np.array([labels is None for labels in clean])
    cleaned = np.where(waits[:, None], given, table_in([labels or [] for labels in clean]))
    probs = np.array(read(run, "infer")["pred_probs"].to_pylist())
    cells = is_known[:, None] & (states != UNKNOWN)
    assert found["n_items"] == is_known.sum()
    assert found["n_known_cells"] == cells.sum()
    for name, table in (("given", given), ("clean", cleaned), ("model", probs >= 0.5)):
        micro = f1_score(states[cells], table[cells])
        assert found[f"{name}_micro_f1"][0] == pytest.approx(micro)
        by_class = [f1_score(states[m, c], table[m, c]) for c, m in enumerate(cells.T)]
        np.testing.assert_allclose(found[f"{name}_class_f1"], by_class)
        assert found[f"{name}_macro_f1"][0] == pytest.approx(np.mean(by_class))
        right = ((table == states) | (states == UNKNOWN)).all(axis=1)[is_known]
        assert found[f"{name}_subset_accuracy"][0] == pytest.approx(right.mean())
        _, low, high = found[f"{name}_micro_f1"]
        assert low < micro < high
    precision = [
        average_precision_score(states[m, c], probs[m, c].round(12)) for c, m in enumerate(cells.T)
    ]
    np.testing.assert_allclose(found["class_average_precision"], precision)
    gain = found["clean_micro_f1_gain"]
    assert gain[0] == pytest.approx(found["clean_micro_f1"][0] - found["given_micro_f1"][0])
    # Of the same draws, so narrower than the two intervals one after the other.
    width = sum(np.diff(found[f"{name}_micro_f1"][1:]) for name in ("given", "clean"))
    assert gain[2] - gain[1] < width


def test_evaluate__sidecar_counts_the_wrong_labels_of_known_items(known: Any) -> None:
    run, states, is_known, _ = known
    given = table_in(tagged(N)[0]["labels"].to_pylist())
    wrong = ((given != states) & (states != UNKNOWN)).sum(axis=1)
    found = read(run, "evaluate")["wrong_as_given"].to_pylist()
    assert found == [int(w) if k else None for w, k in zip(wrong, is_known, strict=True)]


@pytest.mark.parametrize("sizes", [[240], even(240, 7), [0, 1, 0, 239]])
def test_evaluate__does_not_depend_on_the_cut(known: Any, tmp_path: Path, sizes: list[int]) -> None:
    run, _, _, path = known
    source = tagged(N)[0].take(pa.array(np.random.default_rng(2).permutation(N)))
    again = measures(evaluate(tmp_path, source, sizes, f"evaluate.reference={path}"))
    for name, value in measures(run).items():
        # Probabilities are of models that were fitted again, to the same bits.
        assert again[name].tobytes() == value.tobytes(), name


def test_evaluate__few_of_many_items_are_taken_by_hash(known: Any, tmp_path: Path) -> None:
    path = known[3]
    settings = [f"evaluate.reference={path}", "evaluate.max_items=40"]
    runs = [
        measures(evaluate(tmp_path / str(cut), tagged(N)[0], even(N, cut), *settings))
        for cut in (1, 4)
    ]
    assert 20 < runs[0]["n_items"] < 60
    assert all(runs[0][k].tobytes() == runs[1][k].tobytes() for k in runs[0])


def test_evaluate__single_labels_are_held_against_lists(tmp_path: Path) -> None:
    """ReaL accuracy: the model's highest class, and the given one, among the true ones."""
    rng = np.random.default_rng(0)
    true = rng.random((60, 4)) < 0.4
    true[:5] = False
    probs = rng.dirichlet(np.ones(4), 60).astype(np.float32)
    given = rng.integers(0, 4, 60)
    source = pa.table({
        "item_id": np.arange(60), "label": [f"class {k}" for k in given],
        "pred_probs": vectors(probs),
    })  # fmt: skip
    reference = pa.table({"item_id": np.arange(60), "true_labels": lists(true)})
    pq.write_table(reference, tmp_path / "r.parquet")
    run = evaluate(
        tmp_path, source, [25, 35], f"evaluate.reference={tmp_path / 'r.parquet'}",
        stages=["source", "infer", "confident", "decide", "evaluate"],
    )  # fmt: skip
    found, rows, has_any = measures(run), np.arange(60), true.any(axis=1)
    assert found["real_accuracy"][0] == pytest.approx(true[rows, probs.argmax(1)][has_any].mean())
    assert found["given_real_accuracy"][0] == pytest.approx(true[rows, given][has_any].mean())
    clean = read(run, "decide")["label_clean"].to_pylist()
    after = [int(c.removeprefix("class ")) if c else g for c, g in zip(clean, given, strict=True)]
    assert found["clean_real_accuracy"][0] == pytest.approx(true[rows, after][has_any].mean())


def test_evaluate__imagenet_validation_against_its_reassessed_labels(
    shared_data: Path, tmp_path: Path
) -> None:
    """The first 1500 pictures; a model's highest class, of 1000, against sets of classes."""
    path = shared_data / "imagenet_val_labels_real.npz"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    data = np.load(path)
    image, label = data["real_pairs"].T
    n, ids = 1500, np.arange(1500)
    sets = [label[image == i] for i in ids]
    top = data["pred_argmax"][:n]
    names = [f"class {k}" for k in range(1000)]
    source = pa.table({
        "item_id": ids, "label": [names[k] for k in data["given"][:n]],
        "pred_probs": vectors(np.eye(1000, dtype=np.float32)[top]),
    })  # fmt: skip
    reference = pa.table({"item_id": ids, "true_labels": [[names[k] for k in s] for s in sets]})
    pq.write_table(reference, tmp_path / "real.parquet")
    run = evaluate(
        tmp_path, source, even(n, 3), f"evaluate.reference={tmp_path / 'real.parquet'}",
        f"data.classes={names}", "data.absent_classes=allow", "evaluate.n_draws=20",
        stages=["source", "infer", "evaluate"],
    )  # fmt: skip
    counted = [t in s for t, s in zip(top, sets, strict=True) if len(s)]
    found = measures(run)
    assert found["real_accuracy"][0] == pytest.approx(np.mean(counted))
    given = [g in s for g, s in zip(data["given"][:n], sets, strict=True) if len(s)]
    assert found["given_real_accuracy"][0] == pytest.approx(np.mean(given))


def test_evaluate__reference_of_other_classes_and_of_other_items(tmp_path: Path) -> None:
    source = tagged(N)[0]
    (tmp_path / "r.csv").write_text("item_id,true_labels\nitem-00001,class 0;dragon\n")
    with pytest.raises(DataError, match=r"labels among the 5 classes .* got 'dragon'"):
        evaluate(tmp_path / "a", source, [N], f"evaluate.reference={tmp_path / 'r.csv'}")
    (tmp_path / "o.csv").write_text("item_id,true_labels\nnobody,class 0\n")
    with pytest.raises(DataError, match=r"got 0 of 1 ids of the reference are in the data; first"):
        evaluate(tmp_path / "b", source, [N], f"evaluate.reference={tmp_path / 'o.csv'}")


def test_skip__without_reference_or_labels() -> None:
    assert skip(Config(), frozenset({"given"})) == "no reference is named (evaluate.reference)"
    assert skip(Config(reference="r.csv"), frozenset()) == "items have no labels"
    assert skip(Config(reference="r.csv"), frozenset({"given_ids"})) is None


def test_worse__labels_that_a_reference_finds_worse_are_not_shipped(tmp_path: Path) -> None:
    """What was given counts as the truth here, so every change makes it worse."""
    source, _ = tagged(N)
    path = str(tmp_path / "reference.parquet")
    given = source.select(["item_id", "labels"]).rename_columns(["item_id", "true_labels"])
    pq.write_table(given, path)
    data = write_shards(tmp_path / "data", source, [100, 140])
    settings = [f"evaluate.reference={path}", "decide_labels.add_confidence=0.6"]
    settings += ["decide_labels.remove_confidence=0.6"]
    recipe = parse_recipe(f"stages = {[*DECIDED, 'dataset']}", name="test", overrides=settings)
    with pytest.MonkeyPatch.context() as patch:
        # The gate would hold these rules back.
        patch.setattr("pipelines.decisions.gate.judge", lambda *args, **named: SHIPS)
        pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "out"))
    run = load_run(str(tmp_path / "out"))
    assert measures(run)["clean_micro_f1_gain"][2] < 0
    assert "relabel" in read(run, "decide_labels")["decision"].to_pylist()
    product = read(run, "dataset")
    assert product["labels_clean"].to_pylist() == product["labels"].to_pylist()
    assert "relabel" not in product["decision"].to_pylist()
    assert "left out: " in "".join(product["reason"].to_pylist())
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "The cleaned labels are worse than the given ones." in page.split("</h1>")[0]
    assert not verify_run(run.uri).damage
