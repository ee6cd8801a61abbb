"""What stands between the network and the framework: the token, the size of a body, and the words of an error."""

import json

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.gateway.openapi import described
from serving.gateway.refusals import in_our_words, refusal
from serving.gateway.tokens import Tokens

MAX_BODY_BYTES = 4 * 2**20
_OPEN_PATHS = ("/livez", "/readyz", "/healthz")
_PAGE = "/docs.json"


class Guard:
    """Refuses what comes without the token and bodies that no request needs; retells the framework's errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._tokens = Tokens()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401, 413 or 415."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if scope["path"] not in _OPEN_PATHS and not self._tokens.allow(headers.get(b"authorization", b"")):
            await refusal("unauthorized")(scope, receive, send)
            return
        # The framework has readers for forms, files and its own formats; none of them is part of this door.
        if scope["method"] == "POST" and not _is_json(headers.get(b"content-type", b"")):
            await refusal("unsupported")(scope, receive, send)
            return
        length = headers.get(b"content-length", b"0")
        body = await _body(receive) if length.isdigit() and int(length) <= MAX_BODY_BYTES else None
        if body is None:
            await refusal("too_large", f"a body has at most {MAX_BODY_BYTES} bytes")(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), _Retold(scope, receive, send))


def _is_json(content_type: bytes) -> bool:
    return content_type.partition(b";")[0].strip().lower() in (b"", b"application/json")


async def _body(receive: Receive) -> bytes | None:
    """Return the whole body, None once it is too large: a chunked one announces no length."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        part = message.get("body", b"")
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        parts.append(part)
        if message["type"] != "http.request" or not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return pending.pop() if pending else await receive()

    return replayed


class _Retold:
    """Sends on what the framework answers: errors in our words, the OpenAPI page with what it does not know."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._held: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and (message["status"] >= 400 or self._scope["path"] == _PAGE):
            self._held = message
        elif self._held is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(self._held)

    async def _finish(self, start: Message) -> None:
        if start["status"] >= 400:
            ours = in_our_words(start["status"], self._body)
            if ours is not None:
                await ours(self._scope, self._receive, self._send)
                return
        else:
            self._body = json.dumps(described(json.loads(self._body))).encode()
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(self._body)).encode()))
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": self._body})
