"""What differs between a CPU and a CUDA device: determinism, lower precision, compilation and random states.

Axes: `byte` of a generator's state.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
LossTerms = Callable[[Any], dict[str, Float[Tensor, ""]]]


def device_of(module: nn.Module) -> torch.device:
    """Return where the module's weights lie; it has some, and all on one device."""
    return next(module.parameters()).device


@contextmanager
def reproducible(threads: int, device: torch.device) -> Iterator[None]:
    """Compute deterministically on `threads` threads inside the block.

    Some CUDA operations have no deterministic form: there they warn rather than stop the run.
    """
    if device.type == "cuda":
        # cuBLAS reads it when its first handle is made, and is not deterministic without.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=device.type == "cuda")
    # Every result is written before it is read; filling each new tensor first takes a twentieth of a step.
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.set_num_threads(before)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context in which losses are computed; weights and optimiser stay float32 in either precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def compiled(loss_terms: LossTerms, device: torch.device) -> LossTerms:
    """Return `loss_terms` compiled, or as it is on a CPU, where a line on stderr says so."""
    if device.type != "cuda":
        print(f"compile is ignored: the module lies on {device.type}, not on cuda", file=sys.stderr, flush=True)
        return loss_terms
    return torch.compile(loss_terms)


def random_states(device: torch.device) -> dict[str, UInt8[Tensor, " byte"]]:
    """Return the states of the generators that a step on `device` draws from."""
    states = {"rng": torch.get_rng_state()}
    if device.type == "cuda":
        states["rng_cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, UInt8[Tensor, " byte"]], device: torch.device) -> None:
    """Put the generators back as `random_states` saw them; a state of a device not used here is left out."""
    # Cloned: torch reads a state from the beginning of its storage, whatever row of it the tensor is.
    torch.set_rng_state(states["rng"].clone())
    if device.type == "cuda" and "rng_cuda" in states:
        torch.cuda.set_rng_state(states["rng_cuda"].clone(), device)
