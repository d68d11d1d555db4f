"""Stage `pu`: how many unlabelled items are positive, and which, where some positives are labelled.

Two opinions rank the items, out of sample: the probability of being labelled that stage `infer`
leaves, and a network that learns from positive and unlabelled items on the same embedding. From
their pool follow the class prior (with its interval in ``pu/prior.json``, too) and probabilities.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field
from scipy.special import expit

from labelops.partial.draw import DrawCheck, check_draw
from labelops.partial.metrics import positive_metrics
from labelops.partial.posteriors import (
    PositivePool,
    Posterior,
    believe_positive,
    fit_positive_pool,
    fit_posterior,
    pool_positives,
)
from labelops.partial.prior import METHODS, PriorEstimate, estimate_prior
from labelops.partial.scores import BINS, ScoreCounts, count_scores, score_bins
from labelops.top_belief import all_classes
from pipelines.core.stage import (
    Arrays,
    Beliefs,
    Blocks,
    Context,
    Fit,
    Map,
    Output,
    Reduce,
    Stage,
    Step,
    Tables,
)
from pipelines.errors import DataError
from pipelines.inference.heads import even_blocks
from pipelines.labels.positives import GIVEN, NEGATIVE, POSITIVE, UNLABELLED
from pipelines.storage.arrays import read_array
from pipelines.storage.canonical import Items
from pipelines.storage.frame import Frame, numpy_of
from pipelines.storage.vectors import vectors_of

PRIOR_FILE = "prior.json"


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `pu`."""

    setting: Literal["one-sample", "case-control"] = Field(
        default="one-sample",
        description="one-sample: items were drawn together, and some of the positive ones labelled "
        "afterwards. case-control: labelled and unlabelled items were drawn apart, and the "
        "unlabelled ones are as all items are.",
    )
    prior: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Share of positives among the unlabelled items, where it is known. Absent: it "
        "is estimated.",
    )
    method: Literal["dedpul", "best-bin", "scott", "elkan-noto", "ratio-of-means"] = Field(
        default="dedpul", description="How the share of positives is estimated."
    )
    learn: Literal["vpu", "upu", "nnpu", "dist-pu", "cvir", "tedn", "none"] = Field(
        default="vpu",
        description="By which loss a network learns from positive and unlabelled items, out of "
        "fold, beside the heads of stage infer, with which it is pooled. none: only those count, "
        "as where ready probabilities are all there is.",
    )
    hidden: int = Field(
        default=64, ge=0, le=4096, description="Hidden units of the network; 0: it is linear."
    )
    resamples: int = Field(
        default=200, ge=50, le=10_000, description="Bootstrap resamples for its interval."
    )


LEARN, SCORES = "learn", "scores"

SCORE = "positive_score"
"""Scratch column."""

MOST_ITEMS, MOST_CELLS = 1 << 17, 1 << 24
"""Networks are fitted, and the draw is looked at, on so many items, or items × features."""

BLOCK_ROWS = 8192


