"""What a worker does: one shard, or some shards, of one step.

A task holds names and numbers only. The worker finds stage, settings and finished results in the
run folder by itself and keeps them for its next task.
"""

import contextlib
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from pipelines.core.commit import DIGESTS, Crash, Record, commit_shard, no_crash
from pipelines.core.identity import code, differences
from pipelines.core.lock import act_under
from pipelines.core.results import ARTIFACT_DIGEST, artifact_name, save_result
from pipelines.core.stage import Arrays, Fit, Map, Reduce, Step
from pipelines.core.state import Job, Run, load_job
from pipelines.errors import DataError, LabelopsError, OtherCodeError, UnforeseenError
from pipelines.storage.canonical import Items, sort_items
from pipelines.storage.forms import fixed_bytes
from pipelines.storage.frame import ColumnRef, FileRef, Frame, narrow_columns
from pipelines.storage.recent import Recent
from pipelines.storage.store import Store
from pipelines.storage.wording import why


@dataclass(frozen=True, slots=True)
class Task:
    """One shard of one step.

    Attributes
    ----------
    run : URI of the run folder.
    key : key of the stage; a worker that remembers another one forgets it.
    stage : name of the stage in the recipe.
    position : position of the step within the stage.
    shard, label, n : number, source name and live items of the shard.
    files, columns : where its columns lie.
    reads, types : the columns that the step declared, and their types.
    ids : where item_id and the files it needs lie, for the quarantine.
    fence : epoch of the run that it is done for, on an object store; see `pipelines.core.lock`.
    code : the driver's code, see `pipelines.core.identity`.
    """

    run: str
    key: str
    stage: str
    position: int
    shard: int
    label: str
    n: int
    files: Mapping[str, FileRef]
    columns: Mapping[str, ColumnRef]
    reads: tuple[str, ...]
    types: Mapping[str, pa.DataType]
    ids: ColumnRef | None
    source_rows: FileRef
    code: str
    fence: int = 0

    def frame(self) -> Frame:
        """Return the shard as the step sees it."""
        return Frame(
            index=self.shard,
            label=self.label,
            n=self.n,
            files=self.files,
            columns=self.columns,
            reads=self.reads,
            narrow=narrow_columns(self.types),
            recent=_recent,
        )


_recent = Recent()
"""What this process read or wrote in the run at work; another run reads, and verifies, again."""

_jobs: dict[tuple[str, str, str, int], Job] = {}
_own: dict[str, Run] = {}
"""The run that this process drives."""

_jobs_lock = threading.Lock()


def open_job(task: Task) -> Job:
    """Return the job of a task's stage, opened at its first task in this process.

    Raises
    ------
    OtherCodeError
        If this process would compute with other code than the driver.
    """
    # A driver of an earlier version sends tasks without it.
    if (sent := getattr(task, "code", "")) != code():
        raise OtherCodeError(
            f"worker {os.getpid()} on {socket.gethostname()}: the code of the run was expected, "
            f"its driver has {differences(code(), sent)}. Install the same on all and restart them"
        )
    with _jobs_lock:
        name = (task.run, task.stage, task.key, task.fence)
        job = _jobs.get(name)
        if job is None:
            job = load_job(task.run, task.stage, _own.get(task.run))
            act_under(job.store, task.fence)
            _jobs[name] = job
        return job


def forget_jobs(run: str) -> None:
    """Drop the jobs that this process remembers of a run: results may have changed since."""
    with _jobs_lock:
        for name in [name for name in _jobs if name[0] == run]:
            del _jobs[name]
        _own.clear()


def lend(run: Run) -> None:
    """Let tasks that are done in this process use the driver's run: what it read is not asked."""
    _own[run.uri] = run


def forget_files() -> None:
    """Drop what this process remembers of files: they are read, and verified, again."""
    _recent.clear()


def do_map(task: Task, crash: Crash = no_crash) -> Record:
    """Apply a map step to a shard and commit what comes out."""
    job = open_job(task)
    step = job.steps[task.position]
    assert isinstance(step, Map)
    frame = task.frame()
    began = time.monotonic()
    with _explained(task, step):
        record = commit_shard(
            job.store,
            stage=task.stage,
            key=task.key,
            step=step,
            frame=frame,
            tables=step.apply(frame, job.ctx),
            item_ids=lambda: _ids(task),
            source_rows=lambda: _source_rows(task),
            recent=_recent,
            code=task.code,
            crash=crash,
        )
    return {**record, "seconds": time.monotonic() - began}


