"""Sums, samples and checks over the ranks that each hold a shard of the vectors; one process is the case of one shard.

Axes: `row` rows of this rank, of which ranks may hold different numbers; `all_row` the rows of every rank.
"""

import hashlib

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

from sidrec.errors import CheckFailedError


class Shards:
    """The ranks of a process group; without a group, this process alone."""

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.count = 1 if group is None else dist.get_world_size(group)

    def sum(self, tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Return the sum over ranks, the same bits on every rank: added up in the order of ranks."""
        if self.group is None:
            return tensor
        parts = [torch.empty_like(tensor) for _ in range(self.count)]
        dist.all_gather(parts, tensor.contiguous(), group=self.group)
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def gather(self, rows: Shaped[Tensor, " row *rest"]) -> Shaped[Tensor, " all_row *rest"]:
        """Return the rows of every rank, in the order of ranks."""
        if self.group is None:
            return rows
        sizes = self.sizes(len(rows), rows.device)
        # The backends gather equal shapes only, so short shards are padded and cut again.
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in range(self.count)]
        dist.all_gather(parts, padded, group=self.group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    def sizes(self, size: int, device: torch.device | str = "cpu") -> list[int]:
        """Return the number that each rank gave, in the order of ranks."""
        if self.group is None:
            return [size]
        own = torch.tensor([size], dtype=torch.int64, device=device)
        parts = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(parts, own, group=self.group)
        return [int(part) for part in parts]

    def broadcast(self, tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
        """Return rank 0's tensor on every rank."""
        if self.group is None:
            return tensor
        sent = tensor.contiguous().clone()
        dist.broadcast(sent, group=self.group, group_src=0)
        return sent

    def check_equal(self, tensor: Shaped[Tensor, "*shape"], what: str) -> str:
        """Return the tensor's checksum, once it is known to be the same on every rank.

        Raises:
            CheckFailedError: if ranks hold different bits; each rank's checksum is named.
        """
        digest = checksum(tensor)
        if self.group is None:
            return digest
        own = torch.frombuffer(bytearray.fromhex(digest), dtype=torch.uint8).to(tensor.device)
        seen = [bytes(row.cpu().tolist()).hex() for row in self.gather(own[None])]
        if len(set(seen)) > 1:
            raise CheckFailedError(
                f"{what} differs between ranks: "
                + ", ".join(f"rank {rank} has {value[:12]}" for rank, value in enumerate(seen)),
                next_step="run every rank on one version of the code and one kind of device",
            )
        return digest


def checksum(tensor: Shaped[Tensor, "*shape"]) -> str:
    """Return the SHA-256 of a tensor's bytes, in hex."""
    values = tensor.detach().cpu().contiguous()
    return hashlib.sha256(values.reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
