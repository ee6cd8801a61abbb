"""Weights, gradients and optimiser state split over ranks (FSDP): a rank has the others' only while a part computes.

Ranks still have parts of every batch and gradients are still sums over ranks, so a run's curve is that of one process.
"""

from collections.abc import Iterable, Mapping

from jaxtyping import Shaped
from torch import Tensor, nn

from sidrec.quantization.sharding import Shards
from sidrec.training.device import device_of

AnyTensor = Shaped[Tensor, "..."]


def shard_weights(root: nn.Module, blocks: Iterable[nn.Module], shards: Shards) -> None:
    """Split a module's parameters over the ranks, in place; the ranks' modules are equal.

    Args:
        root: its `forward` is the whole loss; other than in it and in its backward a weight is not there in one piece.
        blocks: parts of it whose weights are gathered one after the other, each freed before the next.
    """
    # Imported where it is used, for it takes a second.
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = init_device_mesh(device_of(root).type, (shards.count,))
    for block in blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(root, mesh=mesh)
    for part in root.modules():
        if isinstance(part, FSDPModule):
            # Losses are weighed by the whole batch: gradients are sums, and a plain sum is what every backend has.
            part.set_force_sum_reduction_for_comms(True)
            part.set_gradient_divide_factor(1.0)


def is_sharded(tensors: Iterable[AnyTensor]) -> bool:
    """Return whether any of them is split over ranks."""
    return any(hasattr(tensor, "full_tensor") for tensor in tensors)


def whole(tensor: AnyTensor) -> AnyTensor:
    """Return a split tensor in one piece, on the CPU, and any other as it is; every rank calls it."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather().cpu()


def whole_state(module: nn.Module) -> dict[str, AnyTensor]:
    """Return a module's state in one piece; every rank calls it."""
    return {name: whole(value.detach()) for name, value in module.state_dict().items()}


def split_like(targets: Mapping[str, AnyTensor], tensors: Mapping[str, AnyTensor]) -> dict[str, AnyTensor]:
    """Return whole tensors, each split as the target of its name is."""
    return {name: split_as(targets[name], tensor) if name in targets else tensor for name, tensor in tensors.items()}


def split_as(target: AnyTensor, tensor: AnyTensor) -> AnyTensor:
    """Return a whole tensor split as the target is; as it is, where the target is whole or of another shape."""
    if not is_sharded([target]) or target.shape != tensor.shape:
        return tensor
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(target, DTensor)
    # Every rank has the whole of it and takes its own part.
    moved = tensor.to(target.device)
    return distribute_tensor(moved, target.device_mesh, target.placements, src_data_rank=None)
