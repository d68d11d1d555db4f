"""Whether the columns of ready probabilities are in the order of the classes."""

from functools import partial

import numpy as np

from labelops.class_order import likelier_order
from pipelines.core.stage import Arrays, Context, Reduce, join_summaries
from pipelines.errors import DataError
from pipelines.inference.calibrate import folder, summarize
from pipelines.labels.classes import NAMED


def order_step(ctx: Context, *, what: str = "columns of pred_probs") -> Reduce:
    """Return the step that looks for a likelier order, on the sample for calibration."""
    return Reduce(
        name="order",
        reads=[folder(ctx)],
        summarize=summarize,
        merge=join_summaries,
        finish=partial(check_order, what=what),
    )


def check_order(summary: Arrays, ctx: Context, *, what: str = "columns of pred_probs") -> Arrays:
    """Refuse probabilities that fit the labels in another order only; say so if it was named.

    Raises
    ------
    DataError
        If nobody said what the order is, and far more labels agree under another one.
    """
    given, predicted = summary["given"], summary["pred_probs"].argmax(axis=1)
    order = likelier_order(given, predicted, ctx.n_classes)
    if order is None:
        return {"notices": np.array([], dtype=np.str_)}
    agreed, better = float(np.mean(predicted == given)), float(np.mean(predicted == order[given]))
    moved = np.flatnonzero(order != np.arange(ctx.n_classes)).tolist()
    places = ", ".join(f"{ctx.classes[k]!r} in column {order[k]}" for k in moved[:NAMED])
    agreement = (
        f"with the {what} in the order of the classes {agreed:.0%} of labels agree "
        f"with the most probable class, in another order {better:.0%}: {places}"
        f"{', …' if len(moved) > NAMED else ''}"
    )
    if ctx.data.classes:
        return {"notices": np.array([agreement], dtype=np.str_)}
    raise DataError(
        f"stage {ctx.stage!r}: {what} in the order of the classes were expected; "
        f"{agreement}. Name the classes in data.classes, in the order of the columns; if so many "
        "labels are indeed wrong, naming the classes lets the run continue"
    )
