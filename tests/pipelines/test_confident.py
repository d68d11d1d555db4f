"""Oracles: cleanlab on the whole data set in memory; sorting; and the same data cut otherwise."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues

import pipelines.run
import pipelines.selection.pairs
import pipelines.selection.ranking
import pipelines.stages.confident
from labelops.confident import selection as sel
from labelops.confident.filters import Filter
from labelops.confident.issues import estimate_noise
from labelops.confident.scores import label_scores
from labelops.hashing import hash_strings
from pipelines.core.results import load_result
from pipelines.core.state import load_run
from pipelines.recipe import parse_recipe
from tests.datasets import even, vectors, write_shards
from tests.labelops.confident.data import cleanlab_flags, make

FILTERS = get_args(Filter)
RECIPE = """
stages = ["source", "infer", "confident"]
[data]
absent_classes = "allow"
max_bad_share = 0.5
[confident]
"""
N = 420


def table_of(probs: np.ndarray, given: np.ndarray, *, text: bool = False) -> pa.Table:
    labels = [f"class {k}" for k in given] if text else given.astype(np.int64)
    ids = [f"item-{i:05d}" for i in range(len(given))]
    return pa.table({"item_id": ids, "label": labels, "pred_probs": vectors(probs)})


def run(folder: Path, table: pa.Table, sizes: list[int], settings: str = "", **how: Any) -> Path:
    data, out = folder / "src", folder / "out"
    write_shards(data, table, sizes)
    recipe = parse_recipe(RECIPE + settings, name="test")
    pipelines.run.run(recipe, data=str(data), out=str(out), **how)
    return out


def sidecar(out: Path) -> pa.Table:
    paths = sorted((out / "confident").glob("part-*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths).combine_chunks()


def flags(out: Path) -> np.ndarray:
    return np.asarray(sidecar(out)["is_label_issue"])


def result(out: Path, step: str) -> dict[str, np.ndarray]:
    return load_result(load_run(str(out)).store, "confident", step)


def is_done(out: Path, step: str) -> bool:
    return (out / "confident" / "_results" / f"{step}.npz").exists()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("filter_by", FILTERS)
def test_flags__over_shards_equal_those_of_cleanlab_in_memory(
    tmp_path: Path, filter_by: str, dtype: str
) -> None:
    probs, given, _ = make(21, n=N, n_classes=6, dtype=np.dtype(dtype).type)
    sizes = [0, 1, 100, 0, N - 101]
    out = run(tmp_path, table_of(probs, given), sizes, f'filter_by = "{filter_by}"')
    assert np.array_equal(flags(out), cleanlab_flags(probs, given, filter_by))


@pytest.mark.parametrize(
    ("score", "adjust"),
    [
        ("self_confidence", False),
        ("normalized_margin", False),
        ("confidence_weighted_entropy", False),
        ("self_confidence", True),
        ("normalized_margin", True),
    ],
)
def test_sidecar__has_scores_ranks_and_labels(tmp_path: Path, score: str, adjust: bool) -> None:
    probs, given, _ = make(22, n=N, n_classes=5, dtype=np.float32)
    probs[5::7], given[5::7] = probs[5], given[5]
    settings = f'score = "{score}"\nadjust_pred_probs = {str(adjust).lower()}'
    out = run(tmp_path, table_of(probs, given, text=True), even(N, 3), settings)
    found = sidecar(out)
    assert found["item_id"].to_pylist() == [f"item-{i:05d}" for i in range(N)]
    assert found["given_label"].to_pylist() == [f"class {k}" for k in given]
    assert found["predicted"].to_pylist() == probs.argmax(axis=1).tolist()
    assert found["predicted_label"].to_pylist() == [f"class {k}" for k in probs.argmax(axis=1)]
    assert np.array_equal(np.asarray(found["p_predicted"]), probs.max(axis=1))
    thresholds, _ = estimate_noise(probs, given)
    wanted = label_scores(probs, given, score=score, thresholds=thresholds if adjust else None)
    scores = np.asarray(found["label_score"])
    assert np.allclose(scores, wanted, atol=1e-6)
    # The flagged, then all others that the model disagrees with; lowest score first; equal scores
    # in the order of the hashed ids; null for everybody else.
    hashes = hash_strings(found["item_id"].to_pylist())
    is_issue = np.asarray(found["is_label_issue"])
    ranked = np.flatnonzero(is_issue | (probs.argmax(axis=1) != given))
    ranking = ranked[np.lexsort((hashes[ranked], scores[ranked], ~is_issue[ranked]))]
    ranks = dict(zip(ranking.tolist(), range(1, len(ranked) + 1), strict=True))
    assert found["rank"].to_pylist() == [ranks.get(i) for i in range(N)]
    assert 10 < is_issue.sum() < len(ranked)


def test_ranks__where_the_given_class_is_impossible_follow_what_speaks_for_another(
    tmp_path: Path,
) -> None:
    probs, given, _ = make(23, n=N, n_classes=5, dtype=np.float32)
    rng, rows = np.random.default_rng(1), np.arange(N)
    zero = np.flatnonzero(rng.random(N) < 0.3)
    lead = np.array([0.5, 0.75, 1.0], np.float32)[rng.integers(0, 3, len(zero))]
    probs[zero] = 0
    probs[zero, (given[zero] + 1) % 5] = lead
    probs[zero, (given[zero] + 2) % 5] += 1 - lead
    found = sidecar(run(tmp_path, table_of(probs, given, text=True), even(N, 3), ""))
    is_issue, hashes = (
        np.asarray(found["is_label_issue"]),
        hash_strings(found["item_id"].to_pylist()),
    )
    p_given = probs[rows, given]
    against = np.where(p_given == 0, -probs.max(axis=1), 0)
    ranked = np.flatnonzero(is_issue | (probs.argmax(axis=1) != given))
    order = np.lexsort((hashes[ranked], against[ranked], p_given[ranked], ~is_issue[ranked]))
    ranks = dict(zip(ranked[order].tolist(), range(1, len(ranked) + 1), strict=True))
    assert found["rank"].to_pylist() == [ranks.get(i) for i in range(N)]


def test_sidecar__integer_labels_stay_integers(tmp_path: Path) -> None:
    probs, given, _ = make(23, n=60)
    table = table_of(probs, given).set_column(1, "label", pa.array(given, pa.int16()))
    found = sidecar(run(tmp_path, table, [60]))
    assert found.schema.field("given_label").type == pa.int16()
    assert found.schema.field("predicted_label").type == pa.int16()
    assert found["given_label"].to_pylist() == given.tolist()


def test_estimates__equal_those_in_memory(tmp_path: Path) -> None:
    probs, given, _ = make(24, n=N, n_classes=6, dtype=np.float32)
    found = result(run(tmp_path, table_of(probs, given), even(N, 4)), "estimates")
    thresholds, wanted = estimate_noise(probs, given)
    assert np.array_equal(found["thresholds"], thresholds)
    assert np.array_equal(found["n_given"], np.bincount(given))
    for name, value in wanted._asdict().items():
        assert np.array_equal(found[name], value), name
    pairs = zip(found["confusion_given"], found["confusion_true"], strict=True)
    counts = [wanted.calibrated_joint[pair] for pair in pairs]
    assert counts == found["confusion_n_items"].tolist() == sorted(counts, reverse=True)


@pytest.mark.filterwarnings("ignore:May not flag all label issues")
def test_odd_classes__take_no_item_from_others(tmp_path: Path) -> None:
    """Flags and counts are cleanlab's, if nothing is ever confidently of those classes.

    Items of "class 0" are written "Class 0 " three times, and another "clas 1" once. What a model
    gives such classes is little, so their thresholds would be the lowest of all.
    """
    probs, given, _ = make(27, n=2 * N, n_classes=4, noise=0.1)
    names = [f"class {k}" for k in range(4)] + ["Class 0 ", "clas 1"]
    low = np.random.default_rng(1).uniform(0.01, 0.04, (2 * N, 2))
    probs = np.c_[probs * (1 - low.sum(axis=1, keepdims=True)), low]
    sound = given.copy()
    given[np.flatnonzero(given == 0)[:3]] = 4
    given[np.flatnonzero(given == 1)[:1]] = 5
    table = table_of(probs, given).set_column(1, "label", pa.array([names[k] for k in given]))
    classes = "[data]\nclasses = " + str(names).replace("'", '"')
    recipe = RECIPE.replace("[data]", classes)
    write_shards(tmp_path / "src", table, even(2 * N, 3))
    out = tmp_path / "out"
    pipelines.run.run(parse_recipe(recipe, name="test"), data=str(tmp_path / "src"), out=str(out))

    p_given = probs[np.arange(2 * N), given]
    thresholds = np.array([p_given[given == k].mean() for k in range(4)] + [2.0, 2.0])
    joint = compute_confident_joint(given, probs, thresholds=thresholds, calibrate=True)
    wanted = find_label_issues(given, probs, confident_joint=joint, n_jobs=1)
    assert np.array_equal(flags(out), wanted)
    estimates = result(out, "estimates")
    assert np.allclose(estimates["thresholds"], thresholds, atol=1e-12)
    # The four odd labels are errors themselves; beyond them the estimate hardly moves. As cleanlab
    # has it, the odd classes take the place of what is wrong otherwise.
    n_wrong = 2 * N - np.trace(estimates["calibrated_joint"])
    counted = compute_confident_joint(sound, probs[:, :4], calibrate=True)
    other = compute_confident_joint(given, probs, calibrate=True)
    assert abs(n_wrong - (2 * N - np.trace(counted))) <= 5
    assert abs((2 * N - np.trace(other)) - (2 * N - np.trace(counted))) > 5


def saturated(n_classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities full of ties, exact zeros and ones, and a class that nobody has."""
    rng = np.random.default_rng(7)
    probs = np.round(rng.dirichlet(np.full(n_classes, 0.5), N) * 4) / 4
    probs /= probs.sum(axis=1, keepdims=True)
    probs[:150] = np.eye(n_classes)[rng.integers(0, n_classes, 150)]
    return probs.astype(np.float32), rng.integers(0, n_classes - 1, N)


