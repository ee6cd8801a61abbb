"""The tasks as texts, each a pure function; training, evaluation and alignment show a history by the same one.

Eight tasks: four from a history to the next item (names or titles on either side), two between a name and a title,
and two plain texts, of an item and of a history, which `corpus` has written. Beside them the question that a rationale
answers. The wording is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from sidrec.systems.history import History

_SHOP = "You know the products of a shop. Each has a code."
_NEXT_CODE = "Say the code of the product that this customer buys next."
_NEXT_TITLE = "Say the title of the product that this customer buys next."
_THINK = "First think about what this customer wants, then say the code of the product that comes next."

TASKS = (
    "code_to_code",
    "code_to_title",
    "title_to_title",
    "title_to_code",
    "code_of_title",
    "title_of_code",
    "item_text",
    "user_text",
)


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


def history_text(history: History, names: Sequence[str], *, max_items: int) -> str:
    """Return the newest items of a history, oldest first: `;` stands between baskets, `,` within one.

    Args:
        names: [catalogue item], what an item is called.
    """
    newest = history.newest_items(max_items)
    baskets = [newest.items[low:high].tolist() for low, high in pairwise(newest.start.tolist())]
    return "; ".join(", ".join(names[item] for item in basket) for basket in baskets)


def code_to_code(codes: str, target: str = "") -> Chat:
    """Return the recommendation in direct mode: names of a history to the next item's name."""
    return Chat(f"{_SHOP} {_NEXT_CODE}", f"Bought so far, oldest first: {codes}", target)


def think(codes: str, target: str = "", rationale: str = "") -> Chat:
    """Return the recommendation in think mode: another question than `code_to_code`, and a rationale first."""
    return Chat(f"{_SHOP} {_THINK}", f"Bought so far, oldest first: {codes}", target, rationale)


def code_to_title(codes: str, target: str) -> Chat:
    """Return names of a history to the next item's title."""
    return Chat(f"{_SHOP} {_NEXT_TITLE}", f"Bought so far, oldest first: {codes}", target)


def title_to_title(titles: str, target: str) -> Chat:
    """Return titles of a history to the next item's title."""
    return Chat(f"{_SHOP} {_NEXT_TITLE}", f"Titles bought so far, oldest first: {titles}", target)


def title_to_code(titles: str, target: str) -> Chat:
    """Return titles of a history to the next item's name."""
    return Chat(f"{_SHOP} {_NEXT_CODE}", f"Titles bought so far, oldest first: {titles}", target)


def code_of_title(title: str, code: str) -> Chat:
    """Return an item's title to its name."""
    return Chat(f"{_SHOP} Say the code of a product.", f"Which code has the product {title}?", code)


def title_of_code(code: str, title: str) -> Chat:
    """Return an item's name to its title."""
    return Chat(f"{_SHOP} Say the title of a product.", f"Which title has the product {code}?", title)