def learns(config: Config, columns: frozenset[str]) -> bool:
    """Return whether networks learn from features; ready probabilities have none."""
    return config.learn != "none" and "embedding" in columns


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: learn, look at the draw, count scores, estimate, write probabilities."""
    fields = [
        ("item_id", ctx.types["item_id"]),
        ("p_positive", pa.float32()),
        ("p_positive_low", pa.float32()),
    ]
    features = ["fold", "embedding"] if learns(config, ctx.columns) else []
    scratch = Output(schema=pa.schema([(SCORE, pa.float64())]), ipc=True)
    return [
        Fit(name=LEARN, reads=["item_hash", GIVEN, "pred_probs", *features], fit=learn),
        Map(
            name="score",
            reads=["pred_probs", *features],
            writes={f"{ctx.stage}/_score": scratch},
            apply=score,
        ),
        Reduce(name=SCORES, reads=[GIVEN, SCORE], summarize=count, finish=estimate),
        Map(
            name="write",
            reads=["item_id", GIVEN, SCORE],
            writes={ctx.stage: Output(schema=pa.schema(fields))},
            apply=write,
        ),
    ]


# -- scores ----------------------------------------------------------------------------------------


class Sample(NamedTuple):
    """The first items in canonical order: what is known, said, and seen of them.

    Attributes
    ----------
    state : 1 (labelled positive), 0 (known negative) or −1 (unlabelled), int8, shape (n,).
    said : probability of being labelled, float64, shape (n,).
    fold : shape (n,); 0 without folds.
    features : float32, shape (n, D); of no columns where there are none.
    """

    state: np.ndarray
    said: np.ndarray
    fold: np.ndarray
    features: np.ndarray


def _sample(items: Items) -> Sample:
    has_features = "embedding" in items.schema.names
    width = items.schema.field("embedding").type.list_size if has_features else 0
    rows = items.first(min(MOST_ITEMS, MOST_CELLS // max(width, 1)))
    state = numpy_of(rows.column(GIVEN).chunk(0), GIVEN)
    said = vectors_of(rows.column("pred_probs").chunk(0))[0][:, POSITIVE].astype(np.float64)
    if not has_features:
        return Sample(
            state, said, np.zeros(len(state), np.int8), np.zeros((len(state), 0), np.float32)
        )
    fold = numpy_of(rows.column("fold").chunk(0), "fold")
    return Sample(state, said, fold, vectors_of(rows.column("embedding").chunk(0))[0])


def learn(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Fit networks and how much they count; say whether labels may be a random draw of positives.

    Returns
    -------
    What `DrawCheck` has; and, where networks learned, `weights` and `bias` of the pool of
    stage `infer`'s opinion and theirs, `epoch` and `proxy` AUC.
    """
    config, some = ctx.config, _sample(items)
    known, is_labelled = some.state != NEGATIVE, some.state == POSITIVE
    found = Arrays()
    if learns(config, ctx.columns):
        from labelops.nn.positive_heads import NEEDS_PRIOR, fit_positives, positive_scores

        prior = config.prior
        if prior is None:
            counts = count_scores(some.said[known], is_labelled[known])
            usable = counts.n_labelled and counts.n_unlabelled
            prior = METHODS[config.method](counts) if usable else 0.5
        assert config.learn != "none"
        heads = fit_positives(
            some.features,
            some.state,
            some.fold,
            n_folds=ctx.of("infer").config.folds,
            method=config.learn,
            prior=prior if config.learn in NEEDS_PRIOR else None,
            setting=config.setting,
            hidden=config.hidden,
            seed=ctx.seed("networks"),
        )
        for name, values in heads.networks._asdict().items():
            np.save(os.path.join(out, f"{name}.npy"), values)
        opinions = np.stack([some.said, positive_scores(heads, some.features, some.fold)])
        pool = fit_positive_pool(opinions[:, known], is_labelled[known], prior=prior)
        found = {
            "weights": pool.weights,
            "bias": np.array(pool.bias),
            "epoch": np.array(heads.epoch),
            "proxy": np.array(heads.proxy),
        }
    draw = check_draw(some.features[known], some.said[known], is_labelled[known])
    return {**found, **{name: np.array(value) for name, value in draw._asdict().items()}}


def score(frame: Frame, ctx: Context[Config]) -> Tables:
    """Return a score of each item that ranks positives first, by models that have not seen it."""
    scores = frame.array("pred_probs")[:, POSITIVE].astype(np.float64)
    if learns(ctx.config, ctx.columns):
        from labelops.nn.positive_heads import PositiveHeads, positive_scores
        from labelops.nn.shallow import Networks

        arrays = (read_array(ctx.artifact(LEARN, f"{n}.npy")) for n in Networks._fields)
        heads, found = PositiveHeads(Networks(*arrays), 0, np.nan, np.nan), ctx.own(LEARN)
        pool = PositivePool(found["weights"], float(found["bias"]))
        fold, opinion = frame.array("fold"), np.empty(frame.n)
        for here, embedding in even_blocks(frame, "embedding", BLOCK_ROWS):
            opinion[here] = positive_scores(heads, vectors_of(embedding)[0], fold[here])
        scores = pool_positives(np.stack([scores, opinion]), pool)
    return {f"{ctx.stage}/_score": pa.table({SCORE: scores})}


def draw_of(result: Mapping[str, np.ndarray]) -> DrawCheck:
    """Return what step `learn` found of the draw."""
    names = DrawCheck._fields
    return DrawCheck(*(result[name].item() for name in names))


