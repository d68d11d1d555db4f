"""How far the confidence of the model can be trusted."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from pipelines.core.stage import Arrays
from pipelines.labels import positives
from pipelines.report import model as m
from pipelines.report.part import Part
from pipelines.report.text import count, decimal, percent, plural, signed

METRICS = (
    ("ece", "ECE", "expected calibration error: mean gap between confidence and accuracy"),
    ("adaptive_ece", "Adaptive ECE", "the same, in bins with equal numbers of items"),
    ("classwise_ece", "Class-wise ECE", "the same, mean over all classes"),
    ("mce", "Maximum error", "largest gap of any bin"),
    ("nll", "Log loss", "negative log-likelihood"),
    ("brier", "Brier score", "squared error"),
)
"""Measures: name in the result, name and meaning for people."""

WHEN = ("before", "after")

SURE = 1.25
"""What log-odds have to be divided by, beyond which the model is said to be too sure."""


class Dot(NamedTuple):
    """A bin of the reliability diagram; all in [0, 1], the radius in units of the drawing."""

    low: float
    width: float
    confidence: float
    accuracy: float
    height: float
    radius: float


class Calibration(Part):
    """What stage `infer` found out about its probabilities.

    Of whole labels, by a temperature, or of single classes, by slope and shift of their log-odds.
    """

    def sections(self) -> Iterator[m.Section]:
        """Return measures and a diagram."""
        # Of positive and unlabelled items nobody gave a label that predictions should agree with.
        if positives.GIVEN in self.run.types:
            return
        fit = self.run.result("infer", "calibration")
        if fit is None or ("temperature" not in fit and not fit["n_cells"]):
            return
        known = [one for one in METRICS if f"before_{one[0]}" in fit]
        table = m.Table(
            caption="Calibration error, lower is better",
            is_titled=True,
            style="metrics",
            columns=(
                m.column("Measure", ((name, meaning) for _, name, meaning in known), "noted"),
                m.column("Before", (fit[f"before_{key}"] for key, *_ in known), "fine"),
                m.column("After", (fit[f"after_{key}"] for key, *_ in known), "fine", "strong"),
            ),
        )
        is_whole = "temperature" in fit
        yield m.Section(
            name="calibration",
            title="Is the model’s confidence calibrated?",
            short="Calibration",
            rank=100,
            blocks=(
                _of_labels(fit, self.run.outcome() or {}) if is_whole else _of_classes(fit),
                m.Pair((_drawing(fit),), (table, _bins(fit)), style="pair"),
            ),
            findings=tuple(_too_sure(fit, table)),
        )


def _of_labels(fit: Arrays, outcome: Arrays) -> str:
    said = (
        "When the model says 80\u202f%, it should agree with the given label 80\u202f% of the "
        f"time. Temperature {decimal(float(fit['temperature']))} was fitted on "
        f"{plural(int(fit['n']), 'out-of-sample prediction')}"
    )
    if "before_accuracy" in fit:
        agree = percent(float(fit["before_accuracy"]))
        said += f", which agree with the given labels in {agree} of cases"
    said += (
        ". Label errors count as disagreements, so accuracy is underestimated and a model "
        "calibrated to the true labels looks overconfident here. Flags use the probabilities as "
        "predicted; decisions recalibrate them"
    )
    if "temperature" in outcome:
        used = decimal(float(outcome["temperature"]))
        said += (
            f" with temperature {used}, fitted with the estimated label noise taken into account"
        )
    return f"{said}."


def _of_classes(fit: Arrays) -> str:
    slope, shift = float(fit["slope"]), float(fit["shift"])
    left_out = "unknown ones are left out"
    if "n_counted" in fit:
        n = plural(int(fit["n_counted"]), "class", "classes")
        left_out = (
            f"unknown ones of {n} that hardly any item rules out count as not given, so that a "
            "probability there is that of being given, and less than that of being present"
        )
    return (
        "When the model gives a class 80\u202f%, that class should be given 80\u202f% of the "
        f"time. All classes of {plural(int(fit['n']), 'item')} are pooled here: "
        f"{count(int(fit['n_cells']))} out-of-sample probabilities of classes known to be given "
        f"or not; {left_out}. The best fit is log-odds times {decimal(slope)} and "
        f"{signed(shift)}. Missing labels count as absent classes, so a model calibrated to the "
        "true classes may look overconfident here. Flags use the probabilities as predicted; "
        "decisions recalibrate them for each class."
    )


def _bins(fit: Arrays) -> m.Table:
    is_whole = "temperature" in fit
    listed = [(when, b) for when in WHEN for b in np.flatnonzero(fit[f"{when}_bins_n"])]
    width = 1 / len(fit["before_bins_n"])
    n, confidence, accuracy = (
        [fit[f"{when}_bins_{what}"][b] for when, b in listed]
        for what in ("n", "confidence", "accuracy")
    )
    return m.Table(
        caption="Bins of the reliability diagram",
        style="list bins",
        columns=(
            m.column(
                "Confidence",
                (f"{b * width:.2f}\u2009–\u2009{(b + 1) * width:.2f}" for _, b in listed),
                "text",
            ),
            m.column("When", (when for when, _ in listed), "text"),
            m.column("Items" if is_whole else "Cells", n),
            m.column("Mean confidence", confidence, "decimal"),
            m.column("Share agreeing" if is_whole else "Share given", accuracy, "decimal"),
        ),
        n_open=0,
        more="bins",
    )


def _drawing(fit: Arrays) -> m.Drawing:
    """Return stated confidence against observed accuracy, and how many items stand behind."""
    most = max(int(fit[f"{when}_bins_n"].max()) for when in WHEN)
    marks = {when: _dots(fit, when, max(most, 1)) for when in WHEN}
    said = {"how": "scaling of log-odds", "of": "cells"}
    if "temperature" in fit:
        said = {"how": f"temperature {fit['temperature']:.2f}", "of": "items"}
    return m.Drawing("parts/reliability.html.j2", marks | said)


def _dots(fit: Arrays, when: str, most: int) -> tuple[Dot, ...]:
    n, confidence, accuracy = (
        fit[f"{when}_bins_{what}"] for what in ("n", "confidence", "accuracy")
    )
    width = 1 / len(n)
    return tuple(
        Dot(
            low=b * width,
            width=width,
            confidence=confidence[b],
            accuracy=accuracy[b],
            height=n[b] / most,
            radius=2.2 + 3.4 * math.sqrt(n[b] / most),
        )
        for b in np.flatnonzero(n).tolist()
    )


def _too_sure(fit: Arrays, table: m.Table) -> Iterator[m.Finding]:
    is_whole = "temperature" in fit
    excess = float(fit["temperature"]) if is_whole else 1 / max(float(fit["slope"]), 1e-9)
    if not table.rows or 1 / SURE <= excess <= SURE:
        return
    if is_whole:
        what = f"Temperature {decimal(excess, 2)} corrects it"
        used = "Decisions use recalibrated probabilities, flags do not."
    else:
        slope, shift = float(fit["slope"]), float(fit["shift"])
        what = f"Log-odds times {decimal(slope, 2)} and {shift:+.2f} correct it"
        used = "Decisions recalibrate each class, flags do not."
    how = "overconfident" if excess > 1 else "underconfident"
    (name, _), before, after = table.rows[0]
    yield m.Finding(
        f"The model is {how}",
        f"{what}: {name} goes from {decimal(before)} to {decimal(after)}. {used}",
        "calibration",
        rank=110,
    )
