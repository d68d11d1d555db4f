"""The driver: a recipe on a data set, stage by stage, resumable at every shard."""

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pipelines.core.at_end import write_at_end
from pipelines.core.commit import (
    Record,
    check_record,
    hash_file,
    load_record,
    record_name,
    roll_forward,
    verify,
    withdraw,
)
from pipelines.core.graph import Workers, open_workers
from pipelines.core.identity import code, differences
from pipelines.core.intact import check_stage, files_of_stage, read_timings, shard_files
from pipelines.core.layout import SOURCE, Layer, Layout
from pipelines.core.lock import epoch_of, locked
from pipelines.core.rejects import check_rejects
from pipelines.core.results import (
    ResultFile,
    artifact_name,
    check_own,
    check_result,
    done_name,
    result_name,
    save_result,
)
from pipelines.core.stage import Arrays, Context, Fit, Map, Reduce, Step
from pipelines.core.state import (
    FILES_FILE,
    RECIPE_FILE,
    RUN_FILE,
    SUMMARY_FILE,
    TIMINGS_FILE,
    Entry,
    Run,
    keep_recipe,
    load_run,
    make_manifest,
    manifest_name,
)
from pipelines.core.work import Task, do_fit, do_map, do_reduce, forget_files, forget_jobs, lend
from pipelines.decisions.counts import PRODUCT, counts_of, summary_of
from pipelines.errors import (
    CorruptShardError,
    OtherCodeError,
    RunError,
    StorageTrouble,
)
from pipelines.recipe import Recipe
from pipelines.storage.address import check_secrets, join
from pipelines.storage.apart import check_apart
from pipelines.storage.folders import check_writes, folders_of
from pipelines.storage.frame import BLOCKS_FILE, verify_foreign
from pipelines.storage.seal import SealError, dump_sealed, load_sealed
from pipelines.storage.source import READERS, open_source
from pipelines.storage.store import LocalStore

if TYPE_CHECKING:
    from pipelines.report.model import Report

GROUPS_PER_WORKER = 4
"""A reduction's shards are dealt out in so many groups for each worker."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a person watching would like to know.

    Attributes
    ----------
    kind : "read" (a file of the source was fingerprinted), "notice" (something was left out,
        guessed or merged), "stage", "skipped", "step", "shard", "done" or "kept" (was finished
        before).
    stage, step : which.
    n_items : items of the step (kind "step"), or items just done (kind "shard").
    n_shards : number of shards to do in the step.
    n_bytes : bytes just read (kind "read").
    seconds : time taken, where it is known.
    detail : a sentence for people.
    """

    kind: str
    stage: str
    step: str = ""
    n_items: int = 0
    n_shards: int = 0
    n_bytes: int = 0
    seconds: float = 0.0
    detail: str = ""


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore an event."""


def open_run(recipe: Recipe, *, data: str, out: str, listen: Listener = silent) -> Run:
    """Check a recipe against a data set and make (or find again) its folder.

    Raises
    ------
    DataError, RecipeError
        If the recipe cannot run on this data; nothing was written.
    RunError
        If the folder holds something else, or a run of other data, settings or version.
    """
    forget_files()
    check_apart(data, out)
    source = open_source(
        data,
        columns=recipe.data.columns,
        splits=recipe.data.splits,
        tell=lambda shard: listen(
            Event(kind="read", stage="source", n_bytes=shard.bytes, detail=shard.name)
        ),
    )
    for notice in source.notices:
        listen(Event(kind="notice", stage="source", detail=notice))
    run = Run(out, recipe, source)
    facts = run.describe()
    before = run.store.read_if_there(RUN_FILE)
    if before is not None:
        _check_same(run, facts)
        keep_recipe(load_run(run.uri))
        if before != dump_sealed(facts):
            # The same results, under another limit of bad rows: who goes on from the folder
            # alone shall find it.
            _reopen(run)
            run.store.write_atomic(RUN_FILE, dump_sealed(facts))
            run.store.remove(RECIPE_FILE)
    else:
        _check_folder(run)
        if not run.store.create_if_absent(RUN_FILE, dump_sealed(facts)):
            _check_same(run, facts)  # another process was faster
    _write_blocks(run)
    keep_recipe(run)
    read_timings(run.store)
    return run


def data_of(run: Run) -> str:
    """Return what `--data` has to be for a run to be gone on with: a folder, or its only file."""
    shards = run.source.shards
    if len(shards) == 1 and "/" not in shards[0].name:
        return join(run.source.uri, shards[0].name)
    return run.source.uri


def _write_blocks(run: Run) -> None:
    """Leave the hashes of the source's content where workers find them."""
    data = b"".join(blocks.astype("<u8").tobytes() for blocks in run.source.blocks)
    if run.store.read_if_there(BLOCKS_FILE) != data:
        run.store.write_atomic(BLOCKS_FILE, data)


