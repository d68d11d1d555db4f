"""Where shards are worked on.

Threads in this process (Dask's threaded scheduler; pyarrow, numba and torch release the GIL), or a
cluster (`pipelines.core.cluster`): a local one of N processes, or a remote one by address. Tasks
are names and numbers, results are small records; building the graph reads and computes nothing.
"""

import contextlib
import os
import queue
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Protocol, TypeVar

from pipelines.core.attempts import attempt
from pipelines.errors import RunError

T = TypeVar("T")
R = TypeVar("R")

SMALL_ITEMS = 1000
SHORT_S = 0.020
"""A shard of so few items, if it takes no longer than that, is mostly work of the interpreter, for
which threads only wait for each other: 100 shards of ten items took 4.9 s of processor time in two
threads, 3.5 s in one."""

PATIENCE_S = 0.1
"""After so long a first shard is not small, whatever its number of items: others join it."""


class Workers(Protocol):
    """Somebody who applies a function to every task and hands the results back as they come."""

    n_workers: int

    @property
    def address(self) -> str | None:
        """Address of the cluster, for others to join; None works in this process."""
        ...

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], *, gpu: bool = False
    ) -> Iterator[R]:
        """Yield the results of all tasks, in any order."""
        ...


def _sizes(task: object) -> list[int]:
    """Return the number of items of every shard of a task; of a task of another kind, nothing."""
    shards = task if isinstance(task, list) else [task]
    return [shard.n for shard in shards if hasattr(shard, "n")]


def _is_small(task: object) -> bool:
    sizes = _sizes(task)
    return bool(sizes) and sum(sizes) <= SMALL_ITEMS * len(sizes)


class ThreadWorkers:
    """Dask's threaded scheduler in this process."""

    address: str | None = None

    def __init__(self, n_workers: int | None = None) -> None:
        self.n_workers = n_workers or len(os.sched_getaffinity(0))

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], *, gpu: bool = False
    ) -> Iterator[R]:
        """Yield results as shards are done; small shards that take no time one after the other."""
        if len(tasks) <= 1 or self.n_workers == 1:
            for task in tasks:
                yield attempt(function, task)
            return
        rest, n_long, slow = deque(tasks), 0, None
        with ThreadPoolExecutor(self.n_workers, thread_name_prefix="labelops") as pool:
            while rest and n_long < 2 and _is_small(rest[0]):
                began = time.perf_counter()
                task = rest.popleft()
                slow = pool.submit(attempt, function, task)
                try:
                    result = slow.result(timeout=PATIENCE_S)
                except FutureTimeoutError:
                    if not slow.done():
                        break
                    result = slow.result()
                slow = None
                is_long = time.perf_counter() - began > SHORT_S * len(_sizes(task))
                # One in a row may have waited for an import, or for the disk.
                n_long = n_long + 1 if is_long else 0
                yield result
            if rest or slow is not None:
                yield from self._side_by_side(pool, function, list(rest), slow)

    def _side_by_side(
        self,
        pool: Executor,
        function: Callable[[T], R],
        tasks: Sequence[T],
        slow: "Future[R] | None",
    ) -> Iterator[R]:
        # The scheduler returns only when all of its graph is done, so it runs in a thread of its
        # own and each task hands its result over itself.
        from dask.threaded import get

        done: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        stop = threading.Event()

        def work(position: int) -> None:
            if not stop.is_set():
                done.put(("done", attempt(function, tasks[position])))

        graph = {("shard", i): (work, i) for i in range(len(tasks))}

        def drive() -> None:
            try:
                get(graph, list(graph), pool=pool)
                if slow is not None:
                    done.put(("done", slow.result()))
                done.put(("end", None))
            except BaseException as err:
                done.put(("error", err))

        thread = threading.Thread(target=drive, name="labelops-graph", daemon=True)
        thread.start()
        try:
            while True:
                kind, value = done.get()
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                yield value
        finally:
            stop.set()
            thread.join()


ADDRESS = re.compile(r"(?:tcp|tls)://(?:\[[\w:.%]+\]|[^\s/:@\[\]?#]+):([0-9]{1,5})/?", re.ASCII)


def check_address(address: str) -> None:
    """Check that an address is that of a scheduler: it must say how, where, and at which port.

    Raises
    ------
    RunError
        If it does not.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or not 0 < int(match[1]) < 65_536:
        # Whoever took it for an address of the web may have put a password into it.
        shown = "one with a user or password" if "@" in address else repr(address)
        raise RunError(
            f"cluster: tcp://host:port or tls://host:port was expected, got {shown}. The "
            "scheduler says its address when it starts; its port is usually 8786"
        )


@contextlib.contextmanager
def open_workers(
    *,
    workers: int | None = None,
    cluster: str | None = None,
    deadline_s: float = 86_400.0,
    connect_s: float = 15.0,
) -> Iterator[Workers]:
    """Open what the shards are worked on with.

    Parameters
    ----------
    workers
        Number of local worker processes; None for threads in this process.
    cluster
        Address of a running scheduler, ``tcp://…`` or ``tls://…``.
    deadline_s
        Longest wait for all shards of one step.
    connect_s
        Longest wait for a scheduler to answer.
    """
    if cluster is None and workers is None:
        yield ThreadWorkers()
        return
    if cluster is not None:
        check_address(cluster)
        cluster = cluster.rstrip("/")
    # Dask takes a second to import.
    from pipelines.core.cluster import open_cluster

    with open_cluster(
        workers=workers, cluster=cluster, deadline_s=deadline_s, connect_s=connect_s
    ) as pool:
        yield pool
