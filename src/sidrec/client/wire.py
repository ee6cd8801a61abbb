"""A small client of the gRPC door: one call, typed answers, every input always sent.

Needs the `client` extra (tritonclient). The message building and reading here is shared with the gateway's
asynchronous client.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from sidrec import contract
from sidrec.errors import ServingError, UsageError


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
    """Return the request's tensors: all of them, empty where there is nothing to say."""
    values: list[tuple[contract.TensorSpec, list[Any]]] = [
        (contract.USER_ID, [(user_id or "").encode()]),
        (contract.HISTORY, [item.encode() for item in history]),
        (contract.HISTORY_TIME, list(history_time)),
        (contract.K, [k]),
        (contract.EXCLUDE_SEEN, [exclude_seen]),
        (contract.CONTEXT, [json.dumps(context).encode() if context else b""]),
    ]
    tensors = []
    for spec, row in values:
        array = np.empty((1, len(row)), dtype=spec.numpy_dtype)
        array[0, :] = row
        tensor = triton.InferInput(spec.name, list(array.shape), spec.datatype)
        tensor.set_data_from_numpy(array)
        tensors.append(tensor)
    return tensors


def deadline(budget_s: float) -> dict[str, int]:
    """Return the part of CONTEXT that tells the server how long this caller will wait."""
    return {"sent_at_ms": int(time.time() * 1000), "deadline_ms": max(1, int(budget_s * 1000))}


def outputs() -> list[triton.InferRequestedOutput]:
    """Return the request for every output of the contract."""
    return [triton.InferRequestedOutput(spec.name) for spec in contract.OUTPUTS]


def answer(result: Any) -> Recommendation:
    """Return a server's result as a Recommendation, after checking it against the contract.

    Raises:
        ServingError: a tensor is missing, has another shape or type, or the rows disagree.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for spec in contract.OUTPUTS:
        array = result.as_numpy(spec.name)
        if array is None or not spec.fits(array):
            seen = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise ServingError(
                f"the server's {spec.name} breaks the contract: {seen}, not {spec.datatype} {spec.shape}"
            )
        arrays[spec.name] = array[0]
    items = tuple(item.decode() for item in arrays["ITEM_ID"])
    scores, codes = arrays["SCORE"], arrays["SEMANTIC_ID"]
    if not len(items) == len(scores) == len(codes) or len(set(items)) != len(items) or not np.isfinite(scores).all():
        raise ServingError(f"the server's rows disagree: {len(items)} items, {len(scores)} scores, {len(codes)} codes")
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


class RecommendClient:
    """Asks one server; safe to share between threads.

    Args:
        url: `host:port` of the gRPC door.
        timeout_s: default budget of one call; the server answers with fewer beams when half of it is gone.
    """

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        self.url = url
        self._timeout_s = timeout_s
        self._client = triton.InferenceServerClient(url)

    def recommend(
        self,
        *,
        user_id: str | None = None,
        history: Sequence[str] = (),
        history_time: Sequence[int] = (),
        k: int = contract.DEFAULT_K,
        exclude_seen: bool = False,
        context: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        model_version: str = "",
    ) -> Recommendation:
        """Return the server's answer.

        Raises:
            UsageError: the server refused the request as invalid; the message says what is wrong.
            ServingError: no answer in time, or one that breaks the contract.
        """
        budget_s = self._timeout_s if timeout_s is None else timeout_s
        tensors = inputs(
            user_id=user_id,
            history=history,
            history_time=history_time,
            k=k,
            exclude_seen=exclude_seen,
            context=deadline(budget_s) | dict(context or {}),
        )
        try:
            result = self._client.infer(
                contract.MODEL_NAME,
                tensors,
                model_version=model_version,
                outputs=outputs(),
                client_timeout=budget_s,
            )
        except InferenceServerException as error:
            raise refusal(error, self.url) from error
        return answer(result)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def refusal(error: InferenceServerException, url: str) -> UsageError | ServingError:
    """Return the server's refusal as one of our errors."""
    if str(error.status()) == "StatusCode.INVALID_ARGUMENT":
        return UsageError(f"the server refused the request: {error.message()}", next_step="see docs/contract.md")
    return ServingError(
        f"no answer from {url}: {error.status()}: {error.message()}",
        next_step="sidrec status shows whether a server runs; sidrec serve starts one",
    )
