"""What is chosen among candidates: is it right as often as promised, and what is it worth?

    python benchmarks/candidate_product.py --data partial_labels_real.npz --tables TABULAR
        [--sets lost MSRCv2] [--seeds 3] [--first 20] [--students] [--out candidate_product.json]

As recipe `partial` does, on arrays: linear heads and networks by the likelier of rc and
rc_balanced, nearest votes, their pool, powers, rival, and two models of sets; a candidate is chosen
from .9 on. 80 % of the items of a set are learned from. *lost*, *MSRCv2*, and planted sets on the
items of *lost* and of tables (pendigits 1,900, letter, covtype 2,500, spambase 1,900 items): each
other class in .3 of the sets (*even*); others in .05 and the class that follows the true one in .5,
.8 or all of them (*pair*); class 0 beside every second class always (*beside*); others in up to .6,
as far as a model of the true classes confuses them with the true one for the item (*alike*); and
*even* where a tenth of the sets lacks the true class (*wrong*).

Printed: share of items of several candidates that is chosen, how much of that is right, and what
was promised, before (powers only) and now; how sure the rival is; and in how many settings less is
right than promised by more than chance (1.96 standard errors of what was promised). With
--students: accuracy on the other 20 % of the items of a linear model (logistic regression) and of
trees (random forest), on all candidates alike, on what is chosen, on what is believed (soft labels
of all items), and on true labels, with half a 95 % interval over seeds.
"""

import argparse
import gzip
import itertools
import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from candidates import FOLDS, Part, mean_and_half, read, split, votes
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from labelops.nn.candidate_heads import (
    check_rival,
    fit_candidates,
    likeliest,
    predict_candidates,
)
from labelops.opinions.pool import pool
from labelops.partial.candidate_pairs import fit_rates, pair_weights
from labelops.partial.candidates import (
    candidate_beliefs,
    candidate_weights,
    fit_candidate_pool,
    fit_power,
    limit_power,
)

SURE = 0.9
REAL = ("lost", "MSRCv2")
ITEMS = {"pendigits": 1900, "letter": 2500, "covtype": 2500, "spambase": 1900}
KINDS = ("even", "pair .5", "pair .8", "pair 1", "beside", "alike")
PLANTED = (
    *(f"lost, {kind}" for kind in ("even", "pair .8", "wrong")),
    *(f"{name}, {kind}" for name in ("pendigits", "letter", "covtype") for kind in KINDS),
    "spambase, even",
)
STUDENTS = ("all alike", "chosen", "believed", "true")


def items(args: argparse.Namespace, name: str, seed: int) -> Part:
    """Return the items of a setting, with real or planted candidates."""
    of, _, kind = name.partition(", ")
    if of in REAL:
        whole = read(args.data, of)
        return planted(whole, kind, seed) if kind else whole
    path = next(args.tables.glob(f"{of}.*.gz"))
    separator = "," if path.name.endswith("csv.gz") else "\t"
    rng = np.random.default_rng(seed)
    with gzip.open(path, "rt") as file:
        lines = file.readlines()[1:]
    rows = [lines[i].split(separator) for i in np.sort(rng.permutation(len(lines))[: ITEMS[of]])]
    table = np.array(rows, np.float64)[rng.permutation(len(rows))]
    true = np.unique(table[:, -1], return_inverse=True)[1].ravel()
    none = np.zeros((len(true), int(true.max()) + 1), bool)
    return planted(Part(table[:, :-1].astype(np.float32), none, true), kind, seed)


def planted(whole: Part, kind: str, seed: int) -> Part:
    """Return items with candidates of some kind."""
    rng, (n, n_classes) = np.random.default_rng(seed), whole.is_candidate.shape
    at, true = np.arange(n), whole.true
    sets = rng.random((n, n_classes)) < (0.3 if kind in ("even", "wrong") else 0.05)
    if kind.startswith("pair"):
        sets[at, (true + 1) % n_classes] |= rng.random(n) < float(kind.split()[1])
    elif kind == "beside":
        sets[true % 2 == 1, 0] = True
    elif kind == "alike":
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
        probs = np.zeros((n, n_classes))
        fitted = model.fit(whole.x, true)
        probs[:, fitted.classes_] = fitted.predict_proba(whole.x)
        probs[at, true] = 0
        sets = rng.random(sets.shape) < 0.6 * probs / probs.max(axis=1, keepdims=True)
    sets[at, true] = True
    if kind == "wrong":
        lacks = np.flatnonzero(rng.random(n) < 0.1)
        sets[lacks, true[lacks]] = False
        sets[lacks, (true[lacks] + rng.integers(1, n_classes, len(lacks))) % n_classes] = True
    return whole._replace(is_candidate=sets)


