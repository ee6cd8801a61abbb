"""Every Feast object of the project: entities, views, the push source and the feature service.

Feast imports this file on its own, so it imports nothing of ours. The Parquet sources are written by the step
`materialize_features`.
"""

import os
from pathlib import Path

from feast import Entity, FeatureService, FeatureView, Field, FileSource, PushSource, ValueType
from feast.types import Array, Int32, Int64, String

# Absolute: Feast opens a source's path from wherever the process runs.
_SOURCES = Path(os.environ.get("SIDREC_HOME", ".sidrec")).absolute() / "feast" / "sources"


def _source(name: str) -> FileSource:
    return FileSource(name=f"{name}_source", path=str(_SOURCES / f"{name}.parquet"), timestamp_field="event_timestamp")


user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
codebook = Entity(
    name="codebook",
    join_keys=["codebook_lineage"],
    value_type=ValueType.STRING,
    description="Semantic IDs of two codebooks are different features of one item.",
)

user_events = PushSource(
    name="user_events",
    batch_source=_source("user_history"),
    description="A user's whole capped history after a fresh event, from serving/events.py.",
)

# Nothing but what a request needs: SQLite reads every feature of a view, whichever are asked for.
user_history = FeatureView(
    name="user_history",
    entities=[user],
    schema=[
        Field(name="item_ids", dtype=Array(String), description="Items bought, oldest first, capped by whole days."),
        Field(name="times", dtype=Array(Int64), description="Unix seconds of each of them."),
    ],
    source=user_events,
    online=True,
)

user_aggregates = FeatureView(
    name="user_aggregates",
    entities=[user],
    schema=[
        Field(name="num_baskets", dtype=Int64),
        Field(name="num_items", dtype=Int64, description="Over all baskets; an item counts once a basket."),
        Field(name="num_distinct_items", dtype=Int64),
        Field(name="first_time", dtype=Int64, description="Unix seconds of the first basket."),
        Field(name="last_time", dtype=Int64, description="Unix seconds of the newest basket."),
    ],
    source=_source("user_aggregates"),
    online=True,
)

item_attributes = FeatureView(
    name="item_attributes",
    entities=[item],
    schema=[
        Field(name="title", dtype=String),
        Field(name="brand", dtype=String),
        Field(name="categories", dtype=String),
        Field(name="description", dtype=String),
        Field(name="popularity", dtype=Int64, description="Fit baskets with the item."),
        Field(name="recent_popularity", dtype=Int64, description="The same over the fit period's last 28 days."),
    ],
    source=_source("item_attributes"),
    online=True,
)

item_semantic_id = FeatureView(
    name="item_semantic_id",
    entities=[item, codebook],
    schema=[Field(name="codes", dtype=Array(Int32), description="Coarsest level first.")],
    source=_source("item_semantic_id"),
    online=True,
)

recommend_v1 = FeatureService(
    name="recommend_v1",
    features=[user_history],
    description="What one recommendation reads, and what the training set is joined from.",
)
