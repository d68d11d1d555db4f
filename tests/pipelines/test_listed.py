"""Oracle: the same run on the rows written out. Bad rows are planted and looked up by their ids."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.labels.beliefs
import pipelines.run
import pipelines.selection.pairs
import pipelines.stages.confident
from labelops.confident import selection as sel
from labelops.confident.filters import Filter
from labelops.top_rows import TopRows, fill_tail
from pipelines.core.results import load_result
from pipelines.core.state import load_run
from pipelines.errors import DataError, LabelopsError
from pipelines.inference.listed import read_rows
from pipelines.recipe import parse_recipe
from pipelines.report import collect
from pipelines.storage.source import open_source
from tests.datasets import even, vectors, write_shards
from tests.pipelines.shown import section

N, K = 400, 12
RECIPE = """
stages = ["source", "infer", "confident", "decide", "dataset"]
[data]
absent_classes = "allow"
max_bad_share = 0.5
classes = [{classes}]
"""


def lists(rows: TopRows, kind: pa.DataType, values: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(rows.start, pa.int32()), pa.array(values, kind))


def make_rows(seed: int, dtype: str = "float32") -> tuple[TopRows, np.ndarray, np.ndarray]:
    """Return predictions, what is left for the rest, and labels, wrong in places.

    Lists are most probable first, as users have them, and of several lengths, one empty and one
    whole. Probabilities tie, and some are exactly 0 or 1; given classes are listed or not, and one
    class nobody has.
    """
    rng = np.random.default_rng(seed)
    true = rng.integers(0, K - 1, N)
    ids, values, tails = [], [], []
    for i in range(N):
        m = int(rng.choice([1, 2, 5, K], p=[0.2, 0.3, 0.4, 0.1]))
        others = rng.permutation(np.delete(np.arange(K), true[i]))[: m - 1]
        p = rng.dirichlet(np.r_[rng.uniform(2, 9), np.full(m - 1, 0.7)])
        tail = 0.0 if m == K else rng.choice([0.0, 0.125, rng.uniform(0, 0.4)])
        p = np.eye(m)[0] if i % 17 == 0 else p * (1 - tail)
        tail = 1 - p.sum() if m < K else 0.0
        ids.append(np.r_[true[i], others])
        values.append(p)
        tails.append(tail)
    ids[7], values[7], tails[7] = np.zeros(0, int), np.zeros(0), 1.0
    for i in range(0, N, 13):
        ids[i], values[i], tails[i] = ids[0], values[0], tails[0]
    start = np.append(0, np.cumsum([len(row) for row in ids]))
    kind = np.dtype(dtype)
    tail = np.array(tails).astype(kind)
    flat = np.concatenate(values).astype(kind)
    rows = TopRows(start, np.concatenate(ids), flat, fill_tail(tail, np.diff(start), K, kind), K)
    given = np.where(rng.random(N) < 0.2, (true + 1) % (K - 1), true)
    return rows, tail, given


def tables(seed: int, dtype: str = "float32") -> tuple[pa.Table, pa.Table]:
    """Return the same items with listed predictions, and with whole rows."""
    rows, tail, given = make_rows(seed, dtype)
    kind = pa.from_numpy_dtype(np.dtype(dtype))
    named = {
        "item_id": [f"item-{i:05d}" for i in range(N)],
        "label": [f"c{y:02d}" for y in given],
    }
    listed = {
        "topk_ids": lists(rows, pa.int32(), rows.ids),
        "topk_probs": lists(rows, kind, rows.values),
        "tail_prob": pa.array(tail),
    }
    return pa.table(named | listed), pa.table(named | {"pred_probs": vectors(rows.dense())})


def run(folder: Path, table: pa.Table, sizes: list[int], settings: str = "", **how: Any) -> Path:
    write_shards(folder / "src", table, sizes)
    classes = ", ".join(f'"c{k:02d}"' for k in range(K))
    recipe = parse_recipe(RECIPE.format(classes=classes) + settings, name="test")
    pipelines.run.run(recipe, data=str(folder / "src"), out=str(folder / "out"), **how)
    return folder / "out"


def read(out: Path, stage: str) -> pa.Table:
    parts = sorted((out / stage).glob("part-*"))
    return pa.concat_tables(pq.read_table(path) for path in parts).combine_chunks()


def result(out: Path, stage: str, step: str) -> dict[str, np.ndarray]:
    return load_result(load_run(str(out)).store, stage, step)


@pytest.mark.parametrize(
    ("filter_by", "dtype"), [*((name, "float32") for name in get_args(Filter)), ("both", "float64")]
)
def test_flags_and_scores__have_the_bits_of_whole_rows(
    tmp_path: Path, filter_by: str, dtype: str
) -> None:
    listed, whole = tables(3, dtype)
    settings = f'[confident]\nfilter_by = "{filter_by}"'
    ours = run(tmp_path / "listed", listed, [0, 1, 150, N - 151], settings)
    theirs = run(tmp_path / "whole", whole, even(N, 2), settings)
    assert read(ours, "confident").equals(read(theirs, "confident"))
    assert np.count_nonzero(read(ours, "confident")["is_label_issue"]) > 10
    found, wanted = (result(out, "confident", "estimates") for out in (ours, theirs))
    assert all(np.array_equal(found[name], wanted[name], equal_nan=True) for name in wanted)
    # Calibration is measured on the same sample of whole rows.
    found, wanted = (result(out, "infer", "calibration") for out in (ours, theirs))
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("score", "adjust"),
    [
        ("normalized_margin", False),
        ("confidence_weighted_entropy", False),
        ("self_confidence", True),
        ("normalized_margin", True),
    ],
)
def test_scores__that_need_whole_rows_agree_to_single_precision(
    tmp_path: Path, score: str, adjust: bool
) -> None:
    listed, whole = tables(4)
    settings = f'[confident]\nscore = "{score}"\nadjust_pred_probs = {str(adjust).lower()}'
    found = read(run(tmp_path / "listed", listed, even(N, 3), settings), "confident")
    wanted = read(run(tmp_path / "whole", whole, [N], settings), "confident")
    scores = [np.asarray(table["label_score"]) for table in (found, wanted)]
    assert np.allclose(*scores, rtol=2e-7, atol=0)
    assert found["is_label_issue"].equals(wanted["is_label_issue"])


def test_decisions_product_and_report__are_those_of_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of listed rows there is one way to read them; where whole ones could be read otherwise as
    # well, both ways must agree.
    monkeypatch.setattr(pipelines.labels.beliefs, "TIE", 0.0)
    listed, whole = tables(5)
    outs = [run(tmp_path / str(i), t, even(N, 3)) for i, t in enumerate((listed, whole))]
    found, wanted = (read(out, "decide") for out in outs)
    for name in ("decision", "label_clean", "rule", "reason"):
        assert found[name].equals(wanted[name]), name
    assert len(set(found["decision"].to_pylist())) > 1
    for name in ("confidence", "weight"):
        assert np.allclose(found[name], wanted[name], rtol=0, atol=1e-6), name
    tails = [np.asarray(table["tail_prob"], float) for table in (found, wanted)]
    assert np.allclose(*tails, atol=1e-3)
    pages = [collect(str(out)) for out in outs]
    assert pages[0].ledger == pages[1].ledger
    for name in ("classes", "confusion", "calibration"):
        assert section(pages[0], name) == section(pages[1], name)
    product = read(outs[0], "dataset")
    assert {"previous_topk_ids", "topk_ids", "label_clean"} <= set(product.column_names)


@pytest.mark.parametrize("limits", [{"COLLECT": 0, "CELLS": 1}, {"COLLECT": 20}])
@pytest.mark.parametrize("is_deep", [False, True])
def test_cuts__are_the_same_however_they_are_found(
    tmp_path: Path, limits: dict[str, int], is_deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, whole = tables(6)
    settings = '[confident]\nfilter_by = "both"'
    wanted = read(run(tmp_path / "whole", whole, [N], settings), "confident")
    for name, value in limits.items():
        monkeypatch.setattr(sel, name, value)
    if is_deep:
        for module in (pipelines.selection.pairs, pipelines.stages.confident):
            monkeypatch.setattr(module, "clear_lead", lambda n_classes: -0.2)
    found = read(run(tmp_path / "listed", listed, even(N, 5), settings), "confident")
    assert found.equals(wanted)


FORMS = {
    "int16 and float16": (pa.list_(pa.int16()), pa.list_(pa.float16())),
    "large lists": (pa.large_list(pa.int64()), pa.large_list(pa.float32())),
    "lists of one length": (pa.list_(pa.int32(), 4), pa.list_(pa.float32(), 4)),
    "unsigned": (pa.list_(pa.uint64()), pa.list_(pa.float32())),
    "views": (pa.list_view(pa.int32()), pa.list_view(pa.float32())),
    "whole floats": (pa.list_(pa.float64()), pa.list_(pa.float32())),
}


@pytest.mark.parametrize("kind", [*FORMS, "no tail", "null tail"])
def test_forms__of_the_same_lists_give_the_same_flags(tmp_path: Path, kind: str) -> None:
    rng = np.random.default_rng(8)
    m, given = 4, rng.integers(0, K, N)
    ids = np.argsort(rng.random((N, K)), axis=1)[:, :m]
    ids[:, 0] = np.where((ids == given[:, None]).any(axis=1), ids[:, 0], given)
    # Multiples of 1 / 256 are exact in half precision.
    values = rng.multinomial(240, rng.dirichlet(np.full(m, 0.6)), N) / 256
    tail = np.full(N, 16 / 256)
    id_type, value_type = FORMS.get(kind, (pa.list_(pa.int32()), pa.list_(pa.float32())))
    halves = pa.types.is_float16(value_type.value_type)
    listed = [[np.float16(v) if halves else v for v in row] for row in values.tolist()]
    columns = {
        "item_id": [f"i{i}" for i in range(N)],
        "label": [f"c{y:02d}" for y in given],
        "topk_ids": pa.array(ids.tolist(), id_type),
        "topk_probs": pa.array(listed, value_type),
        "tail_prob": pa.array(tail, pa.float32()),
    }
    if kind == "no tail":
        del columns["tail_prob"]
    if kind == "null tail":
        columns["tail_prob"] = pa.nulls(N, pa.float32())
    found = read(run(tmp_path / "listed", pa.table(columns), even(N, 2)), "confident")
    whole = np.full((N, K), 16 / 256 / (K - m), np.float32)
    np.put_along_axis(whole, ids, values.astype(np.float32), axis=1)
    plain = {"item_id": columns["item_id"], "label": columns["label"]}
    table = pa.table(plain | {"pred_probs": vectors(whole)})
    assert found.equals(read(run(tmp_path / "whole", table, [N]), "confident"))


BAD = [
    (None, [1.0], 0.0, "probabilities missing: topk_ids is null"),
    ([1], None, 0.0, "probabilities missing: topk_probs is null"),
    ([1, 2], [1.0], 0.0, "lists of different lengths: 2 in topk_ids, 1 in topk_probs"),
    ([1, None], [0.5, 0.5], 0.0, "probabilities missing: a list has a null inside"),
    ([1, 2], [0.5, None], 0.5, "probabilities missing: a list has a null inside"),
    ([1, 4], [0.5, 0.5], 0.0, "class out of range: topk_ids has 4, the 4 classes are 0 to 3"),
    ([-1, 2], [0.5, 0.5], 0.0, "class out of range: topk_ids has -1"),
    ([2, 1, 2], [0.5, 0.25, 0.25], 0.0, "class doubled: topk_ids has 2 more than once"),
    ([1, 2], [1.5, -0.5], 0.0, "probabilities negative: class 2 has -0.5"),
    ([1, 2], [0.5, np.nan], 0.5, "probabilities not finite: class 2 has nan"),
    ([1, 2], [np.inf, 0.5], 0.5, "probabilities not finite: class 1 has inf"),
    ([1], [0.5], np.nan, "probabilities not finite: tail_prob is nan"),
    ([1], [1.0], -0.25, "probabilities negative: tail_prob is -0.25"),
    ([1, 2], [0.75, 0.5], 0.0, "probabilities do not sum to 1: they sum to 1.25"),
    ([1, 2], [0.75, 0.5], None, "probabilities do not sum to 1: they sum to 1.25"),
    ([1], [0.5], 0.25, "probabilities do not sum to 1: they sum to 0.75"),
    ([0, 1, 2, 3], [0.25, 0.25, 0.25, 0.0], 0.25, "probabilities do not sum to 1: 0.25 is left"),
    ([0, 1, 2, 3], [0.25, 0.25, 0.25, 0.0], None, "probabilities do not sum to 1: 0.25 is left"),
]
GOOD = [
    ([3, 1], [0.5, 0.25], 0.25),
    ([3, 1], [0.5, 0.25], None),
    ([], [], 1.0),
    ([2], [1.0], 0.0),
    ([2, 0, 1, 3], [0.25, 0.25, 0.5, 0.0], None),
    ([1], [1.0005], None),
    ([1], [1.0], -1e-9),
]


def test_rows__that_cannot_be_used_are_told_why_and_do_not_shift_the_others() -> None:
    every = [*GOOD[:3], *((*row[:2], row[2]) for row in BAD), *GOOD[3:]]
    columns = {
        "topk_ids": pa.array([row[0] for row in every], pa.list_(pa.int64())),
        "topk_probs": pa.array([row[1] for row in every], pa.list_(pa.float64())),
        "tail_prob": pa.array([row[2] for row in every], pa.float64()),
    }
    rows, bad = read_rows(columns, n_classes=4, dtype=np.dtype(float), tolerance=1e-3)
    assert sorted(bad) == list(range(3, 3 + len(BAD)))
    for place, (*_, reason) in enumerate(BAD):
        assert bad[3 + place].startswith(reason), bad[3 + place]
    wanted = [
        [0.125, 0.25, 0.125, 0.5],
        [0.125, 0.25, 0.125, 0.5],
        [0.25] * 4,
        [0.0, 0.0, 1.0, 0.0],
        [0.25, 0.5, 0.25, 0.0],
        [0.0, 1.0005, 0.0, 0.0],
        [0.0, 1.0, 0.0, 0.0],
    ]
    assert rows.dense().tolist() == wanted


def test_rows__that_cannot_be_used_go_to_quarantine(tmp_path: Path) -> None:
    listed, _ = tables(9)
    probs = listed["topk_probs"].to_pylist()
    bad = [0, 57, 58, N - 1]
    for row in bad:
        probs[row] = [9.0] * len(probs[row])
    damaged = listed.set_column(3, "topk_probs", pa.array(probs, pa.list_(pa.float32())))
    out = run(tmp_path / "bad", damaged, even(N, 3))
    kept = np.setdiff1d(np.arange(N), bad)
    whole = run(tmp_path / "good", listed.take(kept), [len(kept)])
    assert read(out, "confident").equals(read(whole, "confident"))
    quarantined = pq.read_table(out / "quarantine")
    assert sorted(quarantined["item_id"].to_pylist()) == [f"item-{i:05d}" for i in bad]
    assert all("do not sum to 1" in reason for reason in quarantined["reason"].to_pylist())


def test_prediction__in_the_rest_is_said(tmp_path: Path) -> None:
    listed, _ = tables(10)
    probs, tails = listed["topk_probs"].to_pylist(), listed["tail_prob"].to_pylist()
    ids = listed["topk_ids"].to_pylist()
    lonely = [5, 6]
    for row in lonely:
        ids[row], probs[row], tails[row] = [3], [0.01], 0.99
    table = listed.set_column(2, "topk_ids", pa.array(ids, pa.list_(pa.int32())))
    table = table.set_column(3, "topk_probs", pa.array(probs, pa.list_(pa.float32())))
    table = table.set_column(4, "tail_prob", pa.array(tails, pa.float32()))
    out = run(tmp_path, table, even(N, 2))
    predicted = read(out, "confident")["predicted"].to_pylist()
    assert [predicted[row] for row in lonely] == [0, 0]
    # The empty list is one of them, too.
    found = result(out, "infer", "listed")
    assert found["n_tail"] == len(lonely) + 1
    [said] = found["notices"].tolist()
    assert said.startswith("Of 3 items no class in topk_ids is as probable as each of the others")


def test_classes__that_come_from_the_labels_are_said_to(tmp_path: Path) -> None:
    listed, _ = tables(11)
    keep = [i for i, ids in enumerate(listed["topk_ids"].to_pylist()) if K - 1 not in ids]
    write_shards(tmp_path / "src", listed.take(keep), [len(keep)])
    recipe = parse_recipe('stages = ["source", "infer", "confident"]', name="test")
    pipelines.run.run(recipe, data=str(tmp_path / "src"), out=str(tmp_path / "out"))
    said = result(tmp_path / "out", "infer", "listed")["notices"].tolist()
    assert any("were taken to count the 11 labels of the data in their order" in s for s in said)


def test_numbers__that_are_not_counted_from_0_need_names(tmp_path: Path) -> None:
    listed, _ = tables(12)
    numbers = pa.array([2 * int(name[1:]) for name in listed["label"].to_pylist()])
    write_shards(tmp_path / "src", listed.set_column(1, "label", numbers), [N])
    recipe = parse_recipe('stages = ["source", "infer", "confident"]', name="test")
    with pytest.raises(DataError, match="labels are the numbers 0, 2, 4, 6, 8, …; which class is"):
        pipelines.run.run(recipe, data=str(tmp_path / "src"), out=str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("topk_ids", pa.array([["a"]] * N), "'topk_ids' must hold lists of class ids, got list"),
        ("topk_ids", pa.array([1] * N), "'topk_ids' must hold lists of class ids, got int64"),
        ("topk_ids", pa.array([[1.5]] * N), "'topk_ids' must hold .* with a value that is none"),
        ("topk_probs", pa.array([0.5] * N), "'topk_probs' must hold lists of probabilities"),
        ("topk_probs", pa.array([[True]] * N), "'topk_probs' must hold lists of probabilities"),
        ("tail_prob", pa.array(["0"] * N), "'tail_prob' must hold a number, got string"),
        ("tail_prob", pa.array([[0.5]] * N), "'tail_prob' must hold a number, got list"),
    ],
)
def test_columns__of_other_types_are_refused(
    tmp_path: Path, column: str, values: pa.Array, expected: str
) -> None:
    listed, _ = tables(13)
    at = listed.column_names.index(column)
    with pytest.raises(LabelopsError, match=expected):
        run(tmp_path, listed.set_column(at, column, values), [N])


def test_product__read_again_is_not_audited_with_its_own_beliefs(tmp_path: Path) -> None:
    listed, _ = tables(14)
    out = run(tmp_path, listed, even(N, 2))
    assert "topk_ids" not in open_source(str(out / "dataset")).columns
    # Programs that rewrite files lose the metadata.
    plain = read(out, "dataset").replace_schema_metadata(None)
    write_shards(tmp_path / "again", plain, [len(plain)])
    assert "topk_ids" not in open_source(str(tmp_path / "again")).columns
    mapped = {"topk_ids": "previous_topk_ids", "topk_probs": "previous_topk_probs"}
    assert open_source(str(out / "dataset"), columns=mapped).columns["topk_ids"] == (
        "previous_topk_ids"
    )


def test_whole_rows__come_before_listed_ones(tmp_path: Path) -> None:
    listed, whole = tables(15)
    both = listed.append_column("pred_probs", whole["pred_probs"])
    ours = read(run(tmp_path / "both", both, [N]), "infer")
    assert ours.column_names == ["item_id", "p_given"]
    asked = run(tmp_path / "asked", both, [N], '[infer]\nuse = "topk_probs"')
    assert "pred_ids" in read(asked, "infer").column_names
    assert read(asked, "confident").equals(read(tmp_path / "both" / "out", "confident"))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_run__of_hardly_any_items(tmp_path: Path, n: int) -> None:
    listed, whole = tables(16)
    rows = [i for i, name in enumerate(listed["label"].to_pylist())][:40][-n:]
    labels = pa.array([f"c{i:02d}" for i in range(n)])
    found = []
    for folder, table in (("listed", listed), ("whole", whole)):
        few = table.take(rows).set_column(1, "label", labels)
        if n == 1:
            with pytest.raises(DataError, match="at least two classes"):
                run(tmp_path / folder, few, [1])
            return
        found.append(read(run(tmp_path / folder, few, [0, n, 0]), "confident"))
    assert found[0].equals(found[1])
