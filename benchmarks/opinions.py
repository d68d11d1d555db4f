"""What several opinions are worth beside the best one: how well wrong labels are found and mended.

    python benchmarks/opinions.py --tables FOLDER [--small cifar10n_small_5k_with_images.npz]
        [--embedding lite0_small.npy] [--sets spambase pendigits letter adult cifar10n]
        [--noise …] [--seeds 5] [--out opinions.json]

Sets and noise are those of `harm.py`. Opinions are out of sample: softmax regression (linear),
votes of the nearest, histogram trees, small networks heard all along their training (margins
averaged over it), and cosines to class means, as stage `infer` fits them; of CIFAR-10N those of
pixels, those of an embedding, and those of the two networks that come with the cut. Each is brought
to the given labels by a temperature. They are taken alone, in pairs, and so on, and all together:

mean      of the probabilities
mixture   Σ w p with the weights at which the given labels are likeliest (EM)
pool      their product, each to a power (`labelops.opinions.pool`), as stage `infer` does

For each: F1 of cleanlab's flags and average precision of its score; F1 of `is_probably_wrong`,
average precision, Brier score and calibration error (ten bins) of `p_wrong`; and the share of
labels that are right when the most believed class replaces every label. Beside them, where there
are features, the area under the margin alone (Pleiss et al., with their threshold samples), of the
same networks trained on all items. Mean over seeds ± half a 95 % interval (Student's t); at the
end, how much `pool` is above the best single opinion, setting by setting. What `opinions.json` has
already is not measured again.
"""

import argparse
import itertools
import json
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from cleanlab.filter import find_label_issues
from scipy import stats
from sklearn.metrics import average_precision_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harm import RATES, TABLES, pictures, plant, read_table

from labelops.belief import (
    COARSE,
    believe,
    best_temperature,
    fine_grid,
    loss_through_noise,
    noise_at,
)
from labelops.calibration import log_safe
from labelops.confident.surest import count_cells, surest
from labelops.decide import p_wrong
from labelops.fast.neighbours import Voters
from labelops.fast.trees import predict_trees
from labelops.nn.heads import fit_heads
from labelops.nn.linear import Block, predict
from labelops.nn.network_heads import fit_networks, predict_networks
from labelops.nn.prototypes import fit_prototypes, predict_prototypes
from labelops.opinions.nearest import refer
from labelops.opinions.pool import fit_weights, pool
from labelops.opinions.trees import fit_trees
from labelops.temperature import apply_temperature, fit_temperature

FOLDS = 5
MEASURES = ("cleanlab F1", "cleanlab AP", "F1", "AP", "Brier", "calibration", "repaired")
AUM = "area under margin"
Heard = Callable[[], dict[str, np.ndarray]]


