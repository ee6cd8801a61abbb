"""A backbone speaks every code as one token, comes back from disk as it was, and knows whose names it learnt."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from sidrec.errors import BundleError, UsageError
from sidrec.systems.sidreasoner.backbone import HEADER, Backbone, check_head, check_tokens, load, open_backbone
from sidrec.systems.sidreasoner.config import SIDReasonerModelConfig
from sidrec.systems.sidreasoner.encoding import encode
from sidrec.systems.sidreasoner.tokenizer import add_tokens, train_tokenizer
from tests.sidrec.systems.sidreasoner.world import MODEL, titled, vocab_of


@torch.no_grad()
def logits(backbone: Backbone, text: str) -> torch.Tensor:
    return backbone.model(input_ids=torch.tensor([encode(backbone.tokenizer, text)])).logits


def test_every_code_is_one_token(backbone: Backbone) -> None:
    """Wherever its name stands, and decoding that leaves special tokens out keeps it."""
    vocab, tokenizer = backbone.vocab, backbone.tokenizer
    for item in (0, 17, 63):
        text = f"so,{vocab.name(item)}!"
        ids = encode(tokenizer, text)

        assert [token for token in tokenizer.convert_ids_to_tokens(ids) if "_" in token] == list(vocab.tokens(item))
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert len(set(backbone.token_ids(vocab.new_tokens()))) == 24


def test_a_backbone_comes_back_from_disk(backbone: Backbone, tmp_path: Path) -> None:
    """Same logits from another object; nothing on disk but JSON and safetensors."""
    backbone.save(tmp_path)
    again = open_backbone(tmp_path, backbone.vocab)
    text = f"Bought so far: {backbone.vocab.name(3)}"

    torch.testing.assert_close(logits(again, text), logits(backbone, text))
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}


def test_a_checkpoint_of_other_names_is_refused(backbone: Backbone, tmp_path: Path) -> None:
    """To answer with and to train on; the message names both fingerprints."""
    backbone.save(tmp_path)
    other = replace(backbone.vocab, codes=backbone.vocab.codes[::-1])
    named = f"{backbone.vocab.fingerprint[:12]}.*{other.fingerprint[:12]}"

    with pytest.raises(BundleError, match=named):
        open_backbone(tmp_path, other)
    with pytest.raises(BundleError, match=named):
        load(MODEL.model_copy(update={"backbone": str(tmp_path)}), other, [], tmp_path / "scratch", seed=0)
    header = json.loads((tmp_path / HEADER).read_text())
    (tmp_path / HEADER).write_text(json.dumps(header | {"format": 99}))
    with pytest.raises(BundleError, match="format 99, expected 1"):
        open_backbone(tmp_path, backbone.vocab)
    with pytest.raises(BundleError, match="no semantic_ids"):
        open_backbone(tmp_path / "nothing", backbone.vocab)


def test_a_folder_is_loaded_as_the_tiny_one_is(backbone: Backbone, world: Any, tmp_path: Path) -> None:
    """A local folder in the usual layout, without any of our tokens, is extended by them and keeps its weights."""
    vocab = vocab_of(titled(world))
    load(MODEL, vocab, ["some other text"] * 3, tmp_path / "base", seed=3)
    loaded = load(SIDReasonerModelConfig(backbone=str(tmp_path / "base")), vocab, [], tmp_path / "unused", seed=0)
    plain = AutoTokenizer.from_pretrained(tmp_path / "base")

    assert not (tmp_path / "unused").exists()
    assert len(loaded.tokenizer) == len(plain) + 24
    assert loaded.model.get_input_embeddings().weight.shape[0] == len(loaded.tokenizer)
    assert loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight


def test_new_tokens_start_where_the_backbone_expects_words(backbone: Backbone, tmp_path: Path) -> None:
    """Next to the mean of a given backbone's words; apart from each other where all weights are new."""
    load(MODEL, backbone.vocab, ["some other text"] * 3, tmp_path, seed=3)
    given = load(SIDReasonerModelConfig(backbone=str(tmp_path)), backbone.vocab, [], tmp_path, seed=0)
    old, new = given.model.get_input_embeddings().weight.detach().tensor_split([-24])
    fresh = backbone.model.get_input_embeddings().weight.detach()[-24:]

    assert (new - old.mean(dim=0)).std() < 0.01 * old.std()
    assert float(fresh.std(dim=0).mean()) == pytest.approx(0.02, rel=0.1)


def test_the_seed_decides_the_weights(backbone: Backbone, world: Any, tmp_path: Path) -> None:
    catalog = titled(world)
    state = torch.get_rng_state()
    again, other = (
        load(MODEL, vocab_of(catalog), catalog.titles * 3, tmp_path / str(seed), seed=seed) for seed in (0, 1)
    )
    text = backbone.vocab.name(0)

    assert torch.equal(logits(again, text), logits(backbone, text))
    assert not torch.equal(logits(other, text), logits(backbone, text))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_missing_backbone_says_what_to_do(backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no backbone '/nowhere' on this machine") as caught:
        load(SIDReasonerModelConfig(backbone="/nowhere"), backbone.vocab, [], tmp_path, seed=0)

    assert "model.download" in str(caught.value.next_step)


def test_a_token_that_is_several_is_refused(backbone: Backbone) -> None:
    """A tokenizer that lacks a token, and one that eats the first of a row."""
    wider = replace(backbone.vocab, sizes=(8, 8, 9))
    with pytest.raises(BundleError, match=r"<c_8> is encoded as .*, expected one id"):
        check_tokens(replace(backbone, vocab=wider))
    greedy = train_tokenizer(["some text"], 300)
    add_tokens(greedy, [backbone.vocab.name(0), *backbone.vocab.new_tokens()])
    with pytest.raises(BundleError, match="expected one id a token"):
        check_tokens(replace(backbone, tokenizer=greedy))


def test_a_model_with_other_logits_is_refused(backbone: Backbone) -> None:
    """Losses are computed from the output weights alone."""
    check_head(backbone)
    hook = backbone.model.register_forward_hook(
        lambda module, inputs, output: setattr(output, "logits", output.logits * 2)
    )
    try:
        with pytest.raises(UsageError, match="qwen3 changes its logits"):
            check_head(backbone)
    finally:
        hook.remove()


def test_an_empty_catalogue_has_tokens_all_the_same(backbone: Backbone) -> None:
    """Codes are there before items are."""
    empty = replace(backbone.vocab, item_ids=(), codes=np.zeros((0, 3), dtype=np.int32))

    check_tokens(replace(backbone, vocab=empty))