def count(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Count labelled and unlabelled items by their score; known negatives are neither."""
    given, bins = frame.array(GIVEN), score_bins(frame.array(SCORE))
    return {
        "labelled": np.bincount(bins[given == POSITIVE], minlength=BINS),
        "unlabelled": np.bincount(bins[given == UNLABELLED], minlength=BINS),
    }


def estimate(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Return the class prior, and probabilities by the bin of the score."""
    counts, config = ScoreCounts(summary["labelled"], summary["unlabelled"]), ctx.config
    if not counts.n_labelled or not counts.n_unlabelled:
        kind = "labelled positive" if not counts.n_labelled else "unlabelled"
        raise DataError(
            f"stage {ctx.stage!r}: labelled and unlabelled items were expected, no {kind} one is "
            f"left of {ctx.n_items:,} items: they were quarantined. See quarantine/ for the reasons"
        )
    found = estimate_prior(
        counts, method=config.method, n_resamples=config.resamples, seed=ctx.seed("bootstrap")
    )
    if config.prior is not None:
        found = PriorEstimate(config.prior, config.prior, config.prior, True, "given")
    posterior = fit_posterior(counts, found)
    # The score at which either answer is as probable.
    threshold = float(expit(-posterior.shift / posterior.slope))
    measured = positive_metrics(
        counts,
        found,
        threshold=threshold,
        n_resamples=config.resamples,
        seed=ctx.seed("metrics"),
    )
    is_one_sample = config.setting == "one-sample"
    return {
        **summary,
        "value": np.array(found.value),
        "low": np.array(found.low),
        "high": np.array(found.high),
        "is_irreducible": np.array(found.is_irreducible),
        "method": np.array(found.method),
        "of_all": np.array(found.of_all(counts) if is_one_sample else found.value),
        "posterior": np.array(posterior),
        **{name: np.array(metric) for name, metric in measured._asdict().items()},
    }


def write(frame: Frame, ctx: Context[Config]) -> Mapping[str, pa.Table]:
    """Return the probability of each item to be positive; of those of which it is known, that."""
    posterior = Posterior(*ctx.own(SCORES)["posterior"].tolist())
    belief = believe_positive(posterior, frame.array(SCORE), frame.array(GIVEN))
    columns = {"p_positive": belief.p, "p_positive_low": belief.low}
    said = {name: values.astype(np.float32) for name, values in columns.items()}
    return {ctx.stage: pa.table({"item_id": frame["item_id"], **said})}


def prior_file(ctx: Context[Config]) -> dict[str, bytes]:
    """Return the class prior as JSON, by the name of its file."""
    found = ctx.own(SCORES)
    ends = {
        name: None if np.isnan(found[key]) else round(float(found[key]), 6)
        for name, key in (("estimate", "value"), ("low", "low"), ("high", "high"))
    }
    said = {
        **ends,
        "irreducible": bool(found["is_irreducible"]),
        "method": str(found["method"]),
        "of": "unlabelled items",
        "of_all_items": round(float(found["of_all"]), 6),
        "random_draw_plausible": draw_of(ctx.own(LEARN)).is_plausible,
    }
    return {PRIOR_FILE: (json.dumps(said, indent=2) + "\n").encode()}


def believe(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    """Yield beliefs in the negative and the positive class."""
    p, low = (frame.array(name).astype(np.float64) for name in ("p_positive", "p_positive_low"))
    both = (np.stack([1 - values, values], axis=1) for values in (p, low))
    is_plausible = draw_of(ctx.result(ctx.beliefs_stage, LEARN)).is_plausible
    yield slice(0, frame.n), all_classes(*both)._replace(is_trusted=is_plausible)


STAGE = Stage(
    name="pu",
    version=1,
    doc="estimates how many unlabelled items are positive, and how probably each is",
    config=Config,
    steps=steps,
    reads=lambda config, columns: [
        *("item_id", "item_hash", GIVEN, "pred_probs"),
        *(["fold", "embedding"] if learns(config, columns) else []),
    ],
    writes=lambda config, columns: ["item_id", "p_positive", "p_positive_low"],
    files_at_end=prior_file,
    beliefs=Beliefs(
        kind="positive",
        reads=lambda columns: ["p_positive", "p_positive_low"],
        blocks=believe,
    ),
)
