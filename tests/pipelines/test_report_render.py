"""The page: complete in itself, safe with hostile strings, small for large data, readable."""

import base64
import dataclasses
import hashlib
import io
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from pipelines.report import model as m
from pipelines.report.limits import Limits, worst_per_class
from pipelines.report.render import render

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
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


def picture(rng: np.random.Generator, side: int = 28) -> m.Picture:
    """Make a blurred blob on black, as a garment of Fashion-MNIST looks from afar."""
    y, x = np.mgrid[0:side, 0:side] / side - 0.5
    a, b = rng.uniform(0.15, 0.4, 2)
    blob = 255 * np.exp(-(((x / a) ** 4 + (y / b) ** 4) ** rng.uniform(0.6, 2)))
    pixels = np.clip(blob * rng.uniform(0.5, 1, (side, side)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return m.Picture("image/png", out.getvalue(), side, side)


def example(
    names: tuple[str, ...] = NAMES,
    n: int = 4000,
    pictures: bool = True,
    side: int = 28,
    limits: Limits | None = None,
) -> m.Report:
    """Make a report as a run over ``n`` items would give, with everything that a page can show."""
    limits = limits or Limits()
    rng = np.random.default_rng(7)
    k = len(names)
    items = rng.multinomial(n, rng.dirichlet(np.full(k, 30)))
    confusion = np.zeros((k, k))
    for given in range(k):
        wrong = items[given] * rng.uniform(0.04, 0.2)
        others = rng.dirichlet(np.full(k, 0.25))
        others[given] = 0
        confusion[given] = wrong * others / max(others.sum(), 1e-9)
        confusion[given, given] = items[given] - confusion[given].sum()
    wrong_in = items - np.diag(confusion)

    def item(given: int, score: float, **more: object) -> m.Item:
        believed = int(np.argmax(np.where(np.arange(k) == given, 0, confusion[given])))
        return m.Item(
            item_id=f"fashion-{rng.integers(0, n):07d}",
            shard=int(rng.integers(0, 8)),
            given=names[given],
            believed=names[believed],
            score=score,
            picture=picture(rng, side) if pictures else None,
            excerpt="" if pictures else "Hukumar zabe ta sanya ranar da za a sake gudanar da zabe",
            **more,  # type: ignore[arg-type]
        )

    def interval(share: float, of: int) -> m.Estimate:
        half = 1.96 * np.sqrt(max(share * (1 - share), 1e-9) / max(of, 1))
        return m.Estimate(share, max(share - half, 0), min(share + half, 1))

    classes = tuple(
        m.ClassQuality(
            name=names[c],
            items=int(items[c]),
            flagged=int(wrong_in[c] * 0.9),
            wrong_share=interval(float(wrong_in[c] / max(items[c], 1)), int(items[c])),
            hidden=float(confusion[:, c].sum() - confusion[c, c]),
        )
        for c in np.argsort(-wrong_in / np.maximum(items, 1))
    )
    pairs = sorted(
        ((float(confusion[i, j]), i, j) for i in range(k) for j in range(k) if i != j), reverse=True
    )[: limits.confusions]
    n_groups, each = worst_per_class(k, limits)
    order = list(np.argsort(-wrong_in)[:n_groups])
    is_small = k <= limits.table_classes
    blocks = min(k, limits.map_blocks)
    edge = -(-k // blocks)
    off = confusion - np.diag(np.diag(confusion))
    padded = np.zeros((blocks * edge, blocks * edge))
    padded[:k, :k] = off
    total = float(wrong_in.sum())
    part = confusion
    part_names = names
    if not is_small:
        top = np.argsort(-wrong_in)[: limits.part_classes]
        rest = np.setdiff1d(np.arange(k), top)
        part = np.zeros((len(top) + 1, len(top) + 1))
        part[:-1, :-1] = confusion[np.ix_(top, top)]
        part[:-1, -1] = confusion[np.ix_(top, rest)].sum(1)
        part[-1, :-1] = confusion[np.ix_(rest, top)].sum(0)
        part[-1, -1] = np.trace(confusion[np.ix_(rest, rest)])
        part_names = (*(names[c] for c in top), "all others")
    relabelled, dropped, review, quarantined = round(total * 0.6), 41, round(total * 0.2), 3
    bins = [(0.1 * i, 0.1 * i + 0.1) for i in range(3, 10)]
    weights = np.array([1, 3, 6, 9, 14, 30, 110]) * 10
    return m.Report(
        title="fashion_mnist",
        recipe="audit",
        finished="2026-02-03 14:05 UTC",
        ledger=m.Ledger(
            source=n,
            kept=n - relabelled - dropped - review - quarantined,
            relabelled=relabelled,
            dropped=dropped,
            review=review,
            quarantined=quarantined,
        ),
        n_classes=k,
        has_pictures=pictures,
        wrong=m.Estimate(total, total * 0.92, total * 1.08),
        wrong_share=m.Estimate(total / n, total / n * 0.92, total / n * 1.08),
        flagged=round(total * 0.9),
        fixed=m.Estimate(relabelled * 0.93, relabelled * 0.9, relabelled * 0.95),
        broken=m.Estimate(relabelled * 0.03, relabelled * 0.02, relabelled * 0.05),
        classes=classes,
        confusions=tuple(
            m.Confusion(
                given=names[i],
                believed=names[j],
                items=v,
                share_of_given=v / items[i],
                flagged=int(v * 0.9),
            )
            for v, i, j in pairs
        ),
        confusion_table=m.ConfusionTable(
            classes=part_names,
            items=tuple(map(tuple, part.tolist())),
            is_part=not is_small,
        ),
        confusion_map=None
        if is_small
        else m.ConfusionMap(
            n_classes=k,
            classes_per_block=edge,
            wrong=tuple(
                map(tuple, padded.reshape(blocks, edge, blocks, edge).sum((1, 3)).tolist())
            ),
        ),
        worst=tuple(
            m.WorstOfClass(
                name=names[c],
                flagged=int(wrong_in[c] * 0.9),
                items=tuple(item(c, 0.004 * (i + 1) ** 1.5) for i in range(each)),
            )
            for c in order
        ),
        worst_left_out=k - n_groups,
        duplicates=m.Duplicates(
            conflict_sets=14,
            conflict_items=30,
            duplicate_items=52,
            shown=tuple(
                m.DuplicateSet(
                    kind=("identical", "nearly identical")[i % 2],
                    items=(item(i % k, 0.1), item((i + 3) % k, 0.2)),
                    size=2,
                )
                for i in range(6)
            ),
        ),
        outliers=m.Outliers(count=6, shown=tuple(item(i % k, 0.02 * i) for i in range(6))),
        calibration=m.Calibration(
            temperature=1.62,
            items=3997,
            accuracy=0.861,
            metrics=(
                m.Metric(name="ECE", meaning="15 equal-width bins", before=0.0712, after=0.0121),
                m.Metric(
                    name="Adaptive ECE", meaning="bins of equal size", before=0.0698, after=0.0117
                ),
                m.Metric(
                    name="Class-wise ECE", meaning="mean over classes", before=0.0188, after=0.0094
                ),
                m.Metric(name="NLL", meaning="log loss", before=0.612, after=0.541),
                m.Metric(name="Brier", meaning="squared error", before=0.231, after=0.214),
            ),
            before=tuple(
                m.ReliabilityBin(
                    low=lo,
                    high=hi,
                    count=int(w),
                    confidence=lo + 0.06,
                    accuracy=max(lo + 0.06 - 0.11 * (1 - lo) * 2, 0),
                )
                for (lo, hi), w in zip(bins, weights, strict=True)
            ),
            after=tuple(
                m.ReliabilityBin(
                    low=lo, high=hi, count=int(w), confidence=lo + 0.05, accuracy=lo + 0.045
                )
                for (lo, hi), w in zip(bins, weights[::-1] ** 0.8 + 50, strict=True)
            ),
        ),
        is_decided=True,
        changed=38,
        changes=m.Changes(
            count=relabelled,
            by_reason=(
                ("the model is sure of another class and nothing supports the given one", 298),
                ("flagged, but not sure enough to change", 96),
                ("two classes are equally likely", 41),
            ),
            by_pair=tuple((names[i], names[j], int(v * 0.6)) for v, i, j in pairs[:8]),
            shown=tuple(
                m.Change(
                    item=item(i % k, 0.01 * i),
                    before=names[i % k],
                    after=names[(i + 2) % k],
                    confidence=0.9 + 0.001 * i,
                    reason="the model is sure of another class and nothing supports the given one",
                )
                for i in range(min(limits.changes, relabelled))
            ),
        ),
        rules=(
            m.Rule(
                name="confident",
                meaning="flagged, and the probability of the new class is at least 0.9",
                proposed=relabelled,
                shipped=relabelled,
                fixed=m.Estimate(relabelled * 0.93, relabelled * 0.9, relabelled * 0.95),
                broken=m.Estimate(relabelled * 0.03, relabelled * 0.02, relabelled * 0.05),
                gain=m.Estimate(0.9, 0.79, 0.96),
                verdict="shipped",
                why="the gain is positive over its whole interval",
            ),
            m.Rule(
                name="duplicates",
                meaning="duplicates take the majority label of their set",
                proposed=14,
                shipped=0,
                fixed=m.Estimate(8, 4, 12),
                broken=m.Estimate(6, 2, 10),
                gain=m.Estimate(0.14, -0.43, 0.71),
                verdict="held back",
                why="the interval of the gain contains zero",
            ),
        ),
        quarantine=(
            m.QuarantineReason(
                reason="image cannot be decoded: truncated",
                stage="infer",
                count=3,
                examples=tuple(
                    m.QuarantinedRow(
                        shard="part-00002.parquet", row=17 + i, item_id=f"fashion-00{i}", detail=""
                    )
                    for i in range(3)
                ),
            ),
        ),
        timings=tuple(
            m.StageTiming(name=name, doc=doc, rows=n, shards=8, seconds=s)
            for name, doc, s in (
                ("source", "Read, name and number the items", 0.21),
                ("infer", "Out-of-sample probabilities and embeddings", 14.2),
                ("confident", "Which labels are wrong", 0.84),
                ("neighbours", "Duplicates and outliers", 1.9),
                ("decide", "Keep, relabel, drop or review", 0.61),
                ("dataset", "The cleaned training set", 0.4),
            )
        ),
        facts=tuple(
            m.Fact(name=name, value=value)
            for name, value in (
                ("labelops", "0.1.0"),
                ("Python", "3.11.7"),
                ("numpy", "2.4.2"),
                ("pyarrow", "26.0.1"),
                ("torch", "2.11.0"),
                ("Run key", hashlib.sha256(b"x").hexdigest()[:16]),
            )
        ),
        settings=tuple(
            m.Setting(table=t, key=key, value=value)
            for t, key, value in (
                ("infer", "folds", "5"),
                ("infer", "embedder", '"pixels"'),
                ("confident", "filter_by", '"prune_by_noise_rate"'),
                ("confident", "score", '"self_confidence"'),
                ("decide", "relabel_confidence", "0.9"),
                ("decide", "max_change_share", "0.1"),
            )
        ),
        notes=(
            "The source was not changed. Train on the column label instead of label_clean to "
            "ignore every change.",
            "Delete a stage’s folder to undo it and all that follow; run the same command again "
            "to repeat them.",
        ),
    )


class Page(HTMLParser):
    """What a browser would see: elements with attributes, nesting, and text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.errors: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            self.errors.append(f"attribute twice in {tag}: {names}")
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.errors.append(f"</{tag}> does not close what is open at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text.append(data)


@pytest.fixture(scope="module")
def page() -> str:
    return render(example())


def allowed(policy: str, directive: str) -> str:
    """What a policy allows for a kind of content, with its fallback as the standard has it."""
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    return rules.get(directive, rules["default-src"])


# -- complete in itself ----------------------------------------------------------------------------


def test_page__is_well_formed(page: str) -> None:
    seen = Page(page)
    assert not seen.errors
    assert not seen.open
    assert page.startswith("<!doctype html>")


def test_page__refers_to_nothing_outside_itself(page: str) -> None:
    seen = Page(page)
    for tag, name, value in seen.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            assert value.startswith(("#", "data:image/", "data:,")), (tag, name, value[:60])
        assert not name.startswith("on")
        assert name != "style"
    assert "url(" not in page
    assert "@import" not in page
    assert "http://" not in page
    assert "https://" not in page
    for tag in ("script", "iframe", "object", "embed", "form", "base"):
        assert not seen.tags[tag]


def test_page__policy_allows_only_our_style_and_embedded_pictures(page: str) -> None:
    policy = next(
        value
        for tag, name, value in Page(page).attributes
        if tag == "meta" and name == "content" and "default-src" in value
    )
    css = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert css is not None
    digest = base64.b64encode(hashlib.sha256(css[1].encode()).digest()).decode()
    assert allowed(policy, "style-src") == f"'sha256-{digest}'"
    assert allowed(policy, "img-src") == "data:"
    assert allowed(policy, "script-src") == "'none'"
    assert allowed(policy, "connect-src") == "'none'"


def test_page__links_lead_to_sections_that_exist(page: str) -> None:
    attributes = Page(page).attributes
    ids = [value for _, name, value in attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = {value[1:] for _, name, value in attributes if name == "href" and value[0] == "#"}
    labels = {value for _, name, value in attributes if name == "aria-labelledby"}
    assert targets | labels <= set(ids)


def test_page__links_lead_somewhere_whatever_the_run_lacks() -> None:
    bare = m.Report(
        title="t",
        recipe="audit",
        finished="",
        ledger=m.Ledger(source=5, kept=5, relabelled=0, dropped=0, review=0, quarantined=0),
        n_classes=2,
        has_pictures=False,
        wrong=None,
        wrong_share=None,
        flagged=None,
    )
    test_page__is_well_formed(render(bare))
    test_page__links_lead_to_sections_that_exist(render(bare))
    test_page__refers_to_nothing_outside_itself(render(bare))
    # Nothing was decided: "unchanged, in the dataset" would be false.
    assert "Where the items went" not in render(bare)
    assert "Where the items went" in render(example())


def test_page__adds_up_beliefs_beside_the_estimate() -> None:
    report = dataclasses.replace(example(), doubted=1234.4)
    share = f"{100 * 1234.4 / report.ledger.source:.1f}"
    assert re.search(rf"adds up to 1,234 \({share}\W%\)", render(report))
    assert "adds up to" not in render(example())


def test_page__says_the_same_twice(page: str) -> None:
    assert render(example()) == page


# -- readable --------------------------------------------------------------------------------------


def test_page__is_accessible_in_structure(page: str) -> None:
    seen = Page(page)
    assert seen.tags["h1"] == 1
    assert seen.tags["caption"] == seen.tags["table"] > 5
    assert seen.tags["main"] == seen.tags["nav"] == 1
    images = [dict_of for dict_of in re.findall(r"<img ([^>]*)>", page) if "alt=" not in dict_of]
    assert not images
    drawings = re.findall(r"<svg ([^>]*)>", page)
    assert all("aria-hidden" in d or ('role="img"' in d and "aria-label=" in d) for d in drawings)
    levels = [int(level) for level in re.findall(r"<h([1-6])", page)]
    assert all(b - a <= 1 for a, b in pairwise(levels))


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    """Contrast ratio as WCAG 2 defines it."""
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colours__have_enough_contrast(page: str, scheme: str) -> None:
    blocks = re.findall(r":root \{(.*?)\}", page, re.DOTALL)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[0]))
    colours |= dict(
        re.findall(r"--([\w-]+): (#[0-9a-f]{6})", blocks[("light", "dark", "print").index(scheme)])
    )
    for ground in ("paper", "card"):
        for text in ("ink", "soft", "given", "believed", "good", "wrong"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["soft"], colours["diagonal"]) >= 4.5
    for level in range(1, 9):
        text = colours["ink" if level <= 6 else "on-dark"]
        assert contrast(text, colours[f"m{level}"]) >= 4.5, level
    for mark in ("bar", "relabel", "review", "drop", "quarantine"):
        assert contrast(colours[mark], colours["card"]) >= 2, mark


# -- hostile strings -------------------------------------------------------------------------------

HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' onmouseover='alert(1)",
    "{{ 7 * 7 }}{% raw %}",
    "</style></title><svg onload=alert(1)>",
    "javascript:alert(1)",
    "&lt;b&gt; &amp;",
    "a\u202eb\u2066c\u200fd",
    "nul\x00 bell\x07 escape\x1b[31m",
    "lone \ud800 surrogate",
    "Z" + "\u0301" * 500,
    "line\nbreak\ttab",
)


def hostile(text: str) -> m.Report:
    """Make a report in which every string of the data is the given text."""
    report = example(names=(text, f"{text}2", "ok"), n=90)
    assert report.duplicates
    assert report.outliers
    assert report.changes
    poisoned = m.Item(
        item_id=text, shard=1, given=text, believed=text, score=0.1, excerpt=text, note=text
    )
    with_picture = replace(poisoned, picture=report.outliers.shown[0].picture)
    return replace(
        report,
        title=text,
        recipe=text,
        worst=(
            m.WorstOfClass(name=text, flagged=2, items=(poisoned, with_picture)),
            m.WorstOfClass(name=text, flagged=2, items=(poisoned,)),
        ),
        duplicates=replace(
            report.duplicates, shown=(m.DuplicateSet(kind=text, items=(poisoned,), size=2),)
        ),
        changes=replace(
            report.changes,
            by_reason=((text, 3),),
            by_pair=((text, text, 3),),
            shown=(
                m.Change(
                    item=with_picture, before=text, after=text, confidence=0.9, reason=text,
                ),
            ),
        ),
        rules=tuple(
            replace(rule, name=text, meaning=text, why=text, verdict=text)
            for rule in report.rules
        ),
        quarantine=(
            m.QuarantineReason(
                reason=text,
                stage=text,
                count=1,
                examples=(m.QuarantinedRow(shard=text, row=1, item_id=text, detail=text),),
            ),
        ),
        settings=(m.Setting(table=text, key=text, value=text),),
        facts=(m.Fact(name=text, value=text),),
        notes=(text,),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_page__shows_hostile_strings_as_text(text: str) -> None:
    harmless = Page(render(hostile("plain")))
    html = render(hostile(text))
    seen = Page(html)
    html.encode("utf-8")
    assert not seen.errors
    assert seen.tags == harmless.tags
    names = [(tag, name) for tag, name, _ in harmless.attributes]
    assert [(tag, name) for tag, name, _ in seen.attributes] == names
    assert not set(re.findall(r"[\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f]", html))
    assert "\u0301" * 5 not in html


def test_page__shows_template_code_unexecuted() -> None:
    html = render(hostile("{{ 7 * 7 }}"))
    assert "{{ 7 * 7 }}" in html
    assert ">49<" not in html


def test_page__cuts_a_string_of_ten_megabytes() -> None:
    html = render(hostile("<x>" * 3_500_000))
    assert len(html) < 1_000_000
    assert "10,500,00" in html


def test_page__survives_strings_that_are_empty() -> None:
    html = render(hostile(""))
    assert not Page(html).errors
    assert "(no name)" in html


def test_page__keeps_names_of_other_scripts() -> None:
    for name in ("صندل", "नमस्ते\u200d", "鞋子", "👨\u200d👩\u200d👧", "Łódź café"):
        assert name in render(example(names=(name, "b"), n=60))


def test_pictures__that_are_not_bitmaps_are_left_out() -> None:
    report = example(n=300)
    assert report.outliers
    evil = m.Picture("image/svg+xml", b"<svg onload='alert(1)'/>", 28, 28)
    shown = tuple(replace(item, picture=evil) for item in report.outliers.shown)
    report = replace(report, outliers=replace(report.outliers, shown=shown))
    assert "svg+xml" not in render(report)


# -- size ------------------------------------------------------------------------------------------


def test_page__of_a_million_items_and_a_thousand_classes_stays_small() -> None:
    rng = np.random.default_rng(0)
    noise = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (96, 96, 3), np.uint8)).save(noise, "PNG")
    assert len(noise.getvalue()) > Limits().thumbnail_bytes
    large = m.Picture("image/png", noise.getvalue()[: Limits().thumbnail_bytes], 96, 96)
    report = example(
        names=tuple(f"class {i:04d} with a rather long descriptive name" for i in range(1000)),
        n=1_000_000,
        pictures=False,
    )
    report = replace(
        report,
        has_pictures=True,
        worst=tuple(
            replace(group, items=tuple(replace(item, picture=large) for item in group.items))
            for group in report.worst
        ),
    )
    html = render(report)
    assert len(html.encode()) < 20_000_000
    assert not Page(html).errors
    n_pictures = html.count("<img ")
    assert 0 < n_pictures < sum(len(group.items) for group in report.worst)


def test_pictures__beyond_the_budget_are_left_out_and_their_text_stays() -> None:
    report = example(n=300)
    html = render(report, Limits(picture_bytes=0))
    assert "<img " not in html
    assert all(item.item_id in html for group in report.worst for item in group.items)


# -- numbers ---------------------------------------------------------------------------------------


def test_page__accounts_that_do_not_balance_come_first() -> None:
    report = example()
    lost = replace(report, ledger=replace(report.ledger, kept=report.ledger.kept - 1))
    text = " ".join(Page(render(lost)).text)
    assert "these should add up, but do not" in text
    assert text.index("The accounts do not balance") < text.index("Most frequent mix-up")


def test_page__says_every_number_of_the_ledger(page: str) -> None:
    report = example()
    text = " ".join(Page(page).text)
    ledger = report.ledger
    for number, word in (
        (ledger.kept, "kept"),
        (ledger.relabelled, "relabelled"),
        (ledger.dropped, "dropped"),
        (ledger.review, "to review"),
        (ledger.quarantined, "quarantined"),
    ):
        assert re.search(rf"\b{number:,}\s+{word}", text)


def test_heat_map__colours_by_share_of_the_row_and_never_the_diagonal() -> None:
    from pipelines.report.charts import confusion_cells

    table = m.ConfusionTable(classes=("a", "b"), items=((90.0, 10.0), (0.2, 99.8)))
    cells = confusion_cells(table)
    assert [[cell.level for cell in row] for row in cells] == [[0, 8], [0, 0]]
    assert [[cell.is_diagonal for cell in row] for row in cells] == [[True, False], [False, True]]
