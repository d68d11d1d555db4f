"""Ranks of suspicious items over all shards, part by part of their hashes, in bounded memory."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from labelops.confident import ranks
from pipelines.core.stage import Arrays, C, Context, Reduce, join_summaries
from pipelines.storage.frame import Frame

RANK_ITEMS = 1 << 23
"""Issues of so many items (10 MB where a tenth is flagged) are ranked at a time."""


class Ranked(NamedTuple):
    """What of a shard has a rank.

    Attributes
    ----------
    is_ranked : which items, bool, shape (N,).
    is_later : which of them come after all others, bool, shape (N,).
    score : float32, shape (N,); low comes first.
    p_other : how probable another class is, which decides among scores of zero; shape (N,).
    """

    is_ranked: np.ndarray
    is_later: np.ndarray
    score: np.ndarray
    p_other: np.ndarray | None = None

    def places(self, hashes: np.ndarray, at: np.ndarray) -> np.ndarray:
        """Return the places of some items; hashes are those of all, shape (N,)."""
        p_other = None if self.p_other is None else self.p_other[at]
        return ranks.places(self.score[at], hashes[at], self.is_later[at], p_other)


Rank = Callable[[Frame, Context[C]], Ranked]


def n_parts(ctx: Context) -> int:
    """Return in how many parts items are ranked."""
    return -(-max(ctx.n_items, 1) // RANK_ITEMS)


def rank_steps(reads: Sequence[str], rank: Rank[C], ctx: Context) -> list[Reduce[C]]:
    """Return the steps that collect the places of ranked items; `item_hash` must be readable."""
    return [
        Reduce(
            name=f"rank-{part:02d}",
            reads=reads,
            summarize=partial(_places, part, rank),
            merge=join_summaries,
            finish=sort_places,
        )
        for part in range(n_parts(ctx))
    ]


def _places(part: int, rank: Rank[C], frame: Frame, ctx: Context[C]) -> Arrays:
    """Return the places of a shard's items whose hash falls into a part of all hashes."""
    ranked, hashes = rank(frame, ctx), frame.array("item_hash")
    at = np.flatnonzero(ranked.is_ranked & (ranks.part_of(hashes, n_parts(ctx)) == part))
    places = ranked.places(hashes, at)
    return {name: places[name].copy() for name in ("key", "hash")}


def sort_places(summary: Arrays, ctx: Context) -> Arrays:
    """Sort the issues of a part."""
    places = np.empty(len(summary["key"]), ranks.ISSUE)
    places["key"], places["hash"] = summary["key"], summary["hash"]
    return ranks.know(places)._asdict()


def ranks_of(ranked: Ranked, frame: Frame, ctx: Context) -> np.ndarray:
    """Return the ranks of a shard's ranked items, from 1; 0 for the others."""
    at = np.flatnonzero(ranked.is_ranked)
    own = ranked.places(frame.array("item_hash"), at)
    rank = np.zeros(frame.n, np.int64)
    rank[at] = 1
    for part in range(n_parts(ctx)):
        known = ranks.Known(**ctx.own(f"rank-{part:02d}"))
        rank[at] += ranks.count_before(known, own, part=part, n_parts=n_parts(ctx))
    return rank
