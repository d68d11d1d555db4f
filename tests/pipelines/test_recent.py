import os
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipelines.run
from pipelines.core.graph import SMALL_ITEMS, ThreadWorkers, _is_small
from pipelines.errors import RunError
from pipelines.recipe import parse_recipe
from pipelines.storage.recent import Recent
from pipelines.storage.source import open_source


def table(n: int, *names: str) -> pa.Table:
    return pa.table({name: np.arange(n, dtype=np.int64) + i for i, name in enumerate(names)})


def test_recent__returns_what_was_put_in_the_order_asked_for():
    recent = Recent()
    recent.put("file", table(3, "a", "b"))
    recent.put("file", table(3, "c"))
    found = recent.get("file", ["c", "b"])
    assert found is not None
    assert found.to_pydict() == {"c": [0, 1, 2], "b": [1, 2, 3]}
    assert recent.get("file", ["a", "d"]) is None
    assert recent.get("another", ["a"]) is None


def test_recent__never_holds_more_than_its_limit_and_forgets_the_longest_unused():
    recent = Recent(limit_bytes=3 * 800)
    for name in ("first", "second", "third"):
        recent.put(name, table(100, "a"))
    assert recent.get("first", ["a"]) is not None
    recent.put("fourth", table(100, "a"))
    assert recent.n_bytes == 3 * 800
    assert recent.get("second", ["a"]) is None
    assert recent.get("first", ["a"]) is not None


def test_recent__putting_a_column_again_takes_no_more_room():
    recent = Recent()
    for _ in range(3):
        recent.put("file", table(100, "a"))
    assert recent.n_bytes == 800


def test_recent__keeps_what_a_schema_says_when_a_file_of_the_same_bytes_comes_again():
    recent, said = Recent(), {b"of": b"views"}
    for names in (("a",), ("a",), ("b",)):
        recent.put("file", table(3, *names).replace_schema_metadata(said))
        found = recent.get("file")
        assert found is not None
        assert found.schema.metadata == said
    assert found.column_names == ["b", "a"]


def test_recent__what_is_too_big_is_not_held():
    recent = Recent(limit_bytes=800)
    recent.put("file", table(100, "a"))
    assert recent.n_bytes == 0


class Sized:
    def __init__(self, n: int) -> None:
        self.n = n


def test_thread_workers__small_shards_and_large_ones_all_come_back():
    sizes = [1, SMALL_ITEMS, SMALL_ITEMS + 1, 5, 10**6, 2]
    found = ThreadWorkers(2).map(lambda task: task.n, [Sized(n) for n in sizes])
    assert sorted(found) == sorted(sizes)


def test_thread_workers__a_first_shard_that_takes_long_is_joined_by_another():
    both_at_work = threading.Barrier(2)

    def wait_for_another(task: Sized) -> int:
        both_at_work.wait(timeout=60)
        return task.n

    found = ThreadWorkers(2).map(wait_for_another, [Sized(n) for n in (1, 2, 3, 4)])
    assert sorted(found) == [1, 2, 3, 4]


def test_thread_workers__never_more_at_once_than_there_are_workers():
    lock, at_work, most = threading.Lock(), [0], [0]

    def count(task: Sized) -> int:
        with lock:
            at_work[0] += 1
            most[0] = max(most[0], at_work[0])
        time.sleep(0.5 if task.n == 1 else 0.03)
        with lock:
            at_work[0] -= 1
        return task.n

    found = list(ThreadWorkers(2).map(count, [Sized(n) for n in range(1, 9)]))
    assert sorted(found) == list(range(1, 9))
    assert most == [2]


def test_thread_workers__an_error_of_a_first_shard_comes_through_though_others_joined_it():
    def fail(task: Sized) -> int:
        time.sleep(0.4)
        raise RunError("as planned")

    with pytest.raises(RunError, match="as planned"):
        list(ThreadWorkers(2).map(fail, [Sized(1), Sized(2), Sized(3)]))


def test_recent__a_slice_counts_as_much_as_the_table_that_it_keeps_alive():
    recent = Recent(limit_bytes=8000)
    recent.put("file", table(1000, "a").slice(0, 1))
    assert recent.get("file") is None


def test_thread_workers__only_tasks_of_few_items_a_shard_count_as_small():
    assert _is_small(Sized(SMALL_ITEMS))
    assert not _is_small(Sized(SMALL_ITEMS + 1))
    assert _is_small([Sized(1), Sized(2 * SMALL_ITEMS - 1)])
    assert not _is_small("a task that is no shard")


def test_run__tells_source_files_apart_that_differ_in_content_only(tmp_path: Path) -> None:
    # One shape, one time, no statistics: only the names differ, as in what tar unpacks.
    given = [[0, 1, 0, 1, 1, 0], [1, 0, 1, 0, 0, 1]]
    (tmp_path / "data").mkdir()
    for shard, labels in enumerate(given):
        path = tmp_path / "data" / f"{shard}.parquet"
        plain = {"write_statistics": False, "use_dictionary": False, "compression": "none"}
        pq.write_table(pa.table({"label": labels}), path, **plain)
        os.utime(path, ns=(10**18, 10**18))
    prints = {shard.fingerprint for shard in open_source(str(tmp_path / "data")).shards}
    assert len(prints) == 2
    recipe = parse_recipe('stages = ["source"]', name="source")
    out = tmp_path / "out"
    pipelines.run.run(recipe, data=str(tmp_path / "data"), out=str(out))
    paths = sorted((out / "source").glob("part-*.parquet"))
    assert [pq.read_table(path)["given"].to_pylist() for path in paths] == given
