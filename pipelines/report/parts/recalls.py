"""Which unknown classes networks take for present, where positives may be missing from lists."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from markupsafe import Markup

from labelops.partial.recall import CLASS_THRESHOLD, STEP, THRESHOLD
from pipelines.core.stage import Context
from pipelines.inference.missing import NETWORKS, recalls_folder
from pipelines.labels.classes import some
from pipelines.report import model as m
from pipelines.report.look import Reader
from pipelines.report.part import Part
from pipelines.report.parts.lists import suspects_each
from pipelines.report.select import Place, Shortlist, by_count
from pipelines.report.text import clean, count, decimal, percent, plural, verb
from pipelines.storage.frame import Frame

RULES = {
    "largest": f"the largest losses that they would have as absent ones, {percent(STEP)} of all "
    "pairs more with every epoch: how many there are is set beforehand, and says nothing of how "
    "many are missing",
    "class": f"those more probable than {decimal(CLASS_THRESHOLD, 1)} and than the class is on "
    "average",
    "fixed": f"those more probable than {decimal(THRESHOLD, 1)}",
}


class Recalls(Part):
    """What the networks of stage `infer` recalled."""

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        found = run.result("infer", NETWORKS) or {}
        self.found = found if "recalled" in found else None
        self.folder = recalls_folder(ctx.stage)
        self.reads = () if self.found is None else ("item_id", "item_hash", self.folder)
        each = suspects_each(len(run.names), run.limits)
        self.likely = Shortlist(len(run.names), each)

    def scan(self, frame: Frame) -> None:
        """Remember the most probable of each class in the last epoch."""
        assert self.found is not None
        log = frame.file(self.folder)
        log = log.filter(pc.equal(log["epoch"], pa.scalar(len(self.found["recalled"]), pa.int16())))
        row = pc.index_in(log["item_id"], value_set=frame["item_id"]).to_numpy()
        class_id, p = (log[name].to_numpy() for name in ("class_id", "p_present"))
        self.likely.add(frame, row.astype(np.int64), class_id, -p.astype(np.float64))

    def _shown(self) -> list[int]:
        return by_count(self.likely.count, self.limits.worst_classes)

    def places(self) -> Iterator[Place]:
        """Return where the most probable are."""
        for c in self._shown():
            yield from self.likely.of(c)

    def sections(self) -> Iterator[m.Section]:
        """Return how many are recalled in each epoch, and the most probable."""
        found = self.found
        if found is None:
            return
        loss = getattr(self.ctx.config, "missing_loss", "")
        n_unknown, n_last = int(found["n_unknown"]), int(found["recalled"][-1])
        share = percent(n_last / max(n_unknown, 1))
        n_items = plural(int(found["n"]), "item")
        said = (
            f"Of {plural(n_unknown, 'item-class pair')} of {n_items} that are neither given nor "
            f"ruled out, {count(n_last)} ({share}) {_is(n_last)} recalled in the last epoch, by a "
            "network that was not trained on the item. Recalled are "
            f"{RULES[str(found['rule'])]}. A recalled pair is a hint where to look first. "
            "It is no label: none was added, and how many are right nobody knows before people "
            "have looked at some."
        )
        log = Markup("All of them, epoch by epoch: <code>{}/</code>.")
        by_epoch, by_class = self._by_epoch(), self._by_class()
        groups = [
            self._group(c, is_open=i < self.limits.open_classes)
            for i, c in enumerate(self._shown())
        ]
        blocks: list[m.Block] = [said, m.Pair((by_epoch,), (by_class,) if groups else ())]
        if groups:
            blocks += [m.Text("Most probable recalled classes in the last epoch", "h3"), *groups]
        yield m.Section(
            name="recalls",
            title="Classes that may be present and were not given",
            short="Recalled",
            rank=24,
            blocks=(*blocks, m.Text(log.format(self.folder))),
            findings=tuple(self._findings()),
            card=f"Of {n_unknown:,} item-class pairs that are neither given nor ruled out, "
            f"{n_last:,} were recalled as possibly present (loss {loss}); none was added.",
            artifacts=(("recalls", by_epoch),),
        )

    def _by_epoch(self) -> m.Table:
        assert self.found is not None
        recalled, p = self.found["recalled"], self.found["mean_p"]
        return m.Table(
            caption="Recalled pairs by epoch",
            is_titled=True,
            columns=(
                m.column("Epoch", range(1, len(recalled) + 1)),
                m.column("Recalled", recalled, "count", "strong"),
                m.column("Part of the most", recalled / max(int(recalled.max()), 1), "share"),
                m.column("For the first time", self.found["first"]),
                m.column(
                    "Mean probability",
                    (q if n else None for q, n in zip(p, recalled, strict=True)),
                    "decimal",
                ),
            ),
        )

    def _by_class(self) -> m.Table:
        assert self.found is not None
        shown = by_count(self.found["last"], self.limits.most_classes)
        census = self.run.result("source", "census")
        assert census is not None, "stage `source` counts classes"
        return m.Table(
            caption="Recalled in the last epoch, by class",
            is_titled=True,
            columns=(
                m.column("Class", map(self.run.names.name, shown), "name"),
                m.column("Given", census["n_given"][shown]),
                m.column("Recalled", self.found["last"][shown], "count", "strong"),
            ),
            n_open=self.limits.class_rows,
            more="classes",
        )

    def _group(self, c: int, *, is_open: bool) -> m.Group:
        name, places = self.run.names.name(c), self.likely.of(c)
        items = tuple(self.run.scored(place, -key) for place, key in places.items())
        n = int(self.likely.count[c])
        note = f"{count(n)} recalled, of which the most probable {_is(len(items))} shown"
        listed = m.Items(
            caption=f"Items in which {clean(name, 80)} is recalled",
            items=items,
            score="said by the network",
            score_kind="percent",
        )
        return m.Group(name=name, note=note, blocks=(listed,), is_open=is_open)

    def _findings(self) -> Iterator[m.Finding]:
        census = self.run.result("source", "census")
        assert census is not None, "stage `source` counts classes"
        for n, what, why in (
            (0, "given to no item", "Nothing is learned of them; no item is found to have them."),
            (
                1,
                "given to one item",
                "Whether other items have them is told from one example, and whether this one "
                "has, from none.",
            ),
        ):
            rare = np.flatnonzero(census["n_given"] == n)
            if len(rare):
                names = some([clean(self.run.names.name(c), 40) for c in rare.tolist()])
                yield m.Finding(
                    f"{plural(len(rare), 'class', 'classes')} {what}: {names}",
                    why,
                    "recalls",
                    rank=25,
                )


def _is(n: int) -> str:
    return verb(n, "is", "are")
