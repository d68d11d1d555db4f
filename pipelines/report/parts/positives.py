"""How many unlabelled items are positive, and which."""

from collections.abc import Iterator

import numpy as np
from markupsafe import Markup

from labelops.belief import UNIT
from labelops.partial.draw import DrawCheck
from labelops.partial.prior import LEAST_LABELLED
from labelops.partial.scores import ScoreCounts
from pipelines.core.stage import Context
from pipelines.core.state import TABLE
from pipelines.inference.inputs import input_column
from pipelines.inference.table import name_of_feature
from pipelines.labels.positives import GIVEN, UNLABELLED
from pipelines.report import model as m
from pipelines.report.look import Reader
from pipelines.report.part import Part, floats
from pipelines.report.select import Place, Shortlist
from pipelines.report.text import clean, count, decimal, percent, plural, verb
from pipelines.stages.pu import LEARN, SCORES, draw_of
from pipelines.storage.frame import Frame

TENTHS = 10

MEASURES = (
    ("auc", "AUC", "how often a positive has a higher score than a negative"),
    ("precision", "Precision", "share of positives among those with ½ and more"),
    ("recall", "Recall", "share of the positives that have ½ and more"),
    ("f1", "F1", "harmonic mean of both"),
)
"""Measures of stage `pu`: name in the result, name and meaning for people."""


