"""Great Expectations judges a table part by part, so that one part is in memory, and the parts' results are one.

Counts of rows add up. What no part can know by itself is judged once more on what each part leaves for it: its
different values where those are counted, its ends where an order is asked for.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
import polars as pl
from pyarrow import parquet

PART_ROWS = 1 << 18
RESULT = {"result_format": "SUMMARY"}
_EXAMPLES = 20
# As many different values are told apart; a limit on them is far below.
_MOST_VALUES = 1_000_000


def _values(seen: Any, part: Any) -> Any:
    return seen if len(seen) > _MOST_VALUES else pd.concat([seen, part]).drop_duplicates()


def _ends(seen: Any, part: Any) -> Any:
    return pd.concat([seen, part.iloc[[0, -1]]])


_ACROSS: dict[str, Callable[[Any, Any], Any]] = {
    "expect_column_unique_value_count_to_be_between": _values,
    "expect_column_values_to_be_increasing": _ends,
}


def parts(path: Path, columns: Sequence[str]) -> Iterator[pd.DataFrame]:
    """Yield a table's columns a part at a time, in its order; those that it lacks are left out."""
    for file in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        opened = parquet.ParquetFile(file)
        present = [column for column in columns if column in opened.schema_arrow.names]
        for batch in opened.iter_batches(PART_ROWS, columns=present):
            if batch.num_rows:
                # By way of polars, as a whole table comes: its types are then the same.
                yield pl.DataFrame(pl.from_arrow(batch)).to_pandas()


def judge_parts(context: Any, definition: gx.ValidationDefinition, path: Path, columns: Sequence[str]) -> Any:
    """Return the definition's result over all parts, which is the only one of it that the context keeps."""
    total: Any = None
    expectations: list[Any] = list(definition.suite.expectations)
    across: dict[int, Any] = {}
    for frame in parts(path, columns):
        if total is None:
            total = definition.run(batch_parameters={"dataframe": frame}, result_format=RESULT)
        else:
            result = definition.data.get_batch({"dataframe": frame}).validate(definition.suite, result_format=RESULT)
            for one, other in zip(_by_place(total), _by_place(result), strict=True):
                _add(one, other)
        for place, gather in enumerate(map(_gather, expectations)):
            if gather is not None and expectations[place].column in frame.columns:
                part = frame[expectations[place].column]
                across[place] = gather(across.get(place, part.iloc[:0]), part)
    for place, seen in across.items():
        frame = pd.DataFrame({expectations[place].column: seen.reset_index(drop=True)})
        judged = definition.data.get_batch({"dataframe": frame}).validate(expectations[place], result_format=RESULT)
        _see_across(_by_place(total)[expectations[place].meta["place"]], judged)
    good = sum(bool(one.success) for one in total.results)
    total.success = good == len(total.results)
    total.statistics |= {
        "successful_expectations": good,
        "unsuccessful_expectations": len(total.results) - good,
        "success_percent": 100 * good / len(total.results),
    }
    store = context.validation_results_store
    (key,) = (key for key in store.list_keys() if key.expectation_suite_identifier.name == definition.suite.name)
    store.set(key, total)
    return total


def _gather(expectation: Any) -> "Callable[[Any, Any], Any] | None":
    return _ACROSS.get(expectation.expectation_type)


def _place(result: Any) -> int:
    return int(result.expectation_config.meta["place"])


def _by_place(results: Any) -> list[Any]:
    return sorted(results.results, key=_place)


def _add(total: Any, part: Any) -> None:
    """Add a part's rows to a result; one that counts no rows, or could not be made, is the first that failed."""
    if "element_count" not in total.result or "element_count" not in part.result:
        if total.success and not part.success:
            total.success, total.result, total.exception_info = part.success, part.result, part.exception_info
        return
    seen, more = total.result, part.result
    counts = {name: seen[name] + more[name] for name in ("element_count", "unexpected_count")}
    filled = counts["element_count"]
    shares = {}
    if "missing_count" in seen:
        counts["missing_count"] = seen["missing_count"] + more["missing_count"]
        filled -= counts["missing_count"]
        shares = {
            "missing_percent": _percent(counts["missing_count"], counts["element_count"]),
            "unexpected_percent_total": _percent(counts["unexpected_count"], counts["element_count"]),
            "unexpected_percent_nonmissing": _percent(counts["unexpected_count"], filled),
        }
    examples = (seen["partial_unexpected_list"] + more["partial_unexpected_list"])[:_EXAMPLES]
    shares["unexpected_percent"] = _percent(counts["unexpected_count"], filled)
    total.result = counts | shares | {"partial_unexpected_list": examples}
    mostly = total.expectation_config.kwargs.get("mostly", 1.0)
    total.success = not filled or (filled - counts["unexpected_count"]) / filled >= mostly


def _percent(rows: int, of: int) -> float | None:
    return 100 * rows / of if of else None


def _see_across(total: Any, seen: Any) -> None:
    """Put what was judged across parts into a result: a count of values is the whole of it, an order a part."""
    if "element_count" in total.result:
        total.result["unexpected_count"] += seen.result["unexpected_count"]
        total.success = bool(total.success and seen.success)
    else:
        total.result, total.success = seen.result, seen.success
