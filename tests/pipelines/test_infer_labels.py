"""Oracles: the heads fitted directly, and the rows by hand."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.special import expit, logit

import pipelines.run
from labelops.calibration import reliability
from labelops.hashing import hash_strings
from labelops.multilabel.labels import from_states
from labelops.nn.binary_heads import fit_binary_heads
from labelops.nn.linear import Block, predict
from labelops.opinions.sets import fit_cell_weights
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError, LabelopsError, RecipeError
from pipelines.recipe import load_recipe, parse_recipe
from tests.datasets import even, tagged, vectors, write_shards

N, K = 200, 5
STAGES = 'stages = ["source", "infer"]\n[data]\nmax_bad_share = 0.5\nabsent_classes = "allow"\n'


def run(data: Path, out: Path, *overrides: str) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        recipe = parse_recipe(STAGES, name="test", overrides=overrides)
        pipelines.run.run(recipe, data=str(data), out=str(out))
    return load_run(str(out))


def sidecar(found: Run) -> pa.Table:
    paths = sorted((Path(found.uri) / "infer").glob("*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths)


def states_of(table: pa.Table) -> np.ndarray:
    lists = table["labels"].to_pylist()
    return np.array([[f"class {k}" in given for k in range(K)] for given in lists], np.int8)


def reasons(found: Run) -> list[str]:
    return sorted(pq.read_table(Path(found.uri) / "quarantine")["reason"].to_pylist())


def test_features__give_the_probabilities_of_heads_that_have_not_seen_the_item(
    tmp_path: Path,
) -> None:
    table, _ = tagged(N, n_classes=K)
    data = write_shards(tmp_path / "src", table, even(N, 3))
    rows = sidecar(
        run(data, tmp_path / "out", "infer.l2=0.01", "infer.folds=4", "infer.heads=['linear']")
    )
    assert rows.column_names == ["item_id", "fold", "pred_probs", "embedding"]
    x = np.array(table["features"].to_pylist(), np.float32)
    fold = rows["fold"].to_numpy().astype(np.int64)
    labels = from_states(states_of(table))
    heads = fit_binary_heads(
        lambda: [Block(x, labels, fold)],
        n_features=x.shape[1],
        n_classes=K,
        n_folds=4,
        l2=0.01,
        tolerance=1e-8,
    )
    found = np.array(rows["pred_probs"].to_pylist())
    # Items come in another order, and the search ends a little earlier.
    np.testing.assert_allclose(found, predict(heads, x, fold, link="sigmoid"), atol=0.02)


def test_several_heads__are_pooled_cell_by_cell(tmp_path: Path) -> None:
    table, _ = tagged(N, n_classes=K)
    data = write_shards(tmp_path / "src", table, even(N, 3))
    kinds = ("linear", "nearest", "trees")
    alone = [sidecar(run(data, tmp_path / kind, f"infer.heads=['{kind}']")) for kind in kinds]
    probs = np.stack([np.array(rows["pred_probs"].to_pylist(), np.float32) for rows in alone])
    assert len({p.tobytes() for p in probs}) == 3
    together = run(data, tmp_path / "all")
    rows = sidecar(together)
    assert rows.column_names == ["item_id", "fold", "pred_probs", "embedding"]
    weights = together.context("infer", together.layout()).own("weights")
    assert weights["heads"].tolist() == list(kinds)
    # The same items in another order: up to the tolerance of the search.
    wanted = fit_cell_weights(probs, states_of(table))
    np.testing.assert_allclose(weights["weights"], wanted, atol=0.01)
    log_odds = sum(
        w * logit(np.clip(p.astype(float), 1e-6, 1 - 1e-6))
        for w, p in zip(weights["weights"], probs, strict=True)
    )
    found = np.array(rows["pred_probs"].to_pylist())
    np.testing.assert_allclose(found, expit(log_odds), rtol=1e-5)
    truth, whole = states_of(table), [*probs, found]
    losses = [-np.log(np.where(truth == 1, p, 1 - p).clip(1e-6)).mean() for p in whole]
    assert losses[-1] < min(losses[:-1]) + 1e-3


def test_heads__that_know_one_class_an_item_only_are_refused(tmp_path: Path) -> None:
    table, _ = tagged(20, n_classes=K)
    data = write_shards(tmp_path / "src", table, [20])
    with pytest.raises(RecipeError, match="heads among \\['linear', 'nearest', 'trees'\\] were"):
        run(data, tmp_path / "out", "infer.heads=['linear', 'prototypes']")


def test_folds__are_alike_in_every_class(tmp_path: Path) -> None:
    table, _ = tagged(N, n_classes=K)
    data = write_shards(tmp_path / "src", table, [N])
    fold = sidecar(run(data, tmp_path / "out"))["fold"].to_numpy()
    states = states_of(table)
    rarest = int(states.sum(axis=0).argmin())
    counts = np.bincount(fold[states[:, rarest] == 1], minlength=5)
    # Within its stratum a fold has its share, give or take what lies in one bin.
    assert counts.max() - counts.min() <= 3
    assert np.bincount(fold, minlength=5).min() > 0.7 * N / 5


def test_three_states__unknown_classes_teach_nothing(tmp_path: Path) -> None:
    """Though half of the cells are unknown, heads are as sure of a class as it is frequent."""
    table, true = tagged(400, n_classes=K, hidden=0.0, wrong=0.0)
    rng = np.random.default_rng(0)
    known = rng.random(true.shape) < 0.5
    columns = {
        name: pa.array(
            [[f"class {k}" for k in np.flatnonzero(row)] for row in cells], pa.list_(pa.string())
        )
        for name, cells in (("labels", true & known), ("labels_negative", ~true & known))
    }
    table = table.drop_columns(["labels"])
    for name, values in columns.items():
        table = table.append_column(name, values)
    data = write_shards(tmp_path / "src", table, [400])
    probs = np.array(sidecar(run(data, tmp_path / "out"))["pred_probs"].to_pylist())
    # As often present as believed, also where nobody looked: three standard errors of a share.
    slack = 3 * (true.mean(axis=0) / (~known).sum(axis=0)) ** 0.5 + 0.03
    unknown = np.where(known, np.nan, probs)
    truth = np.where(known, np.nan, true)
    assert (np.abs(np.nanmean(unknown, axis=0) - np.nanmean(truth, axis=0)) < slack).all()


def test_ready_probabilities__are_checked_class_by_class_without_a_sum(tmp_path: Path) -> None:
    probs = np.full((8, 2), 0.9, np.float32)
    probs[1, 1], probs[2, 0], probs[3, 0] = 1.5, -0.25, np.nan
    lists = vectors(probs).to_pylist()
    lists[4] = None
    table = pa.table(
        {
            "item_id": np.arange(8),
            "labels": [["a"], ["b"]] * 4,
            "pred_probs": pa.array(lists, pa.list_(pa.float32(), 2)),
        }
    )
    found = run(write_shards(tmp_path / "src", table, [5, 3]), tmp_path / "out")
    remedy = ", expected was [0, 1]. Were logits passed?"
    assert reasons(found) == [
        f"no probabilities: class 0 has -0.25{remedy}",
        f"no probabilities: class 0 has nan{remedy}",
        f"no probabilities: class 1 has 1.5{remedy}",
        "probabilities missing: pred_probs is null",
    ]
    assert sidecar(found).to_pydict() == {"item_id": [0, 5, 6, 7]}


def test_calibration__is_that_of_single_cells(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    states = (rng.random((300, 3)) < 0.4).astype(np.int8)
    probs = np.clip(0.5 + (states - 0.5) * 0.8 + rng.normal(0, 0.2, (300, 3)), 0, 1)
    table = pa.table(
        {
            "item_id": [f"i{i}" for i in range(300)],
            "labels": [np.flatnonzero(row).tolist() for row in states],
            "pred_probs": vectors(probs.astype(np.float32)),
        }
    )
    found = run(write_shards(tmp_path / "src", table, even(300, 2)), tmp_path / "out")
    result = found.context("infer", found.layout()).own("calibration")
    order = np.argsort(hash_strings(table["item_id"].to_pylist()))
    p, z = probs.astype(np.float32).astype(float)[order].ravel(), states[order].ravel() == 1
    assert (result["n"], result["n_cells"]) == (300, 900)
    np.testing.assert_allclose(result["before_brier"], np.mean((p - z) ** 2))
    bins = reliability(p, z, n_bins=15)
    np.testing.assert_allclose(result["before_ece"], (bins.n * bins.gap).sum() / 900)
    assert result["after_nll"] <= result["before_nll"]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_features__that_are_not_finite_go_to_quarantine(tmp_path: Path, bad: float) -> None:
    table, _ = tagged(N, n_classes=K)
    x = np.array(table["features"].to_pylist(), np.float32)
    x[7, 2] = bad
    at = table.column_names.index("features")
    data = write_shards(tmp_path / "src", table.set_column(at, "features", vectors(x)), [N])
    found = run(data, tmp_path / "out")
    assert reasons(found) == [f"features not finite: number 2 is {bad}"]
    assert sidecar(found).num_rows == N - 1


def test_training_networks__is_refused_with_the_remedy(tmp_path: Path) -> None:
    image = pa.array([{"bytes": b"", "path": None}] * 4)
    table = pa.table({"labels": [["a"], ["b"]] * 2, "image": image})
    data = write_shards(tmp_path / "src", table, [4])
    with pytest.raises(LabelopsError) as refused:
        run(data, tmp_path / "out", "infer.train=scratch", "infer.embedder=resnet18")
    assert str(refused.value) == (
        "stage 'infer': train = 'heads' was expected for items of which not each has one label, "
        "got 'scratch'. Networks can be trained only for one class per item; name an embedder "
        "with weights, or bring pred_probs"
    )


def test_neither_input__names_the_columns(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", pa.table({"labels": [["a"], ["b"]]}), [2])
    with pytest.raises(DataError, match="a column to predict from was expected"):
        run(data, tmp_path / "out")


@pytest.mark.parametrize("recipe", ["audit", "multilabel"])
def test_items__that_all_are_set_apart_leave_an_empty_run(tmp_path: Path, recipe: str) -> None:
    table, _ = tagged(30, n_classes=K)
    nothing = pa.array([None] * 30, table.schema.field("features").type)
    table = table.set_column(1, "features", nothing)
    if recipe == "audit":
        table = table.drop_columns(["labels"]).append_column("label", pa.array([0, 1] * 15))
    data = write_shards(tmp_path / "src", table, even(30, 2))
    settings = load_recipe(recipe, ["data.max_bad_share=1.0"])
    pipelines.run.run(settings, data=str(data), out=str(tmp_path / "out"))
    assert len(reasons(load_run(str(tmp_path / "out")))) == 30


def test_one_item__is_legal_and_believed_with_a_half(tmp_path: Path) -> None:
    table, _ = tagged(1, n_classes=K)
    table = table.set_column(2, "labels", pa.array([["class 0"]]))
    data = write_shards(tmp_path / "src", table, [1])
    rows = sidecar(run(data, tmp_path / "out"))
    np.testing.assert_allclose(rows["pred_probs"].to_pylist(), [[0.5]])
