"""Content of source files: any change is seen, whatever time, size and footer say."""

import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import xxhash

import pipelines.run
from pipelines.core.state import load_run
from pipelines.errors import LabelopsError, SourceChangedError
from pipelines.recipe import parse_recipe
from pipelines.run import open_run, run, run_stage
from pipelines.storage.content import (
    BLOCK_BYTES,
    ChangedError,
    Content,
    VerifiedFile,
    hash_blocks,
    read_content,
)
from pipelines.storage.source import open_source
from tests.datasets import blobs, even, write_shards

RECIPE = 'stages = ["source", "infer", "confident", "decide", "dataset"]'
SIZES = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES + 7]


class Dribble(io.BytesIO):
    """A stream that gives less than was asked for, as those of object stores may."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None or size < 0 else min(size, 10_007))

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:10_007])


def some_bytes(n: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(n)


@pytest.mark.parametrize("n", SIZES)
def test_blocks__are_the_hashes_of_the_slices(n: int) -> None:
    data = some_bytes(n)
    expected = [
        xxhash.xxh3_64(data[i : i + BLOCK_BYTES]).intdigest() for i in range(0, n, BLOCK_BYTES)
    ]
    assert hash_blocks(data).tolist() == expected
    for file in (io.BytesIO(data), Dribble(data)):
        content = read_content(file)
        assert (content.size, content.blocks.tolist()) == (n, expected)


@pytest.mark.parametrize("seed", range(20))
def test_verified_file__reads_as_the_file_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = some_bytes(int(rng.integers(0, 4 * BLOCK_BYTES)), seed)
    file = VerifiedFile(Dribble(data), Content(len(data), hash_blocks(data)))
    plain = io.BytesIO(data)
    for _ in range(30):
        at, n = (int(x) for x in rng.integers(0, len(data) + 10, 2))
        assert file.seek(at) == plain.seek(at)
        assert file.read(n) == plain.read(n)
    assert (file.seek(-1, 2) if data else 0) == max(0, len(data) - 1)
    assert file.size() == len(data)


@pytest.mark.parametrize("seed", range(50))
def test_one_flipped_bit__is_seen_by_whoever_reads_near_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(some_bytes(int(rng.integers(1, 4 * BLOCK_BYTES)), seed))
    content = Content(len(data), hash_blocks(data))
    at = int(rng.integers(len(data)))
    data[at] ^= 1 << int(rng.integers(8))
    file = VerifiedFile(io.BytesIO(data), content)
    file.seek(at)
    with pytest.raises(ChangedError, match="are not those that it had"):
        file.read(1)


def test_shorter_and_longer_files__are_seen() -> None:
    data = some_bytes(2 * BLOCK_BYTES)
    content = Content(len(data), hash_blocks(data))
    with pytest.raises(ChangedError, match="it ends after"):
        VerifiedFile(io.BytesIO(data[:-1]), content).read()
    # What was appended is never read: the bytes handed out are those that were fingerprinted.
    assert VerifiedFile(io.BytesIO(data + b"more"), content).read() == data


def test_touch_copy_and_move__leave_a_run_resumable(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", blobs(120), even(120, 3))
    recipe = parse_recipe(RECIPE, name="test")
    report = run(recipe, data=str(data), out=str(tmp_path / "out"))
    for path in data.iterdir():
        os.utime(path, ns=(1, 1))
    shutil.copytree(data, tmp_path / "copy")
    shutil.rmtree(data)
    (tmp_path / "copy").rename(data)
    assert run(recipe, data=str(data), out=str(tmp_path / "out")) == report


def rewrite_in_place(path: Path, table: object) -> None:
    """Replace a file by another of the same size, inode and times, as far as that can be had."""
    before = path.stat()
    pq.write_table(table, path.with_suffix(".new"), write_statistics=False)
    with path.open("r+b") as file:
        file.write(path.with_suffix(".new").read_bytes())
        file.truncate()
    path.with_suffix(".new").unlink()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("after", ["source", "infer", "confident", "decide"])
def test_source_rewritten_during_a_run__stops_it_before_there_is_a_product(
    tmp_path: Path, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = blobs(400)
    swapped = table.set_column(2, "label", table["label"].take(list(range(399, -1, -1))))
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    pq.write_table(table, data / "part-0.parquet", write_statistics=False)
    assert swapped != table

    def then_rewrite(run: object, name: str, *args: object, **more: object) -> None:
        run_stage(run, name, *args, **more)  # type: ignore[arg-type]
        if name == after:
            rewrite_in_place(data / "part-0.parquet", swapped)

    monkeypatch.setattr(pipelines.run, "run_stage", then_rewrite)
    with pytest.raises(SourceChangedError, match=r"part-0\.parquet was expected to be as it was"):
        run(parse_recipe(RECIPE, name="test"), data=str(data), out=str(out))
    assert not (out / "_manifests" / "dataset.json").exists()
    with pytest.raises(LabelopsError, match="the data changed"):
        run(parse_recipe(RECIPE, name="test"), data=str(data), out=str(out))


def test_source_removed_during_a_run__is_said(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", blobs(120), even(120, 3))
    opened = open_run(parse_recipe(RECIPE, name="t"), data=str(data), out=str(tmp_path / "out"))
    (data / "part-00001.parquet").unlink()
    with (
        pipelines.run.open_workers() as pool,
        pytest.raises(SourceChangedError, match=r"part-00001\.parquet was expected"),
    ):
        run_stage(opened, "source", pool)


def test_damaged_hashes_of_blocks__are_made_anew(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "data", blobs(120), even(120, 2))
    recipe = parse_recipe(RECIPE, name="test")
    open_run(recipe, data=str(data), out=str(tmp_path / "out"))
    path = tmp_path / "out" / "_manifests" / "blocks.bin"
    held = path.read_bytes()
    path.write_bytes(bytes([held[0] ^ 1]) + held[1:])
    run(recipe, data=str(data), out=str(tmp_path / "out"))
    assert path.read_bytes() == held


def test_plan__takes_shards_of_equal_footer_as_unchanged_and_reads_nothing_else(
    tmp_path: Path,
) -> None:
    data = write_shards(tmp_path / "data", blobs(120), even(120, 2))
    out = str(tmp_path / "out")
    open_run(parse_recipe(RECIPE, name="test"), data=str(data), out=out)
    unread = open_source(str(data), contents=False)
    assert {shard.fingerprint for shard in unread.shards} == {""}
    before = load_run(out).source
    assert unread.as_before(before).shards == before.shards
