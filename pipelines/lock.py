"""One run at a time in a folder.

The lock saves work; commits that only the first can win keep the result right even without it.
Locally it is ``flock``, which the kernel frees when the holder dies. On an object store it is a
lease: an object with a token and an end, renewed by the holder, taken over once it has run out.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from pipelines.errors import LockedError
from pipelines.store import LocalStore, Store

LEASE_S = 60.0
"""A dead holder's lease on an object store blocks others at most so long."""


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """Hold the run folder.

    Raises
    ------
    LockedError
        If another run holds it; says who.
    """
    if isinstance(store, LocalStore):
        yield from _flock(store)
    else:
        yield from _lease(store)


def _holder() -> dict[str, object]:
    return {"pid": os.getpid(), "host": socket.gethostname()}


def _refuse(store: Store, holder: object) -> LockedError:
    return LockedError(
        f"run: the folder must be used by one run at a time; {store.uri} is in use by {holder}. "
        "Wait until that run has ended, or choose another --out"
    )


def _flock(store: LocalStore) -> Iterator[None]:
    import fcntl

    handle = store.open_lock(".lock")
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            holder = os.read(handle, 4096).decode(errors="replace").strip() or "another process"
            raise _refuse(store, holder) from err
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(_holder()).encode())
        try:
            yield
        finally:
            # Nobody holds it: nothing is left to read, and nothing that could be damaged.
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def _lease(store: Store) -> Iterator[None]:
    token = uuid.uuid4().hex

    def claim() -> bytes:
        return json.dumps({**_holder(), "token": token, "until": time.time() + LEASE_S}).encode()

    if not store.create_if_absent(".lock", claim()):
        held = json.loads(store.read_bytes(".lock"))
        if held["until"] > time.time():
            raise _refuse(store, {key: held[key] for key in ("pid", "host")})
        store.remove(".lock")
        if not store.create_if_absent(".lock", claim()):
            raise _refuse(store, "another process that took over")
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(LEASE_S / 3):
            store.write_atomic(".lock", claim())

    thread = threading.Thread(target=renew, name="labelops-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        with contextlib.suppress(OSError, ValueError):
            if json.loads(store.read_bytes(".lock"))["token"] == token:
                store.remove(".lock")
