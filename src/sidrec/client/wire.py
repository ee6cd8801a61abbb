"""The messages of one call: every input always sent, every output checked against the contract."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray

from sidrec import contract
from sidrec.client.statuses import ContractError
from sidrec.errors import UsageError


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One answer, as the contract says."""

    item_ids: tuple[str, ...]
    scores: NDArray[np.float32]
    semantic_ids: NDArray[np.int32]
    source: str
    arm: str
    bundle_id: str
    request_id: str
    rationale: str
    model_version: str


def inputs(
    *,
    user_id: str | None = None,
    history: Sequence[str] = (),
    history_time: Sequence[int] = (),
    k: int = contract.DEFAULT_K,
    exclude_seen: bool = False,
    context: Mapping[str, Any] | None = None,
) -> list[triton.InferInput]:
    """Return the request's tensors: all of them, empty where there is nothing to say.

    Raises:
        UsageError: a value does not fit its tensor.
    """
    values: list[tuple[contract.TensorSpec, Sequence[Any]]] = [
        (contract.USER_ID, [user_id or ""]),
        (contract.HISTORY, history),
        (contract.HISTORY_TIME, history_time),
        (contract.K, [k]),
        (contract.EXCLUDE_SEEN, [exclude_seen]),
        (contract.CONTEXT, [_json(context)]),
    ]
    return [_tensor(spec, row) for spec, row in values]


def _json(context: Mapping[str, Any] | None) -> str:
    try:
        return json.dumps(context) if context else ""
    except (TypeError, ValueError) as error:
        raise UsageError(f"CONTEXT takes what JSON can say: {error}", next_step="see docs/contract.md") from error


def _tensor(spec: contract.TensorSpec, row: Sequence[Any]) -> triton.InferInput:
    array = np.empty((1, len(row)), dtype=spec.numpy_dtype)
    try:
        array[0, :] = [text.encode() for text in row] if spec.datatype == "BYTES" else list(row)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        kind = "text" if spec.datatype == "BYTES" else spec.datatype
        raise UsageError(f"{spec.name} takes {kind}: {error}", next_step="see docs/contract.md") from error
    tensor = triton.InferInput(spec.name, list(array.shape), spec.datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def deadline(budget_s: float) -> dict[str, int]:
    """Return the part of CONTEXT that tells the server how long this caller will wait."""
    return {"sent_at_ms": int(time.time() * 1000), "deadline_ms": max(1, int(budget_s * 1000))}


def outputs() -> list[triton.InferRequestedOutput]:
    """Return the request for every output of the contract."""
    return [triton.InferRequestedOutput(spec.name) for spec in contract.OUTPUTS]


def answer(result: Any) -> Recommendation:
    """Return a server's result as a Recommendation, after checking it against the contract.

    Raises:
        ContractError: a tensor is missing, has another shape or type, or the rows disagree.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for spec in contract.OUTPUTS:
        array = result.as_numpy(spec.name)
        if array is None or not spec.fits(array):
            seen = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise ContractError(
                f"the server's {spec.name} breaks the contract: {seen}, not {spec.datatype} {spec.shape}"
            )
        arrays[spec.name] = array[0]
    items = tuple(item.decode() for item in arrays["ITEM_ID"])
    scores, codes = arrays["SCORE"], arrays["SEMANTIC_ID"]
    if not len(items) == len(scores) == len(codes) or len(set(items)) != len(items) or not np.isfinite(scores).all():
        raise ContractError(f"the server's rows disagree: {len(items)} items, {len(scores)} scores, {len(codes)} codes")
    text = {name: arrays[name][0].decode() for name in ("SOURCE", "ARM", "BUNDLE_ID", "REQUEST_ID", "RATIONALE")}
    return Recommendation(
        item_ids=items,
        scores=scores,
        semantic_ids=codes,
        source=text["SOURCE"],
        arm=text["ARM"],
        bundle_id=text["BUNDLE_ID"],
        request_id=text["REQUEST_ID"],
        rationale=text["RATIONALE"],
        model_version=str(result.get_response().model_version),
    )
