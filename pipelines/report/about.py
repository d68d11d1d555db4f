"""What a run says of itself: where from, which settings and versions, how long, how to undo it."""

import json
import platform
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import pyarrow.parquet as pq

import labelops
from pipelines.core.intact import read_timings
from pipelines.core.state import Run
from pipelines.decisions.counts import PRODUCT, deciding_stage, has_product
from pipelines.report import model
from pipelines.report.limits import Limits
from pipelines.report.text import plural

PACKAGES = ("numpy", "scipy", "pyarrow", "torch", "torchvision", "faiss-cpu", "dask", "prefect")
"""Packages whose version may change an answer, or is asked for when one is reported."""

QUARANTINE_FOLDER = "quarantine"


@dataclass(frozen=True)
class About:
    """Facts of a run that are not about labels."""

    title: str
    finished: str
    timings: tuple[model.StageTiming, ...]
    facts: tuple[model.Fact, ...]
    settings: tuple[model.Setting, ...]
    notes: tuple[str, ...]


def about(run: Run) -> About:
    """Read what a run folder says of itself."""
    timings = read_timings(run.store)
    return About(
        title=run.source.uri.rstrip("/").rsplit("/", 1)[-1].removesuffix(".parquet"),
        finished=_minutes(max((str(t["finished"]) for t in timings.values()), default="")),
        timings=_timings(run, timings),
        facts=_facts(run),
        settings=tuple(_settings(run)),
        notes=_notes(run),
    )


def _minutes(time: str) -> str:
    """A UTC time of ISO 8601 as people write it, to the minute."""
    return f"{time[:10]} {time[11:16]} UTC" if len(time) == 20 else time


def _timings(run: Run, timings: dict[str, Any]) -> tuple[model.StageTiming, ...]:
    return tuple(
        model.StageTiming(
            name=entry.name,
            doc=entry.stage.doc[:1].upper() + entry.stage.doc[1:].rstrip("."),
            rows=run.source.n_items,
            shards=len(run.source.shards),
            seconds=float(timings[entry.name]["seconds"]),
        )
        for entry in run.entries
        if entry.name in timings
    )


def _facts(run: Run) -> tuple[model.Fact, ...]:
    shards = run.source.shards
    facts = [
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
    return tuple(model.Fact(name=name, value=value) for name, value in facts)


def _size(run: Run) -> str:
    size, units = float(run.source.n_bytes), ["TB", "GB", "MB", "kB", "bytes"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop()
    return f"{size:.3g} {units[-1]}"


def _settings(run: Run) -> list[model.Setting]:
    import tomli_w

    tables = {"data": run.recipe.data, **{e.name: e.config for e in run.entries}}
    found = []
    for table, config in tables.items():
        for key, value in config.model_dump(mode="json").items():
            shown = "(not set)" if value is None else _toml(tomli_w, value)
            found.append(model.Setting(table=table, key=key, value=shown))
    return found


def _toml(writer: Any, value: object) -> str:
    try:
        return str(writer.dumps({"x": value})).removeprefix("x = ").strip()
    except TypeError:
        return json.dumps(value)


def _notes(run: Run) -> tuple[str, ...]:
    kinds = {entry.name.split("@")[0] for entry in run.entries if entry.skipped is None}
    notes = ["The source was read and never changed."]
    if "dataset" in kinds:
        notes.append(
            "All changes: train on the column label instead of label_clean (or labels instead of "
            "labels_clean). What was set aside lies in set_aside/."
        )
    if deciding_stage(run) is not None:
        notes.append(
            "One rule or one item: name it in dataset.leave_out_rules or dataset.leave_out_items "
            "and run the recipe into another folder. The decision log (decisions/) says which "
            "rule changed which item."
        )
    notes.append(
        "One stage: delete its folder and those of the stages after it, then give the command of "
        "the run again; it does only what is missing."
    )
    notes.append("The whole run: delete its folder. Repeat it with recipe.toml from that folder.")
    return tuple(notes)


def quarantine(run: Run, limits: Limits) -> tuple[model.QuarantineReason, ...]:
    """Rejected rows by stage and reason, most frequent first, with the first few of each."""
    counts: dict[tuple[str, str], int] = {}
    examples: dict[tuple[str, str], list[model.QuarantinedRow]] = {}
    layout = run.layout()
    for layer in layout.layers:
        for _, record in sorted(layer.records.items()):
            for reason, n in record["reasons"].items():
                counts[layer.stage, reason] = counts.get((layer.stage, reason), 0) + n
            for file in record["files"]:
                if file["folder"] == QUARANTINE_FOLDER:
                    _note_examples(run, file["name"], examples, limits)
    ranked = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return tuple(
        model.QuarantineReason(
            reason=reason,
            stage=stage,
            count=count,
            examples=tuple(examples.get((stage, reason), ())),
        )
        for (stage, reason), count in ranked[: limits.quarantine_reasons]
    )


def _note_examples(
    run: Run,
    name: str,
    examples: dict[tuple[str, str], list[model.QuarantinedRow]],
    limits: Limits,
) -> None:
    with pq.ParquetFile(run.store.open_read(name)) as file:
        for batch in file.iter_batches(4096):
            for row in batch.to_pylist():
                kind, _, detail = row["reason"].partition(":")
                listed = examples.setdefault((row["stage"], kind), [])
                if len(listed) < limits.quarantine_examples:
                    listed.append(
                        model.QuarantinedRow(
                            shard=row["shard"],
                            row=row["row"],
                            item_id="" if row["item_id"] is None else row["item_id"],
                            detail=detail.strip(),
                        )
                    )
