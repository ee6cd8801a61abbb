"""The tasks as texts, each a pure function; training, evaluation and alignment show a history by the same one.

Eight tasks: four from a history to the next item (names or titles on either side), two between a name and a title,
and two plain texts, of an item and of a history, which `corpus` has written. Beside them the question that a rationale
answers. The wording is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sidrec.systems.history import History

# Short: a small model pays for every word of a question.
_NEXT_CODE = "Products have codes. Say the code of the next purchase."
_NEXT_TITLE = "Products have codes. Say the title of the next purchase."
_THINK = "Products have codes. Think about what is wanted, then say the code of the next purchase."


@dataclass(frozen=True, slots=True)
class Chat:
    """One question and its answer; an empty rationale is the direct mode, and both are empty where one only asks."""

    system: str
    user: str
    answer: str = ""
    rationale: str = ""

    def question(self) -> list[dict[str, str]]:
        """Return the messages before the assistant's turn."""
        return [{"role": "system", "content": self.system}, {"role": "user", "content": self.user}]


def shown(history: History, *, max_items: int) -> list[list[int]]:
    """Return the items of a history that a text names, by baskets, oldest first: the newest `max_items`.

    A basket is a set: whatever order its items came in, they are shown in that of the catalogue, once each.
    """
    baskets: list[list[int]] = []
    left = max_items
    for low, high in reversed(list(pairwise(history.start.tolist()))):
        if left <= 0:
            break
        baskets.append(sorted(set(history.items[low:high].tolist()))[-left:])
        left -= len(baskets[-1])
    return baskets[::-1]


def history_text(history: History, names: Sequence[str], *, max_items: int) -> str:
    """Return what is shown of a history in words: `;` stands between baskets, `,` within one.

    Args:
        names: [catalogue item], what an item is called.
    """
    return "; ".join(", ".join(names[item] for item in basket) for basket in shown(history, max_items=max_items))


def code_to_code(codes: str, target: str = "") -> Chat:
    """Return the recommendation in direct mode: names of a history to the next item's name."""
    return Chat(_NEXT_CODE, f"Bought, oldest first: {codes}", target)


def think(codes: str, target: str = "", rationale: str = "") -> Chat:
    """Return the recommendation in think mode: another question than `code_to_code`, and a rationale first."""
    return Chat(_THINK, f"Bought, oldest first: {codes}", target, rationale)


def code_to_title(codes: str, target: str) -> Chat:
    """Return names of a history to the next item's title."""
    return Chat(_NEXT_TITLE, f"Bought, oldest first: {codes}", target)


def title_to_title(titles: str, target: str) -> Chat:
    """Return titles of a history to the next item's title."""
    return Chat(_NEXT_TITLE, f"Titles bought, oldest first: {titles}", target)


def title_to_code(titles: str, target: str) -> Chat:
    """Return titles of a history to the next item's name."""
    return Chat(_NEXT_CODE, f"Titles bought, oldest first: {titles}", target)


def code_of_title(title: str, code: str) -> Chat:
    """Return an item's title to its name."""
    return Chat("Products have codes. Say the code of a product.", f"Title: {title}", code)


def title_of_code(code: str, title: str) -> Chat:
    """Return an item's name to its title."""
    return Chat("Products have codes. Say the title of a product.", f"Code: {code}", title)
