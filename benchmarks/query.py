"""Which items to ask a teacher about: robust draws beside margin, entropy and chance.

    python benchmarks/query.py --tables FOLDER [--small cifar10n_small_5k_with_images.npz]
        [--sets pendigits letter spambase] [--seeds 10] [--games 400]

Three things are printed, each as a mean ± half a 95 % interval over seeds; for every way to choose,
the share of asked labels that were wrong, what a label gained (the student's 1 − margin, less than
nothing if it was wrong), and, where a student was trained, its accuracy on other items.

*games*: the student's margins are those of random rows (Dirichlet, 10 classes, 2 000 items), 50 are
asked about, and the teacher is wrong about a tenth of all: the least sure ones, or any.
*pictures* (`--small`): the student is the ResNet-18 of that file, the teacher its Swin, both
trained on labels of which two fifths are wrong; 50 or 250 of 5 000 are asked about. There is one
pool: seeds are draws from it, and margin and entropy have no draws.
*students*: FOLDER has tables as for `harm.py`. A linear student starts with 3 true labels a class
and asks about 40 of 3 000 items in each of 5 turns. The teacher knows the truth (*right*), or is a
model of histogram trees trained on 300 others (*trees*), or is wrong about the tenth of the pool
that the first student is least sure of (*least sure*).

Ways to choose: *robust* is `ask_about`, against *one* wrong item, a tenth of the *batch*, or as
many *errors* as the teacher makes in all of the pool, which a user has to estimate; *margin* and
*entropy* take the first; *uniform* draws.
"""

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import entr

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harm import linear, read_table, trees

from labelops.distill.query import ask_about, draw_items, margin_gain
from labelops.hashing import hash_integers

Choose = Callable[[np.ndarray, np.ndarray, int, float, int], np.ndarray]


def robust(n_wrong: Callable[[int, float], float]) -> Choose:
    """Return draws by the game, against so many wrong items."""

    def choose(p: np.ndarray, h: np.ndarray, n: int, errors: float, turn: int) -> np.ndarray:
        m = max(n_wrong(n, errors), 1.0)
        return ask_about(margin_gain(p), h, n=n, turn=turn, n_wrong=m).rows

    return choose


WAYS: dict[str, Choose] = {
    "robust, one": robust(lambda n, errors: 1.0),
    "robust, batch": robust(lambda n, errors: n / 10),
    "robust, errors": robust(lambda n, errors: errors),
    "margin": lambda p, h, n, *_: np.lexsort((h, -margin_gain(p)))[:n],
    "entropy": lambda p, h, n, *_: np.lexsort((h, -entr(p).sum(axis=1)))[:n],
    "uniform": lambda p, h, n, _, turn: draw_items(np.ones(len(p)), h, n=n, turn=turn),
}

START, TURNS, PER_TURN, POOL = 3, 5, 40, 3000


def hashes(n: int, seed: int) -> np.ndarray:
    """Return hashes of items, other ones for every seed."""
    return hash_integers(np.arange(n) + 10**6 * seed)


def asked(probs: np.ndarray, is_wrong: np.ndarray, rows: np.ndarray) -> dict[str, float]:
    """Return what was asked: how much of it is wrong, and what it gained."""
    gain = margin_gain(probs)[rows]
    return {
        "wrong": float(is_wrong[rows].mean()),
        "gain": float(np.where(is_wrong[rows], -gain, gain).mean()),
    }


def games(seeds: int) -> Iterator[dict[str, object]]:
    """Yield what is asked of random rows."""
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        probs = rng.dirichlet(np.full(10, 0.3), 2000)
        gain = margin_gain(probs)
        for where, score in (("least sure", gain), ("anywhere", rng.random(2000))):
            is_wrong = score >= np.quantile(score, 0.9)
            for way, choose in WAYS.items():
                rows = choose(probs, hashes(2000, seed), 50, float(is_wrong.sum()), 0)
                setting = {"setting": f"games, wrong {where}", "way": way}
                yield {**setting, **asked(probs, is_wrong, rows)}


