"""Reports as runs would give them, with names, numbers and pictures of one's own."""

import io
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from pipelines.maps.columns import MapFacts
from pipelines.report import model as m
from pipelines.report.about import Rejected, _quarantined
from pipelines.report.changes import Changes
from pipelines.report.limits import Limits, worst_per_class
from pipelines.report.names import Names
from pipelines.report.part import Part
from pipelines.report.parts.calibration import METRICS, Calibration
from pipelines.report.parts.lists import Lists
from pipelines.report.parts.maps import Maps
from pipelines.report.parts.neighbours import Neighbours
from pipelines.report.parts.noise import Noise
from pipelines.report.select import Groups, Shortlist, Tally

NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
EXCERPT = "Hukumar zabe ta sanya ranar da za a sake gudanar da zabe"


def picture(rng: np.random.Generator, side: int = 28) -> m.Picture:
    """Make a blurred blob on black, as a garment of Fashion-MNIST looks from afar."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    a, b = rng.uniform(0.15, 0.4, 2)
    blob = 255 * np.exp(-(((x / a) ** 4 + (y / b) ** 4) ** rng.uniform(0.6, 2)))
    pixels = np.clip(blob * rng.uniform(0.5, 1, (side, side)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return m.Picture("image/png", out.getvalue(), side, side)


class Planted:
    """Stands for a finished run, its context and its items: what parts ask of them is planted.

    Parameters
    ----------
    names
        Class names.
    results
        By step.
    text
        Stands for every string of the data, where there is one.
    picture
        Whether items have pictures, and which; None for a blob.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        results: dict[str, dict[str, Any]],
        *,
        n_items: int,
        limits: Limits,
        text: str | None = None,
        pictures: bool = True,
        side: int = 28,
        several: bool = False,
    ) -> None:
        self.names, self.limits, self.n_items = Names(names, ()), limits, n_items
        self.results, self.text, self.several = results, text, several
        self.has_lists, self.types = several, dict[str, Any]()
        self.rng = np.random.default_rng(7)
        self.pictures, self.side = pictures, side
        self.config, self.columns, self.types = None, (), {}

    def own(self, step: str) -> dict[str, Any]:
        return self.results[step]

    def result(self, kind: str, step: str) -> dict[str, Any] | None:
        return self.results.get(step)

    def outcome(self) -> dict[str, Any] | None:
        return self.results.get("outcome")

    def item(self, place: tuple[int, int], score: str = "") -> m.Item:
        class_id, i = place
        k = len(self.names)
        given = self.names.name(class_id)
        if self.several:
            given = ", ".join(self.names.names[: 1 + class_id % 3])
        return m.Item(
            item_id=f"fashion-{class_id:04d}-{i:03d}" if self.text is None else self.text,
            shard=(class_id + i) % 8,
            given=given,
            believed="" if self.several else self.names.name((class_id + 1) % k),
            score=0.004 * (i + 1) ** 1.5,
            picture=picture(self.rng, self.side) if self.pictures else None,
            excerpt="" if self.pictures else EXCERPT if self.text is None else self.text,
        )

    def values(self, place: tuple[int, int]) -> dict[str, Any]:
        c, k = place[0], len(self.names)
        given = list(range(c % min(k, 4), min(k, 12)))
        return {
            "given": given if self.several else c,
            "clean": self.names.names[:2] if self.several else self.names.name((c + 2) % k),
            "confidence": 0.9 + 0.001 * place[1] if c else None,
            "reason": "the model is sure of another class" if self.text is None else self.text,
        }


def made(part: type[Part], of: Planted, **planted: Any) -> Any:
    """Return a part that has looked through all shards, and found what is planted."""
    found = object.__new__(part)
    vars(found).update(run=of, ctx=of, limits=of.limits, **planted)
    return found


def shortlist(counts: Any, groups: dict[int, int]) -> Shortlist:
    """Return so many items of some groups; item i of group c is at (c, i)."""
    found = Shortlist(len(counts), max(groups.values(), default=1))
    found.count = np.asarray(counts, np.int64)
    places = [(c, i) for c, n in groups.items() for i in range(n)]
    column = np.array(places or np.empty((0, 2)), np.int64)
    key = -0.99 + column[:, 1] / 50
    found.rows = {"group": column[:, 0], "shard": column[:, 0], "row": column[:, 1], "key": key}
    return found


