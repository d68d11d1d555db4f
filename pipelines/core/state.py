"""The state of a run, read from its folder alone: identity, recipe, finished stages."""

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

import labelops
from pipelines.core import needs
from pipelines.core.commit import Record, hash_file, is_scratch
from pipelines.core.layout import Layer, Layout, pack_schema, unpack_schema
from pipelines.core.results import ArtifactCache, ResultCache, ResultFile
from pipelines.core.stage import Context, Fit, Map, Stage, Step
from pipelines.errors import CorruptShardError, RecipeError, RunError, remake
from pipelines.recipe import Recipe, files_of, parse_recipe
from pipelines.registry import load_space, load_stage
from pipelines.storage.contract import SPACES
from pipelines.storage.files import MODEL_BYTES, open_named
from pipelines.storage.folders import check_listed
from pipelines.storage.recent import Recent
from pipelines.storage.seal import SealError, dump_sealed, load_sealed
from pipelines.storage.source import Source, SourceShard
from pipelines.storage.store import Store, open_store
from pipelines.storage.wording import why

FORMAT = 2
"""Raised whenever folders of runs made before cannot be gone on with, nor told of in a report."""

RUN_FILE = "run.json"
RECIPE_FILE = "recipe.toml"
SUMMARY_FILE = "summary.json"
TIMINGS_FILE = "timings.json"
TABLE = "table"
"""Stands for the columns that `data.features` names, among those that a stage can read."""

READY = "opinions of models"
"""Stands for the columns that `data.opinions` names."""

FILES_FILE = "_manifests/_files.json"
"""Written last: hashes of what belongs to the run as a whole and stands in no manifest."""


@dataclass(frozen=True)
class Entry:
    """A stage of the recipe, on this data.

    Attributes
    ----------
    name : as listed in the recipe.
    stage : what the registry knows of it.
    config : its settings.
    skipped : why it has nothing to do here, or None.
    key : hash of all that its output depends on.
    beliefs_stage, deciding_stage : names of the last stage before it that offers the beliefs that
        it asks for, and of the one that decided; "" where there is none.
    """

    name: str
    stage: Stage
    config: BaseModel
    skipped: str | None
    key: str
    beliefs_stage: str = ""
    deciding_stage: str = ""


