"""Which labels teach better, by what twins say of items that neither was taught."""

import numpy as np

from labelops.distill.evidence import Gain, is_surely_better, paired_auc_gain, paired_gain
from pipelines.core.stage import Arrays, Context
from pipelines.students.settings import Config
from pipelines.students.targets import GIVEN, PRODUCT


def judge(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Compare twins, by the labels as given and by a reference, if there is one.

    Returns
    -------
    `falls_back`; and of the comparisons `as_given` and `as_true`, each `<name>_n`, `_before` (of
    the student of the labels as given), `_after` (of the product), `_gain`, `_low`, `_high`.
    Of positive and unlabelled items `as_given` is about the area
    under the ROC curve.
    """
    order = np.argsort(summary["item_hash"], kind="stable")
    scores = {name: values[order] for name, values in summary.items()}
    if "is_positive" in scores:
        is_positive = scores["is_positive"].astype(bool)
        as_given = paired_auc_gain(scores[GIVEN], scores[PRODUCT], is_positive)
    else:
        as_given = paired_gain(scores[GIVEN], scores[PRODUCT])
    before, after = scores[f"{GIVEN}_true"], scores[f"{PRODUCT}_true"]
    is_known = np.isfinite(before)
    as_true = paired_gain(before[is_known], after[is_known])
    has_given = len(before) > 0 and as_given.n > 0
    falls_back = ctx.config.fall_back and has_given and not is_surely_better(as_given)
    return {
        "falls_back": np.array(falls_back),
        **_named("as_given", as_given),
        **_named("as_true", as_true),
    }


def _named(name: str, gain: Gain) -> Arrays:
    return {f"{name}_{key}": np.array(value) for key, value in gain._asdict().items()}
