"""Steps that find where the flagged ones of each group of disagreeing cells end.

What `labelops.multilabel.rules.fit` does on a data set in memory is done here over shards: each
pass is a reduction over listed cells, and a pass that is not needed is left out.
"""

from collections.abc import Callable

import numpy as np

from labelops.confident import selection as sel
from labelops.confident.filters import Settings
from labelops.confident.selection import Elements, Selection
from labelops.multilabel.estimates import Estimates
from labelops.multilabel.rules import (
    COLLECT,
    Rules,
    cut_bits,
    elements_of,
    is_chosen_from,
    max_passes,
    start_cuts,
)
from pipelines.frame import Frame
from pipelines.label_cells import cells_folder, counts_in, read_cells
from pipelines.stage import Arrays, Context, Reduce


def estimates_in(result: Arrays) -> Estimates:
    """Return the estimates that a result holds."""
    return Estimates(*(result[name] for name in Estimates._fields))


def found_rules(ctx: Context) -> Rules:
    """Return what flags cells, when all steps of the cuts are done."""
    settings: Settings = ctx.config.settings
    cuts = _found(ctx) if is_chosen_from(settings) else None
    return Rules(settings, estimates_in(ctx.own("estimates")), cuts)


def cut_steps(ctx: Context) -> list[Reduce]:
    """Return the steps; none where a filter does not choose among cells."""
    settings: Settings = ctx.config.settings
    if not is_chosen_from(settings):
        return []
    reads = ["item_hash", cells_folder(ctx)]
    turns = [
        Reduce(
            name=f"cuts-{turn:02d}",
            reads=reads,
            summarize=_summarize_turn(turn),
            finish=_finish_turn(turn),
            when=_is_turn(turn),
        )
        for turn in range(max_passes(ctx.n_classes))
    ]
    last = Reduce(
        name="cuts-last",
        reads=reads,
        summarize=_collect,
        merge=_merge,
        finish=_settle,
        when=lambda ctx: _narrowed(ctx).total_open > 0,
    )
    return [*turns, last]


def _start(ctx: Context) -> Selection:
    result = ctx.own("estimates")
    return start_cuts(ctx.config.settings, estimates_in(result), counts_in(result))


def _before(ctx: Context, turn: int) -> Selection:
    """Return the selection before a narrowing pass, or where narrowing ended earlier."""
    selection = _start(ctx)
    for earlier in range(turn):
        if selection.total_open <= COLLECT:
            break
        found = ctx.own(f"cuts-{earlier:02d}")
        selection = Selection(**{name: found[name] for name in Selection._fields})
    return selection


def _narrowed(ctx: Context) -> Selection:
    return _before(ctx, max_passes(ctx.n_classes))


def _found(ctx: Context) -> Selection:
    selection = _narrowed(ctx)
    if not selection.total_open:
        return selection
    found = ctx.own("cuts-last")
    return Selection(**{name: found[name] for name in Selection._fields})


def _elements(frame: Frame, ctx: Context) -> Elements:
    cells, _ = read_cells(frame, ctx)
    return elements_of(ctx.config.settings, cells, frame.array("item_hash"))


def _summarize_turn(turn: int) -> Callable[[Frame, Context], Arrays]:
    def count_turn(frame: Frame, ctx: Context) -> Arrays:
        selection = _before(ctx, turn)
        return {"counts": sel.count(selection, cut_bits(selection), _elements(frame, ctx))}

    return count_turn


def _finish_turn(turn: int) -> Callable[[Arrays, Context], Arrays]:
    def narrow_turn(summary: Arrays, ctx: Context) -> Arrays:
        selection = _before(ctx, turn)
        return sel.narrow(selection, cut_bits(selection), summary["counts"])._asdict()

    return narrow_turn


def _is_turn(turn: int) -> Callable[[Context], bool]:
    def is_needed(ctx: Context) -> bool:
        return _before(ctx, turn).total_open > COLLECT

    return is_needed


def _collect(frame: Frame, ctx: Context) -> Arrays:
    return sel.collect(_narrowed(ctx), _elements(frame, ctx))._asdict()


def _merge(a: Arrays, b: Arrays) -> Arrays:
    return {name: np.concatenate([a[name], b[name]]) for name in a}


def _settle(summary: Arrays, ctx: Context) -> Arrays:
    return sel.settle(_narrowed(ctx), Elements(**summary))._asdict()