def _check_folder(run: Run) -> None:
    """Refuse a folder without `run.json` that is not empty, nor of a run of these settings."""
    names = [name for name in run.store.list("") if not name.startswith((".lock", ".tmp-"))]
    if names and run.store.exists(RECIPE_FILE):
        keep_recipe(run)
        for entry in run.entries:
            run.manifest(entry.name)  # refuses those of other keys
    elif names and not run.store.exists(RUN_FILE):
        raise RunError(
            f"run: an empty or new folder was expected for --out, got {run.store.uri} with "
            f"{len(names)} entries ({', '.join(names[:5])}), which is no run. Choose another one"
        )


def _check_same(run: Run, facts: Mapping[str, Any]) -> None:
    old = load_run(run.uri)
    if old.describe()["stages"] == facts["stages"] and old.source.shards == run.source.shards:
        return
    changes: list[str] = []
    if old.source.shards != run.source.shards:
        changes.append("the data changed")
    if old.recipe.stages != run.recipe.stages:
        changes.append(f"the stages were {list(old.recipe.stages)}")
    for name in run.recipe.stages:
        if name in old.recipe.stages:
            before = old.recipe.settings(name).model_dump(mode="json")
            after = run.recipe.settings(name).model_dump(mode="json")
            changes += [
                f"{name}.{key} was {before.get(key)!r} and is {after[key]!r}"
                for key in after
                if before.get(key) != after[key]
            ]
    raise RunError(
        f"run: the folder of the same run was expected for --out, got {run.uri}, where "
        f"{'; '.join(changes) or 'files or the version of labelops changed'}. Results of "
        "different settings are never mixed: choose another --out, or delete that folder"
    )


def run(
    recipe: Recipe,
    *,
    data: str,
    out: str,
    workers: int | None = None,
    cluster: str | None = None,
    listen: Listener = silent,
) -> str:
    """Run a recipe on a data set, or go on where an earlier call was stopped.

    Parameters
    ----------
    recipe
        From `pipelines.recipe.load_recipe`.
    data, out
        URIs of the source and of the run folder.
    workers
        Number of local worker processes; None works in threads of this process.
    cluster
        Address of a Dask scheduler instead.
    listen
        Called with every `Event`.

    Returns
    -------
    URI of the report.
    """
    check_secrets(cluster, "--cluster")
    opened = open_run(recipe, data=data, out=out, listen=listen)
    with locked(opened.store), open_workers(workers=workers, cluster=cluster) as pool:
        for entry in opened.entries:
            run_stage(opened, entry.name, pool, listen=listen)
        return finish(opened, listen=listen)


def resume(
    out: str, *, workers: int | None = None, cluster: str | None = None, listen: Listener = silent
) -> str:
    """Go on with the run in a folder; see `run`."""
    old = load_run(out)
    return run(
        old.recipe, data=data_of(old), out=out, workers=workers, cluster=cluster, listen=listen
    )


def run_stage(run: Run, name: str, pool: Workers, *, listen: Listener = silent) -> None:
    """Bring one stage to its end; what is already committed is kept.

    Raises
    ------
    DataError
        If too many rows had to be rejected.
    CorruptShardError
        If a file of a finished stage is not what was committed.
    """
    entry = run.entry(name)
    if entry.skipped is not None:
        listen(Event(kind="skipped", stage=name, detail=entry.skipped))
        return
    manifest = run.manifest(name)
    if manifest is not None:
        check_stage(run, name, manifest)
        _clean(run, name)
        listen(Event(kind="kept", stage=name, detail="finished before"))
        return
    began = time.monotonic()
    _reopen(run)
    listen(Event(kind="stage", stage=name, n_items=run.source.n_items))
    forget_jobs(run.uri)
    lend(run)
    layout = run.layout(before=name)
    if name == PRODUCT:
        # Looked at once more before it is copied.
        check_unchanged(run)
    ctx = run.context(name, layout)
    steps = list(entry.stage.steps(entry.config, ctx))
    try:
        driver = _Driver(run, entry, ctx, steps, layout, pool, listen)
        for position, step in enumerate(steps):
            driver.take(position, step)
        manifest_bytes = make_manifest(entry, steps, driver.records, driver.results, driver.notices)
        run.store.sync([file.name for file in files_of_stage(load_sealed(manifest_bytes))])
        run.store.write_atomic(manifest_name(name), manifest_bytes)
        run.remember(name, manifest_bytes)
    except OSError as err:
        raise _storage_error(run, name, err) from err
    except MemoryError as err:
        raise RunError(
            f"stage {name!r}: enough memory for its shards was expected, it ran out ({err}). "
            "Finished shards are kept: write smaller shards, work with fewer --workers or on a "
            "machine with more memory, and give the same command again"
        ) from err
    _clean(run, name)
    seconds = time.monotonic() - began
    _note_timing(run, name, seconds, driver.seconds)
    listen(Event(kind="done", stage=name, n_items=run.source.n_items, seconds=seconds))


