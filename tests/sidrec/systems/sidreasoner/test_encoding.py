"""What is learnt of a text: the answer and its end, never the question, however the tokenizer cuts."""

from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.encoding import (
    EMPTY_RATIONALE,
    Sample,
    direct_text,
    encode,
    encode_chat,
    encode_text,
    question_text,
)
from sidrec.systems.sidreasoner.tasks import Chat, code_of_title, code_to_code, think, title_of_code
from sidrec.systems.sidreasoner.tokenizer import train_tokenizer


def learnt_text(tokenizer: Any, sample: Sample) -> str:
    return str(tokenizer.decode(sample.tokens[sample.learnt]))


def test_the_direct_answer_and_its_end_are_learnt(backbone: Backbone) -> None:
    """Not the empty rationale: it is there before the model writes."""
    name = backbone.vocab.name(5)
    sample = encode_chat(backbone.tokenizer, code_to_code("<a_1><b_2><c_3>", name), max_tokens=256)

    assert learnt_text(backbone.tokenizer, sample) == f"{name}<|im_end|>"
    assert backbone.tokenizer.decode(sample.tokens).endswith(f"assistant\n<think>\n\n</think>\n\n{name}<|im_end|>")


def test_the_rationale_is_learnt_with_its_marks(backbone: Backbone) -> None:
    chat = think("<a_1><b_2><c_3>", backbone.vocab.name(5), "Lamps, I think.\nMore lamps.")
    sample = encode_chat(backbone.tokenizer, chat, max_tokens=256)

    assert learnt_text(backbone.tokenizer, sample) == (
        f"<think>\nLamps, I think.\nMore lamps.\n</think>\n\n{backbone.vocab.name(5)}<|im_end|>"
    )


@pytest.mark.parametrize("chat", [code_to_code("<a_1><b_2><c_3>", "x"), think("<a_0><b_0><c_0>", "y", "Because.")])
def test_training_reads_what_the_template_renders(backbone: Backbone, chat: Chat) -> None:
    """The tokens are those of the whole conversation in one go, less the line's end behind it."""
    content = (f"<think>\n{chat.rationale}\n</think>\n\n" if chat.rationale else "") + chat.answer
    messages = [*chat.question(), {"role": "assistant", "content": content}]
    rendered = backbone.tokenizer.apply_chat_template(messages, tokenize=False)

    sample = encode_chat(backbone.tokenizer, chat, max_tokens=256)

    assert sample.tokens.tolist() == encode(backbone.tokenizer, rendered.removesuffix("\n"))


def test_evaluation_asks_with_the_tokens_that_training_read(backbone: Backbone) -> None:
    """The prompt of the direct mode is, token by token, what stood before the answer; the template says the same."""
    chat = code_to_code("<a_1><b_2><c_3>", backbone.vocab.name(5))
    sample = encode_chat(backbone.tokenizer, chat, max_tokens=256)
    prompt = direct_text(backbone.tokenizer, code_to_code("<a_1><b_2><c_3>"))

    assert encode(backbone.tokenizer, prompt) == sample.tokens[~sample.learnt].tolist()
    assert prompt == backbone.tokenizer.apply_chat_template(
        chat.question(), tokenize=False, add_generation_prompt=True, enable_thinking=False
    )


def test_an_answer_in_words_is_learnt_in_one_piece(backbone: Backbone) -> None:
    """A blank line before a word is cut as a blank line alone, so the prompt's end does not depend on the answer."""
    chat = title_of_code("<a_1><b_2><c_3>", "Small garden lamp")
    sample = encode_chat(backbone.tokenizer, chat, max_tokens=256)

    assert learnt_text(backbone.tokenizer, sample) == "Small garden lamp<|im_end|>"
    assert encode(backbone.tokenizer, EMPTY_RATIONALE + "Small") == [
        *encode(backbone.tokenizer, EMPTY_RATIONALE),
        *encode(backbone.tokenizer, "Small"),
    ]


def test_a_token_across_the_border_is_learnt() -> None:
    """A tokenizer that merges the prompt's end with the answer: offsets decide, and no letter of the answer is lost."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        decoders.ByteLevel(),
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<|im_end|>"])
    bpe.train_from_iterator(["</think>\n\nSmall"] * 9, trainer)
    merging = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>")
    merging.chat_template = "{{ messages[1].content }}"

    sample = encode_chat(merging, Chat("", "?", "Small"), max_tokens=99)

    text = learnt_text(merging, sample)
    assert text.endswith("Small<|im_end|>")
    assert len(text) > len("Small<|im_end|>")
    assert merging.decode(sample.tokens) == f"?{EMPTY_RATIONALE}Small<|im_end|>"


def test_a_template_that_opens_the_rationale_itself_does_not_open_it_twice() -> None:
    tokenizer = train_tokenizer(["some text"], 400)
    tokenizer.chat_template = "{{ messages[1].content + '\\n<think>\\n' }}"

    assert question_text(tokenizer, Chat("", "?").question()) == "?\n"


def test_a_plain_text_is_learnt_whole(backbone: Backbone) -> None:
    sample = encode_text(backbone.tokenizer, "A lamp for <a_1><b_2><c_3>.", max_tokens=256)

    assert learnt_text(backbone.tokenizer, sample) == "A lamp for <a_1><b_2><c_3>.<|im_end|>"


def test_what_is_too_long_loses_its_beginning(backbone: Backbone) -> None:
    chat = code_of_title("Small garden lamp", "<a_1><b_2><c_3>")
    whole = encode_chat(backbone.tokenizer, chat, max_tokens=256)
    short = encode_chat(backbone.tokenizer, chat, max_tokens=8)

    assert np.array_equal(short.tokens, whole.tokens[-8:])
    assert np.array_equal(short.learnt, whole.learnt[-8:])


def test_padding_is_not_the_end_of_a_turn(backbone: Backbone) -> None:
    assert backbone.tokenizer.pad_token_id != backbone.tokenizer.eos_token_id
    assert backbone.model.config.eos_token_id == backbone.tokenizer.eos_token_id
