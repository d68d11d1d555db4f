"""What a run would do: from footers and manifests alone, without writing a byte.

Contents are not read, so shards whose size and footer did not change are taken as unchanged.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.core.state import RUN_FILE, Entry, Run, load_run, readable
from pipelines.errors import RunError
from pipelines.recipe import Recipe
from pipelines.storage.apart import check_apart
from pipelines.storage.source import Source, open_source
from pipelines.storage.store import open_store


@dataclass(frozen=True)
class StagePlan:
    """What would happen to one stage.

    Attributes
    ----------
    name, doc : the stage, and what it does.
    action : "run", "go on" (shards of it are committed), "keep" (finished) or "skip".
    why : the reason, for people.
    reads, writes : its columns.
    """

    name: str
    doc: str
    action: str
    why: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What a run would read, write and skip."""

    recipe: str
    source: Source
    out: str
    stages: tuple[StagePlan, ...]

    def text(self) -> str:
        """Return the plan for a terminal."""
        source = self.source
        lines = [
            f"recipe {self.recipe} on {source.uri}",
            f"  {source.n_items:,} items in {len(source.shards)} shards, "
            f"{source.n_bytes / 2**20:,.1f} MiB; largest shard "
            f"{max(shard.rows for shard in source.shards):,} items",
            *(f"  {name}: {kind}" for name, kind in source.types.items()),
            *(f"  note: {notice}" for notice in source.notices),
            f"into {self.out}",
        ]
        for stage in self.stages:
            lines.append(f"  {stage.action:<5} {stage.name:<12} {stage.why or stage.doc}")
            if stage.action in ("run", "go on"):
                lines.append(f"        reads  {', '.join(stage.reads) or '-'}")
                lines.append(f"        writes {', '.join(stage.writes) or '-'}")
        return "\n".join(lines)


def plan(recipe: Recipe, *, data: str, out: str) -> Plan:
    """Say what `run` would do with the same arguments.

    Raises
    ------
    DataError, RecipeError
        If the recipe cannot run on this data.
    RunError
        If the folder holds a run of other data or settings.
    """
    check_apart(data, out)
    source = open_source(
        data, columns=recipe.data.columns, splits=recipe.data.splits, contents=False
    )
    store = open_store(out)
    before = load_run(out) if store.exists(RUN_FILE) else None
    if before is not None:
        source = source.as_before(before.source)
    run = Run(out, recipe, source)
    if before is not None and before.describe()["stages"] != run.describe()["stages"]:
        raise RunError(
            f"plan: the folder of the same run was expected for --out, got {run.uri}, where data, "
            "settings or version differ. Choose another --out, or delete that folder"
        )
    return Plan(recipe.name, source, run.uri, tuple(_stages(run)))


def _stages(run: Run) -> Iterator[StagePlan]:
    columns = readable(run.recipe, run.source)
    for entry in run.entries:
        writes = () if entry.skipped else tuple(entry.stage.writes(entry.config, columns))
        action, why = _action(run, entry)
        yield StagePlan(
            name=entry.name,
            doc=entry.stage.doc,
            action=action,
            why=why,
            reads=() if entry.skipped else tuple(entry.stage.reads(entry.config, columns)),
            writes=writes,
        )
        columns |= set(writes)


def _action(run: Run, entry: Entry) -> tuple[str, str]:
    if entry.skipped is not None:
        return "skip", entry.skipped
    if run.manifest(entry.name) is not None:
        return "keep", "finished before"
    steps = run.store.list(f"{entry.name}/_commits")
    if steps:
        n = {step: len(run.store.list(f"{entry.name}/_commits/{step}")) for step in steps}
        done = ", ".join(f"{step} {k} of {len(run.source.shards)}" for step, k in n.items())
        return "go on", f"committed shards: {done}"
    return "run", ""
