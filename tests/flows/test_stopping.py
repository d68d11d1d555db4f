"""Who asks a run to stop is heard, also where the exception of the signal is lost on its way."""

import contextlib
import signal
import subprocess
import sys

import pytest

from flows.stopping import heed, stoppable
from pipelines.run import Event
from tests.flows.conftest import ROOT


@pytest.mark.parametrize(
    ("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_signal__stops_at_once_and_again_where_that_was_lost(
    number: signal.Signals, kind: type[BaseException]
) -> None:
    heard: list[Event] = []
    tell = heed(heard.append)
    with stoppable():
        tell(Event(kind="stage", stage="a"))
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            # As a library's callback, or a finalizer, does.
            signal.raise_signal(number)
            raise AssertionError("goes on")
        with pytest.raises(kind):
            tell(Event(kind="stage", stage="b"))
    assert [event.stage for event in heard] == ["a"]
    with stoppable():
        tell(Event(kind="stage", stage="c"))
    assert [event.stage for event in heard] == ["a", "c"]


def test_handlers__are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stoppable():
        assert signal.getsignal(signal.SIGINT) not in before
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_interrupt_within_asyncio__stops_at_once() -> None:
    script = (
        "import asyncio, contextlib, signal\n"
        "from flows.stopping import stoppable\n"
        "async def swallow():\n"
        "    with contextlib.suppress(asyncio.CancelledError):\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        await asyncio.sleep(1)\n"
        "    print('went on')\n"
        "with stoppable():\n"
        "    asyncio.run(swallow())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "KeyboardInterrupt" in done.stderr
    assert "went on" not in done.stdout


def test_interrupt_that_the_caller_ignores__stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