CUTS = [
    ([N], {}),
    (even(N, 2), {"COLLECT": 0, "CELLS": 1}),
    (even(N, 7), {"COLLECT": 20}),
    ([0, 1, 0, N - 1], {}),
]
"""Sizes of shards, and limits that make counting go on to the last bit, or end after one turn."""


@pytest.mark.parametrize("filter_by", ["both", "low_normalized_margin"])
def test_ties__are_cut_alike_for_every_sharding_and_way_of_counting(
    tmp_path: Path, filter_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    probs, given = saturated()
    table = table_of(probs, given)
    found = []
    for i, (sizes, limits) in enumerate(CUTS):
        with monkeypatch.context() as patch:
            for name, value in limits.items():
                patch.setattr(sel, name, value)
            out = run(tmp_path / str(i), table, sizes, f'filter_by = "{filter_by}"')
        assert is_done(out, "cuts-00") == bool(limits)
        found.append(sidecar(out))
    assert all(table.equals(found[0]) for table in found)
    n_issues = np.count_nonzero(found[0]["is_label_issue"])
    assert n_issues > 0
    if filter_by == "low_normalized_margin":
        assert n_issues == cleanlab_flags(probs, given, filter_by).sum()


def short_of_rows(seed: int, *, misjudged: float) -> tuple[np.ndarray, np.ndarray]:
    """Return data in which a quota is larger than the number of rows it is meant for.

    Errors are all of one kind and confidently found, right rows are hardly ever confident:
    calibrated, there are more errors than rows in which that other class is in front. Misjudged
    rows could be flagged, too: a third class is in front of the given one.
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, N)
    is_wrong = rng.random(N) < 0.15
    given = np.where(is_wrong, (true + 1) % 3, true)
    top = np.where(is_wrong, rng.uniform(0.85, 0.99, N), rng.beta(4, 1, N) * 0.35 + 0.6)
    rest = rng.dirichlet(np.full(2, 0.3), N) * (1 - top)[:, None]
    probs = np.stack([np.insert(rest[i], true[i], top[i]) for i in range(N)])
    for i in np.flatnonzero(~is_wrong & (rng.random(N) < misjudged)):
        low, high = np.sort(rng.uniform(0.36, 0.45, 2))
        # The class for which the given one is mistaken elsewhere has almost nothing here.
        probs[i, [given[i], (given[i] + 1) % 3]] = low, high
        probs[i, (given[i] + 2) % 3] = 1 - low - high
    return probs, given


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("filter_by", ["prune_by_noise_rate", "both"])
@pytest.mark.parametrize("misjudged", [0.0, 0.1])
def test_flags__are_exact_where_kept_rows_cannot_fill_a_quota(
    tmp_path: Path, misjudged: float, filter_by: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (pipelines.selection.pairs, pipelines.stages.confident):
        monkeypatch.setattr(module, "clear_lead", lambda n_classes: 0.0)
    probs, given = short_of_rows(3, misjudged=misjudged)
    probs = probs.astype(dtype)
    out = run(tmp_path, table_of(probs, given), even(N, 4), f'filter_by = "{filter_by}"')
    # The probabilities are read again only if an item that could be flagged depends on it.
    assert is_done(out, "cuts-deep") == (misjudged > 0)
    assert np.array_equal(flags(out), cleanlab_flags(probs, given, filter_by))


@pytest.mark.parametrize("filter_by", FILTERS)
def test_settings__of_pruning_are_those_of_cleanlab(tmp_path: Path, filter_by: str) -> None:
    probs, given, _ = make(25, n=N, n_classes=5)
    settings = {"frac_noise": 0.6, "min_examples_per_class": 70}
    lines = [f'filter_by = "{filter_by}"', *(f"{key} = {value}" for key, value in settings.items())]
    if filter_by in ("prune_by_noise_rate", "prune_by_class", "both"):
        out = run(tmp_path, table_of(probs, given), even(N, 2), "\n".join(lines))
        assert np.array_equal(flags(out), cleanlab_flags(probs, given, filter_by, **settings))
    else:
        with pytest.raises(
            Exception,
            match="apply to prune_by_noise_rate, prune_by_class and both only, not to " + filter_by,
        ):
            parse_recipe(RECIPE + "\n".join(lines), name="test")


def test_settings__adjusted_entropy_is_refused() -> None:
    settings = 'score = "confidence_weighted_entropy"\nadjust_pred_probs = true'
    with pytest.raises(Exception, match="adjust_pred_probs is not defined for confidence_weighted"):
        parse_recipe(RECIPE + settings, name="test")


def test_rejected_rows__do_not_shift_what_comes_after_them(tmp_path: Path) -> None:
    probs, given, _ = make(26, n=N, n_classes=5, dtype=np.float32)
    bad = np.array([0, 57, 58, 200, N - 1])
    damaged = probs.copy()
    damaged[bad] = np.nan
    out = run(tmp_path, table_of(damaged, given), even(N, 3))
    kept = np.setdiff1d(np.arange(N), bad)
    assert sidecar(out)["item_id"].to_pylist() == [f"item-{i:05d}" for i in kept]
    wanted = cleanlab_flags(probs[kept], given[kept], "prune_by_noise_rate")
    assert np.array_equal(flags(out), wanted)


def test_ranks__do_not_depend_on_the_parts_in_which_they_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probs, given = saturated()
    table = table_of(probs, given)
    whole = sidecar(run(tmp_path / "whole", table, even(N, 3)))
    monkeypatch.setattr(pipelines.selection.ranking, "RANK_ITEMS", 50)
    out = run(tmp_path / "parts", table, even(N, 3))
    assert is_done(out, "rank-08")
    assert sidecar(out).equals(whole)


@pytest.mark.parametrize("n", [2, 3, 4])
def test_flags__of_hardly_any_items(tmp_path: Path, n: int) -> None:
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.2, 0.8]])[:n]
    given = np.array([0, 1, 0, 1])[:n]
    out = run(tmp_path, table_of(probs, given), [1] * n)
    # Of three, the other class has one item: nobody is counted into it.
    assert np.array_equal(flags(out), [False, False, n == 4, False][:n])
    assert n == 3 or np.array_equal(flags(out), cleanlab_flags(probs, given, "prune_by_noise_rate"))


def test_scratch__is_gone_when_the_stage_is_finished(tmp_path: Path) -> None:
    probs, given, _ = make(27, n=60)
    out = run(tmp_path, table_of(probs, given), [30, 30])
    leaves = {path.name for path in (out / "confident").iterdir()} - {"_manifest.json"}
    assert leaves == {"_results", "part-00000.parquet", "part-00001.parquet"}
