"""Items in bags of planted classes, and runs of stage `proportions` on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.recipe import load_recipe, parse_recipe
from tests.datasets import even, vectors, write_shards

QUICK = ("proportions.fourier_features=0", "proportions.epochs=6", "proportions@2.epochs=6")
"""Without Fourier features there are but a handful of priors to try."""

FOURIER = "proportions.fourier_features=10"


class Planted(NamedTuple):
    """Items without labels, the table of their bags, and what is true of them."""

    items: pa.Table
    bags: pa.Table
    bag: np.ndarray
    true: np.ndarray


def planted(n_bags: int = 24, *, n_classes: int = 2, apart: float = 3.0, seed: int = 0) -> Planted:
    """Return bags of 4 to 14 items, of shares that differ, in an order that mixes them."""
    rng = np.random.default_rng([seed, n_classes])
    sizes = rng.integers(4, 15, n_bags)
    share = rng.dirichlet(np.full(n_classes, 1.5), n_bags)
    bag = np.repeat(np.arange(n_bags), sizes)
    true = np.array([rng.choice(n_classes, p=share[b]) for b in bag])
    mix = rng.permutation(len(bag))
    bag, true = bag[mix], true[mix]
    centres = apart * np.eye(n_classes, 4)
    features = (centres[true] + rng.normal(size=(len(bag), 4))).astype(np.float32)
    items = pa.table(
        {
            "item_id": [f"item-{i:04d}" for i in range(len(bag))],
            "bag_id": [name_of(b) for b in bag],
            "features": vectors(features),
        }
    )
    counts = np.stack([np.bincount(bag, true == k, n_bags) for k in range(n_classes)], axis=1)
    counts = counts.astype(np.int64)
    said = {"counts": counts.tolist()} if n_classes > 2 else {"positives": counts[:, 1]}
    table = pa.table({"bag_id": [name_of(b) for b in range(n_bags)], "n": sizes, **said})
    return Planted(items, table, bag, true)


def name_of(bag: int) -> str:
    return f"bag-{bag:03d}"


def replaced(table: pa.Table, column: str, row: int, value: Any) -> pa.Table:
    """Return the table with one value changed."""
    values = table[column].to_pylist()
    values[row] = value
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def learn(
    folder: Path,
    items: pa.Table,
    bags: pa.Table,
    *settings: str,
    sizes: Sequence[int] | None = None,
    recipe: str = "proportions",
) -> Run:
    """Run the recipe `proportions` (or stages as TOML), without its report."""
    data = write_shards(folder / "data", items, sizes or even(items.num_rows, 3))
    table = folder / "bags.parquet"
    pq.write_table(bags, table)
    every = (*QUICK, *settings, f"proportions.bags={table}")
    if "stages" in recipe:
        every = tuple(s for s in every if not s.startswith("proportions@2") or "@2" in recipe)
        found = parse_recipe(recipe, name="test", overrides=every)
    else:
        found = load_recipe(recipe, every)
    pipelines.run.run(found, data=str(data), out=str(folder / "out"))
    return load_run(str(folder / "out"))


def run_on(folder: Path, data: Planted, table: str) -> Run:
    """Run one round on data, with a table of bags that lies somewhere."""
    source = write_shards(folder / "data", data.items, even(data.items.num_rows, 3))
    quick = [setting for setting in QUICK if "@2" not in setting]
    recipe = parse_recipe(ONE_ROUND, name="test", overrides=[*quick, f"proportions.bags={table}"])
    pipelines.run.run(recipe, data=str(source), out=str(folder / "out"))
    return load_run(str(folder / "out"))


ONE_ROUND = 'stages = ["source", "proportions"]'


def rows_of(run: Run, folder: str) -> pa.Table:
    """Return all rows of a folder of a run."""
    paths = sorted((Path(run.uri) / folder).glob("part-*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths]).combine_chunks()


def beliefs_of(run: Run, n_classes: int, stage: str = "proportions") -> np.ndarray:
    """Return beliefs in the order of the source, from the sparse columns."""
    table = rows_of(run, stage)
    dense = np.zeros((len(table), n_classes))
    for row, (ids, probs) in enumerate(
        zip(table["topk_ids"].to_pylist(), table["topk_probs"].to_pylist(), strict=True)
    ):
        dense[row, ids] = probs
    return dense


def found_in(run: Run, step: str = "learn", stage: str = "proportions") -> dict[str, np.ndarray]:
    return run.context(stage, run.layout()).result(stage, step)


def sums(bag: np.ndarray, beliefs: np.ndarray) -> np.ndarray:
    """Return the sums of beliefs over bags, shape (B, K)."""
    return np.stack([np.bincount(bag, column) for column in beliefs.T], axis=1)
