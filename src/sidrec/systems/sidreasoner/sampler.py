"""Answers drawn from the policy: a rationale, word by word, and a semantic ID behind it.

Free, both are words of the whole vocabulary. Under the trie the semantic ID is drawn level by level among the codes
that the catalogue goes on with. What opens a rationale is given in both, as it is where the model answers; so is what
closes one whose budget is spent.

Axes: `row` samples of all prompts (one prompt's are neighbours), `level` codes of a semantic ID, `code` one codebook.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sidrec.data.catalog import PAD
from sidrec.decoding.nodes import NONE
from sidrec.decoding.trie import PrefixTrie
from sidrec.nn.causal import CausalDecoder, CausalShape, CodeTokens, Prompt
from sidrec.nn.past import Past
from sidrec.systems.sidreasoner.adapters import plain_state
from sidrec.systems.sidreasoner.backbone import Backbone
from sidrec.systems.sidreasoner.config import SIDReasonerAlignmentConfig
from sidrec.systems.sidreasoner.encoding import encode
from sidrec.systems.sidreasoner.points import Point
from sidrec.systems.sidreasoner.rewards import WRONG
from sidrec.systems.sidreasoner.samples import NOWHERE, Samples
from sidrec.systems.sidreasoner.tokenizer import END_THINK, THINK
from sidrec.systems.sidreasoner.writing import drawn, write
from sidrec.training.device import device_of


@dataclass(frozen=True, slots=True)
class _Draft:
    tokens: list[int]
    first: int  # word that was chosen
    last: int  # and one behind the last
    rationale_tokens: int
    ended: bool
    answer: list[int]
    place: list[int]


class Sampler:
    """Samples answers of a backbone as it is when asked.

    Args:
        ask: a point's question, up to where the assistant writes.
        max_tokens: of a prompt; a longer one loses its beginning.
    """

    def __init__(
        self,
        backbone: Backbone,
        trie: PrefixTrie,
        ask: Callable[[Point], str],
        config: SIDReasonerAlignmentConfig,
        *,
        max_tokens: int,
    ) -> None:
        self.backbone, self.ask, self.config, self.max_tokens = backbone, ask, config, max_tokens
        tokenizer = backbone.tokenizer
        self.device = device_of(backbone.model)
        self.trie = trie.to(self.device)
        self.level_tokens = [
            torch.tensor(backbone.token_ids(backbone.vocab.level_tokens(level)), device=self.device)
            for level in range(trie.num_levels)
        ]
        self._code_of = {
            token: (level, code)
            for level, tokens in enumerate(self.level_tokens)
            for code, token in enumerate(tokens.tolist())
        }
        self._shortest = int((backbone.vocab.codes != PAD).sum(axis=1).min())
        self._end, self._stop = backbone.token_ids([END_THINK, str(tokenizer.eos_token)])
        self._gap, self._closing = encode(tokenizer, "\n\n"), encode(tokenizer, f"\n{END_THINK}\n\n")

    @torch.no_grad()
    def samples(self, points: Sequence[Point]) -> Samples:
        """Return `group_size` samples of each point; torch's own random state decides the draws."""
        config, tokenizer = self.config, self.backbone.tokenizer
        prompts = [encode(tokenizer, f"{self.ask(point)}{THINK}\n")[-self.max_tokens :] for point in points]
        longest = max(map(len, prompts)) + config.max_rationale_tokens
        step = max(1, config.tokens_per_pass // (longest * config.group_size))
        policy = _Policy(self.backbone, self.level_tokens)
        drafts: list[_Draft] = []
        allowed: list[Tensor] = []
        for first in range(0, len(prompts), step):
            chunk = prompts[first : first + step]
            if config.rollout == "free":
                drafts += self._free(policy, chunk)
                continue
            opened = self._rationales(policy, chunk)
            answers, among = policy.items([own.tokens for own in opened], self.trie, config.temperature)
            drafts += [self._answered(own, answer) for own, answer in zip(opened, answers.tolist(), strict=True)]
            allowed.append(among)
        return self._stacked(drafts, torch.cat(allowed) if allowed else None)

    def _free(self, policy: "_Policy", prompts: Sequence[list[int]]) -> list[_Draft]:
        config = self.config
        most = config.max_rationale_tokens + len(self._gap) + len(self.level_tokens) + 2
        written = policy.write(prompts, [self._stop], most=most, copies=config.group_size, heat=config.temperature)
        drafts = []
        for row, said in enumerate(written):
            prompt = prompts[row // config.group_size]
            ended = self._end in said
            length = said.index(self._end) if ended else len(said)
            whole = prompt + said
            drafts.append(_Draft(whole, len(prompt), len(whole), length, ended, self._named(said[length:]), []))
        return drafts

    def _rationales(self, policy: "_Policy", prompts: Sequence[list[int]]) -> list[_Draft]:
        """Return samples up to where their answers begin."""
        config, stops = self.config, [self._end, self._stop]
        most = config.max_rationale_tokens
        drafts = []
        for row, words in enumerate(
            policy.write(prompts, stops, most=most, copies=config.group_size, heat=config.temperature)
        ):
            prompt = prompts[row // config.group_size]
            ended = words[-1] == self._end
            # A turn that ended within its rationale goes on as one whose budget is spent.
            said = words[:-1] if words[-1] == self._stop else words
            last = len(prompt) + len(said)
            given = self._gap if ended else self._closing
            drafts.append(_Draft(prompt + said + given, len(prompt), last, len(said) - ended, ended, [], []))
        return drafts

    def _answered(self, draft: _Draft, answer: list[int]) -> _Draft:
        codes = [(level, code) for level, code in enumerate(answer) if code != PAD]
        tokens = draft.tokens + [int(self.level_tokens[level][code]) for level, code in codes]
        place = [len(draft.tokens) + level if code != PAD else NOWHERE for level, code in enumerate(answer)]
        return _Draft(tokens, draft.first, draft.last, draft.rationale_tokens, draft.ended, answer, place)

    def _named(self, said: Sequence[int]) -> list[int]:
        """Return the codes of a freely written answer, `PAD` for all of them where they are too few for any item."""
        levels = len(self.level_tokens)
        found = [self._code_of[word] for word in said if word in self._code_of][:levels]
        if len(found) < self._shortest:
            return [PAD] * levels
        codes = [code if own == level else WRONG for level, (own, code) in enumerate(found)]
        return codes + [PAD] * (levels - len(codes))

    def _stacked(self, drafts: Sequence[_Draft], allowed: Tensor | None) -> Samples:
        rows, levels = len(drafts), len(self.level_tokens)
        padding = self.backbone.tokenizer.pad_token_id
        assert isinstance(padding, int)
        tokens = torch.full((rows, max(len(draft.tokens) for draft in drafts)), padding)
        words = torch.zeros(tokens.shape, dtype=torch.bool)
        for row, draft in enumerate(drafts):
            tokens[row, : len(draft.tokens)] = torch.tensor(draft.tokens)
            words[row, draft.first : draft.last] = True
        widest = max(map(len, self.level_tokens))
        return Samples(
            tokens.to(self.device),
            words.to(self.device),
            torch.tensor([draft.place or [NOWHERE] * levels for draft in drafts], device=self.device),
            torch.zeros(rows, levels, widest, dtype=torch.bool, device=self.device) if allowed is None else allowed,
            torch.tensor([draft.answer for draft in drafts], device=self.device),
            torch.tensor([draft.rationale_tokens for draft in drafts], device=self.device),
            torch.tensor([draft.ended for draft in drafts], device=self.device),
        )


class _Policy:
    """The weights as they are now, laid out for writing."""

    def __init__(self, backbone: Backbone, level_tokens: Sequence[Int[Tensor, " code"]]) -> None:
        shape = CausalShape.of(backbone.model.config.to_dict())
        self.decoder = CausalDecoder(shape, plain_state(backbone.model))
        self.codes = CodeTokens(self.decoder, level_tokens)
        everything = torch.arange(len(self.decoder.embedding), device=self.decoder.gain.device)
        self.words = CodeTokens(self.decoder, [everything]).weights[0]

    def write(
        self, prompts: Sequence[list[int]], stops: Sequence[int], *, most: int, copies: int, heat: float
    ) -> list[list[int]]:
        prompt = self._read(prompts)
        return write(self.decoder, self.words, prompt, drawn(heat), most=most, stops=stops, copies=copies)

    def items(
        self, prompts: Sequence[list[int]], trie: PrefixTrie, heat: float
    ) -> tuple[Int[Tensor, "row level"], Bool[Tensor, "row level code"]]:
        """Return an item's codes drawn behind each prompt, and which codes each of them was drawn among."""
        prompt, shape = self._read(prompts), self.decoder.shape
        rows, levels, widest = len(prompts), trie.num_levels, max(map(len, self.codes.levels))
        inner = shape.num_key_heads * shape.head_dim
        past = Past.empty(prompt.keys, layers=shape.num_layers, steps=levels - 1, rows=rows, inner=inner)
        nodes = torch.zeros(rows, dtype=torch.int64, device=prompt.state.device)
        answers = torch.full((rows, levels), PAD, device=nodes.device)
        allowed = torch.zeros(rows, levels, widest, dtype=torch.bool, device=nodes.device)
        state = prompt.state
        for level in range(levels):
            children = trie.children(nodes, trie.max_children[level])
            real = children != NONE
            row, place = real.nonzero(as_tuple=True)
            among = allowed[:, level]
            among[row, trie.code[children[row, place]].long()] = True
            on = real.any(dim=1)
            code = _one_of(state @ self.codes.weights[level], among, on, heat)
            answers[:, level] = torch.where(on, code, PAD)
            chosen = (trie.code[children.clamp(min=0)].long() == code[:, None]) & real
            nodes = torch.where(on, (children * chosen).sum(dim=1), nodes)
            if level + 1 < levels:
                state = self.decoder.feed(prompt, past, self.codes.levels[level][code][:, None])
        return answers, allowed

    def _read(self, prompts: Sequence[list[int]]) -> Prompt:
        device = self.decoder.gain.device
        tokens = torch.zeros(len(prompts), max(map(len, prompts)), dtype=torch.int64, device=device)
        for row, own in enumerate(prompts):
            tokens[row, : len(own)] = torch.tensor(own)
        return self.decoder.read(tokens, torch.tensor([len(own) for own in prompts], device=device))


def _one_of(
    logits: Float[Tensor, "row code"], among: Bool[Tensor, "row widest"], on: Bool[Tensor, " row"], heat: float
) -> Int[Tensor, " row"]:
    """Return a code drawn among those of each row; 0 where a row has none."""
    among = among[:, : logits.shape[1]]
    # A row that has none draws among all, and its draw is not looked at.
    masked = (logits.float() / heat).masked_fill(~among & on[:, None], -torch.inf)
    return torch.multinomial(masked.softmax(dim=-1), 1)[:, 0] * on
