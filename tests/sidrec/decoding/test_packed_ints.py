"""Packed numbers come back as they went in, in as few bytes as the largest needs."""

import numpy as np
import pytest
import torch

from sidrec.decoding.packed_ints import PackedInts


@pytest.mark.parametrize(
    ("largest", "width"), [(0, 1), (255, 1), (256, 2), (65_535, 2), (65_536, 3), (2**24 - 1, 3), (2**24, 4), (2**33, 5)]
)
def test_numbers_come_back(largest: int, width: int) -> None:
    """The least, the largest and some between, one by one and all together."""
    values = np.append(np.random.default_rng(0).integers(0, largest + 1, 40), [largest, 0])
    packed = PackedInts.of(values, largest)

    assert packed.nbytes == width * len(packed) == width * 42
    assert packed.all().tolist() == values.tolist()
    assert packed.take(torch.tensor([40, 41, 0])).tolist() == [largest, 0, values[0]]
