"""How many items could not be used, and an example of each reason, when they are too many."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow.parquet as pq

from pipelines.core.layout import Layout
from pipelines.core.state import Run
from pipelines.errors import DataError
from pipelines.storage.wording import shown

FOLDER = "quarantine"

NEARLY_ALL = 0.5
"""Where more items than this are bad, the data is not what was thought: no limit helps."""

EXAMPLES = 5
"""So many reasons get an example, the most frequent first."""

MOST = 200


def check_rejects(run: Run, stage: str, layout: Layout) -> None:
    """Stop when more rows than allowed were bad, over all stages so far.

    Raises
    ------
    DataError
        If so; shows the first item of each reason.
    """
    counts: Counter[str] = Counter()
    for layer in layout.layers:
        for record in layer.records.values():
            counts.update(record["reasons"])
    n_bad, n_items = counts.total(), run.source.n_items
    limit = run.recipe.data.max_bad_share
    if n_bad <= limit * n_items:
        return
    ranked = sorted(counts, key=lambda reason: (-counts[reason], reason))
    first = _examples(run, layout, ranked[:EXAMPLES])
    said = ", ".join(
        f"{reason} ({counts[reason]}{_such_as(first.get(reason))})" for reason in ranked
    )
    remedy = "correct the data, or raise the limit"
    if n_bad > NEARLY_ALL * n_items:
        remedy = "so many rows probably share one cause: correct it in the "
        remedy += "data or in the recipe's [data]"
    raise DataError(
        f"stage {stage!r}: at most {limit:.2%} of {n_items} items may be unusable "
        f"(data.max_bad_share), got {n_bad}: {said}. They are listed with reasons in "
        f"{run.uri}/{FOLDER}; {remedy}"
    )


def _such_as(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    item = "" if row["item_id"] is None else f" of item {shown(row['item_id'])}"
    detail = row["reason"].partition(":")[2].strip()
    cut = detail if len(detail) <= MOST else f"{detail[:MOST]}…"
    return f", the first in {row['shard']}, row {row['row']}{item}{': ' if cut else ''}{cut}"


def _examples(run: Run, layout: Layout, wanted: list[str]) -> dict[str, Mapping[str, Any]]:
    """Return the first row of each reason, in the order of stages, shards and rows."""
    examples: dict[str, Mapping[str, Any]] = {}
    for row in _rows(run, layout):
        reason = row["reason"].partition(":")[0]
        if reason in wanted and reason not in examples:
            examples[reason] = row
            if len(examples) == len(wanted):
                break
    return examples


def _rows(run: Run, layout: Layout) -> Iterator[Mapping[str, Any]]:
    for layer in layout.layers:
        for _, record in sorted(layer.records.items()):
            names = [file["name"] for file in record["files"] if file["folder"] == FOLDER]
            for name in names:
                with pq.ParquetFile(run.store.open_read(name)) as file:
                    for batch in file.iter_batches(4096):
                        yield from batch.to_pylist()
