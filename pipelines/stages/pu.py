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

from labelops.partial.posteriors import posteriors
from labelops.partial.prior import PriorEstimate, estimate_prior
from labelops.partial.scores import BINS, ScoreCounts, score_bins
from labelops.top_belief import all_classes
from pipelines.core.stage import Arrays, Beliefs, Blocks, Context, Map, Output, Reduce, Stage, Step
from pipelines.labels.positives import GIVEN, POSITIVE, UNLABELLED
from pipelines.storage.frame import Frame

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


SCORES = "scores"


def steps(config: Config, ctx: Context[Config]) -> Sequence[Step[Config]]:
    """Return the steps: count scores, estimate the prior, write probabilities."""
    fields = [
        ("item_id", ctx.types["item_id"]),
        ("p_positive", pa.float32()),
        ("p_positive_low", pa.float32()),
    ]
    needed = [GIVEN, "pred_probs"]
    return [
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
    value = 0.0 if np.isnan(found.value) else found.value
    return {
        **summary,
        "value": np.array(found.value),
        "low": np.array(found.low),
        "high": np.array(found.high),
        "is_irreducible": np.array(found.is_irreducible),
        "method": np.array(found.method),
        "of_all": np.array(found.of_all(counts)),
        "p": posteriors(counts, share=value),
        "p_low": posteriors(counts, share=min(found.low, value)),
    }


def write(frame: Frame, ctx: Context[Config]) -> Mapping[str, pa.Table]:
    """Return the probability of each item to be positive; of those of which it is known, that."""
    given, found, bins = frame.array(GIVEN), ctx.own(SCORES), score_bins(_scores(frame))
    known = given != UNLABELLED
    columns = {
        name: np.where(known, given == POSITIVE, found[by][bins]).astype(np.float32)
        for name, by in (("p_positive", "p"), ("p_positive_low", "p_low"))
    }
    return {ctx.stage: pa.table({"item_id": frame["item_id"], **columns})}


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
    }
    return (json.dumps(said, indent=2) + "\n").encode()


def believe(frame: Frame, ctx: Context, k: int, certain: np.ndarray) -> Blocks:
    """Yield beliefs in the negative and the positive class."""
    p, low = (frame.array(name).astype(np.float64) for name in ("p_positive", "p_positive_low"))
    both = (np.stack([1 - values, values], axis=1) for values in (p, low))
    yield slice(0, frame.n), all_classes(*both)


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
