"""What was changed, whatever the kind of label: by which rules, and which items."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.decisions import HELD_TEXT, Held
from pipelines.core.stage import Arrays, Context
from pipelines.decisions.counts import PRODUCT, has_product
from pipelines.decisions.product import decided_columns, narrow, with_left_out
from pipelines.report import model as m
from pipelines.report.look import Reader
from pipelines.report.part import Part
from pipelines.report.select import Place, Shortlist, Tally, count_pairs
from pipelines.report.text import count, percent, plural, verb
from pipelines.storage.frame import Frame

# R rules


class Rule(NamedTuple):
    """One rule of the gate: what it proposed, what shipped, and what that is worth."""

    name: str
    meaning: str
    proposed: int
    shipped: int
    fixed: float | None
    """None where nothing can be expected; so with the next two."""
    broken: float | None
    gain: m.Estimate | None
    verdict: str
    """``shipped``, ``shipped in part`` or ``held back``."""
    why: str
    """How the gain is known, measured or only expected, and what held changes back."""


def rules(gate: Arrays) -> tuple[Rule, ...]:
    """Read what the gate of the stage that decided found, as the result of its last step has it."""
    shown = np.flatnonzero(gate["changes_labels"] & (gate["proposed"] + gate["shipped"] > 0))
    return tuple(_rule(gate, r) for r in shown.tolist())


def _rule(gate: Arrays, r: int) -> Rule:
    held_back = {held.name.lower(): text for held, text in zip(Held, HELD_TEXT, strict=True)}
    shipped = int(gate["shipped"][r])
    stopped = zip(gate["held_reasons"].tolist(), gate["held"][r].tolist(), strict=True)
    reasons = [f"{n:,} {held_back[why]}" for why, n in stopped if n and held_back.get(why)]
    whole = "shipped in part" if reasons else "shipped"
    return Rule(
        name=str(gate["rules"][r]),
        meaning=str(gate["texts"][r]),
        proposed=int(gate["proposed"][r]),
        shipped=shipped,
        fixed=_expected(gate["expected_fixed"][r]),
        broken=_expected(gate["expected_broken"][r]),
        gain=None
        if np.isnan(gate["expected_fixed"][r])
        else m.Estimate(*(float(gate[f"gain{end}"][r]) for end in ("", "_low", "_high"))),
        verdict=whole if shipped else "held back",
        why="; ".join([str(gate["verdict"][r]), *reasons]),
    )


def _expected(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


class Changes(Part):
    """What the stage that decided changed, in the product if there is one."""

    def __init__(self, run: Reader, ctx: Context) -> None:
        super().__init__(run, ctx)
        columns = frozenset(run.types)
        self.clean = decided_columns(columns)[0]
        self.product = None
        decided = [*decided_columns(columns), run.given]
        if has_product(run.run):
            self.product = run.run.context(PRODUCT, run.layout)
            decided = narrow(self.product)
        self.reads = tuple(dict.fromkeys(["item_hash", *decided]))
        self.has_lists = pa.types.is_list(run.types[self.clean])
        self.changed = Shortlist(1, run.limits.changes)
        self.pairs: Counter[tuple[int, int]] = Counter()
        self.reasons = Tally()

    def scan(self, frame: Frame) -> None:
        """Count reasons and changes, and remember those that we are least sure of."""
        product = self.product
        decided = frame.table(self.reads) if product is None else with_left_out(frame, product)
        decision = decided["decision"]
        for entry in decided["reason"].filter(pc.not_equal(decision, "keep")).value_counts():
            self.reasons.add(entry["values"].as_py() or "(none)", entry["counts"].as_py())
        rows = np.flatnonzero(pc.equal(decision, "relabel").to_numpy())
        sure = decided["confidence"].cast(pa.float64()).to_numpy()[rows]
        self.changed.add(frame, rows, np.zeros(rows.size, np.int64), sure)
        if not self.has_lists and not self.run.has_lists:
            after = decided[self.clean].combine_chunks().take(pa.array(rows))
            self.pairs += count_pairs(frame.array(self.run.given)[rows], self.run.names.ids(after))

    def places(self) -> Iterable[Place]:
        """Return where the changes are that are shown."""
        return self.changed.of(0)

    def sections(self) -> Iterator[m.Section]:
        """Return the changes, and the gate that let them pass."""
        outcome = self.run.outcome()
        assert outcome is not None, "a stage that decides counts what came of it"
        yield self._changes(outcome)
        if gate := rules(outcome):
            yield _gate(gate)

    def _changes(self, outcome: Arrays) -> m.Section:
        shown, n = tuple(map(self._change, self.changed.of(0))), int(self.changed.count[0])
        reasons = self.reasons.ranked(self.limits.reasons)
        why = m.Table(
            caption="Reasons for all decisions",
            is_titled=True,
            columns=(
                m.column("Reason", (reason for reason, _ in reasons), "text"),
                m.column("Items", (number for _, number in reasons)),
            ),
        )
        n_changed, first = int(outcome["shipped"].sum()), ""
        tables: m.Block = why
        if len(shown) < n:
            what = "items" if self.has_lists else "changes"
            first = f"The {len(shown)} {what} shown are the least certain ones: check them first. "
        if not self.has_lists and self.run.has_lists:
            section = m.Section(name="changes", title="Chosen labels", rank=110)
            what = "label"
            tile = m.Tile("Labels chosen", count(n), f"{percent(n / self.ctx.n_items)} of items")
            intro = (
                f"Of {plural(n, 'item')} one of several candidates was chosen; the dataset keeps "
                f"the candidates beside it. {first}Every choice is one row of the decision log."
            )
        elif not self.has_lists:
            section = m.Section(name="changes", title="Changed labels", rank=110)
            what = "label"
            tile = m.Tile("Labels changed", count(n), f"{percent(n / self.ctx.n_items)} of items")
            tables = m.Pair((self._pairs(),), (why,))
            intro = (
                f"{plural(n, 'label')} {verb(n, 'was', 'were')} changed; the dataset keeps the "
                f"given label beside the new one. {first}Every change is one row of the decision "
                "log."
            )
        else:
            title, short = "Changed lists of labels", "Changed lists"
            section = m.Section(name="edits", title=title, short=short, rank=35)
            what = "list of labels"
            added, removed = (int(outcome[name].sum()) for name in ("added", "removed"))
            tile = m.Tile("Labels added", count(added), f"{count(removed)} removed")
            intro = (
                f"{plural(added, 'label')} {verb(added, 'was', 'were')} added and "
                f"{plural(removed, 'label')} removed, in {plural(n, 'item')}; the dataset keeps "
                f"the given lists beside the new ones. {first}Every label that was added, removed, "
                "or suspected but kept is one row of the decision log."
            )
        none = m.Text(f"No {what} was changed.", "intro fine")
        tiles = [replace(tile, tone="believed")]
        for name, tone in (("fixed", "good"), ("broken", "wrong")):
            value = _expected(outcome[f"shipped_expected_{name}"].sum())
            if value is not None:
                under = f"of {count(n_changed)} changed"
                tiles.append(m.Tile(f"Expected {name}", count(value), under, tone))
        blocks = (intro, tables, m.Drawing("changes.html.j2", shown)) if n else (none,)
        return replace(section, blocks=blocks, tiles=tuple(tiles))

    def _pairs(self) -> m.Table:
        ranked = sorted(self.pairs.items(), key=lambda entry: (-entry[1], entry[0]))
        ranked, name = ranked[: self.limits.change_pairs], self.run.names.name
        return m.Table(
            caption="Most frequent changes",
            is_titled=True,
            columns=(
                m.column(
                    "From → to",
                    ((name(a) or "unlabelled", name(b)) for (a, b), _ in ranked),
                    "change",
                ),
                m.column("Labels", (n for _, n in ranked)),
            ),
        )

    def _change(self, place: Place) -> m.Change:
        values, item, names = self.run.values(place), self.run.item(place), self.run.names
        confidence = values.get("confidence")
        given, clean = values.get(self.run.given), values.get(self.clean)
        before = [names.name(c) for c in _several(given) if isinstance(c, int) and c >= 0]
        after = [names.label(label) for label in _several(clean)]
        kept = tuple(name for name in before if name in after) if self.has_lists else None
        return m.Change(
            item=item,
            removed=tuple(name for name in before if name not in (kept or ())),
            added=tuple(name for name in after if name not in (kept or ())),
            kept=kept,
            confidence=confidence if isinstance(confidence, float) else None,
            reason=str(values.get("reason") or ""),
        )


def _several(value: object) -> list[object]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _gate(gate: tuple[Rule, ...]) -> m.Section:
    held = sum(rule.proposed - rule.shipped for rule in gate)
    finding = m.Finding(
        f"{plural(held, 'proposed change')} held back",
        "A rule changes labels only if it clearly fixes more of them than it breaks, "
        "and within limits. Review a sample to decide by measured instead of expected gain.",
        "rules",
        rank=90,
    )
    return m.Section(
        name="rules",
        title="The gate",
        short="Gate",
        rank=120,
        blocks=(
            "Each rule proposes changes. The gate makes them only if the rule clearly fixes more "
            "labels than it breaks, and no more of them than the recipe allows.",
            m.Drawing("gate.html.j2", gate),
        ),
        findings=(finding,) if held > 0 else (),
    )