def calibrated(of_cells: bool) -> dict[str, Any]:
    """Return what stage `infer` measures."""
    middle = np.arange(10) / 10 + 0.05
    found: dict[str, Any] = {"n": np.array(3997)}
    found |= (
        {"slope": np.array(0.7), "shift": np.array(-0.1), "n_cells": np.array(39_970)}
        if of_cells
        else {"temperature": np.array(1.62), "before_accuracy": np.array(0.861)}
    )
    for when, gap in (("before", 0.22), ("after", 0.02)):
        found |= {f"{when}_{key}": np.array(gap / 3) for key, *_ in METRICS}
        found[f"{when}_bins_n"] = np.array([0, 0, 0, 10, 30, 60, 90, 140, 300, 1100])
        found[f"{when}_bins_confidence"] = middle
        found[f"{when}_bins_accuracy"] = middle * (1 - gap)
    return found


def outcome_of(n_classes: int, n: int, text: str | None) -> dict[str, Any]:
    """Return what the gate counts: a rule that shipped, and one that was held back."""

    def said(*texts: str) -> np.ndarray:
        return np.array(texts if text is None else [text] * len(texts), object)

    return {
        "rules": said("confident", "duplicates"),
        "texts": said("flagged, and the probability is at least 0.9", "the majority of their set"),
        "verdict": said("the gain is positive", "the interval of the gain contains zero"),
        "changes_labels": np.array([True, True]),
        "proposed": np.array([n, 14]),
        "shipped": np.array([n, 0]),
        "expected_fixed": np.array([0.93 * n, 8.0]),
        "expected_broken": np.array([0.03 * n, 6.0]),
        "shipped_expected_fixed": np.array([0.93 * n, 0.0]),
        "shipped_expected_broken": np.array([0.03 * n, 0.0]),
        "gain": np.array([0.9, 0.14]),
        "gain_low": np.array([0.79, -0.43]),
        "gain_high": np.array([0.96, 0.71]),
        "held_reasons": np.array(["no", "gate"]),
        "held": np.array([[n, 0], [0, 14]]),
        "added": np.bincount([n_classes - 1] * 210, minlength=n_classes),
        "removed": np.bincount([0] * 45, minlength=n_classes),
    }


def about_it(text: str | None) -> list[m.Section]:
    """Return what a run says of itself."""
    said = "image cannot be decoded: truncated" if text is None else text
    rows = tuple(Rejected(said, said, 17 + i) for i in range(3))
    rejected = m.Table(
        caption="Rows that could not be used, by reason",
        columns=(
            m.column("Reason", [said], "text"),
            m.column("Stage", ["infer" if text is None else text], "text"),
            m.column("Rows", [3]),
            m.column("Examples: item, shard and row", [rows], "rejected"),
        ),
    )
    settings = m.Table(
        caption="All settings of the recipe, as resolved",
        style="list settings",
        columns=(
            m.column("Setting", ["decide.relabel_confidence", text or "infer.folds"], "code"),
            m.column("Value", ["0.9", text or "5"], "code"),
        ),
        n_open=0,
        more="settings of the recipe",
    )
    drawn = {"notes": [said], "facts": [("Recipe", said), (said, "0.1.0")]}
    return [
        _quarantined(rejected),
        m.Section(
            name="accounts",
            title="Accounts",
            rank=135,
            blocks=(m.Drawing("accounts.html.j2", None),),
        ),
        m.Section(
            name="repeat",
            title="Repeat or undo",
            rank=150,
            blocks=(m.Drawing("repeat.html.j2", drawn), settings),
        ),
    ]


def report_of(sections: list[m.Section], ledger: m.Ledger, n_classes: int, title: str) -> m.Report:
    return m.Report(
        title=title,
        ledger=ledger,
        n_classes=n_classes,
        sections=tuple(sorted(sections, key=lambda section: section.rank)),
        is_decided=True,
    )


