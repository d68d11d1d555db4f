"""Which labels teach better, by what twins say of items that neither was taught."""

import numpy as np

from labelops.distill.evidence import Gain, paired_auc_gain, paired_gain
from pipelines.core.stage import Arrays, Context
from pipelines.students.settings import Config
from pipelines.students.targets import GIVEN, PRODUCT

TAUGHT = "taught"
"""Name of the step that counts items that an arm teaches, by fold."""


def can_compare(ctx: Context[Config]) -> bool:
    """Return whether both arms have something to teach whichever fold is held out."""
    taught = ctx.own(TAUGHT)
    folds = slice(0, ctx.config.n_held_out(ctx.n_items))
    return GIVEN in taught and all(
        bool((n.sum() - n[folds] > 0).all()) for n in (taught[GIVEN], taught[PRODUCT])
    )


def judge(summary: Arrays, ctx: Context[Config]) -> Arrays:
    """Compare twins, by the labels as given and by a reference, if there is one.

    Returns
    -------
    `falls_back`; and of the comparisons `as_given` and `as_true`, each `<name>_n`, `_before` (of
    the student of the labels as given), `_after` (of the product), `_gain`, `_low`, `_high`.
    Of positive and unlabelled items `as_given` is about the area under the ROC curve.
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
    taught = ctx.own(TAUGHT)
    has_given, has_product = (arm in taught and taught[arm].any() for arm in (GIVEN, PRODUCT))
    is_better = as_given.low > 0
    falls_back = has_given and not (has_product and (is_better or not ctx.config.fall_back))
    return {
        "falls_back": np.array(bool(falls_back)),
        **_named("as_given", as_given),
        **_named("as_true", as_true),
    }


def _named(name: str, gain: Gain) -> Arrays:
    return {f"{name}_{key}": np.array(value) for key, value in gain._asdict().items()}
