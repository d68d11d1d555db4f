"""How right labels and predictions are, on items whose classes people settled."""

import numpy as np

from pipelines.core.stage import Context
from pipelines.report.limits import Limits
from pipelines.report.model import Row, Section, Table
from pipelines.report.text import decimal, plural

OF = (
    ("given", "labels as given"),
    ("clean", "labels as cleaned"),
    ("model", "model’s sets"),
    ("maps", "label maps’ sets"),
)
OF_SETS = (
    ("micro_f1", "Micro-F1", "over all known classes of all items together"),
    ("micro_f1_gain", "… more than as given", "difference of micro-F1, on the same draws"),
    ("macro_f1", "Macro-F1", "mean over classes"),
    ("subset_accuracy", "Whole sets right", "items of which every known class is right"),
    ("real_accuracy", "ReaL accuracy", "items whose label is among the true ones"),
)
OF_SCORES = (
    ("mean_average_precision", "Mean average precision", "mean over classes"),
    ("real_accuracy", "ReaL accuracy", "items whose highest class is among the true ones"),
    ("multilabel_accuracy", "Multi-label accuracy", "of k true classes among the k highest"),
    ("exact_set_accuracy", "Exact sets", "items whose k highest classes are the k true ones"),
)
"""Measures of stage `evaluate`: name in the result, name and meaning for people."""


def part(ctx: Context, limits: Limits) -> Section:
    """Return the measures of stage `evaluate`."""
    found = ctx.own("measures")
    listed = [(of, f"{kind}_{key}", *said) for kind, of in OF for key, *said in OF_SETS]
    listed += [("model’s probabilities", *one) for one in OF_SCORES]
    bands: dict[str, list[Row]] = {}
    for of, key, name, meaning in listed:
        if key in found and np.isfinite(found[key]).all():
            value, low, high = (decimal(float(x)) for x in found[key])
            row = Row(name=name, note=meaning, values=(value, f"{low}\u2009–\u2009{high}"))
            bands.setdefault(of, []).append(row)
    items = plural(int(found["n_items"]), "item")
    known = plural(int(found["n_known_cells"]), "class", "classes")
    return Section(
        name="evaluation",
        title="Against a reference",
        short="Reference",
        intro=f"{items} with {known} that people settled. What they left open counts neither for "
        "nor against. Intervals are of items drawn with replacement."
        if bands
        else "The reference knows no item of this data.",
        tables=(
            Table(
                caption="Measures against the reference",
                head=("Measure", "Value", "95\u202f% interval"),
                bands=tuple((of, tuple(rows)) for of, rows in bands.items()),
            ),
        )
        if bands
        else (),
    )
