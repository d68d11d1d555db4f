"""Losses for multi-label sets of which positives are missing: what held-out items are ranked like.

    python benchmarks/missing_positives.py --data DIR --out FILE [--sets emotions scene yeast
        corel5k bibtex] [--kept 10 25 50 75 100 one] [--losses an em …] [--hidden 0 64] [--seeds 5]
    python benchmarks/missing_positives.py --out FILE --show [--sets …] [--losses …]
    python benchmarks/missing_positives.py --data DIR --out FILE --recall [--kept 50 one] …

DIR holds <set>.csv.gz as for `multilabel_efficacy.py`. Of every set 30 % of the items are kept
aside with their full labels. Of the others' positives 10 … 100 % are kept, each with the same
chance, or one of every item; whatever is not kept is unknown, also where 100 % are.

The same network for every loss, linear or with 64 hidden units, by `labelops.nn.shallow` with the
same rate, decay, 20 epochs, and what an item is said to have is the mean over epochs. Constants of
the losses are those of the definitions. *epr* and *role* are told how many classes an item of the
set truly has on average, as in their paper: no other loss is. *chosen* is what `fit_cells` does
without a loss: *an*, *frequency* or the mean of both, by how three folds rank what is given. Rates,
and what is chosen from, were tried out on split 99 of the three small sets, which is none of those
measured.

Measured: mean over classes of average precision on the items kept aside, in %. FILE has one line of
JSON for every setting; those that are there already are not run again.

With --recall: three folds, and of the cells recalled by the network of an item's own fold, epoch by
epoch, how many are right and how many of all that is hidden they are.

Printed: mean over seeds, sets and networks, of settings that all losses named were run in;
differences to *an* are taken setting by setting, the
half interval of 95 % (Student's t) is over seeds and sets.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from multilabel_efficacy import Split, mean_average_precision, read_set, split

from labelops.nn.cell_heads import fit_cells, predict_cells
from labelops.nn.cell_losses import LOSSES
from labelops.nn.shallow import EPOCHS
from labelops.partial.recall import found_by_epoch

SETS = ("emotions", "scene", "yeast", "corel5k", "bibtex")
KEPT = ("10", "25", "50", "75", "100", "one")
RECALLING = ("splc", "comic", "ll-r", "ll-ct", "ll-cp", "frequency", "an")
FOLDS = 3
KEY = ["set", "seed", "kept", "hidden", "loss"]


def hide(truth: np.ndarray, kept: str, seed: int) -> np.ndarray:
    """Return states: 1 of what is kept, otherwise −1."""
    rng = np.random.default_rng([seed, 4])
    draws = rng.random(truth.shape)
    if kept == "one":
        first = np.where(truth, draws, 2).argmin(axis=1)
        chosen = truth & (np.arange(truth.shape[1]) == first[:, None])
    else:
        chosen = truth & (draws < int(kept) / 100)
    return np.where(chosen, 1, -1)


def settings(args: argparse.Namespace, done: set[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield what is to be run still, one seed of all sets after another."""
    for seed in range(args.seeds):
        for name in args.sets:
            for kept in args.kept:
                for hidden in args.hidden:
                    for loss in args.losses:
                        if (name, seed, kept, hidden, loss) not in done:
                            yield name, seed, kept, hidden, loss


def ranked(data: Split, states: np.ndarray, loss: str, hidden: int, seed: int) -> dict[str, Any]:
    """Return mean average precision of the items kept aside, by one network trained on all."""
    told = float(data.truth.sum(axis=1).mean()) if loss in ("epr", "role") else None
    # Three networks say what is chosen, and a fourth is trained on all.
    is_chosen = loss == "chosen"
    n_folds = FOLDS + 1 if is_chosen else 1
    fold = np.arange(len(data.x)) % FOLDS if is_chosen else np.full(len(data.x), -1)
    heads = fit_cells(
        data.x,
        states,
        fold,
        n_folds=n_folds,
        loss=None if is_chosen else loss,
        hidden=hidden,
        expected=told,
        seed=seed,
    )
    probs = predict_cells(heads, data.x_test, np.full(len(data.x_test), n_folds - 1))
    return {
        "mAP": 100 * mean_average_precision(probs, data.truth_test),
        "chosen": "+".join(heads.losses),
    }


