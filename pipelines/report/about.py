"""What a run says of itself: where from, which settings and versions, how long, how to undo it."""

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, NamedTuple

import pyarrow.parquet as pq

import labelops
from pipelines.core.intact import read_timings
from pipelines.core.state import Run
from pipelines.decisions.counts import PRODUCT, deciding_stage, has_product
from pipelines.report import model as m
from pipelines.report.limits import Limits
from pipelines.report.text import marked, plural

PACKAGES = ("numpy", "scipy", "pyarrow", "torch", "torchvision", "faiss-cpu", "dask", "prefect")
"""Packages whose version may change an answer, or is asked for when one is reported."""

QUARANTINE_FOLDER = "quarantine"


class Rejected(NamedTuple):
    """A row that could not be used; ``shard`` is the name of its source file."""

    item_id: str
    shard: str
    row: int


def about(run: Run, limits: Limits) -> Iterator[m.Section]:
    """Return what a run folder says of itself."""
    timings = read_timings(run.store)
    finished = max((str(t["finished"]) for t in timings.values()), default="")
    yield _quarantined(quarantine(run, limits))
    if timings:
        yield _timings(run, {name: float(t["seconds"]) for name, t in timings.items()})
    yield m.Section(
        name="repeat",
        title="Repeat or undo",
        short="Repeat, undo",
        rank=150,
        blocks=(
            m.Drawing("repeat.html.j2", {"notes": _notes(run), "facts": _facts(run, finished)}),
            _settings(run),
        ),
    )


def _quarantined(table: m.Table) -> m.Section:
    blocks: tuple[m.Block, ...] = (m.Text("Every row could be used.", "intro fine"),)
    if table.rows:
        intro = (
            "Rows that could not be used, by reason. They are listed in `quarantine/`; the source "
            "is unchanged."
        )
        blocks = (marked(intro), table)
    return m.Section(name="quarantine", title="Quarantine", rank=130, blocks=blocks)


def _minutes(time: str) -> str:
    """A UTC time of ISO 8601 as people write it, to the minute."""
    return f"{time[:10]} {time[11:16]} UTC" if len(time) == 20 else time


def _timings(run: Run, seconds: Mapping[str, float]) -> m.Section:
    entries = [entry for entry in run.entries if entry.name in seconds]
    took = [seconds[entry.name] for entry in entries]
    docs = (entry.stage.doc[:1].upper() + entry.stage.doc[1:].rstrip(".") for entry in entries)
    names = [*zip((entry.name for entry in entries), docs, strict=True), ("All", "")]
    n, longest, last = run.source.n_items, max(took, default=0.0) or 1.0, [None]
    table = m.Table(
        caption="Time taken by each stage",
        columns=(
            m.column("Stage", names, "noted"),
            m.column("Time", [*took, sum(took)], "duration", "strong"),
            m.column("", [*(s / longest for s in took), *last], "share"),
            m.column("Items", [*(n for _ in took), *last]),
            m.column("Items a second", [*(n / s if s else None for s in took), *last]),
            m.column("Shards", [*(len(run.source.shards) for _ in took), *last]),
        ),
    )
    return m.Section(name="timings", title="Timings", rank=140, blocks=(table,))


def _facts(run: Run, finished: str) -> list[tuple[str, str]]:
    shards = run.source.shards
    facts = [
        ("Recipe", run.recipe.name),
        *([("Finished", _minutes(finished))] if finished else []),
        (
            "Data",
            f"{plural(run.source.n_items, 'item')} in {plural(len(shards), 'shard')}, {_size(run)}",
        ),
        ("Run key", run.key[:16]),
        ("labelops", labelops.__version__),
        ("Python", platform.python_version()),
    ]
    skipped = [f"{e.name}: {e.skipped}" for e in run.entries if e.skipped is not None]
    facts += [("Skipped stage", reason) for reason in skipped]
    if has_product(run):
        settings = run.entry(PRODUCT).config.model_dump()
        if out := [*settings["leave_out_rules"], *settings["leave_out_items"]]:
            facts.append(("Left out of the dataset", ", ".join(out)))
    for package in PACKAGES:
        try:
            facts.append((package, metadata.version(package)))
        except metadata.PackageNotFoundError:
            continue
    return facts


def _size(run: Run) -> str:
    size, units = float(run.source.n_bytes), ["TB", "GB", "MB", "kB", "bytes"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop()
    return f"{size:.3g} {units[-1]}"


def _settings(run: Run) -> m.Table:
    import tomli_w

    tables = {"data": run.recipe.data, **{e.name: e.config for e in run.entries}}
    settings = [
        (f"{table}.{key}", "(not set)" if value is None else _toml(tomli_w, value))
        for table, config in tables.items()
        for key, value in config.model_dump(mode="json").items()
    ]
    return m.Table(
        caption="All settings of the recipe, as resolved",
        style="list settings",
        columns=(
            m.column("Setting", (key for key, _ in settings), "code"),
            m.column("Value", (value for _, value in settings), "code"),
        ),
        n_open=0,
        more="settings of the recipe",
    )


def _toml(writer: Any, value: object) -> str:
    try:
        return str(writer.dumps({"x": value})).removeprefix("x = ").strip()
    except TypeError:
        return json.dumps(value)


def _notes(run: Run) -> tuple[str, ...]:
    kinds = {entry.name.split("@")[0] for entry in run.entries if entry.skipped is None}
    notes = ["The source is unchanged."]
    if "dataset" in kinds:
        notes.append(
            "All changes: train on column label instead of label_clean (or labels instead of "
            "labels_clean), and add the items in set_aside/."
        )
    if deciding_stage(run) is not None:
        notes.append(
            "One rule or one item: name it in dataset.leave_out_rules or dataset.leave_out_items "
            "and run the recipe into another folder. The decision log (decisions/) says which "
            "rule changed which item."
        )
    notes.append(
        "One stage: delete its folder and those of later stages, then repeat the command of "
        "the run; it does only what is missing."
    )
    notes.append("The whole run: delete its folder. Repeat it with recipe.toml from that folder.")
    return tuple(notes)


def quarantine(run: Run, limits: Limits) -> m.Table:
    """Rejected rows by stage and reason, most frequent first, with the first few of each."""
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], list[Rejected]] = {}
    for layer in run.layout().layers:
        for _, record in sorted(layer.records.items()):
            for reason, n in record["reasons"].items():
                counts[layer.stage, reason] += n
            for file in record["files"]:
                if file["folder"] == QUARANTINE_FOLDER:
                    _note_examples(run, file["name"], examples, limits)
    ranked = sorted(counts, key=lambda key: (-counts[key], key))[: limits.quarantine_reasons]
    return m.Table(
        caption="Rows that could not be used, by reason",
        columns=(
            m.column("Reason", (reason for _, reason in ranked), "text"),
            m.column("Stage", (stage for stage, _ in ranked), "text"),
            m.column("Rows", (counts[key] for key in ranked)),
            m.column(
                "Examples: item, shard and row",
                (tuple(examples.get(key, ())) for key in ranked),
                "rejected",
            ),
        ),
    )


def _note_examples(
    run: Run, name: str, examples: dict[tuple[str, str], list[Rejected]], limits: Limits
) -> None:
    with pq.ParquetFile(run.store.open_read(name)) as file:
        for batch in file.iter_batches(4096):
            for row in batch.to_pylist():
                kind = row["reason"].partition(":")[0]
                listed = examples.setdefault((row["stage"], kind), [])
                if len(listed) < limits.quarantine_examples:
                    listed.append(Rejected(row["item_id"] or "", row["shard"], row["row"]))
