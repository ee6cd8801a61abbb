"""Data-parallel steps: each rank has a part of every batch, and gradients and losses are sums over the ranks.

A part's losses are weighed by the whole batch, so that the sums are what one process would compute. A rank whose part
is empty takes part with zeros, or with no terms at all.

Axes: `weight` entries of all parameters or of a module's state, flattened.
"""

import atexit
import json
import os
from collections.abc import Iterable
from functools import cache

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from sidrec.errors import CheckFailedError, UsageError
from sidrec.quantization.sharding import Shards
from sidrec.training.fully_sharded import is_sharded

Terms = dict[str, Float[Tensor, ""]]


def shards_from_environment() -> Shards | None:
    """Return the ranks that torchrun started, or None for a process that runs alone.

    The first call joins the process group, gloo for tensors on a CPU and nccl for those on CUDA, where rank r of a
    machine takes its device r. The process leaves the group when it exits.
    """
    return None if int(os.environ.get("WORLD_SIZE", "1")) == 1 else _world()


@cache
def _world() -> Shards:
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    store, rank, count = next(rendezvous("env://"))
    # torchrun's store outlives ranks that it starts again; what the dead ones left there is not theirs to find.
    life = PrefixStore(f"life_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", store=life, rank=rank, world_size=count)
    shards = Shards(dist.group.WORLD)
    atexit.register(_leave, shards)
    return shards


def _leave(shards: Shards) -> None:
    """Drop the group and wait for its threads.

    One that frees the last sum's tensors while Python shuts down aborts the process, and with it a finished run.
    """
    shards.group = None
    if dist.is_initialized():
        dist.destroy_process_group()


class Reduction:
    """The backward pass of a step over all ranks; of one rank it is the plain one."""

    def __init__(self, parameters: Iterable[nn.Parameter], shards: Shards) -> None:
        self.parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self.shards = shards
        # Split weights come with backward passes that sum.
        self.sums_itself = is_sharded(self.parameters)
        self._names: list[str] | None = None

    def backward(self, parts: Iterable[tuple[float, Terms]]) -> Terms:
        """Leave the gradients of a step on the parameters and return its terms, equal on every rank.

        Args:
            parts: the step's batches one after the other, each with its share of the step and this rank's terms of it;
                one graph is in memory at a time, and ranks wait for each other once a step.
        """
        step: Terms = {}
        for share, terms in parts:
            if self.shards.count == 1 or ("total" in terms and terms["total"].requires_grad):
                (share * terms["total"]).backward()  # type: ignore[no-untyped-call]
            step = _added(step, share, terms)
        if self.shards.count == 1:
            return step
        if not self.sums_itself:
            sum_gradients(self.parameters, self.shards)
        return self._sum_terms(step)

    def _sum_terms(self, terms: Terms) -> Terms:
        device = self.parameters[0].device
        if self._names is None:
            self._names = _all_names(sorted(terms), self.shards, device)
        if terms and sorted(terms) != self._names:
            raise UsageError(
                f"a part's loss terms are {sorted(terms)}, and those of the first batch {self._names}",
                next_step="return the same terms for every part, or none for an empty one",
            )
        own = torch.zeros(len(self._names), dtype=torch.float64, device=device)
        if terms:
            own += torch.stack([terms[name].detach().double() for name in self._names])
        return dict(zip(self._names, self.shards.sum(own), strict=True))


def _added(step: Terms, share: float, terms: Terms) -> Terms:
    """Return a step's terms so far with a batch's share of its own; a batch without terms adds none."""
    if step and terms and step.keys() != terms.keys():
        raise UsageError(
            f"a batch's loss terms are {sorted(terms)}, and those of the step's first {sorted(step)}",
            next_step="return the same terms for every batch",
        )
    return {name: share * value.detach() + step.get(name, 0.0) for name, value in terms.items()} if terms else step


@torch.no_grad()
def sum_gradients(parameters: list[nn.Parameter], shards: Shards) -> None:
    """Put in place of every gradient its sum over ranks; a parameter that no rank has one for keeps none.

    Without a gradient a parameter does not decay either, so an unused one ends as in one process.
    """
    held = [parameter.grad is not None for parameter in parameters]
    parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    flags = torch.tensor(held, dtype=parts[0].dtype, device=parts[0].device)
    *sums, holders = torch.split(shards.sum(torch.cat([*parts, flags])), [*(len(part) for part in parts), len(flags)])
    for parameter, total, count in zip(parameters, sums, holders.tolist(), strict=True):
        parameter.grad = total.view_as(parameter).to(parameter.dtype) if count else None


def check_weights(module: nn.Module, shards: Shards, what: str) -> None:
    """Refuse a module that is not the same on every rank, buffers included; one that is split is one module.

    Raises:
        CheckFailedError: each rank's checksum is named.
    """
    if shards.count > 1 and not is_sharded(module.parameters()):
        state: list[Float[Tensor, " weight"]] = [value.detach().flatten() for value in module.state_dict().values()]
        shards.check_equal(torch.cat(state), what)


def check_steps(steps_per_epoch: int, step: int, shards: Shards, device: torch.device) -> None:
    """Refuse ranks that would wait for one another for ever.

    Raises:
        UsageError: their epochs have different numbers of steps.
        CheckFailedError: they go on from different steps.
    """
    if len(set(seen := shards.sizes(steps_per_epoch, device))) > 1:
        raise UsageError(
            f"ranks have {seen} steps an epoch", next_step="give every rank a part of every batch, even an empty one"
        )
    if len(set(seen := shards.sizes(step, device))) > 1:
        raise CheckFailedError(
            f"ranks go on from steps {seen}", next_step="put the checkpoints where every rank can read them"
        )


def _all_names(own: list[str], shards: Shards, device: torch.device) -> list[str]:
    """Return the names that any rank has: a rank whose first part is empty may have none."""
    sent = torch.frombuffer(bytearray(f"{json.dumps(own)}\n".encode()), dtype=torch.uint8).to(device)
    lists = bytes(shards.gather(sent).cpu().tolist()).decode().splitlines()
    return sorted({name for line in lists for name in json.loads(line)})
