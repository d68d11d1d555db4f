"""A Dask cluster: a local one with certificates of its own, or one that runs somewhere.

Whoever reaches a Dask scheduler, worker or nanny can run code on it. So those that we start speak
TLS only, with certificates that exist in the memory of this run's processes and nowhere else.
"""

import contextlib
import fcntl
import glob
import logging
import os
import queue
import shutil
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any, ClassVar, TypeVar

import dask
from distributed import (
    CancelledError,
    Client,
    KilledWorker,
    Nanny,
    Scheduler,
    Security,
    Worker,
    get_worker,
)
from distributed.deploy.spec import SpecCluster

from pipelines.core.attempts import attempt, describe
from pipelines.core.failure import Failure, record
from pipelines.core.identity import code, differences
from pipelines.errors import OtherCodeError, RunError

T = TypeVar("T")
R = TypeVar("R")

TICK_S = 2.0
"""How often somebody who waits for results looks whether there is anything to wait for."""

ANSWER_S = 20.0
"""Longest wait for a short answer of a scheduler that is there."""

START_S = 120.0
"""Longest wait for the processes of a local cluster."""

WORKERS_S = 60.0
"""Longest wait for a first worker, and for another one when all have gone."""

SPILL = "labelops-dask-"

KEPT = "Finished shards are kept"

_own: dict[str, Security] = {}
"""Certificates of the clusters that this process has started, by address."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker hands back: its code, and a value or what went wrong.

    An error is handed back as a value: raised, it would be pickled, with all that it holds.
    """

    worker: str
    code: str
    value: Any = None
    failure: Failure | None = None


def answer(function: Callable[[T], R], task: T, expected: str) -> Answer:
    """Apply the function, on a worker whose code is that of the driver."""
    worker, mine = get_worker().address, code()
    if mine != expected:
        return Answer(worker, mine)
    try:
        return Answer(worker, mine, value=attempt(function, task))
    except Exception as err:
        return Answer(worker, mine, failure=record(err))


