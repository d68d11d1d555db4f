"""How often `labelops.partial.draw` warns, of random draws and of selections, on real tables.

    python benchmarks/draw.py --tables FOLDER [--seeds 2 3] [--items 6000] [--sets spambase …]
        [--frequencies 0.1 0.3 0.5]

Tables as in `prior.py`. Of the positives a share is labelled: *random* ones; with *score* rather
those that a linear model of the truth is surer of; with *feature* rather those of high values of
one feature, chosen at random among those of more than ten values. Odds to be labelled rise e-fold
for every standard deviation. Scores are the pool of a linear model and of trees, out of fold.

Printed: the share of settings with a warning, by selection; by set; and by share labelled. What the
check looks at was chosen on seeds 0 and 1.
"""

import argparse
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prior import SETS, label, read_set

from labelops.fast.trees import predict_trees
from labelops.nn.heads import fit_heads
from labelops.nn.linear import Block, predict
from labelops.opinions.pool import fit_weights, pool
from labelops.opinions.trees import fit_trees
from labelops.partial.draw import check_draw

FOLDS = 5


def scored(x: np.ndarray, labelled: np.ndarray, seed: int) -> np.ndarray:
    """Return pooled out-of-fold probabilities of being labelled."""
    given, fold = labelled.astype(int), np.random.default_rng(seed).permutation(len(x)) % FOLDS
    starts = range(0, len(x), 2048)
    blocks = [Block(x[a : a + 2048], given[a : a + 2048], fold[a : a + 2048]) for a in starts]
    linear = fit_heads(
        lambda: blocks, n_features=x.shape[1], n_classes=2, n_folds=FOLDS, max_iter=100
    )
    trees = fit_trees(x, given, fold, n_classes=2, n_folds=FOLDS)
    both = np.stack([predict(linear, x, fold), predict_trees(trees, x, fold)])
    return pool(both, fit_weights(both, given))[:, 1]


def label_by_feature(
    x: np.ndarray, positive: np.ndarray, frequency: float, seed: int
) -> np.ndarray:
    """Return which positives are labelled, rather those of high values of some feature."""
    rng = np.random.default_rng(seed)
    of_many = [d for d in range(x.shape[1]) if len(np.unique(x[:500, d])) > 10]
    z = x[:, rng.choice(of_many)]
    z = np.clip((z - z[positive].mean()) / max(z[positive].std(), 1e-9), -3, 3)
    odds = np.exp(z)
    share = odds / (odds + 1 / frequency - 1)
    return positive & (rng.random(len(x)) < share * frequency / share[positive].mean())


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--frequencies", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--items", type=int, default=6000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[2, 3])
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    rows = []
    for seed in args.seeds:
        for name in args.sets:
            x, positive = read_set(args.tables, name, seed, args.items)
            order = np.random.default_rng(seed).permutation(len(x))
            x, positive = x[order].astype(np.float32), positive[order]
            for frequency in args.frequencies:
                for selection in ("random", "score", "feature"):
                    if selection == "feature":
                        labelled = label_by_feature(x, positive, frequency, seed)
                    else:
                        labelled = label(x, positive, frequency, selection, seed)
                    check = check_draw(x, scored(x, labelled, seed), labelled)
                    rows.append((name, seed, frequency, selection, not check.is_plausible))
    table = pd.DataFrame(rows, columns=["set", "seed", "labelled", "selection", "warned"])
    print(table.groupby("selection")["warned"].agg(["mean", "sum", "count"]).round(3))
    for by in ("set", "labelled"):
        print(table.pivot_table(index=by, columns="selection", values="warned").round(2))


if __name__ == "__main__":
    main()
