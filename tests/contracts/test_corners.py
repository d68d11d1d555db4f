"""Written once, true for every stage: one item, or one class, gives a whole run or a word."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.verify import verify_run
from tests.contracts.data_sets import DATA_SETS


def one_item(table: pa.Table) -> pa.Table:
    """Return one item, of which every small table knows something."""
    return table.slice(1, 1)


def one_class(table: pa.Table) -> pa.Table:
    """Return the items with the same label each."""
    for name in {"label", "mood", "positive"} & set(table.column_names):
        same = pa.array([table[name].drop_null()[0].as_py()] * len(table))
        return table.set_column(table.column_names.index(name), name, same)
    if "labels" in table.column_names:
        at, lists = table.column_names.index("labels"), table["labels"]
        one = next(found for found in lists.to_pylist() if found)[:1]
        table = table.set_column(at, "labels", pa.array([one] * len(table), lists.type))
    if "candidates" in table.column_names:
        at, kind = table.column_names.index("candidates"), table.schema.field("candidates").type
        same = pa.array([["class 1"]] * len(table), kind)
        table = table.set_column(at, "candidates", same)
    return table.drop_columns([n for n in table.column_names if n == "labels_negative"])


CLASSES = {
    "features": [f"class {k}" for k in range(4)],
    **{name: [f"class {k}" for k in range(4)] for name in ("columns", "texts", "pred_probs")},
    "moods": [f"class {k}" for k in range(4)],
    "lists": [f"class {k}" for k in range(5)],
    "candidates": [f"class {k}" for k in range(4)],
}
"""The classes are named where the items that are left do not have them all."""

ONE_CLASS = "items of at least two classes were expected, got one class only"
REFUSED = {
    **{(name, f): ONE_CLASS
       for name in ("features", "columns", "texts", "pred_probs", "pictures", "views", "moods")
       for f in (one_item, one_class)},
    ("positives", one_item): "items labelled positive were expected",
    ("positives", one_class): "unlabelled items were expected",
    ("candidates", one_class): ONE_CLASS,
    ("bags", one_item): "n of the table must be the number of items in the data",
}  # fmt: skip
"""What cannot be worked on, and what is said."""


@pytest.mark.parametrize("few", [one_item, one_class])
@pytest.mark.parametrize("name", DATA_SETS)
def test_few__are_worked_on_by_every_stage_or_refused_in_words(
    name: str, few: Callable[[pa.Table], pa.Table], tmp_path: Path
) -> None:
    data, more = DATA_SETS[name], ["data.absent_classes=allow"]
    if name in CLASSES:
        more.append(f"data.classes={CLASSES[name]}")
    if "proportions" in data.active:
        more.append("proportions.unlisted=allow")
    items = few(data.items())
    changed = replace(data, items=lambda: items, settings=[*data.settings, *more])
    sizes = [len(items)] if len(items) == 1 else [0, len(items) // 2, len(items) - len(items) // 2]
    if (name, few) in REFUSED:
        with pytest.raises(DataError, match=REFUSED[name, few]):
            changed.run(tmp_path, sizes)
        return
    run = changed.run(tmp_path, sizes)
    assert [entry.name for entry in run.entries if entry.skipped is None] == list(data.active)
    assert verify_run(run.uri).damage == ()
    n_done = sum(
        pq.read_table(path).num_rows
        for folder in ("dataset", "set_aside", "quarantine")
        for path in (Path(run.uri) / folder).glob("*.parquet")
    )
    assert n_done == len(items) or "dataset" not in data.active
