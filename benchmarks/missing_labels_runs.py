"""Lists with missing positives, from shards: what stage `infer` says, and what it recalls.

    python benchmarks/missing_labels_runs.py --data DIR --out FILE [--sets emotions scene yeast]
        [--kept 25 one] [--ruled-out 0] [--ways before default …] [--seeds 10 11 12]
    python benchmarks/missing_labels_runs.py --out FILE --show

DIR holds <set>.csv.gz as for `multilabel_efficacy.py`. Of the positives 25 % are kept, or one of
every item; of what is not there a share in % is ruled out (`labels_negative`), none by default. All
else is unknown (`data.absent_labels = "unknown"`). Two shards of features → stages `source` and
`infer`, by

before     unknown cells ignored, so that no head has a no to learn from: linear, nearest, trees
default    without settings: unknown cells count as absent, and a network by LL-R is pooled with the
           other heads
without    the same without the network
negative   unknown cells count as absent whatever is ruled out, and the network
linear, nearest, trees, network  each head of `default` alone
an         the network alone, which takes every unknown cell for absent (missing_loss = an)

Trees take part where features × classes are at most 4,096. Which of these is the default, and from
which share ruled out on unknown cells are ignored, was decided on seeds 0 and 1.

Measured: mean over classes of average precision, in %, of the probabilities that every item has,
out of fold, against its full labels. And of the log `infer_recalls/` of *default*: precision and
recall of the cells of each epoch, recall of all hidden ones. FILE has one line of JSON for every
run; those that are there already are not run again.

Printed: mean over seeds; differences run by run, ± half a 95 % interval (Student's t) over seeds,
and over sets, seeds and what is kept.
"""

import argparse
import itertools
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from missing_positives import half, hide
from multilabel_efficacy import mean_average_precision, read_set

from labelops.nn.shallow import EPOCHS
from pipelines.recipe import parse_recipe
from pipelines.run import run

SETS = ("emotions", "scene", "yeast")
WAYS = {
    "before": ["infer.unknown=ignore"],
    "default": [],
    "without": ["infer.heads=['linear', 'nearest', 'trees']"],
    "negative": ["infer.unknown=negative"],
    "linear": ["infer.heads=['linear']"],
    "nearest": ["infer.heads=['nearest']"],
    "trees": ["infer.heads=['trees']"],
    "network": ["infer.heads=['network']"],
    "an": ["infer.heads=['network']", "infer.missing_loss=an"],
}
TREE_CELLS = 4096
KEY = ["set", "kept", "ruled_out", "seed", "way"]


def write(folder: Path, x: np.ndarray, given: np.ndarray, is_no: np.ndarray) -> None:
    """Write features and lists of classes as two shards."""
    folder.mkdir(parents=True)

    def lists(cells: np.ndarray) -> pa.Array:
        names = [[f"c{k:04d}" for k in np.flatnonzero(row)] for row in cells]
        return pa.array(names, pa.list_(pa.string()))

    whole = pa.table(
        {
            "item_id": np.arange(len(x)),
            "features": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1]),
            "labels": lists(given),
            **({"labels_negative": lists(is_no)} if is_no.any() else {}),
        }
    )
    half = len(x) // 2
    for part, rows in enumerate((whole.slice(0, half), whole.slice(half))):
        pq.write_table(rows, folder / f"part-{part}.parquet")


def read(folder: Path, columns: list[str]) -> pa.Table:
    """Return some columns of all shards of a folder of a run."""
    parts = [pq.read_table(path, columns=columns) for path in sorted(folder.glob("*.parquet"))]
    return pa.concat_tables(parts)


