"""From which column items are predicted."""

from pipelines.core.needs import NoColumnError
from pipelines.core.state import READY, TABLE
from pipelines.labels.lists import is_multi_label

INPUTS = (READY, TABLE, "pred_probs", "topk_probs", "features", "image", "text")
"""In the order of preference: what a recipe names, else the more has been done already."""


def input_column(use: str, columns: frozenset[str]) -> str:
    """Return the column that is predicted from: `use`, or the first there is if that is "auto".

    Raises
    ------
    NoColumnError
        If the data has none of them.
    """
    if use != "auto":
        return READY if use == "opinions" else use
    # One class an item is what lists of probable classes are of.
    usable = columns - {"topk_probs"} if is_multi_label(columns) else columns
    column = next((name for name in INPUTS if name in usable), None)
    if column is None:
        raise NoColumnError(INPUTS)
    return column
