"""How well missing and wrong labels are found, and what repairing them is worth, on real sets.

    python benchmarks/multilabel_efficacy.py --data DIR [--sets emotions,scene,yeast,corel5k,bibtex]
        [--noise hide10,hide20,hide40,flip20] [--seeds 5]

DIR holds <set>.csv.gz with a header; columns named label__… are classes. Their labels count as the
truth. Of every set 30 % are kept aside; of the rest some labels are spoiled:

hideP   P % of the labels are taken away (only missing ones are to be found)
flipP   P % are taken away, and as many added of the same class to items that do not have it

A student (logistic regression, one a class) is cross-validated on the spoiled labels.

Found: average precision over all cells that are given no (missing) or yes (wrong), of

threshold  where the student says otherwise (p beyond ½), by p; the rest in no order
cleanlab   the flags of cleanlab.multilabel_classification, by its score; the rest in no order.
           They are ours, which are the same; compared with cleanlab's own for the first seed
score      cleanlab's score (self confidence) of every cell, flagged or not
belief     labelops.multilabel.opinion, of the student's log-odds alone
second     the same, with the second opinion of the item's other classes
careful    `labelops.multilabel.beliefs`, as stage `multilabel` does: log-odds brought to what is
           given, and no more noise than the surest cells leave room for

Noise found: α and ω of the opinion, the shares of present classes that are missing and of given
ones that are wrong, beside those planted and those of confident learning.

Repaired: mean average precision on the 30 %, with their true labels, of the same student trained on
given labels, on labels with every flag of cleanlab turned round, with cells turned round where
`second` (or `careful`) is at least 0.9 for it, on `second` as soft labels, and on the full true
labels.

Promised against right: of the cells turned round at 0.9 by either, the mean belief and how many of
them were wrong as given; for `careful` also of the missing and the wrong ones apart.

Mean over seeds ± half a 95 % interval (Student's t). Differences are taken seed by seed.
"""

import argparse
import gzip
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from labelops.fast import multilabel as fast  # noqa: E402
from labelops.multilabel import opinion as op  # noqa: E402
from labelops.multilabel.beliefs import Features, learn, p_label_error  # noqa: E402
from labelops.multilabel.cells import Cells  # noqa: E402
from labelops.multilabel.cooccurrence import Pairs, evidence, summarize  # noqa: E402
from labelops.multilabel.estimates import Estimates  # noqa: E402
from labelops.multilabel.evaluate import average_precisions  # noqa: E402
from labelops.multilabel.labels import NO, YES, LabelSets, from_states, states  # noqa: E402

FOLDS = 3
SURE = 0.9
PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3)
FINDERS = ("threshold", "cleanlab", "score", "belief", "second", "careful")
STUDENTS = ("given", "cleanlab", "repaired", "careful", "soft", "full")


class Split(NamedTuple):
    """Features and true labels to train on, and kept aside."""

    x: np.ndarray
    truth: np.ndarray
    x_test: np.ndarray
    truth_test: np.ndarray


def read_set(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with gzip.open(path, "rt") as file:
        names = [name.strip('"') for name in file.readline().strip().split(",")]
        values = np.loadtxt(file, delimiter=",", dtype=np.float32, quotechar='"')
    is_label = np.array([name.startswith("label__") for name in names])
    return values[:, ~is_label], values[:, is_label] > 0


def split(x: np.ndarray, truth: np.ndarray, seed: int) -> Split:
    order = np.random.default_rng([seed, 1]).permutation(len(x))
    cut = int(0.7 * len(x))
    train, test = order[:cut], order[cut:]
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    x = np.clip((x - mean) / np.where(std > 0, std, 1), -8, 8)
    return Split(x[train], truth[train], x[test], truth[test])


def spoil(truth: np.ndarray, noise: str, seed: int) -> np.ndarray:
    """Take labels away, and for flips add as many of the same class elsewhere."""
    kind, share = noise[:4], int(noise[4:]) / 100
    rng = np.random.default_rng([seed, 2])
    hidden = truth & (rng.random(truth.shape) < share)
    given = truth & ~hidden
    if kind == "flip":
        for c, n in enumerate(hidden.sum(axis=0)):
            given[rng.choice(np.flatnonzero(~truth[:, c]), n, replace=False), c] = True
    return given


def fit(x: np.ndarray, target: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Logistic regression of every class on (soft) targets; returns weights (D, K), bias (K,)."""
    inputs = torch.from_numpy(x)
    wanted = torch.from_numpy(target.astype(np.float32))
    share = wanted.mean(dim=0).clamp(1e-4, 1 - 1e-4)
    weight = torch.zeros(x.shape[1], target.shape[1], requires_grad=True)
    bias = torch.logit(share).requires_grad_(True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=40, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        logits = inputs @ weight + bias
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, wanted)
        # A sum over classes, so that the penalty means the same for any number of them.
        loss = loss * target.shape[1] + 0.5 * l2 * weight.square().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    return weight.detach().numpy(), bias.detach().numpy()


def sample_cells(
    probs: np.ndarray, labels: LabelSets, *, n: int, rng: np.random.Generator
) -> tuple[Cells, np.ndarray]:
    """Return about n cells, as many present as ruled-out ones, and how many each stands for."""
    table, parts, weights = states(labels), [], []
    for state in (YES, NO):
        cell = np.flatnonzero(table == state)
        drawn = np.sort(rng.choice(cell, min(len(cell), n // 2), replace=False))
        row, class_id = np.divmod(drawn, labels.n_classes)
        is_given = np.full(len(drawn), state == YES)
        parts.append(Cells(row, class_id, is_given, probs[row, class_id]))
        weights.append(np.full(len(drawn), len(cell) / max(len(drawn), 1)))
    cells = Cells(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return cells, np.concatenate(weights)


def class_odds(cells: Cells, pairs: Pairs) -> np.ndarray:
    """Return how often each cell's class was given, to how often not; shape (M,)."""
    return np.asarray((pairs.n_yes / np.maximum(pairs.n_no, 1))[cells.class_id])


def opinion_features(cells: Cells, labels: LabelSets, pairs: Pairs) -> np.ndarray:
    """Return what the second opinion is made of: the model's log-odds and the evidence, (M, 2)."""
    _, said = evidence(cells, labels, pairs)
    return np.stack([op.model_log_odds(cells.p), said], axis=1)


def predict(x: np.ndarray, model: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x @ model[0] + model[1], -30, 30)))


