"""One run at a time in a folder.

The lock saves work; commits that only the first can win keep the result right even without it.
Locally it is ``flock``, which the kernel frees when the holder dies. On an object store it is a
lease with a fencing token.

The lease: holders follow each other in epochs, each an object ``.lock-epochs/000000001``,
``…2``, … that exactly one taker creates, by a conditional write. The holder renews its own object,
and nobody else's; whoever finds it released, or not renewed for too long, may create the next. The
number of the epoch is the fencing token: whoever writes as holder of an epoch looks first whether
there is a later one, and stops if so. So a holder that slept through its lease begins no write when
it wakes; what it had sent before may still arrive, a commit like any other: the first wins.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

from pipelines.errors import LockedError, StorageError
from pipelines.storage.store import GUARDS, LocalStore, ObjectStore, Store

LEASE_S = 60.0
"""A dead holder's lease on an object store blocks others at most so long."""

RENEWALS = 4
"""The lease is renewed so many times in its length."""

CLOCK_STEP_S = 2.0
"""Storages give times in whole seconds, twice rounded."""

FRESH_S = 1.0
"""For so long after a look at the epochs a holder takes itself for the last one."""

FILE, FOLDER = ".lock", ".lock-epochs"


def clock() -> float:
    """Return seconds that also pass while the process, or the machine, sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Hold the run folder.

    Raises
    ------
    LockedError
        If another run holds it; says who. On an object store also from every later write, if
        another run has taken the folder over, or the lease could not be renewed.
    """
    if isinstance(store, ObjectStore):
        yield from _leased(store)
    else:
        assert isinstance(store, LocalStore)
        yield from _flock(store)


def _holder() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _refuse(store: Store, holder: str) -> LockedError:
    return LockedError(
        f"run: the folder must be used by one run at a time; {store.uri} is in use by {holder}. "
        "Wait until that run has ended, or choose another --out"
    )


def _named(holder: bytes) -> str:
    """Name a holder for people, from what it left; what cannot be read is another process."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        process = json.loads(holder)
        return f"process {int(process['pid'])} on {str(process['host'])[:100]}"
    return "another process"


def _flock(store: LocalStore) -> Iterator[None]:
    import fcntl

    handle = store.open_lock(FILE)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            raise _refuse(store, _named(os.read(handle, 4096))) from err
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(_holder()).encode())
        try:
            yield
        finally:
            # Nobody holds it: nothing is left to read, and nothing that could be damaged.
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def epoch_name(epoch: int) -> str:
    """Return the name of an epoch's object."""
    return f"{FOLDER}/{epoch:09d}"


class Fence:
    """Whether an epoch is still the last one; the guard of the folder's store is not asked.

    Attributes
    ----------
    lost : why nothing may be written any more; None while it may.
    """

    def __init__(self, store: ObjectStore, epoch: int) -> None:
        self.store = ObjectStore(store.uri)
        self.store.guard = lambda: None
        self.epoch = epoch
        self.lost: LockedError | None = None
        self._looked = float("-inf")

    def __call__(self) -> None:
        """Stop whoever is not the holder any more.

        Raises
        ------
        LockedError
            Says who took over.
        """
        if self.lost is None and clock() - self._looked > FRESH_S:
            self.look()
        if self.lost is not None:
            raise LockedError(str(self.lost))

    def look(self) -> None:
        """Look for a later epoch."""
        began = clock()
        successor = self.store.read_if_there(epoch_name(self.epoch + 1))
        if successor is None:
            self._looked = began
            return
        self.lost = LockedError(
            f"run: this run was expected to hold {self.store.uri} to its end, {_named(successor)} "
            "took it over: it was not renewed in time, as when a process is stopped, a machine "
            "sleeps or the storage does not answer. This run has stopped and writes nothing more; "
            "finished shards are kept and the other run goes on with them"
        )


