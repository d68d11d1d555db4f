"""Data sets on which, together, every stage is at work; and which stages are on each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pipelines.registry
import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.recipe import Recipe, load_recipe, parse_recipe
from pipelines.storage.contract import SPACES
from tests.datasets import blobs, even, tagged, vectors, write_shards
from tests.pipelines.localized import COLOURS, PLAIN, colour_net, save_program, single_labelled

N = 120
BAG_OF_ITEM = np.random.default_rng(2).permutation(N) // 10


def cuts(n: int) -> dict[str, list[int]]:
    """Return ways to cut n items into shards."""
    return {
        "one": [n],
        "two": [n // 2 - 9, n - n // 2 + 9],
        "seven": even(n, 7),
        "with an empty and a single": [0, 1, 0, n - 1],
        # Those with items to quarantine among them.
        "many singles": [n // 4, *[1] * (n // 2), n - n // 4 - n // 2],
    }


def no_tables(folder: Path) -> list[str]:
    """Return that no setting names a table."""
    return []


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """Items, the recipe that works on them, and the stages that then have something to do.

    Attributes
    ----------
    recipe, settings : name of a recipe, or the recipe itself; and settings beside its own.
    active : stages at work.
    items : makes the items.
    tables : writes small tables (totals, references) into a folder; settings that name them.
    """

    recipe: str
    active: Sequence[str]
    items: Callable[[], pa.Table]
    settings: Sequence[str] = ()
    tables: Callable[[Path], list[str]] = no_tables

    def load(self, folder: Path) -> Recipe:
        """Return the recipe; small tables go into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = ["data.max_bad_share=0.05", *self.settings, *self.tables(folder)]
        if "=" in self.recipe:
            return parse_recipe(self.recipe, name="test", overrides=settings)
        return load_recipe(self.recipe, overrides=settings)

    def run(
        self,
        folder: Path,
        sizes: Sequence[int],
        workers: int | None = None,
        cluster: str | None = None,
    ) -> Run:
        """Run the recipe on the items, cut into shards of some sizes, with tables of its own."""
        data = folder / "data"
        if not data.exists():
            write_shards(data, self.items(), sizes)
        recipe = self.load(folder / "tables")
        out = str(folder / f"out {'cluster' if cluster else workers}")
        pipelines.run.run(recipe, data=str(data), out=out, workers=workers, cluster=cluster)
        return load_run(out)


def features() -> pa.Table:
    """Return items with features, single labels and bags."""
    return blobs(N).append_column("bag_id", pa.array(BAG_OF_ITEM))


def pred_probs() -> pa.Table:
    """Return ready probabilities with ties, exact 0 and 1, and rows that cannot be used."""
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(4) * 0.4, N).astype(np.float32)
    probs[:20] = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 20)]
    probs[20:40] = np.float32(0.25)
    # In the middle of shards: what follows must stay aligned.
    probs[75] = np.nan
    probs[76] = 0.5
    return features().append_column("pred_probs", vectors(probs)).drop_columns(["features"])


def columns() -> pa.Table:
    """Return items with columns of all kinds, with gaps, and categories of few items."""
    rng, label = np.random.default_rng(4), blobs(N)["label"]
    k = np.unique(label.to_pylist(), return_inverse=True)[1]
    job = np.where(rng.random(N) < 0.7, k, rng.integers(0, 4, N))
    day = np.datetime64("2026-01-01") + (k * 10 + rng.integers(0, 9, N)).astype("timedelta64[D]")
    gaps = rng.random((3, N)) < 0.1
    return pa.table(
        {
            "item_id": np.arange(N) * 7,
            "label": label,
            "age": pa.array(30 + 5 * k + rng.normal(0, 4, N), mask=gaps[0]),
            "income": np.where(rng.random(N) < 0.05, np.inf, 1e38 * rng.random(N)),
            "job": pa.array([f"job {j}" for j in job], mask=gaps[1]).dictionary_encode(),
            "town": [f"town {i}" if i % 40 == 0 else "" for i in range(N)],
            "is_new": pa.array(k % 2 == 0, mask=gaps[2]),
            "since": pa.array(day),
            "paid": pa.array([None] * N, pa.decimal128(9, 2)),
            "nothing": pa.nulls(N),
            "parts": pa.array([[1, 2]] * N),
        }
    )


def texts() -> pa.Table:
    """Return items with texts in several scripts, empty and huge ones, and some that are null."""
    rng, label = np.random.default_rng(5), blobs(N)["label"]
    words = [["red", "rose"], ["blue", "sea"], ["猫", "好き"], ["кот", "дом"]]
    k = np.unique(label.to_pylist(), return_inverse=True)[1]
    lines = [" ".join(rng.choice(words[c], 5).tolist()) for c in k]
    lines[3], lines[4] = "", "rose " * 200_000
    text = pa.array(lines, mask=np.isin(np.arange(N), [75, 76]))
    return pa.table({"item_id": np.arange(N) * 7, "label": label, "text": text})


