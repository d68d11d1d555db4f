"""Stage `pu`: how many unlabelled items are positive, and which, where some positives are labelled.

Reads the out-of-sample probability of being labelled that stage `infer` leaves. The class prior
with its interval is in ``pu/prior.json``, too.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, Field
from scipy.special import expit

from labelops.partial.draw import DrawCheck, check_draw
from labelops.partial.metrics import positive_metrics
from labelops.partial.posteriors import Posterior, believe_positive, fit_posterior
from labelops.partial.prior import PriorEstimate, estimate_prior
from labelops.partial.scores import BINS, ScoreCounts, score_bins
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
)
from pipelines.labels.positives import GIVEN, NEGATIVE, POSITIVE, UNLABELLED
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
    resamples: int = Field(
        default=200, ge=50, le=10_000, description="Bootstrap resamples for its interval."
    )


SCORES, DRAW = "scores", "draw"

DRAW_CELLS = 1 << 24
"""Whether labelled items are a random draw is looked at on so many items × features."""


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: count scores, estimate the prior, write probabilities."""
    fields = [
        ("item_id", ctx.types["item_id"]),
        ("p_positive", pa.float32()),
        ("p_positive_low", pa.float32()),
    ]
    needed = [GIVEN, "pred_probs"]
    features = ["embedding"] if "embedding" in ctx.columns else []
    return [
        Fit(name=DRAW, reads=["item_hash", *needed, *features], fit=look_at_draw),
        Reduce(name=SCORES, reads=needed, summarize=count, finish=estimate),
        Map(
            name="write",
            reads=["item_id", *needed],
            writes={ctx.stage: Output(schema=pa.schema(fields))},
            apply=write,
        ),
    ]


def _scores(frame: Frame) -> np.ndarray:
    return np.asarray(frame.array("pred_probs")[:, POSITIVE].astype(np.float64))


def look_at_draw(items: Items, ctx: Context[Config], out: str) -> Arrays:
    """Return whether the labelled items may be a random draw of all positives, on a sample."""
    has_features = "embedding" in items.schema.names
    width = items.schema.field("embedding").type.list_size if has_features else 0
    wanted, held = DRAW_CELLS // max(width, 1), 0
    given, scores, features = [np.zeros(0, np.int8)], [np.zeros(0)], [np.zeros((0, width))]
    for table in items.tables(8192):
        rows = table.slice(0, wanted - held)
        held += rows.num_rows
        given.append(numpy_of(rows.column(GIVEN).combine_chunks(), GIVEN))
        probs = vectors_of(rows.column("pred_probs").combine_chunks())[0]
        scores.append(probs[:, POSITIVE].astype(np.float64))
        if has_features:
            features.append(vectors_of(rows.column("embedding").combine_chunks())[0])
        if held >= wanted:
            break
    state = np.concatenate(given)
    x = np.concatenate(features) if has_features else np.zeros((len(state), 0))
    known = state != NEGATIVE
    found = check_draw(x[known], np.concatenate(scores)[known], state[known] == POSITIVE)
    return {name: np.array(value) for name, value in found._asdict().items()}


def draw_of(result: Mapping[str, np.ndarray]) -> DrawCheck:
    """Return what step `draw` found."""
    names = DrawCheck._fields
    return DrawCheck(*(result[name].item() for name in names))


def count(frame: Frame, ctx: Context[Config]) -> Arrays:
    """Count labelled and unlabelled items by their score; known negatives are neither."""
    given, bins = frame.array(GIVEN), score_bins(_scores(frame))
    return {
        "labelled": np.bincount(bins[given == POSITIVE], minlength=BINS),
        "unlabelled": np.bincount(bins[given == UNLABELLED], minlength=BINS),
    }


def estimate(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Return the class prior, and probabilities by the bin of the score."""
    counts, config = ScoreCounts(summary["labelled"], summary["unlabelled"]), ctx.config
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
    belief = believe_positive(posterior, _scores(frame), frame.array(GIVEN))
    columns = {"p_positive": belief.p, "p_positive_low": belief.low}
    said = {name: values.astype(np.float32) for name, values in columns.items()}
    return {ctx.stage: pa.table({"item_id": frame["item_id"], **said})}


def prior_file(ctx: Context[Config]) -> bytes:
    """Return the class prior as JSON."""
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
        "random_draw_plausible": draw_of(ctx.own(DRAW)).is_plausible,
    }
    return (json.dumps(said, indent=2) + "\n").encode()


def believe(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    """Yield beliefs in the negative and the positive class."""
    p, low = (frame.array(name).astype(np.float64) for name in ("p_positive", "p_positive_low"))
    both = (np.stack([1 - values, values], axis=1) for values in (p, low))
    is_plausible = draw_of(ctx.result(ctx.beliefs_stage, DRAW)).is_plausible
    yield slice(0, frame.n), all_classes(*both)._replace(is_trusted=is_plausible)


STAGE = Stage(
    name="pu",
    version=1,
    doc="estimates how many unlabelled items are positive, and how probably each is",
    config=Config,
    steps=steps,
    reads=lambda config, columns: ["item_id", GIVEN, "pred_probs"],
    writes=lambda config, columns: ["item_id", "p_positive", "p_positive_low"],
    files_at_end={PRIOR_FILE: prior_file},
    beliefs=Beliefs(
        kind="positive",
        reads=lambda columns: ["p_positive", "p_positive_low"],
        blocks=believe,
    ),
)
