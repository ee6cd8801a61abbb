"""A diff says what a change of semantic IDs breaks, to the hand-worked figure."""

import json

import numpy as np
import polars as pl
import pytest

from sidrec.codebook.diff import diff
from sidrec.data.catalog import Catalog


def catalogue(codes: dict[str, list[int]], recent: list[int] | None = None, removed: str = "") -> Catalog:
    table = pl.DataFrame(
        {
            "item_id": list(codes),
            "title": [f"title {item}" for item in codes],
            "popularity": [10] * len(codes),
            "recent_popularity": recent or [1] * len(codes),
            "removed_on": [pl.Series(["2010-01-01"]).str.to_date()[0] if item == removed else None for item in codes],
        },
        schema_overrides={"removed_on": pl.Date},
    )
    return Catalog.build(table, np.array(list(codes.values()), dtype=np.int32))


BEFORE = catalogue({"a": [0, 0, -1], "b": [0, 1, -1], "c": [1, 1, 0], "d": [1, 1, 1]}, [4, 3, 2, 1])
AFTER = catalogue({"b": [0, 2], "a": [0, 0], "c": [1, 1], "d": [2, 1], "e": [3, 3]})


def difference(**change: object) -> dict[str, object]:
    return diff(BEFORE, AFTER, num_levels=2, codebook_size=4, **change)  # type: ignore[arg-type]


def test_movers_by_count_and_by_traffic() -> None:
    """a stays; b, c (it loses its extra code) and d move: 3 of 4 items, .6 of the traffic; rows may be in any order."""
    found = difference()

    assert found["items"] == {"common": 4, "added": 1, "absent": 0, "removed": 0, "restored": 0}
    assert found["moved"] == {"items": 3, "share": 0.75, "traffic": pytest.approx(0.6)}
    assert [(row["items"], round(row["traffic"], 2)) for row in found["shared_prefix"]] == [
        (1, 0.1), (1, 0.3), (1, 0.2), (1, 0.4),
    ]  # fmt: skip
    assert found["changed_by_level"] == [0.25, 0.25, 0.5]
    assert [mover["item_id"] for mover in found["top_movers"]] == ["b", "c", "d"]
    assert found["top_movers"][1] == {
        "item_id": "c", "title": "title c", "traffic": pytest.approx(0.2), "before": [1, 1, 0], "after": [1, 1],
        "shared_prefix": 2,
    }  # fmt: skip


def test_collisions_and_dead_codes() -> None:
    """c and d shared two codes and no longer do; level 0 used 2 of 4 codes and now uses 4."""
    found = difference()

    assert found["collisions"] == {
        "before": 2, "after": 0, "created": 0, "healed": 2, "pairs_created": 0, "pairs_healed": 1,
    }  # fmt: skip
    assert found["dead_codes"] == {"before": [2, 2], "after": [0, 0]}


def test_history_tokens_count_as_often_as_they_stand_in_histories() -> None:
    """Only d is in histories: of its three tokens two change; with a alone nothing does."""
    assert difference(history_counts=np.array([0, 0, 0, 5.0]))["history_tokens_rewritten"] == pytest.approx(2 / 3)
    assert difference(history_counts=np.array([5.0, 0, 0, 0]))["history_tokens_rewritten"] == 0


def test_nothing_changes_against_itself() -> None:
    """No movers, all prefixes whole, and the answer is JSON."""
    found = diff(BEFORE, BEFORE, num_levels=2, codebook_size=4)

    assert found["moved"]["items"] == 0
    assert found["top_movers"] == []
    assert found["shared_prefix"][-1]["items"] == 4
    assert json.loads(json.dumps(found)) == found


def test_tombstones_are_counted() -> None:
    """An item that is buried now is removed, not absent."""
    now = catalogue({"a": [0, 0, -1], "b": [0, 1, -1], "c": [1, 1, 0], "d": [1, 1, 1]}, removed="b")

    assert diff(BEFORE, now, num_levels=2, codebook_size=4)["items"]["removed"] == 1
    assert diff(now, BEFORE, num_levels=2, codebook_size=4)["items"]["restored"] == 1


def test_an_item_that_changes_its_partner_is_a_new_pair() -> None:
    """a shared with b and c with d; now a shares with c and b with d: the same items, but two pairs for two."""
    before = catalogue({"a": [0, 0, 0], "b": [0, 0, 1], "c": [1, 1, 0], "d": [1, 1, 1]})
    after = catalogue({"a": [0, 0, 0], "b": [1, 1, 0], "c": [0, 0, 1], "d": [1, 1, 1]})

    assert diff(before, after, num_levels=2, codebook_size=2)["collisions"] == {
        "before": 4, "after": 4, "created": 0, "healed": 0, "pairs_created": 2, "pairs_healed": 2,
    }  # fmt: skip


def test_codebooks_of_different_form_are_compared_by_their_own() -> None:
    """Before: 8 codes at two levels and an extra code; after: 4 codes at three levels. No side borrows the other's."""
    before = catalogue({"a": [7, 0, 0], "b": [7, 0, 1], "c": [6, 5, -1]})
    after = catalogue({"a": [0, 0, 0], "b": [0, 0, 1], "c": [1, 2, 3]})
    found = diff(before, after, num_levels=3, codebook_size=4, num_levels_before=2, codebook_size_before=8)

    assert found["dead_codes"] == {"before": [6, 6], "after": [2, 2, 1]}
    assert (found["collisions"]["before"], found["collisions"]["after"]) == (2, 0)
    assert found["moved"]["items"] == 3


def test_histories_lose_the_tokens_of_absent_items() -> None:
    """b is in no later catalogue: of 5 tokens in histories its 2 are lost, and of a's 3 one is rewritten."""
    before, after = catalogue({"a": [0, 0, 0], "b": [1, 1, -1]}), catalogue({"a": [0, 0, 1]})
    found = diff(before, after, num_levels=2, codebook_size=2, history_counts=np.array([1.0, 1.0]))

    assert found["items"]["absent"] == 1
    assert found["history_tokens_lost"] == pytest.approx(2 / 5)
    assert found["history_tokens_rewritten"] == pytest.approx(1 / 5)


def test_a_pair_that_stays_together_is_neither_new_nor_gone() -> None:
    """a, b, c shared and now a, b, d do: of three pairs each, ab stays, so two are new and two are gone."""
    before = catalogue({"a": [0, 0, 0], "b": [0, 0, 1], "c": [0, 0, 2], "d": [1, 1, -1]})
    after = catalogue({"a": [2, 2, 0], "b": [2, 2, 1], "c": [1, 1, -1], "d": [2, 2, 2]})

    assert diff(before, after, num_levels=2, codebook_size=3)["collisions"] == {
        "before": 3, "after": 3, "created": 1, "healed": 1, "pairs_created": 2, "pairs_healed": 2,
    }  # fmt: skip
