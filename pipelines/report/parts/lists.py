"""Missing and wrong labels, where items may have several."""

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from pipelines.core.stage import Context
from pipelines.labels.columns import flat
from pipelines.report import model as m
from pipelines.report.charts import count_axis
from pipelines.report.limits import Limits
from pipelines.report.look import Reader
from pipelines.report.part import Part
from pipelines.report.parts.noise import NAME, cut
from pipelines.report.parts.overlays import LEGEND, Overlays
from pipelines.report.select import Place, Shortlist, by_count
from pipelines.report.text import clean, count, decimal, interval, percent, plural, verb
from pipelines.storage.frame import Frame

KINDS = {"missing": ("added", "+"), "wrong": ("removed", "−")}
"""What may be the matter with a label, and how that is marked."""


class Lists(Part):
    """What stage `multilabel` found."""

    reads = (
        "item_hash",
        "is_label_issue",
        *(name for kind in KINDS for name in (f"{kind}_ids", f"{kind}_probs", f"is_{kind}")),
    )

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        each = suspects_each(len(run.names), run.limits)
        self.estimates = ctx.own("estimates")
        self.suspects = {kind: Shortlist(len(run.names), each) for kind in KINDS}
        self.n_flagged = 0
        self.n_live = 0
        self.overlays = Overlays(run)
        self.shows = self.overlays.columns

    def scan(self, frame: Frame) -> None:
        """Count what is suspected, and remember the surest of each class."""
        self.n_live += frame.n
        self.n_flagged += pc.sum(frame["is_label_issue"]).as_py() or 0
        for kind, listed in self.suspects.items():
            row, class_id = cells(frame, f"{kind}_ids")
            p, is_flagged = (
                flat(frame[name])[0].to_numpy(zero_copy_only=False)
                for name in (f"{kind}_probs", f"is_{kind}")
            )
            mine = np.flatnonzero(is_flagged)
            listed.add(frame, row[mine], class_id[mine], -p[mine].astype(np.float64))

    @property
    def _n(self) -> np.ndarray:
        """Suspected labels of each class."""
        return self.suspects["missing"].count + self.suspects["wrong"].count

    def _shown(self) -> list[int]:
        return by_count(self._n, self.limits.worst_classes)

    def places(self) -> Iterator[Place]:
        """Return where the items are that are suspected."""
        for c in self._shown():
            for listed in self.suspects.values():
                yield from listed.of(c)

    def sections(self) -> Iterator[m.Section]:
        """Return numbers by class, and suspects."""
        yield self._classes()
        if self._n.any():
            yield self._suspects()

    # -- numbers -----------------------------------------------------------------------------------

    def _classes(self) -> m.Section:
        n_no, n_given = (int(n) for n in self.estimates["n_given"].sum(axis=0))
        n_unknown = max(self.n_live * len(self.run.names) - n_no - n_given, 0)
        counted = self._total("missing", 0), self._total("wrong", 1)
        beliefs = self.ctx.own("beliefs")
        missing, wrong = (m.Estimate(*beliefs[f"n_{kind}"].tolist()) for kind in KINDS)
        headline = _headline(missing if n_no else None, wrong, n_given)
        table = self._table()
        intro = (
            "For each class: items that have it although it was ruled out (missing), and items "
            "that were given it but do not have it (wrong). Classes with the most of both come "
            "first; the thin line is the 95\u202f% interval, which covers sampling error only, "
            "not errors of the model."
        )
        if n_unknown:
            were = plural(n_unknown, "item-class pair was", "item-class pairs were")
            intro += f" {were} neither given nor ruled out; they are unknown and not counted here."
        n_items = max(self.n_live, 1)
        by_class = [
            f"{count(one.value)} {kind} (95\u202f% interval {interval(one, 'count')})"
            for one, kind in zip(counted, ("missing", "wrong"), strict=True)
        ]
        return m.Section(
            name="lists",
            title="Missing and wrong labels of each class",
            short="Missing, wrong",
            rank=20,
            blocks=(intro, *cut(table, self.limits.most_classes, "multilabel")),
            headline=headline,
            lead="The bounds are what the classes that the model is surest of contradict: the "
            "upper end counts its errors on less sure ones, too; the lower end allows for chance, "
            "and is 0 where it contradicts less sure ones at another rate, since errors of the "
            "model cannot be told from wrong labels then. Confident learning, applied to each "
            f"class, estimates {by_class[0]} and {by_class[1]}. Its intervals cover sampling error "
            "only, not errors of the model: if it cannot recognise a class, both numbers are too "
            "high; if it makes the annotators’ mistakes, too low.",
            tiles=(
                m.Tile("Labels given", count(n_given), f"{decimal(n_given / n_items, 2)} per item"),
                m.Tile("Missing", _told(missing), interval(missing, "count"), "wrong")
                if n_no
                else m.Tile("Missing", "not known", "no class was ruled out", "wrong"),
                m.Tile("Wrong", _told(wrong), interval(wrong, "count"), "wrong"),
                m.Tile(
                    "Flagged items",
                    count(self.n_flagged),
                    f"{percent(self.n_flagged / n_items)} of items",
                ),
            ),
            findings=tuple(_findings(table, n_unknown, missing=missing, wrong=wrong)),
            card=headline.striptags(),
            artifacts=(("class-quality", table),),
        )

    def _total(self, kind: str, column: int) -> m.Estimate:
        """Return the sum over classes; their errors are taken as independent."""
        n = self.estimates["n_given"][:, column]
        each = self.estimates[f"n_{kind}"].astype(np.float64)
        ends = [np.nan_to_num(self.estimates[f"{kind}_rate_{end}"] * n) for end in ("low", "high")]
        below, above = (float(np.sqrt(np.square(end - each).sum())) for end in ends)
        value = float(each.sum())
        return m.Estimate(value, max(value - below, 0.0), value + above)

    def _table(self) -> m.Table:
        """Return one row a class, those with most wrong and missing labels first."""
        doubt = self.estimates["n_wrong"] + self.estimates["n_missing"]
        order = np.lexsort((np.arange(len(doubt)), -doubt))
        wrong, missing = (
            self._of(kind, column, order) for kind, column in (("wrong", 1), ("missing", 0))
        )
        # The intervals of a few classes may be very wide; the bars are what shall be seen.
        most = max((one.value for one in (*wrong, *missing)), default=0.0)
        ends = (one.high or one.value for one in (*wrong, *missing))
        on = count_axis(min(max(ends, default=0.0), 1.5 * most))
        outcome = self.run.outcome() or {}
        columns = [
            m.column("Class", (self.run.names.name(c) for c in order), "name"),
            m.column("Given", self.estimates["n_given"][order, 1]),
        ]
        for kind, estimated, done in (("wrong", wrong, "removed"), ("missing", missing, "added")):
            columns += [
                m.column(kind.capitalize(), estimated, "bounds", "strong"),
                m.column(f"0 to {count(on.top)}", estimated, "bar", axis=on),
                m.column(f"Flagged {kind}", self.suspects[kind].count[order]),
            ]
            if outcome:
                columns.append(m.column(done.capitalize(), outcome[done][order]))
        return m.Table(
            caption="Missing and wrong labels of each class",
            style="quality two",
            columns=tuple(columns),
            n_open=self.limits.class_rows,
            more="more classes",
        )

    def _of(self, kind: str, column: int, order: np.ndarray) -> list[m.Estimate]:
        """Return numbers of items: estimates, and intervals of their rates times their number."""
        value, n = self.estimates[f"n_{kind}"][order], self.estimates["n_given"][order, column]
        low, high = (self.estimates[f"{kind}_rate_{end}"][order] * n for end in ("low", "high"))
        ends = np.stack([value, np.minimum(low, value), np.maximum(high, value)], axis=1)
        return [m.Estimate(*(row if np.isfinite(row).all() else row[:1]).tolist()) for row in ends]

    # -- suspects ----------------------------------------------------------------------------------

    def _suspects(self) -> m.Section:
        groups = [
            self._group(c, is_open=i < self.limits.open_classes)
            for i, c in enumerate(self._shown())
        ]
        intro = (
            "The most probable errors of each class, with the probability that the class is "
            "present but not given (missing), or given but absent (wrong)."
        )
        legend = "" if self.overlays.facts is None else LEGEND
        blocks: list[m.Block] = [intro + legend, *groups]
        if more := int(np.count_nonzero(self._n)) - len(groups):
            said = Markup("{} with suspects: see <code>multilabel/</code>.")
            blocks.append(m.Text(said.format(plural(more, "more class", "more classes"))))
        return m.Section(
            name="worst",
            title="Suspected missing and wrong labels",
            short="Suspects",
            rank=22,
            blocks=tuple(blocks),
        )

    def _group(self, c: int, *, is_open: bool) -> m.Group:
        name, blocks = self.run.names.name(c), list[m.Block]()
        for kind, mark in KINDS.items():
            items = self.overlays.items(self.suspects[kind].of(c), c)
            if items:
                title = Markup('<span class="mark {}" aria-hidden="true">{}</span> probably {}')
                caption = f"Items in which {clean(name, 80)} is probably {kind}"
                blocks += [m.Text(title.format(*mark, kind), "h4"), probable(items, kind, caption)]
        missing, wrong = (count(int(listed.count[c])) for listed in self.suspects.values())
        note = f"{missing} suspected missing, {wrong} suspected wrong"
        return m.Group(name=name, note=note, blocks=tuple(blocks), is_open=is_open)


