"""How many items a finished run kept, changed or set aside: counted once, for whoever says so."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelops.decisions import COMMON, DECISIONS, NO_ISSUE, Decision
from pipelines.core.reader import frames
from pipelines.core.results import load_result
from pipelines.core.state import Run
from pipelines.decisions.product import leaves_out, narrow, with_left_out
from pipelines.errors import RunError

PRODUCT = "dataset"


def deciding_stage(run: Run) -> str | None:
    """Return the stage that decided about items; None without one."""
    done = (entry for entry in run.entries if entry.skipped is None and entry.stage.decides)
    return next((entry.name for entry in done), None)


def has_product(run: Run) -> bool:
    """Return whether a data set was written."""
    return any(entry.name == PRODUCT and entry.skipped is None for entry in run.entries)


def counts_of(run: Run) -> dict[str, int]:
    """Count a run's items by what became of them: in its product if it has one, else as decided.

    Returns
    -------
    `source`, `quarantined`; where it was decided about items, by decision `keep`, `relabel`,
    `drop`, `review`, `abstain`, `unresolved`, and `softened`, those of the kept ones that are
    trained on with a lower weight; where there is a product, rows of `dataset` and `set_aside`.

    Raises
    ------
    RunError
        If an item is lost: kept + relabelled + dropped + review + abstained + unresolved +
        quarantined is not the number of items in the source, or the rows of the product are others.
    """
    layout = run.layout()
    rejected = 0
    rows = {PRODUCT: 0, "set_aside": 0}
    for layer in layout.layers:
        for record in layer.records.values():
            rejected += len(record["rejected"])
            for file in record["files"]:
                if layer.stage == PRODUCT and file["folder"] in rows:
                    rows[file["folder"]] += file["rows"]
    counts = {"source": run.source.n_items, "quarantined": rejected}
    stage = deciding_stage(run)
    if stage is None:
        return counts
    decided, softened = _decided(run, stage)
    n_decided = sum(decided.values())
    if has_product(run) and sum(rows.values()) != n_decided:
        raise RunError(
            f"run: every decided item must be in dataset/ or set_aside/; {n_decided} were decided, "
            f"{sum(rows.values())} written, in {run.uri}"
        )
    if n_decided + rejected != run.source.n_items:
        raise RunError(
            f"run: kept + relabelled + dropped + review + unresolved + quarantined must be the "
            f"{run.source.n_items} items of the source, got {decided} and {rejected} quarantined, "
            f"in {run.uri}"
        )
    counts |= decided | {"softened": softened}
    return counts | rows if has_product(run) else counts


def _decided(run: Run, stage: str) -> tuple[dict[str, int], int]:
    """Count items by decision, and those kept that are trained on with a lower weight."""
    product = run.context(PRODUCT, run.layout()) if has_product(run) else None
    if product is None or not leaves_out(product):
        outcome = load_result(run.store, stage, "outcome")
        counts, softened = outcome["decided"], int(outcome["softened"])
    else:
        counts, softened = np.zeros(len(DECISIONS), np.int64), 0
        for frame in frames(run, narrow(product)):
            if not frame.n:
                continue
            decided = with_left_out(frame, product)
            decision = pc.index_in(decided["decision"], value_set=pa.array(DECISIONS)).to_numpy()
            counts += np.bincount(decision, minlength=len(counts))
            is_proposed = pc.not_equal(decided["rule"], COMMON[NO_ISSUE].name).to_numpy()
            is_less = is_proposed & (decided["weight"].to_numpy() < 1)
            softened += int((is_less & (decision == Decision.KEEP)).sum())
    return dict(zip(DECISIONS.tolist(), counts.tolist(), strict=True)), softened


def summary_of(counts: Mapping[str, int]) -> dict[str, int]:
    """Return where every item of the source went, of what `counts_of` counted."""
    always = ("source", "quarantined")
    written = {"written": counts["dataset"] + counts["set_aside"]} if "dataset" in counts else {}
    known = {name: counts[name] for name in DECISIONS.tolist() if counts.get(name)}
    return {**{name: counts[name] for name in always}, **known, **written}
