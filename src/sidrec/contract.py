"""What goes over the wire: the tensors of the model `recommend`, their limits, and the files made from them.

`config_pbtxt` and `markdown_table` are generated from the one table here, so that Triton, the page
`docs/contract.md` and the clients cannot disagree. Needs numpy alone.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

CONTRACT_VERSION = 1
MODEL_NAME = "recommend"

DEFAULT_K = 10
MAX_K = 100
MAX_BATCH_SIZE = 32
MAX_HISTORY = 2000
MAX_ID_BYTES = 256
MAX_CONTEXT_BYTES = 4096

Datatype = Literal["BYTES", "INT32", "INT64", "FP32", "BOOL"]

_NUMPY: Mapping[Datatype, type[Any]] = {
    "BYTES": np.object_,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP32": np.float32,
    "BOOL": np.bool_,
}
_ANY = -1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: `dims` leave out the batch dimension, which is always 1 on the wire."""

    name: str
    datatype: Datatype
    dims: tuple[int, ...]
    shape: str
    meaning: str
    optional: bool = False
    ragged: bool = False

    @property
    def numpy_dtype(self) -> type[Any]:
        """The numpy type that holds it."""
        return _NUMPY[self.datatype]

    def fits(self, array: "np.ndarray[Any, Any]") -> bool:
        """Return whether an array, batch dimension included, has this tensor's type and shape."""
        return (
            array.dtype == np.dtype(self.numpy_dtype)
            and array.ndim == len(self.dims) + 1
            and array.shape[0] == 1
            and all(want in (_ANY, seen) for want, seen in zip(self.dims, array.shape[1:], strict=True))
        )


USER_ID = TensorSpec("USER_ID", "BYTES", (1,), "[1]", 'looked up in the feature store; `""` = absent', optional=True)
HISTORY = TensorSpec(
    "HISTORY",
    "BYTES",
    (_ANY,),
    "[-1]",
    "item ids, oldest first; wins over the store; empty = absent",
    optional=True,
    ragged=True,
)
HISTORY_TIME = TensorSpec(
    "HISTORY_TIME",
    "INT64",
    (_ANY,),
    "[-1]",
    "unix seconds, never falling, same length as HISTORY; items of one UTC day are one basket; "
    "empty = each id is an event of its own, in order",
    optional=True,
    ragged=True,
)
K = TensorSpec("K", "INT32", (1,), "[1]", f"1..{MAX_K}, default {DEFAULT_K}", optional=True)
EXCLUDE_SEEN = TensorSpec("EXCLUDE_SEEN", "BOOL", (1,), "[1]", "leave out the history's items; default false", True)
CONTEXT = TensorSpec(
    "CONTEXT",
    "BYTES",
    (1,),
    "[1]",
    "JSON object: `request_id`, `surface` (logged); `event_time` (event clock only); "
    "`sent_at_ms` and `deadline_ms` (late = fewer beams); "
    "`rationale` (true asks for it); `canary` (true = not logged)",
    optional=True,
)
INPUTS = (USER_ID, HISTORY, HISTORY_TIME, K, EXCLUDE_SEEN, CONTEXT)

ITEM_ID = TensorSpec("ITEM_ID", "BYTES", (_ANY,), "[n]", "n ≤ K item ids, best first, distinct")
SCORE = TensorSpec("SCORE", "FP32", (_ANY,), "[n]", "descends; a log-probability iff SOURCE = model")
SEMANTIC_ID = TensorSpec(
    "SEMANTIC_ID", "INT32", (_ANY, _ANY), "[n, L]", "the items' codes; -1 pads a missing disambiguation code"
)
SOURCE = TensorSpec("SOURCE", "BYTES", (1,), "[1]", "model / cold / degraded")
ARM = TensorSpec("ARM", "BYTES", (1,), "[1]", "arm of the revision that answered")
BUNDLE_ID = TensorSpec("BUNDLE_ID", "BYTES", (1,), "[1]", "bundle that answered")
REQUEST_ID = TensorSpec("REQUEST_ID", "BYTES", (1,), "[1]", "CONTEXT's, or a new one; joins outcomes to this answer")
RATIONALE = TensorSpec("RATIONALE", "BYTES", (1,), "[1]", "empty unless asked for and the system has one")
OUTPUTS = (ITEM_ID, SCORE, SEMANTIC_ID, SOURCE, ARM, BUNDLE_ID, REQUEST_ID, RATIONALE)

