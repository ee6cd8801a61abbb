"""A catalogue maps items and semantic IDs one to one."""

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.catalog import PAD, SCHEMA, Catalog, disambiguate
from sidrec.errors import BundleError, UsageError


def build(codes: list[list[int]]) -> Catalog:
    rows = len(codes)
    items = pl.DataFrame(
        {
            "item_id": [f"i{row}" for row in range(rows)],
            "title": [f"title {row}" for row in range(rows)],
            "popularity": list(range(rows)),
            "recent_popularity": [2 * row for row in range(rows)],
            "first_sold": [date(2010, 1, 1 + row % 28) for row in range(rows)],
        }
    )
    return Catalog.build(items, np.array(codes, dtype=np.int32))


@st.composite
def raw_codes(draw: st.DrawFn) -> list[list[int]]:
    """Few codes and many items, so that collisions are common."""
    num_levels = draw(st.integers(1, 4))
    return draw(
        st.lists(st.lists(st.integers(0, 2), min_size=num_levels, max_size=num_levels), min_size=1, max_size=40)
    )


@given(raw_codes())
@settings(max_examples=200, deadline=None)
def test_decode_undoes_encode(codes: list[list[int]]) -> None:
    """Whatever codes a quantizer gives, every item comes back from its semantic ID after disambiguation."""
    catalog = build(disambiguate(np.array(codes, dtype=np.int32)).tolist())

    assert [catalog.decode(catalog.encode(item_id)) for item_id in catalog.item_ids] == catalog.item_ids


@given(raw_codes())
@settings(max_examples=200, deadline=None)
def test_no_semantic_id_begins_another(codes: list[list[int]]) -> None:
    """A decoder that has reached an item's last code never finds a further one."""
    unique = disambiguate(np.array(codes, dtype=np.int32))
    sids = {tuple(code for code in row if code != PAD) for row in unique.tolist()}

    assert not any(sid[:length] in sids for sid in sids for length in range(1, len(sid)))


@given(raw_codes(), st.randoms())
@settings(max_examples=50, deadline=None)
def test_disambiguation_numbers_by_rank(codes: list[list[int]], random: object) -> None:
    """Among items that share all codes the more popular one has the lower extra code."""
    array = np.array(codes, dtype=np.int32)
    rank = np.array([random.randint(0, 5) for _ in codes])  # type: ignore[attr-defined]
    unique = disambiguate(array, rank)

    if unique.shape[1] == array.shape[1]:
        assert len({tuple(row) for row in codes}) == len(codes)
        return
    np.testing.assert_array_equal(unique[:, :-1], array)
    for sid in {tuple(row) for row in codes}:
        group = [row for row in range(len(codes)) if tuple(codes[row]) == sid]
        extra = {row: int(unique[row, -1]) for row in group}
        if len(group) == 1:
            assert extra[group[0]] == PAD
        else:
            by_extra = sorted(group, key=lambda row: extra[row])
            assert sorted(extra.values()) == list(range(len(group)))
            assert by_extra == sorted(group, key=lambda row: (-int(rank[row]), row))


def test_codes_without_collisions_stay_as_they_are() -> None:
    """No column is added where the codes already tell the items apart."""
    codes = np.array([[0, 1], [1, 0], [1, 1]], dtype=np.int32)

    np.testing.assert_array_equal(disambiguate(codes), codes)


def test_a_file_gives_the_same_catalogue_back(tmp_path: Path) -> None:
    """Reading what was written changes nothing, row order and types included."""
    catalog = build([[3, 1, PAD], [0, 2, 0], [0, 2, 1]])
    catalog.write(tmp_path / "catalogue.parquet")
    again = Catalog.read(tmp_path / "catalogue.parquet")

    assert again.table().equals(catalog.table())
    assert again.codes.dtype == np.int32
    assert again.popularity.dtype == np.int64
    assert again.num_codes == 3
    assert again.index_of == {"i0": 0, "i1": 1, "i2": 2}


def test_an_unneeded_pad_may_be_left_out() -> None:
    """(3, 1) and (3, 1, -1) are one semantic ID."""
    catalog = build([[3, 1, PAD], [0, 2, 0], [0, 2, 1]])

    assert catalog.decode((3, 1)) == catalog.decode((3, 1, PAD)) == "i0"
    assert catalog.decode([0, 2, 1]) == "i2"


