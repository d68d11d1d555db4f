"""Artifacts: plain JSON values, escaped text, bounded size."""

import json
import math
import re

import numpy as np
import pytest

from flows.artifacts import (
    MOST_ROWS,
    artifact_key,
    issues,
    number,
    rows_of,
    summary,
    tables,
)
from pipelines.report import model as m
from pipelines.report.text import literal
from tests.pipelines import planted_report as pages

NASTY = "a|b\n# <img src=x onerror=alert(1)> [x](javascript:alert(1)) `*_~"


def example(n_classes: int = 3, name: str = "class") -> m.Report:
    """A report with numbers that JSON has no word for."""
    nan, inf = float("nan"), float("inf")
    shares = [
        m.Estimate(k / n_classes, -inf if k else None, nan if k else inf) for k in range(n_classes)
    ]
    table = m.Table(
        caption="Quality of each class",
        columns=(
            m.column("Class", (f"{name}-{k}" for k in range(n_classes)), "name"),
            m.column("Wrong", shares, "percent"),
            m.column("0 to 100 %", shares, "bar"),
            m.column("Confused", [(name, "other")] * n_classes, "change"),
            m.column("p", np.full(n_classes, 1.2345e-200), "tiny"),
        ),
    )
    return m.Report(
        title=f"Audit of {name}",
        ledger=m.Ledger(
            source=10, kept=5, relabelled=2, dropped=1, review=1, unresolved=0, quarantined=1
        ),
        n_classes=n_classes,
        sections=(
            m.Section(name="a", artifacts=(("class-quality", table),), card="About **3** wrong."),
            m.Section(name="b"),
        ),
        notices=(f"{name} was merged",),
    )


def test_tables__are_strict_json_even_of_infinite_numbers() -> None:
    rows = rows_of(tables(example())["class-quality"])
    json.dumps(rows, allow_nan=False)
    assert rows[1] == {
        "Class": "class-1",
        "Wrong": pytest.approx(1 / 3, abs=1e-6),
        "Wrong, low": None,
        "Wrong, high": None,
        "Given": "class",
        "Believed": "other",
        "p": 1.23e-200,
    }


def test_tables__are_of_bounded_size() -> None:
    assert len(rows_of(tables(example(1000))["class-quality"])) == MOST_ROWS


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan"), None])
def test_number__what_json_has_no_word_for_is_null(value: float | None) -> None:
    assert number(value) is None


@pytest.mark.parametrize("value", [np.float32(0.5), 0.5, np.float64(0.5)])
def test_number__is_a_plain_float(value: float) -> None:
    assert type(number(value)) is float
    assert number(value) == 0.5


def test_summary__text_of_the_data_is_shown_and_not_obeyed() -> None:
    text = summary(example(name=NASTY))
    assert "<img" not in text
    # No unescaped bracket of theirs: no links.
    assert not re.search(r"(?<!\\)\[", text)
    assert "| source | 10 |" in text
    assert "About **3** wrong." in text


def test_summary__has_no_indented_line() -> None:
    # Markdown takes an indented line for code.
    assert not any(line.startswith(" ") for line in summary(example()).splitlines())


def test_literal__is_one_line_of_bounded_length() -> None:
    assert "\n" not in literal("a\nb\rc\x00d")
    assert len(literal("x" * 1000)) <= 80


@pytest.mark.parametrize(
    ("parts", "key"),
    [
        (("labelops", "infer"), "labelops-infer"),
        (("labelops", "proportions@2"), "labelops-proportions-2"),
        (("A B", "_c_"), "a-b-c"),
    ],
)
def test_key__has_the_letters_that_prefect_takes(parts: tuple[str, ...], key: str) -> None:
    assert artifact_key(*parts) == key
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", key)


def test_issues__name_items_and_classes_the_most_suspicious_first() -> None:
    rows = issues(pages.example(pictures=False))
    scores = [row["score"] for row in rows]
    assert len(rows) == 120
    assert scores == sorted(scores)
    assert set(rows[0]) == {"item", "shard", "class", "given", "believed", "score"}
    suspects = issues(pages.listed((NASTY, "cat"), pictures=False))
    json.dumps(suspects, allow_nan=False)
    assert {row["class"] for row in suspects} == {NASTY, "cat"}
    assert {key for row in suspects for key in row if key.startswith("P(")} == {
        "P(missing)",
        "P(wrong)",
    }
    sure = [row.get("P(missing)") or row["P(wrong)"] for row in suspects]
    assert sure == sorted(sure, reverse=True)
    assert issues(example()) == []