_PBTXT_TYPE: Mapping[Datatype, str] = {
    "BYTES": "TYPE_STRING",
    "INT32": "TYPE_INT32",
    "INT64": "TYPE_INT64",
    "FP32": "TYPE_FP32",
    "BOOL": "TYPE_BOOL",
}

WARMUP_CONTEXT = b'{"canary": true}'


def warmup_files() -> dict[str, bytes]:
    """Return the raw tensors of the warm-up request by file name; they lie in the model's `warmup` folder."""
    return {
        "history": _length_prefixed(b"warm-up"),
        "k": np.array([DEFAULT_K], dtype="<i4").tobytes(),
        "context": _length_prefixed(WARMUP_CONTEXT),
    }


def _length_prefixed(text: bytes) -> bytes:
    return struct.pack("<I", len(text)) + text


def config_pbtxt(versions: Sequence[int], *, kind: str = "KIND_CPU", instances: int = 1) -> str:
    """Return Triton's config of the model, serving exactly `versions`.

    There is no `default_queue_policy`: any one stalls this server for about half a second; load is shed by
    the gateway. The queue delay is 0, so a lone request is never held back.
    """
    lines = [f'name: "{MODEL_NAME}"', 'backend: "python"', f"max_batch_size: {MAX_BATCH_SIZE}"]
    lines += [_pbtxt_block("input", INPUTS), _pbtxt_block("output", OUTPUTS)]
    lines += [
        f"version_policy: {{ specific: {{ versions: [ {', '.join(str(v) for v in versions)} ] }} }}",
        f"instance_group [ {{ kind: {kind} count: {instances} }} ]",
        "dynamic_batching { max_queue_delay_microseconds: 0 }",
        f'parameters {{ key: "CONTRACT_VERSION" value: {{ string_value: "{CONTRACT_VERSION}" }} }}',
        _warmup(),
    ]
    return "\n".join(lines) + "\n"


def _pbtxt_block(kind: str, tensors: Sequence[TensorSpec]) -> str:
    rows = []
    for tensor in tensors:
        flags = " optional: true" * tensor.optional + " allow_ragged_batch: true" * tensor.ragged
        dims = ", ".join(str(d) for d in tensor.dims)
        rows.append(f'  {{ name: "{tensor.name}" data_type: {_PBTXT_TYPE[tensor.datatype]} dims: [ {dims} ]{flags} }}')
    return f"{kind} [\n" + ",\n".join(rows) + "\n]"


def _warmup() -> str:
    sources = {
        "USER_ID": "zero_data: true",
        "HISTORY": 'input_data_file: "history"',
        "HISTORY_TIME": "zero_data: true",
        "K": 'input_data_file: "k"',
        "EXCLUDE_SEEN": "zero_data: true",
        "CONTEXT": 'input_data_file: "context"',
    }
    rows = []
    for tensor in INPUTS:
        value = f"data_type: {_PBTXT_TYPE[tensor.datatype]} dims: [ 1 ] {sources[tensor.name]}"
        rows.append(f'  inputs {{ key: "{tensor.name}" value: {{ {value} }} }}')
    return 'model_warmup [ {\n  name: "warm-up" batch_size: 1\n' + "\n".join(rows) + "\n} ]"


def markdown_table() -> str:
    """Return the table of `docs/contract.md`."""
    lines = ["| tensor | type, shape | meaning |", "|---|---|---|"]
    for tensor in INPUTS:
        lines.append(f"| `{tensor.name}` in, optional | {tensor.datatype} {tensor.shape} | {tensor.meaning} |")
    for tensor in OUTPUTS:
        lines.append(f"| `{tensor.name}` out | {tensor.datatype} {tensor.shape} | {tensor.meaning} |")
    return "\n".join(lines) + "\n"
