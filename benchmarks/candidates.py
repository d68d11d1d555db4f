"""Candidate sets on real tables: which heads find the true class, of new items and of their own.

    python benchmarks/candidates.py --data partial_labels_real.npz [--sets lost MSRCv2]
        [--methods rc cc] [--splits 10] [--out candidates.json]

*lost* and *MSRCv2*, ten random splits, 80 % to learn from by candidate sets, 20 % with true labels
to measure on. Heads are linear and of one hidden layer, weighed as

rc              by each network itself (RC; PRODEN weighs likewise)
rc_balanced     so, with classes held to the sizes that sets alone speak for, half-way
rc_out_of_fold  by the network of another fold
cc              likelihood of the set
average         all candidates alike (linear only)

beside votes of the 15 nearest, and the pool of linear head, network and votes
(`fit_candidate_pool`). Weight decay is chosen by how likely sets are, out of fold; no true label is
looked at.

Printed, mean over splits ± half a 95 % interval (Student's t): accuracy on new items (a network
trained on all items of the split); share of training items with several candidates of which the
most believed, by networks that have not seen them, is the true one (*found*), with the mean of what
is believed of it (*promised*); the same of those of which 90 % or more is believed (*sure*: how
many); and the share of wrong sets that is estimated, of which there is none. Then planted sets on
the items of *lost*, three splits, linear heads: distractors drawn evenly (each other class in 30 %
of sets); *paired*, where the class that follows the true one is in 80 % of sets and others in 5 %;
and *wrong*, where 10 % of sets lack the true class. What `candidates.json` has already is not
measured again. With --product instead: all items as shards through recipe `partial` (--set changes
settings), and the product against the truth.
"""

import argparse
import itertools
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelops.nn.candidate_heads import Method, fit_candidates, predict_candidates
from labelops.opinions.nearest import N_VOTERS, refer
from labelops.opinions.pool import pool
from labelops.partial.candidates import (
    candidate_beliefs,
    count_candidate_votes,
    fit_candidate_pool,
    fit_power,
)
from pipelines.core.results import load_result
from pipelines.core.state import load_run
from pipelines.recipe import load_recipe
from pipelines.run import run

FOLDS, SURE, PLANTED_SPLITS = 5, 0.9, 3
PLANTED = {"lost, even": "even", "lost, paired": "paired", "lost, wrong": "wrong"}
METHODS = ("votes", *get_args(Method))
TITLES = {"votes": "nearest votes"}
FIGURES = ("new", "found", "promised", "sure", "sure right", "sure promised", "wrong")
PUBLISHED = {
    "lost": {"RC": 75.89, "CAVL": 63.11, "PiCO": 65.33, "DIRK": 74.26, "ED-PLL": 76.78},
    "MSRCv2": {"RC": 58.28, "CAVL": 52.84, "PiCO": 49.14, "DIRK": 44.61, "ED-PLL": 59.85},
}


class Part(NamedTuple):
    """Features (N, D), candidates (N, K) and true classes (N,) of some items."""

    x: np.ndarray
    is_candidate: np.ndarray
    true: np.ndarray

    def take(self, rows: np.ndarray) -> "Part":
        """Return some of the items."""
        return Part(*(column[rows] for column in self))


class Said(NamedTuple):
    """What heads say of training items out of fold, and of new ones: shapes (N, K) and (M, K)."""

    own: np.ndarray
    new: np.ndarray


def read(path: Path, name: str) -> Part:
    """Return a data set."""
    with np.load(path) as file:
        x, sets, true = (file[f"{name}_{part}"] for part in ("X", "cand", "true"))
    true = true.astype(np.int64).ravel()
    is_candidate = sets.astype(bool)
    assert is_candidate[np.arange(len(true)), true].all()
    return Part(x.astype(np.float32), is_candidate, true)


def split(whole: Part, seed: int) -> tuple[Part, Part, np.ndarray]:
    """Return items to learn from, new ones, and folds of the former."""
    rng = np.random.default_rng(seed)
    order, n = rng.permutation(len(whole.true)), round(0.8 * len(whole.true))
    return whole.take(order[:n]), whole.take(order[n:]), np.arange(n) % FOLDS


