"""Whether what is meant for long tails with wrong labels helps linear heads on fixed features.

    python benchmarks/long_tail.py --tables FOLDER [--small cifar10n_small_5k_with_images.npz
        --embedding lite0_small.npy] [--sets letter pendigits covtype cifar10] [--seeds 5]
        [--ratios 10 100] [--noise popular even] [--rates 0.1 0.3] [--out long_tail.json]

FOLDER has the tables `letter`, `pendigits` and `covtype`; the embedding is of the cut of CIFAR-10N,
whose labels here are the clean ones. Classes in random order get n_max · ratio ^(−k / (K − 1))
items, k = 0 … K − 1; at the rate given a label turns into another class, *popular*: the more often
the more items that class has, as in RCAL's experiments, or *even*: any. Unlabelled items are drawn
besides. Heads are out of fold (5), and one is fitted to all items and asked about clean ones, as
many of every class.

plain       `labelops.nn.heads`
weights     items weigh 1 / n_k
thresholds  p_k / n_k of the plain head, rows made to sum to 1
adjusted    p_k less the mean self-confidence of the class, as cleanlab adjusts it
rcal        extra points for the head, until every class has as many: from the mean and covariance
            of its items without outliers (LOF, 20 neighbours), for tail classes those of its three
            nearest head classes mixed in (half, α = 0.01, weights as printed)
semi        the plain head's first choices on unlabelled items are labels like the others
semi, even  the same, where the unlabelled items are as many of every class

Head classes are the most frequent ones that have half of the items together; tail is the rest.
Printed: balanced accuracy; F1 of the flags of `labelops.confident` and average precision of its
self-confidence, over all items and over those given a tail class. Mean over seeds ± half a 95 %
interval (Student's t) of what is gained over the plain head, seed by seed; at the end over all
settings, and in how many it gains or loses more than the interval. What `long_tail.json` has is not
measured again.

References: Zhang et al.: When noisy labels meet long tail dilemmas: a representation calibration
method. ICCV 2023 (RCAL; of its own encoder nothing is here). Yang, Xu: Rethinking the value of
labels for improving class-imbalanced learning. NeurIPS 2020 (semi). Menon et al.: Long-tail
learning via logit adjustment. ICLR 2021 (thresholds).
"""

import argparse
import json
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from sklearn.metrics import average_precision_score, balanced_accuracy_score, f1_score
from sklearn.neighbors import LocalOutlierFactor
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harm import read_table

from labelops.confident import thresholds
from labelops.confident.issues import find_label_issues
from labelops.confident.scores import label_scores
from labelops.nn.heads import fit_heads
from labelops.nn.linear import Block, Heads, fit_linear, predict

FOLDS, NEIGHBOURS, NEAREST, MIX, ALPHA = 5, 20, 3, 0.5, 0.01
FIGURES = ("balanced", "F1", "AP", "tail F1", "tail AP")
# Items of a class: tested, labelled at most, unlabelled at most.
SIZES = {
    "letter": (150, 300, 200),
    "pendigits": (250, 500, 300),
    "covtype": (300, 1000, 600),
    "cifar10": (100, 250, 150),
}


class Drawn(NamedTuple):
    """A long-tailed set with wrong labels, unlabelled items (two kinds) and a clean test set."""

    x: np.ndarray
    true: np.ndarray
    given: np.ndarray
    fold: np.ndarray
    unlabelled: np.ndarray
    even: np.ndarray
    x_test: np.ndarray
    test: np.ndarray
    n_classes: int

    @property
    def n_given(self) -> np.ndarray:
        return np.bincount(self.given, minlength=self.n_classes)


