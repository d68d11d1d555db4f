"""The data card of a run's product: what was done to the data, with numbers.

It is `README.md` of the run folder and names `dataset/` and `set_aside/` as two configurations, so
``load_dataset(RUN)`` and ``load_dataset(RUN, "set_aside")`` work. It does not lie in `dataset/`
itself: pandas and polars take every file of a folder for Parquet, and refuse the folder (pandas
3.1, polars 2.1; `datasets` and DuckDB do not mind).
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from labelops import __version__
from pipelines.bags.findings import bags_folder
from pipelines.core.stage import Arrays
from pipelines.core.state import Run
from pipelines.decisions.counts import deciding_stage, has_product
from pipelines.decisions.product import carried_columns
from pipelines.labels.space import clean_space
from pipelines.report.bags import bags
from pipelines.report.limits import Limits
from pipelines.report.model import Bags
from pipelines.report.sections import sections
from pipelines.report.text import literal, times

CARD_FILE = "README.md"

PARTS = {"default": "dataset", "set_aside": "set_aside"}

SOFT_COLUMNS = """\
| `topk_ids`, `topk_probs`, `tail_prob` | soft label: the most probable classes and the given one, \
their probabilities, and the probability of all others together, to be spread evenly over them |

Class ids are positions in the class names, which the file footers hold (`labelops.soft_labels`)."""


def _columns(columns: Collection[str]) -> str:
    """Return what the columns of the product mean that the source does not have."""
    space = clean_space(columns)
    assert space is not None
    return "\n".join(
        [
            "| column | meaning |",
            "|---|---|",
            "| `shard` | the file of the source that the item is from |",
            space.meaning,
            *([SOFT_COLUMNS] if carried_columns(columns) else []),
        ]
    )


def write_card(run: Run, counts: Mapping[str, int]) -> str | None:
    """Write the card of a finished run of which `counts_of` counted so; returns its URI.

    None if there is no product.

    Names from the data stand in notices only, and are escaped there.
    """
    if not has_product(run):
        return _write_beliefs_card(run)
    stage = deciding_stage(run)
    assert stage is not None
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
        *_said(run),
        *_done(counts),
        *totals_said(bags(run, Limits())),
        *_undone(run),
        *_noticed(run),
        "",
        "## Changed labels, by rule",
        "",
        *_gate(context.own("outcome")),
        "",
        "## Columns besides those of the source",
        "",
        _columns(frozenset(run.layout().types(""))),
        "",
        "## Undo",
        "",
        UNDO,
        "",
        "To share the product, publish this file with `dataset/` and `set_aside/`.",
        "",
    ]
    run.store.write_atomic(CARD_FILE, "\n".join(lines).encode())
    return f"{run.uri.rstrip('/')}/{CARD_FILE}"


BELIEFS = """\
| column | meaning |
|---|---|
| `item_id` | the item, as in the source |
| `topk_ids`, `topk_probs`, `tail_prob` | what is believed: the most probable classes, their \
probabilities, and that of all others together, to be spread evenly over them |
| `bag_residual` | by how much the total of the item's bag was rounded; null for items without a \
total |
| `bag_logits`, `bag_held_logits`, `bag_embedding` | what a next round begins with: logits, logits \
without held-out bags, last layer of the network |"""


def _write_beliefs_card(run: Run) -> str | None:
    """Write the card of beliefs from totals, where they are what the run was for."""
    found = bags(run, Limits())
    if found is None:
        return None
    folder = found.last
    n_lost = run.source.n_items - found.items - found.others
    lines = [
        *("---", "tags:", "- labelops", "configs:", "- config_name: default"),
        *(f"  data_files: {folder}/part-*.parquet", "- config_name: bags"),
        *(f"  data_files: {bags_folder(folder)}/part-00000.parquet", "---", ""),
        *("# Labels from totals", ""),
        f"Made by labelops {__version__}, run `{run.key[:16]}`, from {len(run.source.shards)} "
        f"shards with {run.source.n_items:,} items. Nothing in the source was changed.",
        "",
        *("| | |", "|---|---:|"),
        f"| bags with a total | {found.count:,} |",
        f"| items in them | {found.items:,} |",
        f"| items without a total | {found.others:,} |",
        f"| items that could not be used (`quarantine/`) | {n_lost:,} |",
        f"| bags whose total was rounded | {found.rounded:,} |",
        f"| groups of bags that did not settle | {found.not_settled:,} |",
        f"| bags whose total was brought in by approximation | {found.approximated:,} |",
        f"| improbable totals (`{bags_folder(folder)}/`) | {found.improbable:,} |",
        "",
        *_how_good(found),
        "",
        *_counted(found),
        " ".join(
            [
                f"Beliefs are in `{folder}/`. Those of a bag's items add up to its total.",
                *_sure(found),
            ]
        ),
        "",
        BELIEFS if found.is_learned else "\n".join(BELIEFS.splitlines()[:-1]),
        *_noticed(run),
        "",
    ]
    run.store.write_atomic(CARD_FILE, "\n".join(lines).encode())
    return f"{run.uri.rstrip('/')}/{CARD_FILE}"


def _noticed(run: Run) -> list[str]:
    """Return what was left out, guessed or merged; names from the data as literal text."""
    notices = run.notices()
    if not notices:
        return []
    lines = [f"* {literal(notice, 1000)}" for notice in notices]
    return ["", "## What was assumed or left out", "", *lines]


def _how_good(found: Bags) -> list[str]:
    if found.is_constant and found.is_learned:
        return [
            "All bags have the same share of every class, or there is but one. That share is what "
            "is believed of every item: nothing else can be learned from such totals."
        ]
    if found.loss_model is None or found.loss_constant is None:
        return ["Too few bags to hold any out: how good beliefs are is not known."]
    who = "A model that has not seen held-out" if found.is_learned else "The model, before it saw"
    return [
        f"{who} totals misses them by {found.loss_model:.3f} nats a bag, the same share for all by "
        f"{found.loss_constant:.3f} (items of a bag times the divergence of its counted shares "
        "from the expected ones; 0 would be exact). No item's label was used to choose or to check "
        "it, so the share of right labels is not known.",
        *_warnings(found),
    ]


def _warnings(found: Bags) -> list[str]:
    lines = []
    if found.is_no_better:
        lines += ["", f"**{NO_BETTER}**"]
    elif found.is_doubtful:
        lines += ["", f"**{DOUBTFUL}**"]
    if found.dispersion > 1:
        lines += [
            "",
            f"The variance of totals is {times(found.dispersion)} times what the model allows; "
            "q-values allow for it.",
        ]
    return lines


NO_BETTER = "The model is no better than the same share for all: do not rely on single beliefs."

DOUBTFUL = (
    "Over all bags, each told by a model that was not fitted to it, the difference may be chance: "
    "do not rely on single beliefs."
)


def _counted(found: Bags) -> list[str]:
    if len(found.order) != 2:
        return []
    return [
        "`positives` was taken to count the second of the two classes. If it counts the first, "
        "every belief is inverted.",
        "",
    ]


def _sure(found: Bags) -> list[str]:
    if found.sureness is None:
        return []
    return [f"The most probable class has a probability of {found.sureness:.1%} on average."]


def totals_said(found: Bags | None) -> list[str]:
    """Return what totals had to say where labels were cleaned."""
    if found is None:
        return []
    n = found.count - found.left_out
    said = (
        f"Totals of {n:,} of {found.count:,} bags were brought into what is believed of single "
        f"items; {found.improbable:,} totals are improbable (`{bags_folder(found.last)}/`)."
    )
    if found.is_contrary:
        said += " All were left out: together they contradict given labels and model."
    elif found.left_out:
        said += " Those left out contradict given labels and model."
    if found.approximated and n:
        said += f" With {found.approximated:,} bags that is by approximation."
    return ["", said, *_warnings(found)]


UNDO = """\
Every decision is a row of `decisions/`, with what it was before, why, how sure and by which rule.
`dataset.leave_out_rules` and `dataset.leave_out_items` make the product without some of them;
`pipelines.decisions.ledger.derive` does so for any table."""


def _header(counts: Mapping[str, int]) -> list[str]:
    """Return the YAML by which `datasets` finds the parts; one without rows cannot be loaded."""
    lines = ["---", "tags:", "- labelops", "configs:"]
    for name, folder in PARTS.items():
        if counts[folder]:
            lines += [f"- config_name: {name}", f"  data_files: {folder}/part-*.parquet"]
    return [*lines, "---", ""]


def _said(run: Run) -> list[str]:
    """Return what single stages have to say."""
    return [line for found in sections(run, Limits()) if found.card for line in (found.card, "")]


def _done(counts: Mapping[str, int]) -> list[str]:
    n = max(counts["source"], 1)
    rows = [
        ("kept", counts["keep"], "`dataset/`"),
        ("of them with a lower weight", counts["softened"], "`dataset/`"),
        ("relabelled", counts["relabel"], "`dataset/`"),
        ("no position taken", counts["abstain"], "`dataset/`"),
        ("dropped", counts["drop"], "`set_aside/`"),
        ("for review", counts["review"], "`set_aside/`"),
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
        f"{', '.join(rules) or 'none'}, and of {len(items):,} single items. The rules below are "
        "shown as they decided.",
    ]


def _gate(outcome: Arrays) -> Sequence[str]:
    changes = np.flatnonzero(outcome["changes_labels"])
    if not outcome["proposed"][changes].any():
        return ["No label was changed, and none was proposed to be."]
    lines = [
        "| rule | proposed | changed | expected fixed | expected broken | gate |",
        "|---|---:|---:|---:|---:|---|",
    ]
    lines += [
        f"| `{outcome['rules'][r]}` | {int(outcome['proposed'][r]):,} "
        f"| {int(outcome['shipped'][r]):,} "
        f"| {_number(outcome['shipped_expected_fixed'][r])} "
        f"| {_number(outcome['shipped_expected_broken'][r])} "
        f"| {'ships' if outcome['ships'][r] else 'held back'}: {outcome['verdict'][r]} |"
        for r in changes.tolist()
        if outcome["proposed"][r] or outcome["reviewed"][r]
    ]
    said = outcome["if_measured" if outcome["is_measured"].any() else "if_expected"]
    return [*lines, "", f"Fixed: wrong before and right after; broken: right before. {said}"]


def _number(value: float) -> str:
    return "not known" if np.isnan(value) else f"{value:.1f}"
