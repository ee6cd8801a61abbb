"""The contract: one table makes the config, the page and the checks."""

import re
from pathlib import Path

import numpy as np
import pytest

from sidrec import contract

PAGE = Path(__file__).parents[2] / "docs" / "contract.md"


def test_the_page_shows_the_table() -> None:
    """docs/contract.md holds exactly the generated table and names the version."""
    text = PAGE.read_text(encoding="utf-8")

    assert contract.markdown_table() in text
    assert f"Contract version: {contract.CONTRACT_VERSION}\n" in text


def test_the_config_declares_every_tensor_of_the_table() -> None:
    """Names, types, dims and flags in config.pbtxt are those of the table, in order."""
    rows = re.findall(
        r'\{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[ ([^\]]*) \]([^}]*)\}', contract.config_pbtxt([3])
    )

    wire = {"STRING": "BYTES"}
    seen = [(name, wire.get(kind, kind), tuple(int(d) for d in dims.split(","))) for name, kind, dims, _ in rows]
    assert seen == [(t.name, t.datatype, t.dims) for t in (*contract.INPUTS, *contract.OUTPUTS)]
    assert {name for name, _, _, flags in rows if "allow_ragged_batch" in flags} == {"HISTORY", "HISTORY_TIME"}
    assert {name for name, _, _, flags in rows if "optional" in flags} == {t.name for t in contract.INPUTS}


def test_the_config_has_no_queue_policy_and_no_queue_delay() -> None:
    """A queue policy stalls this server, and a delay holds a lone request back."""
    text = contract.config_pbtxt([1, 2])

    assert "queue_policy" not in text
    assert "max_queue_delay_microseconds: 0 " in text
    assert "specific: { versions: [ 1, 2 ] }" in text


def test_the_warm_up_sends_every_input() -> None:
    """A differing set of inputs would split batches, so the warm-up sends what clients send."""
    assert re.findall(r'key: "(\w+)" value: \{ data_type', contract.config_pbtxt([1])) == [
        t.name for t in contract.INPUTS
    ]


@pytest.mark.parametrize(
    ("array", "fits"),
    [
        (np.array([[10]], np.int32), True),
        (np.array([[10]], np.int64), False),
        (np.array([10], np.int32), False),
        (np.array([[10, 11]], np.int32), False),
        (np.array([[10], [11]], np.int32), False),
    ],
)
def test_a_tensor_fits_by_type_shape_and_one_row(array: np.ndarray, fits: bool) -> None:
    """K is INT32 of shape [1, 1], nothing else."""
    assert contract.K.fits(array) is fits
