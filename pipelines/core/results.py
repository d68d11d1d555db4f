"""Small global results of a run, as .npz files: same arrays, same bytes, and never a pickle.

The comment of the archive says which step it is the result of, and which files the step left beside
it with which hashes; it ends with the seal of the file.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import tempfile
import threading
import weakref
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipelines.core.commit import hash_file, hash_if_there
from pipelines.core.stage import Arrays
from pipelines.errors import CorruptShardError, remake
from pipelines.storage.arrays import read_arrays
from pipelines.storage.seal import JSON, SealError, check_seal, dump_sealed, load_sealed, make_seal
from pipelines.storage.store import LocalStore, Store

ARTIFACT_DIGEST = "xxh3_128"
"""Quick: weights are read by every worker, and a hash that finds damage is enough."""


class ResultFile(NamedTuple):
    """A finished step's result: its SHA-256, and the hashes of what a fit step left beside it."""

    digest: str
    artifacts: Mapping[str, str]


def result_name(stage: str, step: str) -> str:
    """Return the name of a step's result in the run folder."""
    return f"{stage}/_results/{step}.npz"


def done_name(stage: str, step: str) -> str:
    """Return where an unfinished stage notes that the result of a step is its own."""
    return f"{stage}/_done/{step}.json"


def save_result(
    store: Store, stage: str, step: str, arrays: Arrays, artifacts: Mapping[str, str] | None = None
) -> str:
    """Write a step's result, and the hashes of files beside it, whole or not at all.

    The first to do so wins.

    Returns
    -------
    SHA-256 of the file that counts: this call's own, or an earlier winner's.
    """
    name = result_name(stage, step)
    facts = {"result": f"{stage}/{step}", "artifacts": dict(artifacts or {})}
    buffer = io.BytesIO()
    # Level 1: counts of sparse matrices shrink well at any level, floats at none.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for array in sorted(arrays):
            # Opened so, an entry is dated 1980; numpy.savez would write the clock into the file.
            with archive.open(f"{array}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(arrays[array]), allow_pickle=False)
        # As long as it will be; what it says is known when all else is written.
        archive.comment = dump_sealed(facts, indent=None)
        assert len(archive.comment) <= zipfile.ZIP_MAX_COMMENT
    with buffer.getbuffer() as view:
        view[-JSON.n_bytes :] = make_seal(view[: -JSON.n_bytes], JSON)
    data = buffer.getvalue()
    if store.create_if_absent(name, data):
        return hashlib.sha256(data).hexdigest()
    return hash_file(store, name, "sha256")


def _read(store: Store, stage: str, step: str) -> tuple[bytes, dict[str, str]]:
    """Return a result's bytes, and the hashes of its artefacts; refuse that of another step."""
    name = result_name(stage, step)
    try:
        data = store.read_bytes(name)
        check_seal(data, JSON)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            facts = json.loads(archive.comment)
        if facts["result"] != f"{stage}/{step}":
            raise ValueError(f"it is the result of {facts['result']}")
    except (OSError, ValueError, zipfile.BadZipFile) as err:
        raise CorruptShardError(
            f"stage {stage!r}: the result of its step {step!r} was expected in {name}, got "
            f"{type(err).__name__}: {err}; in {store.uri}. {remake(store.uri, stage)}"
        ) from err
    return data, facts["artifacts"]


def load_result(store: Store, stage: str, step: str) -> Arrays:
    """Read a step's result.

    Raises
    ------
    CorruptShardError
        If it is missing or damaged.
    """
    data, _ = _read(store, stage, step)
    return read_arrays(data)


def check_result(store: Store, stage: str, step: str) -> ResultFile:
    """Check a step's result and the files beside it.

    Raises
    ------
    CorruptShardError
        If any is missing or damaged.
    """
    data, artifacts = _read(store, stage, step)
    for name, digest in artifacts.items():
        check_artifact(store, stage, step, name, digest)
    return ResultFile(hashlib.sha256(data).hexdigest(), artifacts)


def check_own(store: Store, stage: str, step: str, key: str) -> ResultFile:
    """Check a step's result, and that an unfinished stage of some key noted it as its own.

    Raises
    ------
    CorruptShardError, SealError
        If it is missing or damaged, or the result of another run.
    """
    file, note = check_result(store, stage, step), done_name(stage, step)
    if store.exists(note):
        noted = load_sealed(store.read_bytes(note), "key", "sha256")
        if (noted["key"], noted["sha256"]) != (key, file.digest):
            raise SealError("it is the result of another run")
    return file


def artifact_name(stage: str, step: str, name: str, digest: str) -> str:
    """Return where a fit step's file is kept in the run folder.

    By its content: of two runs at work on one step neither can replace what the other has named.
    """
    return f"{stage}/_artifacts/{step}/{digest[:16]}-{name}"


def check_artifact(store: Store, stage: str, step: str, name: str, digest: str) -> None:
    """Compare a fit step's file with its hash.

    Raises
    ------
    CorruptShardError
        If it is missing or differs.
    """
    target = artifact_name(stage, step, name, digest)
    actual = hash_if_there(store, target, ARTIFACT_DIGEST)
    if actual != digest:
        raise CorruptShardError(
            f"stage {stage!r}: {target} was written with {ARTIFACT_DIGEST} {digest[:12]}…, found "
            f"{actual[:12]}…, in {store.uri}. {remake(store.uri, stage)}"
        )


class ArtifactCache:
    """Local paths of a stage's artefacts, verified once a process; remote ones are downloaded."""

    def __init__(self, store: Store, stage: str) -> None:
        self.store = store
        self.stage = stage
        self._folder: str | None = None
        self._paths: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def __call__(self, step: str, name: str) -> str:
        """Return the local path of an artefact."""
        with self._lock:
            if (step, name) not in self._paths:
                digest = _read(self.store, self.stage, step)[1][name]
                self._paths[step, name] = self._fetch(step, name, digest)
            return self._paths[step, name]

    def _fetch(self, step: str, name: str, digest: str) -> str:
        """Return the local path of what has a hash."""
        target = artifact_name(self.stage, step, name, digest)
        local = self.store.local_path(target)
        if local is None:
            with contextlib.suppress(FileNotFoundError):
                # Compared where it lies now, which spares reading it twice.
                path = Path(self._download(target))
                if hash_if_there(LocalStore(path.parent), path.name, ARTIFACT_DIGEST) == digest:
                    return str(path)
        check_artifact(self.store, self.stage, step, name, digest)
        return self._download(target) if local is None else str(local)

    def _download(self, target: str) -> str:
        if self._folder is None:
            self._folder = tempfile.mkdtemp(prefix="labelops-")
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        path = os.path.join(self._folder, target.replace("/", "-"))
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
