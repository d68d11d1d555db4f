"""What stored soft labels cost, and what a student learns from a few classes of each.

    python benchmarks/soft_labels.py [--views 40000] [--classes 1000] [--tables FOLDER]
        [--seeds 5] [--only store students]

*store*: made-up logits of views, alike within a picture. Bytes a view in Parquet with box, flip and
item id, zstd as runs write it, for every kind and type of numbers and k = 5, 10, 50; beside them
dense single precision in the same file, and what published layouts take by their definition (FKD
in single and half precision with its boxes, TinyViT with its seed). Views a second to encode, to
read from Parquet and decode to dense rows, one thread, processor time; and mean of what is lost, in
nats.

*students*: histogram trees are the teacher of `letter` (26 classes), out of fold; linear students
learn its labels at a half of the items, stored as the k most probable classes, the others sharing
their mass or having nothing, or as n drawn classes; L-BFGS to the end. At the other half: KL from
the teacher's dense labels to the student, and accuracy. Values stored of an item on average; how
far the mean gradient of random students is from the dense one, and one gradient's spread. Mean over
seeds ± half a 95 % interval.
"""

import argparse
import io
import sys
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harm import out_of_fold, read_table, trees

from labelops.hashing import hash_integers
from labelops.soft.sampled import draw_classes, read_drawn
from labelops.soft.views import Coding, check_written, decode, encode, take_views
from pipelines.soft.columns import (
    SoftFacts,
    Teacher,
    ViewRows,
    from_table,
    parquet_options,
    to_table,
)

KINDS = (("prob", "f32"), ("prob", "f16"), ("logit", "f16"), ("logprob", "u8"))
VIEWS_OF_A_PICTURE = 200


def some_views(n: int, n_classes: int) -> tuple[np.ndarray, np.ndarray, ViewRows]:
    """Return logits, given classes, and boxes, flips and ids of views without labels."""
    rng = np.random.default_rng(0)
    picture = np.arange(n) // VIEWS_OF_A_PICTURE
    given = rng.integers(0, n_classes, picture.max() + 1)
    own = rng.normal(size=(len(given), n_classes)).astype(np.float32) * 1.5
    own[np.arange(len(given)), given] += 8
    logits = own[picture] + rng.normal(size=(n, n_classes)).astype(np.float32)
    size = rng.integers(300, 700, (len(given), 2))[picture]
    length = np.maximum((size * np.sqrt(rng.uniform(0.08, 0.94, (n, 1)))).astype(int), 1)
    first = (rng.random((n, 2)) * (size - length + 1)).astype(int)
    ids = pa.array([f"n{i:08d}" for i in picture])
    box = np.column_stack([first, length])
    view = np.arange(n) % VIEWS_OF_A_PICTURE
    return logits, given[picture], ViewRows(ids, view, None, box, size, rng.random(n) < 0.5)


def packed(table: pa.Table) -> bytes:
    """Return a table as a Parquet file."""
    sink = io.BytesIO()
    options = parquet_options() if "topk_ids" in table.column_names else {"compression": "zstd"}
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def store(args: argparse.Namespace) -> None:
    """Print what every way to store costs."""
    logits, given, rows = some_views(args.views, args.classes)
    n = len(logits)
    probs = softmax(logits, axis=1)
    flat = pa.array(probs.ravel())
    dense = pa.table(
        {"item_id": rows.item_id, "probs": pa.FixedSizeListArray.from_arrays(flat, args.classes)}
    )
    size = f"{4 * args.classes:,} bytes a view, in Parquet {len(packed(dense)) / n:,.0f}"
    print(f"{n:,} views, {args.classes:,} classes; dense single precision: {size}")
    del dense, flat
    for k in (5, 10, 50):
        fkd = 17 + 8 * k, 9 + 4 * k
        print(f"k = {k}: FKD {fkd[0]} in single, {fkd[1]} in half precision; TinyViT {4 + 4 * k}")
        for kind, number in KINDS:
            facts = SoftFacts(
                classes=tuple(str(c) for c in range(args.classes)), kind=kind, number=number,
                temperature=1.0, k=k, teachers=(Teacher(name="made up", sha256="0" * 64),),
            )  # fmt: skip
            began = time.process_time()
            labels = encode(logits, given, coding=facts.coding, k=k)
            encoded = time.process_time() - began
            file = packed(to_table(rows._replace(labels=labels), facts))
            lost = check_written(
                logits[:2000], take_views(labels, slice(2000)), coding=facts.coding
            )
            began = time.process_time()
            back, _ = from_table(pq.read_table(io.BytesIO(file), use_threads=False), {"k": k})
            read = time.process_time() - began
            decode(back.labels, coding=facts.coding)
            decoded = time.process_time() - began
            print(
                f"    {kind:8}{number:4}{len(file) / n:7.1f} bytes a view; encoded "
                f"{n / encoded:9,.0f}/s, read {n / read:11,.0f}/s, read and decoded "
                f"{n / decoded:9,.0f}/s; lost {lost.mean():.4f} nats",
                flush=True,
            )


