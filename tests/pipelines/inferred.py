"""Pictures in shards, and runs of `source` and `infer` on them, for tests of the stage."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.recipe import parse_recipe
from tests.datasets import write_shards

CLASSES = ("bar", "blob", "cross")


def png(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def drawing(kind: int, rng: np.random.Generator) -> np.ndarray:
    """A noisy 20 × 20 drawing of a class; RGB."""
    image = rng.integers(0, 60, (20, 20, 3), dtype=np.uint8)
    r, c = rng.integers(6, 12, 2)
    if kind == 0:
        image[r : r + 3, 2:18] = 220
    elif kind == 1:
        image[r - 3 : r + 5, c - 3 : c + 5] = 220
    else:
        image[r : r + 2, 2:18] = 220
        image[2:18, c : c + 2] = 220
    return image


def pictures(n: int = 90, *, seed: int = 0) -> pa.Table:
    """Return n pictures of three classes with their right labels."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(n) % 3
    images = [{"bytes": png(drawing(int(k), rng)), "path": None} for k in kinds]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.table(
        {
            "item_id": pa.array(np.arange(n), pa.int64()),
            "image": pa.array(images, kind),
            "label": [CLASSES[k] for k in kinds],
        }
    )


def infer(folder: Path, table: pa.Table, sizes: list[int], *settings: str) -> Run:
    """Run `source` and `infer` on a table cut into shards."""
    data = write_shards(folder / "data", table, sizes)
    settings = ("data.max_bad_share=0.5", *settings)
    recipe = parse_recipe('stages = ["source", "infer"]', name="test", overrides=settings)
    out = folder / "out"
    pipelines.run.run(recipe, data=str(data), out=str(out))
    return load_run(str(out))


def sidecar(run: Run) -> pa.Table:
    """Return the rows of the sidecar, by item id."""
    paths = sorted((Path(run.uri) / "infer").glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    return table.sort_by("item_id").combine_chunks()


def quarantine(run: Run) -> dict[Any, str]:
    """Return the reasons of the rejected items."""
    found: dict[Any, str] = {}
    for path in sorted((Path(run.uri) / "quarantine").glob("*.parquet")):
        for row in pq.read_table(path).to_pylist():
            found[row["item_id"]] = row["reason"]
    return found


def matrix(table: pa.Table, column: str) -> np.ndarray:
    values = table.column(column).combine_chunks()
    return values.values.to_numpy().reshape(len(table), -1)