class ClusterWorkers:
    """A Dask cluster reached by address; the driver's own client, never the default one.

    Attributes
    ----------
    address : of its scheduler.
    n_workers : number of threads of all its workers.
    """

    def __init__(self, client: Client, address: str, *, deadline_s: float) -> None:
        self.client = client
        self.address = address
        self.deadline_s = deadline_s
        self.n_workers = max(1, sum(w.get("nthreads", 1) for w in self._workers().values()))

    def map(
        self, function: Callable[[T], R], tasks: Sequence[T], *, gpu: bool = False
    ) -> Iterator[R]:
        """Yield results as they come; a finished future is released at once.

        Released futures are not recomputed when a worker dies: what was done is on disk.

        Raises
        ------
        OtherCodeError
            If a worker's code is not the driver's.
        RunError
            If a shard kills its workers, the scheduler or all workers are lost, or nothing comes
            for too long.
        """
        has_gpus = any("GPU" in worker.get("resources", {}) for worker in self._workers().values())
        done: queue.SimpleQueue[tuple[int, Any]] = queue.SimpleQueue()
        with self._lost_is_said():
            futures = self.client.map(
                answer,
                [function] * len(tasks),
                tasks,
                expected=code(),
                pure=False,
                resources={"GPU": 1} if gpu and has_gpus else None,
            )
        killed: dict[int, KilledWorker] = {}
        until = time.monotonic() + self.deadline_s
        try:
            loop = self.client.loop
            assert loop is not None
            for at, future in enumerate(futures):
                loop.add_callback(_collect, future, at, done)
            for _ in range(len(futures)):
                at, left = self._next(done, until)
                futures[at].release()
                if isinstance(left, KilledWorker):
                    # Others may still finish; and Dask blames all that a dying worker held.
                    killed[at] = left
                elif isinstance(left, CancelledError | OSError):
                    raise self._lost() from left
                elif isinstance(left, BaseException):
                    raise self._not_done(left)
                else:
                    yield self._value(left)
        finally:
            with contextlib.suppress(Exception):
                for future in futures:
                    future.release()
        if killed:
            raise _died(killed, tasks)

    def _next(self, done: "queue.SimpleQueue[tuple[int, Any]]", until: float) -> tuple[int, Any]:
        """Wait for the next task that is done, as long as somebody works on it."""
        alone_since = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                return done.get(timeout=min(TICK_S, self.deadline_s))
            workers, now = self._workers(), time.monotonic()
            if workers:
                alone_since = now
            if now - alone_since > WORKERS_S:
                raise RunError(
                    f"cluster: a worker was expected at {self.address}, there has been none for "
                    f"{WORKERS_S:.0f} s. {KEPT}; start workers and give the same command again"
                ) from ConnectionError("no workers")
            if now > until:
                raise RunError(
                    f"cluster: all results of a step were expected from {self.address} within "
                    f"{self.deadline_s:.0f} s, some have not come. {KEPT}; look at the workers, "
                    "and give the same command again"
                ) from TimeoutError()

    def _value(self, reply: Any) -> Any:
        if reply.code != code():
            raise other_code({reply.worker: reply.code})
        if reply.failure is None:
            return reply.value
        error = reply.failure.error()
        error.add_note(f"on worker {reply.worker}:\n{reply.failure.trace}")
        raise error

    def _workers(self) -> Mapping[str, Mapping[str, Any]]:
        scheduler = self.client.scheduler
        if scheduler is None or self.client.status != "running":
            raise self._lost() from ConnectionError(f"client is {self.client.status}")
        with self._lost_is_said():
            identity = self.client.sync(scheduler.identity, n_workers=-1, callback_timeout=ANSWER_S)
        workers: Mapping[str, Mapping[str, Any]] = identity["workers"]
        return workers

    def check_code(self) -> None:
        """Ask every worker for its code.

        Raises
        ------
        OtherCodeError
            If that of one is not the driver's.
        """
        with self._lost_is_said():
            answers = self.client.sync(
                self.client._run, code, on_error="return", callback_timeout=ANSWER_S
            )
        # Code that is too old to be asked answers with an error.
        said = {at: text if isinstance(text, str) else "" for at, text in answers.items()}
        if others := {at: text for at, text in said.items() if text != code()}:
            raise other_code(others)

    def _not_done(self, error: BaseException) -> RunError:
        """Say why a worker or the scheduler could not even begin with a task."""
        try:
            self.check_code()
        except RunError as err:
            return err
        return RunError(
            f"cluster: scheduler and workers at {self.address} were expected to take up the work, "
            f"got {type(error).__name__}: {str(error)[:500]}. Install this version of labelops on "
            "all of them, the scheduler included, and restart them"
        )

    @contextlib.contextmanager
    def _lost_is_said(self) -> Iterator[None]:
        try:
            yield
        except (CancelledError, TimeoutError, OSError) as err:
            raise self._lost() from err

    def _lost(self) -> RunError:
        return RunError(
            f"cluster: no answer from the scheduler at {self.address}; it has gone, or cannot be "
            f"reached any more. {KEPT}; start the cluster again and give the same command"
        )


async def _collect(future: Any, at: int, done: "queue.SimpleQueue[tuple[int, Any]]") -> None:
    """Hand on what a task left, its answer or its error, as soon as it is here.

    As soon, because it goes with its worker: what has not been fetched is made again.
    """
    try:
        left = await future._result(raiseit=False)
    except (Exception, CancelledError) as err:
        left = err
    # An error comes with its class and its trace.
    done.put((at, left[1] if isinstance(left, tuple) else left))


def _died(killed: Mapping[int, KilledWorker], tasks: Sequence[object]) -> RunError:
    names = "; ".join(describe(tasks[at]) for at in sorted(killed))
    times = max(err.allowed_failures for err in killed.values()) + 1
    return RunError(
        f"cluster: workers were expected to survive their shards, {times} died in a row "
        f"while holding: {names}. Probably they ran out of memory: give them more (fewer "
        "--workers), or write smaller shards; all other shards are done and kept, and the same "
        "command resumes"
    )


def other_code(codes: Mapping[str, str]) -> OtherCodeError:
    """Return the error that says which worker has what."""
    listed = "; ".join(f"{at} has {differences(code(), text)}" for at, text in codes.items())
    return OtherCodeError(
        f"cluster: every worker must have the code of this run, or its numbers may be others; "
        f"{listed}. Install the same on all and restart them; what such a worker has made is not "
        "used"
    )


