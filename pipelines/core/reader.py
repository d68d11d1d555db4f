"""Reading a run shard by shard, as its finished stages left it."""

from collections.abc import Iterator, Sequence

from pipelines.core.state import Run
from pipelines.storage.frame import Frame, narrow_columns


def frames(run: Run, reads: Sequence[str], *, before: str | None = None) -> Iterator[Frame]:
    """Yield every shard as the finished stages (or those before one) left it, for reports.

    What it reads are columns, and folders whose rows are not one an item.
    """
    layout = run.layout(before=before)
    columns = layout.columns("", reads)
    folders = {column.file for column in columns.values()} | (set(reads) - set(columns))
    narrow = narrow_columns(layout.types("")) & frozenset(reads)
    for shard, entry in enumerate(run.source.shards):
        yield Frame(
            index=shard,
            label=entry.name,
            n=layout.n_live(shard),
            files=layout.files(shard, folders),
            columns=columns,
            reads=tuple(reads),
            narrow=narrow,
            recent=run.recent,
        )
