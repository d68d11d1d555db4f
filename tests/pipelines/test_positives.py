"""Positive and unlabelled items, from shards to product: planted truth, and what is refused."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.nn.positive_heads import fit_positives, positive_scores
from labelops.partial.posteriors import (
    PositivePool,
    believe_positive,
    fit_posterior,
    pool_positives,
)
from labelops.partial.prior import estimate_prior
from labelops.partial.scores import count_scores
from pipelines.core.state import Run, load_run
from pipelines.decisions.ledger import derive
from pipelines.errors import DataError, RecipeError
from pipelines.recipe import load_recipe
from pipelines.verify import verify_run
from tests.datasets import even, vectors, write_shards

N = 3000


@cache
def made() -> tuple[pa.Table, np.ndarray]:
    """Return items of which a third is positive, and four in ten of these are labelled."""
    rng = np.random.default_rng(0)
    is_positive = rng.random(N) < 1 / 3
    x = rng.normal(np.where(is_positive, 2.5, 0)[:, None] * np.array([1, 0.5, 0]), 1)
    state = np.where(is_positive & (rng.random(N) < 0.4), 1.0, np.nan)
    state[~is_positive & (rng.random(N) < 0.02)] = 0.0
    labels = pa.array([None if np.isnan(s) else bool(s) for s in state])
    ids = [f"i{i:04d}" for i in range(N)]
    features = vectors(x.astype(np.float32))
    return pa.table({"item_id": ids, "features": features, "positive": labels}), is_positive


def run(folder: Path, table: pa.Table, *settings: str, shards: int = 3) -> Run:
    source = write_shards(folder / "src", table, even(table.num_rows, shards))
    pipelines.run.run(load_recipe("pu", settings), data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


@cache
def finished() -> Run:
    return run(Path(mkdtemp(prefix="labelops-test-")), made()[0])


def rows(run: Run, folder: str) -> pa.Table:
    files = sorted((Path(run.uri) / folder).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def of(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table[column].to_pylist())


def test_prior_and_probabilities__are_those_of_arrays() -> None:
    ctx = finished().context("pu", finished().layout())
    found, learned = ctx.own("scores"), ctx.own("learn")
    inferred = rows(finished(), "infer")
    said, fold, x = (of(inferred, name) for name in ("pred_probs", "fold", "embedding"))
    state = made()[0]["positive"].to_pylist()
    labelled, unlabelled = (np.array([s is what for s in state]) for what in (True, None))
    mine = labelled | unlabelled
    coded = np.where(labelled, 1, np.where(unlabelled, -1, 0))
    # Networks are fitted to items in the order of their hashes.
    order = np.argsort(of(rows(finished(), "source"), "item_hash"))
    heads = fit_positives(
        x[order].astype(np.float32),
        coded[order],
        fold[order],
        n_folds=5,
        method="vpu",
        hidden=64,
        seed=ctx.seed("networks"),
    )
    opinions = np.stack([said[:, 1], positive_scores(heads, x.astype(np.float32), fold)])
    pool = PositivePool(learned["weights"], float(learned["bias"]))
    scores = pool_positives(opinions, pool)
    counts = count_scores(scores[mine], labelled[mine])
    expected = estimate_prior(counts, seed=ctx.seed("bootstrap"))
    assert [float(found[n]) for n in ("value", "low", "high")] == list(expected[:3])
    p = of(rows(finished(), "pu"), "p_positive")
    belief = believe_positive(fit_posterior(counts, expected), scores, coded)
    np.testing.assert_allclose(p, belief.p.astype(np.float32), rtol=1e-6)
    assert (p[labelled] == 1).all()
    assert (p[~mine] == 0).all()


def test_planted_truth__is_recovered_and_the_interval_holds_the_share() -> None:
    table, true = made()
    state = table["positive"].to_pylist()
    unlabelled = np.array([s is None for s in state])
    prior = json.loads((Path(finished().uri) / "pu" / "prior.json").read_text())
    share = true[unlabelled].mean()
    assert prior["low"] <= share <= prior["high"]
    assert abs(prior["estimate"] - share) < 0.05
    assert prior["method"] == "dedpul"
    assert prior["random_draw_plausible"]
    decided = rows(finished(), "decide_positives")
    changed = of(decided, "decision") == "relabel"
    assert unlabelled[changed].all()
    assert true[changed].sum() >= 0.9 * changed.sum()
    clean = decided["positive_clean"].to_pylist()
    aside = of(decided, "decision") == "review"
    for i, (before, after) in enumerate(zip(state, clean, strict=True)):
        assert after is (None if aside[i] else True if changed[i] else before)


def test_product__follows_from_the_log_and_has_probabilities() -> None:
    run, (table, _) = finished(), made()
    log = rows(run, "decisions")
    decided = rows(run, "decide_positives")
    again = derive(table.select(["item_id", "positive"]), log)
    assert again["positive_clean"].equals(decided["positive_clean"])
    product = rows(run, "dataset")
    both = pa.concat_tables([product, rows(run, "set_aside")])
    assert sorted(both["item_id"].to_pylist()) == table["item_id"].to_pylist()
    assert {"positive", "positive_clean", "p_positive", "weight"} <= set(product.column_names)
    assert verify_run(run.uri).damage == ()


def test_run_without_a_step__changes_no_byte(tmp_path: Path) -> None:
    again = run(tmp_path, made()[0], shards=7)
    for folder in ("pu", "decide_positives"):
        columns = rows(finished(), folder)
        assert columns.equals(rows(again, folder))
    name = "pu/prior.json"
    assert (Path(again.uri) / name).read_bytes() == (Path(finished().uri) / name).read_bytes()


def test_reviewed_items__are_followed_and_let_others_like_them_pass(tmp_path: Path) -> None:
    table, true = made()
    state = table["positive"].to_pylist()
    p = of(rows(finished(), "pu"), "p_positive")
    likely = [i for i in range(N) if state[i] is None and p[i] >= 0.9]
    asked = [*likely[:150], *(i for i in range(N) if state[i] is None and p[i] < 0.1)][:160]
    answers = {
        "item_id": [f"i{i:04d}" for i in asked],
        "true_label": [str(bool(true[i])).lower() for i in asked],
    }
    pq.write_table(pa.table(answers), tmp_path / "reviewed.parquet")
    found = run(tmp_path, table, f"decide_positives.reviewed={tmp_path / 'reviewed.parquet'}")
    clean = rows(found, "decide_positives")["positive_clean"].to_pylist()
    assert [clean[i] for i in asked] == [bool(true[i]) for i in asked]
    recovered = [i for i in likely[150:] if clean[i]]
    assert len(recovered) > 50
    assert true[recovered].mean() > 0.85


def test_given_prior__is_taken(tmp_path: Path) -> None:
    found = run(tmp_path, made()[0], "pu.prior=0.25")
    prior = json.loads((Path(found.uri) / "pu" / "prior.json").read_text())
    assert (prior["estimate"], prior["low"], prior["high"], prior["method"]) == (
        *[0.25] * 3,
        "given",
    )
    p = of(rows(found, "pu"), "p_positive")
    unlabelled = np.array([s is None for s in made()[0]["positive"].to_pylist()])
    # Scores are counted in bins.
    assert p[unlabelled].mean() == pytest.approx(0.25, abs=1e-3)


def test_labels_of_the_surest__are_said_to_be_no_random_draw_and_nothing_is_recovered(
    tmp_path: Path,
) -> None:
    rng, n = np.random.default_rng(0), 8000
    true = rng.random(n) < 0.5
    x = rng.normal(np.where(true, 2.0, -2.0), 1)
    labelled = true & (rng.random(n) < 0.05 * np.exp(1.5 * (x - 2)))
    score = (1 / (1 + np.exp(-x))).astype(np.float32)
    table = {
        "item_id": [f"i{i:04d}" for i in range(n)],
        "positive": [True if one else None for one in labelled],
        "pred_probs": vectors(np.stack([1 - score, score], axis=1)),
    }
    found = run(tmp_path, pa.table(table))
    prior = json.loads((Path(found.uri) / "pu" / "prior.json").read_text())
    assert prior["random_draw_plausible"] is False
    decided = rows(found, "decide_positives")
    assert "relabel" not in decided["decision"].to_pylist()
    assert "labelled positives are no random draw" in " ".join(set(decided["reason"].to_pylist()))
    page = (Path(found.uri) / "report.html").read_text()
    assert "may be no random draw of all positives" in page


def test_reviews_that_contradict_a_rule__hold_it_back(tmp_path: Path) -> None:
    table, _ = made()
    state = table["positive"].to_pylist()
    p = of(rows(finished(), "pu"), "p_positive")
    likely = [i for i in range(N) if state[i] is None and p[i] >= 0.9]
    labelled = [i for i in range(N) if state[i]][:3]
    said = {i: k % 10 < 3 for k, i in enumerate(likely[:150])} | dict.fromkeys(labelled, False)
    # As people and programs write it.
    words = {True: ("True", "true", "1"), False: ("False", "false", "0")}
    lines = [f"i{i:04d},{words[answer][i % 3]}" for i, answer in said.items()]
    path = tmp_path / "reviewed.csv"
    path.write_text("\n".join(["item_id,true_label", *lines]))
    found = run(tmp_path, table, f"decide_positives.reviewed={path}")
    outcome = found.context("decide_positives", found.layout()).own("outcome")
    at = outcome["rules"].tolist().index("recover-unsure")
    assert outcome["broken"][at] > 2 * outcome["fixed"][at] > 0
    assert not outcome["ships"][at]
    decided = rows(found, "decide_positives").to_pylist()
    clean = [row["positive_clean"] for row in decided]
    changed = [i for i in range(N) if clean[i] is not None and clean[i] != state[i]]
    assert {decided[i]["rule"] for i in set(changed) - set(said)}.isdisjoint({"recover-unsure"})
    # Reviewers have the last word of items that had a label, too.
    assert [clean[i] for i in labelled] == [False] * 3


def test_labelled_items_that_all_are_quarantined__stop_the_run(tmp_path: Path) -> None:
    table, true = made()
    features = np.array(table["features"].to_pylist())
    state = [True if one else None for one in true]
    features[true] = np.nan
    bad = table.drop_columns(["positive", "features"])
    bad = bad.append_column("features", vectors(features.astype(np.float32)))
    with pytest.raises(DataError, match="no labelled positive one is left of 3,000 items"):
        run(tmp_path, bad.append_column("positive", pa.array(state)), "data.max_bad_share=0.9")


def refused(tmp_path: Path, labels: pa.Array, *settings: str) -> str:
    table = made()[0].slice(0, len(labels)).drop_columns(["positive"])
    with pytest.raises((DataError, RecipeError)) as caught:
        run(tmp_path, table.append_column("positive", labels), *settings)
    return str(caught.value)


def test_what_is_refused(tmp_path: Path) -> None:
    nothing = pa.array([None] * 100, pa.bool_())
    said = refused(tmp_path / "a", nothing)
    assert "'positive' is true nowhere (0 false, 100 null)" in said
    said = refused(tmp_path / "b", pa.array([True, False] * 50))
    assert "'positive' is null nowhere (50 true, 50 false)" in said
    assert "write null" in said
    said = refused(tmp_path / "c", pa.array([["a"]] * 100))
    assert "must hold true, false (known not to be positive) or null" in said
    some = pa.array([True, None] * 50)
    said = refused(tmp_path / "d", some, "data.classes=['a', 'b', 'c']")
    assert "must name two classes" in said


def test_other_numbers__are_quarantined(tmp_path: Path) -> None:
    state = np.where(made()[1], 1.0, np.nan)
    state[5], state[6] = 3, 0.5
    table = made()[0].drop_columns(["positive"]).append_column("positive", pa.array(state))
    found = run(tmp_path, table)
    entries = pq.read_table(Path(found.uri) / "quarantine").to_pylist()
    reasons = {entry["item_id"]: entry["reason"] for entry in entries}
    assert reasons.keys() == {"i0005", "i0006"}
    assert "positive is 0.5, neither true, false nor null" in reasons["i0006"]
