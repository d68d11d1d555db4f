"""The card of a student: what it takes, what it answers, what it learned from, how good it is."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from labelops import __version__
from pipelines.report.model import Estimate
from pipelines.report.text import FORMATS, count, interval, literal, shown

if TYPE_CHECKING:
    from labelops.nn.export_student import About

MOST_CLASSES = 100
"""So many names are listed; all are in the program and in the weights."""

LONGEST = 400
"""Characters of a fact or a remark."""


class Measured(NamedTuple):
    """A figure of how good a student is.

    Attributes
    ----------
    name : of the measure.
    value : with its 95 % interval, where one is known.
    kind : how its number is shown, of `text.FORMATS`.
    on : which items, in words: whether they were held out, and whose labels count as right.
    n : items.
    """

    name: str
    value: Estimate
    kind: str
    on: str
    n: int


def model_card(
    title: str,
    about: "About",
    *,
    learned_from: Mapping[str, object],
    training: Mapping[str, object],
    measures: Sequence[Measured],
    remarks: Sequence[str] = (),
) -> str:
    r"""Return the card as Markdown, with a header that the Hugging Face Hub reads.

    Every string is escaped: no name of a class makes a heading, a cell of a table or HTML.

    Parameters
    ----------
    title
        Of the student.
    about
        What its program says of itself.
    learned_from
        Facts of the data, by name.
    training
        Facts of the training, by name.
    measures
        How good it is; where there is none, the card says so.
    remarks
        What a user has to know besides.

    Raises
    ------
    ValueError
        If the kind of a number is not known.

    Examples
    --------
    >>> from labelops.nn.export_student import About
    >>> about = About(
    ...     classes=("a|b",), answers="one", dtype="float32", shape=(4,), preprocessing={}
    ... )
    >>> card = model_card("Sorter", about, learned_from={}, training={}, measures=[])
    >>> print(next(line for line in card.splitlines() if line.startswith("0.")))
    0. a\|b
    """
    unknown = [m.kind for m in measures if m.kind not in FORMATS]
    if unknown:
        raise ValueError(f"card: a kind of {', '.join(FORMATS)} was expected, got {unknown[0]!r}")
    is_picture = about.dtype == "uint8"
    task = "image-classification" if is_picture else "tabular-classification"
    shape = " × ".join(map(str, about.shape))
    takes = f"pictures, uint8, {shape}" if is_picture else f"features, {about.dtype}, {shape}"
    reads = {"one": "softmax: one class an item", "many": "sigmoid each: any number of classes"}
    listed = [f"{i}. {_text(name)}" for i, name in enumerate(about.classes[:MOST_CLASSES])]
    if len(about.classes) > MOST_CLASSES:
        listed.append(f"\n… and {count(len(about.classes) - MOST_CLASSES)} more, in the files.")
    lines = [
        *(
            "---",
            "library_name: pytorch",
            f"pipeline_tag: {task}",
            "tags:",
            "- labelops",
            "---",
            "",
        ),
        *(f"# {_text(title)}", "", f"Made by labelops {_text(__version__)}.", ""),
        *("## What it takes and answers", ""),
        *_table({"items": takes, "logits": f"{count(len(about.classes))}, {reads[about.answers]}"}),
        *_table({f"inside: {name}": value for name, value in about.preprocessing.items()}, head=()),
        *("", "Classes, in the order of the logits:", "", *listed, ""),
        *("## How good it is", "", *_measured(measures), ""),
        *("## What it learned from", "", *_table(learned_from), ""),
        *("## Training", "", *_table(training), ""),
    ]
    if remarks:
        lines += ["## To know", "", *(f"* {_text(remark)}" for remark in remarks), ""]
    return "\n".join(lines)


HEAD = ("| | |", "|---|---|")


def _table(facts: Mapping[str, object], *, head: Sequence[str] = HEAD) -> list[str]:
    if not facts and head:
        return ["Nothing was said of it."]
    return [*head, *(f"| {_text(name)} | {_text(value)} |" for name, value in facts.items())]


def _measured(measures: Sequence[Measured]) -> list[str]:
    if not measures:
        return ["It was not measured."]
    rows = [
        f"| {_text(m.name)} | {shown(m.value, m.kind)} | {interval(m.value, m.kind) or 'unknown'} "
        f"| {_text(m.on)} | {count(m.n)} |"
        for m in measures
    ]
    return ["| | | 95 % interval | on | items |", "|---|---|---|---|---|", *rows]


def _text(value: object) -> str:
    return literal(str(value), LONGEST)
