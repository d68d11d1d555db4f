"""Looks chosen items up: their ids, what the sidecars say, their pictures and texts.

Pictures and texts are read from the row groups that hold a chosen item, and nowhere else.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from pipelines.core.layout import SOURCE
from pipelines.core.reader import frames
from pipelines.core.state import Run
from pipelines.report.limits import Limits
from pipelines.report.model import Item, Picture
from pipelines.report.scan import NARROW, Names, Place
from pipelines.report.thumbnails import thumbnail
from pipelines.storage.forms import PICTURES, is_bytes
from pipelines.storage.frame import ColumnRef, FileRef, Frame, in_form, open_parquet

LISTS = ("given_ids", "labels_clean", "map_ids", "map_scores", "map_rest")
"""Columns of lists that are looked up for chosen items only."""


@dataclass(frozen=True)
class Look:
    """Values of one chosen item."""

    item_id: str
    values: Mapping[str, object]
    picture: Picture | None
    excerpt: str


class Looker:
    """Looks chosen items up: ids, columns of the sidecars, pictures and texts."""

    def __init__(self, run: Run, limits: Limits) -> None:
        self.run = run
        self.limits = limits
        self.layout = run.layout()
        self.types = self.layout.types("")
        self._seen: dict[Place, Look] = {}

    @cached_property
    def has_pictures(self) -> bool:
        """Whether items are images with their bytes inside."""
        kind = self.types.get("image")
        return kind is not None and (kind == PICTURES or is_bytes(kind))

    def look(self, wanted: Sequence[Place]) -> None:
        """Look items up, shard by shard."""
        reads = [name for name in ("item_id", *NARROW, *LISTS) if name in self.types]
        by_shard: dict[int, list[int]] = {}
        for shard, row in wanted:
            if (shard, row) not in self._seen:
                by_shard.setdefault(shard, []).append(row)
        for frame in frames(self.run, reads):
            rows = sorted(by_shard.get(frame.index, ()))
            if rows:
                self._look_in(frame, reads, rows)

    def _look_in(self, frame: Frame, reads: Sequence[str], rows: list[int]) -> None:
        taken = frame.table(reads).take(pa.array(rows, pa.int64())).to_pylist()
        source = [name for name in ("image", "text") if self._from_source(name)]
        heavy = source_rows(
            self.layout.files(frame.index, {SOURCE})[SOURCE],
            self.layout.columns("", source),
            rows,
        )
        for row, values, extra in zip(rows, taken, heavy, strict=True):
            image, text = extra.get("image"), extra.get("text")
            data = image.get("bytes") if isinstance(image, dict) else image
            self._seen[frame.index, row] = Look(
                item_id=str(values.get("item_id")),
                values=values,
                picture=thumbnail(data, self.limits) if isinstance(data, bytes) else None,
                excerpt="" if text is None else _cut(str(text), self.limits.excerpt),
            )

    def _from_source(self, name: str) -> bool:
        if name == "image" and not self.has_pictures:
            return False
        return name in self.layout.source.columns

    def item(
        self, place: Place, names: Names, *, score: str = "label_score", note: str = ""
    ) -> Item:
        """Make the item at a place, as it is shown."""
        look = self._seen[place]
        believed = look.values.get("predicted")
        value = look.values.get(score)
        return Item(
            item_id=look.item_id,
            shard=place[0],
            given=self._given(look, names),
            believed=names.name(_int(believed)),
            score=float(value) if isinstance(value, float) else None,
            picture=look.picture,
            excerpt=look.excerpt,
        )

    def _given(self, look: Look, names: Names) -> str:
        listed = look.values.get("given_ids")
        if not isinstance(listed, list):
            return names.name(_int(look.values.get("given")))
        most = self.limits.labels_named
        shown = ", ".join(names.name(class_id) for class_id in listed[:most])
        return f"{shown} and {len(listed) - most} more" if len(listed) > most else shown or "none"

    def values(self, place: Place) -> Mapping[str, object]:
        """Values of the sidecars at a place."""
        return self._seen[place].values


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
