"""Labels from the totals of bags: accuracy of every method beside a supervised network.

    python benchmarks/proportions.py --data FOLDER --out RESULTS.json
        [--sets adult,bank,fashion] [--bags 8,32,128,512,2048] [--seeds 5] [--first-seed 1]
        [--repair] [--table]

FOLDER holds `tabular/adult.tsv.gz`, `tabular/bank_marketing.csv.gz` and, for `fashion`, the idx
files of Fashion-MNIST in `fashion-mnist/`. A seed draws the test items (a fifth) and the order of
the others, which are cut into bags of equal size. All networks have the same layers and trainer
(`BagTraining`), and all are stopped by held-out bags: by their counts or, where an objective has
soft labels, by these; no label of an item decides anything but the supervised network and the
figures that are printed. RESULTS.json keeps what is done: the same command again does what is
missing. `--table` prints only.

With --repair, instead: a fifth of all labels flipped, the totals of bags known and true.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from proportions_table import print_accuracy, print_repair
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score
from tables import TABLES, Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bag_baselines import OwnBeliefs, Proportions, Unbiased

from labelops.fast.cardinality import marginals
from labelops.nn.bag_rounds import (
    BAG_WEIGHT,
    choose_class_strength,
    neighbour_edges,
    spread_beliefs,
    strengthened,
)
from labelops.nn.bag_start import fit_start
from labelops.nn.bags import (
    BagNet,
    BagTraining,
    Fitted,
    Objective,
    SoftLabels,
    embed,
    fit,
    logits_of,
)
from labelops.proportions.cardinality import sigmoid
from labelops.proportions.class_propagate import PropagatedClasses
from labelops.proportions.counts import hard_counts
from labelops.proportions.edges import Edges
from labelops.proportions.transport import transport

TRAINING = BagTraining()
PUBLISHED_STRENGTH = 3.0
"""Of degree-normalised edges without log-odds of items: what propagates best in large bags."""

WHOLE = 2048
"""Items are cut to a multiple of it, so that they are the same whichever bags are asked for."""

FLAT_LIMIT = 10_000
START_ITEMS = 100_000
NOISE = 0.2
FOLDS = 2


class Task(NamedTuple):
    """One set, cut into bags by one seed."""

    x: np.ndarray
    y: np.ndarray
    start: np.ndarray
    k: np.ndarray
    counts: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    seed: int
    edges: Callable[[], Edges]


class Answer(NamedTuple):
    """Log-odds of test items and, if the method has them, beliefs in the labels of bags' items."""

    test: np.ndarray
    beliefs: np.ndarray
    note: dict[str, float]


def tasks(table: Table, sizes: list[int], seed: int) -> Iterator[tuple[int, Task]]:
    """Cut a set into bags of several sizes; the items are the same for all, so are neighbours."""
    x, y = table.features, table.is_positive.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(y))
    n_test = len(y) // 5
    n = (len(y) - n_test) // WHOLE * WHOLE
    test, rows = order[:n_test], order[n_test : n_test + n]
    kept: list[Edges] = []

    def edges() -> Edges:
        if not kept:
            kept.append(neighbour_edges(x[rows], flat_limit=FLAT_LIMIT, n_threads=1))
        return kept[0]

    for size in sizes:
        if WHOLE % size:
            raise SystemExit(f"bags must divide {WHOLE}, got {size}")
        start = np.arange(0, n + 1, size)
        k = np.add.reduceat(y[rows], start[:-1])
        counts = np.stack([size - k, k], axis=1)
        yield size, Task(x[rows], y[rows], start, k, counts, x[test], y[test], seed, edges)


def counted(task: Task, log_odds: np.ndarray) -> np.ndarray:
    return marginals(log_odds, task.start, hard_counts(task.k), n_threads=1).beliefs


def two(beliefs: np.ndarray) -> np.ndarray:
    return np.stack([1 - beliefs, beliefs], axis=1)


def log_odds_of(fitted: Fitted, x: np.ndarray) -> np.ndarray:
    logits = logits_of(fitted.net, x)
    return np.asarray(logits[:, 1] - logits[:, 0])


def top_of_bags(
    beliefs: np.ndarray, log_odds: np.ndarray, start: np.ndarray, positives: np.ndarray
) -> np.ndarray:
    """Label the k items of each bag that are most believed to be positive; ties by log-odds."""
    bag = np.repeat(np.arange(len(positives)), np.diff(start))
    is_positive = np.empty(len(beliefs), bool)
    is_positive[np.lexsort([-log_odds, -beliefs, bag])] = (
        np.arange(len(bag)) - start[bag] < positives[bag]
    )
    return is_positive