def heads(x: np.ndarray, given: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Return what each head says out of sample, shape (N, K) each."""
    n_classes, x = int(given.max()) + 1, x.astype(np.float32)
    fold = np.random.default_rng(seed).permutation(len(x)) % FOLDS
    blocks = [Block(x[a : a + 2048], given[a : a + 2048], fold[a : a + 2048])
              for a in range(0, len(x), 2048)]  # fmt: skip
    linear = fit_heads(
        lambda: blocks, n_features=x.shape[1], n_classes=n_classes, n_folds=FOLDS, max_iter=100
    )
    hashes = np.arange(len(x), dtype=np.uint64)
    trees = fit_trees(x, given, fold, n_classes=n_classes, n_folds=FOLDS, n_threads=2)
    networks = fit_networks(x, given, fold, n_classes=n_classes, n_folds=FOLDS)
    prototypes = fit_prototypes(x, given, fold, n_classes=n_classes, n_folds=FOLDS)
    return {
        "linear": predict(linear, x, fold),
        "nearest": Voters(refer(x, given, hashes), n_classes=n_classes).votes(x, hashes),
        "trees": predict_trees(trees, x, fold),
        "network": predict_networks(networks, x, fold),
        "prototypes": predict_prototypes(prototypes, x, fold),
    }


def area_under_margin(x: np.ndarray, given: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how wrong the margin averaged over training says labels are, and which are flagged.

    Some items are given a class that nobody has; what is not above their 99th percentile is
    flagged. Twice, so that every item is judged under its own label.
    """
    n, n_classes = len(given), int(given.max()) + 1
    rows, chosen = np.arange(n), np.random.default_rng(seed).permutation(n)
    chosen = chosen[: 2 * (n // (n_classes + 1))]
    score, flagged = np.full(n, np.nan), np.zeros(n, bool)
    for half in np.array_split(chosen, 2):
        labels = given.copy()
        labels[half] = n_classes
        nets = fit_networks(
            x, labels, np.full(n, -1), n_classes=n_classes + 1, n_folds=1, seed=seed
        )
        margin, scaled = np.zeros(n), (x - nets.center) / nets.scale
        for into, into_bias, out, out_bias in zip(*nets[2:], strict=True):
            logits = np.maximum(scaled @ into[0] + into_bias[0], 0) @ out[0] + out_bias[0]
            own = logits[rows, labels].copy()
            logits[rows, labels] = -np.inf
            margin += (own - logits.max(axis=1)) / len(nets.into)
        judged = np.isnan(score) & (labels == given)
        score[judged] = -margin[judged]
        flagged[judged] = margin[judged] <= np.percentile(margin[half], 99)
    return score, flagged


def calibrated(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return probabilities brought to the given labels by a temperature."""
    safe = np.maximum(probs.astype(np.float64), 1e-6)
    return apply_temperature(safe, temperature=fit_temperature(log_safe(safe), given))


def mixture(probs: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Return Σ w p with the weights of greatest likelihood, by EM."""
    of_given = probs[:, np.arange(len(given)), given]
    weights = np.full(len(probs), 1 / len(probs))
    for _ in range(100):
        share = of_given * weights[:, None]
        weights = (share / share.sum(axis=0)).mean(axis=1)
    return np.tensordot(weights, probs, 1)


def f1(found: np.ndarray, wrong: np.ndarray) -> float:
    """Return the F1 of what is found."""
    return 2 * float((found & wrong).sum()) / max(int(found.sum() + wrong.sum()), 1)


def measure(probs: np.ndarray, given: np.ndarray, true: np.ndarray) -> dict[str, float]:
    """Return all measures of one opinion."""
    n, n_classes = probs.shape
    row, wrong = np.arange(n), given != true
    lead = probs.argmax(axis=1)
    said = surest(count_cells(lead, probs.max(axis=1), lead == given), n_classes=n_classes)
    counts = np.zeros((n_classes, n_classes))
    np.add.at(counts, (given, lead), 1)
    noise = noise_at(said.rate, counts)
    ways = []
    for way in (False, True):
        grid = COARSE
        for _ in range(2):
            losses = loss_through_noise(probs, given, noise, grid, subtracts=way)
            found = best_temperature(grid, losses)
            grid = fine_grid(found)
        ways.append((int(losses.min()), found, way))
    _, temperature, way = min(ways)
    belief, _ = believe(probs, given, noise, temperature=temperature, subtracts=way)
    flags = find_label_issues(given, probs)
    p = p_wrong(belief[row, given], flags)

    bins = np.minimum((p * 10).astype(int), 9)
    off = np.bincount(bins, p - wrong, minlength=10)
    return {
        "cleanlab F1": f1(flags, wrong),
        "cleanlab AP": average_precision_score(wrong, -probs[row, given]),
        "F1": f1(p > 0.5, wrong),
        "AP": average_precision_score(wrong, p),
        "Brier": float(np.square(p - wrong).mean()),
        "calibration": float(np.abs(off).sum() / n),
        "repaired": float((belief.argmax(axis=1) == true).mean()),
    }


def combined(said: dict[str, np.ndarray], given: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield every opinion alone, and what is made of pairs and of all."""
    own = {name: calibrated(probs, given) for name, probs in said.items()}
    yield from own.items()
    for n in range(2, len(own) + 1):
        for names in itertools.combinations(own, n):
            stack = np.stack([own[name] for name in names])
            if n == len(own):
                yield "mean", calibrated(stack.mean(axis=0), given)
                yield "mixture", calibrated(mixture(stack, given), given)
            title = "pool" if n == len(own) else f"pool of {' and '.join(names)}"
            yield title, pool(stack, fit_weights(stack, given))


def settings(
    args: argparse.Namespace, seed: int
) -> Iterator[tuple[str, np.ndarray | None, np.ndarray, np.ndarray, Heard]]:
    """Yield title, features, given and true labels of every setting, and what says the opinions."""
    for name in args.sets:
        if name == "cifar10n":
            ready = defaultdict(dict)
            for items in pictures(args.small, seed, ("ready", "heads"), args.embedding):
                if items.probs is not None:
                    label, model = items.name.removeprefix("small-").rsplit("-", 1)
                    ready[label][model] = items.probs
                    truth = items.given, items.true
                    if len(ready[label]) == 2:
                        say = partial(dict, ready[label])
                        yield f"cifar10n {label} networks", None, *truth, say
                else:
                    say = partial(heads, items.features, items.given, seed)
                    yield items.name, items.features, items.given, items.true, say
            continue
        x, true = read_table(args.tables, name, seed)
        for noise in args.noise:
            given = plant(x, true, *RATES[noise], seed)
            yield f"{name} {noise}", x, given, true, partial(heads, x, given, seed)


def main() -> None:
    """Measure every setting, and say what the pool is above the best single opinion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--embedding", type=Path)
    parser.add_argument("--sets", nargs="+", default=[*TABLES[:4], "cifar10n"])
    parser.add_argument(
        "--noise", nargs="+", default=["symmetric-0.05", "symmetric-0.2", "pair-0.2"]
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.small is None:
        args.sets = [name for name in args.sets if name != "cifar10n"]
    lines = json.loads(args.out.read_text()) if args.out and args.out.exists() else []
    known = {(line["set"], line["seed"]) for line in lines}
    for seed in range(args.seeds):
        for title, x, given, true, say in settings(args, seed):
            if (title, seed) in known:
                continue
            opinions = {}
            if x is not None:
                score, flagged = area_under_margin(x, given, seed)
                opinions[AUM] = dict.fromkeys(MEASURES, np.nan) | {
                    "F1": f1(flagged, given != true),
                    "AP": average_precision_score(given != true, score),
                }
            for name, probs in combined(say(), given):
                opinions[name] = measure(probs, given, true)
            lines.append({"set": title, "seed": seed, "opinions": opinions})
            if args.out:
                args.out.write_text(json.dumps(lines))
    found: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        for name, figures in line["opinions"].items():
            found[line["set"]][name].append(list(figures.values()))
    above = defaultdict(list)
    for title, opinions in found.items():
        print(f"\n{title}\n{'':52}" + "".join(f"{name:>18}" for name in MEASURES))
        for name, rows in opinions.items():
            table = np.array(rows)
            half = stats.t.ppf(0.975, max(len(rows) - 1, 1)) * table.std(axis=0, ddof=len(rows) > 1)
            half /= np.sqrt(len(rows))
            cells = "".join(
                f"{m:>11.3f} ± {h:.3f}" for m, h in zip(table.mean(axis=0), half, strict=True)
            )
            print(f"{name:52}{cells}", flush=True)
        alone = {n: np.mean(r, axis=0) for n, r in opinions.items() if "pool" not in n}
        margin = alone.pop(AUM, None)
        alone = {n: v for n, v in alone.items() if n not in ("mean", "mixture")}
        pooled = np.mean(opinions["pool"], axis=0)
        for m, name in enumerate(MEASURES):
            is_loss = name in ("Brier", "calibration")
            best = (min if is_loss else max)(v[m] for v in alone.values())
            above[name].append(pooled[m] - best)
        best = max(v[0] for v in alone.values())
        above["F1 above cleanlab's on the best single"].append(pooled[2] - best)
        best = max(v[1] for v in alone.values())
        above["AP above cleanlab's on the best single"].append(pooled[3] - best)
        if margin is not None:
            above[f"F1 above {AUM}"].append(pooled[2] - margin[2])
            above[f"AP above {AUM}"].append(pooled[3] - margin[3])
    print(f"\nPool less the best single opinion, {len(found)} settings:")
    for name, values in above.items():
        ends = f"least {min(values):+.4f}, most {max(values):+.4f}"
        print(f"  {name}: mean {np.mean(values):+.4f}, {ends}")


if __name__ == "__main__":
    main()