@contextlib.contextmanager
def open_cluster(
    *, workers: int | None, cluster: str | None, deadline_s: float, connect_s: float
) -> Iterator[ClusterWorkers]:
    """Start a local cluster, or connect to one; see `pipelines.core.graph.open_workers`."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(_silence())
        own = cluster is None
        if cluster is None:
            assert workers is not None
            cluster = stack.enter_context(local_cluster(workers))
        security = _own.get(cluster) or _configured(cluster)
        try:
            client = stack.enter_context(_client(cluster, security, connect_s))
        except (OSError, TimeoutError, ValueError) as err:
            raise RunError(
                f"cluster: a Dask scheduler was expected at {cluster}, none answered within "
                f"{connect_s:.0f} s ({_first_cause(err)}). Start it, correct the address (tls:// "
                "where it speaks TLS, with a certificate that it accepts), or leave --cluster out "
                "to work in this process"
            ) from err
        try:
            client.wait_for_workers(1, timeout=WORKERS_S)
        except (OSError, TimeoutError) as err:
            raise RunError(
                f"cluster: at least one worker was expected at {cluster}, none has joined within "
                f"{WORKERS_S:.0f} s. Start some (dask worker {cluster}), or leave --cluster out "
                "to work in this process"
            ) from err
        pool = ClusterWorkers(client, cluster, deadline_s=deadline_s)
        if not own:
            pool.check_code()
        yield pool


@contextlib.contextmanager
def _client(address: str, security: Security, connect_s: float) -> Iterator[Client]:
    client = Client(address, security=security, set_as_default=False, timeout=connect_s)
    try:
        yield client
    finally:
        # Of a scheduler that has gone nobody waits for a farewell.
        with contextlib.suppress(Exception):
            client.close(timeout=5 if client.status == "running" else 1)


def _configured(address: str) -> Security:
    """Return what Dask's own settings say of certificates, after a look whether they are there."""
    try:
        security = Security()
        tls = security.get_tls_config_for_role("client")
    except (TypeError, ValueError) as err:
        raise RunError(f"cluster: Dask's settings cannot be used ({err}). Correct them") from err
    if not address.startswith("tls://"):
        return security
    variable = "DASK_DISTRIBUTED__COMM__TLS__"
    for what, part in (("ca_file", "CA_FILE"), ("cert", "CLIENT__CERT"), ("key", "CLIENT__KEY")):
        path = tls[what]
        if path is None and what == "key":
            continue  # It may be in the same file as the certificate.
        if path is None or not os.access(path, os.R_OK):
            problem = "nothing is set" if path is None else f"{path} cannot be read"
            raise RunError(
                f"cluster: {address} speaks TLS, for which a certificate of the authority and one "
                f"of this client with its key are needed; {problem} for {variable}{part}. Set "
                f"{variable}CA_FILE, {variable}CLIENT__CERT and {variable}CLIENT__KEY to such files"
            )
    try:
        security.get_connection_args("client")
    except (OSError, ValueError) as err:
        raise RunError(
            f"cluster: certificates and a key in PEM form were expected in {tls['ca_file']}, "
            f"{tls['cert']} and {tls['key'] or tls['cert']}, got {type(err).__name__}: {err}. "
            f"Correct {variable}CA_FILE, {variable}CLIENT__CERT and {variable}CLIENT__KEY"
        ) from err
    return security


def _first_cause(err: BaseException) -> str:
    seen: set[int] = set()
    while err.__cause__ is not None and id(err) not in seen:
        seen.add(id(err))
        err = err.__cause__
    return f"{type(err).__name__}: {err}"[:500]


class _NoPages:
    """Serves no pages for people: nobody looks, and they would be open to all."""

    def start_http_server(self, *args: Any, **kwargs: Any) -> None:
        """Start none."""


class LocalScheduler(_NoPages, Scheduler):
    """A scheduler without pages."""


class LocalWorker(_NoPages, Worker):
    """A worker without pages."""


class _Cluster(SpecCluster):
    """A cluster that is not closed again when the process ends.

    Interrupted while it starts, it cannot be; its processes end with their owner in any case.
    """

    # Dask closes those that it finds in the list of the class above.
    _instances: ClassVar[weakref.WeakSet[SpecCluster]] = weakref.WeakSet()


