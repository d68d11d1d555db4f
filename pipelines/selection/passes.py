"""Steps that find cuts: exactly so many elements of each group, over all shards.

What `labelops.confident.selection` says about one set of elements is done here over shards: each
pass is a reduction, and a pass that is no longer needed is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic

import numpy as np

from labelops.confident import selection as sel
from labelops.confident.keys import order_keys
from labelops.confident.selection import Elements, Selection
from pipelines.core.stage import Arrays, C, Context, Reduce, add_summaries, join_summaries
from pipelines.storage.frame import Frame

Count = Callable[[Frame, Context[C], Selection, int], np.ndarray]
"""Counts a shard's open elements by their next digit, of so many bits; see `sel.count`."""

Collect = Callable[[Frame, Context[C], Selection], Elements]
"""Returns a shard's open elements."""


@dataclass(frozen=True, kw_only=True)
class Passes(Generic[C]):
    """Narrowing passes, and a last one that sorts what is left.

    Attributes
    ----------
    name : of the steps: ``<name>-00``, …, ``<name>-last``.
    reads : what they read.
    start : what is known before them.
    count, collect : what a pass does with a shard.
    n_groups, key_bits : groups there can be, and bits of their keys; these bound the passes.
    most : so many open elements are collected instead of counted once more; None for
        `sel.COLLECT`.
    """

    name: str
    reads: Sequence[str]
    start: Callable[[Context[C]], Selection]
    count: Count[C]
    collect: Collect[C]
    n_groups: int
    key_bits: int
    most: int | None = None

    @property
    def _turns(self) -> int:
        return sel.max_passes(self.n_groups, self.key_bits)

    def _is_wide(self, selection: Selection) -> bool:
        return selection.total_open > (sel.COLLECT if self.most is None else self.most)

    def steps(self) -> list[Reduce[C]]:
        """Return the steps."""
        turns = [
            Reduce(
                name=self._turn(turn),
                reads=self.reads,
                summarize=partial(self._count, turn),
                finish=partial(self._narrow, turn),
                when=partial(self._is_needed, turn),
            )
            for turn in range(self._turns)
        ]
        last = Reduce(
            name=f"{self.name}-last",
            reads=self.reads,
            summarize=self._collect,
            merge=join_summaries,
            finish=self._settle,
            when=lambda ctx: self._before(self._turns, ctx).total_open > 0,
        )
        return [*turns, last]

    def finished(self, ctx: Context[C]) -> Selection:
        """Return the finished selection."""
        narrowed = self._before(self._turns, ctx)
        return stored(ctx.own(f"{self.name}-last")) if narrowed.total_open else narrowed

    def _turn(self, turn: int) -> str:
        return f"{self.name}-{turn:02d}"

    def _before(self, turn: int, ctx: Context[C]) -> Selection:
        """Return the selection before a pass, or where narrowing ended earlier."""
        selection = self.start(ctx)
        for earlier in range(turn):
            if not self._is_wide(selection):
                break
            selection = stored(ctx.own(self._turn(earlier)))
        return selection

    def _is_needed(self, turn: int, ctx: Context[C]) -> bool:
        return self._is_wide(self._before(turn, ctx))

    def _count(self, turn: int, frame: Frame, ctx: Context[C]) -> Arrays:
        selection = self._before(turn, ctx)
        return {"counts": self.count(frame, ctx, selection, _bits(selection))}

    def _narrow(self, turn: int, summary: Arrays, ctx: Context[C]) -> Arrays:
        selection = self._before(turn, ctx)
        return sel.narrow(selection, _bits(selection), summary["counts"])._asdict()

    def _collect(self, frame: Frame, ctx: Context[C]) -> Arrays:
        return self.collect(frame, ctx, self._before(self._turns, ctx))._asdict()

    def _settle(self, summary: Arrays, ctx: Context[C]) -> Arrays:
        return sel.settle(self._before(self._turns, ctx), Elements(**summary))._asdict()


def _bits(selection: Selection) -> int:
    return sel.n_bits(len(selection.open_slots))


def stored(result: Mapping[str, np.ndarray]) -> Selection:
    """Return the selection that a result holds."""
    return Selection(**{name: result[name] for name in Selection._fields})


@dataclass(frozen=True, kw_only=True)
class SurestFirst(Generic[C]):
    """The least doubtful of each group, as many as its quota says.

    Attributes
    ----------
    name : of the first step, and of those of `Passes`.
    reads : what they read.
    quotas : how many to take of each group, int64, shape (groups,).
    elements : those of a shard, with keys from `doubt_keys`.
    n_groups : as many.
    at_most : as many elements as there can be; few are collected at once.
    """

    name: str
    reads: Sequence[str]
    quotas: Callable[[Context[C]], np.ndarray]
    elements: Callable[[Frame, Context[C]], Elements]
    n_groups: int
    at_most: Callable[[Context[C]], int]

    def steps(self) -> list[Reduce[C]]:
        """Return the steps."""
        first = Reduce(
            name=self.name,
            reads=self.reads,
            summarize=self._first,
            merge=self._merge,
            finish=self._finish,
            when=lambda ctx: bool(self.quotas(ctx).any()),
        )
        return [first, *self._passes.steps()]

    def is_taken(self, elements: Elements, ctx: Context[C]) -> np.ndarray:
        """Return which elements are within their quota; bool."""
        return sel.is_taken(self._passes.finished(ctx), elements)

    @property
    def _passes(self) -> Passes[C]:
        return Passes(
            name=self.name,
            reads=self.reads,
            start=self._after_first,
            count=lambda frame, ctx, known, bits: sel.count(known, bits, self.elements(frame, ctx)),
            collect=lambda frame, ctx, known: sel.collect(known, self.elements(frame, ctx)),
            n_groups=self.n_groups,
            key_bits=32,
        )

    @property
    def _edges(self) -> np.ndarray:
        return sel.whole_range(np.dtype(np.float32), sel.n_bits(self.n_groups))

    def _start(self, ctx: Context[C]) -> Selection:
        return sel.start(self.quotas(ctx), self._edges)

    def _after_first(self, ctx: Context[C]) -> Selection:
        start = self._start(ctx)
        return stored(ctx.own(self.name)) if len(start.groups) else start

    def _first(self, frame: Frame, ctx: Context[C]) -> Arrays:
        elements = self.elements(frame, ctx)
        if self.at_most(ctx) <= sel.COLLECT:
            return elements._asdict()
        return {"counts": sel.count_first(self._start(ctx), self._edges, elements)}

    @staticmethod
    def _merge(a: Arrays, b: Arrays) -> Arrays:
        return add_summaries(a, b) if "counts" in a else join_summaries(a, b)

    def _finish(self, summary: Arrays, ctx: Context[C]) -> Arrays:
        start, edges = self._start(ctx), self._edges
        if "counts" in summary:
            return sel.narrow_first(start, edges, summary["counts"])[0]._asdict()
        elements = Elements(**summary)
        counts = sel.count_first(start, edges, elements)
        narrowed, _ = sel.narrow_first(start, edges, counts)
        return sel.settle(narrowed, sel.collect(narrowed, elements))._asdict()


def doubt_keys(doubt: np.ndarray) -> np.ndarray:
    """Return keys by which the least doubtful come first, in single precision; NaN comes last."""
    return order_keys(np.nan_to_num(doubt, nan=1.0).astype(np.float32))
