"""Candidate sets from shards to product. Oracles: planted truth, and what is written in words."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.opinions.pool import pool
from labelops.partial.candidates import candidate_beliefs
from pipelines.core.results import load_result
from pipelines.core.state import Run, load_run
from pipelines.decisions.ledger import derive
from pipelines.errors import DataError
from pipelines.labels.candidates import sole
from pipelines.recipe import load_recipe
from tests.datasets import even, vectors, write_shards

N, K, WRONG = 900, 5, 0.08
CLASSES = [f"class {k}" for k in range(K)]


def planted(kind: str = "text") -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """Return items with features, their true classes, and which sets lack them."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, K, N)
    features = (3 * np.eye(K)[true] + rng.normal(0, 1, (N, K))).astype(np.float32)
    is_candidate = rng.random((N, K)) < 0.3
    is_candidate[np.arange(N), true] = True
    lacks = rng.random(N) < WRONG
    is_candidate[lacks, true[lacks]] = False
    is_candidate[lacks, (true[lacks] + rng.integers(1, K, lacks.sum())) % K] = True
    lists = [np.flatnonzero(row) for row in is_candidate]
    if kind == "text":
        column = pa.array([[CLASSES[k] for k in row] for row in lists])
    else:
        column = pa.array([(10 * row).tolist() for row in lists], pa.list_(pa.int64()))
    items = {"item_id": np.arange(N), "features": vectors(features), "candidates": column}
    return pa.table(items), true, lacks


