"""Labels that are missing in a table of items and classes, found without features.

    python benchmarks/matrix.py --data FOLDER [--sets corel5k bibtex yeast] [--seeds 5]
        [--shares 0.1 0.3 0.5] [--out matrix.json]

FOLDER has <set>.csv.gz with a header; columns named label__… are classes, all others are left
alone. Their labels count as the truth; a share of them is hidden at random. Of all cells that are
not given then, the hidden ones are to be found, by

popularity     how many items the class is given to
co-occurrence  `labelops.multilabel.cooccurrence`: the class's log-odds and what the item's other
               classes add
weighed        the same, both weighed by `labelops.multilabel.opinion`, as if the class's log-odds
               were what a model says
BPO            `labelops.partial.matrix` without flips
NBPO           the same with flips, g s / (1 − s + g s)
NBPO s         the same, s alone

For these rank and penalties are chosen, for each set, by the AUC of three tenths of its labels that
are hidden besides, from the three tenths hidden with the first seed; 40 epochs, and steps that end
as short as in the paper.

Printed: area under the ROC curve and average precision, over all cells at once; mean over seeds ±
half a 95 % interval (Student's t), and what NBPO is better by, seed by seed. What
`matrix.json` has already is not measured again.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelops.multilabel import opinion
from labelops.multilabel.cells import Cells
from labelops.multilabel.cooccurrence import evidence, summarize
from labelops.multilabel.labels import from_states
from labelops.partial.matrix import Training, fit_matrix, missing_scores

SETS = ("corel5k", "bibtex", "yeast", "emotions", "scene")
SAMPLE = 200_000
SHORT = Training(n_epochs=40, decay=0.95)
TRIED = [
    SHORT._replace(flips=flips, rank=rank, penalty=penalty, flip_penalty=held * penalty)
    for flips, held in ((False, 0), (True, 5), (True, 50))
    for rank in (4, 32)
    for penalty in (1.0, 10.0)
]


def read_labels(path: Path) -> np.ndarray:
    """Return which item has which class, (N, K)."""
    return pd.read_csv(path, usecols=lambda name: name.startswith("label__")).to_numpy() > 0


def by_classes(given: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return what co-occurrence says of every cell, plain and weighed; (N, K)."""
    labels = from_states(given.astype(np.int8))
    pairs = summarize(labels)
    row, class_id = (at.ravel() for at in np.indices(given.shape))
    cells = Cells(row, class_id, given.ravel(), np.zeros(given.size, np.float32))
    values = np.stack(evidence(cells, labels, pairs), axis=1)
    drawn = np.random.default_rng([seed, 1]).permutation(given.size)[:SAMPLE]
    odds = (pairs.n_yes / np.maximum(pairs.n_no, 1))[class_id[drawn]]
    found = opinion.fit_opinion(values[drawn], given.ravel()[drawn], odds, np.ones(len(drawn)))
    return {
        "co-occurrence": values.sum(axis=1).reshape(given.shape),
        "weighed": (values @ found.weight).reshape(given.shape),
    }


def by_factors(given: np.ndarray, training: Training, seed: int) -> dict[str, np.ndarray]:
    """Return the scores of every cell, (N, K)."""
    (row, column), (n_rows, n_columns) = np.nonzero(given), given.shape
    found = fit_matrix(
        row, column, n_rows=n_rows, n_columns=n_columns, training=training, seed=seed
    )
    row, column = (at.ravel() for at in np.indices(given.shape))
    score = missing_scores(found, row, column).reshape(given.shape)
    if not training.flips:
        return {"BPO": score}
    return {"NBPO": score, "NBPO s": found.preference.logits(row, column).reshape(given.shape)}


def hide(labels: np.ndarray, share: float, seed: list[int]) -> np.ndarray:
    """Return which labels are taken away."""
    cell = np.flatnonzero(labels)
    hidden = np.zeros(labels.shape, bool)
    rng = np.random.default_rng(seed)
    hidden.ravel()[rng.choice(cell, round(share * len(cell)), replace=False)] = True
    return hidden


def judged(score: np.ndarray, hidden: np.ndarray, given: np.ndarray) -> dict[str, float]:
    """Return how well hidden cells are told from the others that are not given."""
    wanted, score = hidden[~given], score[~given]
    auc, ap = roc_auc_score(wanted, score), average_precision_score(wanted, score)
    return {"auc": float(auc), "ap": float(ap)}


def choose(truth: np.ndarray) -> dict[str, list[object]]:
    """Return the settings of both, chosen without what is looked for."""
    given = truth & ~hide(truth, 0.3, [0, 0])
    hidden = hide(given, 0.3, [0, 2])
    found: dict[str, list[tuple[float, list[object]]]] = {"BPO": [], "NBPO": []}
    for training in TRIED:
        name = "NBPO" if training.flips else "BPO"
        try:
            score = by_factors(given & ~hidden, training, 0)[name]
        except ValueError:  # it ran away
            continue
        found[name].append((judged(score, hidden, given & ~hidden)["auc"], list(training)))
    return {name: max(tried)[1] for name, tried in found.items()}


def one_run(
    truth: np.ndarray, share: float, seed: int, chosen: dict[str, list[object]]
) -> dict[str, dict[str, float]]:
    """Hide labels and look for them with everything."""
    hidden = hide(truth, share, [seed, 0])
    given = truth & ~hidden
    says = {"popularity": np.broadcast_to(given.sum(axis=0), given.shape)}
    says |= by_classes(given, seed)
    for settings in chosen.values():
        says |= by_factors(given, Training(*settings), seed)
    return {name: judged(score, hidden, given) for name, score in says.items()}


def half(values: np.ndarray) -> float:
    """Return half a 95 % interval of the mean."""
    if len(values) < 2:
        return float("nan")
    return float(stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def show(runs: list[dict[str, dict[str, float]]]) -> None:
    """Print the figures of one set and share."""
    for name in runs[0]:
        cells = []
        for figure in runs[0][name]:
            values = np.array([run[name][figure] for run in runs])
            cells.append(f"{figure} {values.mean():.4f} ± {half(values):.4f}")
            if name != "NBPO":
                less = np.array([run["NBPO"][figure] for run in runs]) - values
                cells.append(f"(NBPO {less.mean():+.4f} ± {half(less):.4f})")
        print(f"    {name:16}" + "  ".join(cells), flush=True)


def main() -> None:
    """Measure every set and share."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--shares", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    known = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    for name in args.sets:
        truth = read_labels(args.data / f"{name}.csv.gz")
        print(f"{name}: {len(truth)} items, {truth.shape[1]} classes, {truth.sum()} labels")
        if name not in known:
            known[name] = choose(truth)
        print({method: Training(*settings) for method, settings in known[name].items()})
        for share in args.shares:
            keys = [f"{name} {share:g} {seed}" for seed in range(args.seeds)]
            for seed, key in enumerate(keys):
                if key not in known:
                    known[key] = one_run(truth, share, seed, known[name])
                    if args.out:
                        args.out.write_text(json.dumps(known, indent=1))
            print(f"  {share:.0%} hidden")
            show([known[key] for key in keys])


if __name__ == "__main__":
    main()
