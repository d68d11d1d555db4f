"""Oracles: planted truth, the limits by sorting the whole table, and the arrays' own functions."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.core.reader
import pipelines.run
import tests.fake_confident
from pipelines.core.state import Run, load_run
from pipelines.decisions.ledger import derive
from pipelines.errors import LabelopsError
from pipelines.labels.beliefs import OPINIONS
from pipelines.recipe import parse_recipe
from pipelines.registry import STAGES
from pipelines.stages.decide import allowance
from tests.datasets import even, vectors, write_shards

N, K = 400, 4
COLUMNS = ["item_id", "decision", "label_clean", "reason", "confidence", "weight"]
COLUMNS += ["topk_ids", "topk_probs", "tail_prob"]


@pytest.fixture(autouse=True)
def _fake_confident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "confident", "tests.fake_confident:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")


def planted(
    seed: int = 0, *, sharp: float = 3.0, names: bool = True
) -> tuple[pa.Table, np.ndarray]:
    """Return items with predictions and 20 % wrong labels, and their true classes."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K, N)
    given = np.where(rng.random(N) < 0.2, (true + rng.integers(1, K, N)) % K, true)
    logits = rng.normal(0, 1, (N, K))
    logits[np.arange(N), true] += sharp
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # Ties: many items with the very same prediction.
    probs[: N // 4] = 0.04 / (K - 1)
    probs[np.arange(N // 4), true[: N // 4]] = 0.96
    label = pa.array([f"class {c}" for c in given]) if names else pa.array(given, pa.int16())
    data = {
        "item_id": [f"i{i}" for i in range(N)],
        "label": label,
        "pred_probs": vectors(probs.astype(np.float32)),
        "features": vectors(rng.normal(size=(N, 5)).astype(np.float32)),
    }
    return pa.table(data), true


def audit(folder: Path, data: pa.Table, sizes: list[int], settings: str = "") -> Run:
    source = write_shards(folder / "src", data, sizes)
    recipe = 'stages = ["source", "confident", "neighbours", "decide"]\n' + settings
    parsed = parse_recipe(recipe, name="test")
    pipelines.run.run(parsed, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def sidecar(run: Run) -> pa.Table:
    return pa.concat_tables([f.table(COLUMNS) for f in pipelines.core.reader.frames(run, COLUMNS)])


def log_of(folder: Path) -> pa.Table:
    files = sorted((folder / "out" / "decisions").glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files])


def result(run: Run, step: str) -> dict[str, np.ndarray]:
    return run.context("decide", run.layout()).own(step)


def count(table: pa.Table, decision: str) -> int:
    return table["decision"].to_pylist().count(decision)


def test_decide__most_wrong_labels_are_mended_and_hardly_a_right_one_is_changed(
    tmp_path: Path,
) -> None:
    data, true = planted()
    got = sidecar(audit(tmp_path, data, even(N, 3)))
    label = np.array([-1 if v is None else int(v[-1]) for v in got["label_clean"].to_pylist()])
    given = np.array([int(v[-1]) for v in data["label"].to_pylist()])
    kept = label >= 0
    assert (given != true).mean() > 0.15
    assert (label[kept] != true[kept]).mean() < 0.03
    changed = kept & (label != given)
    assert changed.sum() > 20
    assert (given[changed] == true[changed]).mean() < 0.05
    assert got["label_clean"].type == data["label"].type
    decisions = got["decision"].to_pylist()
    assert (label == -1).tolist() == [d in ("drop", "review") for d in decisions]


def test_decide__labels_keep_the_type_of_the_source(tmp_path: Path) -> None:
    data, _ = planted(names=False)
    got = sidecar(audit(tmp_path, data, [N]))
    assert got["label_clean"].type == pa.int16()
    values = set(got["label_clean"].drop_null().to_pylist())
    assert values == {0, 1, 2, 3}


TIGHT = """
[decide]
max_change_share = 0.06
max_drop_share = 0.005
max_review = 7
relabel_confidence = 0.8
drop_confidence = 0.6
"""


@pytest.mark.parametrize("settings", ["", TIGHT])
def test_decide__does_not_depend_on_the_shards(tmp_path: Path, settings: str) -> None:
    data, _ = planted(sharp=2.0)
    whole = audit(tmp_path / "1", data, [N], settings)
    for sizes in (even(N, 2), [0, 1, 200, 0, 150, 49, 0], [20] * 20):
        folder = tmp_path / str(len(sizes))
        run = audit(folder, data, sizes, settings)
        assert sidecar(run).equals(sidecar(whole))
        assert log_of(folder).drop_columns("run").equals(log_of(tmp_path / "1").drop_columns("run"))
        for step in ("temperature", "gate", "outcome"):
            mine, theirs = result(run, step), result(whole, step)
            assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)


def test_limits__the_surest_come_first_exactly_up_to_the_limit(tmp_path: Path) -> None:
    data, _ = planted(sharp=2.0)
    free = "[decide]\nrelabel_confidence = 0.8\nmax_change_share = 1.0\nmax_review = 0\n"
    everything = sidecar(audit(tmp_path / "free", data, even(N, 3), free))
    proposed = np.flatnonzero(np.array(everything["decision"].to_pylist()) == "relabel")
    run = audit(tmp_path / "tight", data, even(N, 3), TIGHT)
    got = sidecar(run)
    shipped = np.flatnonzero(np.array(got["decision"].to_pylist()) == "relabel")
    assert len(shipped) == int(0.06 * N) < len(proposed)
    hashes = np.concatenate(
        [f.array("item_hash") for f in pipelines.core.reader.frames(run, ["item_hash"])]
    )
    # Doubt is compared in single precision, as it is stored.
    doubt = (1 - everything["confidence"].to_numpy().astype(np.float64)).astype(np.float32)
    order = sorted(proposed.tolist(), key=lambda i: (doubt[i], hashes[i]))
    assert sorted(order[: len(shipped)]) == shipped.tolist()
    assert len({doubt[i] for i in order[: len(shipped)]}) < len(shipped), "there are ties"
    assert count(got, "review") == 7
    assert count(got, "drop") <= int(0.005 * N)
    assert result(run, "outcome")["done"].sum() == N


def test_limits__beyond_the_budget_items_are_kept_with_less_weight(tmp_path: Path) -> None:
    data, _ = planted(sharp=1.0)
    settings = '[decide]\nlabel_issue = "review"\nmax_review = 11\n'
    got = sidecar(audit(tmp_path, data, even(N, 2), settings))
    assert count(got, "review") == 11
    reasons = got["reason"].to_pylist()
    softened = [i for i, r in enumerate(reasons) if "lower weight" in r]
    assert len(softened) > 20
    for i in softened:
        assert got["decision"][i].as_py() == "keep"
        assert got["label_clean"][i] == data["label"][i]
        assert got["weight"][i].as_py() <= got["confidence"][i].as_py() < 1
        assert reasons[i] == (
            "label issue; not reviewed: max_review is reached; label kept with a lower weight"
        )
    # Those most probably wrong are looked at.
    confidence = got["confidence"].to_numpy()
    reviewed = [i for i, d in enumerate(got["decision"].to_pylist()) if d == "review"]
    assert confidence[reviewed].max() <= confidence[softened].min()


def test_class_size__a_class_at_its_minimum_loses_nothing(tmp_path: Path) -> None:
    data, _ = planted()
    given = np.array(data["label"].to_pylist())
    smallest = min(set(given.tolist()), key=lambda c: (given == c).sum())
    settings = f"[decide]\nmin_class_size = {(given == smallest).sum()}\nmax_review = 0\n"
    got = sidecar(audit(tmp_path, data, even(N, 2), settings))
    decisions = np.array(got["decision"].to_pylist())
    assert set(decisions[given == smallest]) == {"keep"}
    assert any("its class would become too small" in r for r in got["reason"].to_pylist())


def test_reviewed__people_have_the_last_word_and_measure_the_gate(tmp_path: Path) -> None:
    data, _ = planted()
    blind = sidecar(audit(tmp_path / "blind", data, even(N, 2)))
    changed = np.flatnonzero(np.array(blind["decision"].to_pylist()) == "relabel")
    # Reviewers find that every change was wrong: the given label was right.
    seen = changed[: len(changed) * 3 // 4]
    said = data.take(seen).select(["item_id", "label"]).rename_columns(["item_id", "true_label"])
    pq.write_table(said, tmp_path / "reviewed.parquet")
    settings = f'[decide]\nreviewed = "{tmp_path / "reviewed.parquet"}"\n'
    run = audit(tmp_path / "seen", data, even(N, 2), settings)
    got = sidecar(run)
    assert {got["decision"][i].as_py() for i in seen.tolist()} == {"keep"}
    assert {got["confidence"][i].as_py() for i in seen.tolist()} == {1.0}
    gate = result(run, "gate")
    measured = gate["changes_labels"] & (gate["reviewed"] > 5)
    assert measured.any()
    assert not gate["ships"][measured].any()
    assert (gate["broken"][measured] == gate["reviewed"][measured]).all()
    rest = np.setdiff1d(changed, seen)
    held = [r for r in got.take(rest)["reason"].to_pylist() if "the gain of this rule" in r]
    assert held
    log = log_of(tmp_path / "seen")
    actors = dict(zip(log["item_id"].to_pylist(), log["actor"].to_pylist(), strict=True))
    assert {actors[f"i{i}"] for i in seen.tolist()} == {"reviewer"}


def test_gate__measured_ships_nothing_before_anybody_looked(tmp_path: Path) -> None:
    data, _ = planted()
    run = audit(tmp_path, data, even(N, 2), '[decide]\ngate = "measured"\n')
    assert count(sidecar(run), "relabel") == 0
    verdicts = result(run, "outcome")["verdict"]
    assert any(str(v).endswith("held back until items are reviewed") for v in verdicts)


def test_gate__expected_fixed_and_broken_are_the_sums_of_beliefs(tmp_path: Path) -> None:
    data, true = planted()
    run = audit(tmp_path, data, even(N, 3))
    got, outcome = sidecar(run), result(run, "outcome")
    changed = np.flatnonzero(np.array(got["decision"].to_pylist()) == "relabel")
    fixed = got["confidence"].to_numpy()[changed].astype(np.float64).sum()
    assert outcome["shipped_expected_fixed"].sum() == pytest.approx(fixed, abs=1e-4)
    assert outcome["shipped"].sum() == len(changed)
    label = np.array([int(got["label_clean"][i].as_py()[-1]) for i in changed.tolist()])
    assert (label == true[changed]).sum() == pytest.approx(fixed, abs=0.1 * len(changed))


def test_log__derives_the_decisions_and_leaving_rows_out_undoes_them(tmp_path: Path) -> None:
    data, _ = planted()
    got = sidecar(audit(tmp_path, data, even(N, 3)))
    log = log_of(tmp_path)
    source = data.select(["item_id", "label"])
    whole = derive(source, log)
    assert whole["decision"].to_pylist() == got["decision"].to_pylist()
    assert whole["label_clean"].to_pylist() == got["label_clean"].to_pylist()

    rules = {rule for rule in log["rule"].to_pylist() if rule.startswith("relabel-")}
    assert rules
    undone = derive(source, log, leave_out_rules=rules)
    assert "relabel" not in undone["decision"].to_pylist()
    one = log.filter(pa.compute.equal(log["action"], "relabel"))["item_id"][0].as_py()
    almost = derive(source, log, leave_out_items=[one])
    differs = [
        i
        for i in range(N)
        if almost["label_clean"][i] != whole["label_clean"][i]
        or almost["decision"][i] != whole["decision"][i]
    ]
    assert [data["item_id"][i].as_py() for i in differs] == [one]


def test_log__the_last_of_several_rows_counts(tmp_path: Path) -> None:
    source = pa.table({"item_id": [1, 2, 3], "label": ["a", "a", "a"]})
    log = pa.table(
        {
            "item_id": [2, 3, 2],
            "label_id": pa.nulls(3, pa.int32()),
            "action": ["drop", "relabel", "keep"],
            "after": pa.array([None, "b", "a"]),
            "rule": ["r", "s", "t"],
        }
    )
    assert derive(source, log)["decision"].to_pylist() == ["keep", "keep", "relabel"]
    undone = derive(source, log, leave_out_rules=["t"])
    assert undone["decision"].to_pylist() == ["keep", "drop", "relabel"]
    assert undone["label_clean"].to_pylist() == ["a", None, "b"]


def test_soft_labels__are_the_top_classes_with_the_given_one(tmp_path: Path) -> None:
    data, _ = planted(sharp=1.0)
    got = sidecar(audit(tmp_path, data, even(N, 2), "[decide]\ntop_k = 2\n"))
    for i in range(0, N, 7):
        ids, probs = got["topk_ids"][i].as_py(), got["topk_probs"][i].as_py()
        assert int(data["label"][i].as_py()[-1]) in ids
        assert len(ids) == len(probs) in (2, 3)
        assert probs == sorted(probs, reverse=True)
        assert sum(probs) + got["tail_prob"][i].as_py() == pytest.approx(1, abs=2e-3)
    assert got["topk_ids"].type == pa.list_(pa.uint16())
    assert got["topk_probs"].type == pa.list_(pa.float16())


@pytest.mark.parametrize(
    ("rows", "want"),
    [
        ({"item_id": ["i1", "i1"], "true_label": ["class 0"] * 2}, "one row per item was expected"),
        ({"item_id": ["i1"], "true_label": ["nothing"]}, "among the 4 classes were expected"),
        ({"item_id": ["i1"], "label": ["class 0"]}, "were expected, got 'item_id', 'label'; at"),
    ],
)
def test_reviewed__bad_tables_are_refused(tmp_path: Path, rows: dict, want: str) -> None:
    data, _ = planted()
    pq.write_table(pa.table(rows), tmp_path / "r.parquet")
    with pytest.raises(LabelopsError) as refused:
        audit(tmp_path, data, [N], f'[decide]\nreviewed = "{tmp_path / "r.parquet"}"\n')
    assert want in str(refused.value)
    assert str(tmp_path / "r.parquet") in str(refused.value)


def test_reviewed__a_csv_table_with_numbers_for_ids_and_labels(tmp_path: Path) -> None:
    data, _ = planted(names=False)
    ids = pa.array(np.arange(N) + 1000)
    data = data.set_column(0, "item_id", ids)
    (tmp_path / "r.csv").write_text("item_id,true_label\n1003,2\n1004,\n")
    got = sidecar(audit(tmp_path, data, [N], f'[decide]\nreviewed = "{tmp_path / "r.csv"}"\n'))
    assert got["label_clean"][3].as_py() == 2
    assert got["confidence"][3].as_py() == 1
    assert "reviewer" in got["reason"][3].as_py()
    assert "reviewer" not in got["reason"][4].as_py()
    assert got["topk_probs"][3].as_py()[0] == 1


@pytest.mark.parametrize(
    ("columns", "stage", "share"),
    [({"given"}, "confident", 0.2), ({OPINIONS}, "confident", 0.15), (set(), "proportions", 0.15)],
)
def test_gate__allows_for_more_where_one_opinion_is_alone(
    columns: set[str], stage: str, share: float
) -> None:
    ctx = SimpleNamespace(columns=frozenset(columns), beliefs_stage=stage)
    assert allowance(ctx)[:2] == (share, share)  # type: ignore[arg-type]


def test_gate__says_that_so_many_more_may_be_broken(tmp_path: Path) -> None:
    run = audit(tmp_path, planted()[0], [N])
    found, n = result(run, "outcome"), count(sidecar(run), "relabel")
    assert n > 20
    # By chance, some more.
    assert 0.2 * n < found["total_broken_high"] - found["total_broken"] < 0.2 * n + 5


def test_limits__no_more_are_changed_than_are_surely_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = count(sidecar(audit(tmp_path / "free", planted()[0], even(N, 2))), "relabel")
    assert free > 20
    whole = tests.fake_confident.surest
    few = {"n_wrong_low": np.array(7.9)}
    monkeypatch.setattr(tests.fake_confident, "surest", lambda *args: whole(*args) | few)
    held = sidecar(audit(tmp_path / "held", planted()[0], even(N, 3)))
    assert count(held, "relabel") == 7
    assert "what the estimate supports, is reached" in "".join(held["reason"].to_pylist())
