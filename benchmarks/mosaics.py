"""From one label to all of a picture's contents, and where they are, on pictures of known content.

Fashion-MNIST pieces are put into the quarters of a picture, one to four of them; one content, drawn
at random, is the given label. A small network that averages over cells is trained on single pieces
(or, which is harder, on such pictures with their one label), and asked on others:

    given         the given label alone
    pooled        the network's own softmax over the whole picture, cutoffs chosen as for maps
    pooled > ½    the same from a half on, as is usual
    maps          the surest cell of its label maps, cutoffs by class from the one label that a
                  picture has (recall² over how often a class is found): nobody looked further
    …, known      the same, cutoffs by F1 on 200 pictures all contents of which are known
    …, added      the given label and what maps add to it, as stage `decide_maps` does: all that is
                  found, or with known pictures what is there with at least ½ in bands that the
                  held-out ones of these pictures support; and what was promised of added classes
                  by band, beside the share that is there

What is printed: recall and precision of the sets, share of rightly found classes whose cell lies in
a quarter that holds them, and, for the quarters themselves, how often the label pooled from the map
within a quarter is what lies there, against the given label of the picture. Means over seeds with
95 % t intervals; another network, split and mosaics for every seed.

    .venv/bin/python benchmarks/mosaics.py [--seeds 3]
"""

import argparse
import io
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from scipy import stats
from scipy.special import softmax
from torch import nn
from torch.nn import functional

from labelops.decisions import BANDS
from labelops.gate import measured_gain
from labelops.label_maps import pool, sparsify_maps, whole_boxes
from labelops.label_peaks import peaks
from labelops.multilabel.cutoffs import choose_cutoffs, choose_cutoffs_from_positives, sets_from
from labelops.multilabel.found import (
    FOLDS,
    fit_probability,
    found_by_others,
    held_out,
    probability,
)
from labelops.multilabel.labels import UNKNOWN, YES, from_states
from labelops.nn.score_maps import ScoreMaps

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data"
SIDE, N_CLASSES = 28, 10
N_PIECES = 2400
"""Pieces to train on; the others make the mosaics that are looked at."""
N_TAUGHT, N_MOSAICS, N_KNOWN = 1600, 1000, 200
EMPTY = 0.25
"""Share of quarters without a piece."""
EPOCHS = {"pieces": 8, "mosaics": 7}
BATCH, RATE, DECAY = 64, 2e-3, 0.05
QUARTERS = np.array([[0, 0, 1, 1], [1, 0, 2, 1], [0, 1, 1, 2], [1, 1, 2, 2]]) / 2
"""Boxes (x1, y1, x2, y2), row by row."""


class Mosaics(NamedTuple):
    """Pictures (N, 1, 56, 56), class of every quarter or −1 (N, 4), one given class (N,)."""

    images: np.ndarray
    quarters: np.ndarray
    given: np.ndarray

    @property
    def truth(self) -> np.ndarray:
        """Whether a picture has each class, (N, K)."""
        return (self.quarters[:, :, None] == np.arange(N_CLASSES)).any(axis=1)


def read_pieces() -> tuple[np.ndarray, np.ndarray]:
    """Return pictures, float32 (N, 28, 28) in [0, 1], and true classes; nothing twice."""
    facts = pq.read_table(SAMPLE / "fashion_mnist_truth.parquet").to_pylist()
    true = {f["item_id"]: f["true_label"] for f in facts if f["copy_of"] is None}
    table = pq.read_table(SAMPLE / "fashion_mnist", columns=["item_id", "image"])
    rows = [row for row in table.to_pylist() if true.get(row["item_id"]) is not None]
    images = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows]
    pixels = np.stack([np.asarray(image.convert("L"), np.float32) for image in images]) / 255
    return pixels, np.array([true[row["item_id"]] for row in rows])


