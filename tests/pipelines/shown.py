"""What a report shows, for tests to ask."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipelines.report import model as m


def section(report: m.Report, name: str) -> m.Section:
    found = report.section(name)
    assert found is not None, [one.name for one in report.sections]
    return found


def blocks_of(blocks: Sequence[m.Block]) -> Iterator[m.Block]:
    """Yield blocks, and those inside them."""
    for block in blocks:
        yield block
        if isinstance(block, m.Group):
            yield from blocks_of(block.blocks)
        elif isinstance(block, m.Pair):
            yield from blocks_of([*block.left, *block.right])


def table_of(report: m.Report, name: str, *heads: str) -> list[tuple[Any, ...]]:
    """Return columns, row by row, of the table of a section that has them."""
    tables = [b for b in blocks_of(section(report, name).blocks) if isinstance(b, m.Table)]
    found = [t for t in tables if {*heads} <= {column.head for column in t.columns}]
    return list(zip(*(found[0].values(head) for head in heads), strict=True))


def drawn(report: m.Report, name: str, template: str) -> Any:
    """Return what a template of a section draws."""
    blocks = blocks_of(section(report, name).blocks)
    return next(b.data for b in blocks if isinstance(b, m.Drawing) and b.template == template)


def items_of(blocks: Sequence[m.Block]) -> tuple[m.Item, ...]:
    shown = (block for block in blocks_of(blocks) if isinstance(block, m.Items))
    return tuple(item for block in shown for item in block.items)


def worst_groups(report: m.Report, name: str = "worst") -> dict[str, tuple[m.Item, ...]]:
    """Return the items of each class in a section."""
    groups = (block for block in section(report, name).blocks if isinstance(block, m.Group))
    return {group.name: items_of(group.blocks) for group in groups}
