"""Whether a run folder is, as a whole, what was written: every file, and every item.

Nothing is trusted here that could be computed: files are hashed, counts are added up. The source is
not read; what was read of it is verified while a run is at work.
"""

import contextlib
import errno
from collections.abc import Mapping
from dataclasses import dataclass, field

from pipelines.core.at_end import may_be_at_end
from pipelines.core.commit import check_record, load_record, record_name
from pipelines.core.intact import (
    Damage,
    Wanted,
    compare,
    files_of_stage,
    read_timings,
    stage_damage,
    wanted,
)
from pipelines.core.layout import Layout
from pipelines.core.lock import locked
from pipelines.core.results import check_own, done_name, result_name
from pipelines.core.state import (
    FILES_FILE,
    RECIPE_FILE,
    RUN_FILE,
    SUMMARY_FILE,
    TIMINGS_FILE,
    Run,
    load_run,
    manifest_name,
)
from pipelines.decisions.counts import counts_of, summary_of
from pipelines.decisions.draw import SHEET_FILE
from pipelines.errors import CorruptShardError, LabelopsError, LinkError, RunError
from pipelines.report import REPORT_FILE
from pipelines.report.card import CARD_FILE
from pipelines.storage.frame import BLOCKS_FILE
from pipelines.storage.seal import JSON, PAGE, Form, check_seal, load_sealed
from pipelines.storage.store import Store, open_store

SHOWN = 20
"""So many damaged files are named; the others are counted."""

SEALED: dict[str, Form] = {SUMMARY_FILE: JSON, TIMINGS_FILE: JSON, REPORT_FILE: PAGE}


@dataclass(frozen=True)
class Verified:
    """What was found in a run folder.

    Attributes
    ----------
    uri : the folder.
    is_finished : whether the run was finished.
    n_files, n_stages, n_items : what was checked.
    damage : what is not as it was written.
    """

    uri: str
    is_finished: bool
    n_files: int
    n_stages: int
    n_items: int
    damage: tuple[Damage, ...]

    def text(self) -> str:
        """Return what to tell the user."""
        if not self.damage:
            rest = "" if self.is_finished else f"; it is not finished: labelops resume {self.uri}"
            return (
                f"{self.uri}: intact. {self.n_files:,} files of {self.n_stages} stages on "
                f"{self.n_items:,} items are as they were written{rest}"
            )
        shown = [
            f"  {d.name}: {d.what}{f' (stage {d.stage!r})' if d.stage else ''}"
            for d in self.damage[:SHOWN]
        ]
        if len(self.damage) > SHOWN:
            shown.append(f"  and {len(self.damage) - SHOWN:,} more")
        return "\n".join(
            [f"{self.uri}: {len(self.damage):,} damaged:", *shown, f"Remedy: {self.remedy()}"]
        )

    def remedy(self) -> str:
        """Return how all that is damaged is made again."""
        deletes = dict.fromkeys(f"{self.uri}/{d.delete}" for d in self.damage if d.delete)
        commands = {d.command for d in self.damage}
        if "run" in commands:
            command = f"labelops run {self.uri}/{RECIPE_FILE} --data … --out {self.uri}"
        else:
            command = f"labelops {'resume' if 'resume' in commands else 'report'} {self.uri}"
        first = f"delete {', '.join(deletes)}; then: " if deletes else ""
        return f"restore these files, or {first}{command}"


def verify_run(uri: str) -> Verified:
    """Compare everything in a run folder with what was written.

    Raises
    ------
    RunError
        If the folder holds no run, or one made by an older version.
    LockedError
        If a run is at work in it.
    """
    store = open_store(uri)
    with contextlib.ExitStack() as stack:
        if store.exists(RUN_FILE):
            try:
                stack.enter_context(locked(store))
            except OSError as err:
                # Whoever may only read the folder may verify it.
                if err.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
        try:
            run = load_run(uri)
        except CorruptShardError as err:
            return _lost(store.uri, err.__cause__ or err)
        return _Check(run).verified()


def _lost(uri: str, what: object) -> Verified:
    """Return what is said when it is not known which run the folder holds."""
    return Verified(uri, False, 1, 0, 0, (Damage(RUN_FILE, str(what), "", RUN_FILE, "run"),))