def make_mosaics(
    pieces: np.ndarray, classes: np.ndarray, n: int, rng: np.random.Generator
) -> Mosaics:
    """Put pieces into quarters, at least one a picture; draw the given label from them."""
    chosen = rng.integers(0, len(pieces), (n, 4))
    is_empty = rng.random((n, 4)) < EMPTY
    is_empty[np.arange(n), rng.integers(0, 4, n)] = False
    tiles = np.where(is_empty[:, :, None, None], 0, pieces[chosen])
    images = tiles.reshape(n, 2, 2, SIDE, SIDE).transpose(0, 1, 3, 2, 4).reshape(n, 1, 56, 56)
    quarters = np.where(is_empty, -1, classes[chosen])
    weight = np.where(is_empty, 0.0, rng.random((n, 4)))
    return Mosaics(images, quarters, quarters[np.arange(n), weight.argmax(axis=1)])


def network(seed: int) -> tuple[nn.Sequential, nn.Linear]:
    """Return five convolutions, the mean over cells of four pixels, and a linear layer.

    A cell sees 27 pixels, about a piece.
    """
    torch.manual_seed(seed)
    head = nn.Linear(64, N_CLASSES)
    layers: list[nn.Module] = []
    for before, after, stride in ((1, 24, 2), (24, 48, 1), (48, 64, 2), (64, 64, 1), (64, 64, 1)):
        layers += [nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), head


