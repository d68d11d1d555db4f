"""Tables and pictures with two classes, prepared alike for all methods and without their labels.

Numbers become normal scores of their ranks, categories indicators of mean 0 (those of one in 500
items or more); Fashion-MNIST is halved in side and turned onto its 50 main axes. Positive are an
income above 50,000 dollars (Adult), a subscription (Bank Marketing), and pullovers, coats and
shirts (Fashion-MNIST, 30,000 pictures).
"""

import csv
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

RARE = 0.002
ADULT_CATEGORIES = (
    "workclass",
    "education",
    "marital-status",
    "occupation",
    "relationship",
    "race",
    "sex",
    "native-country",
)
TOPS = (2, 4, 6)


class Table(NamedTuple):
    """Features (N, D) float32, and which items are positive (N,)."""

    features: np.ndarray
    is_positive: np.ndarray


def _columns(path: Path, delimiter: str) -> dict[str, np.ndarray]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        names, *rows = csv.reader(file, delimiter=delimiter)
    columns = zip(*rows, strict=True)
    return {name: np.array(column) for name, column in zip(names, columns, strict=True)}


def _prepared(columns: dict[str, np.ndarray], categories: set[str]) -> np.ndarray:
    parts = []
    for name, values in columns.items():
        if name in categories:
            kinds, which = np.unique(values, return_inverse=True)
            indicator = np.eye(len(kinds))[which]
            share = indicator.mean(axis=0)
            parts.append((indicator - share)[:, share >= RARE])
        else:
            score = ndtri((rankdata(values.astype(np.float64)) - 0.5) / len(values))
            parts.append(((score - score.mean()) / score.std())[:, None])
    return np.concatenate(parts, axis=1).astype(np.float32)


def adult(folder: Path) -> Table:
    columns = _columns(folder / "tabular" / "adult.tsv.gz", "\t")
    target = columns.pop("target").astype(int)
    # The packaging of the set has the rarer class, the high income, as 0.
    return Table(_prepared(columns, set(ADULT_CATEGORIES)), target == (target.mean() < 0.5))


def bank(folder: Path) -> Table:
    columns = _columns(folder / "tabular" / "bank_marketing.csv.gz", ";")
    target = columns.pop("y")
    numbers = {"age", "balance", "day", "duration", "campaign", "pdays", "previous"}
    return Table(_prepared(columns, set(columns) - numbers), target == "yes")


def fashion(folder: Path) -> Table:
    def read(name: str, header: int) -> np.ndarray:
        path = folder / "fashion-mnist" / f"{name}.gz"
        return np.frombuffer(gzip.open(path).read(), np.uint8)[header:]

    pixels = np.concatenate([read(f"{s}-images-idx3-ubyte", 16) for s in ("train", "t10k")])
    classes = np.concatenate([read(f"{s}-labels-idx1-ubyte", 8) for s in ("train", "t10k")])
    chosen = np.random.default_rng(0).permutation(len(classes))[:30_000]
    images = pixels.reshape(-1, 14, 2, 14, 2)[chosen].mean(axis=(2, 4), dtype=np.float32)
    x = images.reshape(len(chosen), -1)
    x -= x.mean(axis=0)
    axes = np.linalg.eigh((x.T @ x).astype(np.float64))[1][:, ::-1][:, :50]
    turned = x @ axes.astype(np.float32)
    return Table(turned / turned.std(), np.isin(classes[chosen], TOPS))


TABLES: dict[str, Callable[[Path], Table]] = {"adult": adult, "bank": bank, "fashion": fashion}