def check_unchanged(run: Run) -> None:
    """Check once more that every file of the source is what it was when the run began.

    Early, before a product is written; what is read for it is compared with its fingerprint anyway.

    Raises
    ------
    SourceChangedError
        If one is not.
    """
    layout = Layout(run.source, run.uri)

    refs = [layout.files(shard, {SOURCE})[SOURCE] for shard in range(len(run.source.shards))]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(verify_foreign, refs))


def _storage_error(run: Run, name: str, err: OSError) -> RunError:
    if err.errno == errno.ENOSPC:
        return RunError(
            f"stage {name!r}: free space was expected for the run folder, the disk is full "
            f"({err}); in {run.uri}. Finished shards are kept and nothing half-written is "
            "visible: make room and give the same command again"
        )
    said = str(err) if isinstance(err, StorageTrouble) else f"{type(err).__name__}: {err}"
    return RunError(
        f"stage {name!r}: readable data in {run.source.uri} and a writable folder {run.uri} were "
        f"expected, got {said}. Finished shards are kept; give the same "
        "command again when the storage answers"
    )


def _clean(run: Run, name: str) -> None:
    """Remove what only an unfinished stage needs."""
    manifest = run.manifest(name) or {}
    kept = manifest.get("artifacts", {})
    own = {"_results", *(["_artifacts"] if kept else [])}
    leaves = [leaf for leaf in run.store.list(name) if leaf.startswith(("_", "."))]
    targets = [f"{name}/{leaf}" for leaf in leaves if leaf not in own]
    if kept:
        names = {artifact_name(name, s, *file) for s in kept for file in kept[s].items()}
        for step in run.store.list(f"{name}/_artifacts"):
            files = [f"{name}/_artifacts/{step}/{leaf}"
                     for leaf in run.store.list(f"{name}/_artifacts/{step}")]  # fmt: skip
            # Another step's, or of a run that was at work on the same step and lost.
            targets += [target for target in files if target not in names]
            targets += [] if step in kept else [f"{name}/_artifacts/{step}"]
    for target in targets:
        run.store.remove_tree(target)
        if isinstance(run.store, LocalStore) and run.store.exists(target):
            run.store.remove(target)
    # A killed process leaves what it was writing: shards, results, or a file of the run itself.
    written = {file["folder"] for file in shard_files(manifest)}
    written.update(folders_of(name, run.entry(name).stage))
    folders = sorted({"", "_manifests", "quarantine", f"{name}/_results", *written})
    for temp in run.store.temporaries(folders):
        run.store.remove(temp)


