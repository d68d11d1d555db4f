"""A report of items with several labels, as a run would give it, with names of one's own."""

from dataclasses import replace

import numpy as np

from pipelines.report import model as m
from tests.pipelines.test_report_render import NAMES, example, picture


def overlay(name: str) -> m.Overlay:
    return m.Overlay(name, 7, 7, (m.Patch(0, 0, 3, 4), m.Patch(3, 0, 1, 1), m.Patch(2, 6, 5, 2)))


def listed(names: tuple[str, ...] = NAMES, *, pictures: bool = True, text: str = "") -> m.Report:
    """Make a report whose strings are the names, and the text."""
    rng, k = np.random.default_rng(3), len(names)

    def item(c: int, p: float) -> m.Item:
        return m.Item(
            item_id=text or f"photo-{rng.integers(0, 10_000):05d}", shard=int(rng.integers(0, 9)),
            given=", ".join(names[: 1 + c % 3]), score=p,
            picture=picture(rng, 56) if pictures else None,
            excerpt="" if pictures else text or "Hi",
            overlay=overlay(names[c]) if pictures else None,
        )  # fmt: skip

    def near(value: float) -> m.Estimate:
        return m.Estimate(value, value * 0.7, value * 1.4)

    classes = tuple(
        m.ListedClass(
            name=name, given=500 - 20 * c, ruled_out=1500 + 10 * c, wrong=near(90.0 - 7 * c),
            missing=near(160.0 - 11 * c), flagged_wrong=80 - c, flagged_missing=120 - 2 * c,
            removed=3 + c, added=20 + c,
        )
        for c, name in enumerate(names)
    )  # fmt: skip
    suspects = tuple(
        m.Suspects(
            name=name, n_missing=120 - c, n_wrong=80 - c,
            missing=tuple(item(c, 0.99 - i / 50) for i in range(6)),
            wrong=tuple(item(c, 0.9 - i / 20) for i in range(4 * (c % 2))),
        )
        for c, name in enumerate(names)
    )  # fmt: skip
    edits = tuple(
        m.ListEdit(
            item=item(c % k, 0.5), kept=names * (c % 4), removed=names[:1] * (c % 2),
            added=names[-1:], confidence=0.6 if c else None, reason=text or "1 label added",
        )
        for c in range(22)
    )  # fmt: skip
    lists = m.LabelLists(
        given=4100, unknown=12, flagged_items=900, wrong=near(500.0), missing=near(1000.0),
        classes=classes, suspects=suspects, suspects_left_out=2, added=210, removed=45,
        by_reason=((text or "1 label added", 200),), edits=edits, n_edited=240,
    )  # fmt: skip
    maps = m.LabelMapsFound(
        pictures=2000, columns=7, rows=7, per_cell=5, image_size=224, rule="recall^2 / found",
        chosen_on=2000, given_seen=0.42, by_count=((0, 10), (1, 500), (2, 1490)), found=3480,
        found_new=1500, classes_left_out=1, classes=tuple(
            m.SeenClass(name=name, cutoff=None if c == 0 else 0.3 + c / 50, known=90, found=300,
                        new=150 - c, items=suspects[c].missing)
            for c, name in enumerate(names)
        ),
    )  # fmt: skip
    rows = tuple(
        m.Row(name=name, note=text or "as it says", values=("0.700", "0.660\u2009–\u20090.740"))
        for name in ("Micro-F1", text or "Macro-F1")
    )
    evaluation = m.Section(
        name="evaluation",
        title="Against a reference",
        short="Reference",
        intro=text or "300 items with 2 900 classes that people settled.",
        tables=(
            m.Table(
                caption="Measures against the reference",
                head=("Measure", "Value", "95\u202f% interval"),
                bands=(("labels as given", rows), (text or "labels as cleaned", rows)),
            ),
        ),
    )
    return replace(
        example(pictures=pictures), wrong=None, wrong_share=None, flagged=None, classes=(),
        confusions=(), confusion_table=None, confusion_map=None, worst=(), duplicates=None,
        outliers=None, changes=None, bags=None, lists=lists, maps=maps, sections=(evaluation,),
        changed=255,
    )  # fmt: skip
