"""A language model that speaks semantic IDs: made, extended by their tokens, saved and opened again.

One path for every backbone: the tiny one is first written to a folder as a downloaded one would lie there.

Axes: `token` of the vocabulary.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    Qwen3Config,
)
from transformers.utils import logging as transformers_logging

from sidrec import files
from sidrec.errors import BundleError, UsageError
from sidrec.quantization.sharding import Shards
from sidrec.systems.sidreasoner.config import TINY, SIDReasonerModelConfig, TinyConfig
from sidrec.systems.sidreasoner.tokenizer import END_THINK, THINK, add_tokens, train_tokenizer
from sidrec.systems.sidreasoner.vocab import SidVocab

FORMAT = 1
HEADER = "semantic_ids.json"
# Its folder within a model's.
LANGUAGE_MODEL = "language_model"

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class Backbone:
    """A causal language model and its tokenizer, both with every token of `vocab`."""

    model: Any  # a PreTrainedModel, most of whose methods have no types
    tokenizer: PreTrainedTokenizerBase
    vocab: SidVocab

    def token_ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the ids of tokens that the tokenizer has."""
        return [int(self.tokenizer.convert_tokens_to_ids(token)) for token in tokens]  # type: ignore[arg-type]

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), tokenizer and the vocabulary's fingerprint; JSON but for the weights."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder, save_jinja_files=False)
        write_header(folder, self.vocab)