def example(
    names: tuple[str, ...] = NAMES,
    n: int = 4000,
    pictures: bool = True,
    *,
    side: int = 28,
    limits: Limits | None = None,
    text: str | None = None,
) -> m.Report:
    """Make a report as a run over ``n`` items would give, with everything that a page can show."""
    limits = limits or Limits()
    rng, k = np.random.default_rng(7), len(names)
    items = rng.multinomial(n, rng.dirichlet(np.full(k, 30)))
    joint = np.zeros((k, k))
    for given in range(k):
        wrong = items[given] * rng.uniform(0.04, 0.2)
        others = rng.dirichlet(np.full(k, 0.25))
        others[given] = 0
        joint[given] = wrong * others / max(others.sum(), 1e-9)
        joint[given, given] = items[given] - joint[given].sum()
    wrong_in = items - np.diag(joint)
    share, total = wrong_in / np.maximum(items, 1), float(wrong_in.sum())
    half = 1.96 * np.sqrt(np.maximum(share * (1 - share), 1e-9) / np.maximum(items, 1))
    estimates: dict[str, Any] = {"calibrated_joint": joint}
    surest: dict[str, Any] = {"is_flat": np.array(True)}
    for end, of_class, of_all in (
        ("", share, 1.0),
        ("_low", np.maximum(share - half, 0), 0.92),
        ("_high", np.minimum(share + half, 1), 1.08),
    ):
        estimates[f"noise_rate{end}"] = of_class
        surest[f"n_wrong{end}"] = np.array(total * of_all)
    n_changed = round(total * 0.6)
    outcome = outcome_of(k, n_changed, text)
    results = {
        "estimates": estimates,
        "surest": surest,
        "calibration": calibrated(False),
        "outcome": outcome,
    }
    of = Planted(
        names, results, n_items=n, limits=limits, text=text, pictures=pictures, side=side
    )  # fmt: skip
    n_groups, each = worst_per_class(k, limits)
    flagged = np.ceil(wrong_in * 0.9).astype(np.int64)
    conflicts = Groups()
    conflicts.add(np.arange(14, dtype=np.uint64), np.arange(14) / 100)
    pairs = Counter({(i, j): 1 + i for i in range(min(k, 8)) for j in range(min(k, 3)) if i != j})
    reasons = Tally()
    for i in range(3):
        reasons.add(f"two classes are likely {i}" if text is None else f"{text}{i}", 298 - i)
    n_shown = min(limits.changes, n_changed)
    parts = [
        made(
            Noise,
            of,
            estimates=estimates,
            surest=surest,
            worst=shortlist(
                flagged, dict.fromkeys(np.argsort(-wrong_in)[:n_groups].tolist(), each)
            ),
            pairs=pairs,
        ),
        made(
            Neighbours,
            of,
            outliers=shortlist([6], {0: 6}),
            conflicts=conflicts,
            n_duplicates=52,
            n_conflicts=30,
            members={i: (2, [(i % k, 1), ((i + 3) % k, 2)]) for i in range(14)},
        ),
        made(Calibration, of),
        made(
            Changes,
            of,
            clean="clean",
            has_lists=False,
            changed=shortlist([n_changed], {0: n_shown}),
            pairs=pairs,
            reasons=reasons,
        ),
    ]
    of.given = "given"  # type: ignore[attr-defined]
    dropped, review = 41, round(total * 0.2)
    ledger = m.Ledger(
        source=n,
        kept=n - n_changed - dropped - review - 3,
        relabelled=n_changed,
        dropped=dropped,
        review=review,
        unresolved=0,
        quarantined=3,
    )
    sections = [section for part in parts for section in part.sections()]
    title = "fashion_mnist" if text is None else text
    return report_of([*sections, *about_it(text)], ledger, k, title)


