"""How many items a finished run kept, changed or set aside."""

from labelops.decide import Action
from pipelines.layout import Layout
from pipelines.state import Run

DECIDING = ("decide", "decide_labels", "decide_maps")
"""Stages that decide about items; a recipe has one of them at most."""


def deciding_stage(run: Run) -> str | None:
    """Return the stage that decided about items; None without one."""
    names = [entry.name for entry in run.entries if entry.skipped is None]
    return next((name for name in DECIDING if name in names), None)


def counts_of(run: Run) -> dict[str, int]:
    """Count a run's items by what became of them.

    Returns
    -------
    `source`, `quarantined`; by decision `keep`, `relabel`, `drop`, `review`, `abstain` as the
    stage that decided took them, and `softened`, those that are trained on with a lower
    weight though no reason to change them was found; rows of `dataset` and `set_aside`.
    """
    layout = run.layout()
    stage = deciding_stage(run)
    counts = _of(run, layout) if stage == "decide" else _of_lists(run, layout, str(stage))
    rows = {"dataset": 0, "set_aside": 0}
    rejected = 0
    for layer in layout.layers:
        for record in layer.records.values():
            rejected += len(record["rejected"])
            for file in record["files"]:
                if layer.stage == "dataset" and file["folder"] in rows:
                    rows[file["folder"]] += file["rows"]
    return {"source": run.source.n_items, "quarantined": rejected, **counts, **rows}


def _of(run: Run, layout: Layout) -> dict[str, int]:
    done = run.context("decide", layout).own("outcome")["done"].sum(axis=0)
    counts = {action.name.lower(): int(done[action]) for action in Action}
    counts["softened"] = counts.pop("soften")
    counts["keep"] += counts["softened"]
    return counts


def _of_lists(run: Run, layout: Layout, stage: str) -> dict[str, int]:
    outcome = run.context(stage, layout).own("outcome")
    items = dict(zip(outcome["decisions"].tolist(), outcome["items"].tolist(), strict=True))
    return {**items, "drop": 0, "abstain": 0, "softened": int(outcome["softened"])}