def draw(
    name: str,
    x: np.ndarray,
    true: np.ndarray,
    *,
    ratio: float,
    noise: str,
    rate: float,
    seed: int,
) -> Drawn:
    """Cut a long-tailed set out of a data set."""
    rng, n_classes = np.random.default_rng([seed, int(ratio), int(100 * rate)]), int(true.max()) + 1
    n_test, n_most, n_more = SIZES[name]
    shares = ratio ** -(rng.permutation(n_classes) / (n_classes - 1))
    parts: list[list[np.ndarray]] = [[], [], [], []]
    for k, share in enumerate(shares):
        rows = rng.permutation(np.flatnonzero(true == k))
        edges = np.cumsum([n_test, int(n_most * share), int(n_more * share)])
        parts[0].append(rows[: edges[0]])
        parts[1].append(rows[edges[0] : edges[1]])
        parts[2].append(rows[edges[1] : edges[2]])
        # As many unlabelled ones in all, and as many of every class.
        even = int(n_more * shares.mean())
        parts[3].append(rows[edges[1] : edges[1] + even])
    test, train, more, even = (np.concatenate(part) for part in parts)
    train = rng.permutation(train)
    n = np.bincount(true[train], minlength=n_classes) ** (1.0 if noise == "popular" else 0.0)
    given = true[train].copy()
    for i in np.flatnonzero(rng.random(len(train)) < rate):
        others = np.where(np.arange(n_classes) == true[train[i]], 0, n)
        given[i] = rng.choice(n_classes, p=others / others.sum())
    fold = np.empty(len(train), np.int64)
    # Stratified by what is given.
    order = np.argsort(given, kind="stable")
    fold[order] = np.arange(len(train)) % FOLDS
    mean, std = x[train].mean(axis=0), x[train].std(axis=0)
    x = (x - mean) / np.where(std > 0, std, 1)
    return Drawn(
        x[train], true[train], given, fold, x[more], x[even], x[test], true[test], n_classes
    )


class Said(NamedTuple):
    """Labels with weights, (n,) each."""

    given: np.ndarray
    weight: np.ndarray


class Weighted:
    """Softmax regression in which items weigh; otherwise as in `labelops.nn.heads`."""

    def __init__(self, blocks: Iterable[Block[Said]], n_classes: int, n_folds: int) -> None:
        self.shape = n_folds, n_classes
        self.total = torch.zeros(n_folds, dtype=torch.float64)
        for block in blocks:
            self.total += self._weights(block).sum(dim=0)

    def _weights(self, block: Block[Said]) -> Tensor:
        outside = torch.from_numpy(block.fold)[:, None] != torch.arange(self.shape[0])
        return outside * torch.from_numpy(block.given.weight)[:, None]

    def error(self, logits: Tensor, block: Block[Said]) -> tuple[Tensor, Tensor]:
        given = torch.from_numpy(block.given.given)
        weight = self._weights(block) / self.total
        log_probs = functional.log_softmax(logits.view(-1, *self.shape), dim=2)
        index = given.view(-1, 1, 1).expand(-1, self.shape[0], 1)
        losses = -log_probs.gather(2, index).squeeze(2).double() * weight
        error = log_probs.exp()
        error.scatter_add_(2, index, torch.full_like(index, -1, dtype=torch.float32))
        error *= weight.float().unsqueeze(2)
        return losses.sum(), error.view(len(given), -1)

    def held_out(self, logits: Tensor, block: Block[Said]) -> tuple[Tensor, Tensor]:
        own = logits.view(-1, *self.shape)[torch.arange(len(block.fold)), block.fold].double()
        weight = torch.from_numpy(block.given.weight)
        losses = functional.cross_entropy(
            own, torch.from_numpy(block.given.given), reduction="none"
        )
        return (losses * weight).sum(), weight.sum()


def fit(
    x: np.ndarray, said: Said, fold: np.ndarray, *, n_classes: int, n_folds: int, l2: float | None
) -> Heads:
    """Fit heads to items that weigh."""
    block = Block(x.astype(np.float32), said, fold)
    return fit_linear(
        lambda: [block],
        lambda blocks: Weighted(blocks, n_classes, n_folds),
        n_features=x.shape[1],
        n_classes=n_classes,
        n_folds=n_folds,
        l2=l2,
        n_threads=1,
    )


class Probs(NamedTuple):
    """Out of fold, and of clean test items."""

    own: np.ndarray
    test: np.ndarray

    def turned(self, offset: np.ndarray, factor: np.ndarray) -> "Probs":
        """Return probabilities moved class by class, with rows that sum to 1."""
        moved = [(p.astype(np.float64) + offset) * factor for p in self]
        return Probs(*(p / p.sum(axis=1, keepdims=True) for p in moved))


def joint(data: Drawn, weight: np.ndarray | None) -> tuple[Probs, float, Heads]:
    """Return what heads say that are fitted together, the last of them to all items."""
    sizes = {"n_classes": data.n_classes, "n_folds": FOLDS + 1}
    if weight is None:
        block = Block(data.x.astype(np.float32), data.given, data.fold)
        heads = fit_heads(lambda: [block], n_features=data.x.shape[1], n_threads=1, **sizes)
    else:
        heads = fit(data.x, Said(data.given, weight), data.fold, l2=None, **sizes)
    everywhere = np.full(len(data.test), FOLDS)
    test = predict(heads, data.x_test, everywhere)
    return Probs(predict(heads, data.x, data.fold), test), heads.l2, heads


