"""JSON of the HTTP door; every limit here is the wire contract's."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidrec import contract
from sidrec.outcome import Outcome

_Id = Annotated[str, Field(min_length=1, max_length=contract.MAX_ID_BYTES)]
_MAX_EVENTS = 1000


class RequestContext(BaseModel):
    """What is logged with the answer, and the time under the event clock."""

    model_config = ConfigDict(extra="forbid")

    request_id: str | None = Field(None, max_length=128)
    surface: str | None = Field(None, max_length=64, description="Where the items will be shown.")
    event_time: int | None = Field(None, ge=0, description="Unix seconds; refused under the wall clock.")
    rationale: bool = False


class RecommendRequest(BaseModel):
    """Whom to recommend to: a known user, or a history; with neither, the answer is the popular items."""

    model_config = ConfigDict(extra="forbid")

    user_id: _Id | None = Field(None, description="Looked up in the feature store.")
    history: list[_Id] = Field(
        default_factory=list,
        max_length=contract.MAX_HISTORY,
        description="Item ids, oldest first; wins over the store.",
    )
    history_time: list[int] = Field(default_factory=list, description="Unix seconds, as many as items, or none.")
    k: int = Field(contract.DEFAULT_K, ge=1, le=contract.MAX_K)
    exclude_seen: bool = False
    deadline_ms: int | None = Field(
        None,
        ge=1,
        le=60_000,
        description="How long the caller waits; the gateway's own limit holds too. Late means fewer beams, then 504.",
    )
    context: RequestContext | None = None

    @model_validator(mode="after")
    def _as_many_times_as_items(self) -> Self:
        if self.history_time and len(self.history_time) != len(self.history):
            raise ValueError(f"history_time has {len(self.history_time)} entries, history has {len(self.history)}")
        return self


class RecommendedItem(BaseModel):
    """One recommended item."""

    item_id: str
    score: float = Field(description="A log-probability iff the answer's source is model.")
    semantic_id: list[int]


class RecommendResponse(BaseModel):
    """Distinct items, best first, and what answered."""

    items: list[RecommendedItem]
    source: str = Field(description="model, cold or degraded")
    arm: str
    bundle_id: str
    revision: int
    request_id: str = Field(description="Send it with the events that follow from this answer.")
    rationale: str


class EventsRequest(BaseModel):
    """What users did; the next recommendation of their users sees it."""

    model_config = ConfigDict(extra="forbid")

    events: list[Outcome] = Field(min_length=1, max_length=_MAX_EVENTS)


class EventsResponse(BaseModel):
    """Where every event sent is: sent = new + duplicates."""

    sent: int
    new: int
    duplicates: int
    users: int = Field(description="Histories that changed.")


class ErrorResponse(BaseModel):
    """Why there is no answer."""

    error: str = Field(description="One word that stays the same; the message may change.")
    message: str
    retry: bool = Field(description="Whether the same request may succeed later.")
