"""What the report says of single stages, each in a section of its own."""

from collections.abc import Callable

from pipelines.core.stage import Context
from pipelines.core.state import Run
from pipelines.registry import load_part
from pipelines.report.limits import Limits
from pipelines.report.model import Section

Part = Callable[[Context, Limits], Section | None]
"""Reads the results of a finished stage, from its context; None where there is nothing to say."""


def sections(run: Run, limits: Limits) -> tuple[Section, ...]:
    """Return the sections of all finished stages that have one, in the order of the recipe."""
    found: list[Section] = []
    layout = run.layout()
    for entry in run.entries:
        part = load_part(entry.name) if entry.skipped is None else None
        said = None if part is None else part(run.context(entry.name, layout), limits)
        found += [] if said is None else [said]
    return tuple(found)
