"""Without sidrec: tritonclient and the table of docs/contract.md.

pip install 'tritonclient[grpc]'; python examples/plain_tritonclient.py HOST:PORT ITEM…
"""

import json
import sys
import time

import numpy as np
import tritonclient.grpc as triton

DEADLINE_S = 0.5


def tensor(name: str, datatype: str, values: list, dtype: type) -> triton.InferInput:
    """Return an input of one request: in front of its own shape stands a batch dimension of 1."""
    array = np.array([values], dtype=dtype).reshape(1, len(values))
    made = triton.InferInput(name, array.shape, datatype)
    made.set_data_from_numpy(array)
    return made


url, *history = sys.argv[1:]
# `sent_at_ms` and `deadline_ms` let the server answer with fewer beams rather than too late.
context = {"surface": "example", "sent_at_ms": int(time.time() * 1000), "deadline_ms": int(DEADLINE_S * 1000)}

client = triton.InferenceServerClient(url)
result = client.infer(
    "recommend",
    # Every input, empty where there is nothing to say: requests with other inputs are not batched with these.
    [
        tensor("USER_ID", "BYTES", [b""], np.object_),
        tensor("HISTORY", "BYTES", [item.encode() for item in history], np.object_),
        tensor("HISTORY_TIME", "INT64", [], np.int64),
        tensor("K", "INT32", [5], np.int32),
        tensor("EXCLUDE_SEEN", "BOOL", [False], np.bool_),
        tensor("CONTEXT", "BYTES", [json.dumps(context).encode()], np.object_),
    ],
    client_timeout=DEADLINE_S,
)
for item_id, score in zip(result.as_numpy("ITEM_ID")[0], result.as_numpy("SCORE")[0], strict=True):
    print(f"{item_id.decode()}\t{score:.3f}")
print(f"source={result.as_numpy('SOURCE')[0, 0].decode()}", file=sys.stderr)
