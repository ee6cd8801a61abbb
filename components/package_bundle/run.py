"""Put everything that an answer depends on into one content-addressed folder."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from sidrec import files
from sidrec.bundle import write_bundle
from sidrec.clock import utc_now_iso
from sidrec.data.catalog import Catalog
from sidrec.decoding.trie import PrefixTrie
from sidrec.recipe import Recipe, build, sections
from sidrec.release import provenance

FEATURE_SERVICE = "recommend_v1"
# The recipe itself goes into the bundle, so every value of it counts.
SECTIONS = sections()
# A bundle's own manifest vouches for the codebook's files.
_SEAL = "artefact.json"


def run(recipe: Recipe, inputs: Mapping[str, Path], folder: Path) -> dict[str, Any]:
    """Write `folder/bundle`; equal inputs make an equal bundle id, whenever and wherever they are packaged."""
    codebook, model = inputs["codebook"], inputs["model"]
    catalog = Catalog.read(codebook / "catalogue.parquet")
    made = folder / "made"
    made.mkdir(exist_ok=True)
    trie = PrefixTrie.from_codes(catalog.codes)
    trie.write(made / "trie.safetensors")
    files.write_text_atomic(made / "recipe.yaml", canonical_recipe(recipe))
    files.write_json_atomic(made / "decode.json", decode_config(recipe, catalog.num_codes))

    contents = {path.name: path for path in made.iterdir()}
    # No more than its parts: a log that differs from run to run would change the id of equal weights.
    contents |= {name: model / name for name in build(recipe).parts}
    contents["catalogue.parquet"] = codebook / "catalogue.parquet"
    for path in codebook.iterdir():
        if path.name == "embedder":
            contents["embedder"] = path
        elif path.name not in ("catalogue.parquet", _SEAL):
            contents[f"codebook/{path.name}"] = path
    bundle = write_bundle(
        folder / "bundle",
        contents,
        {"git_sha": provenance.git_sha(), "versions": provenance.versions(), "created_at": utc_now_iso()},
    )
    size = sum((bundle.folder / name).stat().st_size for name in bundle.manifest["files"])
    return {"rows": len(catalog), "bundle_id": bundle.bundle_id, "bytes": size, "trie_nodes": trie.num_nodes}


def canonical_recipe(recipe: Recipe) -> str:
    """Return the one spelling of a recipe's values: comments, order and defaults left out do not matter."""
    text: str = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=True, allow_unicode=True)
    return text


def decode_config(recipe: Recipe, num_codes: int) -> dict[str, Any]:
    """Return what a server must know to answer from the bundle as it was judged."""
    return {
        "schema_version": 1,
        "kind": recipe.kind,
        "beam_width": recipe.decoding.beam_width,
        "num_codes": num_codes,
        "as_of_time": recipe.as_of_time,
        "clock": recipe.serving.clock,
        "feature_service": FEATURE_SERVICE,
        "watermark": (recipe.gate_start - timedelta(days=1)).isoformat(),
    }
