"""Triton's Python backend model `recommend`: tensors in, tensors out, one revision a version.

Errors are returned, never raised; a request that breaks the contract leaves the others of its batch alone.
"""

# ruff: noqa: E402 - the check below comes before every other import

import numpy as np

# First of all: this stub's pybind11 predates numpy 2 and would hand over wrong tensors without a word.
assert np.__version__.startswith("1."), f"Triton's stub needs numpy 1.26, this environment has {np.__version__}"

import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import triton_python_backend_utils as pb_utils

from serving.triton.answering import Answerer, Refused, Served, exposure
from serving.triton.golden import check_revision, check_shadow
from serving.triton.metrics import Metrics
from serving.triton.parse import ParsedRequest, parse
from serving.triton.repository import read_revision, version_bundle
from serving.triton.shadow import Shadow
from serving.triton.takedown import TakedownFile
from sidrec import contract, home
from sidrec.errors import ServingError, UsageError
from sidrec.exposure import ExposureWriter
from sidrec.recommender import Recommender
from sidrec.release.revision import BundleRef

log = logging.getLogger(__name__)

_STORE_OPEN_S = 30.0
_EXPOSURE_ROWS = 20_000


class TritonPythonModel:
    """One revision: its bundles, its arms, its exposure log."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open and check everything; what raises here is a refused load, and the old version serves on."""
        logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
        version = Path(args["model_repository"]) / args["model_version"]
        revision = read_revision(version)
        recommenders = {
            arm.bundle.bundle_id: Recommender.open(version_bundle(version, arm.bundle).folder, threads=1)
            for arm in revision.arms
        }
        self._answerer = Answerer(revision, recommenders, _histories(revision.history_max_age_days))
        for served in check_revision(self._answerer):
            _check_tensors(_response(served))
        shadow = None if revision.shadow is None else _open_shadow(version, revision.shadow)
        self._takedown = TakedownFile(home.takedown_path())
        self._exposures = _writer(home.exposures_dir(), revision.exposure_flush_s)
        self._metrics = Metrics(str(revision.revision), args["model_instance_name"], self._exposures)
        self._metrics.show_threads(torch.get_num_threads())
        self._shadow, self._shadow_rows = None, None
        if shadow is not None and revision.shadow is not None:
            self._shadow_rows = _writer(home.shadow_dir(), revision.exposure_flush_s)
            self._metrics.watch_shadow(self._shadow_rows)
            self._shadow = Shadow(
                revision,
                revision.shadow,
                shadow,
                write=self._shadow_rows.append,
                count=self._metrics.count_shadow,
            )
        self._check_batch()
        log.info("event=loaded revision=%d bundles=%s", revision.revision, ",".join(revision.bundle_ids))

    def _check_batch(self) -> None:
        """Refuse code that does not answer each request of a batch.

        Triton's warm-up would find it as well, and a warm-up that fails may take a busy server along.

        Raises:
            ServingError: responses are too few, or errors.
        """
        asked = [_warm_up_request() for _ in range(2)]
        responses = self.execute(asked)
        failed = sum(response.has_error() for response in responses)
        if len(responses) != len(asked) or failed:
            raise ServingError(f"{len(asked)} requests got {len(responses)} responses, {failed} of them errors")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Return one response a request, in order."""
        started = time.perf_counter()
        if self._shadow is not None:
            self._shadow.stand_back()
        try:
            outcomes = self._outcomes(requests)
        except Exception:
            # The boundary: what is raised here would reach every client of the batch as a traceback.
            log.exception("event=batch_failed requests=%d", len(requests))
            outcomes = [Refused("the server failed on this batch", invalid=False) for _ in requests]
        responses = [_response(outcome) for outcome in outcomes]
        latency_ms = (time.perf_counter() - started) * 1000
        answered = [one for one in outcomes if isinstance(one, Served) and not one.request.canary]
        for one in answered:
            self._exposures.append(exposure(one, self._answerer.revision, latency_ms))
        if self._shadow is not None:
            self._shadow.offer(answered)
        self._metrics.count(outcomes)
        return responses

    def _outcomes(self, requests: Sequence[Any]) -> list[Served | Refused]:
        blocked = self._takedown.changed()
        if blocked is not None:
            self._answerer.set_takedown(blocked)
            if self._shadow is not None:
                self._shadow.set_takedown(blocked)
        outcomes: dict[int, Served | Refused] = {}
        parsed: dict[int, ParsedRequest] = {}
        for index, request in enumerate(requests):
            try:
                parsed[index] = parse(_reader(request))
            except UsageError as error:
                outcomes[index] = Refused(error.message, invalid=True)
        for index, outcome in zip(parsed, self._answerer.answer(list(parsed.values())), strict=True):
            outcomes[index] = outcome
        return [outcomes[index] for index in range(len(requests))]

    def finalize(self) -> None:
        """Write the exposures that are still buffered, and publish the last counts."""
        try:
            if self._shadow is not None and self._shadow_rows is not None:
                self._shadow.close()
                self._shadow_rows.close()
            self._exposures.close()
            self._metrics.close()
        except Exception:
            # The boundary: Triton prints nothing of what is raised here.
            log.exception("event=not_closed exposures=%d", self._exposures.stats().buffered)


def _open_shadow(version: Path, ref: BundleRef) -> Recommender:
    """Return the shadow's recommender, its own even where an arm has the same bundle: it runs beside the arms'."""
    recommender = Recommender.open(version_bundle(version, ref).folder, threads=1)
    check_shadow(recommender, ref)
    return recommender


def _writer(folder: Path, flush_s: float) -> ExposureWriter:
    rows = int(os.environ.get("SIDREC_EXPOSURE_ROWS", _EXPOSURE_ROWS))
    return ExposureWriter(folder, flush_s=flush_s, max_rows=rows)


def _warm_up_request() -> Any:
    arrays = {
        contract.HISTORY: np.array([[b"warm-up"]], dtype=np.object_),
        contract.K: np.array([[contract.DEFAULT_K]], dtype=np.int32),
        contract.CONTEXT: np.array([[contract.WARMUP_CONTEXT]], dtype=np.object_),
    }
    return pb_utils.InferenceRequest(
        model_name=contract.MODEL_NAME,
        requested_output_names=[spec.name for spec in contract.OUTPUTS],
        inputs=[pb_utils.Tensor(spec.name, array) for spec, array in arrays.items()],
    )


def _reader(request: Any) -> Any:
    def read(name: str) -> Any:
        tensor = pb_utils.get_input_tensor_by_name(request, name)
        return None if tensor is None else tensor.as_numpy()

    return read


def _response(outcome: Served | Refused) -> Any:
    if isinstance(outcome, Refused):
        code = pb_utils.TritonError.INVALID_ARG if outcome.invalid else pb_utils.TritonError.INTERNAL
        return pb_utils.InferenceResponse(error=pb_utils.TritonError(outcome.message, code))
    answer = outcome.answer
    items = np.empty((1, len(answer.item_ids)), dtype=np.object_)
    items[0, :] = [item.encode() for item in answer.item_ids]
    arrays = {
        contract.ITEM_ID: items,
        contract.SCORE: answer.scores[None],
        contract.SEMANTIC_ID: answer.semantic_ids[None],
        contract.SOURCE: _text(answer.source),
        contract.ARM: _text(outcome.arm.name),
        contract.BUNDLE_ID: _text(outcome.arm.bundle.bundle_id),
        contract.REQUEST_ID: _text(outcome.request.request_id),
        contract.RATIONALE: _text(answer.rationale if outcome.request.rationale else ""),
    }
    return pb_utils.InferenceResponse(
        [pb_utils.Tensor(spec.name, np.ascontiguousarray(array)) for spec, array in arrays.items()]
    )


def _check_tensors(response: Any) -> None:
    """Refuse tensors that break the contract; Triton would pass them on, as it does a missing one.

    Raises:
        ServingError: one has another name, type or shape.
    """
    seen = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
    for spec in contract.OUTPUTS:
        if spec.name not in seen or not spec.fits(seen[spec.name]):
            raise ServingError(
                f"the answer's {spec.name} is no {spec.datatype} {spec.shape}; its tensors are "
                + ", ".join(f"{name} {array.dtype} {array.shape}" for name, array in seen.items())
            )


def _text(value: str) -> "np.ndarray[Any, Any]":
    return np.array([[value.encode()]], dtype=np.object_)


def _histories(max_age_days: int) -> Any:
    """Return the feature store's reader, or None where this state folder has no feature store."""
    if not home.feast_dir().exists():
        return None
    from serving.history import HistoryReader

    reader = HistoryReader(max_age_days=max_age_days)
    # Opening takes seconds, and until then everybody would be cold. A store that hangs holds up the load no longer.
    if not reader.wait_open(_STORE_OPEN_S) or reader.last_error:
        log.warning("event=store_not_open error=%r", reader.last_error)
    return reader
