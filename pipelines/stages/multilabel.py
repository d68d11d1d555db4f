"""Stage `multilabel`: which classes are probably missing, which of the given ones probably wrong.

Every class is a question of its own. Three passes over the probabilities: sums for thresholds,
counts for joints, and a list of the cells that the model contradicts, from which flags come. How
probable it is that a cell is not as given is learned from a sample of cells; a last pass lists all
those for which that reaches a floor, flagged or not.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from pydantic import Field

from labelops.confident import thresholds as conf
from labelops.confident.filters import Filter
from labelops.multilabel.beliefs import Features, Learned, learn, p_label_error
from labelops.multilabel.candidates import Search, candidates
from labelops.multilabel.cells import Cells as LabelCells
from labelops.multilabel.cells import concatenate
from labelops.multilabel.estimates import estimate, rate_intervals
from labelops.multilabel.rules import is_flagged
from labelops.multilabel.sampling import AGREED, shares_of
from labelops.multilabel.scores import RowScore
from labelops.ragged import owners
from pipelines.core.stage import (
    Arrays,
    Beliefs,
    Cells,
    Context,
    Map,
    Output,
    Reduce,
    Stage,
    Step,
    Tables,
    join_summaries,
)
from pipelines.labels import cells as lc
from pipelines.labels.columns import GIVEN, flat, ids_type, lists_of
from pipelines.labels.lists import given_columns
from pipelines.selection.cells import cut_steps, finished_rules
from pipelines.selection.pruning import Pruning
from pipelines.selection.ranking import Ranked, rank_steps, ranks_of
from pipelines.storage.frame import Frame
from pipelines.storage.vectors import arrays_of


class Config(Pruning):
    """Settings of stage `multilabel`; names and defaults are those of cleanlab."""

    filter_by: Filter = Field(
        default="prune_by_noise_rate",
        description="Which labels are flagged, for each class one-vs-rest. prune_by_noise_rate: as "
        "many missing and wrong ones as the estimated joint distribution says. prune_by_class: "
        "likewise, separately where the class is given and where it is not. both: those that both "
        "of these flag. confident_learning: those that the confident joint counts as the opposite. "
        "predicted_neq_given: those that the model contradicts. low_normalized_margin, "
        "low_self_confidence: those with the lowest scores of each class, as many as "
        "confident_learning flags.",
    )
    score: RowScore = Field(
        default="ema",
        description="How label_score combines the scores of an item's classes. ema: exponential "
        "moving average, in which the lowest weigh most. softmin: mean weighted by a softmin.",
    )
    learn_cells: int = Field(
        default=50_000,
        ge=100,
        description="Corrected probabilities are fitted on about this many pairs of item and "
        "class of each kind: given, contradicted by the model, agreed by both.",
    )
    list_from: float = Field(
        default=0.01,
        ge=0.001,
        le=1.0,
        description="Classes that are missing or wrong with at least this probability are listed, "
        "besides those that are flagged.",
    )


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that the stage needs."""
    return ["item_id", "item_hash", *(given_columns(columns) or [GIVEN]), "pred_probs"]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of its sidecar."""
    return ["item_id", *(name for name, _ in _columns(2))]


KINDS = ("missing", "wrong")
"""What may be the matter with a class that was ruled out, and with a given one."""


def _columns(n_classes: int) -> list[tuple[str, pa.DataType]]:
    lists = [
        column
        for kind in KINDS
        for column in (
            (f"{kind}_ids", ids_type(n_classes)),
            (f"{kind}_names", pa.list_(pa.string())),
            (f"{kind}_probs", pa.list_(pa.float32())),
            (f"is_{kind}", pa.list_(pa.bool_())),
        )
    ]
    return [
        *lists,
        ("is_label_issue", pa.bool_()),
        ("label_score", pa.float32()),
        ("rank", pa.int64()),
    ]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: pairs, thresholds, estimates, one list of cells, cuts, beliefs, flags."""
    given = given_columns(ctx.columns)
    flagging = ["item_hash", lc.cells_folder(ctx), "score"]
    schema = pa.schema([("item_id", ctx.types["item_id"]), *_columns(ctx.n_classes)])
    return [
        Reduce(name="pairs", reads=given, summarize=lc.count_pairs, merge=lc.merge_pairs),
        Reduce(
            name="thresholds",
            reads=[*given, "pred_probs"],
            summarize=lc.sum_states,
            finish=finish_thresholds,
        ),
        Reduce(
            name="estimates",
            reads=[*given, "pred_probs"],
            summarize=lc.count_states,
            finish=finish_estimates,
        ),
        Map(
            name="scan",
            reads=[*given, "pred_probs", "item_hash"],
            writes=lc.scratch(ctx),
            apply=partial(lc.scan, config.score),
        ),
        Reduce(
            name="beliefs",
            reads=[lc.sample_folder(ctx)],
            summarize=lambda frame, ctx: arrays_of(frame.file(lc.sample_folder(ctx))),
            merge=join_summaries,
            finish=learn_beliefs,
        ),
        *cut_steps(ctx),
        *rank_steps(flagging, ranked, ctx),
        Map(
            name="flags",
            reads=["item_id", *flagging, *given, "pred_probs"],
            writes={ctx.stage: Output(schema=schema)},
            apply=write_flags,
        ),
    ]


