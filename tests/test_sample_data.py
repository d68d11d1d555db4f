"""The sample data is what its card says; the card and this file are checked against the bytes."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "sample_data"
SHARDS = sorted((SAMPLE / "fashion_mnist").iterdir())
CLASSES = [
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
]


@pytest.fixture(scope="module")
def items() -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in SHARDS)


@pytest.fixture(scope="module")
def truth() -> pa.Table:
    return pq.read_table(SAMPLE / "fashion_mnist_truth.parquet")


@pytest.fixture(scope="module")
def pixels(items: pa.Table) -> dict[str, np.ndarray]:
    encoded = items["image"].combine_chunks().field("bytes").to_pylist()
    return {
        item: np.asarray(Image.open(io.BytesIO(data)))
        for item, data in zip(items["item_id"].to_pylist(), encoded, strict=True)
    }


def test_shards__are_named_sized_and_laid_out_as_the_card_says() -> None:
    assert [path.name for path in SHARDS] == [f"part-{n:05d}.parquet" for n in range(8)]
    files = [pq.ParquetFile(path) for path in SHARDS]
    assert [f.metadata.num_rows for f in files] == [37, 811, 402, 640, 128, 777, 559, 664]
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    expected = pa.schema({"item_id": pa.string(), "image": image, "label": pa.int64()})
    for file in files:
        groups = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        assert max(groups) <= 100
        assert file.schema_arrow.equals(expected)
    whole = sum(path.stat().st_size for path in SAMPLE.rglob("*") if path.is_file())
    assert whole <= 5_000_000


def test_shards__load_as_a_hugging_face_data_set(tmp_path: Path) -> None:
    loaded = datasets.load_dataset(
        "parquet", data_files=[str(p) for p in SHARDS], split="train", cache_dir=str(tmp_path)
    )
    assert loaded.features == datasets.Features(
        {
            "item_id": datasets.Value("string"),
            "image": datasets.Image(),
            "label": datasets.ClassLabel(names=CLASSES),
        }
    )
    assert loaded.num_rows == 4018
    assert loaded[0]["image"].size == (28, 28)


def test_shards__have_page_checksums(tmp_path: Path) -> None:
    broken = tmp_path / "part.parquet"
    shutil.copy(SHARDS[0], broken)
    chunk = pq.read_metadata(broken).row_group(0).column(1)
    assert chunk.path_in_schema == "image.bytes"
    data = bytearray(broken.read_bytes())
    data[chunk.data_page_offset + chunk.total_compressed_size // 2] ^= 1
    broken.write_bytes(data)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(broken, page_checksum_verification=True)
    pq.read_table(SHARDS[0], page_checksum_verification=True)


def test_items__have_unique_ids_known_labels_and_readable_pictures(
    items: pa.Table, truth: pa.Table, pixels: dict[str, np.ndarray]
) -> None:
    assert len(set(items["item_id"].to_pylist())) == items.num_rows == 4018
    assert items["item_id"].to_pylist() == truth["item_id"].to_pylist()
    assert set(items["label"].to_pylist()) == set(range(10))
    assert {(p.shape, p.dtype) for p in pixels.values()} == {((28, 28), np.dtype(np.uint8))}


def test_labels__are_wrong_where_and_as_often_as_the_card_says(
    items: pa.Table, truth: pa.Table
) -> None:
    rows = list(
        zip(
            truth["kind"].to_pylist(),
            truth["true_label"].to_pylist(),
            items["label"].to_pylist(),
            strict=True,
        )
    )
    card = (SAMPLE / "README.md").read_text()
    table = {
        k: int(n.replace(" ", ""))
        for k, n in re.findall(r"^\| ([a-z ]+) \| ([\d ]+) \|", card, re.M)
    }
    assert Counter(kind for kind, _, _ in rows) == table
    right = {"clean", "copy"}
    assert all((true == given) == (kind in right) for kind, true, given in rows if true is not None)
    assert all((true is None) == (kind == "outlier") for kind, true, _ in rows)
    sampled = [(t, g) for kind, t, g in rows if kind in {"clean", "confusion", "uniform"}]
    assert Counter(t for t, _ in sampled) == dict.fromkeys(range(10), 400)
    assert sum(t != g for t, g in sampled) == 480 == 0.12 * len(sampled)
    assert sum(t != g for kind, t, g in rows if kind != "outlier") == 488

    confusions = {
        (true, match[1]): int(match[2])
        for true, given in re.findall(r"^\| (\S+(?: boot)?) \| (.*?\d) \|$", card, re.M)
        if true in CLASSES
        for match in re.finditer(r"([\w/-]+(?: boot)?) (\d+)", given)
    }
    planted = Counter((CLASSES[t], CLASSES[g]) for kind, t, g in rows if kind == "confusion")
    assert planted == confusions


def test_copies__are_the_only_pictures_that_occur_twice(
    items: pa.Table, truth: pa.Table, pixels: dict[str, np.ndarray]
) -> None:
    seen: dict[bytes, set[str]] = {}
    for item, picture in pixels.items():
        seen.setdefault(picture.tobytes(), set()).add(item)
    pairs = {frozenset(same) for same in seen.values() if len(same) > 1}
    kinds = dict(zip(truth["item_id"].to_pylist(), truth["kind"].to_pylist(), strict=True))
    copies = {
        item: original
        for item, original in zip(
            truth["item_id"].to_pylist(), truth["copy_of"].to_pylist(), strict=True
        )
        if original is not None
    }
    assert pairs == {frozenset(pair) for pair in copies.items()}
    labels = dict(zip(items["item_id"].to_pylist(), items["label"].to_pylist(), strict=True))
    for item, original in copies.items():
        assert kinds[original] == "clean"
        assert (labels[item] != labels[original]) == (kinds[item] == "conflicting copy")


def test_truth__is_named_by_no_stage() -> None:
    code = [p for name in ("labelops", "pipelines", "flows") for p in (ROOT / name).rglob("*.py")]
    assert code
    assert not [str(path) for path in code if "fashion_mnist_truth" in path.read_text()]


def test_script__makes_the_same_bytes_again(tmp_path: Path) -> None:
    source = os.environ.get("FASHION_MNIST")
    if source is None:
        pytest.skip("FASHION_MNIST does not name the folder of the original files")
    script = SAMPLE / "make_fashion_mnist.py"
    subprocess.run([sys.executable, script, source, "--out", tmp_path], check=True)
    made = {p.relative_to(tmp_path): p.read_bytes() for p in tmp_path.rglob("*.parquet")}
    ours = SAMPLE.glob("fashion_mnist/*.parquet"), SAMPLE.glob("fashion_mnist*.parquet")
    assert made == {p.relative_to(SAMPLE): p.read_bytes() for part in ours for p in part}


def test_script__refuses_other_files(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"\0\0\x08\x03"))
    script = SAMPLE / "make_fashion_mnist.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True)
    assert done.returncode != 0
    assert "must hold the published Fashion-MNIST" in done.stderr
