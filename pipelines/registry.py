"""Stages, kinds of labels and parts of the report: one line each, imported only when used."""

from pkgutil import resolve_name
from typing import TYPE_CHECKING

from pipelines.errors import RecipeError
from pipelines.storage.contract import SPACES

if TYPE_CHECKING:
    from pipelines.core.stage import Stage
    from pipelines.labels.space import LabelSpace
    from pipelines.report.part import Part

STAGES = {
    "source": "pipelines.stages.source:STAGE",
    "infer": "pipelines.stages.infer:STAGE",
    "confident": "pipelines.stages.confident:STAGE",
    "multilabel": "pipelines.stages.multilabel:STAGE",
    "proportions": "pipelines.stages.proportions:STAGE",
    "pu": "pipelines.stages.pu:STAGE",
    "partial": "pipelines.stages.partial:STAGE",
    "neighbours": "pipelines.stages.neighbours:STAGE",
    "localize": "pipelines.stages.localize:STAGE",
    "decide_maps": "pipelines.stages.decide_maps:STAGE",
    "decide": "pipelines.stages.decide:STAGE",
    "decide_labels": "pipelines.stages.decide_labels:STAGE",
    "decide_positives": "pipelines.stages.decide_positives:STAGE",
    "decide_candidates": "pipelines.stages.decide_candidates:STAGE",
    "evaluate": "pipelines.stages.evaluate:STAGE",
    "dataset": "pipelines.stages.dataset:STAGE",
    "distill": "pipelines.stages.distill:STAGE",
    "teach": "pipelines.stages.teach:STAGE",
}

PARTS = {
    "infer": (
        "pipelines.report.parts.calibration:Calibration",
        "pipelines.report.parts.recalls:Recalls",
    ),
    "confident": ("pipelines.report.parts.noise:Noise",),
    "multilabel": ("pipelines.report.parts.lists:Lists",),
    "proportions": ("pipelines.report.parts.totals:Totals",),
    "pu": ("pipelines.report.parts.positives:Positives",),
    "partial": ("pipelines.report.parts.candidates:Candidates",),
    "neighbours": ("pipelines.report.parts.neighbours:Neighbours",),
    "localize": ("pipelines.report.parts.maps:Maps",),
    "decide_maps": ("pipelines.report.parts.maps:Added",),
    "evaluate": ("pipelines.report.parts.evaluation:Evaluation",),
    "distill": ("pipelines.report.parts.students:Students",),
    "teach": ("pipelines.report.parts.soft_labels:SoftLabels",),
}
"""What report, data card and artifacts say of single stages, by the stage."""


def load_space(name: str) -> "LabelSpace":
    """Import a kind of label, by the column that announces it."""
    space: LabelSpace = resolve_name(SPACES[name])
    return space


def load_parts(stage: str) -> "list[type[Part]]":
    """Import what the report says of a stage; nothing where it says nothing of its own."""
    return [resolve_name(name) for name in PARTS.get(stage, ())]


def load_stage(name: str) -> "Stage":
    """Import the stage that a recipe lists as ``name`` or ``name@2``.

    Raises
    ------
    RecipeError
        If no such stage is registered; suggests the nearest.
    """
    base = name.split("@")[0]
    if base not in STAGES:
        from pipelines.storage.wording import did_you_mean, shown

        raise RecipeError(
            f"recipe: a registered stage was expected, got {shown(name)}"
            f"{did_you_mean(base, STAGES)} Known: {sorted(STAGES)}"
        )
    stage: Stage = resolve_name(STAGES[base])
    return stage
