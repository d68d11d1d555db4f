"""A finished run as its report reads it: results, and the few items that are shown.

Pictures and texts are read from the row groups that hold a chosen item, and nowhere else.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipelines.core.layout import SOURCE
from pipelines.core.reader import frames
from pipelines.core.results import load_result, result_name
from pipelines.core.stage import Arrays
from pipelines.core.state import Run
from pipelines.decisions.counts import deciding_stage
from pipelines.inference.table import raw
from pipelines.labels.space import space_of
from pipelines.report.limits import Limits
from pipelines.report.model import Item
from pipelines.report.names import Names
from pipelines.report.select import Place
from pipelines.report.thumbnails import thumbnail
from pipelines.storage.forms import PICTURES, is_bytes
from pipelines.storage.frame import ColumnRef, FileRef, Frame, in_form, open_parquet


class Reader:
    """What parts of a report read of a finished run, and look up together."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self.run = run
        self.limits = limits
        self.layout = run.layout()
        self.types = self.layout.types("")
        self.deciding = deciding_stage(run)
        space = space_of(self.types)
        self.given = "" if space is None else space.given[0]
        """Column of the given classes."""
        self.has_lists = self.given in self.types and pa.types.is_list(self.types[self.given])
        """Whether items may have several."""
        ctx = run.context("source", self.layout)
        self.names = Names(ctx.classes, ctx.class_values)
        self._seen: dict[Place, tuple[Item, Mapping[str, object]]] = {}

    # -- results -----------------------------------------------------------------------------------

    def stages(self) -> dict[str, str]:
        """Return the finished stages by kind; of those that a recipe repeats, the last."""
        done = (entry.name for entry in self.run.entries if entry.skipped is None)
        return {name.split("@")[0]: name for name in done}

    def result(self, kind: str, step: str) -> Arrays | None:
        """Result of a step of the last stage of a kind, or None where the run has none."""
        name = self.stages().get(kind, "")
        if not name or not self.run.store.exists(result_name(name, step)):
            return None
        return load_result(self.run.store, name, step)

    def outcome(self) -> Arrays | None:
        """What came of all proposals, where labels were decided about."""
        return None if self.deciding is None else self.result(self.deciding, "outcome")

    # -- items -------------------------------------------------------------------------------------

    @cached_property
    def has_pictures(self) -> bool:
        """Whether items are images with their bytes inside."""
        kind = self.types.get("image")
        return kind is not None and (kind == PICTURES or is_bytes(kind))

    def look(self, wanted: Iterable[Place], columns: Sequence[str]) -> None:
        """Look items up, shard by shard: pictures, texts and some columns of the sidecars."""
        reads = [
            name for name in dict.fromkeys(["item_id", self.given, *columns]) if name in self.types
        ]
        by_shard: dict[int, list[int]] = {}
        for shard, row in wanted:
            by_shard.setdefault(shard, []).append(row)
        if not by_shard:
            return
        for frame in frames(self.run, reads):
            rows = sorted(by_shard.get(frame.index, ()))
            if rows:
                self._look_in(frame, reads, rows)

    def _look_in(self, frame: Frame, reads: Sequence[str], rows: list[int]) -> None:
        taken = frame.table(reads).take(pa.array(rows, pa.int64())).to_pylist()
        wanted = ("image", "text") if self.has_pictures else ("text",)
        source = [name for name in wanted if name in self.layout.source.columns]
        named = self._named_columns
        source += named
        heavy = source_rows(
            self.layout.files(frame.index, {SOURCE})[SOURCE],
            self.layout.columns("", source),
            rows,
        )
        for row, values, extra in zip(rows, taken, heavy, strict=True):
            image, text = extra.get("image"), extra.get("text")
            data = image.get("bytes") if isinstance(image, dict) else image
            if named:
                text = ", ".join(f"{n.split('/')[-1]} {_brief(extra.get(n))}" for n in named)
            item = Item(
                item_id=str(values.get("item_id")),
                shard=frame.index,
                given=self._given(values.get(self.given)),
                believed=self.names.name(_int(values.get("predicted"))),
                picture=thumbnail(data, self.limits) if isinstance(data, bytes) else None,
                excerpt="" if text is None else _cut(str(text), self.limits.excerpt),
            )
            self._seen[frame.index, row] = item, values

    @cached_property
    def _named_columns(self) -> list[str]:
        """Columns of a table that items are predicted from; the first of them."""
        if not self.run.recipe.data.features:
            return []
        return raw(self.run.context("source", self.layout))[: self.limits.columns_named]

    def item(self, place: Place, score: str = "") -> Item:
        """Make the item at a place, as it is shown; its score is a column that was looked up."""
        item, values = self._seen[place]
        value = values.get(score)
        return replace(item, score=value if isinstance(value, float) else None)

    def scored(self, place: Place, score: float) -> Item:
        """Make the item at a place, with a score that is known."""
        return replace(self._seen[place][0], score=score)

    def _given(self, listed: object) -> str:
        if not isinstance(listed, list):
            return self.names.name(_int(listed))
        most = self.limits.labels_named
        shown = ", ".join(self.names.name(class_id) for class_id in listed[:most])
        return f"{shown} and {len(listed) - most} more" if len(listed) > most else shown or "none"

    def values(self, place: Place) -> Mapping[str, object]:
        """Values of the sidecars at a place."""
        return self._seen[place][1]


def _brief(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most].rstrip()}…"


def _int(value: object) -> int:
    return value if isinstance(value, int) else -1


def source_rows(
    ref: FileRef, columns: Mapping[str, ColumnRef], rows: Sequence[int]
) -> Iterator[dict[str, object]]:
    """Yield some live rows of a source file, reading only the row groups that hold them."""
    if not columns:
        yield from ({} for _ in rows)
        return
    live = ref.live()
    wanted = np.asarray(rows, np.int64) if live is None else live[np.asarray(rows, np.int64)]
    # Buffered: a row group of a user's file may hold more images than fit in memory.
    with open_parquet(ref, buffer_size=1 << 20) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        for group in np.unique(np.searchsorted(starts, wanted, side="right") - 1):
            start = int(starts[group])
            names = [where.name for where in columns.values()]
            for batch in file.iter_batches(
                64, row_groups=[int(group)], columns=names, use_threads=False
            ):
                inside = wanted[(wanted >= start) & (wanted < start + batch.num_rows)] - start
                if inside.size:
                    parts = [
                        in_form(pa.chunked_array([batch[where.name]]), where, ref, start)
                        for where in columns.values()
                    ]
                    table = pa.table(parts, names=list(columns))
                    yield from table.take(pa.array(inside)).to_pylist()
                start += batch.num_rows
