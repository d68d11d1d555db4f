"""Make the sample data set again, byte for byte, from the original files of Fashion-MNIST.

    python sample_data/make_fashion_mnist.py FOLDER [--out sample_data]

FOLDER holds `train-images-idx3-ubyte.gz` and `train-labels-idx1-ubyte.gz` as their authors publish
them (the Debian package `dataset-fashion-mnist` has them in its share folder). Every choice follows
from SHA-256 of a purpose and a number, so no random generator and none of its versions matters;
the bytes of the files also depend on the pinned versions of Pillow and pyarrow.
"""

import argparse
import gzip
import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
T_SHIRT, TROUSER, PULLOVER, DRESS, COAT, SANDAL, SHIRT, SNEAKER, BAG, BOOT = range(10)

IDX_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
}

PER_CLASS = 400

# (true class, given class): how many of the 400 items of the true class are given the wrong one.
# Together 392 items, 9.8 %: what people who look at small pictures of clothes mix up.
CONFUSIONS = {
    (SHIRT, T_SHIRT): 40,
    (SHIRT, PULLOVER): 24,
    (SHIRT, COAT): 24,
    (T_SHIRT, SHIRT): 48,
    (T_SHIRT, DRESS): 8,
    (PULLOVER, COAT): 32,
    (PULLOVER, SHIRT): 24,
    (COAT, PULLOVER): 32,
    (COAT, SHIRT): 24,
    (SNEAKER, BOOT): 32,
    (SNEAKER, SANDAL): 16,
    (BOOT, SNEAKER): 40,
    (SANDAL, SNEAKER): 24,
    (DRESS, T_SHIRT): 16,
    (TROUSER, DRESS): 8,
}
# Another 88 items, 2.2 %, of whatever class get any other class: slips of the finger.
N_UNIFORM = 88
N_CONFLICTING_COPIES = 8
N_PLAIN_COPIES = 4

# Unequal on purpose; the sum is all items.
SHARD_ITEMS = (37, 811, 402, 640, 128, 777, 559, 664)
ROWS_PER_GROUP = 100

ITEM_FEATURES = {
    "item_id": {"dtype": "string", "_type": "Value"},
    "image": {"_type": "Image"},
    "label": {"names": list(CLASSES), "_type": "ClassLabel"},
}
TRUTH_FEATURES = {
    "item_id": {"dtype": "string", "_type": "Value"},
    "true_label": {"names": list(CLASSES), "_type": "ClassLabel"},
    "kind": {"dtype": "string", "_type": "Value"},
    "train_index": {"dtype": "int64", "_type": "Value"},
    "copy_of": {"dtype": "string", "_type": "Value"},
}


class Item(NamedTuple):
    """One picture with the label that the sample gives it and what is known about it."""

    pixels: np.ndarray
    given: int
    true: int | None
    kind: str
    train_index: int | None
    original: int | None = None


def digest(purpose: str, number: int) -> int:
    """A number that looks random, is spread evenly, and is the same everywhere."""
    name = f"labelops/fashion_mnist/1/{purpose}/{number}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


def shuffled(purpose: str, numbers: Iterable[int]) -> list[int]:
    """The numbers in the order of their digests."""
    return sorted(numbers, key=lambda number: digest(purpose, number))


def read_idx(folder: Path, name: str) -> np.ndarray:
    """An idx file as an array; its content must be the published one."""
    raw = gzip.decompress((folder / f"{name}.gz").read_bytes())
    found = hashlib.sha256(raw).hexdigest()
    if found != IDX_SHA256[name]:
        raise ValueError(
            f"{name}.gz must hold the published Fashion-MNIST (sha256 {IDX_SHA256[name]}); "
            f"got {found} in {folder}. Is it MNIST, or a damaged download?"
        )
    n_dims = raw[3]
    shape = np.frombuffer(raw, dtype=">u4", count=n_dims, offset=4)
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * n_dims).reshape(shape)


def corrupt(true: dict[int, int]) -> dict[int, tuple[int, str]]:
    """The given class and the kind of each chosen train index; 12 % of them wrong."""
    given = {index: (label, "clean") for index, label in true.items()}
    for label in range(len(CLASSES)):
        rows = shuffled("confusion", (index for index in true if true[index] == label))
        for (_, other), n in ((pair, n) for pair, n in CONFUSIONS.items() if pair[0] == label):
            for index in rows[:n]:
                given[index] = (other, "confusion")
            rows = rows[n:]
    clean = [index for index in true if given[index][1] == "clean"]
    for index in shuffled("uniform", clean)[:N_UNIFORM]:
        step = 1 + digest("step", index) % (len(CLASSES) - 1)
        given[index] = ((true[index] + step) % len(CLASSES), "uniform")
    return given


