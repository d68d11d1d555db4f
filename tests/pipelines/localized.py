"""Pictures whose contents are known, a program that sees colours, and runs of stage `localize`."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

import pipelines.run
from pipelines.core.state import Run, load_run
from pipelines.recipe import parse_recipe
from tests.datasets import write_shards
from tests.pipelines.inferred import png

COLOURS = ("red", "green", "blue")
RGB = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
SIDE = 32
PLAIN = ["localize.mean=[0, 0, 0]", "localize.std=[1, 1, 1]", f"localize.image_size={SIDE}"]


def colour_net(n_classes: int = 3) -> nn.Sequential:
    """Twenty times the share of a colour in each of 4 × 4 cells, and the mean of that."""
    head = nn.Linear(3, n_classes)
    with torch.no_grad():
        head.weight.copy_(20 * torch.eye(n_classes, 3))
        head.bias.zero_()
    return nn.Sequential(nn.AvgPool2d(8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head).eval()


def save_program(path: Path, model: nn.Module, side: int = SIDE) -> Path:
    n = torch.export.Dim("n", min=1, max=4096)
    images = torch.zeros(2, 3, side, side)
    program = torch.export.export(model, (images,), dynamic_shapes=({0: n},))
    torch.export.save(program, path)
    return path


def mosaics(n: int, *, seed: int = 0, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Return pictures of four quarters of a colour, uint8 (n, S, S, 3), and which (n, 2, 2)."""
    classes = np.random.default_rng(seed).integers(0, 3, (n, 2, 2))
    whole = classes.repeat(side // 2, axis=1).repeat(side // 2, axis=2)
    return RGB[whole], classes


def table_of(images: list[bytes], labels: list[Any], name: str = "label") -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": data, "path": None} for data in images]
    ids = pa.array(np.arange(len(images)), pa.int64())
    return pa.table({"item_id": ids, "image": pa.array(rows, kind), name: labels})


@cache
def single_labelled(n: int = 60) -> tuple[pa.Table, np.ndarray]:
    """Return mosaics of which one content was labelled, drawn at random, and all contents."""
    pixels, classes = mosaics(n)
    rng = np.random.default_rng(9)
    given = classes.reshape(n, 4)[np.arange(n), rng.integers(0, 4, n)]
    return table_of([png(one) for one in pixels], [COLOURS[k] for k in given]), classes


def localize(
    folder: Path,
    table: pa.Table,
    sizes: list[int],
    *settings: str,
    stages: str = "",
    after: str = "",
) -> Run:
    """Run `source`, other stages, `localize`, and stages after it, on a table cut into shards."""
    data = write_shards(folder / "data", table, sizes)
    names = ["source", *stages.split(), "localize", *after.split()]
    overrides = ("data.max_bad_share=0.5", f"data.classes={list(COLOURS)}", *settings)
    recipe = parse_recipe(f"stages = {names}", name="test", overrides=overrides)
    out = folder / "out"
    pipelines.run.run(recipe, data=str(data), out=str(out))
    return load_run(str(out))


def read(run: Run, stage: str = "localize") -> pa.Table:
    """Return the rows of a sidecar, by item id, with the metadata of its schema."""
    paths = sorted((Path(run.uri) / stage).glob("part-*.parquet"))
    table = pa.concat_tables([pq.read_table(path) for path in paths])
    return table.sort_by("item_id").combine_chunks()