def held_out_loss(x: np.ndarray, given: np.ndarray, l2: float) -> float:
    cut = len(x) * 2 // 3
    p = np.clip(predict(x[cut:], fit(x[:cut], given[:cut], l2)), 1e-6, 1 - 1e-6)
    return float(-np.where(given[cut:], np.log(p), np.log(1 - p)).mean())


def cross_validate(x: np.ndarray, given: np.ndarray, l2: float) -> np.ndarray:
    # Rows were shuffled when the set was split.
    fold = np.arange(len(x)) % FOLDS
    probs = np.empty(given.shape, np.float32)
    for f in range(FOLDS):
        probs[fold == f] = predict(x[fold == f], fit(x[fold != f], given[fold != f], l2))
    return probs


def all_cells(probs: np.ndarray, given: np.ndarray) -> Cells:
    row, class_id = (at.ravel() for at in np.indices(given.shape))
    return Cells(row, class_id, given.ravel(), probs.ravel())


def cleanlab_flags(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class

    lists = [np.flatnonzero(row).tolist() for row in given]
    # In single precision it ranks by 1 - 2 p, where small p that differ are one.
    double = probs.astype(np.float64)
    flags: np.ndarray = find_multilabel_issues_per_class(lists, double, n_jobs=1)
    return flags


def ours(
    probs: np.ndarray, given: np.ndarray, labels: LabelSets, seed: int
) -> tuple[dict[str, np.ndarray], op.Opinion, Estimates, np.ndarray]:
    """Return P(present) of every cell, without and with the second opinion; the noise; flags."""
    flagged, estimates = fast.find_label_issues(probs, labels)
    flags = np.zeros(given.shape, bool)
    flags[flagged.row, flagged.class_id] = True
    cells, pairs = all_cells(probs, given), summarize(labels)
    rng = np.random.default_rng([seed, 3])
    sample, weight = sample_cells(probs, labels, n=100_000, rng=rng)
    learned = opinion_features(sample, labels, pairs)
    values = opinion_features(cells, labels, pairs)
    odds, sample_odds = class_odds(cells, pairs), class_odds(sample, pairs)
    believed = {}
    for name, used in (("belief", 1), ("second", 2)):
        opinion = op.fit_opinion(learned[:, :used], sample.is_given, sample_odds, weight)
        belief = op.believe(values[:, :used], cells.is_given, odds, opinion)
        believed[name] = belief.reshape(given.shape)
    features = Features(cells.class_id, cells.is_given, values[:, 0], values[:, 1])
    by_class = pairs.n_yes / np.maximum(pairs.n_no, 1)
    turned = p_label_error(features, learn(features, np.ones(len(odds)), by_class)).reshape(
        given.shape
    )
    believed["careful"] = np.where(given, 1 - turned, turned)
    return believed, opinion, estimates, flags


def average_precision(score: np.ndarray, hit: np.ndarray) -> float:
    return float(average_precisions(score, hit, np.ones((1, len(hit))))[0])


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    values = [average_precision(s, t) for s, t in zip(scores.T, truth.T, strict=True) if t.any()]
    return float(np.mean(values))


def one_run(data: Split, noise: str, seed: int, l2: float) -> dict[tuple[str, str], float]:
    given = spoil(data.truth, noise, seed)
    probs = cross_validate(data.x, given, l2)
    labels = from_states(given.astype(np.int8))
    believed, opinion, estimates, flags = ours(probs, given, labels, seed)
    if seed == 0:
        n_differing = int((flags != cleanlab_flags(probs, given)).sum())
        print(f"flags that differ from those of cleanlab itself: {n_differing}", flush=True)
    # How much each cell speaks for "present".
    says = {
        "threshold": np.where((probs > 0.5) != given, probs, given),
        "cleanlab": np.where(flags, probs, given),
        "score": probs,
    } | believed
    measured: dict[tuple[str, str], float] = {}
    for name in FINDERS:
        missing, wrong = data.truth[~given], ~data.truth[given]
        measured["missing", name] = average_precision(says[name][~given].astype(float), missing)
        if wrong.any():
            measured["wrong", name] = average_precision(1 - says[name][given].astype(float), wrong)
    second = believed["second"]
    # The probability that a cell is the other way round than given.
    turn = np.where(given, 1 - second, second)
    careful = np.where(given, 1 - believed["careful"], believed["careful"])
    targets = {
        "given": given,
        "cleanlab": given ^ flags,
        "repaired": given ^ (turn >= SURE),
        "careful": given ^ (careful >= SURE),
        "soft": second,
    }
    for name, target in targets.items():
        model = fit(data.x, target, l2)
        measured["mAP", name] = mean_average_precision(predict(data.x_test, model), data.truth_test)
    is_wrong = given != data.truth
    counts = estimates.calibrated.sum(axis=0)
    notes = {
        "α planted": (data.truth & ~given).sum() / data.truth.sum(),
        "α": opinion.missing,
        "α by confident learning": counts[0, 1] / counts[:, 1].sum(),
        "ω planted": (given & ~data.truth).sum() / given.sum(),
        "ω": opinion.wrong,
        "ω by confident learning": counts[1, 0] / counts[1].sum(),
        "cells wrong as given": is_wrong.sum(),
        "after cleanlab": (is_wrong ^ flags).sum(),
        "after repair": (is_wrong ^ (turn >= SURE)).sum(),
        "turned": (turn >= SURE).sum(),
        "of them right": is_wrong[turn >= SURE].mean() if (turn >= SURE).any() else np.nan,
        "promised": turn[turn >= SURE].mean() if (turn >= SURE).any() else np.nan,
    }
    for name, mine in (("careful", given | ~given), ("missing", ~given), ("given wrong", given)):
        at = (careful >= SURE) & mine
        notes |= {f"{name}: turned": at.sum()}
        if at.any():
            notes |= {
                f"{name}: right": is_wrong[at].mean(),
                f"{name}: promised": careful[at].mean(),
            }
    return measured | {("note", name): float(value) for name, value in notes.items()}


def interval(values: list[float]) -> str:
    v = np.array(values)
    half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5 if len(v) > 1 else np.nan
    return f"{v.mean():.3f} ± {half:.3f}"


def verdict(a: list[float], b: list[float]) -> str:
    """Say whether a is surely above or below b, seed by seed."""
    d = np.array(a) - np.array(b)
    half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / len(d) ** 0.5 if len(d) > 1 else np.inf
    word = "win" if d.mean() > half else "LOSS" if d.mean() < -half else "tie"
    return f"{word} {d.mean():+.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", default="emotions,scene,yeast,corel5k,bibtex")
    parser.add_argument("--noise", default="hide10,hide20,hide40,flip20")
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in args.sets.split(","):
        x, truth = read_set(args.data / f"{name}.csv.gz")
        print(
            f"\n== {name}: {len(x):,} items, {truth.shape[1]} classes, "
            f"{truth.sum(axis=1).mean():.2f} an item ==",
            flush=True,
        )
        first = split(x, truth, 0)
        losses = {l2: held_out_loss(first.x, first.truth, l2) for l2 in PENALTIES}
        l2 = min(losses, key=losses.__getitem__)
        splits = [split(x, truth, seed) for seed in range(args.seeds)]
        full = [
            mean_average_precision(predict(s.x_test, fit(s.x, s.truth, l2)), s.truth_test)
            for s in splits
        ]
        for noise in args.noise.split(","):
            runs = defaultdict(list)
            for seed, data in enumerate(splits):
                for key, value in one_run(data, noise, seed, l2).items():
                    runs[key].append(value)
            runs["mAP", "full"] = full
            report(noise, runs)


def report(noise: str, runs: dict[tuple[str, str], list[float]]) -> None:
    print(noise)
    for what in ("missing", "wrong"):
        if (what, "score") in runs:
            row = "  ".join(f"{name} {interval(runs[what, name])}" for name in FINDERS)
            print(f"  {what:8}{row}")
            for name in ("belief", "second", "careful"):
                versus = ", ".join(
                    f"{verdict(runs[what, name], runs[what, other])} on {other}"
                    for other in ("threshold", "cleanlab", "score")
                )
                print(f"          {name}: {versus}")
    print("  mAP     " + "  ".join(f"{name} {interval(runs['mAP', name])}" for name in STUDENTS))
    for name in ("repaired", "careful", "soft"):
        versus = ", ".join(
            f"{verdict(runs['mAP', name], runs['mAP', other])} on {other}"
            for other in ("given", "cleanlab")
        )
        print(f"          {name}: {versus}")
    notes = {key[1]: float(np.nanmean(v)) for key, v in runs.items() if key[0] == "note"}
    print(
        "  cells   " + ", ".join(f"{name} {value:.4g}" for name, value in notes.items()), flush=True
    )


if __name__ == "__main__":
    main()