def _told(found: m.Estimate) -> str:
    return count(found.value) if found.low else "not known"


def _headline(missing: m.Estimate | None, wrong: m.Estimate, n_given: int) -> Markup:
    """Return how many labels are wrong and missing, or how many may be at most.

    `missing` is None where no class was ruled out: what is unknown is not counted.
    """

    def part(found: m.Estimate, what: str, of: str = "") -> Markup:
        high = count(found.high or 0.0)
        if not found.low:
            return Markup("up to <em>{}</em>{} may be {}").format(high, of, what)
        said = Markup("about <em>{}</em>{} {} {} ({} to {})")
        are = verb(found.value, "is", "are")
        return said.format(count(found.value), of, are, what, count(found.low), high)

    if missing is None and not wrong.low:
        unknown = Markup("How many of {} are wrong, and how many are missing, is not known: {}.")
        return unknown.format(plural(n_given, "given label"), "no class was ruled out")
    first = part(wrong, "wrong", f" of {plural(n_given, 'given label')}")
    last = "how many are missing is not known: no class was ruled out"
    told = last if missing is None else part(missing, "missing")
    return Markup("{}{}, and {}.").format(first[:1].upper(), first[1:], told)


def suspects_each(n_classes: int, limits: Limits) -> int:
    """Return the items shown of each class, so that with many classes the page stays light."""
    fair = limits.suspects // (2 * max(min(n_classes, limits.worst_classes), 1))
    return max(1, min(limits.suspects_per_class, fair))


