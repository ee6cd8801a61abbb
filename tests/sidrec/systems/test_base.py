"""What every system shares around its model: its folder, and an alignment that it lacks."""

from pathlib import Path

from sidrec import files
from sidrec.systems.base import link_unaligned


def test_an_unaligned_model_is_the_supervised_one_with_all_its_folders(tmp_path: Path) -> None:
    """Every file at its path; what an earlier try left in the way is gone."""
    for name in ("model/model.json", "model/language_model/tokenizer.json", "model_aligned/old.json"):
        files.write_json_atomic(tmp_path / name, {"name": name})
    summary = link_unaligned(tmp_path / "model", tmp_path, "nothing to align")

    assert summary == {"skipped": "nothing to align"}
    assert files.sha256_tree(tmp_path / "model_aligned") == files.sha256_tree(tmp_path / "model")
    assert (tmp_path / "model_aligned" / "language_model" / "tokenizer.json").is_file()