@contextlib.contextmanager
def _explained(task: Task, step: Step) -> Iterator[None]:
    """Say where an error of the mathematics happened; errors of the machine go on as they are."""
    try:
        yield
    except (LabelopsError, OSError, MemoryError):
        raise
    except UnicodeDecodeError as err:
        raise DataError(
            f"stage {task.stage!r}, shard {task.shard} ({task.label}): texts in Unicode were "
            f"expected, got {why(err)}. Write the file again with its texts in UTF-8"
        ) from err
    except Exception as err:
        raise UnforeseenError(
            f"stage {task.stage!r}, step {step.name!r}, shard {task.shard} ({task.label}): "
            f"{type(err).__name__}: {err}"
        ) from err


def _ids(task: Task) -> pa.Array:
    if task.ids is None:
        return pa.nulls(task.n, pa.string())
    ids = replace(task, columns={"item_id": task.ids}, reads=("item_id",), types={})
    return ids.frame()["item_id"]


def _source_rows(task: Task) -> np.ndarray:
    live = task.source_rows.live()
    return np.arange(task.n) if live is None else live


def do_reduce(tasks: Sequence[Task]) -> tuple[int, Arrays]:
    """Summarise some shards and merge them; returns the number of items with the summary."""
    job = open_job(tasks[0])
    step = job.steps[tasks[0].position]
    assert isinstance(step, Reduce)
    merged: Arrays | None = None
    for task in tasks:
        with _explained(task, step):
            summary = step.summarize(task.frame(), job.ctx)
            merged = summary if merged is None else step.merge(merged, summary)
    assert merged is not None
    return sum(task.n for task in tasks), merged


def do_fit(tasks: Sequence[Task]) -> int:
    """Sort all items canonically, fit, and write the artefact; returns the number of items."""
    first = tasks[0]
    job = open_job(first)
    step = job.steps[first.position]
    assert isinstance(step, Fit)
    with job.store.temp_folder(first.stage) as folder:
        items_folder, out = os.path.join(folder, "items"), os.path.join(folder, "out")
        os.mkdir(items_folder)
        os.mkdir(out)
        items = _items(tasks, items_folder)
        with _explained(first, step):
            result = step.fit(items, job.ctx, out)
        artifacts = {
            name: _keep_artifact(job.store, first.stage, step.name, os.path.join(out, name))
            for name in sorted(os.listdir(out))
        }
        # The result is the commit point: artefacts without it are written again.
        save_result(job.store, first.stage, step.name, result, artifacts)
        return items.n


def _items(tasks: Sequence[Task], folder: str) -> Items:
    schema = pa.schema([(name, tasks[0].types[name]) for name in tasks[0].reads])
    n = sum(task.n for task in tasks)
    tables = (task.frame().table(list(schema.names)) for task in tasks)
    return sort_items(tables, schema, folder, _n_bytes(tasks, schema, n))


def _n_bytes(tasks: Sequence[Task], schema: pa.Schema, n: int) -> int:
    """Return about how many bytes the items take: exact for numbers, by a sample for the rest."""
    widths = [fixed_bytes(kind) for kind in schema.types]
    if all(widths):
        return sum(widths) * n
    sample = max(tasks, key=lambda task: task.n)
    if sample.n == 0:
        return 0
    return int(sample.frame().table(list(schema.names)).nbytes / sample.n * n)


def _keep_artifact(store: Store, stage: str, step: str, path: str) -> str:
    """Copy a file that a fit step made into the run folder; returns its hash."""
    name = os.path.basename(path)
    temp = store.open_temp(f"{stage}/_artifacts/{step}/{name}", DIGESTS[ARTIFACT_DIGEST])
    try:
        with open(path, "rb") as file:
            shutil.copyfileobj(file, temp, 1 << 24)
        temp.close()
    except BaseException:
        temp.abandon()
        with contextlib.suppress(OSError):
            store.remove(temp.name)
        raise
    store.publish(temp.name, artifact_name(stage, step, name, temp.digest))
    return temp.digest