@contextlib.contextmanager
def local_cluster(n_workers: int) -> Iterator[str]:
    """Run a cluster on this machine for a while; gives its address.

    Raises
    ------
    RunError
        If its processes do not come up.
    """
    security = Security.temporary()
    common = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
    # A worker that died is given up when its successor is not there in time: by default, as soon as
    # on a busy machine it never is.
    patient = dask.config.set({"distributed.deploy.lost-worker-timeout": f"{START_S:.0f} s"})
    with patient, _spill_folder() as folder:
        options = {
            **common,
            "nthreads": 1,
            "memory_limit": 1 / n_workers,
            "local_directory": folder,
            "worker_class": LocalWorker,
            "silence_logs": logging.CRITICAL,
            "death_timeout": START_S,
        }
        try:
            started = _apart(
                lambda: _Cluster(  # type: ignore[no-untyped-call]
                    workers={i: {"cls": Nanny, "options": options} for i in range(n_workers)},
                    scheduler={"cls": LocalScheduler, "options": {**common, "dashboard": False}},
                    security=security,
                    silence_logs=logging.CRITICAL,
                )
            )
        except (RuntimeError, OSError) as err:
            raise RunError(
                f"cluster: {n_workers} worker processes were expected to start within "
                f"{START_S:.0f} s, they did not ({_first_cause(err)}). Run with fewer, or without "
                "--workers"
            ) from err
        address = str(started.scheduler_address)
        _own[address] = security
        patience_s = 10.0
        try:
            yield address
        except (KeyboardInterrupt, SystemExit):
            # Whoever stops a run does not wait for shards at work: they die with this process.
            patience_s = 1.0
            raise
        finally:
            del _own[address]
            with contextlib.suppress(Exception):
                started.close(timeout=patience_s)


def _apart(start: Callable[[], _Cluster]) -> _Cluster:
    """Start a cluster whose threads and processes Ctrl-C does not reach: their owner ends them.

    A signal that is blocked in a thread is blocked in all that it starts. This thread waits, and
    can be interrupted.
    """
    # Started on demand, it would unblock the signal in the thread that starts it. What a run
    # that is stopped leaves it removes, and need not say so after our last word.
    sys.warnoptions.append("ignore:resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.pop()
    done: queue.SimpleQueue[_Cluster | Exception] = queue.SimpleQueue()
    left = threading.Event()

    def work() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            started = start()
            if left.is_set():
                started.close(timeout=10)
            done.put(started)
        except Exception as err:
            done.put(err)

    threading.Thread(target=work, name="labelops-cluster", daemon=True).start()
    try:
        outcome = done.get(timeout=START_S)
    except queue.Empty:
        left.set()
        raise TimeoutError("they are still starting") from None
    except BaseException:
        left.set()
        raise
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


@contextlib.contextmanager
def _spill_folder() -> Iterator[str]:
    """Give workers a folder of our own: in a shared one, others could exchange what is spilled.

    It is locked as long as we live, so that the next one can tell what a killed process has left.
    """
    try:
        folder = tempfile.mkdtemp(prefix=SPILL)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as err:
        raise RunError(
            f"cluster: a folder for temporary files was expected that can be written, got: {err}. "
            "Make room, set TMPDIR to another folder, or run without --workers"
        ) from err
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        for other in glob.glob(f"{glob.escape(tempfile.gettempdir())}/{SPILL}*"):
            if other != folder:
                _sweep(other)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _sweep(folder: str) -> None:
    """Remove a folder whose owner has died."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            status = os.fstat(handle)
            # A new one may not be locked yet.
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > 60:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep Dask's own words from the user for a while: what matters is in our message."""
    # One by one: Dask gives some of them a level and a handler of their own.
    loggers = [
        logger
        for name, logger in logging.root.manager.loggerDict.items()
        if name.split(".")[0] in ("distributed", "tornado", "asyncio")
        and isinstance(logger, logging.Logger)
        and not logger.disabled
    ]
    for logger in loggers:
        logger.disabled = True
    yield
    # Not after an error: what an interrupted cluster says as the process ends is of no use.
    for logger in loggers:
        logger.disabled = False