def train(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> ScoreMaps:
    """Train with the one label of each picture, a few pixels shifted at random."""
    model, head = network(seed)
    x, y = torch.from_numpy(images.astype(np.float32)), torch.from_numpy(labels)
    steps = epochs * -(-len(x) // BATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(BATCH):
            shift = tuple(torch.randint(-2, 3, (2,)).tolist())
            loss = functional.cross_entropy(
                model(torch.roll(x[rows], shift, dims=(2, 3))), y[rows], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return ScoreMaps(model.eval(), head)


def scores_of(net: ScoreMaps, images: np.ndarray) -> np.ndarray:
    x = torch.from_numpy(images.astype(np.float32))
    return np.concatenate([net(part).numpy() for part in x.split(256)])


def quality(sets: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    hits = (sets & truth).sum()
    return {"recall": hits / truth.sum(), "precision": hits / max(sets.sum(), 1)}


def one_given(mosaics: Mosaics) -> np.ndarray:
    """Return states: yes for the given class, unknown for all others."""
    states = np.full((len(mosaics.given), N_CLASSES), UNKNOWN, np.int8)
    states[np.arange(len(states)), mosaics.given] = YES
    return states


def one_run(taught: str, seed: int) -> dict[tuple[str, str], float]:
    """Train a network, choose cutoffs on some mosaics, look at others."""
    rng = np.random.default_rng(seed)
    pieces, classes = read_pieces()
    order = rng.permutation(len(pieces))
    training_set, rest = order[:N_PIECES], order[N_PIECES:]
    if taught == "pieces":
        net = train(pieces[training_set][:, None], classes[training_set], EPOCHS[taught], seed)
    else:
        shown = make_mosaics(pieces[training_set], classes[training_set], N_TAUGHT, rng)
        net = train(shown.images, shown.given, EPOCHS[taught], seed)
    half = len(rest) // 2
    evidence = make_mosaics(pieces[rest[:half]], classes[rest[:half]], N_MOSAICS, rng)
    test = make_mosaics(pieces[rest[half:]], classes[rest[half:]], N_MOSAICS, rng)
    maps, held_out = (sparsify_maps(scores_of(net, m.images), k=5) for m in (test, evidence))
    (sure, cell), (known_sure, _) = peaks(maps), peaks(held_out)
    boxes = whole_boxes(N_MOSAICS)
    pooled, known_pooled = (softmax(pool(m, boxes), axis=1) for m in (maps, held_out))
    labels = from_states(one_given(evidence))
    some = slice(0, N_KNOWN)
    all_known = from_states(evidence.truth[some].astype(np.int8))
    labellings = {
        "given": test.given[:, None] == np.arange(N_CLASSES),
        "pooled": sets_from(pooled, choose_cutoffs_from_positives(known_pooled, labels)),
        "pooled > ½": pooled > 0.5,
        "pooled, known": sets_from(pooled, choose_cutoffs(known_pooled[some], all_known)),
        "maps": sets_from(sure, choose_cutoffs_from_positives(known_sure, labels)),
        "maps, known": sets_from(sure, choose_cutoffs(known_sure[some], all_known)),
    }
    result: dict[tuple[str, str], float] = {}
    is_given = labellings["given"]
    labellings["maps, added"] = is_given | labellings["maps"]
    known = Known(known_sure[some], evidence.truth[some].astype(np.int8), evidence.given[some])
    labellings["maps, known, added"], result_of_bands = added(known, sure, is_given, test.truth)
    result |= result_of_bands
    for name, sets in labellings.items():
        for what, value in quality(sets, test.truth).items():
            result[name, what] = float(value)
        if name in ("maps", "maps, known"):
            result[name, "location"] = located(sets & test.truth, cell, test)
    said = {
        "pooled from maps": [
            pool(maps, np.tile(b, (N_MOSAICS, 1))).argmax(axis=1) for b in QUARTERS
        ],
        "softmax of the whole": [pooled.argmax(axis=1)] * 4,
        "given label": [test.given] * 4,
    }
    is_filled = test.quarters >= 0
    for name, labels_of in said.items():
        is_right = np.stack(labels_of, axis=1) == test.quarters
        result["quarters", name] = float(is_right[is_filled].mean())
    return result


class Known(NamedTuple):
    """How sure maps are of classes of some pictures, (N, K), states of these, and given labels."""

    sure: np.ndarray
    table: np.ndarray
    given: np.ndarray


def added(
    known: Known, sure: np.ndarray, is_given: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, dict[tuple[str, str], float]]:
    """Return labels with what is added to the given ones, and what the bands are worth."""
    cutoffs, edges = choose_cutoffs(known.sure, from_states(known.table)), np.array(BANDS)
    counted = known.given[:, None] != np.arange(N_CLASSES)
    fold = np.arange(len(known.given)) % FOLDS
    counted &= found_by_others(known.sure, known.table, fold)
    scaling = fit_probability(known.sure, known.table, counted)
    held = held_out(known.sure, known.table, counted, fold, edges=edges)
    counts = zip(held.right.tolist(), held.wrong.tolist(), strict=True)
    ships = np.array([measured_gain(r, w, r + w).low > 0 for r, w in counts])
    item, class_id = np.nonzero(sets_from(sure, cutoffs) & ~is_given)
    p = probability(sure[item, class_id], class_id, scaling)
    band = np.searchsorted(edges, p, side="right") - 1
    labels = is_given.copy()
    taken = (band >= 0) & ships[band]
    labels[item[taken], class_id[taken]] = True
    result: dict[tuple[str, str], float] = {}
    for low, high in ((0.0, 0.5), (0.5, 0.7), (0.7, 0.9), (0.9, 1.01)):
        mine = (p >= low) & (p < high)
        if mine.any():
            result[f"promised {low:g}–{min(high, 1):g}", "promised"] = float(p[mine].mean())
            right = truth[item[mine], class_id[mine]].mean()
            result[f"promised {low:g}–{min(high, 1):g}", "right"] = float(right)
            result[f"promised {low:g}–{min(high, 1):g}", "number"] = float(mine.sum())
    return labels, result


def located(right: np.ndarray, cell: np.ndarray, test: Mosaics) -> float:
    """Return how often the cell of a rightly found class lies in a quarter that holds it."""
    item, class_id = np.nonzero(right)
    row, column = np.divmod(cell[item, class_id], 14)
    quarter = 2 * (row // 7) + column // 7
    return float((test.quarters[item, quarter] == class_id).mean())


def interval(values: list[float]) -> str:
    v = np.array(values)
    if len(v) < 2:
        return f"{v.mean():.3f}"
    half = stats.t.ppf(0.975, len(v) - 1) * v.std(ddof=1) / len(v) ** 0.5
    return f"{v.mean():.3f} ± {half:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    for taught in ("pieces", "mosaics"):
        began = time.monotonic()
        runs = defaultdict(list)
        for seed in range(args.seeds):
            for key, value in one_run(taught, seed).items():
                runs[key].append(value)
        seconds = time.monotonic() - began
        print(f"\n== taught with {taught}, {args.seeds} seeds, {seconds:.0f} s ==")
        for name in dict.fromkeys(key[0] for key in runs):
            row = [f"{what} {interval(runs[key, what])}" for key, what in runs if key == name]
            print(f"  {name:19}" + "  ".join(row), flush=True)


if __name__ == "__main__":
    main()
