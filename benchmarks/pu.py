"""Learning from positive and unlabelled items on real data, beside pulearn and full supervision.

    python benchmarks/pu.py --tables FOLDER [--site SITE] [--small cifar10n_small_5k_with_images.npz
        --embedding lite0_small.npy] [--seeds 2] [--items 8000] [--sets spambase …]
        [--frequencies 0.1 0.3 0.5] [--selection random score] [--out pu.json]

Tables, SITE, and which positives are labelled: as in `prior.py`, with which this shares its code.
`cifar` is the CIFAR-10N cut with its true classes, animals against the rest, on an embedding (see
`embedder.py`).
One sample: labelled positives are a part of it. Everything is out of fold, with five folds:

* *ready heads*: P(labelled | x) of a linear model, trees and nearest neighbours, and of their pool;
  items are ranked by it, as it is;
* *losses*: `labelops.nn.positive_heads`, linear and with a hidden layer, each with the prior that
  `estimate_prior` finds on the pool's scores (TEDⁿ and VPU without);
* *PU pool*: the ready heads and VPU's network, by `fit_positive_pool`;
* pulearn's classifiers, with linear models and, of at most 200 features, trees as base, and the
  same prior where asked;
* *supervised*: the heads, a network, and the pool of these, fitted to the truth.

Printed: AUC and F1 of all items against the truth (F1 at a posterior of ½ by
`labelops.partial.posteriors`; pulearn's and the supervised by what they predict); Brier score and
calibration error of the posteriors of unlabelled items; the error of the share of positives in the
data set, by DEDPUL on the pool's scores (*prior*) and on the PU pool's, and by TEDⁿ, and how often
the interval of `estimate_prior` holds. What `--out` has already is not measured again.
"""

import argparse
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from opinions import heads
from prior import SETS, label, read_set

from labelops.nn.positive_heads import METHODS, NEEDS_PRIOR, fit_positives, positive_scores
from labelops.opinions.pool import fit_weights, pool
from labelops.partial.posteriors import (
    believe_positive,
    fit_positive_pool,
    fit_posterior,
    pool_positives,
)
from labelops.partial.prior import estimate_prior
from labelops.partial.risks import UNLABELLED
from labelops.partial.scores import count_scores

FOLDS = 5
READY = ("linear", "nearest", "trees")
HIDDEN_UNITS = {"linear": 0, "network": 64}
ANIMALS = (2, 3, 4, 5, 6, 7)

MOST_FOR_TREES = 200
"""Features up to which pulearn is given trees, too: its bagging fits fifty times as many."""


