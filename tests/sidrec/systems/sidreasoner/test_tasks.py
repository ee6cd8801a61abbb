"""Every task asks in words and answers with the target; histories are shown by one function."""

import numpy as np
import pytest

from sidrec.systems.history import History
from sidrec.systems.sidreasoner import tasks

BASKETS = History(np.array([3, 1, 2, 0]), np.array([0, 2, 3, 4]), np.array([10, 20, 30]))
NAMES = ["zero", "one", "two", "three"]


@pytest.mark.parametrize(
    ("max_items", "text"),
    [(9, "one, three; two; zero"), (3, "three; two; zero"), (2, "two; zero"), (1, "zero")],
)
def test_a_history_is_shown_oldest_first_by_baskets(max_items: int, text: str) -> None:
    """The newest items stay, also where that cuts a basket."""
    assert tasks.history_text(BASKETS, NAMES, max_items=max_items) == text


def test_a_basket_is_shown_as_a_set() -> None:
    """The order of its lines, and how often one stands there, are not seen; baskets keep theirs, and repeats."""
    jumbled = History(np.array([1, 3, 1, 2, 2, 3]), np.array([0, 3, 4, 6]), np.array([10, 20, 30]))

    assert tasks.shown(jumbled, max_items=9) == [[1, 3], [2], [2, 3]]
    assert tasks.shown(jumbled, max_items=4) == [[3], [2], [2, 3]]


@pytest.mark.parametrize(
    ("chat", "shown", "answer"),
    [
        (tasks.code_to_code("H", "T"), "H", "T"),
        (tasks.code_to_title("H", "T"), "H", "T"),
        (tasks.title_to_title("H", "T"), "H", "T"),
        (tasks.title_to_code("H", "T"), "H", "T"),
        (tasks.code_of_title("N", "C"), "N", "C"),
        (tasks.title_of_code("C", "N"), "C", "N"),
        (tasks.think("H", "T", "R"), "H", "T"),
    ],
)
def test_a_task_shows_its_input_and_never_its_answer(chat: tasks.Chat, shown: str, answer: str) -> None:
    question = chat.question()

    assert shown in question[1]["content"]
    assert chat.answer == answer
    assert [message["role"] for message in question] == ["system", "user"]


def test_questions_of_different_tasks_differ() -> None:
    """Else the model could not know what is asked; think mode has a question of its own."""
    chats = [
        tasks.code_to_code("H"),
        tasks.code_to_title("H", ""),
        tasks.title_to_title("H", ""),
        tasks.title_to_code("H", ""),
        tasks.code_of_title("H", ""),
        tasks.title_of_code("H", ""),
        tasks.think("H"),
    ]

    assert len({(chat.system, chat.user) for chat in chats}) == 7
