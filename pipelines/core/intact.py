"""Whether the files of finished stages are still what was committed."""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pipelines.core.commit import digest_name, hash_file
from pipelines.core.results import ARTIFACT_DIGEST, artifact_name, result_name
from pipelines.core.state import TIMINGS_FILE, Run
from pipelines.errors import CorruptShardError, remake
from pipelines.storage.seal import SealError, load_sealed
from pipelines.storage.store import Store

THREADS = min(8, 2 * (os.cpu_count() or 1))
"""Hashing leaves Python's lock; a disk or an object store answers several at a time."""

NAMED = 3
"""So many damaged files of a stage are named in an error."""


class Damage(NamedTuple):
    """Something in a run folder that is not what was written.

    Attributes
    ----------
    name : the file.
    what : what is wrong with it.
    stage : the stage that made it; "" for what belongs to the run as a whole.
    delete : what to delete before `command`; "" for nothing.
    command : what makes it again: "resume", "report" or "run".
    """

    name: str
    what: str
    stage: str
    delete: str
    command: str = "resume"


class Wanted(NamedTuple):
    """A file that must be there, with its hash of a kind in `commit.DIGESTS`."""

    name: str
    digest: str
    kind: str = "sha256"


def shard_files(manifest: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield what a manifest (or a commit record in place of one) says of every shard's files."""
    for entry in manifest.get("maps", ()):
        for shard in entry["shards"]:
            yield from shard["files"]


def files_of_stage(manifest: Mapping[str, Any]) -> list[Wanted]:
    """Return all files that a finished stage left."""
    stage = manifest["stage"]
    files = [wanted(file) for file in shard_files(manifest)]
    files += [Wanted(result_name(stage, s), digest) for s, digest in manifest["results"].items()]
    for step, artifacts in manifest["artifacts"].items():
        files += [
            Wanted(artifact_name(stage, step, name, digest), digest, ARTIFACT_DIGEST)
            for name, digest in artifacts.items()
        ]
    return files


def wanted(file: Mapping[str, Any]) -> Wanted:
    """Return what a commit record says of a file."""
    kind = digest_name(file["folder"])
    return Wanted(file["name"], file[kind], kind)


def compare(store: Store, files: Sequence[Wanted]) -> list[tuple[Wanted, str]]:
    """Hash files side by side; returns those that differ, and how.

    Raises
    ------
    LinkError
        If one of them is behind a link.
    """

    def differs(file: Wanted) -> str:
        try:
            if not store.exists(file.name):
                return "it is missing"
            if hash_file(store, file.name, file.kind) != file.digest:
                return "it has other bytes than were committed"
        except OSError as err:
            return f"it cannot be read ({err})"
        return ""

    with ThreadPoolExecutor(THREADS) as pool:
        compared = zip(files, pool.map(differs, files), strict=True)
        return [(file, what) for file, what in compared if what]


def stage_damage(run: Run, name: str, manifest: Mapping[str, Any]) -> list[Damage]:
    """Compare all that a finished stage left with its manifest, and that with the source."""
    damages = [
        Damage(file.name, what, name, name)
        for file, what in compare(run.store, files_of_stage(manifest))
    ]
    damages += [
        Damage(f"_manifests/{name}.json", what, name, name) for what in _uneven(run, manifest)
    ]
    return damages


def _uneven(run: Run, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the counts of a manifest do not add up."""
    shards = run.source.shards
    for entry in manifest["maps"]:
        if [shard["shard"] for shard in entry["shards"]] != list(range(len(shards))):
            yield f"step {entry['step']!r} does not name each of the {len(shards)} shards once"
            continue
        for shard, source in zip(entry["shards"], shards, strict=True):
            n_bad = len(shard["rejected"])
            sizes = {file["folder"]: file["rows"] for file in shard["files"]}
            if (
                shard["source"] != source.name
                or shard["rows"] + n_bad > source.rows
                or sum(shard["reasons"].values()) != n_bad
                or sizes.get("quarantine", 0) != n_bad
                or any(sizes.get(folder) != shard["rows"] for folder in entry["aligned"])
            ):
                yield f"its counts of shard {shard['shard']} ({source.name}) do not add up"


def check_stage(run: Run, name: str, manifest: Mapping[str, Any]) -> None:
    """Check that a finished stage is what it was.

    Raises
    ------
    CorruptShardError
        If a file of it is missing or differs.
    """
    damages = stage_damage(run, name, manifest)
    if damages:
        listed = "; ".join(f"{damage.name}: {damage.what}" for damage in damages[:NAMED])
        more = f" (and {len(damages) - NAMED} more)" if len(damages) > NAMED else ""
        raise CorruptShardError(
            f"stage {name!r}: the files that it left were expected, got damaged ones: {listed}"
            f"{more}; in {run.uri}. {remake(run.uri, name)}"
        )


def read_timings(store: Store) -> dict[str, Any]:
    """Read how long each stage took; {} if that is not there.

    Raises
    ------
    CorruptShardError
        If the file is damaged.
    """
    data = store.read_if_there(TIMINGS_FILE)
    if data is None:
        return {}
    try:
        timings = load_sealed(data)
        if not all(isinstance(entry, dict) for entry in timings.values()):
            raise SealError("it is another file")
    except SealError as err:
        raise CorruptShardError(
            f"run: {TIMINGS_FILE} as it was written was expected in {store.uri}, but {err}. No "
            "result depends on it: delete it and give the same command again"
        ) from err
    return timings