def three_states() -> pa.Table:
    """Return lists of what is and what is not, with ready probabilities and rows to quarantine."""
    rng = np.random.default_rng(3)
    states = rng.choice([1, 0, -1], (N, 5), p=[0.3, 0.5, 0.2])
    probs = (1 / (1 + np.exp(-rng.normal(0, 2, (N, 5)) - 2 * states))).astype(np.float32)
    probs[:20], probs[20:30] = 0.75, np.round(probs[20:30])
    probs[75], probs[76] = np.nan, 1.5
    lists = [[np.flatnonzero(row == said).tolist() for row in states] for said in (1, 0)]
    lists[1][33] = lists[0][33] or [4]
    lists[0][33] = lists[1][33]
    return pa.table(
        {
            "item_id": np.arange(N) * 7,
            "labels": pa.array(lists[0], pa.list_(pa.int16())),
            "labels_negative": pa.array(lists[1], pa.list_(pa.int16())),
            "pred_probs": vectors(probs),
        }
    )


def unsaid() -> pa.Table:
    """Return lists of what is, of which half is left unsaid, and of a few classes that are not."""
    source, true = tagged(N, n_classes=5, hidden=0.5, wrong=0.0)
    rng = np.random.default_rng(8)
    ruled_out = ~true & (rng.random((N, 5)) < [0.5, 0.3, 0.02, 0.0, 0.0])
    lists = [[f"class {k}" for k in np.flatnonzero(row)] for row in ruled_out]
    lists[75], lists[76] = source["labels"][75].as_py() or ["class 9"], ["class 9"]
    return source.append_column("labels_negative", pa.array(lists, pa.list_(pa.string())))


def positives() -> pa.Table:
    """Return items of which some positives are labelled, some negatives, and most not."""
    rng, label = np.random.default_rng(6), np.array(blobs(N)["label"].to_pylist())
    is_positive = label <= np.unique(label)[1]
    state = np.where(is_positive & (rng.random(N) < 0.6), 1.0, np.nan)
    state[~is_positive & (rng.random(N) < 0.1)] = 0
    state[[75, 76]] = 2
    return (
        blobs(N)
        .drop_columns(["label"])
        .append_column("positive", pa.array(state, from_pandas=True))
    )


def counts_of_bags(folder: Path) -> list[str]:
    """Write how many items of each class a bag has; items of some are quarantined later."""
    labels = np.array(blobs(N)["label"].to_pylist())
    counts = [np.bincount(BAG_OF_ITEM, labels == kind) for kind in np.unique(labels)]
    rows = np.stack(counts, axis=1).astype(np.int64).tolist()
    pq.write_table(
        pa.table({"bag_id": np.arange(12), "n": [10] * 12, "counts": rows}), folder / "bags.parquet"
    )
    return [f"proportions.bags={folder / 'bags.parquet'}"]


def positives_of_bags(folder: Path) -> list[str]:
    """Write how many items of a bag are positive."""
    labels = np.array(blobs(N)["label"].to_pylist())
    positives = np.bincount(BAG_OF_ITEM, labels <= np.unique(labels)[1]).astype(np.int64)
    table = pa.table({"bag_id": np.arange(12), "n": [10] * 12, "positives": positives})
    pq.write_table(table, folder / "bags.parquet")
    return [f"proportions.bags={folder / 'bags.parquet'}"]


def reference_of(ids: pa.Array, lists: Sequence[Sequence[str]], folder: Path) -> list[str]:
    """Write the true labels of two items in three."""
    rows = pa.table({"item_id": ids, "true_labels": pa.array(lists, pa.list_(pa.string()))})
    rows = rows.filter(pa.array(np.arange(len(rows)) % 3 > 0))
    pq.write_table(rows, folder / "reference.parquet")
    return [f"evaluate.reference={folder / 'reference.parquet'}"]


def truth_of_lists(folder: Path) -> list[str]:
    """Write the true lists of some items."""
    source, true = tagged(N, n_classes=5)
    lists = [[f"class {k}" for k in np.flatnonzero(row)] for row in true]
    return reference_of(source["item_id"], lists, folder)


def program_and_truth(folder: Path) -> list[str]:
    """Write a program that sees colours, and what is in some pictures."""
    source, classes = single_labelled()
    lists = [sorted({COLOURS[k] for k in row.ravel()}) for row in classes]
    program = save_program(folder / "colours.pt2", colour_net())
    settings = [f"localize.classifier={program}", *PLAIN, f"data.classes={list(COLOURS)}"]
    return [*settings, *reference_of(source["item_id"], lists, folder)]


def moods() -> pa.Table:
    """Return items with a kind of label that only the tests know."""
    return blobs(N).rename_columns({"label": "mood"})


