"""Wrong labels, where items have one each: how many, of which classes, and the worst items."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property

import numpy as np
from markupsafe import Markup

from labelops.confident.estimates import unpack_matrix
from labelops.confident.latent import Matrix
from pipelines.core.stage import Context
from pipelines.decisions.draw import DRAW, Measured, measured
from pipelines.report import model as m
from pipelines.report.charts import axis
from pipelines.report.limits import worst_per_class
from pipelines.report.look import Reader
from pipelines.report.part import Part, flags, floats
from pipelines.report.parts import confusion
from pipelines.report.select import Place, Shortlist, count_pairs
from pipelines.report.text import clean, count, interval, percent, plural
from pipelines.stages.confident import ENDS
from pipelines.storage.frame import Frame

# K classes

NAME = 60
"""Longest class name inside a sentence."""


class Noise(Part):
    """What stage `confident` found."""

    reads = ("item_hash", "given", "is_label_issue", "predicted", "label_score")

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        n_classes = len(run.names)
        self.estimates, self.surest = ctx.own("estimates"), ctx.own("surest")
        self.worst = Shortlist(n_classes, worst_per_class(n_classes, run.limits)[1])
        self.pairs: Counter[tuple[int, int]] = Counter()

    def scan(self, frame: Frame) -> None:
        """Count flagged items, and remember the worst."""
        rows = flags(frame, "is_label_issue")
        given, predicted = frame.array("given")[rows], frame.array("predicted")[rows]
        self.pairs += count_pairs(given, predicted)
        self.worst.add(frame, rows, given, floats(frame, "label_score")[rows])

    @cached_property
    def _joint(self) -> Matrix:
        """Estimated items by given and believed class."""
        return unpack_matrix(self.estimates, "calibrated_joint").astype(np.float64)

    @cached_property
    def _classes(self) -> list[int]:
        """Classes with flagged items, those with most estimated errors first."""
        flagged, wrong = self.worst.count, confusion.wrong_only(self._joint).sum(axis=1)
        order = np.lexsort((np.arange(flagged.size), -flagged, -wrong))
        return [int(c) for c in order if flagged[c]][: self.limits.worst_classes]

    def places(self) -> Iterable[Place]:
        """Return where the worst items are."""
        return [place for c in self._classes for place in self.worst.of(c)]

    def sections(self) -> Iterator[m.Section]:
        """Return the quality of classes, confusions, and the worst items."""
        yield self._quality()
        yield self._confusions()
        if self._classes:
            yield self._worst()

    # -- quality of classes ------------------------------------------------------------------------

    def _quality(self) -> m.Section:
        table = self._class_table()
        n_classes, n_shown = len(self.run.names), len(table.rows)
        wrong, is_known = self._wrong(), bool(self.surest["is_flat"])
        intro = Markup(
            "Share of each class’s given labels that confident learning counts as wrong, worst "
            "first; errors of the model count, too. The thin line is the 95&#8239;% interval for "
            "chance. <em>Labelled otherwise</em>: items that it counts in the class, but which "
            "have another label."
        )
        if n_shown < n_classes:
            intro += f" {plural(n_classes - n_shown, 'class has', 'classes have')} no items."
        n_items, n_flagged = self.ctx.n_items, int(self.worst.count.sum())
        checked = measured(self.run.result("decide", DRAW))
        if checked is not None and checked.wrong is not None:
            wrong, is_known = m.Estimate(*checked.wrong), True
        headline = _headline(wrong, n_items, is_known=is_known)
        between = f"{count(wrong.low or 0.0)} to {count(wrong.high or 0.0)}"
        by = "as far as the model can tell"
        if checked is not None and checked.wrong is not None:
            by = f"by {plural(checked.n_drawn, 'item')} drawn at random and checked"
        return m.Section(
            name="classes",
            title="Quality of each class",
            short="Classes",
            rank=10,
            blocks=(intro, *cut(table, self.limits.most_classes, "confident")),
            headline=headline,
            lead=self._lead(wrong, checked),
            tiles=(
                m.Tile(
                    "Estimated wrong",
                    count(wrong.value) if is_known and wrong.low else "not known",
                    interval(wrong, "count") if is_known else "",
                    "wrong",
                ),
                m.Tile("Flagged", count(n_flagged), f"{percent(n_flagged / n_items)} of items"),
            ),
            findings=tuple(_least_reliable(table)) if is_known else (),
            card=Markup(headline).striptags()
            + (f" The true number is from {between}, {by}." if is_known else ""),
            artifacts=(("class-quality", table),),
        )

    def _class_table(self) -> m.Table:
        n_given = self._joint.sum(axis=1)
        hidden = confusion.wrong_only(self._joint).sum(axis=0)
        rates = np.stack([self.estimates[f"noise_rate{end}"] for end in ENDS])
        order = np.lexsort((np.arange(len(n_given)), -rates[1], -rates[0]))
        order = order[n_given[order] > 0]
        shares = [m.Estimate(*rates[:, c].tolist()) for c in order]
        on = axis(min(max((s.high or s.value for s in shares), default=0.0), 1.0))
        return m.Table(
            caption="Quality of each class",
            style="quality",
            columns=(
                m.column("Class", (self.run.names.name(c) for c in order), "name"),
                m.column("Estimated wrong", shares, "percent", "strong"),
                m.column(f"0 to {on.top * 100:g}\u202f%", shares, "bar", axis=on),
                m.column("95\u202f% interval", shares, "between", "soft"),
                m.column("Items", n_given[order].round().astype(np.int64)),
                m.column("Flagged", self.worst.count[order]),
                m.column("Labelled otherwise", hidden[order]),
            ),
            n_open=self.limits.class_rows,
            more="more classes",
        )

    def _wrong(self) -> m.Estimate:
        return m.Estimate(*(float(self.surest[f"n_wrong{end}"]) for end in ENDS))

    def _lead(self, wrong: m.Estimate, checked: Measured | None) -> str:
        between = f"{count(wrong.low or 0.0)} to {count(wrong.high or 0.0)}"
        if checked is not None and checked.wrong is not None:
            return (
                f"People checked the {plural(checked.n_drawn, 'item')} that were drawn at random. "
                f"By their answers {between} labels are wrong, whatever the model is worth."
            )
        infer = self.run.result("infer", "calibration") or {}
        said = ""
        if "before_accuracy" in infer:
            said = f"The model agrees with {percent(float(infer['before_accuracy']))} of the given "
            said += "labels. "
        if not self.surest["is_flat"]:
            return (
                f"{said}{self._of_pixels()}"
                "Its surest predictions disagree with the labels at another rate than less sure "
                "ones do, so not all that it disagrees with is wrong, and how much is cannot be "
                "told. No label is changed or dropped because of it. A better model can tell, or "
                f"people. {_way_out(checked)}"
            )
        return (
            f"{said}The number is as high as the share of its surest predictions that disagree "
            f"with the labels. From {between} may be wrong: the lower end allows for chance and "
            "for errors of the model where it is surest, the upper end is all that it disagrees "
            "with, and chance. Where people err most on items that are hard, the truth is near "
            "that, or above. "
            f"{_way_out(checked)}"
        )

    def _of_pixels(self) -> str:
        """Return a word on pictures that are judged by their pixels."""
        infer = self.run.stages().get("infer", "")
        if not infer or "image" not in self.run.types:
            return ""
        config = self.run.run.entry(infer).config
        if getattr(config, "embedder", "") != "pixels" or getattr(config, "train", "") != "heads":
            return ""
        return (
            "It sees small, shrunk pictures (infer.embedder = pixels), which tells apart drawings "
            "and digits, not photographs: name a network with weights. "
        )

    # -- confusions --------------------------------------------------------------------------------

    def _confusions(self) -> m.Section:
        joint, names, limits = self._joint, self.run.names.names, self.limits
        heat, coarse = confusion.table(joint, names, limits), confusion.coarse(joint, limits)
        ranked = self._ranked()
        intro = (
            "Estimated number of items for each given class (row) and estimated true class "
            "(column). The stronger a cell’s colour, the larger its share of the row; correct "
            "labels, on the diagonal, are not shaded."
        )
        if heat.is_part:
            intro += (
                f" Shown are the {len(heat.classes) - 1} classes with the most wrong labels; all "
                "others are combined."
            )
        blocks: list[m.Block] = [intro, m.Drawing("parts/heat.html.j2", heat)]
        if coarse is not None:
            blocks.append(m.Drawing("parts/coarse.html.j2", coarse))
        if ranked.rows:
            blocks += [m.Text(ranked.caption, "h3"), ranked]
        return m.Section(
            name="confusion",
            title="Confusions between classes",
            short="Confusions",
            rank=50,
            blocks=tuple(blocks),
            findings=tuple(_mixed_up(ranked)),
            artifacts=(("confusions", ranked),),
        )

    def _ranked(self) -> m.Table:
        pairs = confusion.ranked(self._joint, self.limits.confusions)
        n_given, name = self._joint.sum(axis=1), self.run.names.name
        return m.Table(
            caption="Suspected confusions, most items first",
            style="ranked",
            columns=(
                m.column("Given → believed", ((name(i), name(j)) for i, j, _ in pairs), "change"),
                m.column("Estimated items", (n for _, _, n in pairs), "count", "strong"),
                m.column("", (n / pairs[0][2] for _, _, n in pairs), "share"),
                m.column("Of the given class", (n / n_given[i] for i, _, n in pairs), "percent"),
                m.column("Flagged", (self.pairs[i, j] for i, j, _ in pairs)),
            ),
            n_open=self.limits.open_confusions,
            more="more confusions",
        )

    # -- worst items -------------------------------------------------------------------------------

    def _worst(self) -> m.Section:
        blocks: list[m.Block] = [
            "The most suspicious items by given class. The score lies between 0 and 1; low means "
            "that the given label is hard to believe."
        ]
        for i, c in enumerate(self._classes):
            name, n_flagged = self.run.names.name(c), int(self.worst.count[c])
            items = tuple(self.run.item(place, "label_score") for place in self.worst.of(c))
            caption = f"Most suspicious items given as {clean(name, 80)}"
            blocks.append(
                m.Group(
                    name=name,
                    note=f"{len(items)} worst of {count(n_flagged)} flagged",
                    blocks=(m.Items(caption=caption, items=items),),
                    is_open=i < self.limits.open_classes,
                )
            )
        if more := int(np.count_nonzero(self.worst.count)) - len(self._classes):
            said = "{} with flagged items: sort <code>confident/</code> by <code>rank</code>."
            blocks.append(m.Text(Markup(said).format(plural(more, "more class", "more classes"))))
        return m.Section(
            name="worst",
            title="Worst items of each class",
            short="Worst items",
            rank=70,
            blocks=tuple(blocks),
        )


def cut(table: m.Table, most: int, stage: str) -> tuple[m.Block, ...]:
    """Return a table of classes, of which some are left out where there are too many."""
    n = len(table.rows)
    if n <= most:
        return (table,)
    said = Markup(
        "The first {} of {} classes are shown; <code>{}/_results/estimates.npz</code> has all of "
        "them."
    ).format(count(most), count(n), stage)
    columns = (replace(column, values=column.values[:most]) for column in table.columns)
    return said, replace(table, columns=tuple(columns))


def _headline(wrong: m.Estimate, n_items: int, *, is_known: bool) -> str:
    labels, most = plural(n_items, "label"), count(wrong.high or 0.0)
    if not is_known:
        # No bound: labels that are wrong in a way that can be learned are not doubted.
        said = "The model is too weak to count wrong labels; it doubts <em>{}</em> of {}."
        return Markup(said).format(most, labels)
    if wrong.low == 0:
        said = "No label is surely wrong; up to <em>{}</em> of {} may be."
        return Markup(said).format(most, labels)
    look = "looks" if wrong.value < 1.5 else "look"
    return Markup("About <em>{}</em> of {} {} wrong.").format(count(wrong.value), labels, look)


def _way_out(checked: Measured | None) -> str:
    """Return how people can find the number."""
    if checked is None or not checked.n_drawn:
        return ""
    items = plural(checked.n_drawn, "item")
    said = (
        f"To know it within ± {percent(checked.half_width)} of all labels, fill in true_label "
        f"of the {items} in review/estimate.parquet and run again with decide.reviewed set to it."
    )
    if checked.n_reviewed:
        said = (
            f"Of the {items} in review/estimate.parquet {count(checked.n_answered)} were checked; "
            "all must be, since answers on other items are not drawn at random and do not say how "
            "many labels are wrong."
        )
    return said


def _least_reliable(table: m.Table) -> Iterator[m.Finding]:
    """Return the class of which most is wrong beyond chance."""
    sure = [row for row in table.rows if (row[1].low or 0.0) > 0]
    if not sure or len(table.rows) < 2:
        return
    name, share, *_, n, _, _ = max(sure, key=lambda row: (row[1].low, row[0]))
    yield m.Finding(
        f"{clean(name, NAME)} has the least reliable labels",
        f"{percent(share.value)} of its {plural(n, 'label')} are estimated to be wrong "
        f"(95\u202f% interval {percent(share.low)} to {percent(share.high or 1.0)}).",
        "classes",
        rank=60,
    )


def _mixed_up(ranked: m.Table) -> Iterator[m.Finding]:
    for names, items, _, share, _ in ranked.rows[:1]:
        given, believed = (clean(name, NAME) for name in names)
        yield m.Finding(
            f"Most frequent confusion: given {given}, believed {believed}",
            f"About {plural(items, 'item')} given as {given} ({percent(share)} of them) are "
            f"believed to be {believed}. If people cannot tell the two apart, the labelling guide "
            "may need an example.",
            "confusion",
            rank=50,
        )
