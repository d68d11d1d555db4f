"""Stage `confident`: which labels are probably wrong, how many in all, and what is taken for what.

One pass over the probabilities; everything after it reads narrow scratch, and the rows in which the
given class does not clearly lead. Only where the flags depend on other rows (a pair of classes with
a quota that those rows cannot fill) are the probabilities of such classes read a second time.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from labelops.confident import sparse_joint
from labelops.confident import thresholds as conf
from labelops.confident.confusions import rank_confusions
from labelops.confident.estimates import estimate, pack
from labelops.confident.filters import BY_CLASSES, BY_LOWEST, BY_PAIRS, Filter, flag, quotas_of
from labelops.confident.joint import count
from labelops.confident.keys import float_of_keys, order_keys
from labelops.confident.scan import Scan
from labelops.confident.scores import Score, margin_score
from labelops.confident.surest import Cells, add_cells, count_cells, n_wrong, surest
from labelops.confident.top_scan import scan_top, top_scores
from labelops.top_rows import TopRows, no_rows
from pipelines.core.stage import Arrays, Context, Map, Output, Reduce, Stage, Step, Tables
from pipelines.labels.beliefs import OF_PREDICTIONS
from pipelines.labels.classes import odd_classes
from pipelines.labels.predictions import (
    blocks_of,
    dtype_of,
    is_listed,
    prediction_blocks,
    prediction_columns,
)
from pipelines.selection.kept_rows import (
    clear_lead,
    deep_folder,
    rows_folder,
    rows_schema,
    rows_table,
)
from pipelines.selection.pairs import cut_steps, taken
from pipelines.selection.pruning import Pruning
from pipelines.selection.ranking import Ranked, rank_steps, ranks_of
from pipelines.storage.frame import Frame

ENDS = ("", "_low", "_high")
"""An estimate and its interval, as results name them."""

SELECTING = BY_PAIRS | BY_CLASSES | BY_LOWEST

# Ids do not repeat; scores hardly do.
PARQUET = {"use_dictionary": ["given_label", "predicted_label"]}


class Config(Pruning):
    """Settings of stage `confident`; names and defaults are those of cleanlab."""

    filter_by: Filter = Field(
        default="prune_by_noise_rate",
        description="Which items are flagged. prune_by_noise_rate: for each pair of given and true "
        "class, as many as the estimated joint distribution says. prune_by_class: likewise for "
        "each given class. both: those that both of these flag. confident_learning: those that the "
        "confident joint counts in another class. predicted_neq_given: those whose predicted class "
        "differs from the given one. low_normalized_margin, low_self_confidence: those with the "
        "lowest scores, as many as confident_learning flags.",
    )
    score: Score = Field(
        default="self_confidence",
        description="How label_score is computed. self_confidence: probability of the given class. "
        "normalized_margin: its lead over the best other class. confidence_weighted_entropy: low "
        "where the model is unsure and the given class improbable.",
    )
    adjust_pred_probs: bool = Field(
        default=False,
        description="Adjust scores by the model's average confidence in each class, so that items "
        "are not suspicious only because the model is never confident in their class.",
    )

    @model_validator(mode="after")
    def _fits(self) -> "Config":
        if self.adjust_pred_probs and self.score == "confidence_weighted_entropy":
            raise ValueError("adjust_pred_probs is not defined for confidence_weighted_entropy")
        return self


def reads(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns that the stage needs."""
    return ["item_id", "item_hash", "given", *prediction_columns(columns), "p_given"]


def writes(config: Config, columns: frozenset[str]) -> Sequence[str]:
    """Return the columns of its sidecar."""
    return ["item_id", *(name for name, _ in _columns(pa.null()))]


