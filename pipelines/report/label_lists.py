"""What a run found out about items with several labels, and about what their label maps show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from labelops.multilabel.beliefs import expected_errors
from pipelines.core.reader import frames
from pipelines.core.stage import Arrays
from pipelines.core.state import Run
from pipelines.labels.columns import flat
from pipelines.maps.columns import MapFacts
from pipelines.report import model
from pipelines.report.limits import Limits
from pipelines.report.look import Looker
from pipelines.report.overlays import overlay
from pipelines.report.scan import Chosen, Names, Place, places
from pipelines.report.select import Rows, Smallest
from pipelines.storage.frame import Frame

Result = Callable[[str, str], Arrays | None]
"""Result of a step of a stage (by kind), or None."""


class Listed:
    """The surest items of every class, and how many there are."""

    def __init__(self, n_classes: int, each: int) -> None:
        self.rows = Smallest(each)
        self.count = np.zeros(n_classes, np.int64)

    def add(self, frame: Frame, row: np.ndarray, class_id: np.ndarray, p: np.ndarray) -> None:
        """Take in cells of a shard."""
        self.count += np.bincount(class_id, minlength=len(self.count))
        self.rows.add(
            {
                "group": class_id,
                "key": -p,
                "hash": frame.array("item_hash")[row],
                "shard": np.full(len(row), frame.index, np.int64),
                "row": row,
            }
        )


@dataclass
class ListsPart:
    """The parts of a report that are about lists of labels, and about label maps."""

    run: Run
    names: Names
    limits: Limits
    looker: Looker
    result: Result
    counts: Mapping[str, int]

    @property
    def has_lists(self) -> bool:
        """Whether stage `multilabel` was done."""
        return "missing_ids" in self.looker.types

    @property
    def has_maps(self) -> bool:
        """Whether stage `localize` was done."""
        return "present_ids" in self.looker.types

    @cached_property
    def _chosen(self) -> dict[str, Listed]:
        """Find the items worth showing, in one pass."""
        kinds = [*(["missing", "wrong"] if self.has_lists else []), *(["found"] * self.has_maps)]
        chosen = {kind: Listed(len(self.names), self._each()) for kind in kinds}
        if not kinds:
            return chosen
        columns = [f"{kind}_{what}" for kind in kinds[:2] for what in ("ids", "probs")]
        columns = [name for name in columns if not name.startswith("found")]
        if self.has_maps:
            given = [name for name in ("given_ids", "given") if name in self.looker.types]
            columns += ["present_ids", "present_scores", *given]
        for frame in frames(self.run, ["item_hash", *columns]):
            for kind in kinds:
                self._choose(frame, kind, chosen[kind])
        return chosen

    def _each(self) -> int:
        """Items shown of each class, so that with many classes the page stays light."""
        fair = self.limits.suspects // (2 * max(min(len(self.names), self._most), 1))
        return max(1, min(self.limits.suspects_per_class, fair))

    @property
    def _most(self) -> int:
        return self.limits.worst_classes

    def _choose(self, frame: Frame, kind: str, listed: Listed) -> None:
        names = ("present_ids", "present_scores") if kind == "found" else None
        ids, scores = names or (f"{kind}_ids", f"{kind}_probs")
        if frame.n == 0:
            return
        row, class_id = _cells(frame, ids)
        p = flat(frame[scores])[0].to_numpy(zero_copy_only=False).astype(np.float64)
        if kind == "found":
            is_new = ~np.isin(row * len(self.names) + class_id, self._given(frame))
            row, class_id, p = row[is_new], class_id[is_new], p[is_new]
        listed.add(frame, row, class_id, p)

    def _given(self, frame: Frame) -> np.ndarray:
        """Return the given cells of a shard, as item · K + class."""
        if "given_ids" in frame.reads:
            row, class_id = _cells(frame, "given_ids")
        elif "given" in frame.reads:
            row, class_id = np.arange(frame.n), frame.array("given").astype(np.int64)
        else:
            return np.empty(0, np.int64)
        return np.asarray(row * len(self.names) + class_id)

    def places(self) -> list[Place]:
        """Return where everything is that is shown."""
        chosen = self._chosen
        together = [chosen[kind] for kind in ("missing", "wrong") if kind in chosen]
        alone = [chosen["found"]] if self.has_maps else []
        groups = [group for group in (together, alone) if group]
        return places(
            *(
                listed.rows.of(c)
                for group in groups
                for c in self._shown(*group)
                for listed in group
            )
        )

    def _shown(self, *listed: Listed) -> list[int]:
        """Return classes with something to show, those with most of it first."""
        n = np.sum([one.count for one in listed], axis=0)
        return [int(c) for c in np.argsort(-n, kind="stable") if n[c]][: self._most]

    def _items(self, rows: Rows, class_id: int) -> tuple[model.Item, ...]:
        """Return the items of one class, the surest first, with what the map shows of it."""
        if not rows:
            return ()
        found = []
        listed = zip(rows["shard"].tolist(), rows["row"].tolist(), rows["key"], strict=True)
        for shard, row, key in listed:
            item = self.looker.item((shard, row), self.names)
            found.append(
                replace(item, score=-float(key), overlay=self._overlay(shard, row, class_id))
            )
        return tuple(found)

    @cached_property
    def _facts(self) -> MapFacts | None:
        if not self.has_maps:
            return None
        layers = [layer for layer in self.looker.layout.layers if layer.stage in layer.schemas]
        schemas = [layer.schemas[layer.stage] for layer in layers]
        return MapFacts.of(next(s for s in reversed(schemas) if "map_ids" in s.names))

    @cached_property
    def _cutoffs(self) -> list[float]:
        found = self.result("localize", "cutoffs")
        if found is None:
            return [0.5] * len(self.names)
        return [float(t) if 0 < t < 1 else 0.5 for t in found["cutoff"]]

    def _overlay(self, shard: int, row: int, class_id: int) -> model.Overlay | None:
        if self._facts is None:
            return None
        return overlay(
            self.looker.values((shard, row)),
            self._facts,
            class_id,
            self.names.name(class_id),
            cutoff=self._cutoffs[class_id],
            most=self.limits.overlay_side,
        )

    # -- lists -------------------------------------------------------------------------------------

    def lists(self, chosen: Chosen) -> model.LabelLists | None:
        """Return what was found out about lists of labels; None where items have one each."""
        found = self.result("multilabel", "estimates")
        if found is None or not self.has_lists:
            return None
        missing, wrong = self._chosen["missing"], self._chosen["wrong"]
        outcome = self.result("decide_labels", "outcome")
        shown = self._shown(missing, wrong)
        n_given, n_known = found["n_given"][:, 1], found["n_given"].sum()
        beliefs = self.result("multilabel", "beliefs")
        believed: tuple[float | None, float | None] = (None, None)
        if beliefs is not None:
            believed = expected_errors(
                int(n_given.sum()), wrong=float(beliefs["wrong"]), missing=float(beliefs["missing"])
            )
        return model.LabelLists(
            given=int(n_given.sum()),
            unknown=max(self._n_live() * len(self.names) - int(n_known), 0),
            flagged_items=self._n_flagged,
            wrong=_total(found, "wrong", 1),
            missing=_total(found, "missing", 0),
            believed_wrong=believed[0],
            believed_missing=believed[1],
            classes=tuple(self._class(found, c, outcome) for c in _by_doubt(found)),
            suspects=tuple(
                model.Suspects(
                    name=self.names.name(c),
                    n_missing=int(missing.count[c]),
                    n_wrong=int(wrong.count[c]),
                    missing=self._items(missing.rows.of(c), c),
                    wrong=self._items(wrong.rows.of(c), c),
                )
                for c in shown
            ),
            suspects_left_out=int(np.count_nonzero(missing.count + wrong.count)) - len(shown),
            added=None if outcome is None else int(outcome["added"].sum()),
            removed=None if outcome is None else int(outcome["removed"].sum()),
            by_reason=chosen.reasons.ranked(self.limits.reasons),
            edits=tuple(self._edit(place) for place in _in_order(chosen.changes.rows)),
            n_edited=self.counts.get("relabel", 0),
        )

    def _n_live(self) -> int:
        return sum(self.looker.layout.n_live(i) for i in range(len(self.run.source.shards)))

    @cached_property
    def _n_flagged(self) -> int:
        flags = (frame["is_label_issue"] for frame in frames(self.run, ["is_label_issue"]))
        return sum(int(flag.sum().as_py() or 0) if len(flag) else 0 for flag in map(_column, flags))

    def _class(self, found: Arrays, c: int, outcome: Arrays | None) -> model.ListedClass:
        n_no, n_yes = (int(n) for n in found["n_given"][c])
        return model.ListedClass(
            name=self.names.name(c),
            given=n_yes,
            ruled_out=n_no,
            wrong=_of_class(found, "wrong", c, n_yes),
            missing=_of_class(found, "missing", c, n_no),
            flagged_wrong=int(self._chosen["wrong"].count[c]),
            flagged_missing=int(self._chosen["missing"].count[c]),
            removed=None if outcome is None else int(outcome["removed"][c]),
            added=None if outcome is None else int(outcome["added"][c]),
        )

    def _edit(self, place: Place) -> model.ListEdit:
        values, item = self.looker.values(place), self.looker.item(place, self.names)
        one = values.get("given")
        listed = _list(values.get("given_ids")) if one is None else [one]
        ids = [c for c in listed if isinstance(c, int)]
        before = [self.names.name(c) for c in ids]
        after = [self.names.label(label) for label in _list(values.get("labels_clean"))]
        confidence = values.get("confidence")
        return model.ListEdit(
            item=item,
            kept=tuple(name for name in before if name in after),
            removed=tuple(name for name in before if name not in after),
            added=tuple(name for name in after if name not in before),
            confidence=confidence if isinstance(confidence, float) else None,
            reason=str(values.get("reason") or ""),
        )

    # -- maps --------------------------------------------------------------------------------------

    def maps(self, chosen: Chosen) -> model.LabelMapsFound | None:
        """Return what label maps show; None without."""
        cutoffs, totals = self.result("localize", "cutoffs"), self.result("localize", "totals")
        facts = self._facts
        if facts is None or cutoffs is None or totals is None:
            return None
        new, with_n = self._chosen["found"], totals["n_items_with"]
        outcome = self.result("decide_maps", "outcome")
        shown = self._shown(new)
        return model.LabelMapsFound(
            pictures=int(with_n.sum()),
            columns=facts.width,
            rows=facts.height,
            per_cell=facts.k,
            image_size=facts.image_size,
            rule=str(cutoffs["rule"]),
            chosen_on=int(cutoffs["n_items"]),
            given_seen=self._given_seen(totals, new),
            by_count=tuple((n, int(with_n[n])) for n in np.flatnonzero(with_n).tolist())[:12],
            classes=tuple(
                model.SeenClass(
                    name=self.names.name(c),
                    cutoff=_finite(cutoffs["cutoff"][c]),
                    known=int(cutoffs["n_known_present"][c]),
                    found=int(totals["n_present"][c]),
                    new=int(new.count[c]),
                    items=self._items(new.rows.of(c), c),
                )
                for c in shown
            ),
            found=int(totals["n_present"].sum()),
            found_new=int(new.count.sum()),
            classes_left_out=int(np.count_nonzero(new.count)) - len(shown),
            **({} if outcome is None else self._added(outcome, chosen)),
        )

    def _added(self, outcome: Arrays, chosen: Chosen) -> dict[str, Any]:
        return {
            "added": int(outcome["added"].sum()),
            "by_reason": chosen.reasons.ranked(self.limits.reasons),
            "edits": tuple(self._edit(place) for place in _in_order(chosen.changes.rows)),
            "n_edited": self.counts["relabel"],
        }

    def _given_seen(self, totals: Arrays, new: Listed) -> float | None:
        census = self.result("source", "census")
        n_given = 0 if census is None else int(census["n_given"].sum())
        seen = int(totals["n_present"].sum()) - int(new.count.sum())
        return seen / n_given if n_given else None


def _column(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    return values.fill_null(False).cast(pa.int64())


def _cells(frame: Frame, column: str) -> tuple[np.ndarray, np.ndarray]:
    ids, start = flat(frame[column])
    row = np.repeat(np.arange(frame.n), np.diff(start))
    return row, ids.to_numpy(zero_copy_only=False).astype(np.int64)


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _in_order(rows: Rows) -> list[Place]:
    return list(zip(rows["shard"].tolist(), rows["row"].tolist(), strict=True)) if rows else []


def _of_class(found: Arrays, kind: str, c: int, n: int) -> model.Estimate:
    """Return a number of items: an estimate, and the interval of its rate times their number."""
    low, high = (float(found[f"{kind}_rate_{end}"][c]) * n for end in ("low", "high"))
    value = float(found[f"n_{kind}"][c])
    if not np.isfinite([low, high]).all():
        return model.Estimate(value)
    return model.Estimate(value, min(low, value), max(high, value))


def _total(found: Arrays, kind: str, column: int) -> model.Estimate:
    """Return the sum over classes; their errors are taken as independent."""
    n, each = found["n_given"][:, column], found[f"n_{kind}"].astype(np.float64)
    ends = [np.nan_to_num(found[f"{kind}_rate_{end}"] * n) for end in ("low", "high")]
    below, above = (float(np.sqrt(np.square(end - each).sum())) for end in ends)
    value = float(each.sum())
    return model.Estimate(value, max(value - below, 0.0), value + above)


def _by_doubt(found: Arrays) -> list[int]:
    """Return classes, those with most wrong and missing labels first."""
    doubt = found["n_wrong"] + found["n_missing"]
    order: list[int] = np.lexsort((np.arange(len(doubt)), -doubt)).tolist()
    return order