@dataclass
class _Driver:
    """The steps of one stage, being worked through."""

    run: Run
    entry: Entry
    ctx: Context
    steps: Sequence[Step]
    layout: Layout
    pool: Workers
    listen: Listener
    records: dict[str, dict[int, Record]] = field(default_factory=dict)
    results: dict[str, ResultFile] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Look what of the stage was there when it was begun: nothing, or perhaps results."""
        store, name = self.run.store, self.entry.name
        self.is_new = not store.list(name)
        self.earlier_results = [] if self.is_new else store.list(f"{name}/_results")

    def take(self, position: int, step: Step) -> None:
        """Do one step, or what is missing of it."""
        began = time.monotonic()
        if isinstance(step, Map):
            self._map(position, step)
        elif not self._has_result(step):
            if not step.when(self.ctx):
                return
            if isinstance(step, Reduce):
                # Not read back: what was written is in our hands.
                self._note_result(step, ResultFile(self._reduce(position, step), {}))
            else:
                self._fit(position, step)
                self._note_result(step)
        if not isinstance(step, Map):
            self._tell(step)
        self.seconds[step.name] = time.monotonic() - began

    def _tell(self, step: Step) -> None:
        """Say what a step left out, guessed or merged."""
        said = self.ctx.own(step.name).get("notices")
        for notice in [] if said is None else said.tolist():
            self.notices.append(notice)
            self._say("notice", detail=notice)

    def _has_result(self, step: Reduce | Fit) -> bool:
        """Say whether an interrupted run left the step's result whole; what is not so is removed.

        It is made again then, as shards are.
        """
        if self.is_new:
            return False
        store, stage = self.run.store, self.entry.name
        note, result = done_name(stage, step.name), result_name(stage, step.name)
        if result.rpartition("/")[2] not in self.earlier_results:
            store.remove(note)
            return False
        try:
            file = check_own(store, stage, step.name, self.entry.key)
        except (CorruptShardError, SealError):
            store.remove(note)
            store.remove(result)
            return False
        self._note_result(step, file)
        return True

    def _note_result(self, step: Reduce | Fit, file: ResultFile | None = None) -> None:
        """Note that the step's result belongs to this stage, of this key."""
        store, stage = self.run.store, self.entry.name
        file = file or check_result(store, stage, step.name)
        self.results[step.name] = file
        note = {"stage": stage, "step": step.name, "key": self.entry.key, "sha256": file.digest}
        store.create_if_absent(done_name(stage, step.name), dump_sealed(note))

    def _map(self, position: int, step: Map) -> None:
        if not step.when(self.ctx):
            return
        check_writes(self.entry.name, self.entry.stage, step, self._written())
        records = self._committed(step)
        todo = [s for s in range(len(self.run.source.shards)) if s not in records]
        tasks = self._tasks(position, step, todo)
        self._announce(step, tasks)
        for record in self.pool.map(do_map, tasks, gpu=self.entry.stage.gpu):
            seconds = record.pop("seconds")
            self._check_code(step, record)
            records[record["shard"]] = record
            n = record["rows"] + len(record["rejected"])
            detail = record["source"]
            self._say("shard", step=step.name, n_items=n, seconds=seconds, detail=detail)
        self.records[step.name] = records
        self.layout.layers.append(
            Layer(
                stage=self.entry.name,
                step=step.name,
                records=records,
                schemas={folder: output.schema for folder, output in step.writes.items()},
                aligned=frozenset(f for f, o in step.writes.items() if o.rows == "all"),
            )
        )
        check_rejects(self.run, self.entry.name, self.layout)

    def _written(self) -> dict[str, str]:
        """Return the folders that earlier steps of the stage wrote, and which step."""
        done = [step for step in self.steps if isinstance(step, Map) and step.name in self.records]
        return {folder: step.name for step in done for folder in step.writes}

    def _committed(self, step: Map) -> dict[int, Record]:
        """Return what an interrupted run left of the step, completed and verified.

        What is not as it was committed (a loss of power can tear files that were not forced to the
        disk yet) is made again: the same bytes come out.
        """
        store, stage, records = self.run.store, self.entry.name, {}
        if self.is_new:
            return {}
        there = set(store.list(f"{stage}/_commits/{step.name}"))
        for shard in range(len(self.run.source.shards)):
            name = record_name(stage, step.name, shard)
            if name.rpartition("/")[2] not in there:
                continue
            try:
                record = load_record(store, name)
                if record.pop("code", "") != code():
                    # Of a worker that was not to be trusted, or of a version before an update.
                    withdraw(store, name, record)
                    continue
                check_record(record, stage=stage, step=step.name, shard=shard, key=self.entry.key)
                roll_forward(store, record)
                verify(store, record)
            except (SealError, CorruptShardError):
                store.remove(name)
                continue
            records[shard] = record
        return records

    def _check_code(self, step: Step, record: Record) -> None:
        """Refuse a shard that somebody with other code has committed before our worker could."""
        theirs = record.pop("code", "")
        if theirs != code():
            shard = record["shard"]
            withdraw(self.run.store, record_name(self.entry.name, step.name, shard), record)
            raise OtherCodeError(
                f"stage {self.entry.name!r}, step {step.name!r}, shard {shard} "
                f"({record['source']}): the code of this run was expected, it was committed by a "
                f"worker that has {differences(code(), theirs)}. Its shard is not used: end that "
                "worker and give the same command again"
            )

    def _reduce(self, position: int, step: Reduce) -> str:
        """Merge the summaries of all shards into a result; returns its hash."""
        tasks = self._tasks(position, step, range(len(self.run.source.shards)))
        self._announce(step, tasks)
        n_groups = min(len(tasks), GROUPS_PER_WORKER * self.pool.n_workers)
        groups = [tasks[i::n_groups] for i in range(n_groups)]
        merged: Arrays | None = None
        for n, summary in self.pool.map(do_reduce, groups):
            merged = summary if merged is None else step.merge(merged, summary)
            self._say("shard", step=step.name, n_items=n)
        assert merged is not None
        arrays = step.finish(merged, self.ctx)
        return save_result(self.run.store, self.entry.name, step.name, arrays)

    def _fit(self, position: int, step: Fit) -> None:
        tasks = self._tasks(position, step, range(len(self.run.source.shards)))
        self._announce(step, tasks)
        for n in self.pool.map(do_fit, [tasks], gpu=self.entry.stage.gpu):
            self._say("shard", step=step.name, n_items=n)

    def _announce(self, step: Step, tasks: Sequence[Task]) -> None:
        n = sum(task.n for task in tasks)
        self._say("step", step=step.name, n_items=n, n_shards=len(tasks))

    def _say(self, kind: str, **facts: Any) -> None:
        self.listen(Event(kind=kind, stage=self.entry.name, **facts))

    def _tasks(self, position: int, step: Step, shards: Sequence[int]) -> list[Task]:
        name = self.entry.name
        columns = self.layout.columns(name, step.reads)
        types = self.layout.types(name)
        ids = self.layout.columns(name, ["item_id"]).get("item_id")
        # Whole files, whose rows are not one an item.
        scratch = {read for read in step.reads if read not in columns}
        folders = {column.file for column in columns.values()} | scratch | {SOURCE}
        if ids is not None:
            folders.add(ids.file)
        return [
            Task(
                run=self.run.uri,
                key=self.entry.key,
                stage=name,
                position=position,
                shard=shard,
                label=self.run.source.shards[shard].name,
                n=self.layout.n_live(shard),
                files=files,
                columns=columns,
                reads=tuple(step.reads),
                types={read: types[read] for read in step.reads if read in types},
                ids=ids,
                source_rows=files[SOURCE],
                fence=epoch_of(self.run.store),
                code=code(),
            )
            for shard in shards
            for files in [self.layout.files(shard, folders)]
        ]


