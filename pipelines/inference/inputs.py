"""From which column items are predicted."""

from pipelines.core.needs import NoColumnError
from pipelines.core.state import READY, TABLE
from pipelines.errors import RecipeError
from pipelines.inference.given import ONE_CLASS, given_of

INPUTS = (READY, TABLE, "pred_probs", "topk_probs", "features", "image", "text")
"""In the order of preference: what a recipe names, else the more has been done already."""


NAMED = {"opinions": (READY, "data.opinions"), "table": (TABLE, "data.features")}
"""What stands for columns that the recipe names, and where it does, by `use`."""


def input_column(use: str, columns: frozenset[str]) -> str:
    """Return the column that is predicted from: `use`, or the first there is if that is "auto".

    Raises
    ------
    NoColumnError
        If the data has none of them.
    RecipeError
        If it is to be columns that the recipe names, and none is named.
    """
    if use in NAMED:
        mark, setting = NAMED[use]
        if mark not in columns:
            raise RecipeError(
                f"stage 'infer': columns of the source were expected in {setting} for use = "
                f"{use!r}, got none. Name them, or leave use out"
            )
        return mark
    if use != "auto":
        return use
    # One class an item is what lists of probable classes are of.
    usable = columns if given_of(columns) is ONE_CLASS else columns - {"topk_probs"}
    column = next((name for name in INPUTS if name in usable), None)
    if column is None:
        raise NoColumnError(INPUTS)
    return column
