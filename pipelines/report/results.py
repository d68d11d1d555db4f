"""Results of stages → estimates: how many labels are wrong, where, and what changes gain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from labelops.confident.estimates import unpack_matrix
from pipelines.core.stage import Arrays
from pipelines.report import confusion, model
from pipelines.report.limits import Limits

# K classes, B bins, R rules

Find = Callable[[str, str], Arrays | None]
"""Result of a stage (by kind) that has an array of some name, or None."""

ENDS = ("", "_low", "_high")
"""An estimate and its interval, as results name them."""

METRICS = (
    ("ece", "ECE", "mean gap of confidence and accuracy"),
    ("adaptive_ece", "Adaptive ECE", "the same, in bins of equal size"),
    ("classwise_ece", "Class-wise ECE", "the same, mean over all classes"),
    ("mce", "Maximum error", "largest gap of any bin"),
    ("nll", "Log loss", "negative log-likelihood"),
    ("brier", "Brier score", "squared error"),
)
"""Measures of calibration: name in the result, name and meaning for people."""


@dataclass(frozen=True, kw_only=True)
class Estimates:
    """What the finished stages found out about the data set as a whole."""

    wrong: model.Estimate | None = None
    wrong_share: model.Estimate | None = None
    wrong_per_class: np.ndarray | None = None
    classes: tuple[model.ClassQuality, ...] = ()
    confusions: tuple[model.Confusion, ...] = ()
    table: model.ConfusionTable | None = None
    map: model.ConfusionMap | None = None


def estimates(
    find: Find,
    names: Sequence[str],
    flagged: np.ndarray,
    pairs: Mapping[tuple[int, int], int],
    limits: Limits,
) -> Estimates:
    """Read the estimates of stage `confident`.

    Parameters
    ----------
    find
        Looks results up.
    names
        Class names, K of them.
    flagged
        Flagged items of each given class, shape (K,).
    pairs
        Flagged items by given and believed class.
    limits
        How much is shown.
    """
    found = find("confident", "calibrated_joint")
    if found is None:
        return Estimates()
    joint = unpack_matrix(found, "calibrated_joint").astype(np.float64)
    n_given, wrong = joint.sum(axis=1), confusion.wrong_only(joint)
    hidden, n_wrong = wrong.sum(axis=0), wrong.sum(axis=1)
    rates = np.stack([found[f"noise_rate{end}"] for end in ENDS])
    order = np.lexsort((np.arange(len(names)), -rates[1], -rates[0]))
    return Estimates(
        wrong=model.Estimate(*(float(found[f"n_errors{end}"]) for end in ENDS)),
        wrong_share=model.Estimate(*(float(found[f"total_noise_rate{end}"]) for end in ENDS)),
        wrong_per_class=n_wrong,
        classes=tuple(
            model.ClassQuality(
                name=names[c],
                items=round(float(n_given[c])),
                flagged=int(flagged[c]),
                wrong_share=model.Estimate(*(float(rate) for rate in rates[:, c])),
                hidden=float(hidden[c]),
            )
            for c in order.tolist()
            if n_given[c] > 0
        ),
        confusions=confusion.ranked(joint, names, pairs, limits),
        table=confusion.table(joint, names, limits),
        map=confusion.coarse(joint, limits),
    )


def calibration(find: Find) -> model.Calibration | None:
    """Read what stage `infer` found out about its confidence."""
    found, listed = find("infer", "temperature"), find("infer", "slope")
    if found is None and listed is not None and listed["n_cells"]:
        return _of_cells(listed)
    if found is None:
        return None
    decided = find("decide", "shipped_expected_fixed") or {}
    return model.Calibration(
        temperature=float(found["temperature"]),
        items=int(found["n"]),
        accuracy=float(found["before_accuracy"]) if "before_accuracy" in found else None,
        decision_temperature=float(decided["temperature"]) if "temperature" in decided else None,
        metrics=_metrics(found),
        before=_bins(found, "before"),
        after=_bins(found, "after"),
    )


def _of_cells(found: Arrays) -> model.Calibration:
    """Return how far probabilities of single classes are from how often these are given."""
    return model.Calibration(
        temperature=None,
        slope=float(found["slope"]),
        shift=float(found["shift"]),
        items=int(found["n"]),
        cells=int(found["n_cells"]),
        metrics=_metrics(found),
        before=_bins(found, "before"),
        after=_bins(found, "after"),
    )


def _metrics(found: Arrays) -> tuple[model.Metric, ...]:
    return tuple(
        model.Metric(
            name=shown,
            meaning=meaning,
            before=float(found[f"before_{name}"]),
            after=float(found[f"after_{name}"]),
        )
        for name, shown, meaning in METRICS
        if f"before_{name}" in found
    )


def _bins(found: Arrays, when: str) -> tuple[model.ReliabilityBin, ...]:
    counts = found[f"{when}_bins_n"].tolist()
    n_bins = max(len(counts), 1)
    confidence = found[f"{when}_bins_confidence"].tolist()
    accuracy = found[f"{when}_bins_accuracy"].tolist()
    return tuple(
        model.ReliabilityBin(
            low=b / n_bins, high=(b + 1) / n_bins, count=n, confidence=conf, accuracy=acc
        )
        for b, (n, conf, acc) in enumerate(zip(counts, confidence, accuracy, strict=True))
    )


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What the rules that change labels did."""

    rules: tuple[model.Rule, ...] = ()
    doubted: float | None = None
    fixed: model.Estimate | None = None
    broken: model.Estimate | None = None
    changed: int = 0


def gate(found: Arrays, held_back: Mapping[str, str]) -> Gate:
    """Read what the gate of the stage that decided found.

    Parameters
    ----------
    found
        Result of its last step.
    held_back
        Why a change was held back, in words, by the name of the reason.
    """
    shown = np.flatnonzero(found["changes_labels"] & (found["proposed"] + found["shipped"] > 0))
    return Gate(
        rules=tuple(_rule(found, r, held_back) for r in shown.tolist()),
        doubted=float(found["doubted"]) if "doubted" in found else None,
        fixed=_expected(found["shipped_expected_fixed"].sum()),
        broken=_expected(found["shipped_expected_broken"].sum()),
        changed=int(found["shipped"].sum()),
    )


def _rule(found: Arrays, r: int, held_back: Mapping[str, str]) -> model.Rule:
    shipped = int(found["shipped"][r])
    stopped = zip(found["held_reasons"].tolist(), found["held"][r].tolist(), strict=True)
    reasons = [f"{n:,} {held_back[why]}" for why, n in stopped if n and held_back.get(why)]
    whole = "shipped in part" if reasons else "shipped"
    return model.Rule(
        name=str(found["rules"][r]),
        meaning=str(found["texts"][r]),
        proposed=int(found["proposed"][r]),
        shipped=shipped,
        fixed=_expected(found["expected_fixed"][r]),
        broken=_expected(found["expected_broken"][r]),
        gain=None
        if np.isnan(found["expected_fixed"][r])
        else model.Estimate(*(float(found[f"gain{end}"][r]) for end in ENDS)),
        verdict=whole if shipped else "held back",
        why="; ".join([str(found["verdict"][r]), *reasons]),
    )


def _expected(value: float) -> model.Estimate | None:
    return None if np.isnan(value) else model.Estimate(float(value))
