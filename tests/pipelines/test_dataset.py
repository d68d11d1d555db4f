"""Oracle: the programs that people read the product with, and the source itself."""

import io
import json
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.decisions.counts import counts_of
from pipelines.decisions.ledger import derive
from pipelines.decisions.product import added
from pipelines.errors import LabelopsError
from pipelines.recipe import parse_recipe
from pipelines.registry import STAGES
from pipelines.report import collect
from pipelines.report.card import write_card
from tests.datasets import even, vectors, write_shards

N, NAMES = 330, ["cat", "dog", "cow"]

RECIPE = 'stages = ["source", "confident", "neighbours", "decide", "dataset"]\n'


def write_card_only(run: Run, listen: object = None) -> str:
    return str(write_card(run, counts_of(run), collect(run.uri).sections))


@pytest.fixture(autouse=True)
def _fake_confident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STAGES, "confident", "tests.fake_confident:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", write_card_only)


def png(rng: np.random.Generator) -> bytes:
    out = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (6, 6), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def source_table(seed: int = 0) -> pa.Table:
    """Return pictures with class names in the footer, as `datasets` writes them, and extras."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, N)
    given = np.where(rng.random(N) < 0.25, rng.integers(0, 3, N), true)
    logits = rng.normal(0, 1, (N, 3))
    logits[np.arange(N), true] += 3
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    features = {
        "item_id": {"dtype": "string", "_type": "Value"},
        "image": {"_type": "Image"},
        "label": {"names": NAMES, "_type": "ClassLabel"},
        "pred_probs": {
            "feature": {"dtype": "float32", "_type": "Value"},
            "length": 3,
            "_type": "Sequence",
        },
        "features": {
            "feature": {"dtype": "float32", "_type": "Value"},
            "length": 4,
            "_type": "Sequence",
        },
        "camera": {"dtype": "string", "_type": "Value"},
        "confidence": {"dtype": "float64", "_type": "Value"},
    }
    table = pa.table(
        {
            "item_id": [f"i{i}" for i in range(N)],
            "image": pa.array(
                [{"bytes": png(rng), "path": f"{i}.png"} for i in range(N)],
                pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
            ),
            "label": pa.array(given, pa.int64()),
            "pred_probs": vectors(probs.astype(np.float32)),
            "features": vectors(rng.normal(size=(N, 4)).astype(np.float32)),
            # Nothing that the pipeline knows, and something that it calls its own.
            "camera": [f"c{i % 3}" for i in range(N)],
            "confidence": rng.random(N),
        }
    )
    info = {"info": {"features": features, "splits": {"train": {"num_examples": N}}}}
    return table.replace_schema_metadata({"huggingface": json.dumps(info)})


def audit(folder: Path, data: pa.Table, sizes: list[int], settings: str = "") -> Run:
    source = write_shards(folder / "src", data, sizes)
    parsed = parse_recipe(RECIPE + settings, name="test")
    pipelines.run.run(parsed, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def parts(folder: Path, name: str = "dataset") -> list[Path]:
    return sorted((folder / "out" / name).glob("part-*.parquet"))


def read(folder: Path, name: str = "dataset") -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in parts(folder, name)])


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over shards of unequal size, an empty one among them."""
    folder = tmp_path_factory.mktemp("product")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(STAGES, "confident", "tests.fake_confident:STAGE")
        patch.setattr(pipelines.run, "finish", write_card_only)
        audit(folder, source_table(), [120, 0, 5, 205], "[decide]\nmax_review = 10\n")
    return folder


def test_product__has_every_item_once_here_or_aside(product: Path) -> None:
    inside, aside = read(product), read(product, "set_aside")
    assert aside.num_rows > 0
    ids = inside["item_id"].to_pylist() + aside["item_id"].to_pylist()
    assert sorted(ids) == sorted(f"i{i}" for i in range(N))
    assert set(inside["decision"].to_pylist()) <= {"keep", "relabel", "abstain"}
    assert set(aside["decision"].to_pylist()) <= {"drop", "review"}
    assert aside["label_clean"].null_count == aside.num_rows
    assert inside["label_clean"].null_count == 0


