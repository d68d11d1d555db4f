"""What an audit is worth on labels that people (or rules) got wrong, against cleanlab and truth.

    python benchmarks/efficacy.py --folder FOLDER [--seeds 3] [--sets cifar10n-worse hausa] \\
        [--set stage.key=value] [--out results.json]
    python benchmarks/efficacy.py --folder FOLDER --images lite0.pt2

FOLDER is what `data.py` prepared. For every set and seed: shards → recipe `audit` → detection
against cleanlab on the very same probabilities, label accuracy before and after, honesty of the
stated confidences and of the estimated noise rate, and students trained on what each way leaves. A
seed changes the items' ids, so the folds and every tie, and the students' initial weights and order
of items; intervals are t-intervals over seeds, so they say nothing about other data sets.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from data import SMALL_PROBS, LabelSet, load_set, set_names, write_shards
from sklearn.metrics import average_precision_score
from students import STUDENTS, TrainingSet, accuracy, hard, inputs

from labelops.soft.labels import SoftLabels, smooth
from pipelines.core.results import load_result
from pipelines.core.state import load_run
from pipelines.recipe import load_recipe
from pipelines.run import run
from pipelines.stages.confident import ENDS

SHARDS = 8
BANDS = (0.5, 0.8, 0.9, 0.95, 0.99)

Figures = dict[str, float]


# -- one run ---------------------------------------------------------------------------------------


def audit(work: Path, items: LabelSet, seed: int, settings: Sequence[str]) -> tuple[Path, float]:
    """Write the set as shards, run the recipe, return the run's folder and its seconds."""
    shutil.rmtree(work, ignore_errors=True)
    column = "pred_probs" if items.probs is not None else "features"
    data = write_shards(work / "data", items, column=column, n_shards=SHARDS, prefix=f"seed{seed}-")
    began = time.monotonic()
    run(load_recipe("audit", list(settings)), data=str(data), out=str(work / "run"))
    return work / "run", time.monotonic() - began


