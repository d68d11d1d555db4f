"""Bad data sets stop before work starts; messages name who, expected, got, where, remedy."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from pipelines.core.state import load_run
from pipelines.errors import DataError, LabelopsError
from pipelines.recipe import parse_recipe
from pipelines.storage.source import open_source
from tests.datasets import blobs, even, vectors, write_shards

SOURCE_ONLY = 'stages = ["source"]\n'


def refusal(data: Path, out: Path, recipe: str = SOURCE_ONLY) -> str:
    with pytest.raises(LabelopsError) as refused:
        run(data, out, recipe)
    return str(refused.value)


def run(data: Path, out: Path, recipe: str = SOURCE_ONLY) -> None:
    parsed = parse_recipe(recipe, name="test")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipelines.run, "finish", lambda run, listen=None: "none")
        pipelines.run.run(parsed, data=str(data), out=str(out))


def one_shard(folder: Path, **columns: object) -> Path:
    table = pa.table(columns)
    return write_shards(folder, table, [table.num_rows])


def test_empty_folder__says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    assert refusal(tmp_path / "src", tmp_path / "out") == (
        f"source: Parquet shards (*.parquet) were expected in {tmp_path / 'src'}, found none. "
        "Check the path; names that begin with '.' or '_' are not read"
    )


def test_missing_folder__says_so(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere", tmp_path / "out") == (
        f"source: a folder of Parquet shards was expected at {tmp_path / 'nowhere'}, there is "
        "none. Check the path"
    )


def test_unreadable_object_store__names_address_and_cause(tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        open_source("nosuchprotocol://bucket/data")
    assert str(refused.value).startswith(
        "source: a readable folder of Parquet shards was expected at nosuchprotocol://bucket/data"
    )
    assert "Check the address, the credentials and the network" in str(refused.value)


def test_only_empty_shards__are_no_data_set(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(10).slice(0, 0), [0])
    assert refusal(data, tmp_path / "out") == (
        f"source: items were expected, got 1 shard(s) with no row, in {data}. "
        "Was the export interrupted?"
    )


def test_missing_column__lists_what_there_is(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(20), [20])
    message = refusal(data, tmp_path / "out", SOURCE_ONLY + '[data.columns]\nlabel = "target"')
    assert message == (
        "source: column 'target' was expected (the recipe reads it as 'label'), got "
        f"['item_id', 'features', 'label'], in {data}. Correct data.columns in the recipe"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda t: t.set_column(2, "label", pa.array([1] * 10)),
            "column 'label' is int64 instead of string",
        ),
        (lambda t: t.drop_columns(["label"]), "column 'label' is absent instead of string"),
        (
            lambda t: t.append_column("extra", pa.array([1] * 10)),
            "column 'extra' is int64 instead of absent",
        ),
        (
            lambda t: t.set_column(1, "features", vectors(np.zeros((10, 5), np.float32))),
            "column 'features' is fixed_size_list<element: float>[5] instead of "
            "fixed_size_list<element: float>[6]",
        ),
        (
            lambda t: t.set_column(0, "item_id", t.column("item_id").cast(pa.large_string())),
            "column 'item_id' is large_string instead of string",
        ),
        (
            lambda t: t.select(["label", "features", "item_id"]),
            "the order of the columns is ['label', 'features', 'item_id'] instead of "
            "['item_id', 'features', 'label']",
        ),
    ],
    ids=["type", "missing", "extra", "width", "string-kind", "order"],
)
def test_schema_drift__names_shard_and_column(tmp_path: Path, change: object, said: str) -> None:
    table = blobs(20)
    data = write_shards(tmp_path / "src", table.slice(0, 10), [10])
    pq.write_table(change(table.slice(10)), data / "part-00001.parquet")  # type: ignore[operator]
    assert refusal(data, tmp_path / "out") == (
        "source: all shards must have the schema of the first (part-00000.parquet); in "
        f"part-00001.parquet {said}. Write that shard again with the common schema"
    )


def test_truncated_parquet__names_the_shard(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(20), [10, 10])
    path = data / "part-00001.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    message = refusal(data, tmp_path / "out")
    assert message.startswith("source: a whole Parquet file was expected, got one that cannot be")
    assert f"part-00001.parquet in {data}. It may be truncated" in message
    assert not (tmp_path / "out").exists()


def test_damaged_page_of_the_source__names_the_shard(tmp_path: Path) -> None:
    table = blobs(2000)
    data = tmp_path / "src"
    data.mkdir()
    pq.write_table(table, data / "part-00000.parquet", write_page_checksum=True)
    raw = bytearray((data / "part-00000.parquet").read_bytes())
    raw[200] ^= 4
    (data / "part-00000.parquet").write_bytes(raw)
    message = refusal(data, tmp_path / "out")
    assert message.startswith(
        "source: part-00000.parquet was expected to be a whole Parquet file, but the source is "
        "damaged"
    )


def test_duplicate_ids__are_named_with_their_places(tmp_path: Path) -> None:
    ids = [f"i{k}" for k in range(20)]
    ids[13] = "i2"
    ids[7] = "i6"
    table = blobs(20).set_column(0, "item_id", pa.array(ids))
    data = write_shards(tmp_path / "src", table, [10, 10])
    assert refusal(data, tmp_path / "out") == (
        "source: item_id must be unique over the data set, got 2 id(s) more than once: "
        "'i2' at part-00000.parquet, row 2 and part-00001.parquet, row 3; "
        "'i6' at part-00000.parquet, row 6 and part-00000.parquet, row 7. "
        "Remove the copies, or map a unique column to item_id in data.columns"
    )


def test_null_id__goes_to_quarantine_with_its_place(tmp_path: Path) -> None:
    ids: list[str | None] = [f"i{k}" for k in range(200)]
    ids[105] = None
    table = blobs(200).set_column(0, "item_id", pa.array(ids))
    data = write_shards(tmp_path / "src", table, even(200, 2))
    run(data, tmp_path / "out")
    bad = pq.read_table(tmp_path / "out" / "quarantine").to_pylist()
    assert bad == [
        {
            "item_id": None,
            "shard": "part-00001.parquet",
            "row": 5,
            "stage": "source",
            "reason": "no id: item_id is null",
        }
    ]
    kept = pq.read_table(tmp_path / "out" / "source" / "part-00001.parquet")
    assert kept["item_id"].to_pylist() == [i for i in ids[100:] if i is not None]


def test_too_many_bad_rows__stop_with_counts_by_reason(tmp_path: Path) -> None:
    labels = ["a", "b"] * 50
    table = pa.table({"item_id": list(map(str, range(100))), "label": [None, None, *labels[2:]]})
    data = write_shards(tmp_path / "src", table, [100])
    assert refusal(data, tmp_path / "out") == (
        "stage 'source': at most 1.00% of 100 items may be unusable (data.max_bad_share), got 2: "
        "no label (2, the first in part-00000.parquet, row 0 of item '0': label is null). They "
        f"are listed with reasons in {tmp_path / 'out'}/quarantine; correct the data, or raise the "
        "limit"
    )


def test_too_many_bad_rows__every_reason_has_an_example(tmp_path: Path) -> None:
    labels = ["a", "b"] * 50
    labels[70], labels[90] = None, "c" * 10**6  # type: ignore[call-overload]
    ids = [None if k in (60, 61) else f"i{k}\u202e" for k in range(100)]
    table = pa.table({"item_id": ids, "label": labels})
    data = write_shards(tmp_path / "src", table, [50, 50])
    message = refusal(data, tmp_path / "out", SOURCE_ONLY + '[data]\nclasses = ["a", "b"]\n')
    assert (
        "got 4: no id (2, the first in part-00001.parquet, row 10: item_id is null), class out of "
        "range (1, the first in part-00001.parquet, row 40 of item 'i90\\u202e': label 'ccc"
    ) in message
    assert (
        "is none of the 2 classes ('a', 'b')), no label (1, the first in part-00001.parquet, "
        "row 20 of item 'i70\\u202e': label is null). They are listed"
    ) in message
    assert len(message) < 1000


def test_nearly_all_rows_bad__nobody_is_told_to_raise_the_limit(tmp_path: Path) -> None:
    labels = [*["x"] * 60, *["a", "b"] * 20]
    data = one_shard(tmp_path / "src", item_id=list(range(100)), label=labels)
    message = refusal(data, tmp_path / "out", SOURCE_ONLY + '[data]\nclasses = ["a", "b"]\n')
    assert "class out of range (60, the first in " in message
    assert "row 0 of item '0': label 'x' is none of the 2 classes ('a', 'b'))" in message
    assert "raise the limit" not in message
    assert message.endswith(
        "; so many rows probably share one cause: correct it in the data or in the recipe's [data]"
    )


@pytest.mark.parametrize(
    ("label", "shown"), [(-2, "-2"), (2, "2"), (2**31, "2147483648")], ids=["-2", "K", "2**31"]
)
def test_class_out_of_range__is_quarantined_by_name(tmp_path: Path, label: int, shown: str) -> None:
    labels = [0, 1] * 100
    labels[3] = label
    data = one_shard(tmp_path / "src", item_id=list(map(str, range(200))), label=labels)
    run(data, tmp_path / "out", SOURCE_ONLY + '[data]\nclasses = ["cat", "dog"]')
    bad = pq.read_table(tmp_path / "out" / "quarantine").to_pylist()
    assert [(row["item_id"], row["reason"]) for row in bad] == [
        ("3", f"class out of range: label {shown} is none of the 2 classes ('cat', 'dog')")
    ]


def test_one_class_only__is_refused(tmp_path: Path) -> None:
    data = one_shard(tmp_path / "src", item_id=["a", "b"], label=["cat", "cat"])
    assert refusal(data, tmp_path / "out") == (
        "source: items of at least two classes were expected, got one class only ('cat'). Was "
        "the data set filtered, or the wrong column mapped to 'label'?"
    )


def test_class_that_nobody_has__is_refused_unless_allowed(tmp_path: Path) -> None:
    data = one_shard(tmp_path / "src", item_id=["a", "b"], label=["cat", "dog"])
    named = SOURCE_ONLY + '[data]\nclasses = ["cat", "dog", "eel"]\n'
    assert refusal(data, tmp_path / "out", named) == (
        "source: every class must have an item; 1 of 3 have none: 'eel'. Leave them out of "
        "data.classes, or set data.absent_classes = 'allow' if this is intended"
    )
    run(data, tmp_path / "allowed", named + 'absent_classes = "allow"\n')


def test_class_of_one_item__is_named(tmp_path: Path) -> None:
    table = blobs(40)
    labels = table["label"].to_pylist()
    labels[7] = "clas 1"
    odd = table.set_column(table.column_names.index("label"), "label", pa.array(labels))
    run(write_shards(tmp_path / "data", odd, [15, 25]), tmp_path / "out")
    said = [n for n in load_run(str(tmp_path / "out")).notices() if "have one item" in n]
    words = "no model can learn them, and no other item is taken for them. Are they misspelt?"
    assert said == [f"1 of 5 classes have one item: 'clas 1'; {words}"]


def test_class_count_disagreement__is_refused(tmp_path: Path) -> None:
    data = one_shard(
        tmp_path / "src",
        item_id=["a", "b"],
        label=["cat", "dog"],
        pred_probs=vectors(np.full((2, 3), 1 / 3, np.float32)),
    )
    assert refusal(data, tmp_path / "out") == (
        "source: pred_probs must have one column for each class; 2 classes were expected "
        "('cat', 'dog'), got 3 columns. Name the classes of the model in data.classes, in the "
        "order of its outputs"
    )


def test_pred_probs_that_are_no_vectors__are_refused(tmp_path: Path) -> None:
    data = one_shard(
        tmp_path / "src", item_id=["a", "b"], label=["cat", "dog"], pred_probs=[0.5, 0.5]
    )
    assert refusal(data, tmp_path / "out") == (
        "source: column 'pred_probs' must hold vectors, lists of numbers of one length, got "
        "double. Write it as pyarrow.list_(pyarrow.float32(), length), or map another column to "
        "'pred_probs' in data.columns"
    )


def test_output_folder_with_something_else__is_refused(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(20), [20])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("irreplaceable")
    assert refusal(data, tmp_path / "out") == (
        f"run: an empty or new folder was expected for --out, got {tmp_path / 'out'} with 1 "
        "entries (thesis.tex), which is no run. Choose another one"
    )


def test_output_folder_around_the_source__is_refused(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(20), [20])
    assert "The source is never written to" in refusal(data, tmp_path)
    assert "The source is never written to" in refusal(data, data)


def test_changed_data_or_settings_in_a_used_folder__are_refused_by_name(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(40), [20, 20])
    run(data, tmp_path / "out")
    write_shards(data, blobs(40, seed=1), [20, 20])
    assert refusal(data, tmp_path / "out") == (
        "run: the folder of the same run was expected for --out, got "
        f"{tmp_path / 'out'}, where the data changed. Results of different settings are never "
        "mixed: choose another --out, or delete that folder"
    )


def test_stage_without_its_column__asks_for_it_in_words_of_the_contract(tmp_path: Path) -> None:
    table = blobs(20).drop_columns(["label"])
    data = write_shards(tmp_path / "src", table, [20])
    assert refusal(data, tmp_path / "out", 'stages = ["source", "confident"]\n') == (
        "stage 'confident': a column 'label' (one class per item, text or whole number) was "
        f"expected; the source has 'item_id', 'features'; in {data}. Map yours with "
        "data.columns.label = '…'"
    )


def test_ids_missing__are_made_from_file_and_row(tmp_path: Path) -> None:
    data = write_shards(tmp_path / "src", blobs(6).drop_columns(["item_id"]), [4, 2])
    run(data, tmp_path / "out", SOURCE_ONLY + '[data]\nabsent_classes = "allow"')
    ids = pq.read_table(tmp_path / "out" / "source" / "part-00001.parquet")["item_id"].to_pylist()
    assert ids == ["part-00001.parquet#0", "part-00001.parquet#1"]


def test_class_names__come_from_hugging_face_metadata(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"item_id": datasets.Value("int64"), "label": datasets.ClassLabel(names=["cat", "dog"])}
    )
    made = datasets.Dataset.from_dict({"item_id": [5, 6, 7], "label": [0, 1, 1]}, features=features)
    (tmp_path / "src").mkdir()
    made.to_parquet(str(tmp_path / "src" / "a.parquet"))
    assert open_source(str(tmp_path / "src")).class_names == ("cat", "dog")
    run(tmp_path / "src", tmp_path / "out")
    ctx = load_run(str(tmp_path / "out"))
    context = ctx.context("source", ctx.layout())
    assert context.classes == ("cat", "dog")
    assert context.labels(np.array([1, -1, 0])).to_pylist() == [1, None, 0]
