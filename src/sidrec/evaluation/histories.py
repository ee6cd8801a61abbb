"""The history that serving would have sent for every row: whole newest baskets up to the cap, oldest first."""

from collections import deque
from dataclasses import dataclass

from sidrec.clock import DAY_S
from sidrec.data.history import running_histories
from sidrec.evaluation.protocol import NextBasket


@dataclass(frozen=True, slots=True)
class RowHistory:
    """What a request of this row holds."""

    item_ids: tuple[str, ...]
    times: tuple[int, ...]
    now: int
    """Midnight UTC of the target basket's day, so every event of the history is older."""


def row_histories(data: NextBasket, *, cap: int) -> list[RowHistory]:
    """Return one history a row, cut by the rule that training and the online store use."""
    histories = []
    for first, target in zip(data.row_first.tolist(), data.row_basket.tolist(), strict=True):
        baskets = (
            (
                int(data.basket_time[basket]),
                [
                    data.item_ids[item]
                    for item in data.events[data.offsets[basket] : data.offsets[basket + 1]].tolist()
                    if item >= 0
                ],
            )
            for basket in range(first, target)
        )
        events = deque(running_histories(baskets, cap), maxlen=1).pop()
        histories.append(
            RowHistory(
                item_ids=tuple(item_id for item_id, _ in events),
                times=tuple(time for _, time in events),
                now=int(data.basket_day[target]) * DAY_S,
            )
        )
    return histories
