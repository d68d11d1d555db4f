"""Which files are shards, and what their names say; nothing is left out without a word."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.errors import DataError
from pipelines.storage.listing import split_of
from pipelines.storage.source import Source, open_source


def put(path: Path, first: int = 0, n: int = 2, **columns: list[object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"item_id": list(range(first, first + n)), **columns}), path)


def names(source: Source) -> list[str]:
    return [shard.name for shard in source.shards]


@pytest.mark.parametrize("leaf", ["a.parquet", "a.PARQUET", "a.parq", "a.pq", "a.snappy.parquet"])
def test_endings__of_parquet_are_read(tmp_path: Path, leaf: str) -> None:
    put(tmp_path / leaf)
    assert names(open_source(str(tmp_path))) == [leaf]
    assert names(open_source(str(tmp_path / leaf))) == [leaf]


def test_folder_called_like_a_file__is_a_folder(tmp_path: Path) -> None:
    put(tmp_path / "data.parquet" / "part.0.parquet", 0)
    put(tmp_path / "data.parquet" / "part.1.parquet", 2)
    expected = ["part.0.parquet", "part.1.parquet"]
    assert names(open_source(str(tmp_path / "data.parquet"))) == expected
    assert names(open_source(str(tmp_path))) == [f"data.parquet/{name}" for name in expected]


def test_folders_and_files_behind_links__are_read(tmp_path: Path) -> None:
    put(tmp_path / "data" / "a.parquet", 0)
    put(tmp_path / "other" / "deep" / "b.parquet", 2)
    put(tmp_path / "c.parquet", 4)
    (tmp_path / "data" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "data" / "c.parquet").symlink_to(tmp_path / "c.parquet")
    expected = ["a.parquet", "c.parquet", "more/deep/b.parquet"]
    assert names(open_source(str(tmp_path / "data"))) == expected


@pytest.mark.parametrize("target", [".", "sub"])
def test_circle_or_double_through_links__is_refused(tmp_path: Path, target: str) -> None:
    put(tmp_path / "sub" / "a.parquet")
    (tmp_path / "again").symlink_to(tmp_path / target)
    with pytest.raises(DataError, match="one and the same through a link"):
        open_source(str(tmp_path))


def test_everything_else__is_left_out_with_a_number_and_names(tmp_path: Path) -> None:
    put(tmp_path / "a.parquet")
    put(tmp_path / "_old" / "b.parquet", 2)
    (tmp_path / "c.csv").write_text("x")
    (tmp_path / "d.csv").write_text("x")
    (tmp_path / "e.parquet").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "f.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    put(tmp_path / "_metadata.parquet")
    source = open_source(str(tmp_path))
    assert names(source) == ["a.parquet"]
    said = "\n".join(source.notices)
    assert "2 files of the data's folder are not read" in said
    assert "'c.csv', 'd.csv'" in said
    assert "1 file of the data's folder is not read (names that begin" in said
    assert "'_old/b.parquet'" in said
    assert "cannot be opened: No such file or directory): 'e.parquet'" in said
    assert "no regular file): 'f.parquet'" in said
    assert "_SUCCESS" not in said
    assert "_metadata" not in said


def test_no_shard_at_all__names_what_there_is_instead(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(DataError, match=r"found none.*1 file of.*'a.csv'"):
        open_source(str(tmp_path))


def test_partition_folders__are_columns(tmp_path: Path) -> None:
    put(tmp_path / "label=2" / "city=S%C3%A3o%20Paulo" / "a.parquet", 0)
    put(tmp_path / "label=10" / "city=__HIVE_DEFAULT_PARTITION__" / "b.parquet", 2)
    source = open_source(str(tmp_path))
    assert source.types["label"] == pa.int64()
    assert source.schema.field("city").type == pa.string()
    found = {shard.name: dict(shard.constants) for shard in source.shards}
    assert found["label=2/city=S%C3%A3o%20Paulo/a.parquet"] == {"label": 2, "city": "São Paulo"}
    assert found["label=10/city=__HIVE_DEFAULT_PARTITION__/b.parquet"] == {
        "label": 10,
        "city": None,
    }
    assert any("'label' (int64) is read from names of folders" in said for said in source.notices)


@pytest.mark.parametrize("values", [["1", "x"], ["01", "2"], ["1.5", "2"], ["9" * 30, "1"]])
def test_partition_values__are_numbers_only_if_all_are_plain(
    tmp_path: Path, values: list[str]
) -> None:
    for i, value in enumerate(values):
        put(tmp_path / f"key={value}" / "a.parquet", 2 * i)
    source = open_source(str(tmp_path))
    assert source.schema.field("key").type == pa.string()
    assert sorted(shard.constants["key"] for shard in source.shards) == sorted(values)


def test_partition_that_files_have_too__is_theirs(tmp_path: Path) -> None:
    put(tmp_path / "label=2" / "a.parquet", 0, label=[2, 2])
    put(tmp_path / "label=3" / "a.parquet", 2, label=[3, 3])
    source = open_source(str(tmp_path))
    assert source.schema.names == ["item_id", "label"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/test.parquet", "test"),
        ("val/0.parquet", "validation"),
        ("dev_1.parquet", "validation"),
        ("split=train/0.parquet", "train"),
        ("eval.parquet", "test"),
        ("constrained.parquet", None),
        ("contest.parquet", None),
        ("testing/train.parquet", "train"),
        ("train_test.parquet", None),
    ],
)
def test_split_of__reads_words_only(name: str, split: str | None) -> None:
    assert split_of(name) == split


def test_splits__are_said_with_numbers_and_can_be_chosen(tmp_path: Path) -> None:
    put(tmp_path / "train-0.parquet", 0, 3)
    put(tmp_path / "test-0.parquet", 3, 2)
    source = open_source(str(tmp_path))
    assert any("test 2, train 3" in said for said in source.notices)
    assert [shard.constants for shard in source.shards] == [{"split": "test"}, {"split": "train"}]
    chosen = open_source(str(tmp_path), splits=["train"])
    assert names(chosen) == ["train-0.parquet"]
    assert any("1 of 2 shards are left out" in said for said in chosen.notices)
    with pytest.raises(DataError, match=r"got \['dev'\]; found \['test', 'train'\]"):
        open_source(str(tmp_path), splits=["dev"])


def test_split_column_of_the_files__is_kept(tmp_path: Path) -> None:
    put(tmp_path / "train-0.parquet", 0, split=["x", "y"])
    source = open_source(str(tmp_path))
    assert not source.shards[0].constants
