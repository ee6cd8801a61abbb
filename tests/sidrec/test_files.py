"""Files are whole or absent, and digests see every byte and name."""

from pathlib import Path

import pytest

from sidrec import files


def test_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between writing and renaming leaves what was there."""
    path = tmp_path / "state.json"
    files.write_json_atomic(path, {"n": 1})
    monkeypatch.setattr(Path, "replace", lambda self, target: (_ for _ in ()).throw(OSError("no space")))
    with pytest.raises(OSError, match="no space"):
        files.write_json_atomic(path, {"n": 2})

    assert files.read_json(path) == {"n": 1}


def test_tree_digest_sees_bytes_and_names(tmp_path: Path) -> None:
    """A changed byte and a renamed file both change a folder's digest."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a").write_text("1")
    digests = {files.sha256_tree(folder)}
    (folder / "a").write_text("2")
    digests.add(files.sha256_tree(folder))
    (folder / "a").rename(folder / "b")
    digests.add(files.sha256_tree(folder))

    assert len(digests) == 3


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    """The digest of `abc` is the one every SHA-256 table prints."""
    (tmp_path / "f").write_bytes(b"abc")

    assert files.sha256_file(tmp_path / "f").startswith("ba7816bf8f01cfea")
