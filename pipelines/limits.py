"""How far the limits of stage `decide` let its proposals go, over all shards.

Shares of items and the review budget are limits on all items together. The passes here count digits
of sort keys (`labelops.cut`) until it is known which items are within a limit; passes that are not
needed are left out.
"""

from collections.abc import Callable, Sequence
from functools import partial

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
from labelops.decide import (
    Action,
    Held,
    Proposals,
    competing,
    doubt,
    for_review,
    hold,
    settle,
    with_reviews,
)
from pipelines.frame import Frame
from pipelines.stage import Arrays, Context, Reduce

PROPOSED = (
    ("proposed_action", pa.uint8()),
    ("proposed_rule", pa.uint8()),
    ("proposed_new", pa.int32()),
    ("proposed_p_new", pa.float32()),
    ("proposed_p_given", pa.float32()),
    ("proposed_p_second", pa.float32()),
    ("reviewed_class", pa.int32()),
)
"""Scratch columns that hold what was proposed."""

NARROW = ("item_hash", "given", *(name for name, _ in PROPOSED))
"""All that the limits look at: 34 bytes an item."""

LIMITED = ((Action.RELABEL, Held.MAX_CHANGE), (Action.DROP, Held.MAX_DROP))
"""Actions with a share of their own, in the order of the cuts."""


def model_proposals(frame: Frame) -> Proposals:
    """Return what was proposed for a shard's items, reviews left aside."""
    return Proposals(
        action=frame.array("proposed_action"),
        rule=frame.array("proposed_rule"),
        new=frame.array("proposed_new"),
        p_new=frame.array("proposed_p_new").astype(np.float64),
        p_given=frame.array("proposed_p_given").astype(np.float64),
        p_second=frame.array("proposed_p_second").astype(np.float64),
    )


def cut_steps() -> Sequence[Reduce]:
    """Return the passes over all shards: shares of changes and drops first, then the budget."""
    return [*_passes("limit", _count_limits), *_passes("budget", _count_budget)]


def _passes(name: str, summarize: Callable[[int, Frame, Context], Arrays]) -> list[Reduce]:
    return [
        Reduce(
            name=f"{name}_{j}",
            reads=NARROW,
            summarize=partial(summarize, j),
            finish=partial(_narrow, name, j),
            when=partial(_is_open, name, j),
        )
        for j in range(MAX_PASSES)
    ]


def _cuts(ctx: Context, name: str, passes: int) -> list[Cut]:
    """Return the cuts as they are after so many passes, or since they became final."""
    if name == "budget":
        cuts = [open_cut(ctx.config.max_review)]
    else:
        n = int(ctx.own("gate")["n"])
        shares = (ctx.config.max_change_share, ctx.config.max_drop_share)
        cuts = [open_cut(int(share * n)) for share in shares]
    for j in range(passes):
        if all(cut.is_final for cut in cuts):
            break
        cuts = [unpack(row) for row in ctx.own(f"{name}_{j}")["cuts"]]
    return cuts


def _is_open(name: str, j: int, ctx: Context) -> bool:
    return not all(cut.is_final for cut in _cuts(ctx, name, j))


def _narrow(name: str, j: int, summary: Arrays, ctx: Context) -> Arrays:
    cuts = [
        narrow(cut, counts)
        for cut, counts in zip(_cuts(ctx, name, j), summary["digits"], strict=True)
    ]
    return {"cuts": np.stack([pack(cut) for cut in cuts])}


def _keys(frame: Frame, found: Proposals, action: Action) -> np.ndarray:
    return sure_first(doubt(found, action), frame.array("item_hash"))


def _free(frame: Frame, ctx: Context) -> tuple[Proposals, np.ndarray]:
    """Return what is proposed after reviews, and what gate and class sizes hold back."""
    gate, given = ctx.own("gate"), frame.array("given")
    found = with_reviews(model_proposals(frame), given, frame.array("reviewed_class"))
    return found, hold(found, given, shipping=gate["ships"], small=gate["small_classes"])


def _within_shares(frame: Frame, ctx: Context) -> tuple[Proposals, np.ndarray]:
    found, held = _free(frame, ctx)
    for (action, why), cut in zip(LIMITED, _cuts(ctx, "limit", MAX_PASSES), strict=True):
        over = competing(found, held, action) & ~is_taken(_keys(frame, found, action), cut)
        held[over] = why
    return found, held


def _count_limits(j: int, frame: Frame, ctx: Context) -> Arrays:
    found, held = _free(frame, ctx)
    digits = [
        count_digits(_keys(frame, found, action)[competing(found, held, action)], cut)
        for (action, _), cut in zip(LIMITED, _cuts(ctx, "limit", j), strict=True)
    ]
    return {"digits": np.stack(digits)}


def _count_budget(j: int, frame: Frame, ctx: Context) -> Arrays:
    found, held = _within_shares(frame, ctx)
    keys = _keys(frame, found, Action.REVIEW)[for_review(found, held)]
    [cut] = _cuts(ctx, "budget", j)
    return {"digits": count_digits(keys, cut)[None]}


def settled(frame: Frame, ctx: Context) -> tuple[Proposals, np.ndarray]:
    """Return what is done to a shard's items within all limits, and why not what was proposed."""
    found, held = _within_shares(frame, ctx)
    [budget] = _cuts(ctx, "budget", MAX_PASSES)
    final = settle(found, held, is_taken(_keys(frame, found, Action.REVIEW), budget))
    return final, held
