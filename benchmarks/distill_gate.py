"""Which held-out evidence tells, without truth, that a product teaches worse than given labels.

    python benchmarks/distill_gate.py --work FOLDER --out gate.jsonl [all else as of distill.py]

Two students of one recipe, in five folds: one is taught the product, one the labels as given; both
say what they think of items that neither was taught. Truth on those items says which twin is
better. Products are those of the audit and, to have bad ones, the same with a tenth of the right
labels changed to the class that the audit's model finds next: of items drawn at random (*harmed*)
or of those where it finds that class most probable (*harmed near*).

A rule gives every item evidence d_i for the twin that was taught the product, a, and against the
other, b; z = Σ d_i / √Σ d_i²:

agreement   [a_i = given_i] − [b_i = given_i]
kept        the same, of items that the audit keeps or changes only
confident   the same, of items whose given label is believed with 0.9 or more only
weighted    the same, times the belief in the given label
belief      belief in a_i less that in b_i
matrix      T⁻¹(a_i, given_i) − T⁻¹(b_i, given_i), T(s, y) = P(given s | true y) as confident
            learning finds it: without bias where noise depends on the class alone
likelihood  log Σ_y T(given_i, y) p_y of the one less that of the other

The gate teaches the product where z is above a limit. Printed, for every rule and limit: how often
it falls back although the product's twin is clearly better by truth, and how often it does not
although that is clearly worse (clearly: its own z beyond 2); points of accuracy lost against always
taking the better, on average and at most.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from distill import (
    STUDENTS,
    Product,
    Seen,
    Task,
    Taught,
    arguments,
    load_task,
    product_of,
    read_lines,
    says,
    see,
    set_names,
    taught,
    train,
)

FOLDS = 5
HARMED = 0.1
CONFIDENT = 0.9
VARIANTS = ("hard", "harmed", "harmed near")
LIMITS = (-1.96, 0.0, 1.96)
CLEAR = 2.0


def variant(name: str, task: Task, product: Product, seed: int) -> Taught:
    """Return what a twin is taught."""
    if not name.startswith("harmed"):
        return taught(name, task.items, product)
    good = taught("hard", task.items, product)
    labels = good.targets.copy()
    right = np.flatnonzero((good.weights > 0) & (labels == task.items.true))
    n = round(HARMED * len(right))
    others = product.probs[right].copy()
    others[np.arange(len(right)), labels[right]] = -1
    if name == "harmed near":
        chosen = np.argsort(-others.max(axis=1), kind="stable")[:n]
    else:
        chosen = np.random.default_rng([seed, 1]).choice(len(right), n, replace=False)
    labels[right[chosen]] = others[chosen].argmax(axis=1)
    return Taught(labels, good.weights)


def out_of_fold(x: np.ndarray, data: Taught, n_classes: int, seed: int, hidden: int) -> np.ndarray:
    """Return what students say of items that they were not taught, (N, K)."""
    fold = np.random.default_rng([seed, 2]).permutation(len(x)) % FOLDS
    said = np.zeros((len(x), n_classes), np.float32)
    for k in range(FOLDS):
        part = fold != k
        model = train(
            Seen(x[part], (), x[:0]),
            Taught(data.targets[part], data.weights[part]),
            n_classes=n_classes,
            seed=seed,
            n_hidden=hidden,
            consistent=False,
        )
        said[~part] = says(model, x[~part])
    return said


def evidence(
    task: Task, product: Product, ours: np.ndarray, theirs: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what each rule finds of each item, and `truth`."""
    from cleanlab.count import compute_confident_joint, estimate_latent

    given, true = task.items.given, task.items.true
    a, b = ours.argmax(axis=1), theirs.argmax(axis=1)
    rows = np.arange(len(given))

    def agree(labels: np.ndarray) -> np.ndarray:
        return np.subtract(a == labels, b == labels, dtype=np.float64)

    joint = compute_confident_joint(given, product.probs)
    noise = estimate_latent(joint, given)[1]
    inverse = np.linalg.pinv(noise)
    belief = product.belief.astype(np.float64)
    of_given = belief[rows, given]

    def likelihood(said: np.ndarray) -> np.ndarray:
        return np.log(np.maximum((said @ noise.T)[rows, given], 1e-6))

    return {
        "truth": agree(true),
        "agreement": agree(given),
        "kept": agree(given) * product.ships,
        "confident": agree(given) * (of_given >= CONFIDENT),
        "weighted": agree(given) * of_given,
        "belief": belief[rows, a] - belief[rows, b],
        "matrix": inverse[a, given] - inverse[b, given],
        "likelihood": likelihood(ours) - likelihood(theirs),
    }


def measure(task: Task, product: Product, args: argparse.Namespace, seed: int) -> list[dict]:
    """Return what each rule finds of each product of a set."""
    x, n_classes = see(task).train, len(task.items.classes)
    hidden = STUDENTS[args.student]
    theirs = out_of_fold(x, variant("given", task, product, seed), n_classes, seed, hidden)
    lines = []
    for name in VARIANTS:
        ours = out_of_fold(x, variant(name, task, product, seed), n_classes, seed, hidden)
        found = evidence(task, product, ours, theirs)
        of_rules = {
            rule: [float(d.mean()), float(d.sum() / max(np.sqrt((d**2).sum()), 1e-9))]
            for rule, d in found.items()
        }
        who = {"set": task.items.name, "seed": seed, "student": args.student, "product": name}
        lines.append({**who, "items": len(x), "rules": of_rules})
    return lines


def show(lines: Sequence[dict]) -> None:
    """Print every setting, and then what a gate by each rule would do."""
    rules = list(lines[0]["rules"])
    print("points of accuracy (z)")
    print(f"{'set':<22} {'product':<12}" + "".join(f"{rule:>16}" for rule in rules))
    for line in lines:
        cells = [f"{100 * mean:+.2f} ({z:+.0f})" for mean, z in line["rules"].values()]
        who = f"{line['set']} #{line['seed']}"
        print(f"{who:<22} {line['product']:<12}" + "".join(f"{cell:>16}" for cell in cells))
    gain, clear = np.array([line["rules"]["truth"] for line in lines]).T
    better, worse = clear > CLEAR, clear < -CLEAR
    print(f"\n{len(lines)} settings, better in {better.sum()}, worse in {worse.sum()}")
    print(
        f"{'rule':<12} {'limit':>6} {'better, falls back':>20} {'worse, does not':>16} {'lost':>12}"
    )
    for rule in rules[1:]:
        z = np.array([line["rules"][rule][1] for line in lines])
        for limit in LIMITS:
            teaches = z > limit
            lost = 100 * np.where(teaches, np.maximum(-gain, 0), np.maximum(gain, 0))
            counts = f"{(better & ~teaches).sum():>20}{(worse & teaches).sum():>20}"
            print(f"{rule:<12}{limit:>6}{counts}{lost.mean():>20.2f}{lost.max():>20.2f}")


def main() -> None:
    parser = arguments()
    parser.add_argument("--student", default="network", choices=list(STUDENTS))
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    lines = read_lines(args.out)
    known = {(x["set"], x["seed"], x["student"]) for x in lines}
    for seed in range(args.seeds):
        for name in args.sets or set_names(args):
            if (name, seed, args.student) in known:
                continue
            task = load_task(args, name, seed)
            found = measure(task, product_of(task.items, seed, args.work), args, seed)
            with args.out.open("a") as out:
                out.writelines(json.dumps(line) + "\n" for line in found)
            lines += found
    show(lines)


if __name__ == "__main__":
    main()
