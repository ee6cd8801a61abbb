"""A teacher writes texts on request: what is asked of it, and what it must offer.

A request says the same thing twice: in words, for a language model, and as facts, for a teacher that follows rules.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from sidrec import files

Task = Literal["describe_item", "weave_item", "read_history", "weave_history"]


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be written."""

    task: Task
    system: str
    user: str
    facts: Mapping[str, Any]
    max_tokens: int
    temperature: float = 0.7
    seed: int = 0
    json: bool = False
    """Whether the reply is to be a JSON object."""

    def again(self, attempt: int) -> "Request":
        """Return the same request for another reply; attempt 0 is the first."""
        return replace(self, seed=self.seed + attempt)

    def key(self, teacher: str) -> str:
        """Return the hex SHA-256 of all that a reply of this teacher depends on."""
        words = (teacher, self.task, self.system, self.user, self.max_tokens, self.temperature, self.seed, self.json)
        return files.sha256_bytes(files.json_text([*words, dict(self.facts)]).encode())


class Teacher(Protocol):
    """Whoever writes the corpus."""

    @property
    def name(self) -> str:
        """What stands in every artefact that it had a part in; another name has other replies."""
        ...

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, str | None]]:
        """Yield each request's number and its reply, as replies come; None where it gave up on one.

        Raises:
            UsageError: it cannot answer anything as it is set up.
            ServingError: it has stopped answering.
        """
        ...

    def usage(self) -> dict[str, Any]:
        """Return what its work has cost so far, {} where nothing."""
        ...
