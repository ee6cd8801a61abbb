"""A KServe v2 server on a real port that fails as it is told: what a real one does seldom, at will.

It answers with one item named after the server, so that a test sees who answered.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import serialize_byte_tensor, triton_to_np_dtype

from sidrec import contract

# What to do about one request: answer, give a status with a text, wait for ever, or answer what breaks the contract.
ANSWER, HANG, BROKEN = "answer", "hang", "broken"
Doing = str | tuple[grpc.StatusCode, str]


@dataclass
class WireServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Does what `script` says, request by request, and `always` after its end."""

    name: str
    script: list[Doing] = field(default_factory=list)
    always: Doing = ANSWER
    url: str = ""
    contexts: list[dict[str, Any]] = field(default_factory=list)
    closing: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - KServe's name
        with self.lock:
            self.contexts.append(json.loads(_text(request, "CONTEXT")))
            doing = self.script.pop(0) if self.script else self.always
        if isinstance(doing, tuple):
            context.abort(*doing)
        while doing == HANG and context.is_active() and not self.closing.is_set():
            time.sleep(0.01)
        return _answer(self.name, broken=doing == BROKEN)


@contextmanager
def wire_servers(*servers: WireServer) -> Iterator[None]:
    """Serve inside; each server gets its `url`."""
    running = []
    try:
        for one in servers:
            server = grpc.server(ThreadPoolExecutor(40), options=[("grpc.so_reuseport", 0)])
            service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(one, server)
            one.url = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
            server.start()
            running.append((one, server))
        yield
    finally:
        for one, server in running:
            one.closing.set()
            server.stop(0).wait()


def failing(code: grpc.StatusCode, text: str = "as told") -> Doing:
    return code, text


def _text(request: Any, name: str) -> str:
    index = [tensor.name for tensor in request.inputs].index(name)
    raw: bytes = request.raw_input_contents[index]
    return raw[4:].decode()


def _answer(name: str, *, broken: bool) -> Any:
    rows: dict[contract.TensorSpec, Callable[[], Any]] = {
        contract.ITEM_ID: lambda: [[name.encode()]],
        contract.SCORE: lambda: [[float("nan") if broken else -1.0]],
        contract.SEMANTIC_ID: lambda: [[[1, 2]]],
        contract.SOURCE: lambda: [[b"model"]],
        contract.ARM: lambda: [[b"control"]],
        contract.BUNDLE_ID: lambda: [[b"b-0"]],
        contract.REQUEST_ID: lambda: [[b"r"]],
        contract.RATIONALE: lambda: [[b""]],
    }
    response = service_pb2.ModelInferResponse(model_name="recommend", model_version="1")
    for spec, row in rows.items():
        array = np.array(row(), dtype=triton_to_np_dtype(spec.datatype))
        response.outputs.add(name=spec.name, datatype=spec.datatype, shape=array.shape)
        raw = serialize_byte_tensor(array).item() if spec.datatype == "BYTES" else array.tobytes()
        response.raw_output_contents.append(raw)
    return response