def test_product__carries_the_source_unchanged_whatever_its_columns(product: Path) -> None:
    data, inside = source_table(), read(product)
    rows = [int(i[1:]) for i in inside["item_id"].to_pylist()]
    assert rows == sorted(rows)
    want = data.take(rows)
    for name in ("image", "label", "camera", "pred_probs", "features"):
        assert inside[name].combine_chunks().equals(want[name].combine_chunks()), name
    # A column of the source that has the name of one of ours moves aside.
    assert inside["previous_confidence"].to_pylist() == want["confidence"].to_pylist()
    assert inside["confidence"].type == pa.float32()


def test_datasets__loads_folder_run_and_files_with_class_names(product: Path) -> None:
    import datasets

    n = read(product).num_rows
    files = [str(path) for path in parts(product)]
    loaded = {
        "files": datasets.load_dataset("parquet", data_files=files, split="train"),
        "folder": datasets.load_dataset(str(product / "out" / "dataset"), split="train"),
        "data_dir": datasets.load_dataset(
            "parquet", data_dir=str(product / "out" / "dataset"), split="train"
        ),
        "run": datasets.load_dataset(str(product / "out"), split="train"),
    }
    for found in loaded.values():
        assert found.num_rows == n
        assert found.features["label_clean"].names == NAMES
        assert found.features["label"].names == NAMES
        assert found[0]["image"].size == (6, 6)
        assert found.features["topk_ids"].feature.dtype == "uint16"
        assert found.features["topk_probs"].feature.dtype == "float16"
    aside = datasets.load_dataset(str(product / "out"), "set_aside", split="train")
    assert aside.num_rows == N - n


def test_pandas__reads_the_folder(product: Path) -> None:
    found = pd.read_parquet(product / "out" / "dataset")
    assert len(found) == read(product).num_rows
    assert {"image", "label_clean", "decision", "weight", "topk_ids"} <= set(found.columns)


def test_polars__reads_folder_and_files(product: Path) -> None:
    found = pl.read_parquet(f"{product}/out/dataset/*.parquet")
    assert found.height == read(product).num_rows
    assert pl.read_parquet(product / "out" / "dataset").equals(found)
    assert found.schema["topk_probs"] == pl.List(pl.Float16)


def test_duckdb__reads_the_files(product: Path) -> None:
    table = f"read_parquet('{product}/out/dataset/*.parquet')"
    [(n, weight)] = duckdb.sql(f"select count(*), sum(weight) from {table}").fetchall()
    want = read(product)
    assert n == want.num_rows
    assert weight == pytest.approx(sum(want["weight"].to_pylist()), rel=1e-6)


def test_files__have_checksums_page_index_and_small_row_groups(product: Path) -> None:
    for path in parts(product) + parts(product, "set_aside"):
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            file.read()
            metadata = file.metadata
            groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        assert all(0 < group.num_rows <= 100 for group in groups)
        assert all(group.column(0).has_offset_index for group in groups)
    empty = pq.read_metadata(parts(product)[1])
    assert (empty.num_rows, empty.num_row_groups) == (0, 0)


def test_footer__says_how_soft_labels_are_stored_and_what_columns_are(product: Path) -> None:
    metadata = pq.read_schema(parts(product)[0]).metadata
    soft = json.loads(metadata[b"labelops.soft_labels"])
    assert soft["num_classes"] == 3
    assert soft["classes"] == NAMES
    assert soft["reconstruct"] == "ms"
    info = json.loads(metadata[b"huggingface"])["info"]
    assert set(added(("given",))) <= set(info["features"])
    assert "splits" not in info


