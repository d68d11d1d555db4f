"""What a run found out about bags: how well their totals are told, and which contradict."""

from collections.abc import Sequence

import numpy as np

from labelops.proportions.counts import ROUNDING
from pipelines.bags.census import CENSUS
from pipelines.bags.findings import LEVEL, ranked
from pipelines.report import model
from pipelines.report.limits import Limits
from pipelines.results import load_result, result_name
from pipelines.stage import Arrays
from pipelines.state import Run

STEPS = ("learn", "constrain")
"""Of which stage `proportions` does one."""


def bags(run: Run, limits: Limits) -> model.Bags | None:
    """Read what stage `proportions` found, over all its rounds; None where the run has none."""
    found = _rounds(run)
    if not found:
        return None
    census = load_result(run.store, found[0][0], CENSUS)
    last, sizes = found[-1][1], census["sizes"]
    bag, k = ranked(census, last)
    q_value = last["q_value"][bag, k]
    is_learned = "loss_network" in last
    in_bags = int(sizes.sum())
    return model.Bags(
        count=len(sizes),
        items=in_bags,
        others=int(census["n_items"]) - in_bags,
        absent=int(census["n_absent"]),
        incomplete=int(census["n_incomplete"]),
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        shares=_shares(census)[: limits.bag_shares],
        is_constant=bool(census["is_constant"]),
        is_learned=is_learned,
        held_out=len(last["held_out"]) if is_learned else len(sizes),
        loss_model=_number(last["loss_start"]),
        loss_constant=_number(last["loss_constant"]),
        rounds=tuple(_round(name, arrays) for name, arrays in found),
        rounded=int((census["residual"] > ROUNDING).sum()),
        residual=float(census["residual"].max(initial=0.0)),
        dispersion=float(last["dispersion"]),
        improbable=int((q_value <= LEVEL).sum()),
        shown=tuple(
            _bag(census, last, b, c)
            for b, c in zip(bag.tolist(), k.tolist(), strict=True)
            if last["q_value"][b, c] <= LEVEL
        )[: limits.bags],
        moved=float(last["moved"]) if "moved" in last else None,
        missing=int(last.get("n_without_vector", 0)),
    )


def class_names(run: Run) -> Sequence[str]:
    """Return the names of the classes that bags are counted by; none without bags."""
    found = _rounds(run)
    if not found:
        return ()
    names: list[str] = load_result(run.store, found[0][0], CENSUS)["classes"].tolist()
    return names


def _rounds(run: Run) -> list[tuple[str, Arrays]]:
    names = [e.name for e in run.entries if e.name.split("@")[0] == "proportions"]
    return [
        (name, load_result(run.store, name, step))
        for name in names
        for step in STEPS
        if run.store.exists(result_name(name, step))
    ]


def _number(value: np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None


def _shares(census: Arrays) -> tuple[model.BagShare, ...]:
    n_classes = len(census["classes"])
    shown = [1] if n_classes == 2 else range(n_classes)
    return tuple(
        model.BagShare(
            name=str(census["classes"][k]),
            mean=float(census["share"][k]),
            std=float(census["share_std"][k]),
            by_chance=float(census["share_by_chance"][k]),
        )
        for k in shown
    )


def _round(name: str, found: Arrays) -> model.BagRound:
    return model.BagRound(
        name=name,
        components=int(found["n_components"]),
        not_settled=int(found["n_open"]),
        loss=_number(found["loss_network"]) if "loss_network" in found else None,
        strength=float(found["strength"]) if "strength" in found else None,
    )


def _bag(census: Arrays, found: Arrays, b: int, k: int) -> model.Bag:
    return model.Bag(
        bag_id=str(census["bag_ids"][b]),
        name=str(census["classes"][k]),
        items=int(census["sizes"][b]),
        count=int(census["counts"][b, k]),
        expected=float(found["expected"][b, k]),
        p_value=float(found["p_value"][b, k]),
        q_value=float(found["q_value"][b, k]),
    )
