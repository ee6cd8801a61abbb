"""Items are words: names and codes are two spellings of one thing, and a checkpoint knows which catalogue it speaks."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidrec.data.catalog import Catalog
from sidrec.errors import UsageError
from sidrec.systems.sidreasoner.vocab import SidVocab


def catalogue(codes: list[list[int]]) -> Catalog:
    ids = [f"i{row}" for row in range(len(codes))]
    return Catalog.build(pl.DataFrame({"item_id": ids, "title": ids}), np.array(codes, dtype=np.int32))


SOME_COLLIDE = catalogue([[0, 1, -1], [2, 3, 0], [2, 3, 1], [4, 4, -1]])


def vocab_of(catalog: Catalog = SOME_COLLIDE) -> SidVocab:
    return SidVocab.of(catalog, num_levels=2, codebook_size=5)


def test_a_name_is_a_token_a_code() -> None:
    """The disambiguation code is a level of its own, and items that need none have no token there."""
    vocab = vocab_of()

    assert vocab.names == ["<a_0><b_1>", "<a_2><b_3><c_0>", "<a_2><b_3><c_1>", "<a_4><b_4>"]
    assert vocab.tokens(1) == ("<a_2>", "<b_3>", "<c_0>")


def test_tokens_are_those_of_the_codebook_and_not_of_the_items() -> None:
    """An item that is appended later finds its tokens; disambiguation codes are only as many as there are."""
    assert vocab_of().new_tokens() == [
        *(f"<a_{code}>" for code in range(5)),
        *(f"<b_{code}>" for code in range(5)),
        "<c_0>",
        "<c_1>",
    ]


@given(st.sets(st.tuples(*[st.integers(0, 4)] * 3), min_size=1, max_size=30))
def test_names_read_back_as_items(codes: set[tuple[int, ...]]) -> None:
    """Alone, in a row without a space, and in prose."""
    vocab = SidVocab.of(catalogue([list(own) for own in sorted(codes)]), num_levels=3, codebook_size=5)
    items = list(range(len(vocab)))

    assert [vocab.item(name) for name in vocab.names] == items
    assert [item for item, _ in vocab.mentions("".join(vocab.names))] == items
    assert [item for item, _ in vocab.mentions(" and then ".join(vocab.names))] == items


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("none", []),
        ("<a_0>", [(None, "<a_0>")]),
        ("<a_0> <b_1>", [(None, "<a_0>"), (None, "<b_1>")]),
        ("<a_2><b_3>", [(None, "<a_2><b_3>")]),
        ("<a_0><b_2>", [(None, "<a_0><b_2>")]),
        ("<b_1><a_0><b_1>", [(None, "<b_1>"), (0, "<a_0><b_1>")]),
        ("<a_9><b_9>", [(None, "<a_9><b_9>")]),
    ],
)
def test_what_is_no_items_name_is_told(text: str, found: list[tuple[int | None, str]]) -> None:
    assert list(vocab_of().mentions(text)) == found


def test_an_answer_is_one_name_and_nothing_else() -> None:
    vocab = vocab_of()

    assert vocab.item(" <a_0><b_1>\n") == 0
    assert vocab.item("<a_0><b_1>!") is None
    assert vocab.item("<a_0><b_1><a_4><b_4>") is None


def test_the_fingerprint_is_of_the_index() -> None:
    """The order of the items does not matter; which item has which name, and how many codes there are, does."""
    vocab = vocab_of()
    back = replace(vocab, item_ids=vocab.item_ids[::-1], codes=vocab.codes[::-1])
    swapped = replace(vocab, item_ids=vocab.item_ids[::-1])
    wider = replace(vocab, sizes=(6, 5, 2))

    assert back.fingerprint == vocab.fingerprint
    assert len({vocab.fingerprint, swapped.fingerprint, wider.fingerprint}) == 3


def test_a_catalogue_beyond_the_codebook_is_refused() -> None:
    with pytest.raises(UsageError, match=r"asks for \[5, 5, 2\] codes a level, tokens are for \[4, 4, 2\]"):
        SidVocab.of(SOME_COLLIDE, num_levels=2, codebook_size=4)