def probable(items: tuple[m.Item, ...], kind: str, caption: str) -> m.Items:
    """Return items whose number is a probability."""
    return m.Items(caption=caption, items=items, score=f"P({kind})", score_kind="percent")


def cells(frame: Frame, ids: str) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and class ids of lists of classes."""
    class_ids, start = flat(frame[ids])
    row = np.repeat(np.arange(frame.n), np.diff(start))
    return row, class_ids.to_numpy(zero_copy_only=False).astype(np.int64)


def _findings(table: m.Table, n_unknown: int, **found: m.Estimate) -> Iterator[m.Finding]:
    for kind, where, has in (
        ("missing", "though it was ruled out", "have it"),
        ("wrong", "though they do not have it", "were given it"),
    ):
        # Where nothing is sure in all, no class of it is.
        if not found[kind].low:
            continue
        columns = (table.values(head) for head in ("Class", "Given", kind.capitalize()))
        sure = [one for one in zip(*columns, strict=True) if (one[2].low or 0.0) > 0]
        if sure:
            name, given, number = max(sure, key=lambda one: (one[2].low, one[0]))
            yield m.Finding(
                f"{clean(name, NAME)} has the most {kind} labels",
                f"By confident learning, {plural(number.value, 'item')} {has} {where} "
                f"(95\u202f% interval {count(number.low)} to {count(number.high)}); it was given "
                f"to {plural(given, 'item')}.",
                "lists",
                rank=20,
            )
    if n_unknown:
        yield m.Finding(
            f"{plural(n_unknown, 'item-class pair')} not annotated",
            "They are neither given nor ruled out. How many of them are present is not estimated.",
            "lists",
            rank=20,
        )
