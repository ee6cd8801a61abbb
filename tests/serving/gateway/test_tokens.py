"""Tokens can be changed while the door stands open."""

from pathlib import Path

import pytest

from serving.gateway.tokens import Tokens


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "tokens"
    monkeypatch.setenv("SIDREC_GATEWAY_TOKENS", str(path))
    return path


def test_old_and_new_are_good_while_both_are_there(file: Path) -> None:
    """A rotation refuses no caller: the new token is let in first, the old one goes last, no restart."""
    clock = Clock()
    file.write_text("old\n")
    tokens = Tokens(clock=clock)
    seen = []
    for content in ("old\n", "old\nnew\n", "new\n"):
        file.write_text(content)
        clock.now += 10
        seen.append((tokens.allow(b"Bearer old"), tokens.allow(b"Bearer new")))

    assert seen == [(True, False), (True, True), (False, True)]


@pytest.mark.parametrize("content", ["", "\n \n", None])
def test_no_token_in_the_file_opens_nothing(file: Path, content: str | None) -> None:
    """A secret that was not mounted, or is empty, closes the door rather than opening it."""
    if content is not None:
        file.write_text(content)
    tokens = Tokens()

    assert not tokens.open
    assert not any(tokens.allow(given) for given in (b"", b"Bearer ", b"Bearer x"))


def test_without_any_setting_the_door_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laptop asks for no token; one in the environment is asked for."""
    monkeypatch.delenv("SIDREC_GATEWAY_TOKEN", raising=False)
    monkeypatch.delenv("SIDREC_GATEWAY_TOKENS", raising=False)
    bare = Tokens()
    monkeypatch.setenv("SIDREC_GATEWAY_TOKEN", "one")
    closed = Tokens()

    assert bare.allow(b"")
    assert (closed.allow(b""), closed.allow(b"Bearer one"), closed.allow(b"one")) == (False, True, False)
