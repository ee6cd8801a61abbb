"""Nothing is lost: rows in = kept + quarantined + merged + anonymous, counted and asserted."""

from datetime import UTC, datetime
from typing import Any

import polars as pl

from sidrec.data.adapters.source import Source
from sidrec.data.cleaning import Cleaned
from sidrec.data.events import day_of
from sidrec.data.rows import count_broken


def account(source: Source, cleaned: Cleaned) -> dict[str, Any]:
    """Return where every source row went.

    `observed` counts each fault on its own, so a row may count in several; `dropped` gives a row to the
    first rule that it breaks.
    """
    rows_in = source.rows.height
    by_rule = dict(cleaned.rule.drop_nulls().value_counts().iter_rows())
    broken = count_broken(source.rows, cleaned.rules)
    dropped, left = [], rows_in
    for rule in cleaned.rules:
        left -= by_rule.get(rule.rule, 0)
        dropped.append(
            {
                "rule": rule.rule,
                "name": rule.name,
                "reason": rule.reason,
                "action": rule.action,
                "rows": by_rule.get(rule.rule, 0),
                "rows_observed": broken[rule.rule],
                "rows_left": left,
            }
        )
    anonymous = sum(row["rows"] for row in dropped if row["action"] == "sales_only")
    kept, quarantined = cleaned.events.height, cleaned.quarantine.height
    balance = kept + quarantined + cleaned.merged + anonymous
    assert rows_in == balance, f"{rows_in} rows in, {balance} accounted for"
    assert cleaned.sales.height == kept + cleaned.merged + anonymous
    return {
        "schema_version": 1,
        "rows_in": rows_in,
        "kept": kept,
        "quarantined": quarantined,
        "merged": cleaned.merged,
        "anonymous": anonymous,
        "sales": cleaned.sales.height,
        "observed": source.observed,
        "dropped": dropped,
        "derived": source.derived,
        "result": _result(cleaned),
    }


def _result(cleaned: Cleaned) -> dict[str, Any]:
    events = cleaned.events
    first, last = events["timestamp"].min(), events["timestamp"].max()
    return {
        "events": events.height,
        "users": events["user_id"].n_unique(),
        "items": events["item_id"].n_unique(),
        "orders": cleaned.orders,
        "baskets": events.select(pl.struct("user_id", day_of()).n_unique()).item(),
        "first_event": _iso(first),
        "last_event": _iso(last),
        "watermark": last,
    }


def _iso(seconds: Any) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(int(seconds), UTC).isoformat()


def accounting_lines(accounting: dict[str, Any]) -> list[str]:
    """Return the accounting as lines for a person."""
    a = accounting
    lines = [
        f"rows in {a['rows_in']:,} = kept {a['kept']:,} + quarantined {a['quarantined']:,} + merged {a['merged']:,}"
        f" + anonymous (sales only) {a['anonymous']:,}"
    ]
    lines += [
        f"  {row['rule']} {row['name']}: {row['rows']:,} rows ({row['rows_observed']:,} break it), "
        f"{row['rows_left']:,} left"
        for row in a["dropped"]
    ]
    if a["observed"]:
        lines.append("observed, overlapping: " + ", ".join(f"{name} {n:,}" for name, n in a["observed"].items()))
    if a["derived"]:
        lines.append(f"derived: {a['derived']}")
    return lines
