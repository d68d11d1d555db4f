"""Make the sample of reported spam again, byte for byte, from the Spambase data set.

    python sample_data/make_spam_reports.py FILE [--out sample_data]

FILE is `spambase.tsv.gz` of the Penn Machine Learning Benchmarks. In which order mails come and
which of the spam is reported follows from SHA-256 of a purpose and a number, so no random generator
and none of its versions matters; the bytes of the files also depend on the pinned version of
pyarrow.
"""

import argparse
import gzip
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
from make_adult_bags import shuffled, write

TSV_SHA256 = "28c7c0c2f4426d7ea8168788fb4959564f64dd9f18d00bb20e8c35cfc4391a21"

WORDS = [
    "make",
    "address",
    "all",
    "3d",
    "our",
    "over",
    "remove",
    "internet",
    "order",
    "mail",
    "receive",
    "will",
    "people",
    "report",
    "addresses",
    "free",
    "business",
    "email",
    "you",
    "credit",
    "your",
    "font",
    "000",
    "money",
    "hp",
    "hpl",
    "george",
    "650",
    "lab",
    "labs",
    "telnet",
    "857",
    "data",
    "415",
    "85",
    "technology",
    "1999",
    "parts",
    "pm",
    "direct",
    "cs",
    "meeting",
    "original",
    "project",
    "re",
    "edu",
    "table",
    "conference",
]
SIGNS = ("semicolon", "parenthesis", "bracket", "exclamation", "dollar", "hash")
CAPITALS = ("average", "longest", "total")

REPORTED = 0.3
"""So much of the spam is reported."""

SHARD_ITEMS = (700, 43, 1800, 1200, 858)
"""Unequal on purpose; the sum is all mails."""


def read_spambase(path: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the columns of the table, and which mails are spam; it must be the published one."""
    raw = gzip.decompress(path.read_bytes())
    found = hashlib.sha256(raw).hexdigest()
    if found != TSV_SHA256:
        raise ValueError(
            f"{path.name} must hold the Spambase set of the Penn Machine Learning Benchmarks "
            f"(sha256 {TSV_SHA256}); got {found} in {path.parent}. Is the download damaged?"
        )
    values = np.array([line.split("\t") for line in raw.decode().splitlines()[1:]], np.float64)
    names = [
        *(f"word_{word}" for word in WORDS),
        *(f"sign_{sign}" for sign in SIGNS),
        *(f"capitals_{kind}" for kind in CAPITALS),
    ]
    return dict(zip(names, values[:, :-1].T, strict=True)), values[:, -1] == 1


def main() -> None:
    """Write shards and truth."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args()
    columns, is_spam = read_spambase(args.file)
    order = np.array(shuffled("spam_reports/order", range(len(is_spam))))
    is_spam = is_spam[order]
    spam = shuffled("spam_reports/reported", np.flatnonzero(is_spam).tolist())
    is_reported = np.zeros(len(is_spam), bool)
    is_reported[spam[: round(REPORTED * len(spam))]] = True
    ids = [f"mail{n:04d}" for n in range(len(is_spam))]
    mails = pa.table(
        {
            "item_id": ids,
            **{name: values[order].astype(np.float32) for name, values in columns.items()},
            "positive": pa.array(is_reported, mask=~is_reported),
        }
    )
    (args.out / "spam_reports").mkdir(parents=True, exist_ok=True)
    start = 0
    for shard, n in enumerate(SHARD_ITEMS):
        write(mails.slice(start, n), args.out / "spam_reports" / f"part-{shard:05d}.parquet")
        start += n
    truth = {"item_id": ids, "is_spam": is_spam, "row": order}
    write(pa.table(truth), args.out / "spam_reports_truth.parquet")


if __name__ == "__main__":
    main()
