"""Whether the product is ever worse than what was given, on real data with known and planted noise.

    python benchmarks/harm.py --tables FOLDER [--small cifar10n_small_5k_with_images.npz] \\
        [--seeds 5] [--sets spambase letter] [--noise none symmetric-0.2] [--rows 20000] \\
        [--embedding lite0_small.npy] [--hausa hausa_news_distant_labels.csv.gz] [--out harm.json]

FOLDER has `adult`, `covtype`, `letter`, `pendigits` and `spambase`. Noise is planted in true
labels: *symmetric* (any other class), *pair* (the next class) or *features* (the class that a
linear model of the truth finds second best, the more often the less sure that model is).
Predictions are out of fold, of a linear model and of histogram trees; those that come with the
CIFAR-10N cut; and those of the heads that stage `infer` fits itself, of pictures on shrunk pixels
and on an embedding of the cut (see `embedder.py`). Headlines in Hausa, labelled by rules, are the
vectors of `data.py`. For each setting: shards → recipe `audit` → product against truth. Labels of
the product are compared with the given ones *on the same items*. What `harm.json` has already is
not measured again.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data import (
    CIFAR_CLASSES,
    SMALL_PROBS,
    LabelSet,
    load_set,
    prepare_hausa,
    prepare_small,
)
from efficacy import audit, numbers, table

from pipelines.core.results import load_result
from pipelines.core.state import load_run

TABLES = ("spambase", "pendigits", "letter", "adult", "covtype")
MODELS = ("linear", "trees", "ready", "heads")
RATES = {
    "none": ("symmetric", 0.0),
    **{
        f"{kind}-{rate}": (kind, rate)
        for kind in ("symmetric", "pair", "features")
        for rate in (0.02, 0.05, 0.1, 0.2, 0.4)
    },
}


def read_table(
    folder: Path, name: str, seed: int, most: int = 20_000
) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and class ids of at most so many rows, drawn anew for every seed."""
    file = next(folder.glob(f"{name}.*"))
    rows = pd.read_csv(file, sep="\t" if ".tsv" in file.name else ",")
    rows = rows.sample(min(len(rows), most), random_state=seed)
    label = rows.pop("target") if "target" in rows else rows.pop(rows.columns[-1])
    named = [
        c for c in rows if rows[c].dtype == object or (name == "adult" and rows[c].nunique() < 50)
    ]
    x = pd.get_dummies(rows, columns=named).to_numpy(np.float32)
    return x, np.unique(label.to_numpy(), return_inverse=True)[1]


def linear() -> object:
    """Return a linear model of scaled features."""
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))


def trees() -> object:
    """Return histogram trees."""
    return HistGradientBoostingClassifier(max_iter=50, max_leaf_nodes=15, early_stopping=False)


def plant(x: np.ndarray, true: np.ndarray, kind: str, rate: float, seed: int) -> np.ndarray:
    """Return labels of which a share is wrong."""
    rng, n_classes, n = np.random.default_rng(seed), int(true.max()) + 1, round(rate * len(true))
    given = true.copy()
    if kind == "features":
        part = rng.permutation(len(true))[:8000]
        p = linear().fit(x[part], true[part]).predict_proba(x)
        rows = np.arange(len(true))
        p_true = p[rows, true]
        p[rows, true] = 0
        doubt = p.max(axis=1) / (p.max(axis=1) + p_true) + 1e-9
        chosen = rng.choice(len(true), n, replace=False, p=doubt / doubt.sum())
        given[chosen] = p.argmax(axis=1)[chosen]
    else:
        chosen = rng.permutation(len(true))[:n]
        step = rng.integers(1, n_classes, n) if kind == "symmetric" else 1
        given[chosen] = (true[chosen] + step) % n_classes
    return given


def out_of_fold(model: object, x: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """Return predictions for every item by a model that did not see it; shape (N, K)."""
    probs = np.full((len(given), int(given.max()) + 1), 1e-6)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    for train, test in folds.split(x, given):
        model.fit(x[train], given[train])
        probs[np.ix_(test, model.classes_)] += model.predict_proba(x[test])
    return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)


def pictures(
    file: Path, seed: int, models: Sequence[str], embedding: Path | None = None
) -> Iterator[LabelSet]:
    """Yield the cut of CIFAR-10N with its networks' predictions, and those of a model of pixels."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_small(Path(folder), small=file)
        if "ready" in models:
            yield from (load_set(Path(folder), name) for name in SMALL_PROBS)
    small = np.load(file, allow_pickle=False)
    true = small["clean_label"].astype(np.int64)
    pixels = small["images"].reshape(-1, 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(true), -1)
    seen = {"pixels": pixels} | ({"embedding": np.load(embedding)} if embedding else {})
    for label in ("aggre_label", "random_label1", "worse_label"):
        given = small[label].astype(np.int64)
        for name, x in seen.items():
            who = f"small-{label} {name}"
            yield from opined(who, CIFAR_CLASSES, x, given, true, seed, models)


def headlines(file: Path, seed: int, models: Sequence[str]) -> Iterator[LabelSet]:
    """Yield headlines labelled by rules."""
    with tempfile.TemporaryDirectory() as folder:
        prepare_hausa(Path(folder), csv=file)
        items = load_set(Path(folder), "hausa")
    yield from opined("hausa", items.classes, items.features, items.given, items.true, seed, models)


def opined(
    name: str,
    classes: tuple[str, ...],
    x: np.ndarray,
    given: np.ndarray,
    true: np.ndarray,
    seed: int,
    models: Sequence[str],
) -> Iterator[LabelSet]:
    """Yield items with the predictions of each model; with their features for the stage's own."""
    for name_of, model in (("linear", linear), ("trees", trees)):
        if name_of in models:
            probs = out_of_fold(model(), x, given, seed)
            yield LabelSet(f"{name} {name_of}", classes, given, true, probs=probs)
    if "heads" in models:
        yield LabelSet(f"{name} heads", classes, given, true, features=x.astype(np.float32))


