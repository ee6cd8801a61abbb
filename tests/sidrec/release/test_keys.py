"""The signing key is made once, kept private, and replaced only by the environment."""

import shutil
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from sidrec import home
from sidrec.bundle import Bundle
from sidrec.errors import CheckFailedError, UsageError, VerdictError
from sidrec.release import keys
from sidrec.release.verdict import read_verdict, signer
from tests.crash_world import every_point
from tests.release_world import make_bundle, make_signed


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
    read = keys.signing_key if variable == "SIDREC_SIGNING_KEY" else keys.trusted_keys
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

    assert list(keys.trusted_keys()) == [keys.key_id(public)]


def signed(bundle: Bundle, path: Path) -> Path:
    make_signed(bundle, path)
    return path


def test_a_rotated_key_signs_no_more_and_still_counts(tmp_path: Path) -> None:
    """Verdicts of before and after a rotation both hold; once the old key is retired, only the newer ones do."""
    bundle = make_bundle(tmp_path)
    before = signed(bundle, tmp_path / "before.json")
    old, new = keys.rotate()
    after = signed(bundle, tmp_path / "after.json")

    assert (signer(before), signer(after)) == (old, new)
    assert list(keys.trusted_keys()) == [new, old]
    assert (home.keys_dir() / "signing.pem").stat().st_mode & 0o777 == 0o600
    assert read_verdict(before).bundle_id == read_verdict(after).bundle_id == bundle.bundle_id

    keys.retire(old)

    assert read_verdict(after).bundle_id == bundle.bundle_id
    with pytest.raises(VerdictError, match=f"signed by key {old}, this installation trusts {new}"):
        read_verdict(before)
    with pytest.raises(UsageError, match="no further key"):
        keys.retire(new)


def test_a_rotation_cut_off_anywhere_leaves_a_key_that_signs_what_is_trusted(tmp_path: Path) -> None:
    """At every write of a rotation: old verdicts hold, and so does one that is signed next."""
    bundle = make_bundle(tmp_path)
    path = signed(bundle, tmp_path / "before.json")
    kept = tmp_path / "kept"
    shutil.copytree(home.keys_dir(), kept)

    def reset() -> None:
        shutil.rmtree(home.keys_dir())
        shutil.copytree(kept, home.keys_dir())

    for _ in every_point(keys.rotate, home.home(), reset):
        assert read_verdict(path).bundle_id == bundle.bundle_id
        assert read_verdict(signed(bundle, tmp_path / "next.json")).bundle_id == bundle.bundle_id


def test_several_keys_are_mounted_for_a_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files and folders with a colon between: each key in them is trusted, and no other."""
    keys.signing_key()
    old, new = keys.rotate()
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    shutil.copyfile(home.keys_dir() / "verify.pem", mounted / "new.pem")
    stranger = Ed25519PrivateKey.generate().public_key()
    single = keys.trust(stranger)
    monkeypatch.setenv("SIDREC_VERIFY_KEY", f"{mounted}:{single}")

    assert set(keys.trusted_keys()) == {new, keys.key_id(stranger)}
    assert old not in keys.trusted_keys()

    (mounted / "new.pem").unlink()
    monkeypatch.setenv("SIDREC_VERIFY_KEY", str(mounted))
    with pytest.raises(UsageError, match=r"without any \*\.pem"):
        keys.trusted_keys()


def test_a_mounted_key_is_rotated_by_whoever_mounts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command says so and makes nothing."""
    keys.signing_key()
    monkeypatch.setenv("SIDREC_SIGNING_KEY", str(home.keys_dir() / "signing.pem"))

    with pytest.raises(UsageError, match="mounted key"):
        keys.rotate()
