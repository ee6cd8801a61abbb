"""How a bundle is judged: protocol, floors and the gates' thresholds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Floor = Literal[
    "global_popularity",
    "recent_popularity",
    "personal_frequency",
    "markov",
    "item_knn",
    "ease",
    "sasrec_basket",
]
SequenceFloor = Literal[
    "popularity",
    "markov",
    "markov_decayed",
    "item_knn",
    "item_knn_decayed",
    "ease",
    "ease_decayed",
    "sasrec",
]


class EvaluationConfig(BaseModel):
    """Rows and floors of one evaluation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    protocol: Literal["next_basket_v1", "leave_one_out", "temporal", "rows"] = Field(
        "next_basket_v1",
        description="next_basket_v1: what a run gates on. The others are for `sidrec evaluate` and folders of ordered "
        "events: each user's last event; every event of the last tenth of time; published rows.",
    )
    ties: Literal["published", "shuffled"] = Field(
        "published", description="Order of events of one timestamp: the file's, which may leak, or a seeded shuffle."
    )
    max_history: int | None = Field(None, ge=1, description="Newest events that a row may look at; None for all.")
    floors: tuple[Floor, ...] = Field(
        (), description="Baselines of next_basket_v1 beside the bundle, in the report's order."
    )
    sequence_floors: tuple[SequenceFloor, ...] = Field((), description="Baselines of the other protocols.")
    max_rows: int | None = Field(None, ge=1, description="Debug only: score the first rows of a seeded shuffle.")
    resamples: int = Field(1000, ge=100, description="Bootstrap resamples over rows.")


class GateConfig(BaseModel):
    """Thresholds of the three gates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    floor: Floor = Field(description="Baseline that the bundle must beat on novel-only NDCG@10.")
    non_inferiority: float = Field(
        0.03, gt=0, lt=1, description="Largest tolerated loss against the champion, relative to its mean."
    )
    min_utilisation: float = Field(0.80, ge=0, le=1, description="Least share of used codes, every level.")
    max_collision_rate: float = Field(
        0.15, ge=0, le=1, description="1 - distinct semantic IDs / items, before collisions are resolved."
    )
    max_p99_ms: float = Field(2000.0, gt=0, description="Golden requests through a real server.")
    fresh_days: int = Field(30, ge=1, description="A verdict older than this promotes nothing.")