@dataclass
class _Check:
    """The checks of one run; remembers which files they accounted for."""

    run: Run
    known: set[str] = field(default_factory=lambda: {RUN_FILE, ".lock"})
    damage: list[Damage] = field(default_factory=list)
    lost_manifest: bool = False

    @property
    def store(self) -> Store:
        return self.run.store

    def verified(self) -> Verified:
        """Return what all checks found."""
        is_finished = False
        try:
            files = self._listed()
            ours = Wanted(RUN_FILE, files[RUN_FILE]) if files else None
            for _, what in compare(self.store, [ours] if ours else []):
                return _lost(self.run.uri, what)
            self._whole_run(files)
            is_finished = bool(files)
            if not is_finished:
                self._hashes_of_source()
        except LinkError as err:
            self._link(err)
        entries = [entry for entry in self.run.entries if entry.skipped is None]
        for entry in entries:
            self._stage(entry.name, is_finished=is_finished)
        self._strays(is_finished=is_finished)
        if is_finished and not self.damage:
            self._items()
        return Verified(
            uri=self.run.uri,
            is_finished=is_finished,
            n_files=len(self.known.intersection(self.store.walk()) - {".lock"}),
            n_stages=len(entries),
            n_items=self.run.source.n_items,
            damage=tuple(self.damage),
        )

    def _note(
        self, name: str, what: object, *, stage: str = "", delete: str = "", command: str = "resume"
    ) -> None:
        self.damage.append(Damage(name, str(what), stage, delete, command))

    def _link(self, err: LinkError, *, stage: str = "") -> None:
        """Note a link: what it stands for was not looked at."""
        self.lost_manifest = True
        self._note(err.name, "it is a symbolic link, or no file", stage=stage, delete=err.name)

    def _hashes_of_source(self) -> None:
        """Check the hashes of the source's content against its fingerprints."""
        self.known.add(BLOCKS_FILE)
        if not self.store.exists(BLOCKS_FILE):
            if self.store.list(self.run.entries[0].name):  # else not begun
                self._note(BLOCKS_FILE, "it is missing")
            return
        data = self.store.read_bytes(BLOCKS_FILE)
        if not Layout(self.run.source, self.run.uri).are_hashes(data):
            what = "hashes of the source's content are not those of its fingerprints"
            self._note(BLOCKS_FILE, what, delete=BLOCKS_FILE)

    # -- the run as a whole ----------------------------------------------------------------------

    def _whole_run(self, files: Mapping[str, str] | None) -> None:
        """Check what belongs to no stage, against the hashes that the end of the run left."""
        again = "report" if files else "resume"
        for name, form in SEALED.items():
            if self.store.exists(name):
                self.known.add(name)
                try:
                    check_seal(self.store.read_bytes(name), form)
                    if name == TIMINGS_FILE:
                        read_timings(self.store)
                except (ValueError, CorruptShardError) as err:
                    self._note(name, err.__cause__ or err, delete=name, command=again)
            elif files:
                self._note(name, "it is missing", command="report")
        for name, digest in (files or {}).items():
            self.known.add(name)
            for _, what in compare(self.store, [Wanted(name, digest)]):
                # The run itself writes the recipe again, the report all else.
                command = "resume" if name in (RECIPE_FILE, BLOCKS_FILE) else "report"
                self._note(name, what, delete=name, command=command)
        text = self.run.recipe.to_toml().encode()
        if not files and not self.store.exists(RECIPE_FILE):
            self._note(RECIPE_FILE, "it is missing", command="resume")
        elif not files and self.store.read_bytes(RECIPE_FILE) != text:
            self._note(RECIPE_FILE, "it is not the recipe of the run", delete=RECIPE_FILE)
        self.known.update({RECIPE_FILE, CARD_FILE, SHEET_FILE, FILES_FILE})

    def _listed(self) -> dict[str, str] | None:
        """Return the hashes that the end of the run left; None if it has not ended."""
        if not self.store.exists(FILES_FILE):
            written = [n for n in (SUMMARY_FILE, CARD_FILE, REPORT_FILE) if self.store.exists(n)]
            if written:
                self._note(FILES_FILE, "it is missing", command="resume")
            return None
        try:
            sealed = load_sealed(self.store.read_bytes(FILES_FILE), "key", "files")
        except ValueError as err:
            self._note(FILES_FILE, err, delete=FILES_FILE)
            return None
        files: dict[str, str] = sealed["files"]
        return files or None

    # -- stages ----------------------------------------------------------------------------------

    def _stage(self, name: str, *, is_finished: bool) -> None:
        path = manifest_name(name)
        try:
            manifest = self.run.manifest(name)
            if manifest is not None:
                self.known.add(path)
                self.known.update(file.name for file in files_of_stage(manifest))
                self.damage += stage_damage(self.run, name, manifest)
                return
            if self.store.exists(path):
                self.known.add(path)  # left behind when the stage was undone
            if is_finished:
                self._note(f"{name}/", "its folder, or its manifest, is missing", stage=name)
                self.lost_manifest = True
            else:
                self._unfinished(name)
        except LinkError as err:
            self._link(err, stage=name)
        except LabelopsError as err:
            self.known.add(path)
            self.lost_manifest = True
            self._note(path, err.__cause__ or err, stage=name, delete=name)

    def _unfinished(self, name: str) -> None:
        """Check what a stage has committed so far; what is damaged is made again by itself."""
        for step in self.store.list(f"{name}/_commits"):
            for leaf in self.store.list(f"{name}/_commits/{step}"):
                if not leaf.startswith("."):
                    self._record(name, step, leaf)
        results = {leaf.removesuffix(".npz") for leaf in self.store.list(f"{name}/_results")}
        noted = {leaf.removesuffix(".json") for leaf in self.store.list(f"{name}/_done")}
        for step in sorted(results | noted):
            if not step.startswith("."):
                self._result(name, step)

    def _record(self, stage: str, step: str, leaf: str) -> None:
        path = f"{stage}/_commits/{step}/{leaf}"
        self.known.add(path)
        shard = int(digits) if (digits := leaf.removesuffix(".json")).isdecimal() else -1
        if path != record_name(stage, step, shard) or shard >= len(self.run.source.shards):
            self._note(path, "it is no record of a shard", stage=stage, delete=path)
            return
        try:
            record = load_record(self.store, path)
            check_record(record, stage=stage, step=step, shard=shard, key=self.run.entry(stage).key)
        except ValueError as err:
            self._note(path, err, stage=stage)
            return
        files = []
        for file in record["files"]:
            # Killed between the record and the last name: whoever goes on gives it.
            name = file["temp"] if self.store.exists(file["temp"]) else file["name"]
            files.append(wanted(file)._replace(name=name))
        self.known.update(file.name for file in files)
        for file, what in compare(self.store, files):
            self._note(file.name, what, stage=stage)

    def _result(self, stage: str, step: str) -> None:
        path, note = result_name(stage, step), done_name(stage, step)
        self.known.update({path, note})
        try:
            check_own(self.store, stage, step, self.run.entry(stage).key)
        except (ValueError, CorruptShardError) as err:
            self._note(path, err.__cause__ or err, stage=stage)

    # -- files that nobody knows, and items ------------------------------------------------------

    def _strays(self, *, is_finished: bool) -> None:
        if self.lost_manifest:
            return  # what it named is not known
        for name in self.store.walk():
            parts = name.split("/")
            if name in self.known or any(p.startswith((".tmp-", ".fit-")) for p in parts):
                continue  # the second kind is what a killed process was writing
            try:
                self.store.exists(name)
            except LinkError as err:
                self._link(err)
                continue
            may_be = self._may_lie_about(*parts) or may_be_at_end(self.run, name)
            if is_finished or not may_be:
                self._note(name, "nothing that the run committed names it", delete=name)

    def _may_lie_about(self, stage: str, folder: str = "", *rest: str) -> bool:
        """Say whether a killed run may have left a file so: before its end a stage has scratch."""
        if not folder.startswith("_") or stage not in {entry.name for entry in self.run.entries}:
            return False
        return folder == "_artifacts" or self.store.exists(manifest_name(stage))

    def _items(self) -> None:
        try:
            counts = summary_of(counts_of(self.run))
        except RunError as err:
            self._note(SUMMARY_FILE, err)
            return
        if counts != load_sealed(self.store.read_bytes(SUMMARY_FILE)):
            self._note(SUMMARY_FILE, "its counts are not those of the files", command="report")
