"""Whose folder is whose: in a run every folder belongs to one stage, or to the run itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.errors import RecipeError, RunError

if TYPE_CHECKING:
    from pipelines.core.stage import Stage, Step

OF_THE_RUN = ("quarantine", "review", "_manifests")
"""Folders that the driver writes, whatever the stages."""

RESERVED = ("_commits", "_results", "_artifacts")
"""Folders inside a stage's own that the driver writes."""

Load = Callable[[str], "Stage"]
"""Finds a stage by its name in the recipe."""


def folders_of(name: str, stage: "Stage") -> tuple[str, ...]:
    """Return the folders of a run that only this stage writes."""
    return (name, *(folder.format(stage=name) for folder in stage.folders))


def check_listed(names: Sequence[str], load: Load, where: str) -> None:
    """Stop where stages of a recipe, from somewhere, would write over each other.

    Raises
    ------
    RecipeError
        If two stages decide, two write one folder, or one writes a folder of the run.
    """
    stages = {name: load(name) for name in names}
    deciding = [name for name, stage in stages.items() if stage.decides]
    if len(deciding) > 1:
        raise RecipeError(
            f"recipe: one stage that decides was expected, got {' and '.join(map(repr, deciding))};"
            f" in {where}. There is one log of decisions (decisions/), and the product follows it: "
            "list one of them, and give the other a recipe and a run (--out) of its own"
        )
    owners: dict[str, str] = {}
    for name, stage in stages.items():
        for folder in folders_of(name, stage):
            if folder in OF_THE_RUN:
                raise RecipeError(
                    f"recipe: stages were expected to write folders of their own, got {name!r}, "
                    f"which would write {folder}/, a folder of the run itself; in {where}. Rename "
                    "what the stage writes"
                )
            if folder in owners:
                raise RecipeError(
                    f"recipe: one stage was expected to write the folder {folder}/, got "
                    f"{owners[folder]!r} and {name!r}, of which the second would write over the "
                    f"first; in {where}. List one of them, and give the other a recipe and a run "
                    "(--out) of its own"
                )
            owners[folder] = name


def check_rounds(names: Sequence[str], where: str) -> None:
    """Stop at a round whose round before is not listed before it.

    Raises
    ------
    RecipeError
        Names both.
    """
    for position, name in enumerate(names):
        base, _, number = name.partition("@")
        if not number:
            continue
        before = base if int(number) == 2 else f"{base}@{int(number) - 1}"
        if before not in names[:position]:
            raise RecipeError(
                f"recipe: rounds of a stage are listed one after the other as {base!r}, "
                f"'{base}@2', '{base}@3', …; got {name!r} without {before!r} before it; in "
                f"{where}. List {before!r} first, or {base!r} alone"
            )


def check_writes(name: str, stage: "Stage", step: "Step", earlier: Mapping[str, str]) -> None:
    """Stop before a step writes a folder that is not its stage's, or is an earlier step's.

    Raises
    ------
    RunError
        If the stage did not declare the folder, or `earlier` says which step wrote it.
    """
    who = f"stage {name!r}, step {step.name!r}"
    for folder in getattr(step, "writes", ()):
        top, *inner = folder.split("/")
        is_own = top == name and not {*RESERVED, "", ".", ".."} & set(inner)
        if not is_own and folder not in folders_of(name, stage):
            raise RunError(
                f"{who}: a folder of its own was expected ({', '.join(folders_of(name, stage))}, "
                f"or one inside {name}/), got {folder!r}. Declare it in the stage's folders"
            )
        if folder in earlier:
            raise RunError(
                f"{who}: a folder that no other step writes was expected, got {folder!r}, which "
                f"step {earlier[folder]!r} wrote. Give each step its own"
            )
