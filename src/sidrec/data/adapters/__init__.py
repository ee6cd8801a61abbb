"""Adapters turn a raw format into common columns; the recipe's `data.adapter` names one."""

from datetime import date

from sidrec.data.adapters.amazon import Amazon
from sidrec.data.adapters.online_retail import OnlineRetail
from sidrec.data.adapters.source import Adapter
from sidrec.data.adapters.table import Table
from sidrec.data.config import DataConfig

__all__ = ["Adapter", "open_adapter"]


def open_adapter(config: DataConfig, as_of: date) -> Adapter:
    """Return the adapter that a recipe's `data` section asks for."""
    match config.adapter:
        case "online_retail":
            return OnlineRetail(config)
        case "amazon":
            return Amazon(config, as_of)
        case "table":
            return Table(config)
