"""Settings that systems share. Torch-free: recipes load where torch is not installed."""

from pydantic import BaseModel, ConfigDict, Field


class RepeatConfig(BaseModel):
    """The repeat path: a copy distribution over the history, mixed in with a learnt gate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    half_life_days: float = Field(120.0, gt=0)
