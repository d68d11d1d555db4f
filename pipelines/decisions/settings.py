"""Settings of stage `dataset`."""

from pydantic import BaseModel, Field


class Config(BaseModel, frozen=True, extra="forbid"):
    """Settings of stage `dataset`."""

    leave_out_rules: tuple[str, ...] = Field(
        default=(),
        description="Rules whose decisions are undone: their items keep the given labels.",
    )
    leave_out_items: tuple[str, ...] = Field(
        default=(), description="Ids of items whose decisions are undone."
    )
