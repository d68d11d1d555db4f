"""A full disk: a message, nothing half-written, and no trace when writers are collected later."""

import errno
import gc
import io
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typing_extensions import override

import pipelines.run
from pipelines.core.commit import ShardWriter, commit_shard
from pipelines.core.stage import Map, Output
from pipelines.errors import RunError
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.storage.arrays import new_array
from pipelines.storage.frame import Frame
from pipelines.storage.store import LocalStore, TempFile
from tests.datasets import blobs, vectors, write_shards

N = 500
SCHEMA = pa.schema([("item_id", pa.string()), ("x", pa.float64())])


class FullFile(io.RawIOBase):
    """Takes so many bytes, then has no room."""

    def __init__(self, room: int) -> None:
        self.room = room

    @override
    def writable(self) -> bool:
        return True

    @override
    def write(self, data: Any) -> int:
        n = memoryview(data).nbytes
        if n > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= n
        return n


class FullStore(LocalStore):
    """A folder on a disk that is soon full."""

    def __init__(self, root: Path, room: int) -> None:
        super().__init__(root)
        self.room = room

    @override
    def open_temp(self, name: str, digest: Any = None) -> TempFile:
        real = super().open_temp(name)
        real.raw.close()
        return TempFile(io.BufferedWriter(FullFile(self.room), 64), real.name)


def commit(store: LocalStore, *, ipc: bool = False, reject: int = 0) -> None:
    frame = Frame(index=0, label="s", n=N, files={}, columns={}, reads=[])
    table = pa.table(
        {"item_id": [f"i{k}" for k in range(N)], "x": np.random.default_rng(0).normal(size=N)}
    )
    frame.reject(list(range(reject)), "toy: bad")
    step = Map(
        name="step",
        reads=[],
        writes={
            "toy": Output(schema=SCHEMA, ipc=ipc, row_group_rows=100),
            "toy_b": Output(schema=SCHEMA, rows="some"),
        },
        apply=lambda frame, ctx: {},
    )

    def chunks() -> Iterator[dict[str, pa.Table]]:
        kept = table.slice(reject)
        for first in range(0, N, 150):
            yield {"toy": kept.slice(first, 150), "toy_b": kept.slice(first, 150)}

    commit_shard(
        store,
        stage="toy",
        step=step,
        frame=frame,
        tables=chunks(),
        item_ids=lambda: table["item_id"].combine_chunks(),
        source_rows=lambda: np.arange(N),
    )


@pytest.mark.parametrize("ipc", [False, True])
@pytest.mark.parametrize("room", [0, 3, 100, 1000, 3000, 5000, 8000, 9000])
def test_commit__on_a_full_disk_leaves_no_file_and_no_word_after_the_error(
    tmp_path: Path, room: int, ipc: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        commit(FullStore(tmp_path, room), ipc=ipc)
    assert caught.value.errno == errno.ENOSPC
    caught = None  # type: ignore[assignment]
    gc.collect()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    assert capfd.readouterr().err == ""


def test_commit__whose_quarantine_finds_no_room_leaves_no_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ShardWriter.close

    def close(writer: ShardWriter) -> dict[str, Any]:
        if writer.folder == "quarantine":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(writer)

    monkeypatch.setattr(ShardWriter, "close", close)
    with pytest.raises(OSError, match="No space left"):
        commit(LocalStore(tmp_path), reject=3)
    gc.collect()
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []
    assert capfd.readouterr().err == ""


def test_write_atomic__on_a_full_disk_leaves_what_was_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    LocalStore(tmp_path).write_atomic("a.json", b"before")
    with pytest.raises(OSError, match="No space left"):
        FullStore(tmp_path, 3).write_atomic("a.json", b"after" * 100)
    gc.collect()
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_bytes() == b"before"
    assert capfd.readouterr().err == ""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Any]:
    """Makes disks of so many kB, in memory; needs the right to mount."""
    mounted = []

    def make(n_kb: int) -> Path:
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={n_kb}k", "tmpfs", str(folder)]
        if os.getuid() or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs the right to")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_arrays__on_a_full_disk_are_refused_instead_of_ending_the_process(small_disk: Any) -> None:
    disk = small_disk(64)
    with pytest.raises(OSError, match="No space left"):
        new_array(str(disk / "a.npy"), np.float32, (1 << 20,))
    (disk / "a.npy").unlink()
    new_array(str(disk / "b.npy"), np.float32, (1 << 10,))[:] = 1
    assert float(np.load(disk / "b.npy").sum()) == 1 << 10


@pytest.mark.parametrize("recipe", ["audit", "proportions", "neighbours"])
def test_run__on_small_disks_ends_with_a_message_and_goes_on_with_more_room(
    tmp_path: Path, small_disk: Any, recipe: str, capfd: pytest.CaptureFixture[str]
) -> None:
    table = blobs(300).append_column("bag_id", pa.array(np.arange(300) // 10))
    settings = []
    if recipe == "audit":
        probs = np.random.default_rng(0).dirichlet(np.ones(4), 300).astype(np.float32)
        table = table.drop_columns(["features"]).append_column("pred_probs", vectors(probs))
    if recipe == "proportions":
        table = table.drop_columns(["label"])
        lines = [f"{b},10,{b % 10}" for b in range(30)]
        (tmp_path / "bags.csv").write_text("\n".join(["bag_id,n,positives", *lines]))
        settings = [f"proportions.bags={tmp_path / 'bags.csv'}", "proportions.epochs=1"]
    data = write_shards(tmp_path / "data", table, [100] * 3)
    if recipe == "neighbours":
        made = parse_recipe('stages = ["source", "neighbours"]', name="x")
    else:
        made = load_recipe(recipe, settings)
    n_full = 0
    for n_kb in (60, 120):
        disk = small_disk(n_kb)
        try:
            pipelines.run.run(made, data=str(data), out=str(disk / "out"))
        except RunError as err:
            n_full += 1
            assert "the disk is full" in str(err)  # noqa: PT017
            assert "make room and give the same command again" in str(err)  # noqa: PT017
            subprocess.run(["mount", "-o", "remount,size=20m", str(disk)], check=True)
            pipelines.run.run(made, data=str(data), out=str(disk / "out"))
        gc.collect()
        assert not list(disk.rglob(".tmp-*"))
    assert n_full
    assert "Exception ignored" not in capfd.readouterr().err
