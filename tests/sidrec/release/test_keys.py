"""The signing key is made once, kept private, and replaced only by the environment."""

import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from sidrec import home
from sidrec.errors import CheckFailedError, UsageError
from sidrec.release import keys


def test_made_on_first_use_with_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    """The first use makes a private pair and says where; the second is silent and gets the same."""
    first = keys.key_id(keys.signing_key().public_key())
    said = capsys.readouterr().err
    second = keys.key_id(keys.signing_key().public_key())

    assert first == second == keys.key_id(keys.verify_key())
    assert str(home.keys_dir() / "signing.pem") in said
    assert capsys.readouterr().err == ""


def test_nobody_else_may_read_it() -> None:
    """The private file has mode 0600 in a folder of mode 0700; looser modes are refused with the fix."""
    keys.signing_key()
    path = home.keys_dir() / "signing.pem"
    modes = (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777)
    path.chmod(0o644)

    assert modes == (0o600, 0o700)
    with pytest.raises(CheckFailedError, match="readable by others") as refused:
        keys.signing_key()
    assert refused.value.next_step == f"chmod 600 {path}"


def test_processes_that_start_together_share_one_key() -> None:
    """Many first uses at once end with one key in everybody's hand."""
    seen: list[str] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait()
        seen.append(keys.key_id(keys.signing_key().public_key()))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(seen) == 8
    assert len(set(seen)) == 1
    assert set(seen) == {keys.key_id(keys.verify_key())}
    assert sorted(p.name for p in home.keys_dir().iterdir()) == ["signing.pem", "verify.pem"]


def test_environment_names_other_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mounted keys win over this installation's, and none is made beside them."""
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "elsewhere"))
    mounted = keys.signing_key()
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "here"))
    monkeypatch.setenv("SIDREC_SIGNING_KEY", str(tmp_path / "elsewhere" / "keys" / "signing.pem"))

    assert keys.key_id(keys.verify_key()) == keys.key_id(mounted.public_key())
    assert not (tmp_path / "here").exists()


@pytest.mark.parametrize("variable", ["SIDREC_SIGNING_KEY", "SIDREC_VERIFY_KEY"])
def test_a_named_key_that_is_missing_or_no_key_is_refused(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong path never falls back to another key."""
    read = keys.signing_key if variable == "SIDREC_SIGNING_KEY" else keys.verify_key
    path = tmp_path / "key.pem"
    monkeypatch.setenv(variable, str(path))

    with pytest.raises(UsageError, match=r"key\.pem"):
        read()
    path.write_text("not a key")
    with pytest.raises(UsageError, match="PEM form"):
        read()


def test_without_any_key_nothing_is_trusted() -> None:
    """Where no key ever was, checking a verdict is refused, and no key is made to check it with."""
    with pytest.raises(UsageError, match="no public key"):
        keys.verify_key()
    assert not home.keys_dir().exists()


def test_the_public_file_alone_is_enough_to_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server needs the public half only."""
    public = keys.signing_key().public_key()
    path = tmp_path / "public.pem"
    path.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    monkeypatch.setenv("SIDREC_HOME", str(tmp_path / "server"))
    monkeypatch.setenv("SIDREC_VERIFY_KEY", str(path))

    assert keys.key_id(keys.verify_key()) == keys.key_id(public)
