"""How a run is stopped: by Ctrl-C or SIGTERM, and for certain."""

import contextlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pipelines.run import Event, Listener

_asked: list[int] = []
"""Signals that asked this process to stop."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end a run alike: shards at work are finished or dropped, all closed.

    With a handler of ours in place, asyncio leaves the first Ctrl-C to us.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, frame: object) -> NoReturn:
        _asked.append(number)
        _raise(number)

    for number, handler in before.items():
        # Who starts a run in the background may want Ctrl-C to be ignored.
        if number == signal.SIGTERM or handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    _asked.clear()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int) -> NoReturn:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)


def heed(listen: "Listener") -> "Listener":
    """Return a listener that stops a run which goes on although it was asked to stop.

    An exception that a signal raises is lost where code runs that cannot pass it on: a library's
    callback, a finalizer.
    """

    def tell(event: "Event") -> None:
        if _asked:
            _raise(_asked[0])
        listen(event)

    return tell
