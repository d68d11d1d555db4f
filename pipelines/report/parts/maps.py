"""What label maps show: classes that pictures were not given, and where they are seen."""

from collections.abc import Iterator

import numpy as np
from markupsafe import Markup

from pipelines.core.stage import Context
from pipelines.labels.columns import flat
from pipelines.maps.evidence import COMPLETE, KNOWN, POSITIVES, REFERENCE
from pipelines.report import model as m
from pipelines.report.look import Reader
from pipelines.report.part import Part
from pipelines.report.parts.lists import cells, probable, suspects_each
from pipelines.report.parts.overlays import Overlays
from pipelines.report.select import Place, Shortlist, by_count
from pipelines.report.text import clean, count, decimal, percent, plural
from pipelines.storage.frame import Frame

MOST_COUNTS = 12
"""Rows of the table of how many classes a picture has."""

RULES = {
    "f1": "to maximise F1",
    "recall": "to maximise recall² ÷ share of pictures in which the class is found, since only "
    "present classes are known, not absent ones",
}


class Maps(Part):
    """What stage `localize` found."""

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        given = [run.given] if run.given else []
        self.reads = ("item_hash", "present_ids", "present_scores", *given)
        self.overlays = Overlays(run)
        self.shows = self.overlays.columns
        self.new = Shortlist(len(run.names), suspects_each(len(run.names), run.limits))

    def scan(self, frame: Frame) -> None:
        """Count what is found though not given, and remember the surest of each class."""
        row, class_id = cells(frame, "present_ids")
        p = flat(frame["present_scores"])[0].to_numpy(zero_copy_only=False).astype(np.float64)
        n_classes = len(self.run.names)
        is_new = ~np.isin(row * n_classes + class_id, self._given(frame))
        self.new.add(frame, row[is_new], class_id[is_new], -p[is_new])

    def _given(self, frame: Frame) -> np.ndarray:
        """Return the given cells of a shard, as item · K + class."""
        column = self.run.given
        if not column:
            return np.empty(0, np.int64)
        if self.run.has_lists:
            row, class_id = cells(frame, column)
        else:
            row, class_id = np.arange(frame.n), frame.array(column).astype(np.int64)
        return np.asarray(row * len(self.run.names) + class_id)

    def _shown(self) -> list[int]:
        return by_count(self.new.count, self.limits.worst_classes)

    def places(self) -> Iterator[Place]:
        """Return where the surest are."""
        for c in self._shown():
            yield from self.new.of(c)

    def sections(self) -> Iterator[m.Section]:
        """Return how many classes are found, and where the new ones are seen."""
        cutoffs, totals = self.ctx.own("cutoffs"), self.ctx.own("totals")
        facts, shown = self.overlays.facts, self._shown()
        assert facts is not None, "stage `localize` writes label maps"
        n_pictures, n_present = int(totals["n_items_with"].sum()), int(totals["n_present"].sum())
        n_new, census = int(self.new.count.sum()), self.run.result("source", "census")
        n_given = 0 if census is None else int(census["n_given"].sum())
        seen = (n_present - n_new) / n_given if n_given else None
        pictures = plural(n_pictures, "picture")
        table = self._classes(shown[: self.limits.class_rows])
        intro = (
            f"A classifier predicted the classes of every cell of {pictures} ({facts.width} × "
            f"{facts.height} cells, the {facts.k} most probable classes kept in each). A class is "
            "found if its score in some cell is above the cutoff of the class, chosen "
            f"{RULES.get(str(cutoffs['rule']), RULES['recall'])}, on "
            f"{plural(int(cutoffs['n_items']), 'item')}."
        )
        tiles = []
        if seen is not None:
            intro += f" The maps show {percent(seen)} of the given labels."
            tiles.append(m.Tile("Given labels seen", percent(seen), "in label maps"))
        mean = decimal(n_present / max(n_pictures, 1), 2)
        tiles.append(m.Tile("Classes per picture", mean, "found in label maps", "believed"))
        blocks: list[m.Block] = [
            intro,
            m.Pair((_by_number(totals["n_items_with"]),), (table,) if shown else ()),
            m.Text("Most probable pictures of each class, with its place marked", "h3"),
            *(self._group(c, is_open=i < self.limits.open_classes) for i, c in enumerate(shown)),
        ]
        if more := int(np.count_nonzero(self.new.count)) - len(shown):
            said = Markup("{}: see <code>localize/</code>.")
            blocks.append(m.Text(said.format(plural(more, "more class", "more classes"))))
        yield m.Section(
            name="maps",
            title="What label maps show",
            short="Label maps",
            rank=30,
            blocks=tuple(blocks),
            headline=Markup(
                "Label maps show <em>{}</em> classes beyond the given ones in {}."
            ).format(count(n_new), pictures),
            tiles=tuple(tiles),
            findings=tuple(_blind(seen)),
            card=f"Label maps of {n_pictures:,} pictures show {n_new:,} classes that were not "
            "given.",
            artifacts=(("maps", table),),
        )

    def _classes(self, shown: list[int]) -> m.Table:
        cutoff = self.ctx.own("cutoffs")["cutoff"][shown]
        return m.Table(
            caption="Classes found that were not given",
            is_titled=True,
            columns=(
                m.column("Class", map(self.run.names.name, shown), "name"),
                m.column("Cutoff", (t if np.isfinite(t) else None for t in cutoff), "decimal"),
                m.column("Found in", self.ctx.own("totals")["n_present"][shown]),
                m.column("Not given", self.new.count[shown], "count", "strong"),
            ),
        )

    def _group(self, c: int, *, is_open: bool) -> m.Group:
        name, n = self.run.names.name(c), int(self.new.count[c])
        caption = f"Pictures in which {clean(name, 80)} is found but not given"
        items = self.overlays.items(self.new.of(c), c)
        return m.Group(
            name=name,
            note=f"found in {plural(n, 'picture')} without this label",
            blocks=(probable(items, "present", caption),),
            is_open=is_open,
        )


