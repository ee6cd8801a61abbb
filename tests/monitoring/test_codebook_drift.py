"""Code usage: hand-worked entropy and perplexity, padding, level sizes, and the false drift of codes."""

import numpy as np
import pandas as pd
import polars as pl
import pytest

from monitoring import codebook_drift, measures


def test_four_equal_codes_have_two_bits() -> None:
    """Four of eight codes used equally: half the codes, 2 bits, perplexity 4, two thirds of the possible entropy."""
    seen = codebook_drift.usage(0, "served", [3, 3, 3, 3], 8)

    assert (seen.used, seen.utilisation, seen.entropy, seen.perplexity) == (4, 0.5, 2.0, 4.0)
    assert seen.normalised_entropy == pytest.approx(2 / 3)


def test_perplexity_by_hand() -> None:
    """Shares 1/2, 1/4, 1/4 have 1.5 bits."""
    assert codebook_drift.usage(0, "served", [2, 1, 1], 4).perplexity == pytest.approx(2**1.5)


def test_the_largest_share_is_the_busiest_codes() -> None:
    assert codebook_drift.usage(0, "served", [1, 5, 2], 4).largest_share == 5 / 8


def test_no_traffic_uses_no_code() -> None:
    """Nothing served is zero everywhere, not an error."""
    seen = codebook_drift.usage(1, "bought", [], 8)

    assert (seen.events, seen.utilisation, seen.entropy, seen.perplexity) == (0, 0.0, 0.0, 0.0)
    assert seen.largest_share == 0.0


def test_codes_are_counted_by_level_with_their_weight() -> None:
    """Each level counts its own codes, weighted; the padding of a missing extra code is no code."""
    table = pl.LazyFrame({"codes": [[1, 0, -1], [1, 2, 0]], "count": [3, 4]})

    counts = codebook_drift.code_counts(table)

    assert list(counts.iter_rows()) == [(0, 1, 7), (1, 0, 3), (1, 2, 4), (2, 0, 4)]


def test_a_disambiguation_level_has_the_size_that_it_uses() -> None:
    """Levels of the codebook have its size; the extra level has no codebook."""
    catalogue = pl.DataFrame({"codes": [[0, 0, 0], [0, 0, 1], [1, 1, -1]]})

    assert codebook_drift.level_sizes(catalogue, codebook_size=256, num_levels=2) == {0: 256, 1: 256, 2: 2}


def test_a_catalogue_without_a_codebook_has_its_items_as_codes() -> None:
    """Kind popularity: one level, one code an item."""
    catalogue = pl.DataFrame({"codes": [[0], [1], [2]]})

    assert codebook_drift.level_sizes(catalogue, codebook_size=None, num_levels=None) == {0: 3}


def test_equal_traffic_over_256_codes_is_drift_to_evidently_and_none_to_us() -> None:
    """The reason for the noise floor: two samples of one uniform distribution over 256 codes, 5,000 draws each."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, 5_000) for _ in range(2))
    definition = DataDefinition(categorical_columns=["code"])
    data = [Dataset.from_pandas(pd.DataFrame({"code": codes}), data_definition=definition) for codes in (first, second)]
    theirs = Report([ValueDrift(column="code", method="jensenshannon")]).run(data[0], data[1]).dict()["metrics"][0]
    ours = measures.noise_ratio(_counts(first), _counts(second), seed=0)

    assert theirs["value"] > 0.1
    assert ours == pytest.approx(1, abs=0.3)


def _counts(codes: "np.ndarray[tuple[int], np.dtype[np.int64]]") -> dict[str, int]:
    keys, counts = np.unique(codes, return_counts=True)
    return {str(key): int(count) for key, count in zip(keys, counts, strict=True)}
