"""The page: complete in itself, safe with hostile strings, small for large data, readable."""

import base64
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
from pipelines.report.limits import Limits
from pipelines.report.parts.confusion import shades
from pipelines.report.render import render
from tests.pipelines.planted_report import example

VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


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
        ledger=m.Ledger(
            source=5, kept=5, relabelled=0, dropped=0, review=0, unresolved=0, quarantined=0
        ),
        n_classes=2,
    )
    test_page__is_well_formed(render(bare))
    test_page__links_lead_to_sections_that_exist(render(bare))
    test_page__refers_to_nothing_outside_itself(render(bare))
    # Nothing was decided: "unchanged, in the dataset" would be false.
    assert "Where the items went" not in render(bare)
    assert "Where the items went" in render(example())


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


def hostile(text: str, *, pictures: bool = True) -> m.Report:
    """Make a report in which every string of the data is the given text."""
    return example((text, f"{text}2", "ok"), n=90, text=text, pictures=pictures)


@pytest.mark.parametrize("pictures", [True, False])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_page__shows_hostile_strings_as_text(text: str, pictures: bool) -> None:
    harmless = Page(render(hostile("plain", pictures=pictures)))
    html = render(hostile(text, pictures=pictures))
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


def with_pictures(report: m.Report, shown: m.Picture) -> m.Report:
    """Give every item of a report the same picture."""

    def blocks(found: tuple[m.Block, ...]) -> tuple[m.Block, ...]:
        return tuple(map(block, found))

    def block(one: m.Block) -> m.Block:
        if isinstance(one, m.Group):
            return replace(one, blocks=blocks(one.blocks))
        if isinstance(one, m.Items):
            return replace(one, items=tuple(replace(item, picture=shown) for item in one.items))
        return one

    sections = (replace(section, blocks=blocks(section.blocks)) for section in report.sections)
    return replace(report, sections=tuple(sections))


def test_pictures__that_are_not_bitmaps_are_left_out() -> None:
    evil = m.Picture("image/svg+xml", b"<svg onload='alert(1)'/>", 28, 28)
    assert "svg+xml" not in render(with_pictures(example(n=300), evil))


# -- size ------------------------------------------------------------------------------------------


def worst_items(report: m.Report) -> list[m.Item]:
    section = report.section("worst")
    assert section is not None
    groups = [block for block in section.blocks if isinstance(block, m.Group)]
    shown = [block for group in groups for block in group.blocks if isinstance(block, m.Items)]
    return [item for block in shown for item in block.items]


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
    report = with_pictures(report, large)
    html = render(report)
    assert len(html.encode()) < 20_000_000
    assert not Page(html).errors
    n_pictures = html.count("<img ")
    assert 0 < n_pictures < len(worst_items(report))


def test_pictures__beyond_the_budget_are_left_out_and_their_text_stays() -> None:
    report = example(n=300)
    html = render(report, Limits(picture_bytes=0))
    assert "<img " not in html
    assert all(item.item_id in html for item in worst_items(report))


# -- numbers ---------------------------------------------------------------------------------------


def test_page__accounts_that_do_not_balance_come_first() -> None:
    report = example()
    lost = replace(report, ledger=replace(report.ledger, kept=report.ledger.kept - 1))
    text = " ".join(Page(render(lost)).text)
    assert "These counts should add up to the source, but do not" in text
    assert text.index("Item counts do not add up") < text.index("Most frequent confusion")


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
    assert shades(np.array([[90.0, 10.0], [0.2, 99.8]]), 2).tolist() == [[0, 8], [0, 0]]
