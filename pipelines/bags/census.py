"""Whether the table of bags is that of the data, and what is left of it to learn from."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.proportions.counts import share_spread
from pipelines.bags.settings import Config
from pipelines.bags.table import BagTable, check_once, ids_of, open_table, same_ids, some
from pipelines.core.stage import Arrays, Context
from pipelines.errors import DataError
from pipelines.storage.frame import Frame

# B bags, K classes

CENSUS = "census"
"""Name of the step."""

KEPT_NAMES = 8
"""Bags that the table lacks are named up to so many."""


def table_of(ctx: Context[Config]) -> BagTable:
    """Return the table that the settings name, with ids as the data has them."""
    path = ctx.config.bags
    assert path is not None
    kind = ctx.types["bag_id"]
    table = open_table(path)
    ids = same_ids(table.ids, kind, where=path)
    order = np.argsort(ids, kind="stable")
    check_once(ids[order], path)
    return BagTable(ids[order], table.sizes[order], table.counts[order], table.residual[order])


def class_names(ctx: Context[Config], n_classes: int) -> list[str]:
    """Return the names of the classes that counts are of.

    Raises
    ------
    DataError
        If the data or the recipe name another number of them.
    """
    named = list(ctx.classes or ctx.data.classes)
    if not named:
        return ["negative", "positive"] if n_classes == 2 else [str(k) for k in range(n_classes)]
    if len(named) != n_classes:
        raise DataError(
            f"stage {ctx.stage!r}: counts of the {len(named)} classes ({some(np.array(named))}) "
            f"were expected, got those of {n_classes}; in {ctx.config.bags}. positives is for two "
            "classes, the second of them; counts has one number per class, in their order"
        )
    return named


def bags_of(column: pa.Array, ids: np.ndarray) -> np.ndarray:
    """Return the position of each item's bag among ascending ids; −1 for null, −2 for none of them.

    Examples
    --------
    >>> bags_of(pa.array(["b", None, "x"]), np.array(["a", "b"])).tolist()
    [1, -1, -2]
    """
    kind = pa.string() if ids.dtype.kind == "U" else pa.int64()
    index = pc.index_in(column.cast(kind), value_set=pa.array(ids.tolist(), kind))
    bags = np.asarray(index.fill_null(-2).to_numpy(zero_copy_only=False), np.int64)
    bags[column.is_null().to_numpy(zero_copy_only=False)] = -1
    return bags


def count_bags(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Count a shard's items of each bag."""
    table = table_of(ctx)
    bag = bags_of(frame["bag_id"], table.ids)
    unlisted = frame["bag_id"].filter(pa.array(bag == -2))
    names = np.unique(ids_of(unlisted, where="the data"))[:KEPT_NAMES]
    return {
        "n_in_data": np.bincount(bag[bag >= 0], minlength=len(table.ids)).astype(np.int64),
        "n_without_bag": np.array(int((bag == -1).sum())),
        "n_unlisted": np.array(int((bag == -2).sum())),
        "n_items": np.array(frame.n),
        "unlisted": names,
    }


def merge_counts(a: Arrays, b: Arrays) -> Arrays:
    """Add counts; of bags that the table lacks, keep the first names."""
    merged = {name: a[name] + b[name] for name in a if name != "unlisted"}
    return {**merged, "unlisted": np.union1d(a["unlisted"], b["unlisted"])[:KEPT_NAMES]}