def pictures(file: Path, seeds: int) -> Iterator[dict[str, object]]:
    """Yield what is asked of a network's predictions."""
    with np.load(file) as data:
        true, probs = data["clean_label"], data["pred_probs_worst_resnet18"].astype(np.float64)
        is_wrong = data["pred_probs_worst_swin"].argmax(axis=1) != true
    print(f"pictures: the teacher is wrong about {is_wrong.mean():.1%}")
    for n in (50, 250):
        for seed in range(seeds):
            for way, choose in WAYS.items():
                rows = choose(probs, hashes(len(true), seed), n, float(is_wrong.sum()), 0)
                setting = {"setting": f"pictures, {n} asked", "way": way}
                yield {**setting, **asked(probs, is_wrong, rows)}


def predict(model: object, x: np.ndarray, n_classes: int) -> np.ndarray:
    """Return probabilities of all classes, also of those that the model never saw."""
    probs = np.zeros((len(x), n_classes))
    probs[:, model.classes_] = model.predict_proba(x)
    return probs


def students(folder: Path, name: str, seeds: int) -> Iterator[dict[str, object]]:
    """Yield what is asked by a student, and how good it becomes."""
    for seed in range(seeds):
        x, true = read_table(folder, name, seed, 9000)
        n_classes = int(true.max()) + 1
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(true))
        first = np.concatenate([order[true[order] == k][:START] for k in range(n_classes)])
        others = order[~np.isin(order, first)]
        taught, rest = others[:300], others[300:]
        pool, test = rest[:POOL], rest[POOL:]
        student = linear().fit(x[first], true[first])
        before = predict(student, x[pool], n_classes)
        tree = trees().fit(x[taught], true[taught])
        unsure = margin_gain(before)
        other = (true[pool] + rng.integers(1, n_classes, len(pool))) % n_classes
        says = {
            "right": true[pool],
            "trees": predict(tree, x[pool], n_classes).argmax(axis=1),
            "least sure": np.where(unsure >= np.quantile(unsure, 0.9), other, true[pool]),
        }
        for teacher, label in says.items():
            is_wrong = label != true[pool]
            for way, choose in WAYS.items():
                left, sofar, seen = np.arange(len(pool)), student, []
                known = (first, true[first])
                for turn in range(TURNS):
                    probs = predict(sofar, x[pool[left]], n_classes)
                    errors = float(is_wrong[left].sum())
                    rows = choose(probs, hashes(len(pool), seed)[left], PER_TURN, errors, turn)
                    seen.append(asked(probs, is_wrong[left], rows))
                    chosen, left = left[rows], np.delete(left, rows)
                    known = (
                        np.concatenate([known[0], pool[chosen]]),
                        np.concatenate([known[1], label[chosen]]),
                    )
                    sofar = linear().fit(x[known[0]], known[1])
                found = predict(sofar, x[test], n_classes).argmax(axis=1)
                means = {key: float(np.mean([s[key] for s in seen])) for key in ("wrong", "gain")}
                yield {
                    "setting": f"{name}, teacher {teacher}",
                    "way": way,
                    **means,
                    "accuracy": float((found == true[test]).mean()),
                }


def show(rows: list[dict[str, object]]) -> None:
    """Print means with intervals."""
    whole, cells = pd.DataFrame(rows), defaultdict(dict)
    columns = [c for c in ("wrong", "gain", "accuracy") if c in whole]
    for (setting, way), part in whole.groupby(["setting", "way"], sort=False):
        for column in columns:
            values = part[column].to_numpy(float)
            half = stats.t.ppf(0.975, max(len(values) - 1, 1)) * stats.sem(values)
            cells[setting].setdefault(way, []).append(f"{values.mean():+.3f} ± {half:.3f}")
    for setting, ways in cells.items():
        print(f"\n{setting}: {', '.join(columns)}")
        for way, shown in ways.items():
            print(f"    {way:16}{'   '.join(shown)}", flush=True)


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--sets", nargs="*", default=["pendigits", "letter", "spambase"])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--games", type=int, default=400)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    show(list(games(args.games)))
    if args.small:
        show(list(pictures(args.small, args.seeds)))
    for name in args.sets if args.tables else ():
        show(list(students(args.tables, name, args.seeds)))


if __name__ == "__main__":
    main()
