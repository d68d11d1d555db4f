"""What a person watching a run sees: bars in a terminal, one line a shard elsewhere."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from pipelines.run import Event, Listener


BEAT_S = 30.0
"""A line for so many seconds in which nothing was done: some steps are one task."""

READ_STEP_BYTES = 10 << 30
"""A line for so many bytes of the source that were read."""


def spell(seconds: float) -> str:
    """Spell a duration in the two units that matter.

    Examples
    --------
    >>> spell(0.84), spell(72), spell(7300)
    ('0.84 s', '1 min 12 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, left = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {left} s"
    return f"{minutes // 60} h {minutes % 60} min"


def rate(n_items: int, seconds: float) -> str:
    """Spell items per second; empty where nothing can be said."""
    if n_items <= 0 or seconds <= 0:
        return ""
    per_second = n_items / seconds
    return f"{per_second:,.0f} items/s" if per_second >= 10 else f"{per_second:.1f} items/s"


class Lines:
    """One line a shard, and one for whatever else happens; for logs.

    Parameters
    ----------
    write
        Takes a line.
    clock
        Whether lines begin with the time.
    """

    def __init__(self, write: Callable[[str], object], *, clock: bool = True) -> None:
        self.write = write
        self.clock = clock
        self._began = self._last = 0.0
        self._at_work = ""
        self._todo = self._shards = self._done = self._items = self._bytes = 0

    def __call__(self, event: "Event") -> None:
        """Write the event's line, if it has one."""
        where = f"{event.stage}/{event.step}" if event.step else event.stage
        match event.kind:
            case "read":
                self._read(event)
            case "notice":
                self._say(f"{where}: note: {event.detail}")
            case "skipped" | "kept":
                self._say(f"{where}: {event.kind}; {event.detail}")
            case "done":
                self._at_work = ""
                parts = [spell(event.seconds), rate(event.n_items, event.seconds)]
                known = [part for part in parts if part] if event.seconds else []
                self._say(": ".join([where, " · ".join(["done", *known])]))
            case "step":
                self._began = self._last = time.monotonic()
                self._at_work = where
                self._todo, self._shards = event.n_items, event.n_shards
                self._done = self._items = 0
            case "shard":
                self._shard(event, where)
            case _:
                self._say(where)

    def beat(self) -> None:
        """Write that a step is still at work, if nothing was said of it for `BEAT_S` seconds."""
        now = time.monotonic()
        if self._at_work and now - self._last >= BEAT_S:
            self._say(f"{self._at_work}: at work for {spell(now - self._began)}")

    def _read(self, event: "Event") -> None:
        # Nobody waits for what is read in seconds.
        self._bytes += event.n_bytes
        if self._bytes // READ_STEP_BYTES > (self._bytes - event.n_bytes) // READ_STEP_BYTES:
            self._say(f"{event.stage}: {self._bytes / 2**30:,.1f} GiB read and fingerprinted")

    def _shard(self, event: "Event", where: str) -> None:
        self._items += event.n_items
        if event.detail:
            self._done += 1
            parts = [f"{event.n_items:,} items", spell(event.seconds)]
            if speed := rate(event.n_items, event.seconds):
                parts.append(speed)
            parts.append(f"{self._done} of {self._shards} shards")
            self._say(f"{where}: {event.detail} · {' · '.join(parts)}")
        elif self._items >= self._todo:
            # Summaries come back in groups, fits all at once: one line when the step is through.
            taken = time.monotonic() - self._began
            parts = [f"{self._items:,} items", spell(taken), rate(self._items, taken)]
            self._say(f"{where}: {' · '.join(part for part in parts if part)}")

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        # Names come from the data: no control character of theirs reaches a terminal.
        plain = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        self.write(time.strftime("%H:%M:%S ") + plain if self.clock else plain)


class Bars:
    """A bar for the step at work, with rate and time left, and a line for every finished stage.

    Parameters
    ----------
    progress
        A started `rich.progress.Progress`.
    """

    def __init__(self, progress: "Progress") -> None:
        self.progress = progress
        self._bar: TaskID | None = None

    def __call__(self, event: "Event") -> None:
        """Move the bar."""
        if event.kind == "read":
            if self._bar is None:
                self._bar = self.progress.add_task("source · reading", total=None)
        elif event.kind == "step":
            self._clear()
            self._bar = self.progress.add_task(
                f"{event.stage} · {event.step}", total=max(event.n_items, 1)
            )
        elif event.kind == "shard":
            if self._bar is not None:
                self.progress.advance(self._bar, event.n_items)
        else:
            self._clear()
            if event.kind == "stage":
                self._bar = self.progress.add_task(event.stage, total=None)
            else:
                self.progress.console.print(self._line(event), markup=False, highlight=False)

    def _line(self, event: "Event") -> str:
        if event.kind == "notice":
            return f"– {event.stage}: note: {event.detail}"
        if event.kind != "done":
            return f"– {event.stage}: {event.kind}; {event.detail}"
        parts = [spell(event.seconds), rate(event.n_items, event.seconds)]
        said = " · ".join(part for part in parts if part) if event.seconds else ""
        return f"✓ {event.stage}{': ' if said else ''}{said}"

    def _clear(self) -> None:
        if self._bar is not None:
            self.progress.remove_task(self._bar)
            self._bar = None


@contextlib.contextmanager
def _beating(lines: Lines) -> Iterator[Lines]:
    """Let lines say now and then what is still at work."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S / 2):
            lines.beat()

    thread = threading.Thread(target=beat, name="labelops-progress", daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def watch(stream: TextIO | None = None) -> Iterator["Listener"]:
    """Show what a run does; gives the listener to hand to it.

    Parameters
    ----------
    stream
        A terminal gets bars, anything else lines; standard error if none is named.
    """
    stream = stream or sys.stderr
    if not stream.isatty():
        with _beating(Lines(lambda line: print(line, file=stream, flush=True))) as lines:
            yield lines
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Task as Bar
    from rich.text import Text

    class Rate(TextColumn):
        """Items a second."""

        def render(self, task: Bar) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f} items/s" if speed else "")

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(""),
        TimeRemainingColumn(compact=True),
        console=Console(file=stream),
        transient=True,
    ) as progress:
        yield Bars(progress)


def both(first: "Listener", second: "Listener") -> "Listener":
    """Return a listener that tells two."""

    def tell(event: "Event") -> None:
        first(event)
        second(event)

    return tell
