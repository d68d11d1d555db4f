"""What a model learns from what recipe `pu` ships, beside the labels as given and the true ones.

    python benchmarks/positive_students.py --tables FOLDER [--sets spambase …] [--seeds 3]
        [--frequencies 0.1 0.3 0.5] [--selection random score] [--items 6000]

Sets and selections are those of `prior.py`. Half of the items go through shards and recipe `pu`; a
linear model and histogram trees learn from them and are tested on the other half, whose truth is
known. *given*: what is not labelled counts as negative. *shipped*: every item twice, as positive
with weight `p_positive` and as negative with the rest. *recovered*: `positive_clean`, what is not
true counts as negative, items for review left out. *true*: true labels. AUC, and accuracy at a
probability of ½; mean over seeds, at the end over sets, ± half a 95 % interval (Student's t).
"""

import argparse
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats
from sklearn.metrics import roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from harm import linear, trees
from prior import SETS, label, read_set

from pipelines.recipe import load_recipe
from pipelines.run import run

WAYS = ("given", "recovered", "shipped", "true")


def ship(x: np.ndarray, labelled: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return `p_positive` and `positive_clean` (1, 0, and −1 for items set aside) of all items."""
    folder = Path(tempfile.mkdtemp(prefix="students-"))
    flat = pa.array(x.astype(np.float32).ravel())
    table = {
        "item_id": np.arange(len(x)),
        "features": pa.FixedSizeListArray.from_arrays(flat, x.shape[1]),
        "positive": pa.array(labelled, mask=~labelled),
    }
    (folder / "src").mkdir()
    pq.write_table(pa.table(table), folder / "src" / "part-00000.parquet")
    run(load_recipe("pu"), data=str(folder / "src"), out=str(folder / "out"))
    p, clean = np.zeros(len(x)), np.full(len(x), -1)
    for name in ("dataset", "set_aside"):
        for path in (folder / "out" / name).glob("*.parquet"):
            part = pq.read_table(path)
            ids = part["item_id"].to_numpy()
            p[ids] = part["p_positive"].to_numpy()
            if name == "dataset":
                clean[ids] = part["positive_clean"].fill_null(False).to_numpy(zero_copy_only=False)
    shutil.rmtree(folder)
    return p, clean


def learned(
    make: Callable[[], object], x: np.ndarray, p: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Return what a model says of test items that learned from soft labels."""
    rows = np.concatenate([np.flatnonzero(p > 0), np.flatnonzero(p < 1)])
    y = np.arange(len(rows)) < (p > 0).sum()
    model, weight = make(), np.where(y, p[rows], 1 - p[rows])
    steps = getattr(model, "steps", None)
    named = {f"{steps[-1][0]}__sample_weight": weight} if steps else {"sample_weight": weight}
    return np.asarray(model.fit(x[rows], y, **named).predict_proba(test)[:, 1])


def main() -> None:
    """Measure every setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS)
    parser.add_argument("--frequencies", nargs="+", type=float, default=[0.3])
    parser.add_argument("--selection", nargs="+", default=["random", "score"])
    parser.add_argument("--items", type=int, default=6000)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    whole: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    for name in args.sets:
        for selection in args.selection:
            for frequency in args.frequencies:
                own: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
                for seed in range(args.seeds):
                    x, positive = read_set(args.tables, name, seed, args.items)
                    half = len(x) // 2
                    labelled = label(x[:half], positive[:half], frequency, selection, seed)
                    p, clean = ship(x[:half], labelled)
                    is_in = clean >= 0
                    taught = {
                        "given": (x[:half], labelled.astype(float)),
                        "recovered": (x[:half][is_in], clean[is_in].astype(float)),
                        "shipped": (x[:half], p),
                        "true": (x[:half], positive[:half].astype(float)),
                    }
                    for title, make in (("linear", linear), ("trees", trees)):
                        for way in WAYS:
                            said = learned(make, *taught[way], x[half:])
                            auc = roc_auc_score(positive[half:], said)
                            right = ((said > 0.5) == positive[half:]).mean()
                            own[title, way].append((auc, right))
                            whole[selection, str(frequency), title, way].append((auc, right))
                show(f"{name}, {selection}, {frequency:.0%} labelled", own)
    show("all sets", whole)


def show(title: str, found: dict[tuple[str, ...], list[tuple[float, float]]]) -> None:
    """Print means with half intervals."""
    print(title)
    for key, values in found.items():
        of = np.array(values)
        n = len(of)
        half = stats.t.ppf(0.975, max(n - 1, 1)) * of.std(axis=0, ddof=n > 1) / np.sqrt(n)
        auc, right = (f"{m:.3f} ± {h:.3f}" for m, h in zip(of.mean(axis=0), half, strict=True))
        print(f"    {' '.join(key):32} AUC {auc}  accuracy {right}", flush=True)


if __name__ == "__main__":
    main()
