"""Steps of a stage that find cuts: the first so many items of each pair of classes, or class.

The first pass looks at kept rows alone; what follows is `pipelines.selection.passes`.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa

from labelops.confident import selection as sel
from labelops.confident import sparse_joint
from labelops.confident.engines import Pairs, ReadablePairs, pieces_of
from labelops.confident.filters import (
    BY_CLASSES,
    BY_LOWEST,
    BY_PAIRS,
    Settings,
    pairs_of,
    single_elements,
)
from labelops.confident.keys import order_keys
from labelops.confident.selection import Elements, Selection
from labelops.top_rows import Probs, at, largest_of
from pipelines.core.stage import Arrays, Context, Map, Output, Reduce, Step
from pipelines.labels.predictions import dtype_of, is_listed, prediction_blocks, prediction_columns
from pipelines.selection.kept_rows import (
    clear_lead,
    deep_folder,
    row_blocks,
    rows_folder,
    rows_schema,
    rows_table,
)
from pipelines.selection.passes import Passes, stored
from pipelines.selection.pruning import Pruning
from pipelines.storage.frame import Frame


def cut_steps(settings: Settings, ctx: Context) -> list[Step[Pruning]]:
    """Return the steps that find the cuts of a filter.

    They read `given`, `p_given`, `p_other`, `item_hash` and the kept rows, and begin with the
    quotas in the result of step "estimates".
    """
    narrow = ["given", "p_given", "p_other", "item_hash"]
    reads = [*narrow, rows_folder(ctx), deep_folder(ctx)]
    steps: list[Step[Pruning]] = [
        Reduce(name="cuts", reads=reads, summarize=count_first, finish=narrow_first)
    ]
    if settings.filter_by in BY_PAIRS:
        steps += [
            Map(
                name="deep",
                reads=[*prediction_columns(ctx.columns), *narrow],
                writes={deep_folder(ctx): Output(schema=rows_schema(ctx), rows="some", ipc=True)},
                apply=keep_deep,
                when=has_short,
            ),
            Reduce(
                name="cuts-deep",
                reads=reads,
                summarize=count_deep,
                finish=narrow_deep,
                when=has_short,
            ),
        ]
    return [*steps, *_passes(reads, ctx).steps()]


def _passes(reads: Sequence[str], ctx: Context) -> Passes[Pruning]:
    return Passes(
        name="cuts",
        reads=reads,
        start=_after_first,
        count=count_open,
        collect=collect_open,
        n_groups=ctx.n_classes**2,
        key_bits=8 * dtype_of(ctx).itemsize,
    )


# -- what is known after each step -----------------------------------------------------------------


def _first_bits(ctx: Context) -> int:
    return sel.n_bits(len(ctx.own("estimates")["quota_group"]))


def _start(ctx: Context) -> tuple[Selection, np.ndarray, int]:
    """Return what is known at first, edges of the first pass, and in how many bins rows are whole.

    What kept rows are complete up to is one of the edges.
    """
    estimates = ctx.own("estimates")
    lead = order_keys(np.array([clear_lead(ctx.n_classes)], dtype_of(ctx)))
    edges = np.union1d(sel.whole_range(dtype_of(ctx), _first_bits(ctx)), lead)
    selection = sel.start_groups(estimates["quota_group"], estimates["quota"], edges)
    return selection, edges, int(np.searchsorted(edges, lead[0]))


def _start_deep(ctx: Context) -> tuple[Selection, np.ndarray]:
    """Return the same of short pairs alone, over all rows that matter."""
    estimates, short = ctx.own("estimates"), ctx.own("cuts")["is_short"]
    edges = sel.whole_range(dtype_of(ctx), _first_bits(ctx))
    groups, quotas = estimates["quota_group"][short], estimates["quota"][short]
    return sel.start_groups(groups, quotas, edges), edges


def has_short(ctx: Context) -> bool:
    """Say whether the kept rows cannot fill every quota."""
    return bool(ctx.own("cuts")["is_short"].any())


def _after_first(ctx: Context) -> Selection:
    selection = stored(ctx.own("cuts"))
    if has_short(ctx):
        selection = sel.replace(selection, stored(ctx.own("cuts-deep")))
    return selection


# -- elements of a shard ---------------------------------------------------------------------------


def singles(frame: Frame, ctx: Context[Pruning]) -> Elements:
    """Return a shard's elements of classes, or of the lowest scores."""
    return single_elements(
        ctx.config.settings,
        ctx.n_classes,
        frame.array("given"),
        frame.array("p_given"),
        frame.array("p_other"),
        frame.array("item_hash"),
    )


def _by_pairs(ctx: Context[Pruning]) -> bool:
    return ctx.config.filter_by in BY_PAIRS


def _by_single(ctx: Context[Pruning]) -> bool:
    return ctx.config.filter_by in BY_CLASSES | BY_LOWEST


def _pair_cuts(selection: Selection, ctx: Context) -> Pairs:
    if is_listed(ctx) or ctx.n_classes > sparse_joint.DENSE_CLASSES:
        return ReadablePairs(selection, dtype_of(ctx))
    from labelops.fast.confident_pairs import PairCuts

    return PairCuts(selection, n_classes=ctx.n_classes, dtype=dtype_of(ctx))


# -- passes ----------------------------------------------------------------------------------------