def settings(args: argparse.Namespace, seed: int) -> Iterator[LabelSet]:
    """Yield every data set, noise and model."""
    for name in args.sets:
        if name == "cifar10n":
            yield from pictures(args.small, seed, args.models, args.embedding)
            continue
        if name == "hausa":
            yield from headlines(args.hausa, seed, args.models)
            continue
        x, true = read_table(args.tables, name, seed, args.rows)
        for noise in args.noise:
            given = plant(x, true, *RATES[noise], seed)
            classes = tuple(f"c{k}" for k in range(int(true.max()) + 1))
            yield from opined(f"{name} {noise}", classes, x, given, true, seed, args.models)


def measure(items: LabelSet, seed: int, overrides: Sequence[str]) -> dict[str, float]:
    """Run one setting and compare its product with the truth."""
    work = Path(tempfile.mkdtemp(prefix="harm-"))
    try:
        folder, _ = audit(work, items._replace(name="item"), seed, overrides)
        rows = table(folder / "dataset", ["item_id", "label_clean", "decision"])
        logged = table(folder / "decide", ["item_id", "decision"])
        outcome = load_result(load_run(str(folder)).store, "decide", "outcome")
        shown = load_result(load_run(str(folder)).store, "confident", "surest")
    finally:
        shutil.rmtree(work)
    row, clean = numbers(rows, "row"), numbers(rows, "label_clean").astype(int)
    given, true = items.given[row], items.true[row]
    wrong = items.given != items.true
    dropped = np.array(logged["decision"].to_pylist()) == "drop"
    n_wrong = int(wrong.sum())
    return {
        "items": len(wrong),
        "wrong": n_wrong,
        "low": float(shown["n_wrong_low"]),
        "high": float(shown["n_wrong_high"]),
        "covers": float(shown["n_wrong_low"] <= n_wrong <= shown["n_wrong_high"]),
        "counts": float(shown["is_flat"]),
        "changed": int((clean != given).sum()),
        "fixed": int(((clean != given) & (clean == true)).sum()),
        "broken": int(((clean != given) & (given == true)).sum()),
        "said broken": float(outcome["total_broken_high"]),
        "dropped": int(dropped.sum()),
        "right of dropped": int((dropped & ~wrong).sum()),
        "in product": len(row),
        "given right": float((given == true).mean()),
        "clean right": float((clean == true).mean()),
        "all right": float((~wrong).mean()),
    }


def main() -> None:
    """Measure every setting, and say in how many the product is worse."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--small", type=Path)
    parser.add_argument("--embedding", type=Path)
    parser.add_argument("--hausa", type=Path)
    parser.add_argument("--sets", nargs="+", default=[*TABLES, "cifar10n", "hausa"])
    parser.add_argument("--noise", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    absent = {"cifar10n": args.small is None, "hausa": args.hausa is None}
    args.sets = [name for name in args.sets if not absent.get(name)]
    all_figures = json.loads(args.out.read_text()) if args.out and args.out.exists() else []
    known = {(figures["set"], figures["seed"]) for figures in all_figures}
    for seed in range(args.seeds):
        for items in settings(args, seed):
            if (items.name, seed) in known:
                continue
            figures = measure(items, seed, args.overrides)
            all_figures.append({"set": items.name, "seed": seed, **figures})
            show(all_figures[-1])
            if args.out:
                args.out.write_text(json.dumps(all_figures, indent=1))
    table_of = pd.DataFrame(all_figures)
    worse = table_of["broken"] > table_of["fixed"]
    honest = table_of["broken"] <= np.ceil(table_of["said broken"])
    untouched = table_of[table_of["wrong"] == 0]
    touched = (untouched["changed"] + untouched["dropped"]) / untouched["items"]
    print(
        f"{len(table_of)} settings: product worse in {worse.sum()}; broken at most what was said "
        f"in {honest.mean():.0%}; interval holds the truth in {table_of['covers'].mean():.0%}; "
        f"counts in {table_of['counts'].mean():.0%}; with no wrong label touched at most "
        f"{touched.max():.2%}"
    )


def show(figures: dict[str, float]) -> None:
    """Print a setting's line."""
    print(
        "{set} #{seed}: {wrong} of {items} wrong ({low:.0f} to {high:.0f}{unsure}) | changed "
        "{changed}: {fixed} fixed, {broken} broken (at most {said broken:.0f}) | dropped {dropped} "
        "({right of dropped} right) | {in product} items: {given right:.4f} → {clean right:.4f}, "
        "all {all right:.4f}".format(unsure="" if figures["counts"] else ", too weak", **figures),
        flush=True,
    )


if __name__ == "__main__":
    main()
