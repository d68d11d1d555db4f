"""Where the flagged ones of each group of disagreeing cells end.

What `labelops.multilabel.rules.fit` does on a data set in memory is done here over shards: each
pass is a reduction over listed cells.
"""

from collections.abc import Sequence

from labelops.confident import selection as sel
from labelops.confident.selection import Elements, Selection
from labelops.multilabel.estimates import Estimates
from labelops.multilabel.rules import COLLECT, Rules, elements_of, is_chosen_from, start_cuts
from pipelines.core.stage import Arrays, Context, Reduce
from pipelines.labels.cells import cells_folder, counts_in, read_cells
from pipelines.selection.passes import Passes
from pipelines.selection.pruning import Pruning
from pipelines.storage.frame import Frame


def estimates_in(result: Arrays) -> Estimates:
    """Return the estimates that a result holds."""
    return Estimates(*(result[name] for name in Estimates._fields))


def finished_rules(ctx: Context[Pruning]) -> Rules:
    """Return what flags cells, when all steps of the cuts are done."""
    settings = ctx.config.settings
    cuts = _passes(ctx).finished(ctx) if is_chosen_from(settings) else None
    return Rules(settings, estimates_in(ctx.own("estimates")), cuts)


def cut_steps(ctx: Context[Pruning]) -> Sequence[Reduce[Pruning]]:
    """Return the steps; none where a filter does not choose among cells."""
    return _passes(ctx).steps() if is_chosen_from(ctx.config.settings) else []


def _passes(ctx: Context) -> Passes[Pruning]:
    return Passes(
        name="cuts",
        reads=["item_hash", cells_folder(ctx)],
        start=_start,
        count=lambda frame, ctx, known, bits: sel.count(known, bits, _elements(frame, ctx)),
        collect=lambda frame, ctx, known: sel.collect(known, _elements(frame, ctx)),
        n_groups=2 * ctx.n_classes,
        key_bits=64,
        most=COLLECT,
    )


def _start(ctx: Context[Pruning]) -> Selection:
    result = ctx.own("estimates")
    return start_cuts(ctx.config.settings, estimates_in(result), counts_in(result))


def _elements(frame: Frame, ctx: Context[Pruning]) -> Elements:
    cells, _ = read_cells(frame, ctx)
    return elements_of(ctx.config.settings, cells, frame.array("item_hash"))