def read(args: argparse.Namespace, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return standardised features and which items are positive, in an order drawn anew."""
    if name == "cifar":
        x = np.load(args.embedding, allow_pickle=False)
        positive = np.isin(np.load(args.small, allow_pickle=False)["clean_label"], ANIMALS)
    else:
        x, positive = read_set(args.tables, name, seed, args.items)
    order = np.random.default_rng(seed).permutation(len(x))[: args.items]
    x = x[order] - x[order].mean(axis=0)
    deviation = x.std(axis=0)
    return (x / np.where(deviation > 0, deviation, 1)).astype(np.float32), positive[order]


def pooled(said: dict[str, np.ndarray], names: tuple[str, ...], given: np.ndarray) -> np.ndarray:
    """Return the pool of some heads."""
    probs = np.stack([said[name] for name in names])
    return pool(probs, fit_weights(probs, given))[:, 1]


def theirs(
    x: np.ndarray, labelled: np.ndarray, fold: np.ndarray, prior: float, seed: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield what pulearn's classifiers say out of fold: scores, and which items are positive."""
    from pulearn import (
        BaggingPuClassifier,
        ElkanotoPuClassifier,
        NNPUClassifier,
        PositiveNaiveBayesClassifier,
        WeightedElkanotoPuClassifier,
        WeightedNaiveBayesClassifier,
    )

    trees = HistGradientBoostingClassifier(
        max_iter=50, max_leaf_nodes=15, early_stopping=False, random_state=0
    )
    bases = {"linear": LogisticRegression(max_iter=200)}
    if x.shape[1] <= MOST_FOR_TREES:
        bases["trees"] = trees
    for title in ("Elkan-Noto", "weighted Elkan-Noto", "bagging"):
        for base, model in bases.items():

            def made(y: np.ndarray, *, title: str = title, model: object = model) -> object:
                if title == "bagging":
                    return BaggingPuClassifier(clone(model), n_estimators=10, random_state=seed)
                if title == "Elkan-Noto":
                    return ElkanotoPuClassifier(clone(model), random_state=seed)
                n = int(y.sum())
                return WeightedElkanotoPuClassifier(
                    clone(model), labeled=n, unlabeled=len(y) - n, random_state=seed
                )

            yield f"pulearn {title}, {base}", *out_of_fold(made, x, labelled, fold)
    known = min(max(prior, 1e-3), 1 - 1e-3)
    for title, model in (
        ("nnPU", NNPUClassifier(prior=known, random_state=seed)),
        ("naive Bayes", PositiveNaiveBayesClassifier()),
        ("weighted naive Bayes", WeightedNaiveBayesClassifier()),
    ):
        yield f"pulearn {title}", *out_of_fold(lambda _, m=model: clone(m), x, labelled, fold)


def out_of_fold(made: object, x: np.ndarray, labelled: np.ndarray, fold: np.ndarray) -> tuple:
    """Return scores and answers of one of pulearn's classifiers."""
    score, answer, y = np.zeros(len(x)), np.zeros(len(x), bool), labelled.astype(int)
    for f in range(FOLDS):
        train, test = fold != f, fold == f
        model = made(y[train]).fit(x[train].astype(np.float64), y[train])
        probs = np.asarray(model.predict_proba(x[test].astype(np.float64)))
        score[test] = probs[:, 1] if probs.ndim == 2 else probs
        answer[test] = np.asarray(model.predict(x[test].astype(np.float64))) == 1
    return score, answer


def calibration_error(p: np.ndarray, positive: np.ndarray) -> float:
    """Return how far means of twenty parts of equal size are from their shares, on average."""
    parts = np.array_split(np.argsort(p, kind="stable"), 20)
    return float(
        sum(len(part) * abs(p[part].mean() - positive[part].mean()) for part in parts) / len(p)
    )


def measure(
    args: argparse.Namespace, x: np.ndarray, positive: np.ndarray, labelled: np.ndarray, seed: int
) -> dict[str, dict[str, float]]:
    """Return measures of every method in one setting."""
    found: dict[str, dict[str, float]] = {}
    fold = np.random.default_rng(seed).permutation(len(x)) % FOLDS
    state, share = np.where(labelled, 1, -1), float(positive[~labelled].mean())

    def note(title: str, score: np.ndarray, answer: np.ndarray | None = None) -> None:
        if answer is None:
            posterior = fit_posterior(count_scores(score, labelled), prior)
            # Of a labelled item, too, what would be believed if it were not.
            p = believe_positive(posterior, score, np.full(len(score), UNLABELLED)).p
            found[title] = {
                "brier": float(np.mean((p - positive)[~labelled] ** 2)),
                "calibration": calibration_error(p[~labelled], positive[~labelled]),
            }
            answer = p >= 0.5
        found.setdefault(title, {}).update(
            auc=float(roc_auc_score(positive, score)), f1=float(f1_score(positive, answer))
        )

    said = heads(x, labelled.astype(int), seed)
    score = pooled(said, READY, labelled)
    counts = count_scores(score, labelled)
    prior = estimate_prior(counts)
    found["prior"] = {
        "error": prior.of_all(counts) - float(positive.mean()),
        "held": float(prior.low <= share <= prior.high),
    }
    for name in READY:
        note(f"ready {name}", said[name][:, 1])
    note("ready pool", score)
    for kind, hidden in HIDDEN_UNITS.items():
        for method in args.methods:
            fitted = fit_positives(
                x,
                state,
                fold,
                n_folds=FOLDS,
                method=method,
                prior=prior.value if method in NEEDS_PRIOR else None,
                hidden=hidden,
                seed=seed,
            )
            said[f"{method}, {kind}"] = positive_scores(fitted, x, fold)
            note(f"{method}, {kind}", said[f"{method}, {kind}"])
            if method == "tedn":
                whole = prior._replace(value=fitted.prior).of_all(counts)
                found[f"{method}, {kind}"]["error"] = whole - float(positive.mean())
    both = np.stack([*(said[name][:, 1] for name in READY), said["vpu, network"]])
    score = pool_positives(both, fit_positive_pool(both, labelled, prior=prior.value))
    note("PU pool", score)
    counts = count_scores(score, labelled)
    again = estimate_prior(counts)
    found["PU pool"]["error"] = again.of_all(counts) - float(positive.mean())
    found["PU pool"]["held"] = float(again.low <= share <= again.high)
    if args.site:
        for title, score, answer in theirs(x, labelled, fold, prior.value, seed):
            note(title, score, answer)
    truth = heads(x, positive.astype(int), seed)
    for name in (*READY, "network"):
        note(f"supervised {name}", truth[name][:, 1], truth[name][:, 1] >= 0.5)
    score = pooled(truth, (*READY, "network"), positive)
    note("supervised pool", score, score >= 0.5)
    return found


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--site", type=Path)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--embedding", type=Path)
    parser.add_argument("--sets", nargs="+", default=[*SETS, "cifar"])
    parser.add_argument("--frequencies", nargs="+", type=float, default=[0.3, 0.1, 0.5])
    parser.add_argument("--selection", nargs="+", default=["random", "score"])
    parser.add_argument("--methods", nargs="+", default=METHODS, help="vpu among them")
    parser.add_argument("--items", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.site:
        sys.path.append(str(args.site))
    warnings.filterwarnings("ignore")
    done = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    for seed in range(args.seeds):
        for selection in args.selection:
            for frequency in args.frequencies:
                for name in args.sets:
                    key = f"{name} {selection} {frequency} {seed}"
                    if key in done:
                        continue
                    x, positive = read(args, name, seed)
                    labelled = label(x, positive, frequency, selection, seed)
                    done[key] = measure(args, x, positive, labelled, seed)
                    if args.out:
                        args.out.write_text(json.dumps(done, indent=1))
    show(done, args)


def show(done: dict[str, dict[str, dict[str, float]]], args: argparse.Namespace) -> None:
    """Print means over sets and seeds."""
    for selection in args.selection:
        for frequency in args.frequencies:
            rows: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
            for key, found in done.items():
                name, *setting = key.split()[:3]
                if name in args.sets and setting == [selection, str(frequency)]:
                    for title, measures in found.items():
                        for measure_of, value in measures.items():
                            rows[title][measure_of].append(value)
            print(f"\n{selection} selection, {frequency:.0%} labelled")
            for title, measures in rows.items():
                cells = [f"{m} {interval(values)}" for m, values in measures.items()]
                print(f"    {title:34}{'  '.join(cells)}", flush=True)


def interval(values: list[float]) -> str:
    """Return a mean of absolute values ± half a 95 % interval over sets and seeds."""
    array = np.abs(values)
    half = stats.t.ppf(0.975, max(len(array) - 1, 1)) * array.std(ddof=len(array) > 1)
    return f"{array.mean():.3f} ± {half / np.sqrt(len(array)):.3f}"


if __name__ == "__main__":
    main()
