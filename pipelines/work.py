"""What a worker does: one shard, or some shards, of one step.

A task holds names and numbers only. The worker finds stage, settings and finished results in the
run folder by itself and keeps them for its next task.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipelines.canonical import Items, sort_items
from pipelines.commit import Crash, Record, commit_shard, no_crash
from pipelines.errors import LabelopsError, RunError
from pipelines.frame import ColumnRef, FileRef, Frame, narrow_columns
from pipelines.recent import Recent
from pipelines.results import artifact_name, save_result
from pipelines.stage import Arrays, Fit, Map, Reduce, Step
from pipelines.state import Job, load_job
from pipelines.store import LocalStore, Store


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

_jobs: dict[tuple[str, str, str], Job] = {}
_jobs_lock = threading.Lock()


def open_job(run: str, key: str, stage: str) -> Job:
    """Return a stage's job, opened at its first task in this process."""
    with _jobs_lock:
        job = _jobs.get((run, stage, key))
        if job is None:
            job = load_job(run, stage)
            _jobs[run, stage, key] = job
        return job


def forget_jobs(run: str) -> None:
    """Drop the jobs that this process remembers of a run: results may have changed since."""
    with _jobs_lock:
        for name in [name for name in _jobs if name[0] == run]:
            del _jobs[name]


def forget_files() -> None:
    """Drop what this process remembers of files: they are read, and verified, again."""
    _recent.clear()


def do_map(task: Task, crash: Crash = no_crash) -> Record:
    """Apply a map step to a shard and commit what comes out."""
    job = open_job(task.run, task.key, task.stage)
    step = job.steps[task.position]
    assert isinstance(step, Map)
    frame = task.frame()
    began = time.monotonic()
    try:
        record = commit_shard(
            job.store,
            stage=task.stage,
            step=step,
            frame=frame,
            tables=step.apply(frame, job.ctx),
            item_ids=lambda: _ids(task),
            source_rows=lambda: _source_rows(task),
            recent=_recent,
            crash=crash,
        )
    except Exception as err:
        raise _explained(err, task, step) from err
    return {**record, "seconds": time.monotonic() - began}


def _explained(err: Exception, task: Task, step: Step) -> Exception:
    """Say where an error of the mathematics happened; errors of the machine go on as they are."""
    if isinstance(err, LabelopsError | OSError | MemoryError):
        return err
    return RunError(
        f"stage {task.stage!r}, step {step.name!r}, shard {task.shard} ({task.label}): "
        f"{type(err).__name__}: {err}"
    )


def _ids(task: Task) -> pa.Array:
    if task.ids is None:
        return pa.nulls(task.n, pa.string())
    reader = Frame(
        index=task.shard,
        label=task.label,
        n=task.n,
        files=task.files,
        columns={"item_id": task.ids},
        reads=["item_id"],
    )
    return reader["item_id"]


def _source_rows(task: Task) -> np.ndarray:
    live = task.source_rows.live()
    return np.arange(task.n) if live is None else live


def do_reduce(tasks: Sequence[Task]) -> tuple[int, Arrays]:
    """Summarise some shards and merge them; returns the number of items with the summary."""
    job = open_job(tasks[0].run, tasks[0].key, tasks[0].stage)
    step = job.steps[tasks[0].position]
    assert isinstance(step, Reduce)
    merged: Arrays | None = None
    for task in tasks:
        try:
            summary = step.summarize(task.frame(), job.ctx)
            merged = summary if merged is None else step.merge(merged, summary)
        except Exception as err:
            raise _explained(err, task, step) from err
    assert merged is not None
    return sum(task.n for task in tasks), merged


def do_fit(tasks: Sequence[Task]) -> int:
    """Sort all items canonically, fit, and write the artefact; returns the number of items."""
    first = tasks[0]
    job = open_job(first.run, first.key, first.stage)
    step = job.steps[first.position]
    assert isinstance(step, Fit)
    with tempfile.TemporaryDirectory(
        prefix=".fit-", dir=_spill_folder(job.store, first.stage)
    ) as folder:
        items_folder, out = os.path.join(folder, "items"), os.path.join(folder, "out")
        os.mkdir(items_folder)
        os.mkdir(out)
        items = _items(tasks, items_folder)
        try:
            result = step.fit(items, job.ctx, out)
        except Exception as err:
            raise _explained(err, first, step) from err
        for name in sorted(os.listdir(out)):
            _keep_artifact(job.store, artifact_name(first.stage, step.name, name), out, name)
        # The result is the commit point: artefacts without it are written again.
        save_result(job.store, first.stage, step.name, result)
        return items.n


def _items(tasks: Sequence[Task], folder: str) -> Items:
    schema = pa.schema([(name, tasks[0].types[name]) for name in tasks[0].reads])
    n = sum(task.n for task in tasks)
    tables = (task.frame().table(list(schema.names)) for task in tasks)
    return sort_items(tables, schema, folder, _n_bytes(tasks, schema, n))


def _n_bytes(tasks: Sequence[Task], schema: pa.Schema, n: int) -> int:
    """Return about how many bytes the items take: exact for numbers, by a sample for the rest."""
    fixed = sum(_width(field.type) or 0 for field in schema)
    if all(_width(field.type) for field in schema):
        return fixed * n
    sample = max(tasks, key=lambda task: task.n)
    if sample.n == 0:
        return 0
    return int(sample.frame().table(list(schema.names)).nbytes / sample.n * n)


def _width(kind: pa.DataType) -> int | None:
    if pa.types.is_fixed_size_list(kind):
        inner = _width(kind.value_type)
        return None if inner is None else int(inner * kind.list_size)
    try:
        return max(1, int(kind.bit_width) // 8)
    except ValueError:
        return None


def _spill_folder(store: Store, stage: str) -> str | None:
    if not isinstance(store, LocalStore):
        return None
    folder = store.root / stage
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _keep_artifact(store: Store, target: str, folder: str, name: str) -> None:
    temp = store.open_temp(target)
    try:
        with open(os.path.join(folder, name), "rb") as file:
            shutil.copyfileobj(file, temp, 1 << 24)
        temp.close()
    except BaseException:
        temp.abandon()
        with contextlib.suppress(OSError):
            store.remove(temp.name)
        raise
    store.publish(temp.name, target)