def test_card__has_the_numbers(product: Path) -> None:
    text = (product / "out" / "README.md").read_text()
    inside, aside = read(product), read(product, "set_aside")
    decisions = inside["decision"].to_pylist() + aside["decision"].to_pylist()
    for name, word in {"keep": "kept", "relabel": "relabelled", "drop": "dropped"}.items():
        assert f"| {word} | {decisions.count(name)} |" in text
    assert f"| all of the source | {N} | 100.00% |" in text
    assert "expected, not measured" in text
    assert str(product) not in text


def test_product__of_a_product_keeps_the_first_decisions(tmp_path: Path, product: Path) -> None:
    again = read(product)
    run = audit(tmp_path, again, even(again.num_rows, 2))
    found = read(tmp_path)
    assert found.schema.names.count("decision") == 1
    assert (
        found["previous_decision"].to_pylist()
        == again.filter(
            pa.compute.is_in(again["item_id"], value_set=found["item_id"].combine_chunks())
        )["decision"].to_pylist()
    )
    audit(tmp_path / "third", found, [found.num_rows])
    third = read(tmp_path / "third").schema.names
    assert {"decision", "previous_decision", "previous_previous_decision"} <= set(third)
    assert len(set(third)) == len(third)
    assert run.source.n_items == again.num_rows


def test_leave_out__gives_what_the_log_derives_without_those_rows(
    tmp_path: Path, product: Path
) -> None:
    data = source_table()
    log = pa.concat_tables([pq.read_table(path) for path in parts(product, "decisions")])
    rules = sorted({r for r in log["rule"].to_pylist() if r.startswith("relabel-")})[:1]
    items = log.filter(pa.compute.equal(log["action"], "review"))["item_id"].to_pylist()[:2]
    settings = "[decide]\nmax_review = 10\n[dataset]\n"
    settings += f"leave_out_rules = {json.dumps(rules)}\nleave_out_items = {json.dumps(items)}\n"
    audit(tmp_path, data, [120, 0, 5, 205], settings)
    want = derive(
        data.select(["item_id", "label"]), log, leave_out_rules=rules, leave_out_items=items
    )
    got = pa.concat_tables(
        [
            t.select(["item_id", "decision", "label_clean"])
            for t in (read(tmp_path), read(tmp_path, "set_aside"))
        ]
    )
    place = {item: row for row, item in enumerate(got["item_id"].to_pylist())}
    got = got.take([place[item] for item in want["item_id"].to_pylist()])
    assert got["decision"].to_pylist() == want["decision"].to_pylist()
    assert got["label_clean"].to_pylist() == want["label_clean"].to_pylist()
    undone = read(tmp_path).filter(pa.compute.starts_with(read(tmp_path)["reason"], "left out: "))
    assert undone.num_rows > 2
    assert set(undone["weight"].to_pylist()) == {1.0}
    assert "Left out, so that items stay as given" in (tmp_path / "out" / "README.md").read_text()


def test_leave_out__of_an_unknown_rule_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelopsError) as refused:
        audit(tmp_path, source_table(), [N], '[dataset]\nleave_out_rules = ["relable-0.9"]\n')
    assert "must name rules of stage 'decide', got ['relable-0.9']" in str(refused.value)


@pytest.mark.parametrize("kind", ["string", "int16"])
def test_product__label_clean_has_the_type_of_label_without_metadata(
    tmp_path: Path, kind: str
) -> None:
    data = source_table().replace_schema_metadata(None).drop_columns(["item_id", "image"])
    label = np.array(data["label"].to_pylist())
    column = (
        pa.array([NAMES[k] for k in label]) if kind == "string" else pa.array(label, pa.int16())
    )
    data = data.set_column(data.column_names.index("label"), "label", column)
    audit(tmp_path, data, even(N, 2))
    inside = read(tmp_path)
    assert inside["label_clean"].type == inside["label"].type == column.type
    # Ids that were made up are part of the product, or nothing could be traced back.
    ids = inside["item_id"].to_pylist()
    assert {item.partition("#")[0] for item in ids} == {"part-00000.parquet", "part-00001.parquet"}