def count_first(frame: Frame, ctx: Context[Pruning]) -> Arrays:
    """Count what lies between equally spaced edges; of pairs, only where kept rows are complete."""
    selection, edges, n_bins = _start(ctx)
    counts = np.zeros((len(selection.groups), len(edges) - 1), np.int64)
    n_behind = np.zeros(len(selection.groups), np.int64)
    if _by_pairs(ctx):
        lead = dtype_of(ctx).type(clear_lead(ctx.n_classes))
        blocks = (block for _, block in row_blocks(frame, ctx, deep=False))
        cuts = _pair_cuts(selection, ctx)
        counted = cuts.count_first(blocks, bits=_first_bits(ctx), n_bins=n_bins, below=lead)
        counts[:, :n_bins] += counted[:, :n_bins]
        n_behind += counted[:, n_bins]
    if _by_single(ctx):
        counts += sel.count_first(selection, edges, singles(frame, ctx))
    return {"counts": counts, "n_behind": n_behind}


def narrow_first(summary: Arrays, ctx: Context) -> Arrays:
    """Find the bin of each cut, and the pairs for which the kept rows are too few.

    A pair that they cannot fill takes all of them. Others matter only if an item that could be
    flagged, one in which another class is more probable than the given one, lies behind them.
    """
    start, edges, _ = _start(ctx)
    selection, is_short = sel.narrow_first(start, edges, summary["counts"])
    return selection._asdict() | {"is_short": is_short & (summary["n_behind"] > 0)}


def keep_deep(frame: Frame, ctx: Context) -> Iterator[Mapping[str, pa.Table]]:
    """Keep further rows of classes with a short pair: all that could come before its cut.

    Flags are for items whose given class is not the most probable one. `reach` is the largest
    p_given among those of a class; p_given − p_j ≤ p_given, so beyond it no order matters.
    """
    n_classes, dtype = ctx.n_classes, dtype_of(ctx)
    short = ctx.own("estimates")["quota_group"][ctx.own("cuts")["is_short"]]
    reach = ctx.own("estimates")["reach"].astype(dtype)
    given, hashes = frame.array("given"), frame.array("item_hash")
    p_given, p_other = frame.array("p_given"), frame.array("p_other")
    lead = dtype.type(clear_lead(n_classes))
    has_short_pair = np.zeros(n_classes, bool)
    has_short_pair[short // n_classes] = True
    wanted = has_short_pair[given] & (p_given - p_other >= lead)
    schema = rows_schema(ctx)
    for first, probs in prediction_blocks(frame, ctx):
        chosen = np.flatnonzero(wanted[first : first + len(probs)])
        rows, kept = chosen + first, probs[chosen]
        rival = _rivals(short, kept, given[rows])
        near = np.asarray(p_given[rows] - rival <= reach[given[rows]])
        if near.any():
            table = rows_table(rows[near], given, hashes, kept[near], schema)
            yield {deep_folder(ctx): table}


def _rivals(short: np.ndarray, probs: Probs, given: np.ndarray) -> np.ndarray:
    """Return the largest probability in a short pair of each row; −∞ without one."""
    n_classes = probs.shape[1]
    largest = [np.empty(0, probs.dtype)]
    for piece in pieces_of(short, n_classes, given):
        y = given[piece].astype(np.int64)
        row, group = pairs_of(short, n_classes, y)
        values = at(probs[piece], row, group - y[row] * n_classes)
        largest.append(largest_of(values, np.searchsorted(row, np.arange(len(y) + 1))))
    return np.concatenate(largest)


def count_deep(frame: Frame, ctx: Context) -> Arrays:
    """Count again for short pairs, now over all rows that matter."""
    selection, edges = _start_deep(ctx)
    blocks = (block for _, block in row_blocks(frame, ctx, deep=True))
    bits, n_bins = _first_bits(ctx), len(edges) - 1
    cuts = _pair_cuts(selection, ctx)
    counts = cuts.count_first(blocks, bits=bits, n_bins=n_bins, below=np.inf)
    return {"counts": counts[:, :n_bins]}


def narrow_deep(summary: Arrays, ctx: Context) -> Arrays:
    """Find the bin of each cut that was short; what is still short takes everything."""
    selection, _ = sel.narrow_first(*_start_deep(ctx), summary["counts"])
    return selection._asdict()


def count_open(frame: Frame, ctx: Context[Pruning], selection: Selection, bits: int) -> np.ndarray:
    """Count the open elements by their next digit."""
    counts = np.zeros((len(selection.open_slots), 1 << bits), np.int64)
    if _by_pairs(ctx):
        blocks = (block for _, block in row_blocks(frame, ctx, deep=has_short(ctx)))
        counts += _pair_cuts(selection, ctx).count(blocks, bits=bits)
    if _by_single(ctx):
        counts += sel.count(selection, bits, singles(frame, ctx))
    return counts


def collect_open(frame: Frame, ctx: Context[Pruning], selection: Selection) -> Elements:
    """Return the elements between which the remaining cuts lie."""
    parts = [sel.no_elements()]
    if _by_pairs(ctx):
        blocks = (block for _, block in row_blocks(frame, ctx, deep=has_short(ctx)))
        parts.append(_pair_cuts(selection, ctx).collect(blocks))
    if _by_single(ctx):
        parts.append(sel.collect(selection, singles(frame, ctx)))
    return sel.concatenate(parts)


# -- flags of a shard ------------------------------------------------------------------------------


def taken(frame: Frame, ctx: Context[Pruning]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return which items are taken in any of their pairs, and which in their class (or of all).

    Either is None where the filter does not ask for it.
    """
    in_pair = in_class = None
    if not (_by_pairs(ctx) or _by_single(ctx)):
        return None, None
    selection = _passes((), ctx).finished(ctx)
    if _by_pairs(ctx):
        cuts = _pair_cuts(selection, ctx)
        in_pair = np.zeros(frame.n, bool)
        for row, block in row_blocks(frame, ctx, deep=has_short(ctx)):
            in_pair[row] = cuts.take(*block)
    if _by_single(ctx):
        in_class = sel.is_taken(selection, singles(frame, ctx))
    return in_pair, in_class
