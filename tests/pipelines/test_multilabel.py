"""Oracles: the same in memory (`find_label_issues`), and cleanlab, over shards."""

from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
import pipelines.selection.cells
from labelops.confident import selection
from labelops.confident.filters import Filter
from labelops.hashing import hash_strings
from labelops.multilabel.beliefs import Features, Learned, p_label_error
from labelops.multilabel.cells import Cells
from labelops.multilabel.cooccurrence import evidence, summarize
from labelops.multilabel.issues import find_label_issues
from labelops.multilabel.labels import UNKNOWN, LabelSets, from_states
from labelops.multilabel.opinion import model_log_odds
from labelops.multilabel.scores import row_scores
from pipelines.core.state import Run, load_run
from pipelines.errors import DataError
from pipelines.recipe import parse_recipe
from tests.datasets import even, vectors, write_shards

N, K = 90, 6
STAGES = 'stages = ["source", "infer", "multilabel"]\n[data]\nabsent_classes = "allow"\n'


def run(data: Path, out: Path, recipe: str = STAGES, *overrides: str) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        parsed = parse_recipe(recipe, name="test", overrides=overrides)
        pipelines.run.run(parsed, data=str(data), out=str(out))
    return load_run(str(out))


def made(seed: int = 0, *, unknown: bool = False, dtype: str = "f4") -> tuple[np.ndarray, ...]:
    """Return probabilities with ties, exact 0 and 1, and states; one class nobody has, one all."""
    rng = np.random.default_rng([seed, 9])
    table = (rng.random((N, K)) < 0.35).astype(np.int8)
    logits = rng.normal(0, 1.5, (N, K)) + 2 * table - 1
    probs = (1 / (1 + np.exp(-logits))).astype(dtype)
    probs[:10], probs[10:14], probs[14:20] = 0.75, 0.5, np.round(probs[14:20])
    table[:, 4], table[:, 5] = 0, 1
    if unknown:
        table[rng.random((N, K)) < 0.3] = UNKNOWN
    return probs, table


def source(probs: np.ndarray, table: np.ndarray) -> pa.Table:
    columns: dict[str, object] = {
        "item_id": [f"i{i}" for i in range(len(probs))],
        "labels": pa.array([np.flatnonzero(r == 1).tolist() for r in table], pa.list_(pa.int64())),
        "pred_probs": vectors(probs),
    }
    if (table == UNKNOWN).any():
        columns["labels_negative"] = pa.array(
            [np.flatnonzero(r == 0).tolist() for r in table], pa.list_(pa.int64())
        )
    return pa.table(columns)


def write(tmp_path: Path, probs: np.ndarray, table: np.ndarray, shards: int = 3) -> Path:
    return write_shards(tmp_path / "src", source(probs, table), even(len(probs), shards))


