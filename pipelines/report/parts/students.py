"""What a student gains by the product, beside one that was taught the labels as given."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from markupsafe import Markup

from pipelines.core.stage import Context
from pipelines.labels import candidates, positives
from pipelines.labels.classes import some
from pipelines.labels.space import space_of
from pipelines.report import model as m
from pipelines.report.part import Part
from pipelines.report.text import clean, decimal, plural
from pipelines.students.train import KEPT, is_many, names_of, settings_of

FEW = "with a part of the items held out, nothing would be left to teach one of both students"


class Students(Part):
    """What stage `distill` found."""

    def sections(self) -> Iterator[m.Section]:
        """Return how twins compare, and what the student that is kept was taught."""
        found, kept = self.ctx.own("evidence"), self.ctx.own(KEPT)
        falls_back = bool(found["falls_back"])
        tables = [self._table(found)] if int(found["as_given_n"]) else []
        meaning = m.Text(
            "Labels as given are wrong in places, so no student can agree with all of them; a "
            "wrong one counts alike for both."
        )
        compared: list[m.Block] = [*tables, meaning] if tables else []
        blocks = [self._who(is_compared=bool(tables)), *compared, self._kept(found)]
        findings = []
        if falls_back:
            findings.append(
                m.Finding(
                    "The student learned from the labels as given",
                    "On held-out items a student of the product was not surely better than one of "
                    "these.",
                    "student",
                    rank=45,
                )
            )
        unknown = np.flatnonzero(~kept["known"])
        if len(unknown):
            every = names_of(self.ctx)
            names = some([clean(every[c], 40) for c in unknown.tolist()])
            findings.append(
                m.Finding(
                    f"{plural(len(unknown), 'class', 'classes')} the student does not know: "
                    f"{names}",
                    "No item that it was taught has them.",
                    "student",
                    rank=30,
                )
            )
        yield m.Section(
            name="student",
            title="What a student gains",
            short="Student",
            rank=90,
            blocks=tuple(blocks),
            findings=tuple(findings),
            card=self._card(found),
            artifacts=tuple((f"student {table.caption}", table) for table in tables),
        )

    def _who(self, *, is_compared: bool) -> str:
        ctx: Context[Any] = self.ctx
        config = settings_of(ctx)
        column = "embedding" if "embedding" in ctx.columns else "features"
        if config.is_of_pictures:
            kind = f"A {config.student} of pictures of {config.side} × {config.side} pixels"
        elif config.student == "linear":
            kind = f"A linear student of the {column}"
        else:
            kind = f"A network with {config.hidden} hidden units on the {column}"
        if not is_compared:
            why = "there are no labels as given" if space_of(ctx.columns) is None else FEW
            return f"{kind} is trained. What it gains is not known: {why}."
        return (
            f"{kind} is trained twice, with the same first weights, order and settings: on the "
            "product of this run, and on the labels as given. Both then answer items of a fold "
            "that neither was taught."
        )

    def _table(self, found: dict[str, np.ndarray]) -> m.Table:
        rows = [("as_given", self._agreement())]
        if int(found["as_true_n"]):
            rows.append(("as_true", "Right by the reference"))
        values = {
            name: [found[f"{key}_{name}"].item() for key, _ in rows]
            for name in ("n", "before", "after", "gain", "low", "high")
        }
        gains = [
            f"{_more(g)} ({_more(low)} to {_more(high)})" if np.isfinite(high) else _more(g)
            for g, low, high in zip(values["gain"], values["low"], values["high"], strict=True)
        ]
        return m.Table(
            caption="Students on held-out items",
            columns=(
                m.column("", (text for _, text in rows), "text"),
                m.column("Items", values["n"]),
                m.column("Taught as given", values["before"], "decimal"),
                m.column("Taught the product", values["after"], "decimal", "strong"),
                m.column("Difference (95\u202f% interval)", gains, "text"),
            ),
        )

    def _agreement(self) -> str:
        if is_many(self.ctx):
            return "F1 of sets with the given ones"
        if candidates.GIVEN in self.ctx.columns:
            return "Predicts one of the candidates"
        if positives.GIVEN in self.ctx.columns:
            return "AUC, labelled against unlabelled"
        return "Predicts the given label"

    def _kept(self, found: dict[str, np.ndarray]) -> m.Block:
        kept = self.ctx.own(KEPT)
        items = plural(int(kept["n_taught"]), "item")
        why = "the product"
        if bool(found["falls_back"]):
            why = (
                "the labels as given, since it was not shown that those of the product teach better"
            )
        text = Markup(
            "The student in <code>student/</code> learned from all {} of {}. Its class names and "
            "what it does to an item first are inside of both files."
        )
        return m.Text(text.format(items, why))

    def _card(self, found: dict[str, np.ndarray]) -> str:
        taught = "labels as given" if bool(found["falls_back"]) else "product"
        if not int(found["as_given_n"]):
            return f"The student in `student/` learned from the {taught}; what it gains is unknown."
        scores = {name: decimal(value.item()) for name, value in found.items()}
        true = ""
        if int(found["as_true_n"]):
            true = (
                f" By the reference {scores['as_true_before']} and {scores['as_true_after']} of "
                "their answers are right."
            )
        return (
            f"A student of the labels as given scores {scores['as_given_before']} on held-out "
            f"items ({self._agreement()}), one of the product {scores['as_given_after']}.{true} "
            f"The one in `student/` learned from the {taught}."
        )


def _more(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
