"""What docs/serving.md says of errors and settings is what the code does."""

import re
from pathlib import Path

import pytest
from tritonclient.utils import InferenceServerException

from serving.gateway.refusals import PUBLIC
from sidrec import client
from sidrec.client import refusal, tls
from sidrec.errors import ServingError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
TEXTS = {
    "a dead stub": ("INTERNAL", "Stub process 'recommend_0_0' is not healthy."),
    "a full queue": ("UNAVAILABLE", "Exceeds maximum queue size"),
}


def rows(head: str) -> list[list[str]]:
    """The rows of the page's table whose head begins so."""
    [body] = re.findall(rf"^\| {re.escape(head)}.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]


@pytest.mark.parametrize("row", rows("what the server said"), ids=lambda row: row[1])
def test_each_status_is_the_error_that_the_page_names(row: list[str]) -> None:
    """Statuses and what stands beside them in words."""
    said = [(status, "text") for status in re.findall(r"`([A-Z_]+)`", row[0])]
    said += [TEXTS[word.strip()] for word in row[0].split(",") if word.strip() in TEXTS]
    for status, text in said:
        error = refusal(InferenceServerException(text, f"StatusCode.{status}"), "a:1")
        assert f"`{type(error).__name__}`" == row[1]


def test_the_page_names_every_error_of_the_client() -> None:
    """And what is no UsageError is a ServingError."""
    named = {row[1].strip("`") for row in rows("what the server said")}
    own = {name for name in client.__all__ if name.endswith("Error")}

    assert own | {"UsageError", "ServingError"} == named
    assert all(issubclass(getattr(client, name), ServingError) for name in own)


def test_the_page_names_every_error_of_the_gateway_with_its_status() -> None:
    """Each name stands in the row of its status, and a retry is promised where the body says so."""
    seen = {}
    for statuses, names, again in rows("status"):
        for name in re.findall(r"`([a-z_]+)`", names):
            seen[name] = (statuses, not again.startswith("no"))

    assert set(seen) == set(PUBLIC)
    for name, (status, _, retry) in PUBLIC.items():
        assert str(status) in seen[name][0]
        assert retry == seen[name][1]


def test_the_page_names_every_setting_of_the_gateway() -> None:
    """All that the gateway reads from the environment, but the port of the server it starts itself."""
    read = {tls.VARIABLE}
    for path in (ROOT / "serving" / "gateway").glob("*.py"):
        read |= set(re.findall(r'(?:environ\.get\(|VARIABLE = )"(SIDREC_\w+)"', path.read_text(encoding="utf-8")))

    assert {row[0].strip("`") for row in rows("variable")} == read - {"SIDREC_GRPC_PORT"}
