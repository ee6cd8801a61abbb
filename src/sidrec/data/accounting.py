"""Nothing is lost: rows in = kept + quarantined + merged + anonymous, counted and asserted."""

from datetime import UTC, datetime
from typing import Any

from sidrec.data.counting import Counts


def account(counts: Counts) -> dict[str, Any]:
    """Return where every source row went.

    `observed` counts each fault on its own, so a row may count in several; `dropped` gives a row to the
    first rule that it breaks.
    """
    dropped: list[dict[str, Any]] = []
    left = counts.rows
    for rule in counts.rules:
        rows = counts.dropped.get(rule.rule, 0)
        left -= rows
        dropped.append(
            {
                "rule": rule.rule,
                "name": rule.name,
                "reason": rule.reason,
                "action": rule.action,
                "rows": rows,
                "rows_observed": counts.broken[rule.rule],
                "rows_left": left,
            }
        )
    anonymous = sum(row["rows"] for row in dropped if row["action"] == "sales_only")
    merged = left - counts.events
    balance = counts.events + counts.quarantined + merged + anonymous
    assert counts.rows == balance, f"{counts.rows} rows in, {balance} accounted for"
    assert counts.sales == counts.events + merged + anonymous
    return {
        "schema_version": 1,
        "rows_in": counts.rows,
        "kept": counts.events,
        "quarantined": counts.quarantined,
        "merged": merged,
        "anonymous": anonymous,
        "sales": counts.sales,
        "observed": counts.observed,
        "dropped": dropped,
        "derived": counts.derived,
        "result": {
            "events": counts.events,
            "users": counts.users,
            "items": counts.items,
            "orders": counts.orders,
            "baskets": counts.baskets,
            "first_event": _iso(counts.first),
            "last_event": _iso(counts.last),
            "watermark": counts.last,
        },
    }


def _iso(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


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
