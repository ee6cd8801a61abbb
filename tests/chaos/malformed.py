"""Requests that break the contract in every way a client can: made at random, from a seed, as raw messages."""

import random
import struct
from collections.abc import Callable
from typing import Any

from tritonclient.grpc import service_pb2

from sidrec import contract

Message = Any
"""A `ModelInferRequest`."""

_TYPES = ("BYTES", "INT32", "INT64", "FP32", "BOOL", "FP64", "UINT8", "", "NO_SUCH_TYPE")
_WIDTH = {"INT32": 4, "INT64": 8, "BOOL": 1}
_TEXTS = (
    b"",
    b"\xff\xfe\xfd",
    b"\xc3\x28",
    b"a\0b",
    b"i3" * 4000,
    "💥é".encode(),
    b'{"request_id": 5}',
    b'{"surface": "\\ud800"}',
    b'{"event_time": -1}',
    b'{"deadline_ms": 1e400}',
    b"[" * 3000,
    b"NaN",
)


def text(value: bytes) -> bytes:
    """Return a string as a BYTES tensor holds it."""
    return struct.pack("<I", len(value)) + value


def message(*tensors: tuple[str, str, list[int], bytes]) -> Message:
    """Return a request of (name, type, shape, raw contents)."""
    request = service_pb2.ModelInferRequest(model_name=contract.MODEL_NAME)
    for name, datatype, shape, raw in tensors:
        tensor = request.inputs.add()
        tensor.name, tensor.datatype = name, datatype
        tensor.shape.extend(shape)
        request.raw_input_contents.append(raw)
    return request


def sound(k: int = 1) -> Message:
    """Return a request that is answered, beside the others."""
    return message(
        ("HISTORY", "BYTES", [1, 1], text(b"i3")),
        ("K", "INT32", [1, 1], struct.pack("<i", k)),
        ("CONTEXT", "BYTES", [1, 1], text(b"{}")),
    )


def _name(draw: random.Random) -> Message:
    name = draw.choice(["", "AGE", "user_id", "K ", "K\0", "💥", "x" * 5000, "ITEM_ID"])
    return message(("K", "INT32", [1, 1], struct.pack("<i", 1)), (name, "INT32", [1, 1], struct.pack("<i", 1)))


def _shape(draw: random.Random) -> Message:
    spec = draw.choice(contract.INPUTS)
    shape = draw.choice([[], [0], [1], [2, 1], [1, 0], [1, 1, 1], [-1, 1], [1, -1], [33, 1], [1, 7], [1, 2**31]])
    return message((spec.name, spec.datatype, shape, draw.randbytes(draw.choice([0, 1, 4, 8, 28]))))


def _type(draw: random.Random) -> Message:
    spec = draw.choice(contract.INPUTS)
    datatype = draw.choice([one for one in _TYPES if one != spec.datatype])
    return message((spec.name, datatype, [1, 1], draw.randbytes(8)))


def _length(draw: random.Random) -> Message:
    spec = draw.choice([one for one in contract.INPUTS if one.datatype != "BYTES"])
    return message((spec.name, spec.datatype, [1, 1], draw.randbytes(_WIDTH[spec.datatype] + draw.choice([-1, 1, 64]))))


def _string(draw: random.Random) -> Message:
    spec = draw.choice([one for one in contract.INPUTS if one.datatype == "BYTES"])
    raw = draw.choice([b"", b"\x01", struct.pack("<I", 2**31), struct.pack("<I", 9) + b"short", b"\xff" * 9])
    return message((spec.name, "BYTES", [1, 1], raw))


def _value(draw: random.Random) -> Message:
    spec = draw.choice([one for one in contract.INPUTS if one.datatype == "BYTES"])
    return message((spec.name, "BYTES", [1, 1], text(draw.choice(_TEXTS))))


def _count(draw: random.Random) -> Message:
    k = draw.choice([-1, 0, 101, 10**9, -(2**31), 2**31 - 1])
    return message(("HISTORY", "BYTES", [1, 1], text(b"i3")), ("K", "INT32", [1, 1], struct.pack("<i", k)))


def _history(draw: random.Random) -> Message:
    items, times = draw.choice([(2001, 2001), (3, 2), (1, 2), (2, 2), (0, 1)])
    raw = b"".join(text(draw.choice([b"i1", b"", b"no such"])) for _ in range(items))
    seconds = b"".join(struct.pack("<q", draw.choice([-1, 5, 2**62, -(2**63)])) for _ in range(times))
    return message(("HISTORY", "BYTES", [1, items], raw), ("HISTORY_TIME", "INT64", [1, times], seconds))


def _twice(draw: random.Random) -> Message:
    one = ("K", "INT32", [1, 1], struct.pack("<i", draw.choice([1, 7])))
    return message(one, one)


def _elsewhere(draw: random.Random) -> Message:
    request = sound()
    if draw.random() < 0.5:
        request.model_name = draw.choice(["", "../recommend", "recommend2", "x" * 3000])
    else:
        request.model_version = draw.choice(["2", "-1", "latest", "999999999999999999999"])
    return request


def _outputs(draw: random.Random) -> Message:
    request = sound()
    request.outputs.add().name = draw.choice(["", "NOTHING", "USER_ID", "x" * 3000])
    return request


KINDS: tuple[Callable[[random.Random], Message], ...] = (
    _name,
    _shape,
    _type,
    _length,
    _string,
    _value,
    _count,
    _history,
    _twice,
    _elsewhere,
    _outputs,
)


def malformed(draw: random.Random) -> Message:
    """Return one request that is wrong in one way, or at the edge of what is right."""
    return draw.choice(KINDS)(draw)


def overflowing() -> list[Message]:
    """Return requests whose number of elements overflows to what was sent: Triton 2.51 lets them kill a stub."""
    return [
        message(("HISTORY", "BYTES", [1, 2**62], b""), ("K", "INT32", [1, 1], struct.pack("<i", 1))),
        message(("HISTORY_TIME", "INT64", [1, 2**61], b""), ("K", "INT32", [1, 1], struct.pack("<i", 1))),
        message(("HISTORY", "BYTES", [2**32, 2**32], b"")),
    ]


def huge(megabytes: int) -> Message:
    """Return a request with one string of this size."""
    return message(("CONTEXT", "BYTES", [1, 1], text(b"x" * (megabytes * 2**20))))
