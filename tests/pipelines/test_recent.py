import numpy as np
import pyarrow as pa

from pipelines.graph import SMALL_ITEMS, ThreadWorkers, _is_small
from pipelines.recent import Recent


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


def test_thread_workers__only_tasks_of_few_items_a_shard_count_as_small():
    assert _is_small(Sized(SMALL_ITEMS))
    assert not _is_small(Sized(SMALL_ITEMS + 1))
    assert _is_small([Sized(1), Sized(2 * SMALL_ITEMS - 1)])
    assert not _is_small("a task that is no shard")