class Lease(Fence):
    """An epoch of this process, renewed by a thread."""

    def __init__(self, store: ObjectStore, epoch: int, token: str) -> None:
        super().__init__(store, epoch)
        self.token = token
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="labelops-lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        good, pause = clock(), LEASE_S / RENEWALS
        while not self._stop.wait(pause) and self.lost is None:
            began, pause = clock(), LEASE_S / RENEWALS
            try:
                self.store.write_atomic(epoch_name(self.epoch), claim(self.token))
                self.look()
                good = began
            except (OSError, StorageError) as err:
                if clock() - good >= LEASE_S:
                    self.lost = LockedError(
                        f"run: the lease on {self.store.uri} was expected to be renewed within "
                        f"{LEASE_S:.0f} s, the storage did not let it ({err}). This run has "
                        "stopped; finished shards are kept. Give the same command again when the "
                        "storage answers"
                    )
                pause = min(1.0, LEASE_S / RENEWALS / 4)

    def release(self) -> None:
        """Let the next taker have the folder at once."""
        self._stop.set()
        self._thread.join()
        if self.lost is None:
            # Where this does not succeed, the lease runs out.
            with contextlib.suppress(OSError, StorageError):
                self.store.write_atomic(epoch_name(self.epoch), claim(self.token, released=True))


def claim(token: str, *, released: bool = False) -> bytes:
    """Return what an epoch's object says; the time makes every renewal another object."""
    content = {**_holder(), "token": token, "renewed": time.time(), "released": released}
    return json.dumps(content).encode()


def _leased(store: ObjectStore) -> Iterator[None]:
    lease = take(store)
    store.guard = lease
    GUARDS[store.uri] = lease
    try:
        yield
    finally:
        if GUARDS.get(store.uri) is lease:
            del GUARDS[store.uri]
        store.guard = None
        lease.release()


def take(store: ObjectStore) -> Lease:
    """Begin the next epoch of a folder on an object store.

    Raises
    ------
    LockedError
        If the last one has neither run out nor been released.
    StorageError
        If two could take it: the storage does not know conditional writes.
    """
    token = uuid.uuid4().hex
    epoch = last_epoch(store)
    if epoch:
        _check_over(store, epoch)
    name, content = epoch_name(epoch + 1), claim(token)
    if not store.create_if_absent(name, content):
        raise _refuse(store, _named(store.read_if_there(name) or b""))
    if epoch == 0 and store.create_if_absent(name, claim(uuid.uuid4().hex)):
        raise StorageError(
            f"storage: one that creates a file only where there is none was expected, {store.uri} "
            "replaces what is there, so two runs could not be kept apart. Choose another place "
            "for --out"
        )
    return Lease(store, epoch + 1, token)


def last_epoch(store: ObjectStore) -> int:
    """Return the number of the last epoch that began in a folder; 0 if none has."""
    return max((int(leaf) for leaf in store.list(FOLDER) if leaf.isdecimal()), default=0)


def _check_over(store: ObjectStore, epoch: int) -> None:
    """Stop unless an epoch was released, or has not been renewed for the length of a lease."""
    name = epoch_name(epoch)
    content = store.read_if_there(name) or b""
    with contextlib.suppress(ValueError, AttributeError):
        if json.loads(content).get("released") is True:
            return
    age = _age_s(store, name)
    if age is not None:
        if age < LEASE_S + CLOCK_STEP_S:
            raise _refuse(store, f"{_named(content)}, as of {max(age, 0.0):.0f} s ago")
        return
    # The storage keeps no times, and clocks of two machines are not to be compared: watch.
    began = clock()
    while clock() - began < LEASE_S:
        time.sleep(LEASE_S / RENEWALS / 2)
        if (store.read_if_there(name) or b"") != content:
            raise _refuse(store, _named(content))


def _age_s(store: ObjectStore, name: str) -> float | None:
    """Return how long ago an object was written, by the storage's clock alone."""
    written = store.written_s(name)
    if written is None:
        return None
    probe = f"{FOLDER}/now-{uuid.uuid4().hex}"
    store.create_if_absent(probe, b"")
    now = store.written_s(probe)
    store.remove(probe)
    return None if now is None else now - written


def act_under(store: Store, epoch: int) -> None:
    """Let a worker write in the name of an epoch's holder; 0 is a folder without epochs."""
    if epoch and isinstance(store, ObjectStore):
        held = GUARDS.get(store.uri)
        is_own = isinstance(held, Lease) and held.epoch == epoch
        store.guard = held if is_own else Fence(store, epoch)


def epoch_of(store: Store) -> int:
    """Return the fencing token of a folder that this process holds; 0 without one."""
    held = GUARDS.get(store.uri)
    return held.epoch if isinstance(held, Lease) else 0