def one_round(task: Task, logits: np.ndarray, edges: Edges) -> tuple[PropagatedClasses, Fitted]:
    spread = spread_beliefs(logits, task.start, task.counts, edges, n_threads=1)
    objective = SoftLabels(spread.beliefs, task.start, task.counts, bag_weight=BAG_WEIGHT)
    net = fit(task.x, task.start, task.counts, objective, training=TRAINING, seed=task.seed)
    return spread, net


def fitted(task: Task, objective: Objective, *, begin: BagNet | None = None) -> Answer:
    net = fit(
        task.x, task.start, task.counts, objective, training=TRAINING, seed=task.seed, begin=begin
    )
    beliefs = counted(task, log_odds_of(net, task.x))
    return Answer(log_odds_of(net, task.test_x), beliefs, {"held_out_loss": net.loss})


def supervised(task: Task) -> Answer:
    return fitted(task, SoftLabels(np.eye(2)[task.y], task.start, task.counts))


def dllp(task: Task) -> Answer:
    return fitted(task, Proportions(task.start, task.counts))


def easy_llp(task: Task) -> Answer:
    return fitted(task, Unbiased(task.start, task.counts))


def llp_em(task: Task) -> Answer:
    return fitted(task, OwnBeliefs(lambda z: two(counted(task, z[:, 1] - z[:, 0]))))


def transported(task: Task) -> Answer:
    """Two stages, as published: the shares of bags, then from there transported pseudo-labels."""
    shares = Proportions(task.start, task.counts)
    first = fit(task.x, task.start, task.counts, shares, training=TRAINING, seed=task.seed)

    def labels(z: np.ndarray) -> np.ndarray:
        return transport(z, task.start, task.counts, regulariser=0.2).beliefs

    return fitted(task, OwnBeliefs(labels), begin=first.net)


def published(task: Task) -> Answer:
    """LLP-BP without log-odds of items, two rounds, with exact counts."""
    edges, nothing = task.edges(), np.zeros((len(task.x), 2))
    for step in range(2):
        spread, net = one_round(task, nothing, strengthened(edges, strength=PUBLISHED_STRENGTH))
        if step == 0:
            vectors = embed(net.net, task.x)
            edges = neighbour_edges(vectors, flat_limit=FLAT_LIMIT, n_threads=1)
    note = {"open": float(n_open(spread))}
    return Answer(log_odds_of(net, task.test_x), spread.beliefs[:, 1], note)


def n_open(spread: PropagatedClasses) -> int:
    return int((~spread.convergence.converged).sum())


def labelops_rounds(task: Task) -> dict[str, Answer]:
    """Return the regression alone, and one and two rounds on top of it, as the stage plays them."""
    n, both = len(task.x), np.concatenate([task.x, task.test_x])
    first = fit_start(
        both, task.start, task.counts, most_items=START_ITEMS, n_fourier=300, seed=task.seed
    )
    log_odds = first.logits[:, 1] - first.logits[:, 0]
    answers = {"bag regression": Answer(log_odds[n:], counted(task, log_odds[:n]), {})}
    edges, logits, held_logits = task.edges(), first.logits[:n], first.held_logits[:n]
    for step in (1, 2):
        strength = choose_class_strength(
            held_logits, task.start, task.counts, edges, first.held_out, n_threads=1
        )
        spread, net = one_round(task, logits, strengthened(edges, strength=strength))
        note = {"strength": strength, "open": float(n_open(spread)), "held_out_loss": net.loss}
        test = log_odds_of(net, task.test_x)
        name = f"labelops, {step} round{'s' * (step > 1)}"
        answers[name] = Answer(test, spread.beliefs[:, 1], note)
        if step == 1:
            vectors = embed(net.net, task.x)
            edges = neighbour_edges(vectors, flat_limit=FLAT_LIMIT, n_threads=1)
            logits = (logits + log_softmax(logits_of(net.net, task.x), axis=1)) / 2
    return answers


SINGLE: dict[str, Callable[[Task], Answer]] = {
    "supervised": supervised,
    "DLLP": dllp,
    "EasyLLP": easy_llp,
    "LLP-EM": llp_em,
    "transport": transported,
    "LLP-BP, no log-odds": published,
}
OURS = ("bag regression", "labelops, 1 round", "labelops, 2 rounds")


