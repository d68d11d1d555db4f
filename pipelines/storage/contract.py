"""The columns of a source that mean something to us, and which of them announce kinds of labels."""

SPACES = {
    "label": "pipelines.labels.single:SPACE",
    "labels": "pipelines.labels.lists:SPACE",
    "positive": "pipelines.labels.positives:SPACE",
    "candidates": "pipelines.labels.candidates:SPACE",
}
"""Kinds of given labels, by the column of the source that announces each."""

KNOWN_COLUMNS = (
    "item_id",
    "image",
    "features",
    "text",
    "label",
    "labels",
    "labels_negative",
    "candidates",
    "positive",
    "bag_id",
    "annotations",
    "score_mean",
    "score_std",
    "pred_probs",
    "topk_ids",
    "topk_probs",
    "tail_prob",
)
"""The data contract's columns; others are carried through to the product and not read."""


def known_columns() -> tuple[str, ...]:
    """Return the columns of the data contract, with those that announce kinds of labels."""
    return tuple(dict.fromkeys([*KNOWN_COLUMNS, *SPACES]))
