"""A finished run → what the report says: its parts look through the shards in one pass."""

from collections.abc import Mapping

from pipelines.core.reader import frames
from pipelines.core.state import Run
from pipelines.registry import load_parts
from pipelines.report import model as m
from pipelines.report.about import about
from pipelines.report.changes import Changes
from pipelines.report.limits import Limits
from pipelines.report.look import Reader
from pipelines.report.part import Part


def collect_run(run: Run, limits: Limits, counts: Mapping[str, int]) -> m.Report:
    """Return what the report of a run says, of which `counts_of` counted so."""
    reader = Reader(run, limits)
    drawing = m.Drawing("accounts.html.j2", None)
    accounts = m.Section(name="accounts", title="Accounts", rank=135, blocks=(drawing,))
    sections = [*said(reader), *about(run, limits), accounts]
    return m.Report(
        title=run.source.uri.rstrip("/").rsplit("/", 1)[-1].removesuffix(".parquet"),
        ledger=ledger(counts),
        n_classes=max([len(reader.names), *(section.n_classes for section in sections)]),
        sections=tuple(sorted(sections, key=lambda section: section.rank)),
        is_decided="keep" in counts,
        notices=tuple(run.notices()),
    )


def said(reader: Reader) -> list[m.Section]:
    """Return what all parts say."""
    parts = _parts(reader)
    scanning = [part for part in parts if part.reads and _can_read(reader, part)]
    columns = dict.fromkeys(column for part in scanning for column in part.reads)
    for frame in frames(reader.run, list(columns)) if columns else ():
        for part in scanning if frame.n else ():
            part.scan(frame)
    places = {place for part in parts for place in part.places()}
    shown = [column for part in parts for column in (*part.reads, *part.shows)]
    reader.look(places, shown)
    return [section for part in parts for section in part.sections()]


def _parts(reader: Reader) -> list[Part]:
    """Return the parts of each stage that has any, and the changes of the stage that decided."""
    parts: list[Part] = []
    for kind, name in reader.stages().items():
        ctx = reader.run.context(name, reader.layout)
        parts += [part(reader, ctx) for part in load_parts(kind)]
        if name == reader.deciding:
            parts.append(Changes(reader, ctx))
    return parts


def _can_read(reader: Reader, part: Part) -> bool:
    folders = {folder for layer in reader.layout.layers for folder in layer.schemas}
    return all(name in reader.types or name in folders for name in part.reads)


def ledger(counts: Mapping[str, int]) -> m.Ledger:
    """Return where every item of the source went."""
    kept = counts["source"] - counts["quarantined"]
    return m.Ledger(
        source=counts["source"],
        kept=counts["keep"] + counts["abstain"] if "keep" in counts else kept,
        relabelled=counts.get("relabel", 0),
        dropped=counts.get("drop", 0),
        review=counts.get("review", 0),
        unresolved=counts.get("unresolved", 0),
        quarantined=counts["quarantined"],
    )