def heads(train: Part, new: Part, fold: np.ndarray, method: str, hidden: int) -> Said:
    """Return what heads say."""
    # No item is in the last fold: its network has seen all of them.
    networks = fit_candidates(
        train.x, train.is_candidate, fold, n_folds=FOLDS + 1, method=method, hidden=hidden
    )
    return Said(
        predict_candidates(networks, train.x, fold),
        predict_candidates(networks, new.x, np.full(len(new.x), FOLDS)),
    )


def votes(train: Part, new: Part) -> Said:
    """Return votes of the nearest."""
    references = refer(train.x, train.true, np.arange(len(train.x)))
    distance = np.square(references.vectors).sum(axis=1)
    said = []
    for x in (train.x, new.x):
        y = ((x - references.mean) / references.std).astype(np.float32)
        apart = distance - 2 * y @ references.vectors.T
        if x is train.x:
            np.fill_diagonal(apart, np.inf)
        near = np.argsort(apart, axis=1, kind="stable")[:, :N_VOTERS]
        said.append(count_candidate_votes(near, train.is_candidate))
    return Said(*said)


def measure(said: list[Said], train: Part, new: Part) -> dict[str, float]:
    """Return how good opinions are together."""
    own, of_new = (np.stack(part) for part in zip(*said, strict=True))
    found = fit_candidate_pool(own, train.is_candidate)
    together = pool(own, found.weights)
    power = fit_power(together, train.is_candidate)
    belief, _ = candidate_beliefs(together, train.is_candidate, wrong=found.wrong, power=power)
    is_sure = belief.max(axis=1) >= SURE
    is_open = train.is_candidate.sum(axis=1) > 1
    best, at = belief.argmax(axis=1), np.arange(len(belief))
    return {
        "new": np.mean(pool(of_new, found.weights).argmax(axis=1) == new.true),
        "found": np.mean((best == train.true)[is_open]),
        "promised": belief[at, best][is_open].mean(),
        "sure": is_sure[is_open].mean(),
        "sure right": (best == train.true)[is_sure & is_open].mean(),
        "sure promised": belief[at, best][is_sure & is_open].mean(),
        "power": power,
        "wrong": found.wrong,
        "loss": found.loss,
    }


