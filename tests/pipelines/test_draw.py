"""Items drawn for people to check, from shards to the first screen: against planted truth."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from labelops.drawn import drawing_order, stratum_of
from labelops.hashing import hash_strings
from pipelines.core.state import Run, load_run
from pipelines.decisions.draw import DRAW, N_DRAWN, SHEET_FILE, measured
from pipelines.recipe import parse_recipe
from pipelines.verify import verify_run
from tests.datasets import even, vectors, write_shards
from tests.pipelines.inferred import png
from tests.pipelines.localized import table_of

N, K = 1500, 4


def planted(sharp: float) -> tuple[pa.Table, np.ndarray]:
    """Return items with predictions and 20 % wrong labels, and their true classes."""
    rng = np.random.default_rng(3)
    true = rng.integers(0, K, N)
    given = np.where(rng.random(N) < 0.2, (true + rng.integers(1, K, N)) % K, true)
    logits = rng.normal(0, 1, (N, K))
    logits[np.arange(N), true] += sharp
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    label = pa.array([f"class {c}" for c in given])
    ids = [f"i{i}\0" if i % 7 == 0 else f"i{i}" for i in range(N)]
    data = {"item_id": ids, "label": label, "pred_probs": vectors(probs.astype(np.float32))}
    return pa.table(data), true


def audit(folder: Path, data: pa.Table, sizes: list[int], settings: str = "") -> Run:
    source = write_shards(folder / "src", data, sizes)
    recipe = 'stages = ["source", "infer", "confident", "decide", "dataset"]\n' + settings
    parsed = parse_recipe(recipe, name="test")
    pipelines.run.run(parsed, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def sheet(folder: Path) -> pa.Table:
    return pq.read_table(folder / "out" / SHEET_FILE)


def page(folder: Path) -> str:
    return (folder / "out" / "report.html").read_text("utf-8")


def reviewed(folder: Path, table: pa.Table, data: pa.Table, true: np.ndarray) -> str:
    """Fill in a sheet; returns the setting that names it."""
    at = {item: i for i, item in enumerate(data["item_id"].to_pylist())}
    answers = [f"class {true[at[item]]}" for item in table["item_id"].to_pylist()]
    filled = table.drop_columns(["true_label"]).append_column("true_label", pa.array(answers))
    pq.write_table(filled, folder / "answers.parquet")
    return f'[decide]\nreviewed = "{folder / "answers.parquet"}"\n'


def test_sheet__has_the_first_of_each_stratum_whatever_the_shards(tmp_path: Path) -> None:
    data, _ = planted(2.0)
    run = audit(tmp_path / "a", data, even(N, 3))
    audit(tmp_path / "b", data.take(np.random.default_rng(0).permutation(N)), [1, 700, 799])
    assert sheet(tmp_path / "a").equals(sheet(tmp_path / "b"))
    table = sheet(tmp_path / "a")
    assert table.num_rows == N_DRAWN
    assert table["true_label"].null_count == N_DRAWN
    files = sorted((tmp_path / "a" / "out" / "decide").glob("part-*.parquet"))
    decided = pa.concat_tables([pq.read_table(file) for file in files])
    ids = decided["item_id"].to_pylist()
    stratum = stratum_of(decided["p_wrong"].to_numpy().astype(np.float64))
    order = np.argsort(drawing_order(hash_strings(ids)))
    drawn = set(table["item_id"].to_pylist())
    assert drawn < set(ids)
    n_of = run.context("decide", run.layout()).own(DRAW)["n_of"]
    assert n_of.tolist() == np.bincount(stratum, minlength=3).tolist()
    for h in range(3):
        mine = [ids[i] for i in order if stratum[i] == h]
        n = len(drawn & set(mine))
        assert drawn & set(mine) == set(mine[:n])
    assert not verify_run(str(tmp_path / "a" / "out")).damage


@pytest.mark.parametrize("sharp", [3.0, 0.3])
def test_answers__count_wrong_labels_even_where_the_model_is_too_weak(
    tmp_path: Path, sharp: float
) -> None:
    data, true = planted(sharp)
    audit(tmp_path / "a", data, even(N, 2))
    assert SHEET_FILE in page(tmp_path / "a")
    settings = reviewed(tmp_path, sheet(tmp_path / "a"), data, true)
    run = audit(tmp_path / "b", data, even(N, 2), settings)
    found = measured(run.context("decide", run.layout()).own(DRAW))
    assert found is not None
    assert found.n_answered == N_DRAWN
    assert found.wrong is not None
    given = np.array([int(label[-1]) for label in data["label"].to_pylist()])
    assert found.wrong.low <= (given != true).sum() <= found.wrong.high
    assert "People checked the 60 items that were drawn at random" in page(tmp_path / "b")
    # The same items are drawn again: answers do not move what is believed without them.
    before, after = (sheet(tmp_path / name).select(["item_id", "given_label"]) for name in "ab")
    assert before.equals(after)


def test_answers__on_other_items_are_no_estimate_and_that_is_said(tmp_path: Path) -> None:
    data, true = planted(3.0)
    audit(tmp_path / "a", data, even(N, 2))
    others = data.slice(0, 80).select(["item_id"])
    settings = reviewed(
        tmp_path, others.append_column("true_label", pa.nulls(80, pa.string())), data, true
    )
    run = audit(tmp_path / "b", data, even(N, 2), settings)
    found = measured(run.context("decide", run.layout()).own(DRAW))
    assert found is not None
    assert found.wrong is None
    assert found.n_reviewed == 80
    said = f"Of the 60 items in {SHEET_FILE} {found.n_answered} were checked; all must be"
    assert said in page(tmp_path / "b")


def test_weak__a_model_of_pixels_is_named_where_it_cannot_tell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    images = [png(rng.integers(0, 255, (20, 20, 3), dtype=np.uint8)) for _ in range(60)]
    labels = [f"class {k}" for k in rng.integers(0, 3, 60)]
    audit(tmp_path, table_of(images, labels), [25, 35])
    said = page(tmp_path)
    assert "The model is too weak to count wrong labels" in said
    assert "It sees small, shrunk pictures (infer.embedder = pixels)" in said
    files = sorted((tmp_path / "out" / "dataset").glob("part-*.parquet"))
    product = pa.concat_tables([pq.read_table(file) for file in files])
    assert product["label_clean"].to_pylist() == product["label"].to_pylist()
