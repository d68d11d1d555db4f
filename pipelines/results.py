"""Small global results of a run, as .npz files: same arrays, same bytes, and never a pickle."""

import io
import os
import shutil
import tempfile
import threading
import weakref
import zipfile

import numpy as np

from pipelines.errors import CorruptShardError
from pipelines.stage import Arrays
from pipelines.store import Store


def result_name(stage: str, step: str) -> str:
    """Return the name of a step's result in the run folder."""
    return f"{stage}/_results/{step}.npz"


def save_result(store: Store, stage: str, step: str, arrays: Arrays) -> None:
    """Write a step's result whole or not at all."""
    buffer = io.BytesIO()
    # Level 1: counts of sparse matrices shrink well at any level, floats at none.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in sorted(arrays):
            # Opened so, an entry is dated 1980; numpy.savez would write the clock into the file.
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(arrays[name]), allow_pickle=False)
    store.write_once(result_name(stage, step), buffer.getvalue())


def load_result(store: Store, stage: str, step: str) -> Arrays:
    """Read a step's result.

    Raises
    ------
    CorruptShardError
        If it is missing or damaged.
    """
    name = result_name(stage, step)
    try:
        with np.load(io.BytesIO(store.read_bytes(name)), allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as err:
        raise CorruptShardError(
            f"result {name}: a finished step's result was expected, got {type(err).__name__}: "
            f"{err}; in {store.uri}. Delete the folder {stage}/ and run again to recompute it"
        ) from err


def artifact_name(stage: str, step: str, name: str) -> str:
    """Return where a fit step's file is kept in the run folder."""
    return f"{stage}/_artifacts/{step}/{name}"


class ArtifactCache:
    """Local paths of a stage's artefacts; downloads them once a process where they are remote."""

    def __init__(self, store: Store, stage: str) -> None:
        self.store = store
        self.stage = stage
        self._folder: str | None = None
        self._lock = threading.Lock()

    def __call__(self, step: str, name: str) -> str:
        """Return the local path of an artefact."""
        target = artifact_name(self.stage, step, name)
        local = self.store.local_path(target)
        if local is not None:
            return str(local)
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.mkdtemp(prefix="labelops-")
                weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            path = os.path.join(self._folder, f"{step}-{name}")
            if not os.path.exists(path):
                with open(path, "wb") as file:
                    file.write(self.store.read_bytes(target))
            return path


class ResultCache:
    """Results of finished steps, read once a process."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._held: dict[tuple[str, str], Arrays] = {}

    def has(self, stage: str, step: str) -> bool:
        """Say whether a step is finished."""
        return (stage, step) in self._held or self.store.exists(result_name(stage, step))

    def __call__(self, stage: str, step: str) -> Arrays:
        """Return the arrays of a finished step; they are read-only."""
        if (stage, step) not in self._held:
            arrays = load_result(self.store, stage, step)
            for array in arrays.values():
                array.flags.writeable = False
            self._held[stage, step] = arrays
        return self._held[stage, step]
