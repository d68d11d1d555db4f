"""A finished run folder → what the report says."""

import io
import zipfile
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from labelops.decisions import HELD_TEXT, Held
from pipelines.core.results import load_result, result_name
from pipelines.core.stage import Arrays
from pipelines.core.state import Run
from pipelines.decisions.counts import counts_of, deciding_stage
from pipelines.report import model
from pipelines.report.about import about, quarantine
from pipelines.report.bags import bags, class_names
from pipelines.report.label_lists import ListsPart
from pipelines.report.limits import Limits
from pipelines.report.look import Looker
from pipelines.report.results import Gate, calibration, estimates, gate
from pipelines.report.scan import Chosen, Members, Names, Place, choose, members, places
from pipelines.report.sections import sections
from pipelines.report.select import Rows


@dataclass
class Collector:
    """The parts of one report, and what they share."""

    run: Run
    limits: Limits

    @cached_property
    def names(self) -> Names:
        """The classes."""
        found = self.result("source", "values")
        if found is None:
            return Names(class_names(self.run) or self.run.source.class_names, ())
        return Names(found["names"].tolist(), found["values"].tolist())

    @cached_property
    def chosen(self) -> Chosen:
        """The items worth showing, and counts over all items."""
        return choose(self.run, self.names, self.limits)

    @cached_property
    def looker(self) -> Looker:
        """Looks up chosen items."""
        return Looker(self.run, self.limits)

    def stage(self, kind: str) -> str | None:
        """Name of the last stage of a kind that had something to do, or None."""
        done = [e.name for e in self.run.entries if e.skipped is None]
        return next((name for name in reversed(done) if name.split("@")[0] == kind), None)

    def result(self, kind: str, step: str) -> Arrays | None:
        """Result of a step of a stage, or None where the run has none."""
        name = self.stage(kind)
        if name is None or not self.run.store.exists(result_name(name, step)):
            return None
        return load_result(self.run.store, name, step)

    def find(self, kind: str, array: str) -> Arrays | None:
        """Result of whichever step of a stage has an array of some name, or None."""
        name = self.stage(kind)
        if name is None:
            return None
        for leaf in self.run.store.list(f"{name}/_results"):
            step = leaf.removesuffix(".npz")
            if leaf.startswith(".") or array not in self._arrays(name, step):
                continue
            return load_result(self.run.store, name, step)
        return None

    def _arrays(self, stage: str, step: str) -> set[str]:
        """Names of a result's arrays; some results are large, and are not unpacked for that."""
        packed = io.BytesIO(self.run.store.read_bytes(result_name(stage, step)))
        with zipfile.ZipFile(packed) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}

    def report(self) -> model.Report:
        """Everything together."""
        chosen, limits = self.chosen, self.limits
        found = estimates(self.find, self.names.names, chosen.flagged, chosen.flagged_pairs, limits)
        worst = {c: chosen.worst.of(c) for c in self._worst_classes(found.wrong_per_class)}
        conflicts = chosen.conflicts.smallest(limits.duplicate_sets)
        sets = members(self.run, conflicts[0], len(self.names), limits)
        lists = ListsPart(self.run, self.names, limits, self.looker, self.result, self.counts)
        self.looker.look(
            [
                *lists.places(),
                *places(*worst.values(), chosen.outliers.rows, chosen.changes.rows),
                *sorted({place for listed in sets.values() for place in listed.places}),
            ]
        )
        facts, gated = about(self.run), self._gate()
        return model.Report(
            title=facts.title,
            recipe=self.run.recipe.name,
            finished=facts.finished,
            ledger=self._ledger(),
            n_classes=len(self.names),
            has_pictures=self.looker.has_pictures,
            wrong=found.wrong,
            wrong_share=found.wrong_share,
            doubted=gated.doubted,
            fixed=gated.fixed,
            broken=gated.broken,
            flagged=int(chosen.flagged.sum()) if self.stage("confident") else None,
            classes=found.classes,
            confusions=found.confusions,
            confusion_table=found.table,
            confusion_map=found.map,
            worst=tuple(self._worst(c, rows) for c, rows in worst.items()),
            worst_left_out=int(np.count_nonzero(chosen.flagged)) - len(worst),
            duplicates=self._duplicates(sets, *conflicts),
            outliers=self._outliers(),
            calibration=calibration(self.find),
            changes=self._changes(),
            rules=gated.rules,
            bags=bags(self.run, limits),
            lists=lists.lists(chosen),
            maps=lists.maps(chosen),
            sections=sections(self.run, limits),
            is_decided="keep" in self.counts,
            changed=gated.changed,
            quarantine=quarantine(self.run, limits),
            timings=facts.timings,
            facts=facts.facts,
            settings=facts.settings,
            notes=facts.notes,
            notices=tuple(self.run.notices()),
        )

    def _worst_classes(self, wrong: np.ndarray | None) -> list[int]:
        """Classes with flagged items, those with most estimated errors first."""
        flagged = self.chosen.flagged
        weight = flagged if wrong is None else wrong
        order = np.lexsort((np.arange(flagged.size), -flagged, -weight))
        return [int(c) for c in order if flagged[c]][: self.limits.worst_classes]

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many items were kept, changed or set aside."""
        return counts_of(self.run)

    def _ledger(self) -> model.Ledger:
        counts = self.counts
        kept = counts["source"] - counts["quarantined"]
        return model.Ledger(
            source=counts["source"],
            kept=counts["keep"] + counts["abstain"] if "keep" in counts else kept,
            relabelled=counts.get("relabel", 0),
            dropped=counts.get("drop", 0),
            review=counts.get("review", 0),
            quarantined=counts["quarantined"],
        )

    def _item(self, place: Place, score: str = "label_score") -> model.Item:
        return self.looker.item(place, self.names, score=score)

    def _worst(self, class_id: int, rows: Rows) -> model.WorstOfClass:
        return model.WorstOfClass(
            name=self.names.name(class_id),
            flagged=int(self.chosen.flagged[class_id]),
            items=tuple(self._item(place) for place in in_order(rows)),
        )

    def _duplicates(
        self, sets: dict[int, Members], order: np.ndarray, distances: np.ndarray
    ) -> model.Duplicates | None:
        if self.stage("neighbours") is None:
            return None
        shown = []
        for found, distance in zip(order.tolist(), distances.tolist(), strict=True):
            listed = sets[found]
            kind = "identical" if distance == 0 else "nearly identical"
            items = tuple(self._item(place) for place in listed.places)
            shown.append(model.DuplicateSet(kind=kind, size=listed.size, items=items))
        return model.Duplicates(
            conflict_sets=self.chosen.conflicts.ids.size,
            conflict_items=self.chosen.n_conflicts,
            duplicate_items=self.chosen.n_duplicates,
            shown=tuple(shown),
        )

    def _outliers(self) -> model.Outliers | None:
        if self.stage("neighbours") is None:
            return None
        found = in_order(self.chosen.outliers.rows)
        shown = tuple(self._item(place, "outlier_score") for place in found)
        return model.Outliers(count=self.chosen.n_outliers, shown=shown)

    def _gate(self) -> Gate:
        stage = deciding_stage(self.run)
        outcome = None if stage is None else self.result(stage, "outcome")
        if outcome is None:
            return Gate()
        held = {held.name.lower(): text for held, text in zip(Held, HELD_TEXT, strict=True)}
        return gate(outcome, held)

    def _changes(self) -> model.Changes | None:
        if self.stage("decide") is None:
            return None
        chosen, name = self.chosen, self.names.name
        pairs = sorted(chosen.change_pairs.items(), key=lambda entry: (-entry[1], entry[0]))
        return model.Changes(
            count=self.counts["relabel"],
            by_reason=chosen.reasons.ranked(self.limits.reasons),
            by_pair=tuple(
                (name(before), name(after), n)
                for (before, after), n in pairs[: self.limits.change_pairs]
            ),
            shown=tuple(self._change(place) for place in in_order(chosen.changes.rows)),
        )

    def _change(self, place: Place) -> model.Change:
        values, item = self.looker.values(place), self._item(place)
        confidence = values.get("confidence")
        return model.Change(
            item=item,
            before=item.given,
            after=self.names.label(values.get("label_clean")),
            confidence=confidence if isinstance(confidence, float) else None,
            reason=str(values.get("reason") or ""),
        )


def in_order(rows: Rows) -> list[Place]:
    """Places of chosen rows, as ordered."""
    if not rows:
        return []
    return list(zip(rows["shard"].tolist(), rows["row"].tolist(), strict=True))