def student(x: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return weights (D, K) of least cross-entropy to labels, with a little L2."""
    d, k = x.shape[1], q.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat.reshape(d, k)
        log_p = log_softmax(x @ w, axis=1)
        slope = x.T @ (np.exp(log_p) * q.sum(axis=1, keepdims=True) - q) / len(x) + 1e-5 * w
        return float(-(q * log_p).sum() / len(x) + 0.5e-5 * (w * w).sum()), slope.ravel()

    done = minimize(loss, np.zeros(d * k), jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return done.x.reshape(d, k)


def ways(z: np.ndarray, p: np.ndarray, hashes: np.ndarray) -> dict[str, tuple[np.ndarray, float]]:
    """Return labels read back, and how many values were stored of an item."""
    lead, found = p.argmax(axis=1), {"dense": (p, float(p.shape[1]))}
    coding = Coding("prob", "f16", p.shape[1])
    for k in (1, 2, 3, 5):
        views = encode(z, lead, coding=coding, k=k)
        found[f"top {k}, rest even"] = decode(views, coding=coding), k
        found[f"top {k}, rest none"] = decode(views, coding=coding, rest="none"), k
    for n in (1, 4, 12):
        drawn = draw_classes(p, hashes, n_draws=n)
        found[f"{n} drawn"] = read_drawn(drawn), len(drawn.ids) / len(p)
    return found


def students(args: argparse.Namespace) -> None:
    """Print what students learn."""
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for seed in range(args.seeds):
        x, true = read_table(args.tables, "letter", seed, args.items)
        p = out_of_fold(trees(), x, true, seed).astype(np.float64)
        p /= p.sum(axis=1, keepdims=True)
        z = np.log(p)
        x = np.column_stack([(x - x.mean(axis=0)) / x.std(axis=0), np.ones(len(x))])
        # Pairs of features, so that a linear student can be nearly right.
        i, j = np.triu_indices(16)
        x = np.column_stack([x, x[:, i] * x[:, j]])
        half, rng = np.arange(len(x)) < len(x) // 2, np.random.default_rng(seed)
        hashes = hash_integers(np.arange(len(x)) + 1000 * seed)
        told = ways(z[half], p[half], hashes[half])
        some = [x[half] @ rng.normal(size=(x.shape[1], p.shape[1])) * 0.05 for _ in range(5)]
        for title, (q, stored) in told.items():
            w = student(x[half], q)
            log_p = log_softmax(x[~half] @ w, axis=1)
            kl = (p[~half] * (z[~half] - log_p)).sum() / (~half).sum()
            right = (log_p.argmax(axis=1) == true[~half]).mean()
            off, spread = [], []
            for logits in some:
                exact, told_so = softmax(logits, axis=1) - p[half], softmax(logits, axis=1) - q
                whole = np.linalg.norm(x[half].T @ exact)
                off.append(np.linalg.norm(x[half].T @ (told_so - exact)) / whole)
                spread.append(np.sqrt(((told_so - exact) ** 2).sum(axis=1).mean()))
            rows[title].append([stored, kl, right, np.mean(off), np.mean(spread)])
    print(f"\nletter, {args.items:,} items, {args.seeds} seeds")
    names = ("values stored", "KL to teacher", "accuracy", "gradient off", "spread of one")
    print(f"{'':20}" + "".join(f"{name:>19}" for name in names))
    for title, found in rows.items():
        table = np.array(found)
        half_width = stats.t.ppf(0.975, max(len(table) - 1, 1)) * table.std(
            axis=0, ddof=len(table) > 1
        )
        half_width /= np.sqrt(len(table))
        cells = "".join(
            f"{m:>11.4f} ± {h:.4f}"[:19].rjust(19)
            for m, h in zip(table.mean(axis=0), half_width, strict=True)
        )
        print(f"{title:20}{cells}", flush=True)


def main() -> None:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--views", type=int, default=40_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--items", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=["store", "students"])
    args = parser.parse_args()
    parts = args.only or ["store", *(["students"] if args.tables else [])]
    if "store" in parts:
        store(args)
    if "students" in parts:
        students(args)


if __name__ == "__main__":
    main()
