"""Texts become tokens, each learnt or only read: of a chat the assistant's own turn is learnt, of a plain text all.

An assistant's turn ends with the tokenizer's end token, which is always learnt. Behind a question stands an empty
rationale, or the marks of one are part of what is learnt.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from sidrec.errors import UsageError
from sidrec.systems.sidreasoner.tasks import Chat
from sidrec.systems.sidreasoner.tokenizer import END_THINK, THINK

Messages = list[dict[str, str]]
EMPTY_RATIONALE = f"{THINK}\n\n{END_THINK}\n\n"


@dataclass(frozen=True, slots=True)
class Sample:
    """One text for the model to learn from."""

    tokens: NDArray[np.int32]  # [pos]
    learnt: NDArray[np.bool_]  # [pos], which tokens are predicted with a loss

    def __len__(self) -> int:
        return len(self.tokens)


def rationale_text(rationale: str) -> str:
    """Return what stands before an answer."""
    return f"{THINK}\n{rationale}\n{END_THINK}\n\n" if rationale else EMPTY_RATIONALE


def question_text(tokenizer: PreTrainedTokenizerBase, question: Messages) -> str:
    """Return the text up to where the assistant begins to write, whatever the backbone's template does there."""
    text = tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True, enable_thinking=True)
    if not isinstance(text, str):
        raise UsageError(f"the backbone's chat template gives {type(text).__name__}, expected a text")
    # Templates of models that always think open the rationale themselves.
    return text.removesuffix(f"{THINK}\n")


def direct_text(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """Return the text that the answer of the direct mode follows: the question and the empty rationale."""
    return question_text(tokenizer, chat.question()) + EMPTY_RATIONALE


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return a text's tokens and nothing around them."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def encode_chat(tokenizer: PreTrainedTokenizerBase, chat: Chat, *, max_tokens: int) -> Sample:
    """Return a chat whose answer is learnt, and its rationale where it has one; too long, it loses its beginning."""
    answer = rationale_text(chat.rationale) + chat.answer if chat.rationale else chat.answer
    return encode_turn(tokenizer, chat.question(), answer, max_tokens=max_tokens)


def encode_turn(tokenizer: PreTrainedTokenizerBase, question: Messages, answer: str, *, max_tokens: int) -> Sample:
    """Return a conversation of which the last turn, the assistant's, is learnt.

    The parts are encoded one by one, as an answer is written; where the whole is encoded otherwise, it counts, and what
    is learnt are the tokens that reach into the answer.

    Args:
        answer: opens with its rationale, or has none.
    """
    before = question_text(tokenizer, question) + ("" if answer.startswith(THINK) else EMPTY_RATIONALE)
    end = str(tokenizer.eos_token)
    read, own = encode(tokenizer, before), encode(tokenizer, answer) + encode(tokenizer, end)
    whole = encode(tokenizer, before + answer + end)
    if read + own == whole:
        learnt = np.arange(len(whole)) >= len(read)
    else:
        learnt = _by_offsets(tokenizer, before + answer + end, len(before))
    return _cut(np.array(whole, dtype=np.int32), learnt, max_tokens)


def encode_text(tokenizer: PreTrainedTokenizerBase, text: str, *, max_tokens: int) -> Sample:
    """Return a plain text with its end, all of it learnt; too long, it loses its beginning."""
    ids = np.array(encode(tokenizer, text + str(tokenizer.eos_token)), dtype=np.int32)
    return _cut(ids, np.ones(len(ids), dtype=np.bool_), max_tokens)


def _by_offsets(tokenizer: PreTrainedTokenizerBase, text: str, first: int) -> NDArray[np.bool_]:
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    return np.array([end > first for _, end in offsets], dtype=np.bool_)


def _cut(tokens: NDArray[np.int32], learnt: NDArray[np.bool_], max_tokens: int) -> Sample:
    return Sample(tokens[-max_tokens:], learnt[-max_tokens:])
