"""What is shown while a run is at work."""

import io
from typing import Any

import pytest
from rich.console import Console

from flows import progress
from flows.progress import Bars, Lines, rate, spell, watch
from pipelines.run import Event


def events() -> list[Event]:
    """Return what a driver tells of a small stage."""
    return [
        Event(kind="kept", stage="source", detail="finished before"),
        Event(kind="stage", stage="infer", n_items=300),
        Event(kind="step", stage="infer", step="apply", n_items=300, n_shards=2),
        Event(kind="shard", stage="infer", step="apply", n_items=100, seconds=0.5, detail="a"),
        Event(kind="shard", stage="infer", step="apply", n_items=200, seconds=1.0, detail="b"),
        Event(kind="step", stage="infer", step="count", n_items=300, n_shards=2),
        Event(kind="shard", stage="infer", step="count", n_items=100),
        Event(kind="shard", stage="infer", step="count", n_items=200),
        Event(kind="done", stage="infer", n_items=300, seconds=2.0),
        Event(kind="skipped", stage="neighbours", detail="no embedding"),
    ]


def test_lines__one_a_shard_with_counts_and_rate() -> None:
    lines: list[str] = []
    listen = Lines(lines.append, clock=False)
    for event in events():
        listen(event)
    assert lines[:4] == [
        "source: kept; finished before",
        "infer",
        "infer/apply: a · 100 items · 0.50 s · 200 items/s · 1 of 2 shards",
        "infer/apply: b · 200 items · 1.00 s · 200 items/s · 2 of 2 shards",
    ]
    # Summaries come back in groups of shards: one line when all are there.
    assert lines[4].startswith("infer/count: 300 items · ")
    assert lines[5:] == [
        "infer: done · 2.00 s · 150 items/s",
        "neighbours: skipped; no embedding",
    ]


def test_lines__say_that_a_long_step_is_still_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 100.0, 120.0, 131.0, 131.0, 140.0, 190.5, 190.5, 191.0, 400.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines: list[str] = []
    listen = Lines(lines.append, clock=False)
    listen.beat()
    listen(Event(kind="step", stage="neighbours", step="graph", n_items=9, n_shards=1))
    for _ in range(4):
        listen.beat()
    listen(Event(kind="done", stage="neighbours"))
    listen.beat()
    assert lines == [
        "neighbours/graph: at work for 31 s",
        "neighbours/graph: at work for 1 min 30 s",
        "neighbours: done",
    ]


def test_lines__control_characters_of_the_data_do_not_reach_the_terminal() -> None:
    lines: list[str] = []
    Lines(lines.append, clock=False)(
        Event(kind="shard", stage="infer", step="x", n_items=1, detail="\x1b[31mred\r\n.parquet")
    )
    assert all(character.isprintable() for character in lines[0])
    assert "[31mred" in lines[0]


def test_bars__follow_the_items_and_leave_a_line_for_each_stage() -> None:
    from rich.progress import Progress

    out = io.StringIO()
    with Progress(console=Console(file=out, force_terminal=True, width=100)) as progress:
        listen = Bars(progress)
        completed: list[Any] = []
        for event in events():
            listen(event)
            completed.append([(t.description, t.completed, t.total) for t in progress.tasks])
    assert completed == [
        [],
        [("infer", 0, None)],
        [("infer · apply", 0, 300)],
        [("infer · apply", 100, 300)],
        [("infer · apply", 300, 300)],
        [("infer · count", 0, 300)],
        [("infer · count", 100, 300)],
        [("infer · count", 300, 300)],
        [],
        [],
    ]
    shown = out.getvalue()
    assert "✓ infer: 2.00 s · 150 items/s" in shown
    assert "– neighbours: skipped; no embedding" in shown


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_watch__shows_bars_with_rate_and_time_left_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    with watch(stream) as listen:
        assert isinstance(listen, Bars)
        for event in events()[:4]:
            listen(event)
        listen.progress.refresh()
    assert "infer · apply" in stream.getvalue()
    assert "100/300" in stream.getvalue()


def test_watch__writes_plain_lines_elsewhere() -> None:
    stream = io.StringIO()
    with watch(stream) as listen:
        assert isinstance(listen, Lines)
        for event in events():
            listen(event)
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 7


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (9.994, "9.99 s"),
        (59.4, "59 s"),
        (60, "1 min 0 s"),
        (3599.6, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_spell__uses_the_two_units_that_matter(seconds: float, text: str) -> None:
    assert spell(seconds) == text


@pytest.mark.parametrize(
    ("n", "seconds", "text"),
    [(1000, 0.5, "2,000 items/s"), (3, 2, "1.5 items/s"), (0, 1, ""), (1, 0, "")],
)
def test_rate__is_empty_where_nothing_can_be_said(n: int, seconds: float, text: str) -> None:
    assert rate(n, seconds) == text
