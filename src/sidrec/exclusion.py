"""An exclusion group: experiments that share no user, each with a piece of one line of its own.

The line is drawn by the group's name alone, so a user stands at one point of it for ever, whatever runs. It has
nothing to do with the line on which an experiment's arms lie: that one has the experiment's salt.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Exclusion(BaseModel):
    """The piece of a group's line whose users may be in an experiment; everybody else gets the champion, uncounted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    group: str = Field(min_length=1, description="Experiments of one group share no user.")
    low: float = Field(ge=0, lt=1, description="Where the piece begins on the group's line.")
    high: float = Field(gt=0, le=1, description="Where it ends; its own end is the next piece's.")

    @model_validator(mode="after")
    def _has_room(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"{self.group}: the piece from {self.low} to {self.high} holds nobody")
        return self

    @property
    def salt(self) -> str:
        """Salt under which the group's line is drawn."""
        return f"exclusion/{self.group}"

    def holds(self, point: float) -> bool:
        """Return whether a point of the group's line lies in this piece."""
        return self.low <= point and (point < self.high or self.high == 1)

    def meets(self, other: "Exclusion") -> bool:
        """Return whether two pieces may share a user; pieces of different groups are drawn apart and always may."""
        return self.group == other.group and self.low < other.high and other.low < self.high