def _note_timing(run: Run, name: str, seconds: float, steps: Mapping[str, float]) -> None:
    timings = read_timings(run.store)
    timings[name] = {
        "seconds": round(seconds, 3),
        "steps": {step: round(value, 3) for step, value in steps.items()},
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    run.store.write_atomic(TIMINGS_FILE, dump_sealed(timings))


Show = Callable[["Report", str], None]
"""Gets what the report says, and its URI."""


def finish(run: Run, *, listen: Listener = silent, show: Show | None = None) -> str:
    """Check that no item was lost, and write the report; returns its URI.

    Raises
    ------
    RunError
        If kept + relabelled + dropped + review + unresolved + quarantined is not the number of
        items.
    """
    _mark(run, {})
    counts = counts_of(run)
    run.store.write_atomic(SUMMARY_FILE, dump_sealed(summary_of(counts)))
    if not run.store.exists(TIMINGS_FILE):
        run.store.write_atomic(TIMINGS_FILE, dump_sealed({}))
    from pipelines.decisions.draw import SHEET_FILE, write_sheet
    from pipelines.report import collect, save
    from pipelines.report.card import CARD_FILE, write_card

    write_sheet(run)
    at_end = write_at_end(run)
    listen(Event(kind="stage", stage="report"))
    report = collect(run.uri, counts=counts)
    write_card(run, counts, report.sections)
    address = save(report, run.uri)
    if show is not None:
        show(report, address)
    names = (RUN_FILE, RECIPE_FILE, BLOCKS_FILE, SUMMARY_FILE, SHEET_FILE, CARD_FILE)
    there = [name for name in (*names, *at_end) if run.store.exists(name)]
    _mark(run, {name: hash_file(run.store, name, "sha256") for name in there})
    listen(Event(kind="done", stage="report"))
    return address


def _mark(run: Run, files: Mapping[str, str]) -> None:
    """Note the hashes of what belongs to a finished run as a whole; none while it is unfinished.

    What holds times (the report, `timings.json`) carries a seal of its own instead: this file is
    the same for equal runs.
    """
    run.store.write_atomic(FILES_FILE, dump_sealed({"key": run.key, "files": dict(files)}))


def _reopen(run: Run) -> None:
    """Note that a run, which may have been finished once, is no longer."""
    if run.store.exists(FILES_FILE):
        _mark(run, {})


def report_again(out: str, *, listen: Listener = silent) -> str:
    """Write the report of a finished run again, once its stages are verified; returns its URI.

    Raises
    ------
    CorruptShardError
        If a file of a stage is not what was committed.
    RunError
        If the run is not finished.
    """
    run = load_run(out)
    with locked(run.store):
        keep_recipe(run)
        read_timings(run.store)
        for entry in run.entries:
            manifest = run.manifest(entry.name)
            if manifest is not None:
                check_stage(run, entry.name, manifest)
        return finish(run, listen=listen)