def run(folder: Path, items: pa.Table, *settings: str, n_shards: int = 3) -> Run:
    data = write_shards(folder / "src", items, even(len(items), n_shards))
    recipe = load_recipe("partial", list(settings))
    pipelines.run.run(recipe, data=str(data), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def read(run: Run, *folders: str) -> pa.Table:
    paths = [path for name in folders for path in sorted((Path(run.uri) / name).glob("*.parquet"))]
    return pa.concat_tables(pq.read_table(path) for path in paths)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run(tmp_path_factory.mktemp("partial"), planted()[0], "decide_candidates.max_review=40")


def test_product__has_the_true_class_as_often_as_is_promised(whole: Run) -> None:
    _, true, _ = planted()
    product = read(whole, "dataset")
    chosen = product.filter(pa.compute.equal(product["decision"], "relabel"))
    named = np.array(CLASSES)[true[chosen["item_id"].to_numpy()]]
    right = np.array(chosen["label_clean"].to_pylist()) == named
    promised = chosen["confidence"].to_numpy()
    assert len(right) > 0.3 * N
    assert right.mean() > 0.93
    assert promised.mean() == pytest.approx(right.mean(), abs=0.04)
    assert promised.min() >= np.float32(0.9)
    assert product["label_clean"].null_count == 0


def test_sets_without_the_true_class__are_counted_and_looked_at_first(whole: Run) -> None:
    _, _, lacks = planted()
    found = load_result(whole.store, "partial", "fit")
    assert 0 < float(found["wrong"]) < WRONG + 0.02
    unbelieved = read(whole, "partial").sort_by("item_id")["is_unbelieved"].to_numpy()
    assert unbelieved[lacks].mean() > 0.7
    assert unbelieved[~lacks].mean() < 0.05
    aside = read(whole, "set_aside")
    reasons = aside["reason"].to_pylist()
    assert any(r.startswith("none of its candidates is believed; set aside") for r in reasons)
    waits = np.array([word == "review" for word in aside["decision"].to_pylist()])
    assert waits.sum() == 40
    assert lacks[aside["item_id"].to_numpy()[waits]].mean() > 0.6
    assert set(aside["decision"].to_pylist()) == {"review", "unresolved"}
    assert aside["label_clean"].null_count == len(aside)


def test_beliefs__are_those_of_the_definition_written_down_sparse(whole: Run) -> None:
    beliefs, said = read(whole, "partial"), read(whole, "infer")
    lists = read(whole, "source")["candidate_ids"].to_pylist()
    found = load_result(whole.store, "partial", "fit")
    for i in (0, 7, 333):
        is_candidate = np.zeros((1, K), bool)
        is_candidate[0, lists[i]] = True
        probs = np.array(said["pred_probs"][i].as_py())[None]
        belief, none = candidate_beliefs(
            pool(probs[None], found["weights"]),
            is_candidate,
            wrong=float(found["wrong"]),
            power=float(load_result(whole.store, "partial", "rival")["power"]),
        )
        row = {name: beliefs[name][i].as_py() for name in beliefs.column_names}
        assert row["predicted"] == belief[0].argmax()
        assert row["p_predicted"] == pytest.approx(belief.max(), abs=1e-6)
        assert row["p_none"] == pytest.approx(none[0], abs=1e-6)
        np.testing.assert_allclose(row["topk_probs"], belief[0, row["topk_ids"]], atol=1e-3)
        assert sum(row["topk_probs"]) + row["tail_prob"] == pytest.approx(1, abs=3e-3)


def test_soft_labels__are_beliefs_of_candidates_and_certain_where_reviewed(
    whole: Run, tmp_path: Path
) -> None:
    items, true, _ = planted()
    beliefs = {row["item_id"]: row for row in read(whole, "partial").to_pylist()}
    product = read(whole, "dataset", "set_aside").to_pylist()
    for row in product:
        mine = beliefs[row["item_id"]]
        named = dict(zip(row["topk_ids"], row["topk_probs"], strict=True))
        for k, p in zip(mine["topk_ids"], mine["topk_probs"], strict=True):
            assert named[k] == p
        assert sum(named.values()) + row["tail_prob"] == pytest.approx(1, abs=3e-3)
        assert row["tail_prob"] == pytest.approx(mine["p_none"], abs=2e-3)
        if row["label_clean"] is not None:
            assert CLASSES[row["topk_ids"][0]] == row["label_clean"]
    schema = pq.read_schema(next((Path(whole.uri) / "dataset").glob("*.parquet")))
    said = json.loads(schema.metadata[b"labelops.soft_labels"])
    found = load_result(whole.store, "partial", "fit")
    power = load_result(whole.store, "partial", "rival")["power"]
    assert (said["num_classes"], said["k"]) == (K, 5)
    assert said["temperature"] == pytest.approx(1 / (found["weights"][0] * power))
    reviewed = tmp_path / "reviewed.csv"
    rows = [f"{i},{CLASSES[true[i]]}" for i in range(60)]
    reviewed.write_text("\n".join(["item_id,true_label", *rows]))
    again = run(tmp_path, items, f"decide_candidates.reviewed={reviewed}")
    for row in read(again, "dataset", "set_aside").to_pylist():
        if row["item_id"] < 60:
            assert row["topk_probs"][0] == 1
            assert row["topk_ids"][0] == true[row["item_id"]]


def test_single_candidates__are_kept_and_the_log_says_all_else(whole: Run) -> None:
    items, _, _ = planted()
    log = {row["item_id"]: row for row in read(whole, "decisions").to_pylist()}
    derived = derive(items, read(whole, "decisions")).to_pylist()
    product = {row["item_id"]: row for row in read(whole, "dataset", "set_aside").to_pylist()}
    assert len(product) == N
    for row, wanted in zip(items.to_pylist(), derived, strict=True):
        here, entry = product[row["item_id"]], log.get(row["item_id"])
        assert (here["decision"], here["label_clean"]) == (
            wanted["decision"],
            wanted["label_clean"],
        )
        if here["decision"] == "keep":
            assert row["candidates"] == [here["label_clean"]]
        if len(row["candidates"]) > 1:
            assert entry is not None
            assert entry["before"] is None
            assert here["label_clean"] in [None, *row["candidates"]]


def test_reference__says_how_right_beliefs_and_product_are(tmp_path: Path) -> None:
    items, true, lacks = planted()
    reference = tmp_path / "reference.csv"
    known = np.arange(0, N, 2)
    lines = [f"{i},{CLASSES[true[i]]}" for i in known]
    reference.write_text("\n".join(["item_id,true_label", *lines]))
    done = run(tmp_path, items, "infer.heads=['linear']", f"evaluate.reference={reference}")
    found = load_result(done.store, "evaluate", "measures")
    assert found["n_items"] == len(known)
    believed = read(done, "partial").sort_by("item_id")["predicted"].to_numpy()
    said = np.array(read(done, "infer").sort_by("item_id")["pred_probs"].to_pylist())
    clean = read(done, "decide_candidates").sort_by("item_id")["label_clean"].to_pylist()
    assert found["believed_real_accuracy"][0] == pytest.approx((believed == true)[known].mean())
    assert found["real_accuracy"][0] == pytest.approx((said.argmax(axis=1) == true)[known].mean())
    assert found["given_has_truth"][0] == pytest.approx(1 - lacks[known].mean())
    size = np.array([len(row) for row in items["candidates"].to_pylist()])
    # What is set aside is as given until then.
    labels = [
        clean[i] or (items["candidates"][int(i)].as_py()[0] if size[i] == 1 else None)
        for i in known
    ]
    is_right = [label == CLASSES[true[i]] for i, label in zip(known, labels, strict=True) if label]
    assert found["clean_real_accuracy"][0] == pytest.approx(np.mean(is_right))
    assert "with the true class" in (Path(done.uri) / "report.html").read_text().lower()


def test_undone_choice__leaves_no_label_and_no_item_is_trained_on_without(tmp_path: Path) -> None:
    items, _, _ = planted()
    left_out = run(tmp_path, items, "dataset.leave_out_rules=['chosen-0.9', 'chosen-0.99']")
    product = read(left_out, "dataset")
    assert product["label_clean"].null_count == 0
    rules = {"chosen-0.9", "chosen-0.99"}
    derived = derive(items, read(left_out, "decisions"), leave_out_rules=rules).to_pylist()
    both = read(left_out, "dataset", "set_aside").to_pylist()
    wanted = {row["item_id"]: (row["decision"], row["label_clean"]) for row in derived}
    assert {row["item_id"]: (row["decision"], row["label_clean"]) for row in both} == wanted
    reasons = {row["reason"] for row in both if row["decision"] == "unresolved"}
    assert "left out: chosen-0.9" in reasons


def test_numbers__stay_numbers_and_reviewers_have_the_last_word(tmp_path: Path) -> None:
    items, true, _ = planted("numbers")
    reviewed = tmp_path / "reviewed.csv"
    lines = [f"{i},{10 * true[i]}" for i in range(60)]
    reviewed.write_text("\n".join(["item_id,true_label", *lines]))
    done = run(tmp_path, items, f"decide_candidates.reviewed={reviewed}")
    product = read(done, "dataset")
    assert product.schema.field("label_clean").type == pa.int64()
    pairs = (product[name].to_pylist() for name in ("item_id", "label_clean"))
    labels = dict(zip(*pairs, strict=True))
    assert [labels[i] for i in range(60)] == [10 * true[i] for i in range(60)]
    actions = {row["action"] for row in read(done, "decisions").to_pylist()}
    assert actions <= {"relabel", "review", "unresolved", "keep"}


def test_report_and_card__say_what_is_expected_and_warn_of_cc(whole: Run, tmp_path: Path) -> None:
    page, card = ((Path(whole.uri) / name).read_text() for name in ("report.html", "README.md"))
    assert '<section id="candidates"' in page
    assert "Most doubtful choices" in page
    assert "No candidate is believed" in page
    assert "likelihood of whole sets" not in page
    assert "of sets lack the true class." in card
    assert "keep (the only candidate), relabel (one of several was chosen)" in card
    assert re.search(r'class="name given">[^<]+, [^<]+</bdi> <span class="arrow"', page)
    items = planted()[0].slice(0, 200)
    likely = run(tmp_path, items, "infer.candidates=cc", "infer.heads=['linear']")
    page, card = ((Path(likely.uri) / name).read_text() for name in ("report.html", "README.md"))
    assert "likelihood of whole sets" in page
    assert "likelihood of whole sets" in card


def test_class_that_another_takes_over__is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = pa.array([["cat", "dog"]] * 60 + [["cat"], ["bird", "dog"]] * 30)
    probs = rng.dirichlet([60, 3, 30], 120).astype(np.float32)
    items = {"item_id": np.arange(120), "pred_probs": vectors(probs), "candidates": pairs}
    settings = ["data.classes=['cat', 'dog', 'bird']", "data.absent_classes=allow"]
    done = run(tmp_path, pa.table(items), *settings)
    page = (Path(done.uri) / "report.html").read_text()
    assert "1 class hardly ever believed: " in page
    assert "infer.candidates = rc_balanced" in page


def test_ready_probabilities__need_no_heads(tmp_path: Path) -> None:
    items, true, _ = planted()
    probs = np.full((N, K), 0.05, np.float32)
    probs[np.arange(N), true] = 0.8
    items = items.drop_columns(["features"]).append_column("pred_probs", vectors(probs))
    done = run(tmp_path, items)
    predicted = read(done, "partial")["predicted"].to_numpy()
    assert (predicted == true).mean() > 1 - WRONG - 0.03


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (None, "no candidates: candidates is null"),
        ([], "no candidates: candidates is empty"),
        (["class 0", None], "no label: candidates has a null among its labels"),
        (["class 0", "clas 1"], "class out of range: label 'clas 1' is none of the 5 classes"),
    ],
)
def test_sets_that_cannot_be_used__are_quarantined_in_words(
    tmp_path: Path, row: list[str | None] | None, why: str
) -> None:
    items, _, _ = planted()
    lists = items["candidates"].to_pylist()[:120]
    lists[40], items = row, items.slice(0, 120)
    items = items.set_column(2, "candidates", pa.array(lists, pa.list_(pa.string())))
    done = run(tmp_path, items, f"data.classes={CLASSES}", "infer.heads=['nearest']")
    quarantined = read(done, "quarantine").to_pylist()
    assert [(r["item_id"], r["reason"].startswith(why)) for r in quarantined] == [("40", True)]


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (pa.array(["a"] * 20), "must hold lists of integers or strings, got string"),
        (
            pa.array([["a", "b"]] * 20),
            "were expected that leave classes out, all of them have all 2",
        ),
        (pa.array([["a"]] * 20), "at least two classes were expected, got one class only"),
    ],
)
def test_columns_that_say_nothing__are_refused(tmp_path: Path, column: pa.Array, why: str) -> None:
    items = planted()[0].slice(0, 20)
    with pytest.raises(DataError, match=why):
        run(tmp_path, items.set_column(2, "candidates", column))


def test_sole__of_lists_in_any_form() -> None:
    lists = pa.array([None, [3], [3, 3], [3, 4], []], pa.list_(pa.int64()))
    assert sole(lists).to_pylist() == [None, 3, 3, None, None]
    assert sole(lists.slice(1, 2)).to_pylist() == [3, 3]
    assert sole(lists.slice(0, 0)).to_pylist() == []
