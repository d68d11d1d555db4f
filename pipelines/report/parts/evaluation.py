"""How right labels and predictions are, on items whose classes people settled."""

from collections.abc import Iterator

import numpy as np

from pipelines.report import model as m
from pipelines.report.part import Part
from pipelines.report.text import plural

OF = (
    ("given", "labels as given"),
    ("clean", "labels as cleaned"),
    ("model", "model’s sets"),
    ("believed", "what is believed most"),
    ("maps", "label maps’ sets"),
)
OF_SETS = (
    ("micro_f1", "Micro-F1", "over all known classes of all items together"),
    ("micro_f1_gain", "… more than as given", "difference of micro-F1, on the same draws"),
    ("macro_f1", "Macro-F1", "mean over classes"),
    ("subset_accuracy", "Whole sets right", "items of which every known class is right"),
    ("real_accuracy", "ReaL accuracy", "items of one label for which it is among the true ones"),
    ("has_truth", "With the true class", "items of which a candidate is true"),
)
OF_SCORES = (
    ("mean_average_precision", "Mean average precision", "mean over classes"),
    ("real_accuracy", "ReaL accuracy", "items whose highest class is among the true ones"),
    ("multilabel_accuracy", "Multi-label accuracy", "of k true classes among the k highest"),
    ("exact_set_accuracy", "Exact sets", "items whose k highest classes are the k true ones"),
)
"""Measures of stage `evaluate`: name in the result, name and meaning for people."""


WORSE = "The cleaned labels are worse than the given ones."


class Evaluation(Part):
    """The measures of stage `evaluate`."""

    def sections(self) -> Iterator[m.Section]:
        """Return them in one table for each thing measured."""
        measured = self.ctx.own("measures")
        listed = [(of, [(f"{kind}_{key}", *said) for key, *said in OF_SETS]) for kind, of in OF]
        listed.append(("model’s probabilities", list(OF_SCORES)))
        tables = []
        for of, measures in listed:
            known = [one for one in measures if np.isfinite(measured.get(one[0], np.nan)).all()]
            values = [m.Estimate(*measured[key].tolist()) for key, *_ in known]
            columns = (
                m.column("Measure", ((name, meaning) for _, name, meaning in known), "noted"),
                m.column("Value", values, "decimal", "strong"),
                m.column("95\u202f% interval", values, "between decimal", "soft"),
            )
            if known:
                tables.append(m.Table(caption=of, is_titled=True, style="metrics", columns=columns))
        items = plural(int(measured["n_items"]), "item")
        known_cells = plural(int(measured["n_known_cells"]), "class", "classes")
        intro = (
            f"{items} with {known_cells} known from the reference; unknown ones are left out. "
            "Intervals are bootstrap intervals over items."
        )
        fell = measured.get("clean_micro_f1_gain", np.zeros(3))
        is_worse = bool(fell[2] < 0)
        yield m.Section(
            name="evaluation",
            title="Comparison with the reference",
            short="Reference",
            rank=1 if is_worse else 40,
            headline=WORSE if is_worse else "",
            lead=f"By the reference their micro-F1 is {-fell[0]:.3f} lower (95\u202f% interval "
            f"{-fell[2]:.3f} to {-fell[1]:.3f}). So no label of the dataset is changed."
            if is_worse
            else "",
            blocks=(intro if tables else "The reference has no item of this data.", *tables),
            artifacts=tuple((f"reference {table.caption}", table) for table in tables),
        )