@pytest.mark.parametrize(
    ("codes", "fault"),
    [
        ([[0, 1], [0, 1]], "'i0' and 'i1' share"),
        ([[0, 1, PAD], [0, 1, 0]], "is the beginning of"),
        ([[0, PAD, 1], [0, 1, 0]], "negative code before its last"),
        ([[0, -2]], "negative code"),
        ([[PAD]], "negative code"),
    ],
)
def test_ambiguous_codes_are_refused(codes: list[list[int]], fault: str) -> None:
    """A catalogue that could not be decoded does not come into being."""
    with pytest.raises(BundleError, match=fault):
        build(codes)


def test_unknown_items_and_codes_are_named() -> None:
    """The error shows what was asked for."""
    catalog = build([[0, 1], [1, 0]])

    with pytest.raises(UsageError, match="'nope'"):
        catalog.encode("nope")
    with pytest.raises(UsageError, match=r"\(1, 1\)"):
        catalog.decode((1, 1))


def test_known_drops_what_the_catalogue_lacks_and_keeps_order() -> None:
    """History items that are gone are dropped, the others keep their order and repeats."""
    catalog = build([[0], [1], [2]])

    assert catalog.known(["i2", "gone", "i0", "i2"]) == [2, 0, 2]


def test_a_broken_file_is_refused_with_its_name(tmp_path: Path) -> None:
    """No file, no Parquet and no column are three named faults."""
    path = tmp_path / "catalogue.parquet"
    with pytest.raises(BundleError, match="cannot be read"):
        Catalog.read(path)

    path.write_bytes(b"PAR1 not really")
    with pytest.raises(BundleError, match="cannot be read") as refused:
        Catalog.read(path)
    assert refused.value.evidence == str(path)

    build([[0], [1]]).table().drop("popularity").write_parquet(path)
    with pytest.raises(BundleError, match="no column popularity"):
        Catalog.read(path)


def test_repeated_items_are_refused() -> None:
    """One item, one row."""
    items = pl.DataFrame({"item_id": ["a", "b", "a"]})

    with pytest.raises(BundleError, match="twice in the catalogue: 'a'"):
        Catalog.build(items, np.array([[0], [1], [2]], dtype=np.int32))


def test_missing_columns_read_as_unknown() -> None:
    """A table with ids alone still makes a catalogue, with every column of the schema."""
    catalog = Catalog.build(pl.DataFrame({"item_id": ["a", "b"]}), np.array([[0], [1]], dtype=np.int32))

    assert catalog.titles == ["", ""]
    assert catalog.popularity.tolist() == [0, 0]
    assert catalog.first_sold == [None, None]
    assert dict(catalog.table().schema) == SCHEMA


def test_tombstones_come_back_from_disk(tmp_path: Path) -> None:
    """A removed item keeps its row, its day and its semantic ID; a file without the column has no tombstone."""
    items = build([[0, 0], [0, 1], [1, 0]]).table().with_columns(removed_on=pl.Series([None, date(2010, 9, 1), None]))
    catalog = Catalog.build(items, np.array([[0, 0], [0, 1], [1, 0]], dtype=np.int32))
    catalog.write(tmp_path / "with.parquet")
    pl.read_parquet(tmp_path / "with.parquet").drop("removed_on").write_parquet(tmp_path / "without.parquet")

    assert Catalog.read(tmp_path / "with.parquet").removed_on == [None, date(2010, 9, 1), None]
    assert Catalog.read(tmp_path / "with.parquet").decode((0, 1)) == "i1"
    assert not Catalog.read(tmp_path / "without.parquet").removed.any()


def test_categories_come_back_from_disk(tmp_path: Path) -> None:
    """Items keep their own words for where they belong; a file without the column has none."""
    items = build([[0], [1]]).table().with_columns(categories=pl.Series(["Garden; Lights", None]))
    Catalog.build(items, np.array([[0], [1]], dtype=np.int32)).write(tmp_path / "with.parquet")
    pl.read_parquet(tmp_path / "with.parquet").drop("categories").write_parquet(tmp_path / "without.parquet")

    assert Catalog.read(tmp_path / "with.parquet").categories == ["Garden; Lights", None]
    assert Catalog.read(tmp_path / "without.parquet").categories == [None, None]