def finish_thresholds(summary: Arrays, ctx: Context) -> Arrays:
    """Return thresholds and numbers of items by class and given state, shape (K, 2)."""
    return {
        "thresholds": conf.finish(conf.SelfConfidence(**summary)).reshape(-1, 2),
        "n_given": summary["n"].reshape(-1, 2),
    }


def finish_estimates(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Turn counts into estimates of every class, with intervals of the rates.

    Returns
    -------
    `labelops.multilabel.estimates.Estimates` and `labelops.multilabel.cells.Counts`, whose joint is
    `joint_counts`; `missing_rate_low`, `wrong_rate_low` and so on; `shares` of cells drawn.
    """
    known = ctx.own("thresholds")
    estimates = estimate(summary["joint"], known["n_given"], known["thresholds"])
    ends = rate_intervals(summary["joint"])
    n_no, n_yes = (int(n) for n in known["n_given"].sum(axis=0))
    n_contradicted = int(summary["disagreeing"][:, 0].sum())
    shares = shares_of(n_yes, n_contradicted, n_no, wanted=ctx.config.learn_cells)
    return {
        **{name: np.asarray(value) for name, value in estimates._asdict().items()},
        "joint_counts": summary["joint"],
        "disagreeing": summary["disagreeing"],
        "sure": summary["sure"],
        **{
            f"{kind}_rate_{end}": getattr(ends, end)[:, column]
            for column, kind in enumerate(("missing", "wrong"))
            for end in ("low", "high")
        },
        "shares": np.array(shares),
    }


def learn_beliefs(summary: Arrays, ctx: Context) -> Arrays:
    """Learn from the sample what to believe of every cell.

    Returns
    -------
    Arrays of `labelops.multilabel.beliefs.Learned`: `missing` is the share of present classes that
    were not given, `wrong` that of given ones that are not present; `n_missing` and `n_wrong`, how
    many those are, at least and at most, shape (3,); and `n_cells` by kind.
    """
    order = np.lexsort((summary["class_id"], summary["key"]))
    cells = {name: column[order] for name, column in summary.items()}
    counted = ctx.own("estimates")
    n_no, n_yes = counted["n_given"].sum(axis=0)
    n_contradicted = counted["disagreeing"][:, 0].sum()
    total = np.array([n_yes, n_contradicted, n_no - n_contradicted])
    drawn = np.bincount(cells["kind"], minlength=AGREED + 1)
    weight = (total / np.maximum(drawn, 1))[cells["kind"]]
    features = Features(
        cells["class_id"].astype(np.int64),
        cells["is_given"].astype(bool),
        cells["log_odds"],
        cells["evidence"],
    )
    odds = counted["n_given"][:, 1] / np.maximum(counted["n_given"][:, 0], 1)
    learned = learn(features, weight, odds)
    missing, wrong = learned.error_counts(int(n_yes))
    return {
        **learned.arrays(),
        "n_missing": np.array(missing),
        "n_wrong": np.array(wrong),
        "n_cells": drawn.astype(np.int64),
    }


def flagged(frame: Frame, ctx: Context[Config]) -> tuple[np.ndarray, np.ndarray]:
    """Return which items of a shard have a flagged cell, and the scores of all."""
    is_issue = np.zeros(frame.n, bool)
    is_issue[_flagged_cells(frame, ctx)[0].row] = True
    return is_issue, frame.array("score")


def ranked(frame: Frame, ctx: Context[Config]) -> Ranked:
    """Return the flagged items, which have a rank."""
    return _ranked(*flagged(frame, ctx))


def _ranked(is_issue: np.ndarray, score: np.ndarray) -> Ranked:
    return Ranked(is_issue, np.zeros(len(is_issue), bool), score)


def _flagged_cells(frame: Frame, ctx: Context[Config]) -> tuple[LabelCells, Features]:
    cells, features = lc.read_cells(frame, ctx)
    chosen = np.flatnonzero(is_flagged(finished_rules(ctx), cells, frame.array("item_hash")))
    return cells.choose(chosen), Features(*(column[chosen] for column in features))


def _listed(frame: Frame, ctx: Context[Config]) -> tuple[LabelCells, np.ndarray, np.ndarray]:
    """Return all cells to list: those flagged come first, how probable an error is, and which are.

    A flagged cell is listed however improbable.
    """
    learned = Learned.of(ctx.own("beliefs"))
    flagged, features = _flagged_cells(frame, ctx)
    search = Search.of(learned, lc.unpack_pairs(ctx.own("pairs")), floor=ctx.config.list_from)
    parts, p = [flagged], [p_label_error(features, learned)]
    known = flagged.row * ctx.n_classes + flagged.class_id
    for first, probs, labels in lc.prob_blocks(frame, ctx):
        cells, mine = candidates(probs, labels, search)
        cells = cells._replace(row=cells.row + first)
        is_new = ~np.isin(cells.row * ctx.n_classes + cells.class_id, known)
        parts.append(cells.choose(is_new))
        p.append(mine[is_new])
    cells = concatenate(parts)
    return cells, np.concatenate(p), np.arange(len(cells.row)) < len(flagged.row)


def write_flags(frame: Frame, ctx: Context[Config]) -> Tables:
    """Write a shard's verdicts."""
    is_issue, score = flagged(frame, ctx)
    cells, believed, is_flagged = _listed(frame, ctx)
    believed, names = believed.astype(np.float32), pa.array(ctx.classes, pa.string())
    arrays: list[pa.Array] = [frame["item_id"]]
    for kind in (~cells.is_given, cells.is_given):
        row, class_id, p = cells.row[kind], cells.class_id[kind], believed[kind]
        order = np.lexsort((class_id, -p, row))
        start = np.searchsorted(row[order], np.arange(frame.n + 1))
        ids = class_id[order].astype(ids_type(ctx.n_classes).value_type.to_pandas_dtype())
        columns = ids, names.take(ids), p[order], is_flagged[kind][order]
        arrays += [lists_of(values, start) for values in columns]
    rank = ranks_of(_ranked(is_issue, score), frame, ctx)
    arrays += [pa.array(is_issue), pa.array(score), pa.array(rank, mask=~is_issue)]
    return {ctx.stage: pa.table(arrays, names=writes(ctx.config, ctx.columns))}


def flagged_cells(frame: Frame, ctx: Context) -> Cells:
    """Return what is believed of flagged cells, by item and class."""
    parts = []
    for is_given, kind in enumerate(KINDS):
        (ids, start), (scores, _), (flags, _) = (
            flat(frame[name]) for name in (f"{kind}_ids", f"{kind}_probs", f"is_{kind}")
        )
        mine = np.flatnonzero(flags.to_numpy(zero_copy_only=False))
        class_id = ids.to_numpy(zero_copy_only=False)[mine].astype(np.int64)
        p = scores.to_numpy(zero_copy_only=False)[mine].astype(np.float64)
        given = np.full(len(class_id), bool(is_given))
        parts.append((owners(start)[mine], class_id, given, p, np.zeros(len(class_id), np.int64)))
    cells = Cells(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    order = np.lexsort((cells.class_id, cells.row))
    return Cells(*(column[order] for column in cells))


STAGE = Stage(
    name="multilabel",
    version=4,
    doc="finds probably missing and probably wrong labels of each item, and estimates their number",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    beliefs=Beliefs(
        kind="classes",
        reads=lambda columns: [
            name for kind in KINDS for name in (f"{kind}_ids", f"{kind}_probs", f"is_{kind}")
        ],
        cells=flagged_cells,
    ),
)
