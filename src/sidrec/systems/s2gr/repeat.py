"""S²GR copies from the history as every system does: the names of `sidrec.systems.repeat`."""

from sidrec.systems.repeat import (
    HistoryItems,
    RepeatPath,
    fit_repeat_path,
    history_items,
    log_recent,
    with_best_offset,
)

__all__ = ["HistoryItems", "RepeatPath", "fit_repeat_path", "history_items", "log_recent", "with_best_offset"]
