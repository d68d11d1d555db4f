"""Artifacts: plain JSON values, escaped text, bounded size."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from flows.artifacts import (
    MOST_ROWS,
    artifact_key,
    bag_table,
    class_table,
    issue_table,
    number,
    summary,
)
from pipelines.report import model as m
from pipelines.report.text import literal
from tests.pipelines.listed_report import listed

NASTY = "a|b\n# <img src=x onerror=alert(1)> [x](javascript:alert(1)) `*_~"


def example(n_classes: int = 3, name: str = "class") -> m.Report:
    """A report with numbers that JSON has no word for."""
    nan, inf = float("nan"), float("inf")
    return m.Report(
        title=f"Audit of {name}",
        recipe="audit",
        finished="",
        ledger=m.Ledger(source=10, kept=5, relabelled=2, dropped=1, review=1, quarantined=1),
        n_classes=n_classes,
        has_pictures=False,
        wrong=m.Estimate(3.2, 1.0, 5.0),
        wrong_share=m.Estimate(0.32, 0.1, 0.5),
        flagged=4,
        classes=tuple(
            m.ClassQuality(
                name=f"{name}-{k}",
                items=3,
                flagged=1,
                wrong_share=m.Estimate(k / n_classes, -inf if k else None, nan if k else inf),
            )
            for k in range(n_classes)
        ),
        confusions=(m.Confusion(given=name, believed="other", items=2.4, share_of_given=0.2),),
        worst=tuple(
            m.WorstOfClass(
                name=f"{name}-{k}",
                flagged=1,
                items=(
                    m.Item(
                        item_id=f"{name}-{k}",
                        shard=0,
                        given=name,
                        score=None if k == 0 else 1 - k / n_classes,
                    ),
                ),
            )
            for k in range(n_classes)
        ),
    )


def test_tables__are_strict_json_even_of_infinite_numbers() -> None:
    for table in (class_table(example()), issue_table(example())):
        json.dumps(table, allow_nan=False)


def test_tables__put_the_worst_first_and_are_of_bounded_size() -> None:
    report = example(n_classes=1000)
    classes, issues = class_table(report), issue_table(report)
    assert len(classes) == len(issues) == MOST_ROWS
    shares = [row["wrong share"] for row in classes]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.999)
    scores = [row["score"] for row in issues]
    assert scores == sorted(scores)
    assert scores[0] == pytest.approx(0.001)


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
    # No unescaped bracket or pipe of theirs: neither links nor further cells.
    assert not re.search(r"(?<!\\)\[", text)
    for line in text.splitlines():
        if line.startswith("| a"):
            assert len(re.findall(r"(?<!\\)\|", line)) == 4
    assert "| source | 10 |" in text
    assert "About **3** of 10 labels are wrong (32.00 %; 95 % interval 10.00 % to 50.00 %)." in text


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


def test_bags__are_in_summary_and_table_with_tiny_p_values_kept() -> None:
    bag = m.Bag(
        bag_id=NASTY, name=NASTY, items=9, count=8, expected=1.5, p_value=1.2345e-200, q_value=0.0
    )
    bags = m.Bags(
        count=3,
        items=10,
        others=0,
        absent=0,
        incomplete=0,
        smallest=1,
        median=3.0,
        largest=6,
        shares=(),
        is_constant=False,
        is_learned=True,
        held_out=1,
        loss_model=0.1,
        loss_constant=0.2,
        rounds=(m.BagRound(name="proportions", components=3, not_settled=2),),
        rounded=0,
        residual=0.0,
        dispersion=1.0,
        improbable=1,
        shown=(bag,),
    )
    found = replace(example(), bags=bags)
    (row,) = bag_table(found)
    assert (row["bag"], row["p"], row["expected"]) == (NASTY, 1.23e-200, 1.5)
    assert "1** totals are improbable, 2 groups of bags did not settle" in summary(found)
    assert bag_table(example()) == []


def test_tables__of_lists_name_classes_and_suspects_the_surest_first() -> None:
    report = listed((NASTY, "cat"), pictures=False)
    classes, suspects = class_table(report), issue_table(report)
    json.dumps([classes, suspects], allow_nan=False)
    assert [row["class"] for row in classes] == [NASTY, "cat"]
    assert classes[0]["missing"] == 160.0
    assert classes[0]["missing low"] == pytest.approx(112.0)
    assert {row["suspected"] for row in suspects} == {"missing", "wrong"}
    sure = [row["probability"] for row in suspects]
    assert sure == sorted(sure, reverse=True)
    text = summary(report)
    counted = "Confident learning counts **1,000** labels missing and **500** of 4,100 given ones"
    assert f"{counted} wrong." in text
    believing = replace(report.lists, believed_wrong=40.4, believed_missing=900.0)
    text = summary(replace(report, lists=believing))
    assert f"{counted} wrong; beliefs add up to **900** and **40**." in text
    assert "**210** were added, **45** removed." in text
    assert "show **1,500** classes that were not given" in text
    assert "labels as cleaned | Macro\\-F1 | 0.700 |" in text
