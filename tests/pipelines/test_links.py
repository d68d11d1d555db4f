"""A run folder in which somebody put links: nothing is read, written or removed through them."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

import pipelines.registry
import pipelines.run
from pipelines.core.state import load_run
from pipelines.errors import RunError
from pipelines.recipe import parse_recipe
from pipelines.storage.store import LocalStore
from pipelines.verify import verify_run
from tests.datasets import blobs, write_shards
from tests.toy import RECIPE

VERBS: dict[str, Callable[[LocalStore, str], object]] = {
    "exists": lambda store, name: store.exists(name),
    "size": lambda store, name: store.size(name),
    "read_range": lambda store, name: store.read_range(name, 0, 1),
    "read_bytes": lambda store, name: store.read_bytes(name),
    "open_read": lambda store, name: store.open_read(name),
    "open_temp": lambda store, name: store.open_temp(f"{name}/x"),
    "publish to": lambda store, name: store.publish("whole", name),
    "publish from": lambda store, name: store.publish(name, "other"),
    "create_if_absent": lambda store, name: store.create_if_absent(name, b"new"),
    "write_atomic": lambda store, name: store.write_atomic(name, b"new"),
    "list": lambda store, name: store.list(name),
    "remove": lambda store, name: store.remove(name),
    "remove_tree": lambda store, name: store.remove_tree(name),
    "sync": lambda store, name: store.sync([name]),
    "modified": lambda store, name: store.modified(name),
    "local_path": lambda store, name: store.local_path(name),
    "open_lock": lambda store, name: store.open_lock(name),
    "temp_folder": lambda store, name: store.temp_folder(name).__enter__(),
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    for name in (".tmp-hidden", "file", "part-00000.parquet", "00000.json"):
        (folder / name).write_bytes(b"not ours")
    return folder


def content(folder: Path) -> dict[str, tuple[bytes, float, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime, path.stat().st_mode)
        for path in sorted(folder.iterdir())
    }


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("target", ["folder", "file", "nothing"])
@pytest.mark.parametrize("verb", sorted(VERBS))
def test_link_in_a_run_folder__is_refused_by_every_verb(
    verb: str, target: str, inside: bool, tmp_path: Path, outside: Path
) -> None:
    root = tmp_path / "run"
    (root / "stage").mkdir(parents=True)
    (root / "whole").write_bytes(b"ours")
    places = {"folder": outside, "file": outside / "file", "nothing": outside / "nothing"}
    (root / "stage" / "link").symlink_to(places[target])
    before = content(outside)
    name = "stage/link/file" if inside and target == "folder" else "stage/link"
    with pytest.raises(RunError) as refused:
        VERBS[verb](LocalStore(root), name)
    assert f"got a symbolic link at stage/link (to {places[target]})" in str(refused.value)
    assert f"remove {root}/stage/link, or put in its place" in str(refused.value)
    assert content(outside) == before
    assert (root / "stage" / "link").is_symlink()
    assert (root / "whole").read_bytes() == b"ours"
    assert not list(root.rglob(".tmp-*"))


def test_root__may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to(tmp_path / "real")
    store = LocalStore(tmp_path / "root")
    store.write_atomic("a/b", b"x")
    assert (tmp_path / "real" / "a" / "b").read_bytes() == b"x"
    assert store.walk() == ["a/b"]


def test_link_inside_a_removed_folder__goes_and_what_it_leads_to_stays(
    tmp_path: Path, outside: Path
) -> None:
    (tmp_path / "run" / "stage" / "_commits").mkdir(parents=True)
    (tmp_path / "run" / "stage" / "_commits" / "step").symlink_to(outside)
    before = content(outside)
    LocalStore(tmp_path / "run").remove_tree("stage/_commits")
    assert not (tmp_path / "run" / "stage" / "_commits").exists()
    assert content(outside) == before


def test_pipe_in_place_of_a_file__is_refused_and_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.json")
    store = LocalStore(tmp_path)
    for act in (store.read_bytes, store.exists, store.open_lock):
        with pytest.raises(RunError, match="something else"):
            act("run.json")


def test_hard_links__keep_what_their_other_names_hold(tmp_path: Path, outside: Path) -> None:
    store = LocalStore(tmp_path / "run")
    store.write_atomic("whole", b"ours")
    for name in ("written", "published", "removed", ".lock"):
        os.link(outside / "file", tmp_path / "run" / name)
    before = content(outside)
    store.write_atomic("written", b"new")
    store.publish("whole", "published")
    store.remove("removed")
    assert not store.create_if_absent(".lock", b"new")
    with pytest.raises(RunError, match=r"a file of its own was expected at .*/run/\.lock"):
        store.open_lock(".lock")
    assert {n: kept[0] for n, kept in content(outside).items()} == {
        n: kept[0] for n, kept in before.items()
    }


@pytest.mark.parametrize("verb", ["write_atomic", "list", "remove_tree", "remove", "open_temp"])
def test_folder_swapped_for_a_link_at_any_moment__nothing_outside_changes(
    verb: str, tmp_path: Path, outside: Path
) -> None:
    root = tmp_path / "run"
    store = LocalStore(root)
    store.write_atomic("stage/inner/file", b"ours")
    (root / "link").symlink_to(outside)
    (outside / "inner").mkdir()
    (outside / "inner" / "file").write_bytes(b"not ours")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError):
                os.rename(root / "stage", root / "aside")
                os.rename(root / "link", root / "stage")
                os.rename(root / "stage", root / "link")
                os.rename(root / "aside", root / "stage")

    thread = threading.Thread(target=swap)
    thread.start()
    acts: dict[str, Callable[[], object]] = {
        "write_atomic": lambda: store.write_atomic("stage/inner/file", b"ours"),
        "list": lambda: store.list("stage/inner"),
        "remove_tree": lambda: store.remove_tree("stage/inner"),
        "remove": lambda: store.remove("stage/inner/file"),
        "open_temp": lambda: store.open_temp("stage/inner/file").close(),
    }
    refused = 0
    try:
        for _ in range(2000):
            try:
                found = acts[verb]()
                assert verb != "list" or not set(found) & {"00000.json"}  # type: ignore[call-overload]
            except (RunError, OSError):
                refused += 1
    finally:
        stop.set()
        thread.join()
    assert (outside / "inner" / "file").read_bytes() == b"not ours"
    assert os.listdir(outside / "inner") == ["file"]
    assert "part-00000.parquet" in os.listdir(outside)


# -- whole runs ----------------------------------------------------------------------------------


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    data = write_shards(tmp_path / "data", blobs(60), [20, 40])
    pipelines.run.run(parse_recipe(RECIPE, name="toy"), data=str(data), out=str(tmp_path / "out"))
    return tmp_path / "out"


@pytest.mark.parametrize("dangling", [False, True])
@pytest.mark.parametrize(
    "name",
    [
        *("run.json", "recipe.toml", ".lock", "timings.json", "_manifests", "quarantine", "toy"),
        *("toy_extra", "toy/_results", "toy/_commits", "toy/_scan", "toy/part-00000.parquet"),
        *("_manifests/toy.json", "toy/_results/fit.npz", "source"),
    ],
)
def test_run_with_a_link_in_it__is_refused_and_goes_on_without_it(
    name: str, dangling: bool, finished: Path, tmp_path: Path, outside: Path
) -> None:
    wanted = {p.relative_to(finished): p.read_bytes() for p in finished.rglob("*.parquet")}
    path, kept = finished / name, tmp_path / "kept"
    if path.exists():
        path.rename(kept)
    target = outside / "nothing" if dangling else outside
    if not dangling and kept.is_file():
        target = outside / "file"
    path.symlink_to(target)
    before = content(outside)
    with pytest.raises(RunError, match=f"got a symbolic link at {name} "):
        pipelines.run.resume(str(finished))
    assert content(outside) == before
    with contextlib.suppress(RunError):
        found = verify_run(str(finished))
        assert f"symbolic link at {name} " in found.text() or name in found.text()
    assert content(outside) == before
    path.unlink()
    if kept.exists():
        kept.rename(path)
    pipelines.run.resume(str(finished))
    assert {p.relative_to(finished): p.read_bytes() for p in finished.rglob("*.parquet")} == wanted
    assert content(outside) == before


def test_link_with_the_right_bytes__is_refused_all_the_same(finished: Path, tmp_path: Path) -> None:
    shutil.move(finished / "toy", tmp_path / "moved")
    (finished / "toy").symlink_to(tmp_path / "moved")
    run = load_run(str(finished))
    with pytest.raises(RunError, match="got a symbolic link at toy "):
        run.layout()


def test_linked_data__is_read_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_shards(tmp_path / "data", blobs(60), [20, 40])
    (tmp_path / "linked").mkdir()
    for path in sorted(data.iterdir()):
        (tmp_path / "linked" / path.name).symlink_to(path)
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    for name in ("data", "linked"):
        recipe, out = parse_recipe(RECIPE, name="toy"), tmp_path / f"out {name}"
        pipelines.run.run(recipe, data=str(tmp_path / name), out=str(out))
    for path in (tmp_path / "out data").rglob("*.parquet"):
        name = path.relative_to(tmp_path / "out data").as_posix()
        assert path.read_bytes() == (tmp_path / "out linked" / name).read_bytes()
