"""What a student gains from the product of an audit: real label noise, against pruning and truth.

    python benchmarks/distill.py --out distill.jsonl [--seeds 3] [--sets small-worse letter-pair] \\
        [--cifar FOLDER --labels cifar10n_labels_50k.npz] \\
        [--small cifar10n_small_5k_with_images.npz --embedding lite0_small.npy] \\
        [--hausa hausa_news_distant_labels.csv.gz] [--tables FOLDER] [--work FOLDER]

Sets: CIFAR-10N (50 000 items), its cut of 5000 (the last 1000 are the test set), headlines in Hausa
labelled by rules, and tables with a fifth of the labels planted wrong (`harm.py`), of which a
quarter is kept apart with true labels. FOLDER of `--cifar` has embeddings of the pictures as they
are and, for the term of consistency, of changed ones: `{train,test}-plain.npy`,
`train-strong{0,1}.npy` (crop, flip, RandAugment, erasing), in torchvision's order.

For each set and seed: shards → recipe `audit` with its defaults → students of one recipe, fixed
beforehand (`students.py`), which see as many steps in every arm:

given           labels as given
pruned          without the issues that cleanlab finds in the same probabilities
hard            `label_clean` of the product with its `weight`
soft            the beliefs of the product's items
… rounds        then again from nothing, items that were set aside taught by the first student,
                which was not taught them: its most probable class, weighted by its margin
… consistent    and what is sure of a picture is learned of a changed one, of all items
                (`labelops.nn.mixing.consistency` with its defaults)
true            right labels

Recovered is the share of the accuracy lost to noise, (arm − given) / (true − given), both without
the term. ± is half a 95 % t-interval over seeds, which change the folds of the audit, the planted
noise, the table's parts, and the students' weights and order of items. What is in `--out` is not
measured again.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data import CIFAR_CLASSES, LabelSet, load_set, prepare_hausa
from efficacy import audit, beliefs, interval, numbers, probs_of, table
from harm import plant, read_table
from students import BATCH, DECAY, EPOCHS, HIDDEN, RATE, inputs

from labelops.calibration import ece
from labelops.nn.mixing import consistency
from labelops.nn.student import Batch, Second, StudentTraining, fit_student
from labelops.nn.student_models import table_student

CIFAR = {"cifar10n": (50_000, 0), "small": (4000, 1000)}
CIFAR_NOISE = {"worse": "worse_label", "random1": "random_label1", "aggre": "aggre_label"}
TABLE_NOISE = {"symmetric": 0.2, "pair": 0.2, "features": 0.2, "clean": 0.0}
TABLES = ("letter", "pendigits", "spambase", "adult")
STUDENTS = {"linear": 0, "network": HIDDEN}
VIEWS = 2
ARMS = (
    *("given", "pruned", "hard", "soft", "hard, rounds", "soft, rounds", "true"),
    *("given, consistent", "hard, consistent", "soft, consistent"),
    *("hard, rounds, consistent", "true, consistent"),
)


class Task(NamedTuple):
    """Items to audit and to learn, and how a student is tested.

    Attributes
    ----------
    items : with features, and features and truth of the test set.
    strong : features of changed pictures, each (N, D), or none.
    """

    items: LabelSet
    strong: tuple[np.ndarray, ...] = ()


class Product(NamedTuple):
    """What an audit says of every item.

    Attributes
    ----------
    probs : that the audit used, (N, K).
    belief : (N, K).
    clean : class ids, −1 without, (N,).
    weight : (N,).
    ships : whether the item is in the product, (N,).
    """

    probs: np.ndarray
    belief: np.ndarray
    clean: np.ndarray
    weight: np.ndarray
    ships: np.ndarray


class Taught(NamedTuple):
    """What a student learns: class ids (N,) or probabilities (N, K), and weights (N,)."""

    targets: np.ndarray
    weights: np.ndarray


class Seen(NamedTuple):
    """What students see of the items, of changed ones and of the test set."""

    train: np.ndarray
    strong: tuple[np.ndarray, ...]
    test: np.ndarray


# -- sets ------------------------------------------------------------------------------------------


def set_names(args: argparse.Namespace) -> list[str]:
    """Return the sets for which there is what they are made of."""
    sets = []
    for name, folder in (("cifar10n", args.cifar), ("small", args.small)):
        sets += [f"{name}-{noise}" for noise in CIFAR_NOISE if folder]
    sets += ["hausa"] if args.hausa else []
    if args.tables:
        sets += [f"{name}-{noise}" for name in TABLES for noise in TABLE_NOISE]
    return sets


def load_task(args: argparse.Namespace, name: str, seed: int) -> Task:
    """Read a set; seeds draw the rows of a table and its noise."""
    source, _, noise = name.partition("-")
    if source == "cifar10n":
        return whole_cifar(args.cifar, args.labels, noise)
    if source == "small":
        return cut_cifar(args, noise)
    if source == "hausa":
        args.work.mkdir(parents=True, exist_ok=True)
        prepare_hausa(args.work, csv=args.hausa)
        return Task(load_set(args.work, "hausa")._replace(name="hausa"))
    return split_table(args.tables, source, noise, seed)


def whole_cifar(folder: Path, labels: Path, noise: str) -> Task:
    """Return all pictures."""
    parts = np.load(labels, allow_pickle=False)
    train, test = (np.load(folder / f"{part}-plain.npy") for part in ("train", "test"))
    items = LabelSet(
        f"cifar10n-{noise}",
        CIFAR_CLASSES,
        parts[CIFAR_NOISE[noise]].astype(np.int64),
        parts["clean_label"].astype(np.int64),
        features=train.astype(np.float32),
        test_features=test.astype(np.float32),
        test_true=np.load(folder / "test_true.npy"),
    )
    return Task(items, tuple(view.astype(np.float32) for view in changed(folder)))


def changed(folder: Path | None) -> list[np.ndarray]:
    """Return embeddings of changed pictures, as far as there are any."""
    files = [folder / f"train-strong{view}.npy" for view in range(VIEWS)] if folder else []
    return [np.load(file, mmap_mode="r") for file in files if file.exists()]


def cut_cifar(args: argparse.Namespace, noise: str) -> Task:
    """Return the cut; the last items are the test set."""
    file = np.load(args.small, allow_pickle=False)
    n = CIFAR["small"][0]
    embedding = np.load(args.embedding)
    items = LabelSet(
        f"small-{noise}",
        CIFAR_CLASSES,
        file[CIFAR_NOISE[noise]][:n].astype(np.int64),
        file["clean_label"][:n].astype(np.int64),
        features=embedding[:n],
        test_features=embedding[n:],
        test_true=file["clean_label"][n:].astype(np.int64),
    )
    rows = file["index_in_cifar10_train"][:n]
    return Task(items, tuple(view[rows].astype(np.float32) for view in changed(args.cifar)))


def split_table(folder: Path, name: str, noise: str, seed: int) -> Task:
    """Return a table with planted noise; a quarter is the test set."""
    x, true = read_table(folder, name, seed)
    n = len(x) * 3 // 4
    rate = TABLE_NOISE[noise]
    kind = noise if rate else "symmetric"
    items = LabelSet(
        f"{name}-{noise}",
        tuple(f"c{k}" for k in range(int(true.max()) + 1)),
        plant(x[:n], true[:n], kind, rate, seed),
        true[:n],
        features=x[:n],
        test_features=x[n:],
        test_true=true[n:],
    )
    return Task(items)


# -- product ---------------------------------------------------------------------------------------


def product_of(items: LabelSet, seed: int, work: Path) -> Product:
    """Run the audit, or read what an earlier one said."""
    file = work / f"{items.name}-{seed}.npz"
    if not file.exists():
        scratch = Path(tempfile.mkdtemp(prefix="audit-", dir=work))
        folder, seconds = audit(scratch / "run", items, seed, [])
        decided = table(folder / "decide")
        ships = np.zeros(len(items.given), bool)
        ships[numbers(table(folder / "dataset", ["item_id"]), "row")] = True
        made = Product(
            probs_of(folder, items),
            beliefs(decided, len(items.classes)).astype(np.float32),
            numbers(decided, "label_clean").astype(np.int64),
            numbers(decided, "weight").astype(np.float32),
            ships,
        )
        np.savez(scratch / "made.npz", **made._asdict())
        (scratch / "made.npz").rename(file)
        shutil.rmtree(scratch)
        print(f"{items.name} #{seed}: audited in {seconds:.0f} s", file=sys.stderr, flush=True)
    with np.load(file, allow_pickle=False) as stored:
        return Product(**stored)


def taught(arm: str, items: LabelSet, product: Product) -> Taught:
    """Return what the first student of an arm learns."""
    from cleanlab.filter import find_label_issues

    every = np.ones(len(items.given), np.float32)
    if arm == "pruned":
        return Taught(items.given, every * ~find_label_issues(items.given, product.probs, n_jobs=1))
    if arm == "hard":
        clean = np.where(product.ships, product.clean, items.given)
        return Taught(clean, product.weight * product.ships)
    if arm == "soft":
        return Taught(product.belief, every * product.ships)
    return Taught({"given": items.given, "true": items.true}[arm], every)


def with_set_aside(first: Taught, said: np.ndarray) -> Taught:
    """Teach items of weight 0 by what a student says of them, by its margin."""
    two = np.sort(said, axis=1)[:, -2:]
    aside = first.weights == 0
    top = said.argmax(axis=1)
    targets = first.targets.copy()
    targets[aside] = top[aside] if targets.ndim == 1 else np.eye(said.shape[1])[top[aside]]
    return Taught(targets, np.where(aside, two[:, 1] - two[:, 0], first.weights))


# -- students --------------------------------------------------------------------------------------


def train(
    seen: Seen, data: Taught, *, n_classes: int, seed: int, n_hidden: int, consistent: bool
) -> nn.Module:
    """Train a student, as many steps whatever is left out."""
    weights = np.asarray(data.weights, np.float64)
    n_seen = len(weights) if consistent else int((weights > 0).sum())
    steps = EPOCHS * -(-len(weights) // BATCH)
    training = StudentTraining(
        epochs=round(steps / -(-n_seen // BATCH)),
        batch_rows=BATCH,
        optimizer="adamw",
        learning_rate=RATE,
        weight_decay=DECAY,
    )
    # Their scale is that of all items already, and no axis is to count for more.
    unit = np.array([-1, 1], np.float32)[:, None].repeat(seen.train.shape[1], axis=1)
    second = None
    if consistent:
        second = Second(partial(of_view, seen.strong), agreeing(data, weights / weights.mean()))
    return fit_student(
        table_student(unit, n_classes=n_classes, n_hidden=n_hidden, seed=seed),
        lambda rows: seen.train[rows],
        data.targets,
        np.ones_like(weights) if consistent else weights,
        n_classes=n_classes,
        training=training,
        seed=seed,
        device=torch.device("cpu"),
        second=second,
    )


def of_view(strong: tuple[np.ndarray, ...], rows: np.ndarray, seed: int) -> np.ndarray:
    """Return one of the stored changes of some items."""
    return strong[seed % len(strong)][rows]


def agreeing(data: Taught, weights: np.ndarray) -> Callable[[Tensor, Tensor, Batch], Tensor]:
    """Return the loss of taught items, and of two views of all."""
    weight = torch.from_numpy(weights.astype(np.float32))

    def loss(logits: Tensor, strong: Tensor, batch: Batch) -> Tensor:
        told = functional.cross_entropy(logits, batch.targets, reduction="none")
        return weight[batch.rows] * told + consistency(logits, strong)

    return loss


def says(model: nn.Module, x: np.ndarray) -> np.ndarray:
    """Return probabilities, (N, K)."""
    with torch.inference_mode():
        return torch.softmax(model(torch.from_numpy(x)), dim=1).numpy()


def see(task: Task) -> Seen:
    """Return the main axes of everything, found on the items."""
    items = task.items
    assert items.features is not None
    assert items.test_features is not None
    sizes = np.cumsum([len(view) for view in task.strong])
    others = np.concatenate([*task.strong, items.test_features])
    train, turned = inputs(np.asarray(items.features), others)
    *strong, test = np.split(turned.numpy(), sizes)
    return Seen(train.numpy(), tuple(strong), test)


def measure(
    task: Task,
    product: Product,
    seen: Seen,
    first: dict[tuple[object, ...], nn.Module],
    *,
    arm: str,
    seed: int,
    n_hidden: int,
) -> dict[str, float]:
    """Train a student of an arm and test it; `first` holds students of a first round."""
    began = time.process_time()
    kind, *more = arm.split(", ")
    items, n_classes = task.items, len(task.items.classes)
    data = taught(kind, items, product)
    consistent = "consistent" in more
    student = partial(train, seen, n_classes=n_classes, n_hidden=n_hidden, consistent=consistent)
    key = (kind, consistent, n_hidden)
    if key not in first:
        first[key] = student(data, seed=seed)
    model = first[key]
    if "rounds" in more:
        model = student(with_set_aside(data, says(model, seen.train)), seed=seed + 1000)
    said = says(model, seen.test)
    assert items.test_true is not None
    return {
        "accuracy": float((said.argmax(axis=1) == items.test_true).mean()),
        "ECE": ece(said, items.test_true),
        "taught": float((data.weights > 0).mean()),
        "seconds": time.process_time() - began,
    }


# -- all -------------------------------------------------------------------------------------------


def settings(
    args: argparse.Namespace, known: set[tuple[object, ...]]
) -> Iterator[dict[str, object]]:
    """Yield a line for every student that was not trained yet."""
    for seed in range(args.seeds):
        for name in args.sets or set_names(args):
            todo = [
                (student, arm)
                for student in args.students
                for arm in args.arms
                if (name, seed, student, arm) not in known
            ]
            if not todo:
                continue
            task = load_task(args, name, seed)
            product = product_of(task.items, seed, args.work)
            seen, first = see(task), {}
            for student, arm in todo:
                if "consistent" in arm and not task.strong:
                    continue
                how = {"arm": arm, "seed": seed, "n_hidden": STUDENTS[student]}
                figures = measure(task, product, seen, first, **how)
                yield {"set": name, "seed": seed, "student": student, "arm": arm, **figures}


def show(lines: list[dict[str, object]]) -> None:
    """Print a table for every set and student."""
    found = {(x["set"], x["student"], x["arm"], x["seed"]): x for x in lines}
    for name, student in dict.fromkeys((x["set"], x["student"]) for x in lines):
        seeds = sorted(
            seed
            for (of, who, arm, seed) in found
            if (of, who, arm) == (name, student, "given") and (of, who, "true", seed) in found
        )
        if not seeds:
            continue
        low, high = (
            np.array([found[name, student, arm, seed]["accuracy"] for seed in seeds])
            for arm in ("given", "true")
        )
        print(f"\n{name}, {student}, {len(seeds)} seeds")
        print(f"{'arm':<26} {'accuracy %':>14} {'over given':>14} {'recovered %':>14} {'ECE':>14}")
        for arm in ARMS:
            if any((name, student, arm, seed) not in found for seed in seeds):
                continue
            lines_of = [found[name, student, arm, seed] for seed in seeds]
            got, gap = (np.array([x[key] for x in lines_of]) for key in ("accuracy", "ECE"))
            cells = [
                pm(got * 100, 2),
                pm((got - low) * 100, 2),
                pm((got - low) / (high - low) * 100, 0) if (high > low).all() else "no loss",
                pm(gap, 4),
            ]
            print(f"{arm:<26} " + " ".join(f"{cell:>14}" for cell in cells))


def pm(values: np.ndarray, digits: int) -> str:
    """Return a mean and its half interval."""
    mean, half = interval(values.tolist())
    return f"{mean:.{digits}f}" + ("" if np.isnan(half) else f" ± {half:.{digits}f}")


def arguments() -> argparse.ArgumentParser:
    """Return what says where the data are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("cifar", "labels", "small", "embedding", "hausa", "tables"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="keeps what audits said")
    parser.add_argument("--sets", nargs="*", help="default: all that are there")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True, help="a line of JSON for each student")
    return parser


def main() -> None:
    parser = arguments()
    parser.add_argument("--students", nargs="+", default=list(STUDENTS), choices=list(STUDENTS))
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    lines = read_lines(args.out)
    known = {(x["set"], x["seed"], x["student"], x["arm"]) for x in lines}
    for line in settings(args, known):
        with args.out.open("a") as out:
            out.write(json.dumps(line) + "\n")
        lines.append(line)
    show(lines)


def read_lines(file: Path) -> list[dict[str, object]]:
    """Return what was measured before."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    main()