def listed(
    names: tuple[str, ...] = NAMES, *, pictures: bool = True, text: str | None = None
) -> m.Report:
    """Make a report on items that have several labels, with maps and a reference."""
    k, limits = len(names), Limits()
    c = np.arange(k)
    wrong, missing = 90.0 - 7 * c, 160.0 - 11 * c
    given, ruled_out = 500 - 20 * c, 1500 + 10 * c
    estimates: dict[str, Any] = {
        "n_given": np.stack([ruled_out, given], axis=1),
        "n_wrong": wrong,
        "n_missing": missing,
    }
    for end, factor in (("low", 0.7), ("high", 1.4)):
        estimates[f"wrong_rate_{end}"] = wrong * factor / given
        estimates[f"missing_rate_{end}"] = missing * factor / ruled_out
    results = {
        "estimates": estimates,
        "beliefs": {
            "n_wrong": np.array([40.0, 30.0, 70.0]),
            "n_missing": np.array([90.0, 0.0, 180.0]),
        },
        "outcome": outcome_of(k, 255, text),
        "calibration": calibrated(True),
        "cutoffs": {
            "rule": np.array("recall"),
            "cutoff": np.where(c == 0, np.nan, 0.3 + c / 50),
            "n_items": np.array(2000),
        },
        "totals": {
            "n_items_with": np.array([10, 500, 1490]),
            "n_present": np.full(k, 300),
        },
        "census": {"n_given": np.full(k, 400)},
    }
    of = Planted(
        names, results, n_items=2000, limits=limits, text=text, pictures=pictures, side=56,
        several=True,
    )  # fmt: skip
    of.given = "given"  # type: ignore[attr-defined]
    overlays = Overlaid(of)
    n_live = int((given + ruled_out).sum()) // k + 12
    reasons = Tally()
    reasons.add("1 label added" if text is None else text, 200)
    parts = [
        made(
            Lists,
            of,
            estimates=estimates,
            suspects={
                "missing": shortlist(120 - c, dict.fromkeys(range(k), 6)),
                "wrong": shortlist(80 - c, {i: 4 for i in range(k) if i % 2}),
            },
            n_flagged=900,
            n_live=n_live,
            overlays=overlays,
        ),
        made(Maps, of, overlays=overlays, new=shortlist(150 - c, dict.fromkeys(range(k), 6))),
        made(Calibration, of),
        made(
            Changes,
            of,
            clean="clean",
            has_lists=True,
            changed=shortlist([240], {1: 22}),
            reasons=reasons,
        ),
    ]
    changed = parts[-1].changed
    changed.rows["group"] = np.zeros_like(changed.rows["group"])
    values = [m.Estimate(0.7, 0.66, 0.74)] * 2
    measures = m.Table(
        caption=text or "labels as cleaned",
        is_titled=True,
        style="metrics",
        columns=(
            m.column(
                "Measure", [("Micro-F1", "as it says"), (text or "Macro-F1", "mean")], "noted"
            ),
            m.column("Value", values, "decimal", "strong"),
            m.column("95\u202f% interval", values, "between decimal", "soft"),
        ),
    )
    reference = m.Section(
        name="evaluation",
        title="Comparison with the reference",
        short="Reference",
        blocks=(text or "300 items with 2 900 classes known from the reference.", measures),
        artifacts=(("reference", measures),),
    )
    ledger = m.Ledger(
        source=2000, kept=1700, relabelled=240, dropped=0, review=60, unresolved=0, quarantined=0
    )
    sections = [section for part in parts for section in part.sections()]
    title = "photos" if text is None else text
    return report_of([*sections, reference, *about_it(text)], ledger, k, title)


class Overlaid:
    """Items with an overlay each."""

    def __init__(self, of: Planted) -> None:
        self.of = of
        self.facts = MapFacts(7, 7, 5, len(of.names), "logistic", 224)

    def items(self, found: dict[tuple[int, int], float], class_id: int) -> tuple[m.Item, ...]:
        patches = (m.Patch(0, 0, 3, 4), m.Patch(3, 0, 1, 1), m.Patch(2, 6, 5, 2))
        drawn = m.Overlay(self.of.names.name(class_id), 7, 7, patches)
        return tuple(
            replace(self.of.item(place), score=-key, overlay=drawn if self.of.pictures else None)
            for place, key in found.items()
        )
