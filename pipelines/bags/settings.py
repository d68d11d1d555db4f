"""Settings of stage `proportions`."""

from typing import Literal

from pydantic import BaseModel, Field


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `proportions`."""

    bags: str | None = Field(
        default=None,
        description="Path or URI of a Parquet or CSV file with one row per bag: bag_id, n, and "
        "positives (items of the second of two classes) or counts (one number per class); or share "
        "or shares, the same divided by n. Absent: an audit skips this stage.",
    )
    use: Literal["auto", "features", "pred_probs", "labels"] = Field(
        default="auto",
        description="Source of the class probabilities that are then made to agree with the "
        "totals. features: a model trained on the totals. pred_probs: these. labels: given labels "
        "and pred_probs, after stage confident. auto: the last of these that is available.",
    )
    unlisted: Literal["refuse", "allow"] = Field(
        default="refuse",
        description="What to do with bags that are only in the data or only in the table.",
    )
    scaling: Literal["auto", "columns", "whole"] = Field(
        default="auto",
        description="columns: each feature is scaled to standard deviation 1. whole: all features "
        "are divided by one number. auto: columns for features, whole for an embedding.",
    )
    neighbours: int = Field(
        default=5,
        ge=0,
        le=100,
        description="Nearest neighbours that influence an item; 0 for none.",
    )
    flat_limit: int = Field(
        default=50_000,
        ge=0,
        description="Up to this many items, neighbours are found exactly, by comparing all pairs; "
        "beyond, an approximate index finds nearly all.",
    )
    improbable: Literal["ignore", "impose"] = Field(
        default="ignore",
        description="What to do, after stage confident, with totals that are improbable given "
        "labels and model. ignore: do not use the totals of these bags, and use none at all if "
        "one share for all bags predicts the totals better than labels and model do. impose: "
        "totals overrule labels.",
    )
    max_sweeps: int = Field(
        default=100,
        ge=1,
        description="Maximum rounds of message passing between neighbours and bags; up to three "
        "times as many, with more damping, where it does not converge.",
    )
    start_items: int = Field(
        default=100_000,
        ge=1,
        description="The first model is fitted to randomly drawn bags with about this many items "
        "at most; time grows with this number, memory does not.",
    )
    fourier_features: int = Field(
        default=300,
        ge=0,
        le=4096,
        description="Random Fourier features of the first model; 0: linear.",
    )
    epochs: int = Field(default=60, ge=1, description="Maximum training epochs of the network.")
    seed: int = Field(
        default=0, ge=0, description="Random seed of Fourier features, weights and held-out bags."
    )
    top_k: int = Field(default=5, ge=1, description="Classes stored in a soft label.")