class Run:
    """A recipe on a source, in a folder.

    Parameters
    ----------
    recorded
        Keys of the stages that are in the folder, where `run.json` names others than are to be:
        a file that the recipe names was changed since.

    Attributes
    ----------
    recent : what was read through this object, and so verified, a moment ago.
    """

    def __init__(
        self, uri: str, recipe: Recipe, source: Source, recorded: Mapping[str, str] | None = None
    ) -> None:
        self.store: Store = open_store(uri)
        self.uri = self.store.uri
        self.recipe = recipe
        self.source = source
        self.entries = resolve(recipe, source)
        self.recorded = recorded or {}
        self.recent = Recent()
        self._manifests: dict[str, dict[str, Any]] = {}
        self._results = ResultCache(self.store)

    @cached_property
    def key(self) -> str:
        """Hash of data, recipe and code."""
        return self.entries[-1].key

    def entry(self, name: str) -> Entry:
        """Return a stage of the recipe by its name there."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise RecipeError(
            f"run: a stage of the recipe was expected, got {name!r}; stages: "
            f"{[entry.name for entry in self.entries]}"
        )

    def manifest(self, name: str) -> dict[str, Any] | None:
        """Return a finished stage's manifest, or None.

        A stage whose folder is gone was undone, whatever its manifest says.

        Raises
        ------
        CorruptShardError
            If it is damaged, or that of another stage or run.
        """
        if name in self._manifests:
            return self._manifests[name]
        path = manifest_name(name)
        try:
            written = self.store.read_bytes(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        if not self.store.list(name):
            return None
        keys = {self.entry(name).key, self.recorded.get(name, "")}
        try:
            manifest = _parse(written)
            if manifest["stage"] != name:
                raise SealError(f"it is that of stage {manifest['stage']!r}")
            if manifest["key"] not in keys:
                raise SealError(
                    "it belongs to other data, settings, another version, or other content of a "
                    f"file that the recipe names (or {RUN_FILE} does)"
                )
        except SealError as err:
            raise CorruptShardError(
                f"stage {name!r}: its manifest as it was written was expected in {path}, but "
                f"{err}; in {self.uri}. {remake(self.uri, name)}"
            ) from err
        # Nobody writes it again.
        self._manifests[name] = manifest
        return manifest

    def notices(self) -> list[str]:
        """Return what was left out, guessed or merged: in the source, then by each stage."""
        notices = list(self.source.notices)
        for entry in self.entries:
            notices += (self.manifest(entry.name) or {}).get("notices", [])
        return notices

    def remember(self, name: str, manifest: bytes) -> None:
        """Take a manifest that was just written; it need not be read."""
        self._manifests[name] = _parse(manifest)

    def layout(self, before: str | None = None) -> Layout:
        """Return the layers of the finished stages that come before one (or of all)."""
        layout = Layout(self.source, self.uri)
        for entry in self.entries:
            if entry.name == before:
                break
            if entry.skipped is None:
                manifest = self.manifest(entry.name)
                if manifest is None:
                    raise RunError(
                        f"run: stage {entry.name!r} must be finished before it is read; it is "
                        f"not, in {self.uri}. Give the command of the run again to resume it"
                    )
                layout.layers.extend(layers_of(manifest))
        return layout

    def context(self, name: str, layout: Layout) -> Context[Any]:
        """Return what a stage's steps may know."""
        entry = self.entry(name)
        results = self._results
        types = layout.types(name)
        # `source` finds the classes; its own context holds what metadata or recipe say.
        names: Sequence[str] = self.source.class_names
        values: Sequence[int] = ()
        if results.has("source", "values"):
            classes = results("source", "values")
            names, values = classes["names"].tolist(), classes["values"].tolist()
        return Context(
            stage=name,
            config=entry.config,
            columns=frozenset(types) | _marked(self.recipe),
            types=types,
            n_items=self.source.n_items,
            classes=tuple(names),
            class_values=tuple(values),
            label_type=label_type(self.source.types),
            source_schema=self.source.schema,
            run_key=self.key,
            data=self.recipe.data,
            files=frozenset(files_of(entry.config, name)),
            beliefs=load_stage(entry.beliefs_stage).beliefs if entry.beliefs_stage else None,
            beliefs_stage=entry.beliefs_stage,
            deciding_stage=entry.deciding_stage,
            earlier=tuple(
                other.name
                for other in self.entries[: self.entries.index(entry)]
                if other.skipped is None
            ),
            lookup=results,
            artifacts=ArtifactCache(self.store, name),
            contexts=lambda other: self.context(other, self.layout(before=other)),
        )

    def describe(self) -> dict[str, Any]:
        """Return the run's identity, as `run.json` holds it."""
        return {
            "labelops": labelops.__version__,
            "format": FORMAT,
            "key": self.key,
            "recipe": self.recipe.to_toml(),
            "source": {
                **self.source.manifest(),
                "schema": pack_schema(self.source.schema),
                "classes": list(self.source.class_names),
            },
            "stages": {entry.name: entry.key for entry in self.entries},
        }


@functools.lru_cache(maxsize=8)
def _parse(manifest: bytes) -> dict[str, Any]:
    """Read a manifest; nobody changes what comes back, so the same bytes are read once."""
    return load_sealed(manifest, "stage", "key", "maps", "results", "artifacts")


def label_type(types: Mapping[str, pa.DataType]) -> pa.DataType:
    """Return the type of the source's labels, single or in lists; null where there are none."""
    name = next((name for name in SPACES if name in types), None)
    if name is None:
        return pa.null()
    return load_space(name).label_type(types[name])


def readable(recipe: Recipe, source: Source) -> frozenset[str]:
    """Return the source's columns by the names of the data contract.

    Where lists do not say what an item is not, everything that is not said is unknown: as if there
    were a column of empty lists.
    """
    columns = frozenset(source.columns)
    if "labels" in columns and recipe.data.absent_labels == "unknown":
        columns |= {"labels_negative"}
    return columns | _marked(recipe)


def _marked(recipe: Recipe) -> frozenset[str]:
    """Return what stands for columns that have no name of their own in the data contract."""
    marks = {TABLE: recipe.data.features, READY: recipe.data.opinions}
    return frozenset(mark for mark, named in marks.items() if named)


