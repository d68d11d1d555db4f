"""Oracle: a Markdown parser finds the headings, tables and items that belong there, and no more."""

import numpy as np
import pytest
from markdown_it import MarkdownIt
from torch import nn

from labelops.nn.export_student import About, export_student
from pipelines.report.model import Estimate
from pipelines.report.model_card import MOST_CLASSES, Measured, model_card

HOSTILE = [
    "# big",
    "a | b | c",
    "<script>alert(1)</script>",
    "[x](javascript:alert(1))",
    "![x](y)",
    "line\n\n## two",
    "`code`",
    "---",
    "\u202egnp",
]
HEADINGS = ["What it takes and answers", "How good it is", "What it learned from", "Training"]


def about(n_classes: int = 3, names: list[str] | None = None) -> About:
    return About(
        classes=tuple(names or [f"class {c}" for c in range(n_classes)]),
        answers="one",
        dtype="uint8",
        shape=(3, 32, 32),
        preprocessing={"formula": "(item / 255 − mean) / std, by channel", "mean": [0.5] * 3},
    )


def parsed(card: str) -> tuple[list[str], list[str], set[str]]:
    """Return headings, list items, and the kinds of all tokens."""
    body = card.split("---\n", 2)[2]
    tokens = MarkdownIt("commonmark", {"html": True}).enable("table").parse(body)
    kinds = {t.type for t in tokens} | {c.type for t in tokens for c in t.children or ()}
    text = {i: t.content for i, t in enumerate(tokens)}
    headings = [text[i + 1] for i, t in enumerate(tokens) if t.type == "heading_open"]
    items = [text[i + 2] for i, t in enumerate(tokens) if t.type == "list_item_open"]
    return headings, items, kinds


def test_card__hostile_strings_are_shown_and_do_nothing() -> None:
    facts = dict.fromkeys(HOSTILE, "|".join(HOSTILE))
    card = model_card(
        HOSTILE[2],
        about(names=HOSTILE),
        learned_from=facts,
        training=facts,
        measures=[Measured("a|b", Estimate(0.5), "percent", "<b>\n|", 10)],
        remarks=HOSTILE,
    )
    headings, items, kinds = parsed(card)
    assert headings[1:] == [*HEADINGS, "To know"]
    assert len(items) == 2 * len(HOSTILE)
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "hr"}
    body = card.split("---\n", 2)[2]
    html = MarkdownIt("commonmark").enable("table").render(body)
    assert html.count("<tr>") == html.count("</tr>")
    rows = html.split("<tr>")[1:]
    assert {row.count("<td>") + row.count("<th>") for row in rows} == {2, 5}
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_card__says_what_was_measured_on_what_and_how_sure_it_is() -> None:
    card = model_card(
        "Sorter",
        about(),
        learned_from={"items": 1200, "labels": "soft"},
        training={"epochs": 3},
        measures=[
            Measured("accuracy", Estimate(0.912, 0.9, 0.924), "percent", "held-out items", 2000),
            Measured("log loss", Estimate(0.25), "decimal", "held-out items", 2000),
        ],
    )
    lines = card.splitlines()
    accuracy = next(line for line in lines if line.startswith("| accuracy"))
    assert accuracy.replace("\u202f", " ").replace("\u2009", "") == (
        "| accuracy | 91.2 % | 90.0 %–92.4 % | held\\-out items | 2,000 |"
    )
    assert next(line for line in lines if line.startswith("| log loss")).count("unknown") == 1
    assert "| items | 1200 |" in lines
    assert "| items | pictures, uint8, 3 × 32 × 32 |" in lines
    assert "pipeline_tag: image-classification" in lines


def test_card__without_facts_says_so() -> None:
    card = model_card("S", about(), learned_from={}, training={}, measures=[])
    assert card.count("Nothing was said of it.") == 2
    assert "It was not measured." in card
    assert parsed(card)[0] == ["S", *HEADINGS]


def test_card__of_many_classes_counts_those_that_it_leaves_out() -> None:
    n = MOST_CLASSES + 1234
    card = model_card("S", about(n), learned_from={}, training={}, measures=[])
    assert len(parsed(card)[1]) == MOST_CLASSES
    assert "… and 1,234 more, in the files." in card


def test_card__an_unknown_kind_of_number_is_refused() -> None:
    measures = [Measured("m", Estimate(1.0), "furlongs", "x", 1)]
    with pytest.raises(ValueError, match=r"a kind of count, .* was expected, got 'furlongs'$"):
        model_card("S", about(), learned_from={}, training={}, measures=measures)


def test_card__takes_what_an_exported_student_says_of_itself() -> None:
    model = nn.Linear(4, 2).eval()
    made = export_student(model, np.zeros((1, 4), np.float32), classes=["no", "yes"])
    card = model_card("S", made.about, learned_from={}, training={}, measures=[])
    assert "| items | features, float32, 4 |" in card
    assert parsed(card)[1] == ["no", "yes"]