def table(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a stage's shards as one table, in the order of the item's numbers, with `row`."""
    files = sorted(folder.glob("*.parquet"))
    whole = pa.concat_tables([pq.read_table(file, columns=columns) for file in files])
    row = [int(item.rpartition("-")[2]) for item in whole["item_id"].to_pylist()]
    return whole.append_column("row", pa.array(row, pa.int64())).sort_by("row")


def numbers(rows: pa.Table, column: str) -> np.ndarray:
    """Return a column as an array; null becomes NaN (or −1 in `label_clean`)."""
    array = rows[column].combine_chunks()
    if column == "label_clean":
        array = array.fill_null(-1)
    return np.asarray(array.to_numpy(zero_copy_only=False))


def probs_of(folder: Path, items: LabelSet) -> np.ndarray:
    """Return the probabilities that the run used."""
    if items.probs is not None:
        return items.probs
    lists = table(folder / "infer", ["item_id", "pred_probs"])["pred_probs"].combine_chunks()
    return np.asarray(lists.flatten().to_numpy()).reshape(len(lists), -1)


# -- measures --------------------------------------------------------------------------------------


def f1(flagged: np.ndarray, wrong: np.ndarray) -> float:
    """Return the F1 score of flags."""
    return float(2 * (flagged & wrong).sum() / max(flagged.sum() + wrong.sum(), 1))


def detection(items: LabelSet, probs: np.ndarray, folder: Path, belief: np.ndarray) -> Figures:
    """Compare what was flagged, and in which order, with cleanlab and with the truth."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    wrong, given = items.given != items.true, items.given
    ours = table(folder / "confident", ["item_id", "is_label_issue", "label_score"])
    flagged = numbers(ours, "is_label_issue").astype(bool)
    theirs = find_label_issues(given, probs, n_jobs=1)
    margin = get_label_quality_scores(given, probs, method="normalized_margin")
    believed = belief[np.arange(len(given)), given]

    def ap(score: np.ndarray) -> float:
        return float(average_precision_score(wrong, -score))

    return {
        "AP score": ap(numbers(ours, "label_score")),
        "AP cleanlab": ap(get_label_quality_scores(given, probs)),
        "AP cleanlab margin": ap(margin),
        "AP belief": ap(believed),
        "F1 flags": f1(flagged, wrong),
        "F1 cleanlab": f1(theirs, wrong),
        "F1 belief < 1/2": f1(believed < 0.5, wrong),
        "noise by belief": float(1 - believed.mean()),
        "precision flags": float(wrong[flagged].mean()) if flagged.any() else float("nan"),
        "recall flags": float(flagged[wrong].mean()),
        "rows flagged otherwise": float((flagged != theirs).sum()),
        "accuracy of probs": float((probs.argmax(axis=1) == items.true).mean()),
    }


def noise_estimate(items: LabelSet, folder: Path) -> Figures:
    """Compare the estimated share of wrong labels, and its interval, with the true one."""
    store = load_run(str(folder)).store
    noise, shown = (load_result(store, "confident", name) for name in ("estimates", "surest"))
    true = float((items.given != items.true).mean())
    value, low, high = (float(shown[f"n_wrong{end}"]) / len(items.given) for end in ENDS)
    classes = range(len(items.classes))
    rates = np.array([np.mean(items.true[items.given == k] != k) for k in classes])
    inside = (noise["noise_rate_low"] <= rates) & (rates <= noise["noise_rate_high"])
    return {
        "true noise": true,
        "estimated noise": value,
        "noise low": low,
        "noise high": high,
        "interval covers": float(low <= true <= high),
        "class intervals cover": float(inside.mean()),
    }


def beliefs(decided: pa.Table, n_classes: int) -> np.ndarray:
    """Return the dense soft labels of a table."""
    ids = decided["topk_ids"].combine_chunks()
    soft = SoftLabels(
        ids=ids.flatten().to_numpy(),
        probs=decided["topk_probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False),
        offsets=np.concatenate([[0], np.cumsum(ids.value_lengths().to_numpy())]),
        tail=decided["tail_prob"].combine_chunks().to_numpy(zero_copy_only=False),
        n_classes=n_classes,
    )
    return smooth(soft)


def decisions(items: LabelSet, decided: pa.Table) -> Figures:
    """Compare labels before and after, and stated confidences with what came true."""
    given, true = items.given, items.true
    decision = np.array(decided["decision"].to_pylist())
    clean, confidence = numbers(decided, "label_clean"), numbers(decided, "confidence")
    changed = decision == "relabel"
    aside = np.isin(decision, ("drop", "review"))
    after = np.where(changed, clean, given)
    figures = {
        "accuracy before": float((given == true).mean()),
        "accuracy after, all": float((after == true).mean()),
        "accuracy after, shipped": float((after == true)[~aside].mean()),
        "share shipped": float((~aside).mean()),
        "relabelled": float(changed.sum()),
        "fixed": float((changed & (given != true) & (clean == true)).sum()),
        "broken": float((changed & (given == true)).sum()),
        "wrong to wrong": float((changed & (given != true) & (clean != true)).sum()),
        "dropped": float((decision == "drop").sum()),
        "wrong of dropped": _share((given != true)[decision == "drop"]),
        "review": float((decision == "review").sum()),
        "wrong of review": _share((given != true)[decision == "review"]),
        "promised of relabelled": _share(confidence[changed]),
        "right of relabelled": _share((clean == true)[changed]),
        "promised of kept": _share(confidence[decision == "keep"]),
        "right of kept": _share((given == true)[decision == "keep"]),
    }
    for low, high in zip(BANDS, [*BANDS[1:], 1.01], strict=True):
        inside = changed & (confidence >= low) & (confidence < high)
        figures[f"relabelled {low:g}+"] = float(inside.sum())
        figures[f"right {low:g}+"] = _share((clean == true)[inside])
    return figures


def products(items: LabelSet, probs: np.ndarray, folder: Path) -> Figures:
    """Return accuracy × coverage of what each way leaves, as it lies there."""
    from cleanlab.filter import find_label_issues

    flagged = find_label_issues(items.given, probs, n_jobs=1)
    shipped = table(folder / "dataset", ["item_id", "label_clean"])
    rows, clean = numbers(shipped, "row"), numbers(shipped, "label_clean")
    every = np.arange(len(items.given))
    ways = {
        "given": (every, items.given),
        "product": (rows, clean),
        "cleanlab pruned": (every[~flagged], items.given[~flagged]),
        "cleanlab replaced": (every, np.where(flagged, probs.argmax(axis=1), items.given)),
    }
    figures: Figures = {}
    for name, (kept, labels) in ways.items():
        figures[f"accuracy, {name}"] = float((labels == items.true[kept]).mean())
        figures[f"coverage, {name}"] = len(kept) / len(every)
    return figures


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def belief_honesty(items: LabelSet, belief: np.ndarray) -> Figures:
    """Return how far the belief in the most believed class is from the share that is right."""
    top = belief.max(axis=1)
    right = belief.argmax(axis=1) == items.true
    edges = np.linspace(0, 1, 16)
    bins = np.clip(np.digitize(top, edges, right=True) - 1, 0, 14)
    gaps = [abs(top[bins == b].sum() - right[bins == b].sum()) for b in range(15)]
    truth = belief[np.arange(len(belief)), items.true]
    return {
        "belief accuracy": float(right.mean()),
        "belief ECE": float(sum(gaps) / len(top)),
        "belief Brier": float(np.mean(1 - 2 * truth + np.square(belief).sum(axis=1))),
        "belief of truth": float(truth.mean()),
    }


# -- students --------------------------------------------------------------------------------------


def training_sets(
    items: LabelSet, probs: np.ndarray, folder: Path, decided: pa.Table, belief: np.ndarray
) -> dict[str, TrainingSet]:
    """Return what the students of every arm learn from."""
    from cleanlab.count import compute_confident_joint, estimate_latent
    from cleanlab.filter import find_label_issues

    n, k = len(items.given), len(items.classes)
    every = np.arange(n)
    flagged = find_label_issues(items.given, probs, n_jobs=1)
    kept = every[~flagged]
    joint = compute_confident_joint(items.given, probs)
    noise = estimate_latent(joint, items.given)[1]
    share = 1 / np.maximum(np.diag(noise), 1e-3)
    shipped = table(folder / "dataset", ["item_id", "label_clean", "weight"])
    rows, clean = numbers(shipped, "row"), numbers(shipped, "label_clean")
    weights = numbers(shipped, "weight")
    all_weights = np.where(numbers(decided, "label_clean") < 0, 0.0, numbers(decided, "weight"))
    assert np.allclose(all_weights[rows], weights)
    return {
        "given": hard(every, items.given, k),
        "product": hard(rows, clean, k, weights),
        "product unweighted": hard(rows, clean, k),
        "product soft": TrainingSet(rows, belief[rows], np.ones(len(rows), np.float32)),
        "belief of all": TrainingSet(every, belief, np.ones(n, np.float32)),
        "cleanlab pruned": hard(kept, items.given[kept], k),
        "cleanlab replaced": hard(every, np.where(flagged, probs.argmax(axis=1), items.given), k),
        "cleanlab weighted": hard(kept, items.given[kept], k, share[items.given[kept]]),
        "true": hard(every, items.true, k),
    }


def train_students(items: LabelSet, arms: dict[str, TrainingSet], seed: int) -> Figures:
    """Train every student on every arm; return accuracies on the clean test set."""
    assert items.test_features is not None
    assert items.test_true is not None
    train, test = inputs(np.asarray(items.features), np.asarray(items.test_features))
    figures: Figures = {}
    for name, student in STUDENTS.items():
        for arm, data in arms.items():
            model = student(train, data, seed)
            figures[f"{name}: {arm}"] = accuracy(model, test, items.test_true)
    return figures


# -- all -------------------------------------------------------------------------------------------


def measure(
    folder: Path, work: Path, name: str, seed: int, settings: Sequence[str], *, train: bool
) -> Figures:
    """Run one set with one seed and return every figure."""
    items = load_set(folder, name)
    run_folder, seconds = audit(work / f"{name}-{seed}", items, seed, settings)
    probs = probs_of(run_folder, items)
    np.save(work / f"{name}-{seed}.probs.npy", probs)
    decided = table(run_folder / "decide")
    assert decided.num_rows == len(items.given)
    belief = beliefs(decided, len(items.classes))
    figures = {"items": float(len(items.given)), "run, s": seconds}
    figures |= noise_estimate(items, run_folder)
    figures |= detection(items, probs, run_folder, belief)
    figures |= decisions(items, decided) | belief_honesty(items, belief)
    figures |= products(items, probs, run_folder)
    if train and items.test_features is not None:
        arms = training_sets(items, probs, run_folder, decided, belief)
        figures |= train_students(items, arms, seed)
    shutil.rmtree(run_folder.parent)
    return figures


def check_images(folder: Path, work: Path, program: Path, n: int) -> None:
    """Run the first items of a set from pictures, and compare with their stored embedding."""
    items = load_set(folder, "cifar10n-worse").head(n)
    shutil.rmtree(work / "images", ignore_errors=True)
    data = write_shards(work / "images" / "data", items, column="image", n_shards=SHARDS)
    settings = [
        *(f'infer.embedder="{program.resolve()}"', "infer.image_size=32"),
        *("infer.mean=[0.0,0.0,0.0]", "infer.std=[1.0,1.0,1.0]"),
    ]
    out = work / "images" / "run"
    began = time.monotonic()
    run(load_recipe("audit", settings), data=str(data), out=str(out))
    seconds = time.monotonic() - began
    lists = table(out / "infer", ["item_id", "embedding"])["embedding"].combine_chunks()
    embedding = np.asarray(lists.flatten().to_numpy()).reshape(len(lists), -1)
    stored = np.asarray(items.features)
    print(f"from pictures: {n} items in {seconds:.0f} s; ", end="")
    print(f"embedding differs by {np.abs(embedding - stored).max():.1e} at most, ", end="")
    print(f"of {np.abs(stored).max():.1f}")
    wrong = items.given != items.true
    ours = table(out / "confident", ["item_id", "is_label_issue", "label_score"])
    score, flagged = numbers(ours, "label_score"), numbers(ours, "is_label_issue").astype(bool)
    print(line("AP score", [float(average_precision_score(wrong, -score))]))
    print(line("F1 flags", [f1(flagged, wrong)]))
    shutil.rmtree(work / "images")


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and the half width of its 95 % t-interval."""
    known = [value for value in values if not np.isnan(value)]
    if len(known) < 2:
        return (known[0] if known else float("nan")), float("nan")
    error = float(np.std(known, ddof=1)) / len(known) ** 0.5
    return float(np.mean(known)), float(stats.t.ppf(0.975, len(known) - 1)) * error


def line(label: str, values: Sequence[float], *, scale: float = 1.0, digits: int = 3) -> str:
    mean, half = interval([value * scale for value in values])
    around = "" if np.isnan(half) else f" ± {half:.{digits}f}"
    return f"  {label:<34} {mean:>10.{digits}f}{around}"


def show(name: str, runs: Sequence[Figures]) -> None:
    """Print the figures of a set."""
    print(f"\n== {name}: {len(runs)} seed(s) ==")
    for key in runs[0]:
        if ": " not in key:
            values = [run[key] for run in runs]
            print(line(key, values, digits=0 if np.nanmax([0.0, *values]) > 2 else 4))
    for student in STUDENTS:
        arms = [key.partition(": ")[2] for key in runs[0] if key.startswith(f"{student}: ")]
        if not arms:
            continue
        print(f"  student {student!r}: test accuracy, gain over given (paired), loss recovered")
        for arm in arms:
            got = column(runs, student, arm)
            low, high = column(runs, student, "given"), column(runs, student, "true")
            accuracy_text = _pm(got * 100, 2)
            gain = _pm((got - low) * 100, 2)
            share = _pm((got - low) / (high - low) * 100, 0)
            print(f"    {arm:<22} {accuracy_text:>16} %  {gain:>16}  {share:>12} %")


def column(runs: Sequence[Figures], student: str, arm: str) -> np.ndarray:
    """Return an arm's accuracies, seed by seed."""
    return np.array([run[f"{student}: {arm}"] for run in runs])


def _pm(values: np.ndarray, digits: int) -> str:
    mean, half = interval(values.tolist())
    return f"{mean:.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True, help="what data.py prepared")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sets", nargs="*", help="default: all that are there")
    parser.add_argument("--set", action="append", default=[], dest="settings", metavar="KEY=VALUE")
    parser.add_argument("--work", type=Path, help="scratch folder; default FOLDER/runs")
    parser.add_argument("--out", type=Path, help="JSON file for all figures")
    parser.add_argument("--no-students", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=Path, metavar="PROGRAM", help="run from pictures instead")
    parser.add_argument("--items", type=int, default=5000, help="how many pictures")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work = args.work or args.folder / "runs"
    if args.images:
        check_images(args.folder, work, args.images, args.items)
        return
    results: dict[str, Any] = {}
    for name in args.sets or set_names(args.folder):
        # Ready probabilities leave nothing to a seed but the order of ties.
        seeds = 1 if name in SMALL_PROBS else args.seeds
        runs = []
        for seed in range(seeds):
            began = time.monotonic()
            runs.append(
                measure(args.folder, work, name, seed, args.settings, train=not args.no_students)
            )
            took = time.monotonic() - began
            print(f"{name}, seed {seed}: {took:.0f} s", file=sys.stderr, flush=True)
        results[name] = runs
        show(name, runs)
        if args.out:
            args.out.write_text(json.dumps({"settings": args.settings, "sets": results}, indent=1))


if __name__ == "__main__":
    main()
