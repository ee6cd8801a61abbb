"""What the data is, how it is cleaned and when a batch of it is refused."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DataConfig(BaseModel):
    """Where raw events come from and how their columns are called."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: Literal["online_retail", "amazon", "table"] = Field(description="Which raw format the files have.")
    events: Path = Field(description="Events file (Parquet or CSV); a relative path starts at the working folder.")
    items: Path | None = Field(None, description="Items file; online_retail derives items from its events.")
    event_columns: dict[str, str] = Field(
        default_factory=dict,
        description="table adapter: ours -> yours, for user_id, item_id, timestamp and optional columns.",
    )
    item_columns: dict[str, str] = Field(
        default_factory=dict, description="table adapter: ours -> yours, for item_id, title and optional columns."
    )


class ValidationConfig(BaseModel):
    """Limits of the batch tier; a batch beyond one of them stops the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_null_user_share: float = Field(0.40, ge=0, le=1)
    max_quarantined_share: float = Field(0.10, ge=0, le=1)
    min_last_day_volume: float = Field(
        0.25, ge=0, description="Least share of the median of the last 8 equal weekdays on the last full day."
    )
    max_age_days: int | None = Field(None, ge=0, description="Freshness: newest event against as_of; None is off.")
    min_events: int = Field(1000, ge=1)


class FeaturesConfig(BaseModel):
    """What the feature store holds for a user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history_cap: int = Field(200, ge=1, description="Newest events kept per user, cut at basket borders.")
    max_age_days: int = Field(400, ge=1, description="An older user row is stale: the answer is cold.")


class EmbeddingConfig(BaseModel):
    """The text embedder: TF-IDF over words and character n-grams, reduced by truncated SVD."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    dim: int = Field(64, ge=2)
    min_document_count: int = Field(2, ge=1)