def measured(
    train: Part, new: Part, fold: np.ndarray, method: str, *, is_planted: bool
) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the figures of a method."""
    near = votes(train, new)
    if method == "votes":
        yield "nearest votes", measure([near], train, new)
        return
    linear = heads(train, new, fold, method, 0)
    yield f"{method}, linear", measure([linear], train, new)
    if not is_planted and method != "average":
        network = heads(train, new, fold, method, 256)
        yield f"{method}, network", measure([network], train, new)
        yield f"{method}, both", measure([linear, network], train, new)
        yield f"{method}, pool", measure([linear, network, near], train, new)


def planted(whole: Part, kind: str, seed: int) -> Part:
    """Return the items with other candidate sets."""
    rng = np.random.default_rng(seed)
    n, n_classes = whole.is_candidate.shape
    at, true = np.arange(n), whole.true
    sets = rng.random((n, n_classes)) < {"even": 0.3, "paired": 0.05, "wrong": 0.2}[kind]
    sets[at, true] = True
    if kind == "paired":
        sets[at, (true + 1) % n_classes] |= rng.random(n) < 0.8
    if kind == "wrong":
        lacks = np.flatnonzero(rng.random(n) < 0.1)
        sets[lacks, true[lacks]] = False
        sets[lacks, (true[lacks] + rng.integers(1, n_classes, len(lacks))) % n_classes] = True
    return whole._replace(is_candidate=sets)


def show(rows: list[dict[str, object]], name: str) -> None:
    """Print what was measured of a set."""
    groups: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["set"] == name:
            for what in FIGURES:
                groups[str(row["method"])][what].append(float(str(row[what])))
    print(f"\n{name}; published: {PUBLISHED.get(name, 'nothing')}")
    print(f"    {'':22}{''.join(f'{what:>14}' for what in FIGURES)}")
    for method, measures in groups.items():
        cells = [f"{mean_and_half(values):>14}" for values in measures.values()]
        print(f"    {method:22}{''.join(cells)}", flush=True)


def mean_and_half(values: list[float]) -> str:
    """Return mean and half interval in percent."""
    percent = 100 * np.array(values)
    if len(percent) < 2:
        return f"{percent.mean():.1f}"
    half = stats.t.ppf(0.975, len(percent) - 1) * percent.std(ddof=1) / np.sqrt(len(percent))
    return f"{percent.mean():.1f} ± {half:.1f}"


def show_product(whole: Part, title: str, more: list[str], *, is_wrong: bool) -> None:
    """Print what recipe `partial` makes of items whose ids are their places."""
    rng, n = np.random.default_rng(0), len(whole.true)
    sets = whole.is_candidate.copy()
    lacks = np.flatnonzero((rng.random(n) < 0.1) & (sets.sum(axis=1) > 1) & is_wrong)
    sets[lacks, whole.true[lacks]] = False
    vectors = pa.FixedSizeListArray.from_arrays(whole.x.ravel(), whole.x.shape[1])
    lists = pa.array([np.flatnonzero(row).tolist() for row in sets])
    items = pa.table({"item_id": np.arange(n), "features": vectors, "candidates": lists})
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        source.mkdir()
        for shard, start in enumerate(range(0, n, 300)):
            pq.write_table(items.slice(start, 300), source / f"part-{shard:05d}.parquet")
        settings = [f"data.classes={[str(k) for k in range(sets.shape[1])]}"]
        settings += ["data.absent_classes=allow", *more]
        run(load_recipe("partial", settings), data=str(source), out=str(out))
        files = [*(out / "dataset").glob("*.parquet"), *(out / "set_aside").glob("*.parquet")]
        rows = pa.concat_tables(map(pq.read_table, files)).to_pandas()
        found = load_result(load_run(str(out)).store, "partial", "fit")
    rows["right"] = rows["label_clean"] == whole.true[rows["item_id"]]
    rows["lacks"] = np.isin(rows["item_id"], lacks)
    is_chosen = rows["decision"] == "relabel"
    chosen, kept = rows[is_chosen], rows[rows["decision"] == "keep"]
    n_open = int((sets.sum(axis=1) > 1).sum())
    none = rows[rows["reason"].str.startswith("none of its")]
    parts = [f"{title}: {n} items, {n_open} with several candidates"]
    parts.append(f"chosen {len(chosen) / n_open:.1%} of these, right {chosen['right'].mean():.1%}")
    parts.append(f"promised {chosen['confidence'].mean():.1%}")
    parts.append(f"one candidate kept {len(kept)}, right {kept['right'].mean():.1%}")
    parts.append(", ".join(f"{word} {k}" for word, k in rows["decision"].value_counts().items()))
    for low, high in ((0.9, 0.95), (0.95, 0.99), (0.99, 1.01)):
        band = chosen[(chosen["confidence"] >= low) & (chosen["confidence"] < high)]
        right, promised = band["right"].mean(), band["confidence"].mean()
        parts.append(f"from {low}: {len(band)}, right {right:.1%}, promised {promised:.1%}")
    parts.append(f"no candidate believed: {len(none)}, wrong sets of these {none['lacks'].sum()}")
    parts.append(f"wrong sets {len(lacks)}, chosen from {chosen['lacks'].sum()}")
    parts.append(f"estimated {float(found['wrong']):.1%}; power {float(found['power']):.2f}")
    print("\n    ".join(parts), flush=True)


def main() -> None:
    """Measure every set and split."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["lost", "MSRCv2", *PLANTED])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--product", action="store_true")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    args = parser.parse_args()
    if args.product:
        for name in [name for name in args.sets if name in PUBLISHED]:
            for given in ("all sets", "10 % wrong"):
                whole, is_wrong = read(args.data, name), given != "all sets"
                show_product(whole, f"{name}, {given}", args.settings, is_wrong=is_wrong)
        return
    rows = json.loads(args.out.read_text()) if args.out and args.out.exists() else []
    for method, seed, name in itertools.product(args.methods, range(args.splits), args.sets):
        if name in PLANTED and seed >= PLANTED_SPLITS:
            continue
        done = {(row["set"], row["seed"], str(row["method"]).split(",")[0]) for row in rows}
        if (name, seed, TITLES.get(method, method)) in done:
            continue
        whole = read(args.data, name if name in PUBLISHED else "lost")
        if name in PLANTED:
            whole = planted(whole, PLANTED[name], seed)
        parts = split(whole, seed)
        for title, measures in measured(*parts, method, is_planted=name in PLANTED):
            rows.append({"set": name, "seed": seed, "method": title, **measures})
        if args.out:
            args.out.write_text(json.dumps(rows))
    for name in args.sets:
        show(rows, name)


if __name__ == "__main__":
    main()
