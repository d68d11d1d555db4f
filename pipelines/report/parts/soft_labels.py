"""What soft labels a run left for a student: how many, of whom, how large, and what they lose."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from labelops.belief import UNIT
from labelops.distill.regions import Verdict
from pipelines.core.intact import shard_files
from pipelines.report import model as m
from pipelines.report.part import Part
from pipelines.report.text import clean, count, decimal, percent, plural
from pipelines.soft.columns import FOLDER, SoftFacts
from pipelines.stages.teach import TAILS, TOTALS

VERDICTS = {
    Verdict.KEPT_SOFT: "soft label stands",
    Verdict.HARD_CALIBRATED: "item’s label is taught",
    Verdict.DISCARDED: "discarded",
}


class SoftLabels(Part):
    """What stage `teach` stored."""

    def sections(self) -> Iterator[m.Section]:
        """Return what is stored, how often the given class leads, and what classes are left out."""
        run, found = self.run.run, self.ctx.own(TOTALS)
        manifest = run.manifest(self.ctx.stage) or {}
        n_bytes = sum(f["bytes"] for f in shard_files(manifest) if f["folder"] == FOLDER)
        (schema,) = (
            layer.schemas[FOLDER] for layer in self.run.layout.layers if FOLDER in layer.schemas
        )
        facts = SoftFacts.of(schema)
        n_items, n_views = int(found["n_items"]), int(found["n_views"])
        mean_loss = float(found["loss"].item()) / UNIT / max(n_items, 1)
        teacher = "; ".join(clean(one.name) for one in facts.teachers)
        classes = plural(len(facts.classes), "class", "classes")
        said = (
            f"{plural(n_views, 'soft label')} of {plural(n_items, 'item')}, by {teacher}. Of each, "
            f"the {count(facts.k)} most probable of {classes} and the given one are stored "
            f"({facts.kind} in {facts.number}, temperature {decimal(facts.temperature, 2)}), in "
            f"{decimal(n_bytes / max(n_views, 1), 1)} bytes "
            "with all that stands beside them. Where a reader shares what is left evenly among the "
            f"other classes, a label is {decimal(mean_loss, 4)} nats from the teacher’s on average."
        )
        agree = int(found["n_given"])
        again = (
            f"The given class is the teacher’s most probable one for {count(agree)} items "
            f"({percent(agree / max(n_items, 1))})."
        )
        tails = m.Table(
            caption="Probability of the classes that are not stored",
            is_titled=True,
            columns=(
                m.column("Together", _ranges(), "text"),
                m.column("Items", found["tails"], "count", "strong"),
                m.column("Share", found["tails"] / max(n_items, 1), "percent"),
            ),
        )
        note = Markup("All of them: <code>{}/</code>. Of each item: <code>{}/</code>.")
        yield m.Section(
            name="soft-labels",
            title="Soft labels for a student",
            short="Soft labels",
            rank=125,
            blocks=(
                said,
                again,
                m.Pair((tails,), _verdicts(found["verdicts"]) if facts.epsilon is not None else ()),
                m.Text(note.format(FOLDER, self.ctx.stage)),
            ),
            card=f"`{FOLDER}/` has {n_views:,} soft labels of {n_items:,} items, the {facts.k} "
            "most probable classes of each and the given one.",
            artifacts=(("soft-labels", tails),),
        )


def _ranges() -> list[str]:
    shown = [percent(edge) for edge in TAILS]
    inner = (f"{a} to {b}" for a, b in pairwise(shown))
    return [f"below {shown[0]}", *inner, f"{shown[-1]} or more"]


def _verdicts(n: np.ndarray) -> tuple[m.Block, ...]:
    total = max(int(n.sum()), 1)
    return (
        m.Table(
            caption="Verdicts on views",
            is_titled=True,
            columns=(
                m.column("Verdict", VERDICTS.values(), "text"),
                m.column("Views", n, "count", "strong"),
                m.column("Share", n / total, "percent"),
            ),
        ),
    )
