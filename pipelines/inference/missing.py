"""Networks for lists in which present classes were left unsaid, and the log of what they recall.

After every epoch the network of an item's fold, which is not trained on it, says which of the
item's unknown classes are taken for present (`labelops.partial.recall`): ``infer_recalls/``.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from labelops.ragged import spans
from pipelines.core.stage import Arrays, Context, Map, Output, Tables
from pipelines.inference import heads
from pipelines.inference.given import CLASS_SETS
from pipelines.inference.kept import first_items, keep, kept
from pipelines.inference.settings import Config
from pipelines.labels.classes import some as several
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame

NETWORKS = "networks"

RECALLS = {"class_id": pa.int32(), "class_name": pa.string(), "epoch": pa.int16()}
"""Columns of the log between `item_id` and `p_present`; epochs count from 1."""

LOG_ROWS = 1 << 20
"""Written at a time."""


def recalls_folder(stage: str) -> str:
    """Return the folder of the log."""
    return f"{stage}_recalls"


class Log(NamedTuple):
    """Recalled cells of the items that networks were fitted to, item after item.

    Attributes
    ----------
    item_hash : ascending, uint64, shape (n,).
    start : item i has the rows ``start[i]`` to ``start[i + 1]``, by epoch and class; int64.
    class_id, epoch, p : class, epoch from 0, and probability of being present then; shape (M,).
    """

    item_hash: np.ndarray
    start: np.ndarray
    class_id: np.ndarray
    epoch: np.ndarray
    p: np.ndarray


def fit_missing(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Fit networks by the loss of the settings; keep them and their log.

    Returns
    -------
    `n` items they are fitted to, with `n_unknown` cells; `rule` by which cells are recalled;
    `slope` and `shift` of `CellHeads`; by epoch, shape (E,), `recalled` cells, those `first`
    recalled then, and their mean probability `mean_p`; `last`, by class those recalled in the end,
    shape (K,).
    """
    from labelops.multilabel.labels import UNKNOWN
    from labelops.nn import shallow
    from labelops.nn.cell_heads import RULES, fit_cells

    config, k = ctx.config, ctx.n_classes
    # What all networks say of all cells is held, too, and the log: the largest losses are few.
    rule = RULES.get(config.missing_loss, "fixed")
    of_item = k * (config.folds if rule == "largest" else max(config.folds, shallow.EPOCHS))
    n_features = items.schema.field("embedding").type.list_size
    some = first_items(items, shallow.n_items(max(n_features, of_item)), ctx, kind=CLASS_SETS)
    fitted = fit_cells(
        some.features,
        some.given,
        some.fold,
        n_folds=config.folds,
        loss=config.missing_loss,
        hidden=config.missing_hidden,
        expected=config.labels_per_item,
    )
    keep(fitted.networks[0]._asdict(), out)
    row, class_id, p, epoch = fitted.recalls
    order = np.lexsort((class_id, epoch, row))
    start = np.searchsorted(row[order], np.arange(len(some.given) + 1))
    log = Log(some.item_hash, start, class_id[order], epoch[order].astype(np.int16), p[order])
    keep(log._asdict(), out)
    recalled = np.bincount(epoch, minlength=shallow.EPOCHS)
    cells = (row * k + class_id)[order]
    first = np.unique(cells, return_index=True)[1]
    return {
        "n": np.array(len(some.given)),
        "rule": np.array(rule),
        "n_unknown": np.array(np.count_nonzero(some.given == UNKNOWN)),
        "slope": fitted.slope,
        "shift": fitted.shift,
        "recalled": recalled,
        "first": np.bincount(log.epoch[first], minlength=shallow.EPOCHS),
        "mean_p": np.bincount(log.epoch, log.p, minlength=shallow.EPOCHS) / np.maximum(recalled, 1),
        "last": np.bincount(log.class_id[log.epoch == shallow.EPOCHS - 1], minlength=k),
        **_rare(ctx),
    }


def _rare(ctx: Context) -> Arrays:
    """Return sentences on classes given to one item or none, as notices of a result."""
    n_given, said = ctx.result("source", "census")["n_given"], []
    for n, how_many, what in (
        (1, "one", "whether other items have them is told from that one"),
        (0, "no", "nothing is learned of them, and no item is found to have them"),
    ):
        rare = [ctx.classes[c] for c in np.flatnonzero(n_given == n)]
        if rare:
            classes = f"{len(rare):,} of {ctx.n_classes:,} classes have {how_many} given item"
            said.append(f"{classes}: {several(rare)}; {what}.")
    return {"notices": np.array(said, np.str_)} if said else {}


def open_missing(ctx: Context[Config]) -> heads.Said:
    """Return what the fitted networks say."""
    from labelops.nn.cell_heads import CellHeads, predict_cells
    from labelops.nn.shallow import Networks
    from labelops.partial.recall import join_recalls

    found, networks = ctx.own(NETWORKS), kept(NETWORKS, Networks, ctx)
    fitted = CellHeads(
        (ctx.config.missing_loss,), (networks,), found["slope"], found["shift"], join_recalls([])
    )
    return lambda features, fold, hashes: predict_cells(fitted, features, fold)


def recalls_step(ctx: Context[Config]) -> Map[Config]:
    """Return the step that writes the log."""
    item_id = ("item_id", ctx.types["item_id"])
    schema = pa.schema([item_id, *RECALLS.items(), ("p_present", pa.float32())])
    return Map(
        name="recalls",
        reads=["item_id", "item_hash"],
        writes={recalls_folder(ctx.stage): Output(schema=schema, rows="some")},
        apply=write_recalls,
    )


def write_recalls(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Write what was recalled of a shard's items: in their order, by epoch and class."""
    log, names = kept(NETWORKS, Log, ctx), pa.array(ctx.classes, pa.string())
    hashes, ids = frame.array("item_hash"), frame["item_id"]
    at, after = (np.searchsorted(log.item_hash, hashes, side) for side in ("left", "right"))
    row = np.flatnonzero(after > at)
    at = at[row]
    owner, place = spans(log.start[at], log.start[at + 1] - log.start[at])
    for start in range(0, len(place), LOG_ROWS):
        here, mine = (values[start : start + LOG_ROWS] for values in (place, owner))
        class_id = pa.array(log.class_id[here], pa.int32())
        columns = {
            "item_id": ids.take(pa.array(row[mine])),
            "class_id": class_id,
            "class_name": names.take(class_id),
            "epoch": pa.array(log.epoch[here] + 1, pa.int16()),
            "p_present": pa.array(log.p[here], pa.float32()),
        }
        yield {recalls_folder(ctx.stage): pa.table(columns)}
