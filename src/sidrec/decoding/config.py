"""How a bundle decodes; part of the bundle."""

from pydantic import BaseModel, ConfigDict, Field


class DecodingConfig(BaseModel):
    """Budget of one answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    beam_width: int = Field(50, ge=1)
