"""A server on loopback that speaks the chat completions protocol, and does what a script says before that."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Misdeed:
    """What is done instead of an answer."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    delay_s: float = 0.0


@dataclass
class ChatServer:
    """Misdeeds are used up in order, whoever asks; after them every request is answered by `write`."""

    write: Callable[[Body], str]
    misdeeds: list[Misdeed] = field(default_factory=list)
    delay_s: float = 0.0
    bodies: list[Body] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    base_url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator["ChatServer"]:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with owner.lock:
                    owner.bodies.append(body)
                    owner.keys.append(self.headers.get("Authorization"))
                    owner.at_once += 1
                    owner.most_at_once = max(owner.most_at_once, owner.at_once)
                    misdeed = owner.misdeeds.pop(0) if owner.misdeeds else None
                try:
                    time.sleep(owner.delay_s)
                    if self.path != "/v1/chat/completions":
                        self._send(404, {}, "no such path")
                    elif misdeed is not None:
                        time.sleep(misdeed.delay_s)
                        self._send(misdeed.status, misdeed.headers, misdeed.text)
                    else:
                        self._send(200, {}, json.dumps(completion(owner.write(body))))
                finally:
                    with owner.lock:
                        owner.at_once -= 1

            def _send(self, status: int, headers: dict[str, str], text: str) -> None:
                content = text.encode()
                try:
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def log_message(self, *args: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        self.base_url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def completion(text: str) -> dict[str, Any]:
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18},
    }
