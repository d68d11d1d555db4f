"""Whether lists of labels are ever worse in the product than as given, on real sets with noise.

    python benchmarks/harm_lists.py --data DIR [--sets emotions scene yeast corel5k bibtex]
        [--noise none hide10 flip20] [--seeds 5] [--set decide_labels.add_confidence=0.95]

DIR holds <set>.csv.gz as for `multilabel_efficacy.py`, whose ways to spoil labels are used; *none*
leaves all as they are. For each setting: shards with features → recipe `multilabel` → the lists of
the product against the true ones, cell by cell, beside the given ones of the same items; whether
the bounds of the headline hold what is hidden and what is wrongly given. And how well missing
classes are listed (`multilabel/`): average precision over all cells that were not given, of the
classes listed, of those flagged alone, and of the model's own probabilities.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from efficacy import table
from multilabel_efficacy import read_set, spoil
from sklearn.metrics import average_precision_score

from labelops.confident.surest import Wrong
from pipelines.core.results import load_result
from pipelines.core.state import load_run
from pipelines.recipe import load_recipe
from pipelines.run import run

SETS = ("emotions", "scene", "yeast", "corel5k", "bibtex")
NOISE = ("none", "hide10", "hide20", "hide40", "flip10", "flip20")


def write(folder: Path, x: np.ndarray, given: np.ndarray, seed: int) -> Path:
    """Write features and lists of classes as two shards."""
    folder.mkdir(parents=True)
    lists = [np.flatnonzero(row).tolist() for row in given]
    whole = pa.table(
        {
            "item_id": [f"seed{seed}-{i}" for i in range(len(x))],
            "features": pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1]),
            "labels": pa.array(
                [[f"c{k:04d}" for k in row] for row in lists], pa.list_(pa.string())
            ),
        }
    )
    half = len(x) // 2
    for part, rows in enumerate((whole.slice(0, half), whole.slice(half))):
        pq.write_table(rows, folder / f"part-{part}.parquet")
    return folder


def measure(
    x: np.ndarray, true: np.ndarray, given: np.ndarray, seed: int, overrides: list[str]
) -> dict[str, float]:
    """Run one setting and compare its product with the truth."""
    work = Path(tempfile.mkdtemp(prefix="harm-"))
    names = [f"c{k:04d}" for k in range(true.shape[1])]
    settings = [f"data.classes={names}", "data.absent_classes=allow", *overrides]
    try:
        data = write(work / "data", x, given, seed)
        run(load_recipe("multilabel", settings), data=str(data), out=str(work / "run"))
        rows = table(work / "run" / "dataset", ["item_id", "labels_clean"])
        store = load_run(str(work / "run")).store
        outcome = load_result(store, "decide_labels", "outcome")
        beliefs = load_result(store, "multilabel", "beliefs")
        listed = table(
            work / "run" / "multilabel", ["item_id", "missing_ids", "missing_probs", "is_missing"]
        )
        model = table(work / "run" / "infer", ["item_id", "pred_probs"])
    finally:
        shutil.rmtree(work)
    clean = np.zeros(given.shape, bool)
    at = np.asarray(rows["row"])
    for i, labels in zip(at, rows["labels_clean"].to_pylist(), strict=True):
        clean[i, [int(label[1:]) for label in labels]] = True
    ranked = {"listed": np.zeros(given.shape), "flagged": np.zeros(given.shape)}
    for row in listed.to_pylist():
        i, ids = row["row"], row["missing_ids"]
        ranked["listed"][i, ids] = row["missing_probs"]
        ranked["flagged"][i, ids] = np.where(row["is_missing"], row["missing_probs"], 0)
    ranked["model"] = np.zeros(given.shape)
    ranked["model"][np.asarray(model["row"])] = np.stack(model["pred_probs"].to_numpy())
    lacks = true & ~given
    found = {
        f"AP {name}": average_precision_score(lacks[~given], score[~given]) if lacks.any() else 0.0
        for name, score in ranked.items()
    }
    missing, false = (Wrong(*beliefs[f"n_{kind}"].tolist()) for kind in ("missing", "wrong"))
    n_false = int((given & ~true).sum())
    changed = clean[at] != given[at]
    fixed, broken = changed & (clean[at] == true[at]), changed & (given[at] == true[at])
    return {
        "cells": true.size,
        "wrong": int((given != true).sum()),
        "changed": int(changed.sum()),
        "fixed": int(fixed.sum()),
        "broken": int(broken.sum()),
        "said broken": float(outcome["total_broken_high"]),
        "hidden": int(lacks.sum()),
        "false": n_false,
        **{f"hidden {end}": value for end, value in missing._asdict().items()},
        **{f"false {end}": value for end, value in false._asdict().items()},
        "hidden held": missing.low <= lacks.sum() <= missing.high,
        "false held": false.low <= n_false <= false.high,
        "in product": len(at),
        "given wrong": float((given[at] != true[at]).mean()),
        "clean wrong": float((clean[at] != true[at]).mean()),
        "listed": sum(map(len, listed["missing_ids"].to_pylist())),
        **found,
    }


def main() -> None:
    """Measure every setting, and say in how many the product is worse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--noise", nargs="+", default=NOISE)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    args = parser.parse_args()
    all_figures = []
    for seed in range(args.seeds):
        for name in args.sets:
            x, true = read_set(args.data / f"{name}.csv.gz")
            for noise in args.noise:
                given = true if noise == "none" else spoil(true, noise, seed)
                figures = measure(x, true, given, seed, args.overrides)
                all_figures.append({"set": f"{name} {noise}", "seed": seed, **figures})
                print(
                    "{set} #{seed}: of {cells} cells {hidden} hidden (said: {hidden value:.0f}, "
                    "{hidden low:.0f} to {hidden high:.0f}), {false} wrongly given ({false "
                    "value:.0f}, {false low:.0f} to {false high:.0f}) | changed "
                    "{changed}: {fixed} fixed, {broken} broken (at most {said broken:.0f}) | "
                    "{in product} items: {given wrong:.4f} → {clean wrong:.4f} wrong | missing, "
                    "AP: model {AP model:.3f}, flagged {AP flagged:.3f}, listed {AP listed:.3f} of "
                    "{listed} cells".format(**all_figures[-1]),
                    flush=True,
                )
    figures = pd.DataFrame(all_figures)
    honest = figures["broken"] <= np.ceil(figures["said broken"])
    print(
        f"{len(figures)} settings: product worse in {(figures['broken'] > figures['fixed']).sum()};"
        f" broken at most what was said in {honest.mean():.0%}; intervals hold what is hidden in "
        f"{figures['hidden held'].mean():.0%}, what is wrongly given in "
        f"{figures['false held'].mean():.0%}; they have a lower end above 0 in "
        f"{(figures['hidden low'] > 0).mean():.0%} and {(figures['false low'] > 0).mean():.0%}"
    )


if __name__ == "__main__":
    main()
