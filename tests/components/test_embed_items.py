"""`embed_items` gives every item of the catalogue its vector."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import safetensors.numpy
import yaml

from components.embed_items.run import SECTIONS, run, vector_sources
from sidrec import files, home
from sidrec.data.embedder import TextEmbedder, item_texts
from sidrec.recipe import Recipe, load_recipe
from sidrec.steps import execute

TITLES = [f"{colour} {thing}" for colour in ("RED", "PINK", "BLUE") for thing in ("MUG", "TEA TOWEL", "LUNCH BOX")]


def recipe(root: Path, name: str) -> Recipe:
    return load_recipe(root / "pipelines" / "recipes" / f"{name}.yaml")[1]


def write_items(folder: Path) -> Path:
    items = pl.DataFrame({"item_id": [f"i{row}" for row in range(len(TITLES))], "title": TITLES})
    items.write_parquet(folder / "items")
    return folder / "items"


def test_rows_are_the_items_and_the_embedder_makes_them_again(project_root: Path, tmp_path: Path) -> None:
    """Row i is item i's vector, and the embedder on disk gives the same bytes from its title."""
    items = write_items(tmp_path)
    summary = run(recipe(project_root, "s2gr_retail"), {"items": items}, tmp_path)
    vectors = safetensors.numpy.load_file(tmp_path / "vectors")["vectors"]
    embedder = TextEmbedder.load(tmp_path / "embedder")

    assert vectors.dtype == np.float32
    assert vectors.shape == (9, 64)
    assert embedder.embed(item_texts(pl.read_parquet(items))).tobytes() == vectors.tobytes()
    assert {"rows": 9, "dim": 64, "items_without_text": 0, "distinct_vectors": 9}.items() <= summary.items()


def test_popularity_needs_no_vectors_and_says_so(project_root: Path, tmp_path: Path) -> None:
    """The outputs exist, are empty, and the summary gives the reason."""
    summary = run(recipe(project_root, "popularity_retail"), {"items": write_items(tmp_path)}, tmp_path)

    assert "popularity" in summary["skipped"]
    assert safetensors.numpy.load_file(tmp_path / "vectors")["vectors"].shape == (9, 0)
    assert (tmp_path / "embedder" / "embedder.json").exists()


def test_the_live_embedder_stays_frozen(project_root: Path, tmp_path: Path) -> None:
    """New titles are embedded by the live bundle's vocabulary, and its folder is copied bit for bit: one lineage."""
    chosen = recipe(project_root, "s2gr_retail")
    run(chosen, {"items": write_items(tmp_path)}, tmp_path)
    more = pl.DataFrame({"item_id": ["n0", "i0"], "title": ["GREEN LUNCH BOX", TITLES[0]]})
    more.write_parquet(tmp_path / "more")
    (tmp_path / "again").mkdir()
    summary = run(chosen, {"items": tmp_path / "more", "frozen": tmp_path / "embedder"}, tmp_path / "again")
    first, again = (safetensors.numpy.load_file(tmp_path / name)["vectors"] for name in ("vectors", "again/vectors"))

    assert summary["frozen"]
    assert files.sha256_tree(tmp_path / "again" / "embedder") == files.sha256_tree(tmp_path / "embedder")
    assert again[1].tobytes() == first[0].tobytes()


@pytest.mark.parametrize("change", [{"dim": 32}, {"refit": True}])
def test_a_recipe_that_asks_for_another_embedder_gets_it(
    project_root: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    """Another width, or a refit that is asked for: fitted anew, and the summary says why."""
    chosen = recipe(project_root, "s2gr_retail")
    run(chosen, {"items": write_items(tmp_path)}, tmp_path)
    other = chosen.model_copy(update={"embedding": chosen.embedding.model_copy(update=change)})
    (tmp_path / "again").mkdir()
    summary = run(other, {"items": tmp_path / "items", "frozen": tmp_path / "embedder"}, tmp_path / "again")

    assert not summary["frozen"]
    assert f"embedding.{next(iter(change))}" in summary["why"]


def test_another_file_of_vectors_is_another_step(project_root: Path, tmp_path: Path) -> None:
    """A file that changed in place, under the same recipe, is read again; an unchanged one is not."""
    items, path = write_items(tmp_path), tmp_path / "vectors.parquet"
    text = load_recipe(project_root / "pipelines" / "recipes" / "s2gr_debug.yaml")[0]
    text = yaml.safe_dump({**yaml.safe_load(text), "embedding": {"source": "column", "vectors": str(path)}})
    out = {"vectors": tmp_path / "out" / "vectors", "embedder": tmp_path / "out" / "embedder"}

    def first_vector(entry: float) -> list[float]:
        vectors = [[entry, 1.0]] * len(TITLES)
        pl.DataFrame({"item_id": [f"i{row}" for row in range(len(TITLES))], "vector": vectors}).write_parquet(path)
        inputs = {"items": items, **vector_sources(text)}
        execute("embed_items", run, recipe=text, sections=SECTIONS, inputs=inputs, outputs=out)
        vector: list[float] = safetensors.numpy.load_file(out["vectors"])["vectors"][0].tolist()
        return vector

    assert first_vector(0.0) == [0.0, 1.0]
    assert first_vector(1.0) == pytest.approx([0.5**0.5, 0.5**0.5])
    assert first_vector(0.0) == [0.0, 1.0]
    assert len(list((home.steps_dir() / "embed_items").iterdir())) == 2


def test_what_is_no_folder_here_is_no_input(project_root: Path) -> None:
    """TF-IDF reads the items alone."""
    assert vector_sources(load_recipe(project_root / "pipelines" / "recipes" / "s2gr_debug.yaml")[0]) == {}