def _columns(label: pa.DataType) -> list[tuple[str, pa.DataType]]:
    return [
        ("given_label", label),
        ("predicted_label", label),
        ("is_label_issue", pa.bool_()),
        ("label_score", pa.float32()),
        ("rank", pa.int64()),
        ("predicted", pa.int32()),
        ("p_predicted", pa.float32()),
    ]


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: thresholds, one look at every row, estimates, cuts, ranks, flags."""
    flagging = ["given", "p_given", "guess", "predicted", "agrees", "p_other", "item_hash"]
    if config.filter_by in BY_PAIRS:
        flagging += [rows_folder(ctx), deep_folder(ctx)]
    if _has_score(config):
        flagging.append("score")
    schema = pa.schema([("item_id", ctx.types["item_id"]), *_columns(ctx.label_type)])
    return [
        Reduce(
            name="thresholds",
            reads=["given", "p_given"],
            summarize=sum_confidence,
            finish=finish_thresholds,
        ),
        Map(
            name="scan",
            reads=[*prediction_columns(ctx.columns), "given", "p_given", "item_hash"],
            writes=_scratch(config, ctx),
            apply=scan_listed if is_listed(ctx) else scan,
        ),
        Reduce(
            name="surest",
            reads=["predicted", "p_predicted", "agrees"],
            summarize=count_surest,
            merge=merge_surest,
            finish=finish_surest,
        ),
        Reduce(
            name="estimates",
            reads=["given", "p_given", "guess", "agrees"],
            summarize=count_joint,
            merge=merge_joint,
            finish=finish_joint,
        ),
        *(cut_steps(config.settings, ctx) if config.filter_by in SELECTING else []),
        *rank_steps(flagging, ranked, ctx),
        Map(
            name="flags",
            reads=[*flagging, "item_id", "p_predicted"],
            writes={ctx.stage: Output(schema=schema, options=PARQUET)},
            apply=write_flags,
        ),
    ]


def _has_score(config: Config) -> bool:
    """Say whether the score needs all of a row, and so is computed when it is read."""
    return config.adjust_pred_probs or config.score == "confidence_weighted_entropy"


def _scratch(config: Config, ctx: Context) -> dict[str, Output]:
    number = pa.from_numpy_dtype(dtype_of(ctx))
    class_type = pa.int16() if ctx.n_classes < 2**15 else pa.int32()
    columns = [
        # What later steps read again and again is put beside it: reading this needs no decoding.
        ("given", pa.int32()),
        ("item_hash", pa.uint64()),
        ("p_given", number),
        ("guess", class_type),
        ("predicted", class_type),
        ("p_predicted", number),
        ("p_other", number),
        ("agrees", pa.bool_()),
    ]
    if _has_score(config):
        columns.append(("score", pa.float32()))
    outputs = {f"{ctx.stage}/_scan": Output(schema=pa.schema(columns), ipc=True)}
    if config.filter_by in BY_PAIRS:
        outputs[rows_folder(ctx)] = Output(schema=rows_schema(ctx), rows="some", ipc=True)
    return outputs


# -- thresholds ------------------------------------------------------------------------------------


def sum_confidence(frame: Frame, ctx: Context) -> Arrays:
    """Sum the probability of the given class, by class."""
    sums = conf.summarize(frame.array("p_given"), frame.array("given"), n_classes=ctx.n_classes)
    return sums._asdict()


def finish_thresholds(summary: Arrays, ctx: Context) -> Arrays:
    """Return the thresholds, the number of items given each class, and how many agree, expected.

    A threshold that is the mean over one item, or over a few that are spelt otherwise, is low by
    accident, and all classes would lose items to it: no item is confidently of such a class.
    """
    thresholds, n_given = conf.finish(conf.SelfConfidence(**summary)), summary["n"]
    odd = odd_classes(n_given, ctx.classes)
    return {
        "thresholds": np.where(odd, conf.ABSENT, thresholds),
        "n_given": n_given,
        "n_agreeing": np.array(float(np.sum(thresholds * n_given))),
    }


# -- one look at every row -------------------------------------------------------------------------


def scan(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Read the probabilities once; leave what is needed of every row, and doubtful rows whole."""
    from labelops.fast import confident as fast

    config, n_classes = ctx.config, ctx.n_classes
    dtype = dtype_of(ctx)
    thresholds = ctx.own("thresholds")["thresholds"]
    bounds = conf.confident_bounds(thresholds, dtype)
    given, hashes = frame.array("given"), frame.array("item_hash")
    whole = fast.empty_scan(frame.n, dtype)
    score = np.empty(frame.n if _has_score(config) else 0, np.float32)
    doubtful = fast.DoubtfulRows(n_classes=n_classes, dtype=dtype)
    schema = rows_schema(ctx)

    def kept(parts: Iterator[tuple[np.ndarray, np.ndarray]]) -> Iterator[Tables]:
        for rows, probs in parts:
            yield {rows_folder(ctx): rows_table(rows, given, hashes, probs, schema)}

    for first, probs in blocks_of(frame, dtype, n_classes):
        rows = slice(first, first + len(probs))
        part = Scan(*(column[rows] for column in whole))
        fast.scan_block(probs, given[rows], bounds, part)
        if _has_score(config):
            adjustment = thresholds if config.adjust_pred_probs else None
            score[rows] = fast.label_scores(
                probs, given[rows], score=config.score, thresholds=adjustment
            )
        if config.filter_by in BY_PAIRS:
            yield from kept(
                doubtful.add(
                    probs, given[rows], part.p_other, reach=clear_lead(n_classes), first_row=first
                )
            )
    if config.filter_by in BY_PAIRS:
        yield from kept(doubtful.rest())
    yield _scanned(frame, ctx, whole, score)


