"""The data card of a run's product: what was done to the data, with numbers.

It is `README.md` of the run folder and names `dataset/` and `set_aside/` as two configurations, so
``load_dataset(RUN)`` and ``load_dataset(RUN, "set_aside")`` work. It does not lie in `dataset/`
itself: pandas and polars take every file of a folder for Parquet, and refuse the folder (pandas
3.1, polars 2.1; `datasets` and DuckDB do not mind).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from labelops import __version__
from pipelines.core.stage import Arrays
from pipelines.core.state import Run
from pipelines.decisions.counts import deciding_stage, has_product
from pipelines.decisions.product import carried_columns
from pipelines.labels.space import clean_space
from pipelines.report.model import Section
from pipelines.report.text import literal

CARD_FILE = "README.md"

SOFT_COLUMNS = """\
| `topk_ids`, `topk_probs`, `tail_prob` | soft label: the most probable classes and the given one, \
their probabilities, and the total probability of all other classes, to be spread evenly |

Class ids are positions in the list of class names in the file footers (`labelops.soft_labels`)."""


def write_card(run: Run, counts: Mapping[str, int], sections: Sequence[Section]) -> str | None:
    """Write the card of a finished run; returns its URI, None where there is nothing to share.

    `counts` is what `counts_of` counted, `sections` what the parts of the report say.
    """
    if has_product(run):
        card = _of_product(run, counts, [section.card for section in sections if section.card])
    else:
        whole = next((section.whole_card for section in sections if section.whole_card), "")
        if not whole:
            return None
        card = "\n".join([whole, *_noticed(run), ""])
    run.store.write_atomic(CARD_FILE, card.encode())
    return f"{run.uri.rstrip('/')}/{CARD_FILE}"


def _of_product(run: Run, counts: Mapping[str, int], said: Sequence[str]) -> str:
    stage, columns = deciding_stage(run), frozenset(run.layout().types(""))
    space = clean_space(columns)
    assert stage is not None
    assert space is not None
    context = run.context(stage, run.layout())
    lines = [
        *_header(counts),
        "# Cleaned labels",
        "",
        f"Made by labelops {__version__}, run `{run.key[:16]}`, from {len(run.source.shards)} "
        f"shards with {run.source.n_items:,} items of {context.n_classes} classes. Nothing in the "
        "source was changed.",
        "",
        "## What was done",
        "",
        *(line for paragraph in said for line in (paragraph, "")),
        *_done(counts),
        *_undone(run),
        *_noticed(run),
        "",
        "## Changed labels, by rule",
        "",
        *_gate(context.own("outcome")),
        "",
        "## Columns besides those of the source",
        "",
        "| column | meaning |",
        "|---|---|",
        "| `shard` | the source file that contains the item |",
        space.meaning,
        *([SOFT_COLUMNS] if "topk_ids" in carried_columns(columns) else []),
        "",
        "## Undo",
        "",
        UNDO,
        "",
        "To share the product, publish this file with `dataset/` and `set_aside/`.",
        "",
    ]
    return "\n".join(lines)


def _noticed(run: Run) -> list[str]:
    """Return what was left out, guessed or merged; names from the data as literal text."""
    lines = [f"* {literal(notice, 1000)}" for notice in run.notices()]
    return ["", "## What was assumed or left out", "", *lines] if lines else []


UNDO = """\
Every decision is a row of `decisions/`, with the previous label, reason, confidence and rule.
`dataset.leave_out_rules` and `dataset.leave_out_items` write the dataset without some decisions;
`pipelines.decisions.ledger.derive` does so for any table."""


def _header(counts: Mapping[str, int]) -> list[str]:
    """Return the YAML by which `datasets` finds the parts; one without rows cannot be loaded."""
    lines = ["---", "tags:", "- labelops", "configs:"]
    for name, folder in (("default", "dataset"), ("set_aside", "set_aside")):
        if counts[folder]:
            lines += [f"- config_name: {name}", f"  data_files: {folder}/part-*.parquet"]
    return [*lines, "---", ""]


def _done(counts: Mapping[str, int]) -> list[str]:
    n = max(counts["source"], 1)
    rows = [
        ("kept", counts["keep"], "`dataset/`"),
        ("of these, with a lower weight", counts["softened"], "`dataset/`"),
        ("relabelled", counts["relabel"], "`dataset/`"),
        ("undecided, kept with a lower weight", counts["abstain"], "`dataset/`"),
        ("dropped", counts["drop"], "`set_aside/`"),
        ("for review", counts["review"], "`set_aside/`"),
        (
            "unresolved: not believed, not surely anything else",
            counts["unresolved"],
            "`set_aside/`",
        ),
        ("quarantined, could not be used", counts["quarantined"], "`quarantine/`"),
        ("all of the source", counts["source"], ""),
    ]
    always = {"kept", "relabelled", "dropped", "for review", "all of the source"}
    return [
        "| items | number | share | where |",
        "|---|---:|---:|---|",
        *(
            f"| {name} | {value:,} | {value / n:.2%} | {where} |"
            for name, value, where in rows
            if value or name in always
        ),
    ]


def _undone(run: Run) -> list[str]:
    config = run.entry("dataset").config.model_dump()
    rules, items = config["leave_out_rules"], config["leave_out_items"]
    if not rules and not items:
        return []
    return [
        "",
        "Left out, so that items stay as given: decisions of rules "
        f"{', '.join(rules) or 'none'}, and those on {len(items):,} single items. The table below "
        "includes decisions that were left out.",
    ]


def _gate(outcome: Arrays) -> Sequence[str]:
    changes = np.flatnonzero(outcome["changes_labels"])
    if not outcome["proposed"][changes].any():
        return ["No label was changed, and no change was proposed."]
    lines = [
        "| rule | proposed | changed | expected fixed | expected broken | gate |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| `{outcome['rules'][r]}` | {int(outcome['proposed'][r]):,} "
        f"| {int(outcome['shipped'][r]):,} "
        f"| {_number(outcome['shipped_expected_fixed'][r])} "
        f"| {_number(outcome['shipped_expected_broken'][r])} "
        f"| {'passed' if outcome['ships'][r] else 'held back'}: {outcome['verdict'][r]} |"
        for r in changes.tolist()
        if outcome["proposed"][r] or outcome["reviewed"][r]
    ]
    said = outcome["if_measured" if outcome["is_measured"].any() else "if_expected"]
    return [
        *lines,
        "",
        f"Fixed: a wrong label became right; broken: a right label became wrong. {said}",
    ]


def _number(value: float) -> str:
    return "not known" if np.isnan(value) else f"{value:.1f}"
