"""A language model is carried over an appended catalogue with every weight, as long as every new item has a name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from sidrec import files
from sidrec.data.catalog import PAD, Catalog
from sidrec.errors import BundleError
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.carry import carry_model
from sidrec.systems.sidreasoner.model_files import write_model
from tests.sidrec.systems.sidreasoner.test_train import NOTHING, system_of, theme_query
from tests.sidrec.systems.sidreasoner.world import MODEL, titled


@pytest.fixture(scope="module")
def catalog(world: Any) -> Catalog:
    return titled(world)


@pytest.fixture(scope="module")
def model(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("carried") / "model"
    write_model(folder, backbone, MODEL, "template-1-0", [{"stage": "stage_1", "epoch": 1, "seconds": 0.1}])
    return folder


def appended(catalog: Catalog, *codes: list[int]) -> Catalog:
    new = pl.DataFrame({"item_id": [f"new{row}" for row in range(len(codes))], "title": ["New lamp"] * len(codes)})
    table = pl.concat([catalog.table().drop("codes"), new], how="diagonal")
    width = len(codes[0])
    old = np.pad(catalog.codes, ((0, 0), (0, width - catalog.num_codes)), constant_values=PAD)
    return Catalog.build(table, np.concatenate([old, np.array(codes, dtype=np.int32)]))


def free(catalog: Catalog) -> list[int]:
    used = {tuple(row) for row in catalog.codes.tolist()}
    return next([0, code, 7] for code in range(8) if (0, code, 7) not in used)


def test_weights_and_words_stay_and_the_fingerprint_is_the_new_catalogues(
    catalog: Catalog, model: Path, tmp_path: Path
) -> None:
    """The new item is ranked; no file differs but the two that say whose semantic IDs they are."""
    more = appended(catalog, free(catalog))
    system = system_of()
    summary = system.carry(model, catalog, more, tmp_path)
    [ranking] = system.open(tmp_path / "model", more).rank(
        [replace(theme_query(0), k=65)], beam_width=65, blocked=np.append(NOTHING, False)
    )
    relative = {str(path.relative_to(model)) for path in model.rglob("*") if path.is_file()} - {"training_log.jsonl"}
    same = {
        name for name in relative if files.sha256_file(model / name) == files.sha256_file(tmp_path / "model" / name)
    }

    assert summary == {"rows": 65, "new_items": 1}
    assert relative - same == {"model.json", "language_model/semantic_ids.json"}
    assert 64 in ranking.items.tolist()


@pytest.mark.parametrize("codes", [[0, 0, 8], [0, 0, 0, 1]], ids=["code", "level"])
def test_a_new_item_without_a_word_is_refused_with_what_to_do(
    catalog: Catalog, model: Path, tmp_path: Path, codes: list[int]
) -> None:
    """A code beyond the codebook's, and a disambiguation code where there was none."""
    with pytest.raises(BundleError, match="a code without a token") as refused:
        carry_model(model, catalog, appended(catalog, codes), tmp_path)

    assert "trains from scratch" in str(refused.value.next_step)
    assert not (tmp_path / "model").exists()


def test_a_model_of_another_catalogue_is_not_carried(catalog: Catalog, model: Path, tmp_path: Path) -> None:
    """Its words mean other items, and a new fingerprint would hide it."""
    other = replace(catalog, codes=catalog.codes[::-1].copy())

    with pytest.raises(BundleError, match="its words mean other items"):
        carry_model(model, other, other, tmp_path)
