"""The class prior from positive and unlabelled items, on real tables, beside pulearn's estimates.

    python benchmarks/prior.py --tables FOLDER [--site SITE] [--seeds 5] [--items 8000]
        [--sets spambase …] [--frequencies 0.1 0.3 0.5] [--selection random score]

FOLDER has the tables of `harm.py` and `magic` and `bank_marketing`; SITE is where `pulearn` was
installed (`pip install --no-deps --target SITE pulearn`). Of the positives a share is labelled:
*random* ones, or with *score* rather those that a linear model of the truth is surer of (odds to be
labelled that rise about e-fold for every standard deviation of its score), which breaks what all
estimates assume. Scores are out of sample, of labelled against all other items: a linear model,
trees, and the pool of both (`labelops.opinions.pool`). pulearn's estimates get the linear model or
the trees.

Printed: mean error of the share of positives in the data set ± half a 95 % interval over seeds (at
the end over sets and seeds), and how often the interval of `estimate_prior` holds the share among
the unlabelled.
"""

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harm import linear, read_table, trees

from labelops.opinions.pool import fit_weights, pool
from labelops.partial.prior import METHODS, estimate_prior
from labelops.partial.scores import count_scores

INTERVAL = ("held", "width", "irreducible")
SETS = ("spambase", "pendigits", "letter", "magic", "adult", "bank", "covtype")


def read_set(folder: Path, name: str, seed: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers, and which items are positive."""
    if name == "bank":
        rows = pd.read_csv(folder / "bank_marketing.csv.gz", sep=";").sample(n, random_state=seed)
        positive = (rows.pop("y") == "yes").to_numpy()
        return pd.get_dummies(rows).to_numpy(np.float32), positive
    x, true = read_table(folder, name, seed, n)
    of_many = {"pendigits": true % 2 == 1, "letter": true < 13}
    return x, np.asarray(of_many.get(name, true == 1))


def label(
    x: np.ndarray, positive: np.ndarray, frequency: float, selection: str, seed: int
) -> np.ndarray:
    """Return which positives are labelled."""
    rng = np.random.default_rng(seed)
    if selection == "random":
        return positive & (rng.random(len(x)) < frequency)
    score = linear().fit(x, positive).decision_function(x)
    odds = np.exp((score - score[positive].mean()) / score[positive].std())
    share = odds / (odds + 1 / frequency - 1)
    share *= frequency / share[positive].mean()
    return positive & (rng.random(len(x)) < share)


def scored(x: np.ndarray, labelled: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return out-of-sample probabilities of being labelled."""
    said = {}
    for name, model in (("linear", linear()), ("trees", trees())):
        said[name] = np.zeros(len(x))
        folds = StratifiedKFold(5, shuffle=True, random_state=seed)
        for train, test in folds.split(x, labelled):
            fitted = clone(model).fit(x[train], labelled[train])
            said[name][test] = fitted.predict_proba(x[test])[:, 1]
    both = np.stack([np.stack([1 - p, p], axis=1) for p in said.values()])
    said["pool"] = pool(both, fit_weights(both, labelled))[:, 1]
    return said


def theirs(x: np.ndarray, labelled: np.ndarray) -> Iterator[tuple[str, float]]:
    """Yield pulearn's estimates of the share of positives."""
    from pulearn.priors import (
        HistogramMatchPriorEstimator,
        LabelFrequencyPriorEstimator,
        ScarEMPriorEstimator,
    )

    # Their EM weighs items, which a pipeline would not hear of.
    x, y = StandardScaler().fit_transform(x), labelled.astype(int)
    models = {"linear": LogisticRegression(max_iter=200), "trees": trees()}
    yield "pulearn label frequency", LabelFrequencyPriorEstimator().fit(x, y).estimate().pi
    for name, model in models.items():
        for title, kind in (
            ("histogram", HistogramMatchPriorEstimator),
            ("EM", ScarEMPriorEstimator),
        ):
            yield f"pulearn {title}, {name}", kind(clone(model)).fit(x, y).estimate().pi


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--site", type=Path)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--frequencies", nargs="+", type=float, default=[0.1, 0.3, 0.5])
    parser.add_argument("--selection", nargs="+", default=["random", "score"])
    parser.add_argument("--items", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    if args.site:
        sys.path.append(str(args.site))
    warnings.filterwarnings("ignore")
    rows = []
    for seed in range(args.seeds):
        for name in args.sets:
            x, positive = read_set(args.tables, name, seed, args.items)
            for selection in args.selection:
                for frequency in args.frequencies:
                    labelled = label(x, positive, frequency, selection, seed)
                    true, share = positive.mean(), positive[~labelled].mean()
                    setting = {"set": name, "labelled": frequency, "selection": selection}
                    for model, scores in scored(x, labelled, seed).items():
                        counts = count_scores(scores, labelled)
                        found = estimate_prior(counts)
                        interval = {
                            "held": found.low <= share <= found.high,
                            "width": found.high - found.low,
                            "irreducible": found.is_irreducible,
                        }
                        for method, estimate in METHODS.items():
                            value = found._replace(value=estimate(counts)).of_all(counts)
                            own = interval if method == found.method else {}
                            title = f"{method}, {model}"
                            rows.append({**setting, "method": title, "error": value - true, **own})
                    if args.site:
                        for title, value in theirs(x, labelled):
                            rows.append({**setting, "method": title, "error": value - true})
            show(rows, [name], seed)
    show(rows, args.sets, args.seeds - 1)


def show(rows: list[dict[str, object]], sets: list[str], seed: int) -> None:
    """Print mean absolute errors of some sets so far."""
    whole = pd.DataFrame(rows)
    whole = whole[whole["set"].isin(sets)]
    print(f"\n{', '.join(sets)}, {seed + 1} seeds: |error|, mean error, held, width, irreducible")
    groups: dict[tuple[str, float], dict[str, str]] = defaultdict(dict)
    for (selection, frequency, method), part in whole.groupby(
        ["selection", "labelled", "method"], sort=False
    ):
        error = part["error"].to_numpy(float)
        half = (
            stats.t.ppf(0.975, max(len(error) - 1, 1))
            * np.abs(error).std(ddof=len(error) > 1)
            / np.sqrt(len(error))
        )
        cells = f"{np.abs(error).mean():.3f} ± {half:.3f}  {error.mean():+.3f}"
        if "held" in part and part["held"].notna().all():
            held, width, level = (part[c].astype(float).mean() for c in INTERVAL)
            cells += f"  {held:.0%}  {width:.2f}  {level:.0%}"
        groups[selection, frequency][method] = cells
    for (selection, frequency), methods in groups.items():
        print(f"{selection} selection, {frequency:.0%} labelled")
        for method, cells in methods.items():
            print(f"    {method:28}{cells}", flush=True)


if __name__ == "__main__":
    main()
