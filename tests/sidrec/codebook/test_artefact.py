"""A sealed codebook comes back as it was, and not with one byte changed."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sidrec import files
from sidrec.codebook.artefact import Artefact, Codebook, seal
from sidrec.data.catalog import Catalog
from sidrec.errors import BundleError
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.fit import encoder_of
from sidrec.quantization.quantizer import Quantizer
from tests.codebook_world import items_of

CONFIG = CodebookConfig(codebook_size=8, code_dim=4, hidden_dims=(6,))


def write(folder: Path) -> Path:
    """Return a sealed artefact of an RQ-VAE over eight items."""
    torch.manual_seed(0)
    (folder / "embedder").mkdir(parents=True)
    (folder / "embedder" / "embedder.json").write_text("{}")
    lineage = files.sha256_tree(folder / "embedder")
    quantizer = Quantizer("rqvae", torch.randn(3, 8, 4), encoder_of(CONFIG, 5))
    Codebook(CONFIG, quantizer, 5, lineage, generation=3, parent="ab", appended=2).save(folder)
    Catalog.build(items_of(8), np.arange(24, dtype=np.int32).reshape(8, 3) % 8).write(folder / "catalogue.parquet")
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("sealed") / "codebook")


def test_it_comes_back_as_it_was(sealed: Path, tmp_path: Path) -> None:
    """Codes of new vectors, settings and place in the lineage survive; saving again writes the same bytes."""
    opened = Artefact.open(sealed)
    book = opened.codebook
    book.save(tmp_path)
    vectors = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))

    assert (book.generation, book.parent, book.appended, book.width) == (3, "ab", 2, 5)
    assert book.config == CONFIG
    assert torch.equal(book.quantizer.encode(vectors), Codebook.load(tmp_path).quantizer.encode(vectors))
    assert book.digest == Codebook.load(tmp_path).digest
    for name in ("codebook.safetensors", "codebook.json"):
        assert (tmp_path / name).read_bytes() == (sealed / name).read_bytes()


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_any_changed_byte_is_refused(
    sealed: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whichever byte of whichever file, the seal's own included, and the file is named."""
    folder = tmp_path_factory.mktemp("altered") / "codebook"
    shutil.copytree(sealed, folder)
    path = data.draw(st.sampled_from(sorted(p for p in folder.rglob("*") if p.is_file())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))

    with pytest.raises(BundleError, match=path.name):
        Artefact.open(folder)


def test_missing_and_extra_files_are_refused(sealed: Path, tmp_path: Path) -> None:
    """A catalogue that is gone, a stray file and an unsealed folder are three named faults."""
    for change, message in (
        (lambda folder: (folder / "catalogue.parquet").unlink(), "catalogue.parquet of the codebook is missing"),
        (lambda folder: (folder / "stray.json").write_text("{}"), "stray.json of the codebook is not part of it"),
        (lambda folder: (folder / "artefact.json").unlink(), "artefact.json cannot be read"),
    ):
        folder = tmp_path / "copy"
        shutil.copytree(sealed, folder)
        change(folder)
        with pytest.raises(BundleError, match=message):
            Artefact.open(folder)
        shutil.rmtree(folder)


def test_an_embedder_of_another_lineage_is_refused(sealed: Path, tmp_path: Path) -> None:
    """In a bundle the parts lie apart; the codebook's lineage is the embedder's digest all the same."""
    (tmp_path / "embedder.json").write_text('{"other": 1}')

    with pytest.raises(BundleError, match="two lineages"):
        Artefact.of_parts(sealed, sealed / "catalogue.parquet", tmp_path)


def test_files_of_two_codebooks_are_refused(sealed: Path, tmp_path: Path) -> None:
    """A header beside other weights, another format and a missing file are three named faults."""
    for name in ("codebook.json", "codebook.safetensors"):
        shutil.copy(sealed / name, tmp_path / name)
    header = files.read_json(tmp_path / "codebook.json")
    files.write_json_atomic(tmp_path / "codebook.json", header | {"shapes": {**header["shapes"], "codebooks": [1]}})
    with pytest.raises(BundleError, match="two codebooks"):
        Codebook.load(tmp_path)

    files.write_json_atomic(tmp_path / "codebook.json", header | {"format": 9})
    with pytest.raises(BundleError, match="format 9"):
        Codebook.load(tmp_path)

    (tmp_path / "codebook.safetensors").unlink()
    with pytest.raises(BundleError, match="cannot be read"):
        Codebook.load(tmp_path)


def test_a_codebook_of_format_1_opens(tmp_path: Path) -> None:
    """Bundles of S²GR's own first format hold decoder and clusters too; their codes are the same."""
    torch.manual_seed(0)
    encoder, books = encoder_of(CONFIG, 5), torch.randn(3, 8, 4)
    assert encoder is not None
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {
        "quantizer.codebooks": books,
        "quantizer.usage": torch.zeros(3, 8),
        "decoder.0.bias": torch.zeros(2),
        "cluster_of": torch.zeros(3, 8, dtype=torch.int32),
        "cluster_centres": torch.zeros(3, 2, 4),
    }
    safetensors.torch.save_file(tensors, tmp_path / "codebook.safetensors")
    header = {
        "format": 1,
        "kind": "s2gr",
        "config": CONFIG.model_dump(mode="json", exclude={"quantizer", "revive"}) | {"num_clusters": 2},
        "width": 5,
        "lineage": "text",
        "shapes": {name: list(value.shape) for name, value in tensors.items()},
    }
    header["config"]["cluster_restarts"] = 1
    files.write_json_atomic(tmp_path / "codebook.json", header)
    opened = Codebook.load(tmp_path)
    vectors = torch.randn(9, 5)

    assert torch.equal(opened.quantizer.encode(vectors), Quantizer("rqvae", books, encoder).encode(vectors))
    assert (opened.generation, opened.lineage) == (1, "text")
