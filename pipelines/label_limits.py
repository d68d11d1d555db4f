"""What stage `decide_labels` proposes, and how far its limits let it go, over all shards.

Changes compete label by label for a share of all given labels, items compete for the review budget.
The passes here count digits of sort keys (`labelops.cut`); those that are not needed are left out.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.cut import (
    MAX_PASSES,
    Cut,
    count_digits,
    is_taken,
    narrow,
    open_cut,
    pack,
    sure_first,
    unpack,
)
from labelops.decide import Held
from labelops.multilabel.decide import (
    LabelPolicy,
    LabelProposals,
    competing,
    hold,
    is_open,
    item_doubt,
    propose,
    settle,
    with_reviews,
)
from labelops.multilabel.sampling import cell_hash
from pipelines.frame import Frame, numpy_of
from pipelines.stage import Arrays, Context, Reduce

COLUMNS = (
    ("row", pa.int32()),
    ("class_id", pa.int32()),
    ("is_given", pa.bool_()),
    ("is_flagged", pa.bool_()),
    ("p", pa.float32()),
    ("truth", pa.int8()),
)
"""Scratch columns of the cells that something is decided about."""


class DecideCells(NamedTuple):
    """Cells of a shard, by row and class.

    Attributes
    ----------
    row, class_id : int64, shape (M,).
    is_given : whether the class was said to be present.
    is_flagged : whether stage `multilabel` flagged it; others come from reviewers.
    p : probability that it is not as given; 0 without a flag.
    truth : 1, 0 as a reviewer said, −1 where nobody looked.
    """

    row: np.ndarray
    class_id: np.ndarray
    is_given: np.ndarray
    is_flagged: np.ndarray
    p: np.ndarray
    truth: np.ndarray


def cells_folder(ctx: Context) -> str:
    """Return the scratch folder of the cells."""
    return f"{ctx.stage}/_cells"


def policy_of(ctx: Context) -> LabelPolicy:
    """Return the settings as the mathematics takes them."""
    config = ctx.config
    return LabelPolicy(config.add_confidence, config.remove_confidence, config.review_confidence)


def read_cells(frame: Frame, ctx: Context) -> DecideCells:
    """Return the cells of a shard."""
    table = frame.file(cells_folder(ctx)).combine_chunks()
    found = {}
    for name, kind in COLUMNS:
        column = table.column(name)
        found[name] = numpy_of(column.chunk(0) if column.num_chunks else pa.array([], kind), name)
    return DecideCells(
        row=found["row"].astype(np.int64),
        class_id=found["class_id"].astype(np.int64),
        is_given=found["is_given"].astype(bool),
        is_flagged=found["is_flagged"].astype(bool),
        p=found["p"].astype(np.float64),
        truth=found["truth"],
    )


def model_proposals(cells: DecideCells, ctx: Context) -> LabelProposals:
    """Return what was proposed, reviews left aside."""
    return propose(cells.p, cells.is_given, policy=policy_of(ctx))


def cut_steps(ctx: Context) -> Sequence[Reduce]:
    """Return the passes over all shards: the share of changes first, then the budget."""
    reads = ["item_hash", cells_folder(ctx)]
    return [*_passes("limit", _count_limit, reads), *_passes("budget", _count_budget, reads)]


def _passes(
    name: str, summarize: Callable[[int, Frame, Context], Arrays], reads: Sequence[str]
) -> list[Reduce]:
    return [
        Reduce(
            name=f"{name}_{j}",
            reads=reads,
            summarize=partial(summarize, j),
            finish=partial(_narrow, name, j),
            when=partial(_is_needed, name, j),
        )
        for j in range(MAX_PASSES)
    ]


def _cut(ctx: Context, name: str, passes: int) -> Cut:
    """Return the cut as it is after so many passes, or since it became final."""
    if name == "budget":
        cut = open_cut(ctx.config.max_review)
    else:
        n_labels = int(ctx.own("gate")["sizes"].sum())
        cut = open_cut(int(ctx.config.max_change_share * n_labels))
    for j in range(passes):
        if cut.is_final:
            break
        cut = unpack(ctx.own(f"{name}_{j}")["cut"])
    return cut


def _is_needed(name: str, j: int, ctx: Context) -> bool:
    return not _cut(ctx, name, j).is_final


def _narrow(name: str, j: int, summary: Arrays, ctx: Context) -> Arrays:
    return {"cut": pack(narrow(_cut(ctx, name, j), summary["digits"]))}


def _change_keys(frame: Frame, cells: DecideCells, found: LabelProposals) -> np.ndarray:
    hashes = cell_hash(frame.array("item_hash")[cells.row], cells.class_id)
    return sure_first(1 - found.p, hashes)


def _free(cells: DecideCells, ctx: Context) -> tuple[LabelProposals, np.ndarray]:
    """Return what is proposed after reviews, and what gate and class sizes hold back."""
    gate = ctx.own("gate")
    found = with_reviews(model_proposals(cells, ctx), cells.is_given, cells.truth)
    held = hold(found, cells.class_id, shipping=gate["ships"], small=gate["small_classes"])
    return found, held


def _within_share(
    frame: Frame, cells: DecideCells, ctx: Context
) -> tuple[LabelProposals, np.ndarray]:
    found, held = _free(cells, ctx)
    cut = _cut(ctx, "limit", MAX_PASSES)
    held[competing(found, held) & ~is_taken(_change_keys(frame, cells, found), cut)] = (
        Held.MAX_CHANGE
    )
    return found, held


def _item_keys(
    frame: Frame, cells: DecideCells, found: LabelProposals, held: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the keys of all items, and which of them want to be looked at."""
    doubt = item_doubt(cells.row, found.p, is_open(found, held), frame.n)
    return sure_first(doubt, frame.array("item_hash")), np.isfinite(doubt)


def _count_limit(j: int, frame: Frame, ctx: Context) -> Arrays:
    cells = read_cells(frame, ctx)
    found, held = _free(cells, ctx)
    keys = _change_keys(frame, cells, found)[competing(found, held)]
    return {"digits": count_digits(keys, _cut(ctx, "limit", j))}


def _count_budget(j: int, frame: Frame, ctx: Context) -> Arrays:
    cells = read_cells(frame, ctx)
    keys, wanted = _item_keys(frame, cells, *_within_share(frame, cells, ctx))
    return {"digits": count_digits(keys[wanted], _cut(ctx, "budget", j))}


def settled(frame: Frame, ctx: Context) -> tuple[DecideCells, LabelProposals, np.ndarray]:
    """Return a shard's cells, what is done to them within all limits, and why not more."""
    cells = read_cells(frame, ctx)
    found, held = _within_share(frame, cells, ctx)
    keys, wanted = _item_keys(frame, cells, found, held)
    chosen = wanted & is_taken(keys, _cut(ctx, "budget", MAX_PASSES))
    return cells, *settle(found, held, chosen[cells.row])