def one_by_one(data: Drawn, more: "More", l2: float) -> Probs:
    """Return what heads say that get items besides, made from what each of them may see."""
    probs = Probs(
        np.empty((len(data.x), data.n_classes)), np.empty((len(data.test), data.n_classes))
    )
    for f in range(FOLDS + 1):
        seen = data.fold != f
        x, given = more(f, seen)
        x, given = np.concatenate([data.x[seen], x]), np.concatenate([data.given[seen], given])
        fold, said = np.full(len(x), 1), Said(given, np.ones(len(x)))
        heads = fit(x, said, fold, n_classes=data.n_classes, n_folds=1, l2=l2)
        if f < FOLDS:
            probs.own[~seen] = predict(heads, data.x[~seen], np.zeros((~seen).sum(), int))
        else:
            probs.test[:] = predict(heads, data.x_test, np.zeros(len(data.test), int))
    return probs


class Calibrated:
    """RCAL's extra points."""

    def __init__(self, data: Drawn, seed: int) -> None:
        self.data = data
        self.rng = np.random.default_rng([seed, 7])

    def __call__(self, f: int, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, given = self.data.x[seen], self.data.given[seen]
        n = np.bincount(given, minlength=self.data.n_classes)
        kept = [inliers(x[given == k]) for k in range(len(n))]
        centre = np.stack([part.mean(axis=0) if len(part) else x.mean(axis=0) for part in kept])
        head = head_classes(n)
        parts, labels = [], []
        for k in np.flatnonzero((n > 1) & (n < n.max())):
            weight, classes, n_more = [1.0], [k], int(n.max() - n[k])
            if not head[k]:
                d = np.square(centre[head] - centre[k]).sum(axis=1)
                nearest = np.argsort(d)[:NEAREST]
                ids, d = np.flatnonzero(head)[nearest], d[nearest]
                w = n[ids] * d
                weight, classes = [1 - MIX, *(MIX * w / w.sum())], [k, *ids]
            drawn = np.sqrt(0.0 if head[k] else ALPHA) * self.rng.normal(size=(n_more, 1))
            drawn = drawn + np.zeros((n_more, x.shape[1]))
            # A sum of normal vectors has the summed covariances, and no matrix need be factored.
            for w, c in zip(weight, classes, strict=True):
                own = kept[c] - centre[c]
                noise = self.rng.normal(size=(n_more, len(own)))
                drawn += w * centre[c] + np.sqrt(w / max(len(own) - 1, 1)) * noise @ own
            parts.append(drawn)
            labels.append(np.full(n_more, k))
        if not parts:
            return x[:0], given[:0]
        return np.concatenate(parts), np.concatenate(labels)


def inliers(x: np.ndarray) -> np.ndarray:
    """Return the items of a class that are no outliers by their local density."""
    if len(x) < 4:
        return x
    finder = LocalOutlierFactor(n_neighbors=min(NEIGHBOURS, len(x) - 1), algorithm="brute")
    return x[finder.fit_predict(x) > 0]


def head_classes(n: np.ndarray) -> np.ndarray:
    """Return which classes are the most frequent ones that have half of all items; bool."""
    order = np.argsort(-n, kind="stable")
    before = np.cumsum(n[order]) - n[order]
    is_head = np.zeros(len(n), bool)
    is_head[order[before < n.sum() / 2]] = True
    return is_head


class Pseudo:
    """Unlabelled items with the first choices of the plain heads."""

    def __init__(self, heads: Heads, unlabelled: np.ndarray) -> None:
        self.heads, self.x = heads, unlabelled

    def __call__(self, f: int, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.x, predict(self.heads, self.x, np.full(len(self.x), f)).argmax(axis=1)


More = Calibrated | Pseudo


def figures_of(data: Drawn, probs: Probs) -> dict[str, float]:
    """Return how good the head is, and how well wrong labels are found."""
    own = (probs.own / probs.own.sum(axis=1, keepdims=True)).astype(np.float32)
    wrong, flags = data.given != data.true, find_label_issues(own, data.given)
    doubt = -label_scores(own, data.given)
    tail = ~head_classes(data.n_given)[data.given]
    found = {"balanced": float(balanced_accuracy_score(data.test, probs.test.argmax(axis=1)))}
    for name, part in (("", np.ones(len(wrong), bool)), ("tail ", tail)):
        some = wrong[part].any()
        f1 = f1_score(wrong[part], flags[part], zero_division=0) if some else np.nan
        ap = average_precision_score(wrong[part], doubt[part]) if some else np.nan
        found |= {f"{name}F1": float(f1), f"{name}AP": float(ap)}
    return found


def measure(data: Drawn, seed: int) -> dict[str, dict[str, float]]:
    """Return the figures of every method."""
    n = np.maximum(data.n_given, 0.5)
    weight = (1 / n)[data.given]
    plain, l2, heads = joint(data, None)
    balanced, l2_balanced, _ = joint(data, weight / weight.mean())
    p_given = plain.own[np.arange(len(data.given)), data.given]
    sums = thresholds.summarize(p_given, data.given, n_classes=data.n_classes)
    t = thresholds.finish(sums)
    t = np.where(data.n_given > 0, t, t[data.n_given > 0].max())
    said = {
        "plain": plain,
        "weights": balanced,
        "thresholds": plain.turned(np.zeros(len(n)), 1 / n),
        "adjusted": plain.turned(t.max() - t, np.ones(len(n))),
        "rcal": one_by_one(data, Calibrated(data, seed), l2_balanced),
        "semi": one_by_one(data, Pseudo(heads, data.unlabelled), l2),
        "semi, even": one_by_one(data, Pseudo(heads, data.even), l2),
    }
    return {name: figures_of(data, probs) for name, probs in said.items()}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and half of its 95 % interval, of what is known."""
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return float(values.mean()) if len(values) else np.nan, np.nan
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean()), float(half)


def show(known: dict[str, dict[str, dict[str, float]]], settings: list[list[str]]) -> None:
    """Print what is gained over the plain head, in each setting and over all."""
    methods = [name for name in known[settings[0][0]] if name != "plain"]
    gains: dict[tuple[str, str], list[np.ndarray]] = {}
    for keys in settings:
        plain = {f: interval(np.array([known[key]["plain"][f] for key in keys])) for f in FIGURES}
        print(f"{keys[0].rsplit(' ', 1)[0]}, {len(keys)} seeds")
        print(
            f"    {'plain':12}" + "".join(f"{f} {m:.3f} ± {h:.3f}  " for f, (m, h) in plain.items())
        )
        for method in methods:
            cells = []
            for f in FIGURES:
                gain = np.array([known[key][method][f] - known[key]["plain"][f] for key in keys])
                gains.setdefault((method, f), []).append(gain)
                cells.append("{} {:+.3f} ± {:.3f}  ".format(f, *interval(gain)))
            print(f"    {method:12}" + "".join(cells))
    print(f"{len(settings)} settings: mean gain (settings in which it gains, loses beyond chance)")
    for method in methods:
        cells = []
        for f in FIGURES:
            ends = np.array([interval(gain) for gain in gains[method, f]])
            up, down = (ends[:, 0] > ends[:, 1]).sum(), (ends[:, 0] < -ends[:, 1]).sum()
            of_seeds = np.nanmean(np.stack(gains[method, f]), axis=0)
            cells.append("{} {:+.3f} ± {:.3f} ({}, {})  ".format(f, *interval(of_seeds), up, down))
        print(f"    {method:12}" + "".join(cells), flush=True)


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--embedding", type=Path)
    parser.add_argument("--sets", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--ratios", nargs="+", type=float, default=[10, 100])
    parser.add_argument("--noise", nargs="+", default=["popular", "even"])
    parser.add_argument("--rates", nargs="+", type=float, default=[0.1, 0.3])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    known = json.loads(args.out.read_text()) if args.out and args.out.exists() else {}
    settings = list(product(args.ratios, args.noise, args.rates))
    for name in args.sets:
        if name == "cifar10":
            x = np.load(args.embedding, allow_pickle=False).astype(np.float32)
            true = np.load(args.small, allow_pickle=False)["clean_label"].astype(np.int64)
        else:
            x, true = read_table(args.tables, name, 0, 10**9)
        for seed in range(args.seeds):
            for ratio, noise, rate in settings:
                key = f"{name} ratio {ratio:g} {noise} {rate:g} {seed}"
                if key in known:
                    continue
                data = draw(name, x, true, ratio=ratio, noise=noise, rate=rate, seed=seed)
                known[key] = measure(data, seed)
                print(key, {m: round(f["balanced"], 3) for m, f in known[key].items()}, flush=True)
                if args.out:
                    args.out.write_text(json.dumps(known, indent=1))
    seeds = range(args.seeds)
    show(
        known,
        [
            [f"{name} ratio {ratio:g} {noise} {rate:g} {seed}" for seed in seeds]
            for name in args.sets
            for ratio, noise, rate in settings
        ],
    )


if __name__ == "__main__":
    main()
