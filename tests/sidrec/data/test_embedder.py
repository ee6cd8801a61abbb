"""A text embedder is frozen: the same text has the same vector for ever."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec.data.config import EmbeddingConfig
from sidrec.data.embedder import TextEmbedder, item_texts
from sidrec.errors import BundleError, UsageError

COLOURS = ["red", "pink", "blue", "green", "ivory", "gold"]
THINGS = ["christmas bauble", "glass t-light holder", "lunch box", "paper chain kit", "garden trowel", "tea towel set"]
TEXTS = [f"{colour} {thing}".upper() for colour in COLOURS for thing in THINGS]


@pytest.fixture(scope="module")
def embedder() -> TextEmbedder:
    return TextEmbedder.fit(TEXTS, EmbeddingConfig(dim=8))


@given(st.lists(st.sampled_from([*TEXTS, "", "PINK LUNCHBOX", "zebra", "Ünïcode ½ tea"]), min_size=1, max_size=6))
@settings(max_examples=50, deadline=None)
def test_a_vector_does_not_depend_on_its_batch(embedder: TextEmbedder, texts: list[str]) -> None:
    """A text embedded alone is bit for bit the text embedded among others."""
    alone = np.concatenate([embedder.embed([text]) for text in texts])

    assert embedder.embed(texts).tobytes() == alone.tobytes()


def test_a_reloaded_embedder_is_the_same_bit_for_bit(embedder: TextEmbedder, tmp_path: Path) -> None:
    """A title that the fit never saw gets the same bytes before saving and after loading."""
    new = ["PINK GARDEN LUNCH BOX", "red tea-towel", "unseen words only: xylophone"]
    embedder.save(tmp_path)
    again = TextEmbedder.load(tmp_path)

    assert again.embed(new).tobytes() == embedder.embed(new).tobytes()
    assert again.vocabulary == embedder.vocabulary


def test_two_fits_of_the_same_texts_are_equal(tmp_path: Path) -> None:
    """Fitting has no hidden randomness, even where equal singular values leave the solver a choice of directions."""
    unrelated = [f"{letter * 6} {letter * 9}" for letter in "abcdefghijklmnopqrstuvwxyz" for _ in range(2)]
    for name in ("one", "two"):
        TextEmbedder.fit(unrelated, EmbeddingConfig(dim=4)).save(tmp_path / name)

    for file in ("embedder.safetensors", "embedder.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_iterative_and_exact_directions_span_the_same_vectors() -> None:
    """The sparse solver finds the directions that the dense one finds."""
    many = [f"{text} {number % 7}" for number, text in enumerate(TEXTS)]
    sparse = TextEmbedder.fit(many, EmbeddingConfig(dim=5))  # 36 texts > 4 * 5
    dense = TextEmbedder.fit(many, EmbeddingConfig(dim=30))

    np.testing.assert_allclose(sparse.projection, dense.projection[:, :5], atol=1e-4)


def test_like_titles_lie_near_each_other(embedder: TextEmbedder) -> None:
    """Two lunch boxes are nearer than a lunch box and a trowel; a misspelt one finds its kind by its n-grams."""
    vectors = embedder.embed(["RED LUNCH BOX", "BLUE LUNCH BOX", "GREEN GARDEN TROWEL", "lunchbox"])
    near = vectors @ vectors[0]

    assert near[1] > near[2] + 0.3
    assert near[3] > near[2] + 0.3


def test_vectors_have_unit_length_or_are_zero(embedder: TextEmbedder) -> None:
    """Known text gives length 1, text without a known feature gives zeros."""
    lengths = np.linalg.norm(embedder.embed([*TEXTS, "", "qqqq ----"]), axis=1)

    np.testing.assert_allclose(lengths[:-2], 1, rtol=1e-5)
    assert lengths[-2:].tolist() == [0, 0]


def test_case_width_and_punctuation_do_not_count(embedder: TextEmbedder) -> None:
    """Spellings of one title are one text."""
    spellings = embedder.embed(["Glass T-Light Holder", "GLASS  T LIGHT HOLDER.", "ＧＬＡＳＳ t/light holder"])

    assert spellings[1].tobytes() == spellings[0].tobytes()
    assert spellings[2].tobytes() == spellings[0].tobytes()


def test_weights_are_worked_by_hand() -> None:
    """Two texts, words only: idf = ln((1+n)/(1+df)) + 1, term weight (1 + ln tf) idf, unit length."""
    config = EmbeddingConfig(dim=2, min_document_count=1, word_share=1.0, ngram_min=50, ngram_max=50)
    embedder = TextEmbedder.fit(["tea tea cup", "tea pot"], config)
    rare, common = math.log(3 / 2) + 1, 1.0
    first = np.array([rare, 0, (1 + math.log(2)) * common])  # cup, pot, tea
    second = np.array([0, rare, common])
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))

    assert embedder.vocabulary == ["wcup", "wpot", "wtea"]
    np.testing.assert_allclose(embedder.idf, [rare, rare, common], rtol=1e-6)
    # Two dimensions hold two texts exactly, so the projected cosine is the full one.
    vectors = embedder.embed(["tea tea cup", "tea pot"])
    np.testing.assert_allclose(vectors[0] @ vectors[1], cosine, rtol=1e-5)


def test_rare_features_are_left_out_and_the_frequent_ones_kept() -> None:
    """`min_document_count` and `max_features` choose by document frequency, ties by name."""
    texts = ["aa bb cc", "aa bb dd", "aa ee"]
    words_only = {"dim": 2, "ngram_min": 50, "ngram_max": 50}

    assert TextEmbedder.fit(texts, EmbeddingConfig(min_document_count=2, **words_only)).vocabulary == ["waa", "wbb"]
    three = EmbeddingConfig(min_document_count=1, max_features=3, **words_only)
    assert TextEmbedder.fit(texts, three).vocabulary == ["waa", "wbb", "wcc"]


def test_texts_without_any_feature_are_refused() -> None:
    """A catalogue without titles is named as the cause."""
    with pytest.raises(UsageError, match="occurs in 2 of 3 item texts"):
        TextEmbedder.fit(["", "one", ""], EmbeddingConfig(dim=2))


def test_files_of_two_embedders_are_refused(embedder: TextEmbedder, tmp_path: Path) -> None:
    """Weights beside another embedder's header do not load; neither does a missing or broken file."""
    embedder.save(tmp_path / "a")
    TextEmbedder.fit(TEXTS[:12], EmbeddingConfig(dim=8)).save(tmp_path / "b")
    (tmp_path / "a" / "embedder.safetensors").write_bytes((tmp_path / "b" / "embedder.safetensors").read_bytes())
    with pytest.raises(BundleError, match="announces a projection"):
        TextEmbedder.load(tmp_path / "a")

    (tmp_path / "b" / "embedder.safetensors").write_bytes(b"short")
    with pytest.raises(BundleError, match="cannot be read"):
        TextEmbedder.load(tmp_path / "b")
    with pytest.raises(BundleError, match="cannot be read"):
        TextEmbedder.load(tmp_path / "nowhere")


def test_item_texts_join_what_the_table_has() -> None:
    """Title, brand and categories make one text; missing values add nothing."""
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["Mug", None], "brand": [None, "Acme"], "popularity": [1, 2]})

    assert item_texts(items) == ["Mug", "Acme"]
    assert item_texts(items.select("item_id", "title")) == ["Mug", ""]
