"""Examples ask the same real server as the tests of serving, and the gateway in front of it."""

from tests.serving.conftest import live  # noqa: F401 - a fixture
from tests.serving.gateway.conftest import gateway  # noqa: F401 - a fixture