class Positives(Part):
    """What stage `pu` found."""

    reads = ("item_hash", GIVEN, "p_positive")
    shows = ("p_positive",)

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        self.found = ctx.own(SCORES)
        self.draw: DrawCheck = draw_of(ctx.own(LEARN))
        self.likely = Shortlist(1, run.limits.suspects_per_class * 8)
        self.tenths = np.zeros(TENTHS, np.int64)
        self.sums = np.zeros(TENTHS, np.int64)

    def scan(self, frame: Frame) -> None:
        """Count unlabelled items by their probability, and remember the most probable."""
        rows = np.flatnonzero(frame.array(GIVEN) == UNLABELLED)
        p = floats(frame, "p_positive")[rows]
        self.likely.add(frame, rows, np.zeros(len(rows), np.int64), -p)
        tenth = np.minimum((p * TENTHS).astype(np.int64), TENTHS - 1)
        np.add.at(self.tenths, tenth, 1)
        np.add.at(self.sums, tenth, np.rint(p * UNIT).astype(np.int64))

    def places(self) -> Iterator[Place]:
        """Return where the most probable positives are."""
        yield from self.likely.of(0)

    def sections(self) -> Iterator[m.Section]:
        """Return the class prior, and the most probable positives."""
        yield self._prior()
        yield self._likely()

    @property
    def _counts(self) -> ScoreCounts:
        return ScoreCounts(self.found["labelled"], self.found["unlabelled"])

    def _prior(self) -> m.Section:
        n, n_labelled = self._counts.n_unlabelled, self._counts.n_labelled
        value, low, high = (float(self.found[name]) for name in ("value", "low", "high"))
        is_given = str(self.found["method"]) == "given"
        headline = self._headline(n, value, low, high)
        is_one_sample = getattr(self.ctx.config, "setting", "") == "one-sample"
        of_all = f"; with the labelled ones {percent(float(self.found['of_all']))} of all items"
        how = (
            f"The share of positives among them was given as {percent(value)}."
            if is_given
            else f"Estimated ({self.found['method']}): {percent(value)} of them, 95\u202f% "
            f"interval {percent(low)} to {percent(high)}{of_all if is_one_sample else ''}."
        )
        supposed = (
            "All of this supposes that the labelled positives are a random draw of all positives. "
            "If those were labelled that are easiest to see, there are more."
        )
        table = m.Table(
            caption="Unlabelled items by their probability of being positive",
            is_titled=True,
            columns=(
                m.column(
                    "Probability",
                    (f"{t / 10:.1f}\u2009–\u2009{(t + 1) / 10:.1f}" for t in range(TENTHS)),
                    "text",
                ),
                m.column("Unlabelled items", self.tenths),
                m.column("Expected positive", np.rint(self.sums / UNIT).astype(np.int64)),
            ),
        )
        return m.Section(
            name="prior",
            title="How many unlabelled items are positive?",
            short="Class prior",
            rank=10,
            headline=headline,
            lead=f"{how} {supposed}",
            eyebrow="Positive and unlabelled items",
            tiles=(
                m.Tile("Labelled positive", count(n_labelled)),
                m.Tile("Unlabelled", count(n)),
                m.Tile(
                    "Positive among them",
                    count(value * n) if low or is_given else "not known",
                    f"{count(low * n)} to {count(high * n)}",
                    "wrong",
                ),
            ),
            blocks=(" ".join([how, *self._doubts()]), table, *self._measures()),
            findings=tuple(self._findings()),
            card=f"{headline.striptags()} {how} {supposed}",
            artifacts=(("unlabelled", table),),
        )

    def _headline(self, n: int, value: float, low: float, high: float) -> Markup:
        if not low and str(self.found["method"]) != "given":
            said = Markup("Up to <em>{}</em> of {} may be positive.")
            return said.format(count(high * n), plural(n, "unlabelled item"))
        said = Markup("About <em>{}</em> of {} {} positive ({} to {}).")
        n_found = value * n
        return said.format(
            count(n_found),
            plural(n, "unlabelled item"),
            verb(n_found, "is", "are"),
            count(low * n),
            count(high * n),
        )

    def _measures(self) -> Iterator[m.Block]:
        """Return how well positives are told from negatives, though nobody knows a negative."""
        known = [one for one in MEASURES if np.isfinite(self.found[one[0]]).all()]
        if known:
            values = [m.Estimate(*self.found[key].tolist()) for key, *_ in known]
            yield m.Table(
                caption="How well unlabelled items are told apart, from a probability of ½ on",
                is_titled=True,
                style="metrics",
                columns=(
                    m.column("Measure", ((name, meaning) for _, name, meaning in known), "noted"),
                    m.column("Value", values, "decimal", "strong"),
                    m.column("95\u202f% interval", values, "between decimal", "soft"),
                ),
            )

    def _doubts(self) -> Iterator[str]:
        if not self.draw.is_plausible:
            yield (
                f"Where scores are highest, the odds of being labelled differ{self._by_what()} "
                f"more than a random draw lets them (p\u202f=\u202f{self.draw.p_value:.1g}). "
                "Only items are recovered that reviewers say are positive. (Classes that overlap "
                "where scores are highest can look so, too.)"
            )
        if self._counts.n_labelled < LEAST_LABELLED:
            yield (
                f"{plural(self._counts.n_labelled, 'labelled item')} are too few to say more than "
                "that: no end of the interval is known."
            )
        elif not self.found["is_irreducible"]:
            yield (
                "Among the items that the model is surest of there are negatives, too, as far as "
                "can be seen: then only the upper end of the interval holds."
            )

    def _by_what(self) -> str:
        if self.draw.by_feature > self.draw.by_score:
            config = self.ctx.of("infer").config
            if input_column(config.use, self.ctx.columns) == TABLE:
                name = name_of_feature(self.ctx, self.draw.feature)
                return f" by column {clean(name, 40)}"
            return f" by feature {self.draw.feature}"
        return " by score"

    def _findings(self) -> Iterator[m.Finding]:
        if not self.draw.is_plausible:
            yield m.Finding(
                "The labelled items may be no random draw of all positives",
                f"The odds of being labelled differ{self._by_what()} among the surest items. All "
                "numbers of positives here may be too low: label some at random.",
                "prior",
                rank=1,
            )
        if not self.found["is_irreducible"] and self._counts.n_labelled >= LEAST_LABELLED:
            yield m.Finding(
                "The share of positives is known from above only",
                "No score is so high that only positives have it. A better model, or some items "
                "checked by people, would tell more.",
                "prior",
                rank=15,
            )

    def _likely(self) -> m.Section:
        places = self.likely.of(0)
        items = tuple(self.run.item(place, "p_positive") for place in places)
        n_shown = len(items)
        intro = (
            f"The {plural(n_shown, 'unlabelled item')} with the highest probability of being "
            f"positive; the least of them has {decimal(-max(places.values(), default=0.0), 2)}."
        )
        return m.Section(
            name="likely",
            title="Unlabelled, and most probably positive",
            short="Probably positive",
            rank=12,
            blocks=(
                intro,
                m.Items(
                    caption="Most probable positives among the unlabelled items",
                    items=items,
                    score="P(positive)",
                    score_kind="percent",
                    n_open=self.limits.open_outliers,
                ),
            ),
        )
