"""A catalogue is appended to, or it is another one."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sidrec.data.catalog import Catalog
from sidrec.errors import BundleError
from sidrec.systems.appended import new_items


def test_items_behind_the_published_ones_are_new(world: Any) -> None:
    before = Catalog.build(world.catalog.table()[:60], world.catalog.codes[:60])

    assert new_items(before, world.catalog) == 4
    assert new_items(before, before) == 0


@pytest.mark.parametrize("column", ["row", "code"])
def test_a_published_item_that_moved_is_refused(world: Any, column: str) -> None:
    """To another row, or to another semantic ID."""
    codes, ids = world.catalog.codes.copy(), list(world.catalog.item_ids)
    if column == "code":
        codes[[0, 1]] = codes[[1, 0]]
    else:
        ids[0], ids[1] = ids[1], ids[0]

    with pytest.raises(BundleError, match="another row or semantic ID"):
        new_items(world.catalog, replace(world.catalog, codes=np.ascontiguousarray(codes), item_ids=ids))
