"""Make the sample of bags again, byte for byte, from the Adult data set.

    python sample_data/make_adult_bags.py FILE [--out sample_data]

FILE is `adult.tsv.gz` of the Penn Machine Learning Benchmarks. Which items are chosen, which bag
each is put into and which totals are falsified follows from SHA-256 of a purpose and a number, so
no random generator and none of its versions matters; the bytes of the files also depend on the
pinned version of pyarrow.
"""

import argparse
import csv
import gzip
import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TSV_SHA256 = "4c6c33bafb0a930b83a28ff757d75e34eed678373f58044e75d864373ec1bc30"

NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
CATEGORIES = (
    "workclass",
    "education",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native-country",
)
RARE = 0.005
"""Categories of a smaller share of the chosen items get no column."""

BAG_SIZES = (12, 24, 36, 48)
"""Repeated sixty times, so that bags have 30 items on average."""

N_BAGS = 240
FALSE_TOTALS = 3
"""Bags whose total is told wrong: half of those without a high income are added."""

SHARD_ITEMS = (900, 61, 2400, 1500, 2339)
"""Unequal on purpose; the sum is all items. Bags lie across shards."""

N_ITEMS = sum(SHARD_ITEMS)


def digest(purpose: str, number: int) -> int:
    """Return a number that looks random, is spread evenly, and is the same everywhere."""
    name = f"labelops/adult_bags/1/{purpose}/{number}".encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big")


def shuffled(purpose: str, numbers: Iterable[int]) -> list[int]:
    """Return the numbers in the order of their digests."""
    return sorted(numbers, key=lambda number: digest(purpose, number))


def read_adult(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of the table; its content must be the published one."""
    raw = gzip.decompress(path.read_bytes())
    found = hashlib.sha256(raw).hexdigest()
    if found != TSV_SHA256:
        raise ValueError(
            f"{path.name} must hold the Adult set of the Penn Machine Learning Benchmarks (sha256 "
            f"{TSV_SHA256}); got {found} in {path.parent}. Is the download damaged?"
        )
    names, *rows = csv.reader(raw.decode().splitlines(), delimiter="\t")
    return {n: np.array(v, np.float64) for n, v in zip(names, zip(*rows, strict=True), strict=True)}


def features_of(columns: dict[str, np.ndarray]) -> np.ndarray:
    """Return numbers (money as logarithms) and an indicator for every category."""
    parts = []
    for name in NUMBERS:
        values = columns[name]
        parts.append(np.log1p(values) if name.startswith("capital") else values)
    for name in CATEGORIES:
        for kind in np.unique(columns[name]):
            indicator = columns[name] == kind
            if indicator.mean() >= RARE:
                parts.append(indicator.astype(np.float64))
    return np.stack(parts, axis=1).astype(np.float32)


def write(table: pa.Table, path: Path) -> None:
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        write_page_checksum=True,
        store_schema=True,
    )


def name_of(n: int) -> str:
    return f"ad{n:04d}"


def main() -> None:
    """Write shards, bags and truth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    columns = read_adult(args.file)
    rows = np.array(shuffled("choose", range(len(columns["target"])))[:N_ITEMS])
    columns = {name: values[rows] for name, values in columns.items()}
    # The packaging has the rarer class, an income above 50,000 dollars, as 0.
    high = columns.pop("target") == 0
    features = features_of(columns)
    sizes = np.tile(BAG_SIZES, N_BAGS // len(BAG_SIZES))
    bag = np.empty(N_ITEMS, np.int64)
    bag[shuffled("bag", range(N_ITEMS))] = np.repeat(np.arange(N_BAGS), sizes)
    positives = np.bincount(bag, high, N_BAGS).astype(np.int64)
    is_false = np.zeros(N_BAGS, bool)
    is_false[shuffled("false", np.flatnonzero(sizes == max(BAG_SIZES)).tolist())[:FALSE_TOTALS]] = (
        True
    )
    said = positives + is_false * ((sizes - positives) // 2)
    bag_names = np.array([f"bag-{b:03d}" for b in range(N_BAGS)])
    ids = [name_of(n) for n in range(N_ITEMS)]
    flat = pa.array(features.ravel())
    items = pa.table(
        {
            "item_id": ids,
            "bag_id": bag_names[bag].tolist(),
            "features": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
        }
    )
    (args.out / "adult_bags").mkdir(parents=True, exist_ok=True)
    start = 0
    for shard, n in enumerate(SHARD_ITEMS):
        write(items.slice(start, n), args.out / "adult_bags" / f"part-{shard:05d}.parquet")
        start += n
    table = {"bag_id": bag_names.tolist(), "n": sizes, "positives": said}
    write(pa.table(table), args.out / "adult_bags.parquet")
    truth = {"item_id": ids, "is_high_income": high, "row": rows}
    write(pa.table(truth), args.out / "adult_bags_truth.parquet")
    true = {"bag_id": bag_names.tolist(), "positives": positives, "is_false": is_false}
    write(pa.table(true), args.out / "adult_bags_true_totals.parquet")


if __name__ == "__main__":
    main()
