"""What the data is, how it is cleaned and when a batch of it is refused."""

from datetime import date
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

EVENT_NAMES = ("user_id", "item_id", "timestamp", "event_type", "quantity", "price")
ITEM_NAMES = ("item_id", "title", "brand", "categories", "description")


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
    timestamp_unit: Literal["s", "ms", "us"] = Field("s", description="table adapter: unit of whole-number timestamps.")
    derive_times: bool = Field(
        False,
        description="amazon adapter: where times are unknown, put each user's events on the days before as_of.",
    )
    watermark: date | None = Field(
        None,
        description="First day that the extract does not hold whole; it is cut there. None: its last day is whole.",
    )

    @model_validator(mode="after")
    def _maps_name_our_columns(self) -> "DataConfig":
        for field, allowed in (("event_columns", EVENT_NAMES), ("item_columns", ITEM_NAMES)):
            names: dict[str, str] = getattr(self, field)
            unknown = sorted(set(names) - set(allowed))
            if unknown:
                raise ValueError(f"{field} maps {', '.join(unknown)}; ours are {', '.join(allowed)}")
            if len(set(names.values())) < len(names):
                raise ValueError(f"{field} maps two of our columns to one of yours: {names}")
        return self


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
    min_known_item_share: float = Field(
        0.95, ge=0, le=1, description="Least share of events whose item the items file has."
    )


class FeaturesConfig(BaseModel):
    """What the feature store holds for a user."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    history_cap: int = Field(200, ge=1, description="Newest events kept per user, cut at basket borders.")
    max_age_days: int = Field(400, ge=1, description="An older user row is stale: the answer is cold.")
    online_until: Literal["gate_start", "as_of"] = Field(
        "as_of",
        description="First day that the store does not know. gate_start reproduces that date, for a replay of "
        "the gate window: events pushed since are then not carried over.",
    )
    training_set_days: int = Field(
        31, ge=1, description="Last days of the fit period in the point-in-time training set."
    )


class EmbeddingConfig(BaseModel):
    """Where item vectors come from: TF-IDF reduced by truncated SVD, a sentence model, or the user's own column."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["tfidf", "sentence_transformer", "column"] = "tfidf"
    dim: int = Field(64, ge=2, description="Width that tfidf and a wider sentence model are reduced to.")
    refit: bool = Field(
        False, description="Fit the embedder again although one is live: a new lineage, so every semantic ID is new."
    )
    min_document_count: int = Field(2, ge=1, description="tfidf: a word or n-gram of fewer items is left out.")
    max_features: int = Field(50_000, ge=1, description="tfidf: the most frequent words and n-grams that are kept.")
    ngram_min: int = Field(3, ge=1, description="tfidf: shortest character n-gram, word borders counted.")
    ngram_max: int = Field(5, ge=1)
    word_share: float = Field(0.5, ge=0, le=1, description="tfidf: share of words in a text's squared length.")
    model: str | None = Field(
        None, description="sentence_transformer: a model's folder, or its name where models may be downloaded."
    )
    batch_size: int = Field(64, ge=1, description="sentence_transformer: texts encoded at a time.")
    vectors: Path | None = Field(None, description="column: a Parquet file with item_id and one vector an item.")
    column: str = Field("vector", description="column: which column of it, a list of numbers.")

    @model_validator(mode="after")
    def _ngrams_in_order(self) -> "EmbeddingConfig":
        if self.ngram_max < self.ngram_min:
            raise ValueError(f"ngram_max {self.ngram_max} is below ngram_min {self.ngram_min}")
        return self

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> "EmbeddingConfig":
        for source, key in (("sentence_transformer", "model"), ("column", "vectors")):
            given = getattr(self, key) is not None
            if given != (self.source == source):
                what = f"needs {key}" if not given else f"has no use for {key}, which is for {source}"
                raise ValueError(f"source {self.source} {what}")
        return self
