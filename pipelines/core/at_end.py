"""Small files that stages leave beside their tables when a run ends, for people and programs.

They say in a common form what results say in ours; nothing of ours reads them.
"""

from collections.abc import Iterator

from pipelines.core.state import Entry, Run


def _entries(run: Run) -> Iterator[tuple[str, Entry, str]]:
    for entry in run.entries:
        if entry.skipped is None:
            for leaf in entry.stage.files_at_end:
                yield f"{entry.name}/{leaf}", entry, leaf


def files_at_end(run: Run) -> list[str]:
    """Return the names of these files, whether or not they are there."""
    return [name for name, _, _ in _entries(run)]


def write_at_end(run: Run) -> None:
    """Write them."""
    for name, entry, leaf in _entries(run):
        context = run.context(entry.name, run.layout())
        run.store.write_atomic(name, entry.stage.files_at_end[leaf](context))
