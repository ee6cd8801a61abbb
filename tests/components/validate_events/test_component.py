"""The KFP bodies of both data steps, run as the local runner runs them."""

from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest

from components.build_sequences.component import build_sequences
from components.validate_events.component import validate_events
from sidrec import files
from sidrec.errors import ValidationFailedError
from tests import data_world as world

OUTPUTS = ("events", "sales", "items_raw", "quarantine", "accounting", "data_docs")


def artefacts(folder: Path, names: tuple[str, ...]) -> dict[str, SimpleNamespace]:
    """What KFP hands a body: one object with a path per artefact."""
    return {name: SimpleNamespace(path=str(folder / name)) for name in names}


def kept(folder: Path, recipe: str) -> int:
    """Run the validation into a folder of KFP outputs and return how many events came out."""
    validate_events.python_func(recipe=recipe, **artefacts(folder, OUTPUTS))
    return pl.read_parquet(folder / "events").height


def test_both_steps_link_their_outputs_and_reuse_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Outputs are links into the step folders; a second call reuses them, new file content does not."""
    recipe = world.shop_recipe(world.shop_data(tmp_path)).model_dump_json()

    first = kept(tmp_path / "one", recipe)
    again = kept(tmp_path / "two", recipe)
    reused = "already done" in capsys.readouterr().out
    build_sequences.python_func(
        recipe=recipe,
        **artefacts(tmp_path / "two", ("events", "sales", "items_raw")),
        **artefacts(tmp_path / "two", ("baskets", "items")),
    )
    world.shop_data(tmp_path, world.shop_events().slice(600))
    third = kept(tmp_path / "three", recipe)

    assert reused
    assert first == again > third
    assert (tmp_path / "two" / "baskets").is_symlink()
    assert {path.name for path in (tmp_path / "two").iterdir()} == {*OUTPUTS, "baskets", "items"}


def test_a_refused_batch_leaves_evidence_in_the_step_folder(tmp_path: Path, own_state: Path) -> None:
    """The step is not done, its evidence lies under SIDREC_HOME, and no output is linked."""
    data = world.shop_data(tmp_path)
    (tmp_path / "events.csv").write_text("")

    with pytest.raises(ValidationFailedError) as caught:
        kept(tmp_path / "kfp", world.shop_recipe(data).model_dump_json())

    evidence = Path(str(caught.value.evidence))
    assert evidence.is_relative_to(own_state / "steps" / "validate_events")
    assert files.read_json(evidence)["bytes"] == 0
    assert not (evidence.parent / "done.json").exists()
    assert not (tmp_path / "kfp" / "events").exists()