def rule_out(truth: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return which cells are ruled out, a share in % of those that are not there."""
    draws = np.random.default_rng([seed, 9]).random(truth.shape)
    return np.asarray(~truth & (draws < share / 100))


def measure(
    x: np.ndarray, truth: np.ndarray, given: np.ndarray, is_no: np.ndarray, way: str
) -> dict[str, Any]:
    """Run one way, and compare what it says and recalls with the truth."""
    own = WAYS[way]
    if way == "without" and x.shape[1] * truth.shape[1] > TREE_CELLS:
        own = ["infer.heads=['linear', 'nearest']"]
    work = Path(tempfile.mkdtemp(prefix="missing-"))
    names = [f"c{k:04d}" for k in range(truth.shape[1])]
    settings = [f"data.classes={names}", "data.absent_classes=allow", "data.absent_labels=unknown"]
    recipe = parse_recipe('stages = ["source", "infer"]', name=way, overrides=[*settings, *own])
    try:
        write(work / "data", x, given, is_no)
        start = time.perf_counter()
        run(recipe, data=str(work / "data"), out=str(work / "run"))
        seconds = time.perf_counter() - start
        said = read(work / "run" / "infer", ["item_id", "pred_probs"])
        log = None
        if (work / "run" / "infer_recalls").exists():
            log = read(work / "run" / "infer_recalls", ["item_id", "class_id", "epoch"])
    finally:
        shutil.rmtree(work)
    probs = np.zeros(truth.shape)
    probs[said["item_id"].to_numpy()] = np.stack(said["pred_probs"].to_numpy())
    found = {"mAP": 100 * mean_average_precision(probs, truth), "seconds": seconds}
    return found if log is None else found | recalled(log, truth, ~given & ~is_no)


def recalled(log: pa.Table, truth: np.ndarray, is_unknown: np.ndarray) -> dict[str, Any]:
    """Return how many cells every epoch recalls, and how well, by the log of a run."""
    item, class_id, epoch = (log[name].to_numpy() for name in ("item_id", "class_id", "epoch"))
    is_right = truth[item, class_id]
    n = np.bincount(epoch - 1, minlength=EPOCHS)
    right = np.bincount(epoch[is_right] - 1, minlength=EPOCHS)
    n_hidden = int((truth & is_unknown).sum())
    return {
        "n": n.tolist(),
        "precision": (right / np.where(n > 0, n, np.nan)).tolist(),
        "recall": (right / n_hidden).tolist(),
        "by chance": n_hidden / int(is_unknown.sum()),
    }


def show(rows: pd.DataFrame) -> None:
    """Print mAP by set, what is kept and way; differences; and how well cells are recalled."""
    table = rows.pivot_table(index=KEY[:4], columns="way", values="mAP")
    table = table[[way for way in WAYS if way in table]]
    print(table.groupby(KEY[:3]).mean().round(1).to_string(), "\n")
    first = "default" if "default" in table else table.columns[0]
    others = [way for way in table if way != first]
    against = table[others].rsub(table[first], axis=0)
    for key, part in against.groupby(KEY[:3]):
        print(*key, f"{first} less", differences(part))
    print(f"all: {first} less", differences(against), "\n")
    spent = rows.groupby(["set", "way"])["seconds"].mean().unstack().round(1)
    print(spent[[way for way in WAYS if way in spent]].to_string(), "\n")
    if "n" not in rows:
        return
    for key, part in rows[rows["way"] == first].dropna(subset="n").groupby(KEY[:3]):
        cells = []
        for epoch in (1, 4, 9, 14, 19):
            shares = [np.array([values[epoch] for values in part[name]]) for name in FOUND]
            n = np.mean([values[epoch] for values in part["n"]])
            told = " ".join(f"{s.mean():.3f} ± {half(s):.3f}" for s in shares)
            cells.append(f"{epoch + 1}: {n:.0f} {told}")
        chance = part["by chance"].mean()
        print(*key, f"epoch: cells precision recall (by chance {chance:.3f}) | ", " | ".join(cells))


FOUND = ("precision", "recall")


def differences(part: pd.DataFrame) -> str:
    """Return the mean of each column with half an interval."""
    told = []
    for way, values in part.items():
        known = values.dropna().to_numpy()
        if len(known):
            told.append(f"{way} {known.mean():+.2f} ± {half(known):.2f}")
    return ", ".join(told)


def main() -> None:
    """Run what is not there yet, and show all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--kept", nargs="+", default=["25", "one"])
    parser.add_argument("--ruled-out", nargs="+", type=float, default=[0.0])
    parser.add_argument("--ways", nargs="+", default=list(WAYS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[10, 11, 12])
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {tuple(row[key] for key in KEY) for row in rows}
    with args.out.open("a") as file:
        for seed, name in () if args.show else itertools.product(args.seeds, args.sets):
            x, truth = read_set(args.data / f"{name}.csv.gz")
            for kept, share, way in itertools.product(args.kept, args.ruled_out, args.ways):
                key = dict(zip(KEY, (name, kept, share, seed, way), strict=True))
                has_none = way == "trees" and x.shape[1] * truth.shape[1] > TREE_CELLS
                if has_none or tuple(key.values()) in done:
                    continue
                given, is_no = hide(truth, kept, seed) == 1, rule_out(truth, share, seed)
                rows.append(key | measure(x, truth, given, is_no, way))
                print(json.dumps(rows[-1]), file=file, flush=True)
    show(pd.DataFrame(rows))


if __name__ == "__main__":
    main()
