"""Packaging turns equal inputs into one address."""

import shutil
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch

from components.package_bundle.run import SECTIONS, canonical_recipe, run
from sidrec.bundle import open_bundle
from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import PrefixTrie
from sidrec.errors import BundleError
from sidrec.recipe import load_recipe, parse_recipe
from sidrec.recommender import Recommender, Request
from tests.release_world import NUM_ITEMS, RECIPE_TEXT, ROOT, make_bundle, recipe, step_inputs


def test_a_packaged_bundle_answers(tmp_path: Path) -> None:
    """What comes out opens as a recommender and gives distinct, real items under the bundle's id."""
    bundle = make_bundle(tmp_path)
    recommender = Recommender.open(bundle.folder)
    [answer] = recommender.recommend([Request(("i03",), (), k=5)])

    assert recommender.bundle_id == bundle.bundle_id
    assert len(set(answer.item_ids)) == 5
    assert set(answer.item_ids) <= {f"i{row:02d}" for row in range(NUM_ITEMS)}


def test_it_holds_everything_an_answer_depends_on(tmp_path: Path) -> None:
    """Codebook, embedder, catalogue, trie, weights, recipe and decode config; no log, whose times differ."""
    bundle = make_bundle(tmp_path)

    assert sorted(bundle.manifest["files"]) == [
        "catalogue.parquet",
        "codebook/codebook.json",
        "codebook/codebook.safetensors",
        "codebook/health.json",
        "decode.json",
        "embedder/embedder.json",
        "model.json",
        "recipe.yaml",
        "trie.safetensors",
        "weights.safetensors",
    ]


def test_the_id_depends_on_content_only(tmp_path: Path) -> None:
    """Packaged twice, elsewhere and later, with another training log: one id. Other weights: another."""
    first, again, other = (make_bundle(tmp_path / name, seed) for name, seed in [("a", 0), ("b", 0), ("c", 1)])

    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256
    assert set(first.manifest["provenance"]) == {"git_sha", "versions", "created_at"}


def test_the_trie_is_the_catalogues(tmp_path: Path) -> None:
    """The trie in the bundle accepts exactly the catalogue's semantic IDs."""
    bundle = make_bundle(tmp_path)
    catalog = Catalog.read(bundle.path("catalogue.parquet"))
    trie = PrefixTrie.read(bundle.path("trie.safetensors"))
    leaves = torch.arange(len(catalog))

    assert torch.equal(trie.item[trie.leaf], leaves)
    np.testing.assert_array_equal(trie.code[trie.leaf].numpy(), catalog.codes[:, -1])


def test_decode_config_says_what_a_server_must_know(tmp_path: Path) -> None:
    """The watermark is the last day of the fit; the clock and the beam are the recipe's."""
    decode = make_bundle(tmp_path).decode

    assert decode == {
        "schema_version": 1,
        "kind": "popularity",
        "beam_width": 50,
        "num_codes": 1,
        "as_of_time": recipe().as_of_time,
        "clock": "event",
        "feature_service": "recommend_v1",
        "watermark": date(2010, 10, 31).isoformat(),
    }


@pytest.mark.parametrize("path", sorted((ROOT / "pipelines" / "recipes").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_canonical_recipe_is_the_recipe(path: Path) -> None:
    """The spelling in the bundle reads back as the same values, and as itself."""
    original = parse_recipe(path.read_text(encoding="utf-8"))
    text = canonical_recipe(original)

    assert parse_recipe(text) == original
    assert canonical_recipe(parse_recipe(text)) == text


def test_comments_and_order_of_a_recipe_change_nothing() -> None:
    """Two spellings of the same values are one recipe."""
    lines = RECIPE_TEXT.strip().splitlines()
    respelled = "\n".join([*lines[2:], "# a remark", lines[1]])

    assert canonical_recipe(parse_recipe(respelled)) == canonical_recipe(recipe())


def test_every_value_of_every_recipe_counts() -> None:
    """The recipe lies in the bundle, so the step's key covers every section of each kind."""
    recipes = [load_recipe(path)[1] for path in (ROOT / "pipelines" / "recipes").glob("*.yaml")]

    assert {name for recipe in recipes for name in recipe.model_dump()} == set(SECTIONS)


@pytest.mark.parametrize("missing", ["model/weights.safetensors", "model/model.json", "codebook/catalogue.parquet"])
def test_a_missing_part_is_named(tmp_path: Path, missing: str) -> None:
    """No bundle is made of half its parts."""
    inputs = step_inputs(tmp_path / "inputs")
    (tmp_path / "inputs" / missing).unlink()

    with pytest.raises(BundleError, match=Path(missing).name):
        run(recipe(), inputs, tmp_path)
    assert not (tmp_path / "bundle").exists()


def test_links_between_steps_are_followed(tmp_path: Path) -> None:
    """A step's input is often a link to another step's folder; the bundle holds bytes."""
    inputs = step_inputs(tmp_path / "inputs")
    for name, path in inputs.items():
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / name).symlink_to(path)
    links = {name: tmp_path / "links" / name for name in inputs}
    run(recipe(), links, tmp_path)
    shutil.rmtree(tmp_path / "inputs")

    assert open_bundle(tmp_path / "bundle").recipe == recipe()
