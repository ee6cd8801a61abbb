"""Small basket data whose right answers plain loops find, and the shipped data by the library's own cleaning."""

import functools
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from sidrec.clock import day_start
from sidrec.data.baskets import build_baskets, build_items
from sidrec.data.ingest import clean_tables
from sidrec.evaluation.protocol import NextBasket, next_basket_v1
from sidrec.recipe import load_recipe

ROOT = Path(__file__).parents[1]
GATE_START = date(2010, 11, 1)
AS_OF = date(2010, 12, 1)

History = dict[date, list[str]]


@dataclass(frozen=True)
class World:
    """Baskets as a plain dictionary beside the tables made from it."""

    users: dict[str, History]
    item_ids: list[str]

    @property
    def baskets(self) -> pl.DataFrame:
        rows = [
            {"user_id": user, "day": day, "time": day_start(day) + 36_000, "item_ids": items}
            for user, history in self.users.items()
            for day, items in history.items()
        ]
        return pl.DataFrame(
            rows, schema={"user_id": pl.String, "day": pl.Date, "time": pl.Int64, "item_ids": pl.List(pl.String)}
        )

    @property
    def items(self) -> pl.DataFrame:
        return pl.DataFrame({"item_id": self.item_ids}, schema={"item_id": pl.String})

    def data(self) -> NextBasket:
        return next_basket_v1(self.baskets, self.items, gate_start=GATE_START, as_of=AS_OF)

    def fit(self, user: str) -> list[tuple[date, list[str]]]:
        return sorted((day, items) for day, items in self.users[user].items() if day < GATE_START)

    def fit_baskets(self) -> list[tuple[date, list[str]]]:
        return [basket for user in self.users for basket in self.fit(user)]

    def rows(self) -> list[tuple[str, date]]:
        """The users to judge and their days, in user order."""
        found = []
        for user in sorted(self.users):
            days = [day for day in sorted(self.users[user]) if day >= GATE_START]
            if days and self.fit(user):
                found.append((user, days[0]))
        return found


def random_world(seed: int, *, users: int = 14, items: int = 15, outside: int = 2, skew: float = 0.0) -> World:
    """Return users with 0 to 5 fit baskets and 0 to 2 gate baskets; some targets lie outside the catalogue.

    Args:
        skew: 0 makes every item equally likely; above, low item numbers are the popular ones.
    """
    generator = np.random.default_rng(seed)
    item_ids = [f"i{number:02d}" for number in range(items)]
    strange = [f"x{number}" for number in range(outside)]
    share = (1 + np.arange(items)) ** -skew
    late_share = np.append(share, np.full(outside, share.min()))
    people: dict[str, History] = {}
    for number in range(users):
        history: History = {}
        for _ in range(generator.integers(0, 6)):
            day = GATE_START - timedelta(days=int(generator.integers(1, 120)))
            history[day] = draw(generator, item_ids, share, most=4)
        for _ in range(generator.integers(0, 3)):
            day = GATE_START + timedelta(days=int(generator.integers(0, 30)))
            history[day] = draw(generator, item_ids + strange, late_share, most=6)
        if history:
            people[f"u{number:02d}"] = history
    return World(people, item_ids)


def draw(generator: np.random.Generator, pool: list[str], share: NDArray[np.float64], *, most: int) -> list[str]:
    size = generator.integers(1, most + 1)
    return [str(item) for item in generator.choice(pool, size=size, replace=False, p=share / share.sum())]


@functools.cache
def retail_tables() -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return baskets and items of the shipped data, by the cleaning of the pipeline."""
    _, recipe = load_recipe(ROOT / "pipelines" / "recipes" / "popularity_retail.yaml")
    data = recipe.data.model_copy(update={"events": ROOT / "data" / "online_retail" / "transactions.parquet"})
    cleaned = clean_tables(data, as_of=recipe.as_of, gate_start=recipe.gate_start, watermark=data.watermark)
    baskets = build_baskets(cleaned.events, recipe.as_of)
    return baskets, build_items(cleaned.sales, cleaned.items_raw, baskets, recipe.gate_start)


@functools.cache
def retail() -> NextBasket:
    """Return the November test of the shipped data."""
    baskets, items = retail_tables()
    return next_basket_v1(baskets, items, gate_start=GATE_START, as_of=AS_OF)