def measure(train: Part, new: Part, fold: np.ndarray, *, students: bool) -> dict[str, object]:
    """Return what is chosen, right and promised, and how good students of it are."""
    sets, true, methods, said = train.is_candidate, train.true, [], [votes(train, new).own]
    for hidden in (0, 256):
        how = likeliest(train.x, sets, fold, n_folds=FOLDS, hidden=hidden)
        fitted = fit_candidates(
            train.x, sets, fold, n_folds=FOLDS, hidden=hidden, method=how.method, decay=how.decay
        )
        methods.append(how.method)
        said.append(predict_candidates(fitted, train.x, fold))
    probs = pool(np.stack(said), fit_candidate_pool(np.stack(said), sets).weights)
    found = fit_candidate_pool(probs[None], sets)
    probs = pool(probs[None], found.weights)
    at, several = np.arange(len(true)), sets.sum(axis=1) > 1
    best = np.where(sets, probs, -1.0).argmax(axis=1)
    power = limited = fit_power(probs, sets)
    rival = check_rival(train.x, sets, fold, best, n_folds=FOLDS)
    agrees = rival.choice == best
    if rival.is_as_good:
        limited = limit_power(probs, sets, agrees, power=power)
    before, _ = candidate_beliefs(probs, sets, wrong=found.wrong, power=power)
    belief, none = candidate_beliefs(probs, sets, wrong=found.wrong, power=limited)
    pairs = (1 - none)[:, None] * pair_weights(probs, sets, fit_rates(probs, sets))
    sure = np.minimum(belief, pairs)[at, best]
    row: dict[str, object] = {
        "methods": methods,
        "agreement": float(agrees[several].mean()),
        "gain": rival.gain,
        "power": power,
        "limited": limited,
        "found": float((best == true)[several].mean()),
    }
    for when, p in (("before", before[at, best]), ("now", sure)):
        chosen = several & (p >= SURE)
        row[f"{when}_n"], row[f"{when}_of"] = int(chosen.sum()), int(several.sum())
        row[f"{when}_right"] = int((best == true)[chosen].sum())
        row[f"{when}_promised"] = float(p[chosen].sum())
    if students:
        shipped = np.where(several, sure >= SURE, none <= 0.5)
        taught = {
            "all alike": candidate_weights(np.ones(sets.shape), sets),
            "chosen": np.eye(sets.shape[1])[best] * shipped[:, None],
            "believed": belief,
            "true": np.eye(sets.shape[1])[true],
        }
        for name, weights in taught.items():
            row |= {f"{kind}, {name}": right for kind, right in taught_by(weights, train, new)}
    return row


def taught_by(weights: np.ndarray, train: Part, new: Part) -> list[tuple[str, float]]:
    """Return how right students of soft labels are on new items."""
    item, label = np.nonzero(weights > 1e-3)
    scale = StandardScaler().fit(train.x)
    found = []
    for kind, model in (
        ("linear", LogisticRegression(max_iter=300)),
        ("trees", RandomForestClassifier(200, random_state=0)),
    ):
        model.fit(scale.transform(train.x[item]), label, sample_weight=weights[item, label])
        right = float((model.predict(scale.transform(new.x)) == new.true).mean())
        found.append((kind, right))
    return found


def show(rows: list[dict[str, object]], sets: list[str]) -> None:
    """Print what was measured."""
    fails = defaultdict(list)
    for name in sets:
        mine = [row for row in rows if row["set"] == name]
        if not mine:
            continue
        print(f"\n{name}: {len(mine)} seeds; heads {mine[0]['methods']}", end="")
        for key in ("found", "agreement", "gain", "limited"):
            print(f", {key} {np.mean([float(str(row[key])) for row in mine]):.3f}", end="")
        for when in ("before", "now"):
            n, of, right, promised = (
                np.array([float(str(row[f"{when}_{key}"])) for row in mine])
                for key in ("n", "of", "right", "promised")
            )
            p = promised / np.maximum(n, 1)
            short = right / np.maximum(n, 1) < p - 1.96 * np.sqrt(p * (1 - p) / np.maximum(n, 1))
            fails[when] += (short & (n > 0)).tolist()
            print(f"\n    {when:7} chosen {n.sum() / of.sum():.1%}", end="")
            if n.sum():
                said = f"right {right.sum() / n.sum():.1%}, promised {promised.sum() / n.sum():.1%}"
                print(f", {said}, too little in {int((short & (n > 0)).sum())}", end="")
        print(flush=True)
        for kind in ("linear", "trees"):
            known = [row for row in mine if f"{kind}, true" in row]
            if known:
                cells = [
                    f"{of} {mean_and_half([float(str(row[f'{kind}, {of}'])) for row in known])}"
                    for of in STUDENTS
                ]
                print(f"    student, {kind}: {'; '.join(cells)}")
    for when, short in fails.items():
        print(
            f"\n{when}: less is right than promised, beyond chance, in {sum(short)} of {len(short)}"
        )


def main() -> None:
    """Measure every set and seed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=[*REAL, *PLANTED])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=20, help="the first seed")
    parser.add_argument("--students", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = json.loads(args.out.read_text()) if args.out and args.out.exists() else []
    seeds = range(args.first, args.first + args.seeds)
    for seed, name in itertools.product(seeds, args.sets):
        if any(row["set"] == name and row["seed"] == seed for row in rows):
            continue
        train, new, fold = split(items(args, name, seed), seed)
        found = measure(train, new, fold, students=args.students)
        rows.append({"set": name, "seed": seed, **found})
        if args.out:
            args.out.write_text(json.dumps(rows))
    show(rows, args.sets)


if __name__ == "__main__":
    main()
