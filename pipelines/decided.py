"""How many items a finished run kept, changed or set aside."""

from labelops.decide import Action
from pipelines.state import Run


def counts_of(run: Run) -> dict[str, int]:
    """Count a run's items by what became of them.

    Returns
    -------
    `source`, `quarantined`; by decision `keep`, `relabel`, `drop`, `review`, `abstain` as stage
    `decide` took them, and `softened`, those of `keep` with a lower weight; rows of `dataset` and
    `set_aside`.
    """
    layout = run.layout()
    done = run.context("decide", layout).own("outcome")["done"].sum(axis=0)
    counts = {action.name.lower(): int(done[action]) for action in Action}
    counts["softened"] = counts.pop("soften")
    counts["keep"] += counts["softened"]
    rows = {"dataset": 0, "set_aside": 0}
    rejected = 0
    for layer in layout.layers:
        for record in layer.records.values():
            rejected += len(record["rejected"])
            for file in record["files"]:
                if layer.stage == "dataset" and file["folder"] in rows:
                    rows[file["folder"]] += file["rows"]
    return {"source": run.source.n_items, "quarantined": rejected, **counts, **rows}
