"""Random small catalogues: of any density, with items that end early, and with extra codes that stand alone."""

import numpy as np
from hypothesis import strategies as st

from sidrec.data.catalog import disambiguate


@st.composite
def catalogues(draw: st.DrawFn) -> np.ndarray:
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    items, codes, levels = draw(st.integers(1, 60)), draw(st.integers(1, 8)), draw(st.integers(1, 4))
    table = disambiguate(rng.integers(0, codes, (items, levels)).astype(np.int32))
    kept = rng.random(items) < draw(st.sampled_from([0.5, 1.0]))
    kept[rng.integers(items)] = True
    return table[kept]