def scan_listed(frame: Frame, ctx: Context[Config]) -> Iterator[Tables]:
    """Do what `scan` does, where only the probable classes of each item are listed."""
    config, thresholds = ctx.config, ctx.own("thresholds")["thresholds"]
    given, hashes, p_given = (frame.array(name) for name in ("given", "item_hash", "p_given"))
    schema, reach = rows_schema(ctx), dtype_of(ctx).type(clear_lead(ctx.n_classes))
    adjustment = thresholds if config.adjust_pred_probs else None
    none = no_rows(ctx.n_classes, dtype_of(ctx))
    parts, scores = [scan_top(none, given[:0], thresholds)], [np.empty(0, np.float32)]
    for first, probs in prediction_blocks(frame, ctx):
        assert isinstance(probs, TopRows)
        rows = slice(first, first + len(probs))
        part = scan_top(probs, given[rows], thresholds)
        parts.append(part)
        if _has_score(config):
            score = top_scores(probs, given[rows], score=config.score, thresholds=adjustment)
            scores.append(score.astype(np.float32))
        if config.filter_by in BY_PAIRS:
            near = np.flatnonzero(p_given[rows] - part.p_other < reach)
            table = rows_table(near + first, given, hashes, probs[near], schema)
            yield {rows_folder(ctx): table}
    whole = Scan(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    yield _scanned(frame, ctx, whole, np.concatenate(scores))


def _scanned(frame: Frame, ctx: Context[Config], scanned: Scan, score: np.ndarray) -> Tables:
    narrow = {name: frame.array(name) for name in ("given", "item_hash", "p_given")}
    columns = narrow | scanned._asdict() | ({"score": score} if _has_score(ctx.config) else {})
    return {f"{ctx.stage}/_scan": pa.table(columns)}


# -- the surest predictions ------------------------------------------------------------------------


def count_surest(frame: Frame, ctx: Context) -> Arrays:
    """Count items by predicted class and confidence."""
    frame.table(["predicted", "p_predicted", "agrees"])
    agrees = frame.array("agrees")
    return count_cells(frame.array("predicted"), frame.array("p_predicted"), agrees)._asdict()


def merge_surest(a: Arrays, b: Arrays) -> Arrays:
    """Add the counts of shards."""
    return add_cells(Cells(**a), Cells(**b))._asdict()


def finish_surest(summary: Arrays, ctx: Context) -> Arrays:
    """Return what the surest predictions say of noise, and so how many labels are wrong."""
    said = surest(Cells(**summary), n_classes=ctx.n_classes)
    wrong = n_wrong(
        said,
        n_items=ctx.n_items,
        n_disagreeing=int(summary["n_other"].sum()),
        doubt=ctx.n_items - float(ctx.own("thresholds")["n_agreeing"]),
    )
    return {name: np.array(value) for name, value in said._asdict().items()} | {
        f"n_wrong{end}": np.array(value) for end, value in zip(ENDS, wrong, strict=True)
    }


# -- estimates -------------------------------------------------------------------------------------


def count_joint(frame: Frame, ctx: Context) -> Arrays:
    """Count items by given class and guess, and those that "confident_learning" flags.

    `reach` is the largest p_given, as an ordered integer, of items whose given class is not the
    most probable one, by class.
    """
    frame.table(["given", "p_given", "guess", "agrees"])
    given, guess, agrees = frame.array("given"), frame.array("guess"), frame.array("agrees")
    reach = np.zeros(ctx.n_classes, np.uint64)
    np.maximum.at(reach, given[~agrees], order_keys(frame.array("p_given")[~agrees]))
    disagreeing = (guess >= 0) & (guess != given) & ~agrees
    return {
        **_counts(given, guess, ctx.n_classes),
        "n_disagreeing": np.array(np.count_nonzero(disagreeing)),
        "reach": reach,
    }


def _counts(given: np.ndarray, guess: np.ndarray, n_classes: int) -> Arrays:
    """Count pairs of classes: all of them, or of many classes those that occur."""
    if n_classes <= sparse_joint.DENSE_CLASSES:
        return {"counts": count(given, guess, n_classes=n_classes)}
    return _packed(sparse_joint.count(given, guess, n_classes=n_classes))


def _packed(pairs: sparse_joint.PairCounts) -> Arrays:
    return {"pair_key": pairs.key, "pair_n": pairs.n}


def _unpacked(arrays: Arrays) -> sparse_joint.PairCounts:
    return sparse_joint.PairCounts(arrays["pair_key"], arrays["pair_n"])


def merge_joint(a: Arrays, b: Arrays) -> Arrays:
    """Add counts; of reaches take the larger."""
    if "counts" in a:
        counts = {"counts": a["counts"] + b["counts"]}
    else:
        counts = _packed(sparse_joint.add(_unpacked(a), _unpacked(b)))
    return {
        **counts,
        "n_disagreeing": a["n_disagreeing"] + b["n_disagreeing"],
        "reach": np.maximum(a["reach"], b["reach"]),
    }


def finish_joint(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Turn counts into estimates, suspected confusions and quotas."""
    n_given = ctx.own("thresholds")["n_given"]
    if "counts" in summary:
        estimates = estimate(summary["counts"], n_given)
    else:
        estimates = estimate(sparse_joint.matrix(_unpacked(summary), ctx.n_classes), n_given)
    confusions = rank_confusions(estimates.calibrated_joint)
    n_disagreeing = int(summary["n_disagreeing"])
    settings = ctx.config.settings
    groups, quotas = quotas_of(settings, estimates.calibrated_joint, n_given, n_disagreeing)
    dtype = dtype_of(ctx)
    reach = np.where(summary["reach"] > 0, float_of_keys(summary["reach"], dtype), -1)
    return pack(estimates) | {
        "thresholds": ctx.own("thresholds")["thresholds"],
        "n_given": n_given,
        **{f"confusion_{name}": value for name, value in confusions._asdict().items()},
        "quota_group": groups,
        "quota": quotas,
        "reach": reach,
    }


# -- flags and ranks -------------------------------------------------------------------------------


def flagged(frame: Frame, ctx: Context[Config]) -> tuple[np.ndarray, np.ndarray]:
    """Return which items of a shard are issues, and the scores of all, in single precision."""
    # All at once: one by one, each would open the file again.
    frame.table(["given", "item_hash", "p_given", "guess", "predicted", "agrees", "p_other"])
    empty = np.empty(0, np.float32)
    seen = Scan(
        guess=frame.array("guess"),
        predicted=frame.array("predicted"),
        p_predicted=empty,
        p_other=empty,
        agrees=frame.array("agrees"),
    )
    in_pair, in_class = taken(frame, ctx)
    is_issue = flag(
        ctx.config.settings, frame.array("given"), seen, taken_pair=in_pair, taken_single=in_class
    )
    if _has_score(ctx.config):
        return is_issue, frame.array("score")
    score = frame.array("p_given")
    if ctx.config.score == "normalized_margin":
        score = margin_score(score, frame.array("p_other"))
    return is_issue, score.astype(np.float32)


def ranked(frame: Frame, ctx: Context[Config]) -> Ranked:
    """Return the flagged items, then all others that the model disagrees with."""
    return _ranked(*flagged(frame, ctx), frame)


def _ranked(is_issue: np.ndarray, score: np.ndarray, frame: Frame) -> Ranked:
    return Ranked(is_issue | ~frame.array("agrees"), ~is_issue, score, frame.array("p_other"))


def write_flags(frame: Frame, ctx: Context[Config]) -> Tables:
    """Write a shard's verdicts."""
    is_issue, score = flagged(frame, ctx)
    order = _ranked(is_issue, score, frame)
    rank = ranks_of(order, frame, ctx)
    predicted = frame.array("predicted")
    columns = [
        frame["item_id"],
        ctx.labels(frame.array("given")),
        ctx.labels(predicted),
        is_issue,
        score,
        pa.array(rank, mask=~order.is_ranked),
        pa.array(predicted, pa.int32()),
        frame.array("p_predicted").astype(np.float32),
    ]
    return {ctx.stage: pa.table(columns, names=writes(ctx.config, ctx.columns))}


STAGE = Stage(
    name="confident",
    version=6,
    doc="finds probable label errors, estimates their number and which classes are confused",
    config=Config,
    steps=steps,
    reads=reads,
    writes=writes,
    beliefs=OF_PREDICTIONS,
)