def candidates() -> pa.Table:
    """Return items with candidate sets, of one class to all, and rows that cannot be used."""
    rng, source = np.random.default_rng(6), blobs(N, noise=0.0)
    kinds, true = np.unique(source["label"].to_pylist(), return_inverse=True)
    is_candidate = rng.random((N, len(kinds))) < 0.3
    is_candidate[np.arange(N), true] = True
    is_candidate[50:56] = ~is_candidate[50:56]
    is_candidate[60], is_candidate[1, :2] = True, True
    lists = [kinds[row].tolist() for row in is_candidate]
    lists[75], lists[76], lists[77] = None, [], ["class 0", "class 0", "class 1"]
    return source.drop_columns(["label"]).append_column("candidates", pa.array(lists))


REGISTERED = (
    (pipelines.registry.STAGES, {"poll": "tests.moods:POLL", "decide_moods": "tests.moods:DECIDE"}),
    (SPACES, {"mood": "tests.moods:SPACE"}),
    (pipelines.registry.PARTS, {"decide_moods": ("tests.moods:Moods",)}),
)
"""The lines of the registries for that kind of label."""

DATA_SETS = {
    "features": DataSet(
        recipe="full",
        active=(
            *("source", "infer", "confident", "proportions", "neighbours", "decide", "dataset"),
            *("teach", "distill"),
        ),
        items=features,
        settings=["distill.epochs=2", "distill.labels=soft"],
        tables=counts_of_bags,
    ),
    "pred_probs": DataSet(
        recipe="audit",
        active=("source", "infer", "confident", "proportions", "decide", "dataset"),
        items=pred_probs,
        tables=counts_of_bags,
    ),
    "columns": DataSet(
        recipe='stages = ["source", "infer", "confident", "teach"]',
        active=("source", "infer", "confident", "teach"),
        items=columns,
        settings=["data.features=['*', '-paid']"],
    ),
    "texts": DataSet(
        recipe='stages = ["source", "infer"]',
        active=("source", "infer"),
        items=texts,
    ),
    "lists": DataSet(
        recipe="full",
        active=(
            *("source", "infer", "multilabel", "neighbours", "decide_labels", "evaluate"),
            *("dataset", "distill"),
        ),
        items=lambda: tagged(N, n_classes=5)[0],
        settings=[
            "decide_labels.min_class_size=2",
            "infer.heads=['linear', 'nearest']",
            "distill.epochs=2",
            "distill.held_out_items=40",
        ],
        tables=truth_of_lists,
    ),
    "three states": DataSet(
        recipe="multilabel",
        active=("source", "infer", "multilabel", "decide_labels", "dataset"),
        items=three_states,
        settings=["multilabel.filter_by=both", "multilabel.score=softmin"],
    ),
    "unsaid": DataSet(
        recipe="multilabel",
        active=("source", "infer", "multilabel", "decide_labels", "dataset"),
        items=unsaid,
        settings=["data.classes=['class 0', 'class 1', 'class 2', 'class 3', 'class 4']"],
    ),
    "bags": DataSet(
        recipe="proportions",
        active=("source", "proportions", "proportions@2"),
        items=lambda: features().drop_columns(["label"]),
        settings=[
            "proportions.epochs=3",
            "proportions@2.epochs=3",
            "proportions.fourier_features=10",
        ],
        tables=positives_of_bags,
    ),
    "positives": DataSet(
        recipe="pu",
        active=("source", "infer", "pu", "decide_positives", "dataset"),
        items=positives,
        settings=["pu.resamples=50"],
    ),
    "pictures": DataSet(
        recipe="relabel",
        active=("source", "infer", "localize", "decide_maps", "evaluate", "dataset"),
        items=lambda: single_labelled()[0],
        settings=["infer.embedder=pixels"],
        tables=program_and_truth,
    ),
    "views": DataSet(
        recipe='stages = ["source", "infer", "confident", "teach"]',
        active=("source", "infer", "confident", "teach"),
        items=lambda: single_labelled()[0],
        settings=[
            *("infer.train=scratch", "infer.embedder=shufflenet_v2_x0_5", "infer.image_size=32"),
            *("infer.folds=2", "infer.epochs=1", f"data.classes={list(COLOURS)}"),
            *("teach.teacher=networks", "teach.views=3", "teach.k=2", "teach.calibrate=true"),
        ],
    ),
    "candidates": DataSet(
        recipe="partial",
        active=("source", "infer", "partial", "decide_candidates", "dataset"),
        items=candidates,
        settings=["decide_candidates.max_review=5"],
    ),
    "moods": DataSet(
        recipe='stages = ["source", "poll", "decide_moods", "dataset"]',
        active=("source", "poll", "decide_moods", "dataset"),
        items=moods,
    ),
}

PAIRS = [(stage, name) for name, data in DATA_SETS.items() for stage in data.active]
"""Every stage, with each data set on which it is at work."""
