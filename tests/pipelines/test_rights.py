"""Who may read a run: its owner alone, or whom the folder that was there before lets in."""

import os
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pipelines.registry
import pipelines.run
from pipelines.recipe import load_recipe, parse_recipe
from pipelines.storage.store import LocalStore
from tests.datasets import blobs, even, write_shards
from tests.toy import RECIPE

UMASKS = [0o000, 0o022, 0o077, 0o027]


@pytest.fixture(params=UMASKS, ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def rights(folder: Path) -> tuple[set[int], set[int]]:
    """Return the rights of all folders, and of all files."""
    there = [folder, *folder.rglob("*")]
    modes = [(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in there]
    return {mode for is_dir, mode in modes if is_dir}, {m for is_dir, m in modes if not is_dir}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "data", blobs(60), [20, 40])


def toy(data: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pipelines.registry.STAGES, "toy", "tests.toy:STAGE")
    monkeypatch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
    pipelines.run.run(parse_recipe(RECIPE, name="toy"), data=str(data), out=str(out))


@pytest.mark.usefixtures("umask")
def test_new_run_folder__is_for_its_owner_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy(data, tmp_path / "new" / "out", monkeypatch)
    assert rights(tmp_path / "new" / "out") == ({0o700}, {0o600})


@pytest.mark.parametrize(
    ("given", "folders", "files"),
    [
        (0o700, 0o700, 0o600),
        (0o755, 0o755, 0o644),
        (0o750, 0o750, 0o640),
        (0o775, 0o755, 0o644),
        (0o711, 0o700, 0o600),
        (0o2750, 0o2750, 0o640),
    ],
    ids=oct,
)
@pytest.mark.usefixtures("umask")
def test_folder_that_was_there__hands_its_readers_down(
    given: int, folders: int, files: int, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    out.mkdir()
    out.chmod(given)
    toy(data, out, monkeypatch)
    assert rights(out) == ({given, folders}, {files})


def test_whole_audit__leaves_nothing_to_others(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        data = write_shards(tmp_path / "data", blobs(), even(240, 3))
        recipe = load_recipe("audit", ["infer.folds=3"])
        pipelines.run.run(recipe, data=str(data), out=str(tmp_path / "out"))
        pipelines.run.report_again(str(tmp_path / "out"))
        pipelines.run.resume(str(tmp_path / "out"))
    finally:
        os.umask(before)
    assert rights(tmp_path / "out") == ({0o700}, {0o600})
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.usefixtures("umask")
def test_while_a_run_is_at_work__nothing_is_open_to_others(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    stop, open_to_others = threading.Event(), set[str]()

    def watch() -> None:
        while not stop.is_set():
            if not out.exists():
                continue
            for folder, names, files in os.walk(out):
                for name in [*names, *files] if ".fit-" not in folder else []:
                    try:
                        mode = os.lstat(os.path.join(folder, name)).st_mode
                    except OSError:
                        continue
                    if mode & 0o077:
                        open_to_others.add(os.path.join(folder, name))
            time.sleep(0.001)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        toy(data, out, monkeypatch)
    finally:
        stop.set()
        thread.join()
    assert open_to_others == set()


@pytest.mark.usefixtures("umask")
def test_folder_to_work_in__is_for_its_owner_alone_and_goes(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    with LocalStore(tmp_path).temp_folder("stage") as folder:
        assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
        assert Path(folder).parent == tmp_path / "stage"
        (Path(folder) / "spilled").write_bytes(b"x")
    assert os.listdir(tmp_path / "stage") == []


@pytest.mark.usefixtures("umask")
def test_lock__has_the_rights_of_other_files_and_is_empty_afterwards(tmp_path: Path) -> None:
    from pipelines.core.lock import locked

    tmp_path.chmod(0o700)
    with locked(LocalStore(tmp_path)):
        assert (tmp_path / ".lock").stat().st_size > 0
    assert stat.S_IMODE((tmp_path / ".lock").stat().st_mode) == 0o600
    assert (tmp_path / ".lock").stat().st_size == 0


def test_another_user__cannot_read_a_new_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can act as another user")
    for folder in [tmp_path, *tmp_path.parents]:
        if folder.stat().st_mode & 0o055 != 0o055 and folder != Path("/"):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o055)
    toy(data, tmp_path / "out", monkeypatch)
    inside = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    os.seteuid(65534)
    try:
        os.listdir(tmp_path)
        for path in inside:
            with pytest.raises(PermissionError):
                os.listdir(path) if path == inside[0] else path.read_bytes()
    finally:
        os.seteuid(0)
