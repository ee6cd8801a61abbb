"""A release with everything that its page shows: a bundle with a real codebook, registered and promoted."""

import json
from pathlib import Path

from serving import registry
from sidrec.bundle import Bundle, write_bundle
from sidrec.release.promotion import promote
from tests.codebook_world import sealed_codebook, titled_items
from tests.release_world import RECIPE_TEXT, gate, make_signed

OBSERVED = 0.6321


def promoted(folder: Path) -> Bundle:
    """Return a bundle that "ann" promoted as "the first one"; each of its gates observed `OBSERVED`."""
    codebook = sealed_codebook(titled_items(), folder / "codebook")
    (folder / "recipe.yaml").write_text(RECIPE_TEXT)
    (folder / "decode.json").write_text(json.dumps({"kind": "popularity", "watermark": "2010-11-30"}))
    inner = ("codebook.safetensors", "codebook.json", "health.json")
    parts = {f"codebook/{name}": codebook / name for name in inner}
    parts |= {"embedder": codebook / "embedder", "catalogue.parquet": codebook / "catalogue.parquet"}
    parts |= {name: folder / name for name in ("recipe.yaml", "decode.json")}
    bundle = write_bundle(folder / "bundle", parts, {"created_at": "2026-01-05", "git_sha": "0" * 40})
    gates = [gate(name, observed=OBSERVED) for name in ("codebook", "quality", "serving")]
    make_signed(bundle, folder / "verdict.json", gates)
    registry.register(bundle.folder, folder / "verdict.json")
    promote(bundle, folder / "verdict.json", why="the first one", who="ann", first=True)
    return bundle