def check_counts(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Compare the table with the data; what is left are bags whose totals can be taken at face.

    Returns
    -------
    `bag_ids`, `sizes`, `counts` (B, K), `residual` of the bags that are used; `classes`; how many
    items are in no bag (`n_without_bag`), in bags that the table lacks (`n_unlisted`); how many
    bags of the table are not in the data (`n_absent`), or have fewer items there than they should,
    but no more than went to quarantine (`n_incomplete`); and of each class's share: `share`,
    `share_std`, `share_by_chance`; `is_constant`.

    Raises
    ------
    DataError
        If the data has other bags, or bags of other sizes.
    """
    table = table_of(ctx)
    names = class_names(ctx, table.n_classes)
    n = summary["n_in_data"]
    _check_listed(summary, ctx)
    is_there = n > 0
    if not is_there.any():
        raise DataError(
            f"bags: bags of the table were expected in the data, got none of them; the table at "
            f"{ctx.config.bags} has {some(table.ids)}. Is it the table of other data?"
        )
    n_quarantined = ctx.n_items - int(summary["n_items"])
    is_absent = _absent(table, is_there, n_quarantined, ctx)
    is_whole = _whole(table, n, is_absent, n_quarantined, ctx)
    counts, sizes = table.counts[is_whole], table.sizes[is_whole]
    n_absent, n_incomplete = int(is_absent.sum()), int((~is_absent & ~is_whole).sum())
    variations = [share_spread(counts[:, k], sizes) for k in range(table.n_classes)]
    spread = {"share": "mean", "share_std": "std", "share_by_chance": "by_chance"}
    return {
        "bag_ids": table.ids[is_whole],
        "sizes": sizes,
        "counts": counts,
        "residual": table.residual[is_whole],
        "classes": np.array(names, dtype=np.str_),
        **{name: summary[name] for name in ("n_items", "n_without_bag", "n_unlisted")},
        "n_absent": np.array(n_absent),
        "n_incomplete": np.array(n_incomplete),
        **{name: np.array([getattr(v, of) for v in variations]) for name, of in spread.items()},
        "is_constant": np.array(all(variation.is_constant for variation in variations)),
        **_notices(summary, n_absent, n_incomplete, ctx),
    }


def _notices(summary: Arrays, n_absent: int, n_incomplete: int, ctx: Context) -> Arrays:
    """Return what of table and data is left out, in sentences."""
    counts = {
        "items are in no bag, so no total constrains them": int(summary["n_without_bag"]),
        f"items are in bags without a row in the table ({some(summary['unlisted'])})": int(
            summary["n_unlisted"]
        ),
        "bags of the table have no item in the data and are ignored": n_absent,
        "bags have items in quarantine and are ignored": n_incomplete,
    }
    notices = [f"{ctx.stage}.bags: {n} {what}" for what, n in counts.items() if n]
    return {"notices": np.array(notices, dtype=np.str_)} if notices else {}


def _check_listed(summary: Arrays, ctx: Context[Config]) -> None:
    if summary["n_unlisted"] and ctx.config.unlisted == "refuse":
        names = summary["unlisted"]
        raise DataError(
            f"bags: the table must have every bag of the data; {int(summary['n_unlisted'])} items "
            f"are in bags that it lacks ({some(names)}); the table is at {ctx.config.bags}. Add "
            "them, or set proportions.unlisted = 'allow' to use these items without a total"
        )


def _absent(
    table: BagTable, is_there: np.ndarray, n_quarantined: int, ctx: Context[Config]
) -> np.ndarray:
    """Return which bags of the table the data never had, as far as that can be told.

    Of a quarantined row nobody may know the bag. So a bag without items has lost them all to
    quarantine if all such bags together can have.
    """
    is_absent = np.asarray(~is_there)
    if table.sizes[is_absent].sum() <= n_quarantined:
        return np.zeros_like(is_absent)
    if ctx.config.unlisted == "refuse":
        absent = table.ids[is_absent]
        raise DataError(
            f"bags: the data must have every bag of the table; {len(absent)} of {len(table.ids)} "
            f"have no item ({some(absent)}); the table is at {ctx.config.bags}. Remove them from "
            "it, or set proportions.unlisted = 'allow'"
        )
    return is_absent


def _whole(
    table: BagTable,
    n: np.ndarray,
    is_absent: np.ndarray,
    n_quarantined: int,
    ctx: Context[Config],
) -> np.ndarray:
    """Return which bags have all their items; others may lack only what went to quarantine."""
    missing = np.where(is_absent, 0, table.sizes - n)
    off = np.flatnonzero(missing < 0)
    if not len(off) and missing.sum() > n_quarantined:
        off = np.flatnonzero(missing)
    if len(off):
        b = int(off[0])
        quarantined = f" ({n_quarantined} items are in quarantine)" if n_quarantined else ""
        raise DataError(
            f"bags: n of the table must be the number of items in the data; bag "
            f"{table.ids[b].item()!r} has n = {table.sizes[b]} and {n[b]} items, and "
            f"{int((missing != 0).sum())} of {len(n)} bags differ{quarantined}; the table is at "
            f"{ctx.config.bags}. Was the data filtered after the table was made?"
        )
    whole = ~is_absent & (missing == 0)
    if not whole.any():
        raise DataError(
            f"bags: a bag with all its items was expected, got {int((n > 0).sum())} of which each "
            "lost some to quarantine. Correct the rows listed there"
        )
    return np.asarray(whole)
