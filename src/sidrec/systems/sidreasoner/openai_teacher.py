"""A teacher behind an OpenAI-compatible server: a few requests in flight, failures waited out, every token counted.

A reply that does not come after all its tries is given up; many in a row mean that the server is gone. What retrying
cannot mend, a refused key or an unknown model, ends the work at once. The key comes from the environment and goes
nowhere but into the header.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from sidrec.errors import ServingError, UsageError
from sidrec.systems.sidreasoner.config import TeacherConfig
from sidrec.systems.sidreasoner.teacher import Request

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
# Requests given up one after the other, after which nobody is there.
GONE_AFTER = 8
_RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})


@dataclass(slots=True)
class Usage:
    """What the work has cost so far."""

    requests: int = 0
    retries: int = 0
    given_up: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class OpenAITeacher:
    """Implements `teacher.Teacher`.

    Args:
        pause: waits for so many seconds; a test's does not.
        spread: draws from [0, 1), so that those who failed together do not return together.
    """

    def __init__(
        self,
        config: TeacherConfig,
        *,
        pause: Callable[[float], None] = time.sleep,
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self._pause, self._spread = pause, spread
        self._usage, self._lock = Usage(), threading.Lock()

    @property
    def name(self) -> str:
        """The model, and where it runs."""
        return f"openai-{self.config.model}@{self.config.base_url}"

    def answer(self, requests: Sequence[Request]) -> Iterator[tuple[int, str | None]]:
        """Yield each request's number and its reply, as replies come; None where it gave up on one.

        Raises:
            UsageError: the server refuses the key, the model or the request.
            ServingError: several requests in a row were given up.
        """
        config, failed = self.config, 0
        key = os.environ.get(config.api_key_env, "")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        pool = ThreadPoolExecutor(config.concurrency, thread_name_prefix="teacher")
        # No more futures than are in flight: a corpus may have a hundred thousand requests.
        left, running = iter(enumerate(requests)), dict[Future[str | None], int]()
        with closing(httpx.Client(headers=headers, timeout=config.timeout_s)) as client:
            try:
                while True:
                    while len(running) < config.concurrency and (following := next(left, None)) is not None:
                        running[pool.submit(self._reply, client, following[1])] = following[0]
                    if not running:
                        return
                    for done in wait(running, return_when=FIRST_COMPLETED).done:
                        number, reply = running.pop(done), done.result()
                        failed = failed + 1 if reply is None else 0
                        if failed == GONE_AFTER:
                            raise ServingError(
                                f"{config.base_url} has answered none of the last {failed} requests",
                                next_step="run again when it does: replies so far are kept",
                            )
                        yield number, reply
            finally:
                pool.shutdown(cancel_futures=True)

    def usage(self) -> dict[str, Any]:
        """Return requests, retries, tokens, and the cost where prices are set."""
        seen, config = self._usage, self.config
        cost = (seen.prompt_tokens * config.prompt_price + seen.completion_tokens * config.completion_price) / 1e6
        priced = config.prompt_price > 0 or config.completion_price > 0
        return {
            "requests": seen.requests,
            "retries": seen.retries,
            "given_up": seen.given_up,
            "prompt_tokens": seen.prompt_tokens,
            "completion_tokens": seen.completion_tokens,
            "cost": round(cost, 6) if priced else None,
        }

    def _reply(self, client: httpx.Client, request: Request) -> str | None:
        body = self._body(request)
        for attempt in range(self.config.retries + 1):
            self._count(requests=1, retries=int(attempt > 0))
            asked_for = None
            try:
                response = client.post(f"{self.config.base_url.rstrip('/')}/chat/completions", json=body)
            except httpx.TransportError:
                response = None
            if response is not None:
                if response.status_code == httpx.codes.OK and (text := self._text(response)) is not None:
                    return text
                if response.status_code != httpx.codes.OK and response.status_code not in _RETRIED:
                    raise self._refusal(response)
                asked_for = retry_after(response.headers)
            if attempt < self.config.retries:
                pause = FIRST_PAUSE_S * 2**attempt * (0.5 + self._spread())
                self._pause(min(max(pause, asked_for or 0.0), LONGEST_PAUSE_S))
        self._count(given_up=1)
        return None

    def _body(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.config.model,
            "messages": [{"role": "system", "content": request.system}, {"role": "user", "content": request.user}],
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "seed": request.seed,
        }
        if request.json and self.config.json_mode:
            body["response_format"] = {"type": "json_object"}
        return body

    def _text(self, response: httpx.Response) -> str | None:
        """Return the text in a reply, whose tokens are counted; None where there is none."""
        try:
            value = response.json()
            text = value["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            return None
        usage = value.get("usage") or {}
        self._count(**{name: int(usage.get(name) or 0) for name in ("prompt_tokens", "completion_tokens")})
        return text if isinstance(text, str) and text else None

    def _refusal(self, response: httpx.Response) -> UsageError:
        config, status = self.config, response.status_code
        return UsageError(
            f"{config.base_url} refuses {config.model} with status {status}: {response.text[:200]}",
            next_step=f"set {config.api_key_env}" if status in (401, 403) else "see corpus.teacher in the recipe",
        )

    def _count(self, **more: int) -> None:
        with self._lock:
            for name, value in more.items():
                setattr(self._usage, name, getattr(self._usage, name) + value)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that a server asks to be left alone for, by number or by date; None where it does not say."""
    value = headers.get("Retry-After")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        then = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds())