def resolve(recipe: Recipe, source: Source) -> list[Entry]:
    """Check that every stage can read what it needs; decide which have nothing to do.

    Raises
    ------
    DataError
        If a stage reads a column, or beliefs, that neither the source nor an earlier stage has.
    RecipeError
        If optional stages that the data calls for would write over each other.
    """
    entries: list[Entry] = []
    columns = readable(recipe, source)
    key = _hash([labelops.__version__, [s.fingerprint for s in source.shards], recipe.data_dict()])
    offered: dict[str, str] = {}
    deciding = ""
    for name in recipe.stages:
        stage, config = load_stage(name), recipe.settings(name)
        asked = offered.get(stage.asks or "", "")
        skipped = stage.skip(config, columns)
        if skipped is None and name in recipe.optional:
            skipped = _not_called_for(stage, config, columns, asked)
        if skipped is None:
            try:
                absent = [c for c in stage.reads(config, columns) if c not in columns]
            except needs.NoColumnError as err:
                raise needs.no_column(name, err, source) from err
            if absent:
                earlier = {entry.name: entry.skipped for entry in entries}
                raise needs.missing(name, absent, source, there=columns, earlier=earlier)
            if stage.asks and not asked:
                raise needs.no_beliefs(name, stage.asks, [entry.name for entry in entries])
            columns |= set(stage.writes(config, columns))
            # Of files the content counts, not where they lie.
            named = files_of(config, name)
            files = {key: _file_hash(path, name) for key, path in named.items()}
            settings = config.model_dump(mode="json", exclude=set(named))
            key = _hash([key, name, stage.version, settings, files])
        entries.append(Entry(name, stage, config, skipped, key, asked, deciding))
        beliefs = stage.beliefs if skipped is None else None
        if beliefs is not None and columns.issuperset(beliefs.reads(columns)):
            offered[beliefs.kind] = name
        if skipped is None and stage.decides:
            deciding = name
    check_listed([e.name for e in entries if e.skipped is None], load_stage, "the recipe")
    return entries


def _not_called_for(
    stage: Stage, config: BaseModel, columns: frozenset[str], asked: str
) -> str | None:
    """Return what an optional stage lacks, which then is left out; or None."""
    try:
        absent = [name for name in stage.reads(config, columns) if name not in columns]
    except needs.NoColumnError:
        return "it is optional, and there is nothing that it could work on"
    if absent:
        ours = needs.given_from().get(absent[0], absent[0])
        return f"it is optional, and there is no column {ours!r}"
    if stage.asks and not asked:
        return "it is optional, and no stage before it says what it would ask for"
    return None


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _file_hash(path: str, stage: str) -> str:
    try:
        store, name = open_named(path, most=MODEL_BYTES)
        return hash_file(store, name, "sha256")
    except Exception as err:
        # Every file system has errors of its own for a lack of credentials.
        # A package that a file system needs and that is not installed is no fault of ours.
        cause = None if isinstance(err, ImportError) else err
        raise RecipeError(
            f"stage {stage!r}: a readable file was expected at {path}, got {why(err)}. Correct the "
            "path"
        ) from cause


def manifest_name(stage: str) -> str:
    """Return where a stage's manifest is kept.

    Not in the stage's folder: readers that take whole folders (polars, `datasets`) stumble over
    anything there that is no shard.
    """
    return f"_manifests/{stage}.json"


def make_manifest(
    entry: Entry,
    steps: Sequence[Step],
    records: Mapping[str, Mapping[int, Record]],
    results: Mapping[str, ResultFile],
    notices: Sequence[str] = (),
) -> bytes:
    """Return a finished stage's manifest: what every step left, without scratch and clocks."""
    maps = []
    for step in steps:
        if not isinstance(step, Map) or step.name not in records:
            continue
        outputs = {f: o for f, o in step.writes.items() if not is_scratch(f)}
        shards = [
            {
                **{key: record[key] for key in ("shard", "source", "rows", "rejected", "reasons")},
                "files": [
                    {key: value for key, value in file.items() if key != "temp"}
                    for file in record["files"]
                    if not is_scratch(file["folder"])
                ],
            }
            for _, record in sorted(records[step.name].items())
        ]
        maps.append(
            {
                "step": step.name,
                "schemas": {
                    folder: pack_schema(output.schema) for folder, output in outputs.items()
                },
                "aligned": [folder for folder, output in outputs.items() if output.rows == "all"],
                "shards": shards,
            }
        )
    kept = {
        step.name: dict(results[step.name].artifacts)
        for step in steps
        if isinstance(step, Fit) and step.keeps and step.name in results
    }
    return dump_sealed(
        {
            "stage": entry.name,
            "version": entry.stage.version,
            "key": entry.key,
            "steps": [step.name for step in steps],
            "maps": maps,
            "notices": list(notices),
            "results": {step: file.digest for step, file in results.items()},
            "artifacts": kept,
        },
        indent=None,
    )