def _by_number(with_n: np.ndarray) -> m.Table:
    n = np.flatnonzero(with_n)[:MOST_COUNTS]
    return m.Table(
        caption="Classes found in a picture",
        is_titled=True,
        columns=(
            m.column("Classes", n),
            m.column("Pictures", with_n[n]),
            m.column("", with_n[n] / with_n.max(initial=1), "share"),
        ),
    )


def _blind(seen: float | None) -> Iterator[m.Finding]:
    if seen is not None and seen < 0.5:
        yield m.Finding(
            f"Label maps show only {percent(seen)} of the given labels",
            "The classifier may have other classes than the data, or another order of them; or it "
            "cannot recognise what single cells show. Do not train on its crops until this is "
            "resolved.",
            "maps",
            rank=30,
        )


KNOWN_OF = {
    POSITIVES: "The precision of added labels is not known: labels say which classes items have, "
    "not which are absent. To measure it, give `localize.reference` a table of items with all "
    "their classes.",
    COMPLETE: "The source's lists count as complete, so any further class contradicts them; no "
    "label was added.",
    KNOWN: "Cutoffs and probabilities come from {n_items:,} items of which some classes are known; "
    "they hold for the others if which classes are known does not depend on the maps’ scores.",
    REFERENCE: "Cutoffs and probabilities come from {n_items:,} items of the reference; they hold "
    "for the others if the reference was drawn at random.",
}


class Added(Part):
    """How far labels that stage `decide_maps` added can be relied on, for the data card."""

    def sections(self) -> Iterator[m.Section]:
        """Return the paragraph."""
        outcome = self.ctx.own("outcome")
        n_items = int(self.ctx.result(self.ctx.beliefs_stage, "cutoffs")["n_items"])
        n_given = int(self.ctx.result("source", "census")["n_given"].sum())
        known = KNOWN_OF[str(outcome["known"])].format(n_items=n_items)
        added = int(outcome["added"].sum())
        yield m.Section(
            name="added", card=f"{added:,} labels were added to {n_given:,} given ones. {known}"
        )