def recalled(data: Split, states: np.ndarray, loss: str, hidden: int, seed: int) -> dict[str, Any]:
    """Return how many cells are recalled out of fold in each epoch, and how well."""
    fold = np.arange(len(data.x)) % FOLDS
    heads = fit_cells(data.x, states, fold, n_folds=FOLDS, loss=loss, hidden=hidden, seed=seed)
    found = found_by_epoch(heads.recalls, states, data.truth, epochs=EPOCHS)
    return {name: values.tolist() for name, values in found._asdict().items()}


def half(values: np.ndarray) -> float:
    """Return half a 95 % interval of a mean."""
    n = len(values)
    return float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5) if n > 1 else np.nan


def show(rows: pd.DataFrame) -> None:
    """Print mAP by loss and what is kept, and differences to assume-negative."""
    table = rows.pivot_table(index=KEY[:4], columns="loss", values="mAP")
    table = table.dropna(axis=1, how="all")
    whole = table.dropna()
    print(f"{len(whole)} settings run by all of {table.shape[1]} losses, of {len(table)}")
    for by in ("kept", "set", "hidden"):
        print(whole.groupby(by).mean().T.round(2).to_string(), "\n")
    print(f"{'loss':12} {'mean':>6}  difference to an; at 100 % kept: mean, worst set")
    full = whole[whole.index.get_level_values("kept") == "100"]
    for loss in whole.mean().sort_values(ascending=False).index:
        difference = (whole[loss] - whole["an"]).groupby(["set", "seed"]).mean().to_numpy()
        of_full = (full[loss] - full["an"]).groupby(["set", "hidden"]).mean()
        print(
            f"{loss:12} {whole[loss].mean():6.2f}  {difference.mean():+.2f} ± "
            f"{half(difference):.2f}; {of_full.mean():+.2f}, {of_full.min():+.2f}"
        )


def show_recalls(rows: pd.DataFrame) -> None:
    """Print how well cells are recalled, in some epochs."""
    for (kept, loss), part in rows.groupby(["kept", "loss"]):
        cells = []
        for epoch in (1, 4, 9, 19):
            n, precision, recall = (
                np.nanmean([values[epoch] for values in part[name]])
                for name in ("n", "precision", "recall")
            )
            cells.append(f"{epoch + 1}: {n:.0f} {precision:.2f} {recall:.2f}")
        print(f"{kept:>4} kept {loss:10} epoch: cells precision recall | " + " | ".join(cells))


def main() -> None:
    """Run what is not there yet, and show all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--kept", nargs="+", default=KEPT)
    parser.add_argument("--losses", nargs="+", default=None)
    parser.add_argument("--hidden", nargs="+", type=int, default=[0, 64])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--recall", action="store_true")
    parser.add_argument("--show", action="store_true")
    args = parser.parse_args()
    if args.losses is None:
        args.losses = RECALLING if args.recall else [*LOSSES, "chosen"]
    lines = args.out.read_text().splitlines() if args.out.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {tuple(row[key] for key in KEY) for row in rows}
    measure = recalled if args.recall else ranked
    at: tuple[str, int] | None = None
    with args.out.open("a") as file:
        for name, seed, kept, hidden, loss in () if args.show else settings(args, done):
            if at != (name, seed):
                at, data = (name, seed), split(*read_set(args.data / f"{name}.csv.gz"), seed)
            states = hide(data.truth, kept, seed)
            row = dict(zip(KEY, (name, seed, kept, hidden, loss), strict=True))
            row |= measure(data, states, loss, hidden, seed)
            rows.append(row)
            print(json.dumps(row), file=file, flush=True)
    wanted = [row for row in rows if row["loss"] in args.losses and row["set"] in args.sets]
    (show_recalls if args.recall else show)(pd.DataFrame(wanted))


if __name__ == "__main__":
    main()
