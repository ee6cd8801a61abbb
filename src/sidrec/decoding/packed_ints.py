"""Whole numbers in as many bytes as the largest of them needs: item numbers of a large catalogue take three, not eight.

Axes: `entry` numbers, `byte` lowest first.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PackedInts:
    """An array of numbers from 0, read by their places."""

    bytes: UInt8[Tensor, "entry byte"]

    @classmethod
    def of(cls, values: NDArray[np.int64], largest: int) -> Self:
        """Return the numbers packed, none of them above `largest`."""
        width = max(1, (largest.bit_length() + 7) // 8)
        wide = np.ascontiguousarray(values, dtype="<i8").view(np.uint8).reshape(-1, 8)
        return cls(torch.from_numpy(np.ascontiguousarray(wide[:, :width])))

    def __len__(self) -> int:
        return len(self.bytes)

    def to(self, device: torch.device | str) -> "PackedInts":
        """Return the same numbers on another device."""
        return PackedInts(self.bytes.to(device))

    def take(self, places: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Return the numbers at these places, as int64."""
        return _joined(self.bytes.index_select(0, places))

    def all(self) -> Int[Tensor, " entry"]:
        """Return every number, as int64."""
        return _joined(self.bytes)

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return self.bytes.nbytes


def _joined(rows: UInt8[Tensor, "row byte"]) -> Int[Tensor, " row"]:
    value = torch.zeros(len(rows), dtype=torch.int64, device=rows.device)
    for byte in range(rows.shape[1]):
        value += rows[:, byte].long() << (8 * byte)
    return value