def outliers(images: np.ndarray, rows: list[int]) -> list[np.ndarray]:
    """Six pictures that belong to no class, made of real ones or of nothing."""
    noise = np.array([digest("noise", i) >> 56 for i in range(28 * 28)], dtype=np.uint8)
    stripes = np.indices((28, 28)).sum(axis=0) // 4 % 2 * np.uint8(255)
    quarters = [images[row][::2, ::2] for row in rows[:4]]
    return [
        255 - images[rows[4]],
        np.block([quarters[:2], quarters[2:]]),
        np.where(np.arange(28)[:, None] < 14, images[rows[5]], images[rows[6]][::-1]),
        noise.reshape(28, 28),
        stripes.astype(np.uint8),
        np.zeros((28, 28), dtype=np.uint8),
    ]


def compose(images: np.ndarray, labels: np.ndarray) -> list[Item]:
    """All items in the order in which they are written."""
    chosen: dict[int, int] = {}
    for label in range(len(CLASSES)):
        rows = np.flatnonzero(labels == label).tolist()
        chosen |= dict.fromkeys(shuffled("choose", rows)[:PER_CLASS], label)
    items = [
        Item(images[index], given, chosen[index], kind, index)
        for index, (given, kind) in corrupt(chosen).items()
    ]
    clean = shuffled("copy", (n for n, item in enumerate(items) if item.kind == "clean"))
    for n in clean[:N_CONFLICTING_COPIES]:
        step = 1 + digest("copy step", n) % (len(CLASSES) - 1)
        wrong = (items[n].given + step) % len(CLASSES)
        items.append(items[n]._replace(given=wrong, kind="conflicting copy", original=n))
    for n in clean[N_CONFLICTING_COPIES:][:N_PLAIN_COPIES]:
        items.append(items[n]._replace(kind="copy", original=n))
    unused = shuffled("outlier", (i for i in range(len(labels)) if i not in chosen))
    for n, pixels in enumerate(outliers(images, unused)):
        items.append(Item(pixels, digest("outlier label", n) % 10, None, "outlier", None))
    # Ids come from the final order, so that none of them says what an item is.
    order = shuffled("order", range(len(items)))
    place = {old: new for new, old in enumerate(order)}
    return [
        item if item.original is None else item._replace(original=place[item.original])
        for item in (items[old] for old in order)
    ]


def name_of(n: int) -> str:
    return f"fm{n:04d}"


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def with_features(columns: dict[str, pa.Array], features: Mapping[str, object]) -> pa.Table:
    """A table whose schema says what its columns mean, as Hugging Face data sets do."""
    footer = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.table(columns).replace_schema_metadata(footer)


def write(table: pa.Table, path: Path) -> None:
    pq.write_table(
        table,
        path,
        row_group_size=ROWS_PER_GROUP,
        # PNG is compressed already, and no two of these strings are alike.
        compression={c: "NONE" if c.startswith("image") else "ZSTD" for c in leaves(table.schema)},
        use_dictionary=[c for c in leaves(table.schema) if c in {"label", "true_label", "kind"}],
        # The least and the greatest picture tell nobody anything and only fill the footer.
        write_statistics=[c for c in leaves(table.schema) if c != "image.bytes"],
        write_page_checksum=True,
        write_page_index=True,
    )


def leaves(schema: pa.Schema) -> list[str]:
    """Names of the columns as they are stored: the parts of structs, with a dot."""
    return [
        f"{field.name}.{part.name}" if part is not field else field.name
        for field in schema
        for part in (field.type if pa.types.is_struct(field.type) else [field])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the two idx files are")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()

    images, labels = (read_idx(arguments.folder, name) for name in IDX_SHA256)
    items = compose(images, labels)
    if len(items) != sum(SHARD_ITEMS):
        raise AssertionError(f"{len(items)} items do not fill shards of {SHARD_ITEMS}")

    shards = arguments.out / "fashion_mnist"
    shards.mkdir(parents=True, exist_ok=True)
    image_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    start = 0
    for shard, n_items in enumerate(SHARD_ITEMS):
        rows = range(start, start + n_items)
        pictures = [{"bytes": png(items[n].pixels), "path": f"{name_of(n)}.png"} for n in rows]
        columns = {
            "item_id": pa.array([name_of(n) for n in rows]),
            "image": pa.array(pictures, type=image_type),
            "label": pa.array([items[n].given for n in rows], type=pa.int64()),
        }
        write(with_features(columns, ITEM_FEATURES), shards / f"part-{shard:05d}.parquet")
        start += n_items
    truth = {
        "item_id": pa.array([name_of(n) for n in range(len(items))]),
        "true_label": pa.array([item.true for item in items], type=pa.int64()),
        "kind": pa.array([item.kind for item in items]),
        "train_index": pa.array([item.train_index for item in items], type=pa.int64()),
        "copy_of": pa.array(
            [None if item.original is None else name_of(item.original) for item in items],
            type=pa.string(),
        ),
    }
    write(with_features(truth, TRUTH_FEATURES), arguments.out / "fashion_mnist_truth.parquet")


if __name__ == "__main__":
    main()
