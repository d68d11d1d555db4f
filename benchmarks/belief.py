"""Which belief keeps its promise: how often a changed label is right, against how sure it was.

    python benchmarks/belief.py --data FOLDER

FOLDER holds `cifar10n_small_5k_with_images.npz` (people's errors on CIFAR-10, with the
probabilities of two models) and `hausa_news_distant_labels.csv.gz`; digits are those of
scikit-learn. For each candidate it prints the mean over the settings of: squared error of "the most
believed class is right", over all items and over label issues; share of all wrong labels that would
be changed at a belief of 0.9; how much more often such a change was right than promised (mean,
worst, best over settings with at least ten). This is where the estimator of `labelops.belief` and
the allowance of `labelops.gate` come from.
"""

import argparse
import csv
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

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
from labelops.temperature import apply_temperature, fit_temperature

SURE = 0.9


class Setting(NamedTuple):
    """Probabilities out of sample, labels as given, labels as they are."""

    name: str
    probs: np.ndarray
    given: np.ndarray
    true: np.ndarray


def cifar(path: Path) -> Iterator[Setting]:
    data = np.load(path)
    true = data["clean_label"].astype(np.int64)
    for model in ("resnet18", "swin"):
        for trained, column in (
            ("worst", "worse_label"),
            ("aggre", "aggre_label"),
            ("aggre", "random_label1"),
            ("worst", "random_label2"),
            ("worst", "aggre_label"),
        ):
            probs = data[f"pred_probs_{trained}_{model}"].astype(np.float64)
            name = f"CIFAR-10N {column}, {model} on {trained}"
            yield Setting(name, probs, data[column].astype(np.int64), true)


def out_of_sample(x: object, given: np.ndarray, c: float) -> np.ndarray:
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = LogisticRegression(C=c, max_iter=500)
    probs: np.ndarray = cross_val_predict(model, x, given, cv=folds, method="predict_proba")
    return probs


def hausa(path: Path) -> Iterator[Setting]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    names = sorted({row["clean"] for row in rows} | {row["given"] for row in rows})
    given = np.array([names.index(row["given"]) for row in rows])
    true = np.array([names.index(row["clean"]) for row in rows])
    x = TfidfVectorizer(ngram_range=(1, 2), min_df=2).fit_transform([row["text"] for row in rows])
    yield Setting("Hausa headlines", out_of_sample(x, given, 1.0), given, true)


def digits() -> Iterator[Setting]:
    x, true = load_digits(return_X_y=True)
    x = x / 4
    for rate in (0.05, 0.15, 0.3):
        rng = np.random.default_rng(0)
        given, wrong = true.copy(), rng.random(len(true)) < rate
        neighbour = rng.random(wrong.sum()) < 0.5
        anything = rng.integers(0, 10, wrong.sum())
        given[wrong] = np.where(neighbour, (true[wrong] + 1) % 10, anything)
        yield Setting(f"digits, {rate:.0%} by class", out_of_sample(x, given, 0.01), given, true)
    clean = out_of_sample(x, true, 0.01)
    order, hard = np.argsort(clean, axis=1), np.argsort(clean.max(axis=1))[:300]
    given = true.copy()
    best, second = order[hard, -1], order[hard, -2]
    given[hard] = np.where(best == true[hard], second, best)
    yield Setting("digits, hardest wrong", out_of_sample(x, given, 0.01), given, true)


def candidates(setting: Setting) -> dict[str, np.ndarray]:
    probs, given = setting.probs, setting.given
    rows, top = np.arange(len(given)), probs.argmax(axis=1)
    said = surest(count_cells(top, probs[rows, top], top == given), n_classes=probs.shape[1])
    noise = noise_at(said.rate, compute_confident_joint(given, probs))
    best = best_temperature(COARSE, loss_through_noise(probs, given, noise, COARSE))
    grid = fine_grid(best)
    temperature = best_temperature(grid, loss_through_noise(probs, given, noise, grid))
    q = apply_temperature(probs, temperature=temperature)
    belief, cautious = believe(probs, given, noise, temperature=temperature)
    geometric = np.sqrt(q * cautious)
    return {
        "calibrated to given labels": apply_temperature(
            probs, temperature=fit_temperature(log_safe(probs), given)
        ),
        "through the noise: q": q,
        "cautious: Bayes on q": cautious,
        "geometric mean of both": geometric / geometric.sum(axis=1, keepdims=True),
        "mean of both (labelops)": belief,
    }


def measure(belief: np.ndarray, setting: Setting, issue: np.ndarray) -> tuple[float, ...]:
    top, sure = belief.argmax(axis=1), belief.max(axis=1)
    right = top == setting.true
    changed = issue & (top != setting.given)
    shipped = changed & (sure >= SURE)
    gap = right[shipped].mean() - sure[shipped].mean() if shipped.sum() >= 10 else np.nan
    return (
        float(np.mean((sure - right) ** 2)),
        float(np.mean((sure - right)[changed] ** 2)),
        shipped.sum() / (setting.given != setting.true).sum(),
        float(gap),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    settings = [
        *cifar(folder / "cifar10n_small_5k_with_images.npz"),
        *hausa(folder / "hausa_news_distant_labels.csv.gz"),
        *digits(),
    ]
    measured: dict[str, list[tuple[float, ...]]] = {}
    for setting in settings:
        issue = find_label_issues(setting.given, setting.probs)
        for name, belief in candidates(setting).items():
            measured.setdefault(name, []).append(measure(belief, setting, issue))
    print(f"{len(settings)} settings")
    print(f"{'':28}{'sq. error':>10}{'issues':>8}{'changed':>9}{'gap':>8}{'worst':>8}{'best':>8}")
    for name, rows in measured.items():
        table = np.array(rows)
        mean, gaps = np.nanmean(table, axis=0), table[:, 3]
        print(
            f"{name:28}{mean[0]:10.4f}{mean[1]:8.4f}{mean[2]:9.1%}{mean[3]:+8.3f}"
            f"{np.nanmin(gaps):+8.3f}{np.nanmax(gaps):+8.3f}"
        )


if __name__ == "__main__":
    main()
