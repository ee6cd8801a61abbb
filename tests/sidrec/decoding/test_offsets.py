"""Both forms of a level's offsets are the running sum of its fan-outs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sidrec.decoding.offsets import Exceptions, Offsets, Table, offsets

FAN_OUTS = st.lists(st.integers(1, 4), min_size=1, max_size=30)


def both(fan_outs: list[int]) -> tuple[Offsets, Offsets]:
    first = np.concatenate([[0], np.cumsum(fan_outs)])
    return Table.of(first), Exceptions.of(first, np.flatnonzero(np.array(fan_outs) != 1))


@given(FAN_OUTS)
def test_children_start_where_those_before_end(fan_outs: list[int]) -> None:
    """The place past the last node has no children."""
    nodes = torch.arange(len(fan_outs) + 2, dtype=torch.int32)
    expected = [sum(fan_outs[:node]) for node in range(len(fan_outs) + 2)]

    assert [level.starts(nodes).tolist() for level in both(fan_outs)] == [expected] * 2


@given(FAN_OUTS)
def test_a_child_finds_its_node(fan_outs: list[int]) -> None:
    """Every child, in order."""
    children = torch.arange(sum(fan_outs), dtype=torch.int32)
    expected = [node for node, fan_out in enumerate(fan_outs) for _ in range(fan_out)]

    assert [level.parents(children).tolist() for level in both(fan_outs)] == [expected] * 2


@given(FAN_OUTS)
def test_nodes_may_be_listed_for_nothing(fan_outs: list[int]) -> None:
    """A list of all nodes, those with one child among them, says the same."""
    level = Exceptions.of(np.concatenate([[0], np.cumsum(fan_outs)]), np.arange(len(fan_outs)))
    nodes = torch.arange(len(fan_outs) + 2, dtype=torch.int32)
    children = torch.arange(sum(fan_outs), dtype=torch.int32)

    assert torch.equal(level.starts(nodes), both(fan_outs)[0].starts(nodes))
    assert torch.equal(level.parents(children), both(fan_outs)[0].parents(children))


@pytest.mark.parametrize(("odd", "form"), [(2, Exceptions), (48, Exceptions), (50, Table), (100, Table)])
def test_the_smaller_form_is_chosen(odd: int, form: type) -> None:
    """A hundred nodes, of which some have two children."""
    level = offsets(np.concatenate([[0], np.cumsum([2] * odd + [1] * (100 - odd))]))
    other = both([2] * odd + [1] * (100 - odd))[0 if form is Exceptions else 1]

    assert isinstance(level, form)
    assert level.nbytes <= other.nbytes