def layers_of(manifest: Mapping[str, Any]) -> list[Layer]:
    """Return the layers that a manifest describes."""
    return [
        Layer(
            stage=manifest["stage"],
            step=entry["step"],
            records={shard["shard"]: shard for shard in entry["shards"]},
            schemas={folder: unpack_schema(text) for folder, text in entry["schemas"].items()},
            aligned=frozenset(entry["aligned"]),
        )
        for entry in manifest["maps"]
    ]


def load_run(uri: str) -> Run:
    """Open a run from its folder alone.

    Raises
    ------
    RunError
        If the folder holds no run, or one of another version whose results could differ.
    """
    store = open_store(uri)
    facts = read_facts(store)
    recipe = parse_recipe(facts["recipe"], name="run", where=f"{store.uri}/{RUN_FILE}")
    source = Source(
        uri=facts["source"]["uri"],
        shards=tuple(SourceShard(**shard) for shard in facts["source"]["shards"]),
        schema=unpack_schema(facts["source"]["schema"]),
        columns=facts["source"]["columns"],
        class_names=tuple(facts["source"]["classes"]),
        widths=facts["source"]["widths"],
        indicators=tuple(facts["source"]["indicators"]),
        names_pictures=facts["source"]["names_pictures"],
        notices=tuple(facts["source"]["notices"]),
    )
    return Run(store.uri, recipe, source, recorded=facts["stages"])


def read_facts(store: Store) -> dict[str, Any]:
    """Return what `run.json` says.

    Raises
    ------
    CorruptShardError
        If it is damaged.
    RunError
        If it was written before there were seals, or in another format.
    """
    try:
        data = store.read_bytes(RUN_FILE)
    except (FileNotFoundError, NotADirectoryError) as err:
        raise RunError(
            f"run: the folder of a run (with {RUN_FILE}) was expected, got {store.uri}. Start one "
            "with: labelops run audit --data … --out …"
        ) from err
    try:
        facts = load_sealed(data, "recipe", "source", "stages")
    except SealError as err:
        if _is_unsealed(data):
            raise RunError(
                f"run: a run of this version of labelops was expected, got {store.uri}, which was "
                "made by an older version and carries no checksums. Start a new run in a new folder"
            ) from None
        raise CorruptShardError(
            f"run: {RUN_FILE} as it was written was expected in {store.uri}, but {err}. Restore "
            f"it, or delete it and start the same run over what is there: labelops run "
            f"{store.uri}/{RECIPE_FILE} --data … --out {store.uri}"
        ) from err
    made = facts.get("format", 1)
    if made != FORMAT:
        raise RunError(
            f"run: a run folder of format {FORMAT} was expected, got format {made} in {store.uri}, "
            f"made by {'an earlier' if made < FORMAT else 'a later'} version of labelops. Its "
            "tables can be read as they are; to go on with it, or to make its report again, use "
            "that version, or start a new run in a new folder"
        )
    return facts


def _is_unsealed(data: bytes) -> bool:
    """Say whether `run.json` ends as one without a seal did: no flipped bit makes it so."""
    try:
        return data.endswith(b"\n}\n") and "stages" in json.loads(data)
    except (ValueError, TypeError):
        return False


def keep_recipe(run: Run) -> None:
    """Leave the resolved recipe beside the results, for people; `run.json` is what counts.

    Raises
    ------
    CorruptShardError
        If another one lies there.
    """
    text = run.recipe.to_toml().encode()
    kept = run.store.read_if_there(RECIPE_FILE)
    if kept is None:
        run.store.write_atomic(RECIPE_FILE, text)
    elif kept != text:
        raise CorruptShardError(
            f"run: {RECIPE_FILE} as it was written was expected in {run.uri}, got another text: "
            "it was edited, or is damaged. Move it away and give the same command again: it is "
            "written again. To run with changed settings, take a new --out"
        )


@dataclass(frozen=True)
class Job:
    """A stage as a worker holds it: its store, context and steps."""

    store: Store
    ctx: Context
    steps: Sequence[Step]


def load_job(uri: str, stage: str, run: Run | None = None) -> Job:
    """Open one stage of a run from the run folder alone, unless it is open already."""
    run = load_run(uri) if run is None else run
    entry = run.entry(stage)
    ctx = run.context(stage, run.layout(before=stage))
    return Job(run.store, ctx, entry.stage.steps(entry.config, ctx))