def measure(task: Task, answer: Answer, seconds: float) -> dict[str, float]:
    hard = top_of_bags(answer.beliefs, answer.beliefs, task.start, task.k)
    return {
        "auc": float(roc_auc_score(task.test_y, answer.test)),
        "accuracy": float(((answer.test > 0) == task.test_y).mean()),
        "bag_auc": float(roc_auc_score(task.y, answer.beliefs)),
        "bag_accuracy": float((hard == task.y).mean()),
        "seconds": seconds,
        **answer.note,
    }


def run_accuracy(task: Task, have: set[str]) -> Iterator[tuple[str, dict[str, float]]]:
    for name, method in SINGLE.items():
        if name not in have:
            began = time.perf_counter()
            answer = method(task)
            yield name, measure(task, answer, time.perf_counter() - began)
    if not have.issuperset(OURS):
        began = time.perf_counter()
        answers = labelops_rounds(task)
        seconds = time.perf_counter() - began
        for name, answer in answers.items():
            yield name, measure(task, answer, seconds)


def noisy_log_odds(task: Task, given: np.ndarray) -> np.ndarray:
    """Return log-odds of the true label by a network that has not seen the item's given one."""
    fold = np.arange(len(given)) // np.diff(task.start)[0] % FOLDS
    log_odds = np.empty(len(given))
    for f in range(FOLDS):
        inside = np.flatnonzero(fold != f)
        size = np.diff(task.start)[0]
        start = np.arange(0, len(inside) + 1, size)
        k = np.add.reduceat(given[inside], start[:-1])
        counts = np.stack([size - k, k], axis=1)
        objective = SoftLabels(np.eye(2)[given[inside]], start, counts)
        net = fit(task.x[inside], start, counts, objective, training=TRAINING, seed=task.seed + f)
        p = sigmoid(log_odds_of(net, task.x[fold == f]))
        true = np.clip((p - NOISE) / (1 - 2 * NOISE), 1e-3, 1 - 1e-3)
        log_odds[fold == f] = np.log(true) - np.log1p(-true)
    return log_odds


def run_repair(task: Task, have: set[str]) -> Iterator[tuple[str, dict[str, float]]]:
    names = ("given", "given + model", "given + totals", "given + model + totals")
    names = (*names, "given + model + neighbours + totals")
    if have.issuperset(names):
        return
    rng = np.random.default_rng([task.seed, 1])
    given = np.where(rng.random(len(task.y)) < NOISE, 1 - task.y, task.y)
    said = np.log((1 - NOISE) / NOISE) * (2 * given - 1)
    with_model = said + noisy_log_odds(task, given)

    def by_totals(log_odds: np.ndarray) -> np.ndarray:
        return top_of_bags(counted(task, log_odds), log_odds, task.start, task.k)

    beliefs = play_round_beliefs(task, with_model)
    labels = dict(
        zip(
            names,
            (
                given == 1,
                with_model > 0,
                by_totals(said + 1e-6 * rng.standard_normal(len(said))),
                by_totals(with_model),
                top_of_bags(beliefs, with_model, task.start, task.k),
            ),
            strict=True,
        )
    )
    for name, label in labels.items():
        yield name, {"bag_accuracy": float((label == task.y).mean())}


def play_round_beliefs(task: Task, log_odds: np.ndarray) -> np.ndarray:
    from labelops.fast.propagate import propagate

    counts = hard_counts(task.k)
    edges = strengthened(task.edges(), strength=0.3)
    return propagate(log_odds, task.start, counts, edges, max_sweeps=100, n_threads=1).beliefs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", default="adult,bank,fashion")
    parser.add_argument("--bags", default="8,32,128,512,2048")
    parser.add_argument("--seeds", type=int, default=5, help="number of them")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--repair", action="store_true")
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    done = json.loads(options.out.read_text()) if options.out.exists() else {}
    run = run_repair if options.repair else run_accuracy
    sizes = [int(size) for size in options.bags.split(",")]
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    for seed in () if options.table else seeds:
        for name in options.sets.split(","):
            for size, task in tasks(TABLES[name](options.data), sizes, seed):
                key = f"{'repair' if options.repair else 'accuracy'}/{name}/{size}/{seed}"
                row = done.setdefault(key, {})
                for method, figures in run(task, set(row)):
                    row[method] = figures
                    options.out.write_text(json.dumps(done, indent=1))
                    print(key, method, {n: round(v, 4) for n, v in figures.items()}, flush=True)
    (print_repair if options.repair else print_accuracy)(done)


if __name__ == "__main__":
    main()