def load(
    config: SIDReasonerModelConfig,
    vocab: SidVocab,
    texts: Iterable[str],
    scratch: Path,
    *,
    seed: int,
    shards: Shards | None = None,
) -> Backbone:
    """Return the backbone that the settings name, extended by the vocabulary's tokens.

    Args:
        texts: what a tiny backbone's tokenizer is learnt from; not read for another backbone.
        scratch: where a tiny backbone is written first.
        seed: of the random weights, new tokens' included.
        shards: ranks that all call this; rank 0 writes the tiny one, which the others read.

    Raises:
        UsageError: there is no such backbone here, or what is asked of it is not supported.
        BundleError: it is a checkpoint of another vocabulary, or it cannot speak the tokens.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        source = config.backbone
        if source == TINY:
            shards = shards or Shards()
            if shards.rank == 0:
                _write_tiny(config.tiny, texts, scratch)
            shards.sizes(0)  # all wait until it is there
            # Rank 0 has drawn its weights, and all ranks draw the new rows alike.
            torch.manual_seed(seed ^ 0x5EED)
            source = str(scratch)
        model, tokenizer = _from_pretrained(source, download=config.download)
        backbone = _extended(model, tokenizer, vocab, near_mean=config.backbone != TINY)
    check_fingerprint(Path(source), vocab)
    check_tokens(backbone)
    check_head(backbone)
    return backbone


def open_backbone(folder: Path, vocab: SidVocab) -> Backbone:
    """Return what `Backbone.save` wrote.

    Raises:
        BundleError: it was trained on other semantic IDs, or is no such folder.
    """
    _require_header(folder)
    check_fingerprint(folder, vocab)
    return _opened(folder, vocab)


def adopt_backbone(folder: Path, vocab: SidVocab) -> Backbone:
    """Return what `Backbone.save` wrote over another catalogue, whose items its words are to mean from now on.

    Raises:
        BundleError: its words are for other numbers of codes, or it is no such folder.
    """
    header = _require_header(folder)
    if tuple(header["sizes"]) != vocab.sizes:
        raise BundleError(
            f"the language model has words for {header['sizes']} codes a level, the catalogue needs "
            f"{list(vocab.sizes)}: it cannot go on from these weights",
            evidence=folder / HEADER,
            next_step="sidrec run, which trains from scratch",
        )
    return _opened(folder, vocab)


def _opened(folder: Path, vocab: SidVocab) -> Backbone:
    try:
        model, tokenizer = _from_pretrained(str(folder), download=False)
    except UsageError as error:
        raise BundleError(error.message, evidence=folder) from error
    backbone = Backbone(model.eval(), tokenizer, vocab)
    check_tokens(backbone)
    return backbone


def write_header(folder: Path, vocab: SidVocab) -> None:
    """Write whose semantic IDs the language model in `folder` speaks."""
    header = {"format": FORMAT, "fingerprint": vocab.fingerprint, "sizes": list(vocab.sizes)}
    files.write_json_atomic(folder / HEADER, header)


def check_tokens(backbone: Backbone) -> None:
    """Refuse a tokenizer in which a token of a semantic ID is not exactly one id of the model.

    Raises:
        BundleError: the token and its ids are named.
    """
    tokenizer, vocab = backbone.tokenizer, backbone.vocab
    width = backbone.model.get_input_embeddings().weight.shape[0]
    for token in vocab.new_tokens():
        seen = tokenizer.encode(token, add_special_tokens=False)
        # The id of the token itself: an unknown one may be a single id as well.
        if len(seen) != 1 or tokenizer.convert_ids_to_tokens(seen[0]) != token or seen[0] >= width:
            raise BundleError(f"{token} is encoded as {seen}, expected one id below {width}")
    if len(vocab):
        # In a row too: a name is read token by token.
        name = vocab.name(0)
        seen = tokenizer.encode(name, add_special_tokens=False)
        if seen != backbone.token_ids(vocab.tokens(0)):
            raise BundleError(f"{name} is encoded as {seen}, expected one id a token")


@torch.no_grad()
def check_head(backbone: Backbone) -> None:
    """Refuse a model whose logits are not its output weights times its last state: losses are computed that way.

    Raises:
        UsageError: such a model is not supported.
    """
    model = backbone.model
    tokens = torch.tensor([backbone.token_ids([THINK, END_THINK])])
    was_training = model.training
    model.eval()
    state = model.base_model(input_ids=tokens).last_hidden_state
    same = torch.allclose(model.get_output_embeddings()(state), model(input_ids=tokens).logits, atol=1e-4)
    model.train(was_training)
    if not same:
        raise UsageError(
            f"{model.config.model_type} changes its logits after the output weights, which is not supported",
            next_step="choose a Qwen, Llama or Mistral backbone",
        )


def _write_tiny(config: TinyConfig, texts: Iterable[str], folder: Path) -> None:
    tokenizer = train_tokenizer(texts, config.vocabulary)
    # All that matters is said here: the defaults are those of an 8B model.
    settings = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=config.dim,
        intermediate_size=config.ff_dim,
        num_hidden_layers=config.num_layers,
        num_attention_heads=config.num_heads,
        num_key_value_heads=config.num_key_heads,
        head_dim=config.head_dim,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        use_cache=True,
    )
    model = AutoModelForCausalLM.from_config(settings)  # type: ignore[no-untyped-call]
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder, save_jinja_files=False)


def _from_pretrained(source: str, *, download: bool) -> tuple[Any, PreTrainedTokenizerBase]:
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=not download)
        # Weights train in float32, whatever they were published in; steps may be computed in less.
        model = AutoModelForCausalLM.from_pretrained(
            source, local_files_only=not download, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"no backbone {source!r} on this machine: {reason}",
            next_step="model.backbone: a local folder or tiny, or model.download: true",
        ) from error
    return model, tokenizer


def _extended(model: Any, tokenizer: PreTrainedTokenizerBase, vocab: SidVocab, *, near_mean: bool) -> Backbone:
    """Return the model with a row of embeddings for every token.

    Args:
        near_mean: new rows start next to the mean of the old ones, where a trained model expects a word; else they are
            drawn as the rows of a model from nothing are, since equal ones would have to be told apart first.
    """
    add_tokens(tokenizer, [THINK, END_THINK, *vocab.new_tokens()])
    # A vocabulary may be padded beyond its tokenizer; what is there already stays.
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        verbosity = transformers_logging.get_verbosity()
        transformers_logging.set_verbosity(logging.ERROR)
        model.resize_token_embeddings(len(tokenizer), mean_resizing=near_mean)
        transformers_logging.set_verbosity(verbosity)
    return Backbone(model, tokenizer, vocab)


def _require_header(folder: Path) -> dict[str, Any]:
    if not (folder / HEADER).is_file():
        raise BundleError(f"no {HEADER} in {folder}: no language model that knows semantic IDs", evidence=folder)
    return _header(folder)


def _header(folder: Path) -> dict[str, Any]:
    header: dict[str, Any] = files.read_json(folder / HEADER)
    if header.get("format") != FORMAT:
        raise BundleError(
            f"{HEADER} is of format {header.get('format')!r}, expected {FORMAT}", evidence=folder / HEADER
        )
    return header


def check_fingerprint(folder: Path, vocab: SidVocab) -> None:
    """Refuse a language model that learnt other semantic IDs; one that learnt none passes.

    Raises:
        BundleError: it did, or its header is of another format.
    """
    path = folder / HEADER
    if not path.is_file():
        return
    header = _header(folder)
    if header["fingerprint"] != vocab.fingerprint:
        raise BundleError(
            f"the language model learnt semantic IDs {header['fingerprint'][:12]}… of {header['sizes']} codes a level, "
            f"the catalogue's are {vocab.fingerprint[:12]}… of {list(vocab.sizes)}: its words mean other items",
            evidence=path,
            next_step="open it with the catalogue of its own bundle, or train on this one",
        )