def sidecar(found: Run) -> pa.Table:
    paths = sorted((Path(found.uri) / "multilabel").glob("*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in paths)


def flags_of(table: pa.Table) -> np.ndarray:
    """Return 1 where a class is flagged as missing, 2 where as wrong."""
    flags = np.zeros((table.num_rows, K), int)
    for code, kind in ((1, "missing"), (2, "wrong")):
        lists = table[f"{kind}_ids"].to_pylist(), table[f"is_{kind}"].to_pylist()
        for row, (ids, flagged) in enumerate(zip(*lists, strict=True)):
            flags[row, [k for k, is_flagged in zip(ids, flagged, strict=True) if is_flagged]] = code
    return flags


def hashes() -> np.ndarray:
    return hash_strings([f"i{i}" for i in range(N)])


def in_memory(probs: np.ndarray, labels: LabelSets, filter_by: Filter) -> np.ndarray:
    cells, _ = find_label_issues(probs, labels, filter_by=filter_by, item_hash=hashes())
    flags = np.zeros(probs.shape, int)
    flags[cells.row, cells.class_id] = np.where(cells.is_given, 2, 1)
    return flags


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("filter_by", get_args(Filter))
def test_flags__are_those_found_in_memory(tmp_path: Path, filter_by: Filter, unknown: bool) -> None:
    probs, table = made(unknown=unknown)
    data = write(tmp_path, probs, table)
    found = run(data, tmp_path / "out", STAGES, f"multilabel.filter_by={filter_by}")
    expected = in_memory(probs, from_states(table), filter_by)
    assert np.array_equal(flags_of(sidecar(found)), expected)
    assert expected.any() or filter_by == "confident_learning"


@pytest.mark.filterwarnings("ignore:May not flag all label issues")
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("filter_by", ["prune_by_noise_rate", "confident_learning"])
def test_flags__are_those_of_cleanlab(tmp_path: Path, filter_by: str, seed: int) -> None:
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    probs, table = made(seed, dtype="f8")
    # cleanlab has no order for ties, and refuses a class that everybody has.
    probs[:20] = np.random.default_rng(seed).random((20, K))
    table[:, 5] = np.arange(N) % 2
    lists = [np.flatnonzero(row).tolist() for row in table]
    theirs = find_multilabel_issues_per_class(lists, probs, filter_by=filter_by, n_jobs=1)
    data = write(tmp_path, probs, table)
    found = run(data, tmp_path / "out", STAGES, f"multilabel.filter_by={filter_by}")
    assert np.array_equal(flags_of(sidecar(found)) > 0, theirs)


@pytest.mark.parametrize("collect", [0, 3])
def test_flags__do_not_depend_on_how_cuts_are_found(tmp_path: Path, collect: int) -> None:
    """With next to nothing collected, every pass that narrows is taken."""
    probs, table = made()
    data = write(tmp_path, probs, table)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.selection.cells, "COLLECT", collect)
        patch.setattr(selection, "CELLS", 64)
        found = run(data, tmp_path / "out")
        results = {p.name for p in (Path(found.uri) / "multilabel" / "_results").iterdir()}
        assert "cuts-02.npz" in results
        assert np.array_equal(
            flags_of(sidecar(found)), in_memory(probs, from_states(table), "prune_by_noise_rate")
        )


@pytest.mark.parametrize("score", ["ema", "softmin"])
@pytest.mark.parametrize("unknown", [False, True])
def test_scores_and_ranks__are_those_of_the_formula(
    tmp_path: Path, score: str, unknown: bool
) -> None:
    probs, table = made(unknown=unknown)
    data = write(tmp_path, probs, table)
    rows = sidecar(run(data, tmp_path / "out", STAGES, f"multilabel.score={score}"))
    expected = row_scores(probs, from_states(table), score=score).astype(np.float32)  # type: ignore[arg-type]
    np.testing.assert_allclose(rows["label_score"].to_numpy(), expected, rtol=1e-6)
    is_issue = rows["is_label_issue"].to_numpy(zero_copy_only=False)
    assert np.array_equal(is_issue, flags_of(rows).any(axis=1))
    rank = np.array(rows["rank"].to_pylist(), object)
    assert all(r is None for r in rank[~is_issue])
    order = np.lexsort((hashes()[is_issue], rows["label_score"].to_numpy()[is_issue]))
    assert rank[is_issue][order].tolist() == list(range(1, is_issue.sum() + 1))


def test_lists__are_ordered_by_score_and_scores_are_probabilities(tmp_path: Path) -> None:
    probs, table = made()
    rows = sidecar(run(write(tmp_path, probs, table), tmp_path / "out"))
    for kind in ("missing", "wrong"):
        lists = zip(rows[f"{kind}_ids"].to_pylist(), rows[f"{kind}_probs"].to_pylist(), strict=True)
        for ids, scores in lists:
            keys = [(-score, class_id) for class_id, score in zip(ids, scores, strict=True)]
            assert keys == sorted(keys)
            assert all(0 <= score <= 1 for score in scores)
    assert rows.schema.field("missing_ids").type == pa.list_(pa.uint16())
    assert rows.schema.field("wrong_probs").type == pa.list_(pa.float32())


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("floor", [0.001, 0.2, 1.0])
def test_lists__hold_every_class_from_a_floor_on_and_what_is_flagged(
    tmp_path: Path, floor: float, unknown: bool
) -> None:
    """Oracle: every cell asked, in memory."""
    probs, table = made(unknown=unknown)
    data = write(tmp_path, probs, table)
    found = run(data, tmp_path / "out", STAGES, f"multilabel.list_from={floor}")
    labels, rows = from_states(table), sidecar(found)
    row, class_id = np.nonzero(table != UNKNOWN)
    cells = Cells(row, class_id, table[row, class_id] == 1, probs[row, class_id])
    _, heard = evidence(cells, labels, summarize(labels))
    learned = Learned.of(found.context("multilabel", found.layout()).own("beliefs"))
    features = Features(class_id, cells.is_given, model_log_odds(cells.p), heard)
    p = p_label_error(features, learned)
    expected = np.zeros(table.shape)
    expected[row, class_id] = np.where(p >= floor, p, 0)
    flags = flags_of(rows)
    dense = np.zeros(table.shape)
    dense[row, class_id] = p
    expected = np.where(flags > 0, dense, expected)
    listed = np.zeros(table.shape)
    for kind, state in (("missing", 0), ("wrong", 1)):
        names = "ids", "names", "probs"
        for i, (ids, said, each) in enumerate(
            zip(*(rows[f"{kind}_{name}"].to_pylist() for name in names), strict=True)
        ):
            listed[i, ids] = each
            assert said == [str(k) for k in ids]
            assert (table[i, ids] == state).all()
    np.testing.assert_allclose(listed, expected, rtol=1e-6)
    assert (listed > 0).sum() > (flags > 0).sum() or floor > 0.001


def test_estimates__are_those_found_in_memory_with_intervals_around_the_rates(
    tmp_path: Path,
) -> None:
    probs, table = made(unknown=True)
    found = run(write(tmp_path, probs, table), tmp_path / "out")
    result = found.context("multilabel", found.layout()).own("estimates")
    _, expected = find_label_issues(probs, from_states(table), item_hash=hashes())
    for name, values in expected._asdict().items():
        assert np.array_equal(result[name], values, equal_nan=True), name
    counts = result["joint_counts"]
    for state, kind in enumerate(("missing", "wrong")):
        share = counts[:, state, 1 - state] / np.maximum(counts[:, state].sum(axis=1), 1)
        assert (result[f"{kind}_rate_low"] <= share).all()
        assert (share <= result[f"{kind}_rate_high"]).all()


def test_only_three_states__unknown_cells_are_never_flagged(tmp_path: Path) -> None:
    probs, table = made(unknown=True)
    rows = sidecar(run(write(tmp_path, probs, table), tmp_path / "out"))
    assert not flags_of(rows)[table == UNKNOWN].any()


def test_nothing_ruled_out__nothing_is_missing(tmp_path: Path) -> None:
    probs, table = made()
    recipe = STAGES + 'absent_labels = "unknown"\n'
    rows = sidecar(run(write(tmp_path, probs, table), tmp_path / "out", recipe))
    assert not (flags_of(rows) == 1).any()


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_half_and_double_precision__are_read_as_they_are(tmp_path: Path, dtype: str) -> None:
    probs, table = made(dtype=dtype)
    rows = sidecar(run(write(tmp_path, probs, table), tmp_path / "out"))
    widened = probs.astype("f4") if dtype == "f2" else probs
    expected = in_memory(widened, from_states(table), "prune_by_noise_rate")
    assert np.array_equal(flags_of(rows), expected)


def test_one_item_and_one_class__are_legal(tmp_path: Path) -> None:
    probs, table = np.array([[0.2]], "f4"), np.array([[1]], np.int8)
    rows = sidecar(run(write(tmp_path, probs, table, 1), tmp_path / "out"))
    assert rows["is_label_issue"].to_pylist() == [False]
    np.testing.assert_allclose(rows["label_score"].to_pylist(), [0.2], rtol=1e-6)


def test_settings_for_other_filters__are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        Exception,
        match="apply to prune_by_noise_rate, prune_by_class and both only, not to confident",
    ):
        parse_recipe(
            STAGES,
            name="x",
            overrides=["multilabel.filter_by=confident_learning", "multilabel.frac_noise=0.5"],
        )


def test_single_labels__lead_to_a_message_that_names_the_column(tmp_path: Path) -> None:
    table = pa.table({"label": ["a", "b"] * 5, "pred_probs": vectors(np.full((10, 2), 0.5, "f4"))})
    data = write_shards(tmp_path / "src", table, [10])
    with pytest.raises(DataError, match=r"a column 'labels' \(lists of classes\) was expected"):
        run(data, tmp_path / "out")
