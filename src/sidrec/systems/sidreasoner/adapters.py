"""Low-rank adapters: a stage trains few numbers of a large backbone, and leaves whole weights behind.

W + B A with A, B of a small rank beside every product (Hu et al., LoRA, arXiv 2106.09685), by peft. New words have no
meaning that an adapter could bend, so their embeddings are trained as they are; all other embeddings stay.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from sidrec.systems.sidreasoner.backbone import Backbone

PRODUCTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# alpha over rank: how much an adapter counts (our choice; peft's own default is 1 at its rank of 8).
SCALE = 2
_LORA, _BASE = ".lora_", ".base_layer."


@contextmanager
def adapted(backbone: Backbone, rank: int) -> Iterator[None]:
    """Let only adapters and new words' embeddings learn inside; behind it they are part of the weights.

    Args:
        rank: 0 lets every weight learn.
    """
    if not rank:
        yield
        return
    from peft import LoraConfig, get_peft_model

    # Draws of their own: what is trained besides must not depend on how many weights have adapters.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rank)
        wrapped = get_peft_model(
            backbone.model, LoraConfig(r=rank, lora_alpha=SCALE * rank, target_modules=list(PRODUCTS))
        )
    embeddings = backbone.model.get_input_embeddings().weight
    embeddings.requires_grad_(True)
    hook = embeddings.register_hook(_only(_new_words(backbone)))
    yield
    hook.remove()
    wrapped.merge_and_unload()
    backbone.model.requires_grad_(True)


def plain_state(model: Any) -> dict[str, Tensor]:
    """Return a model's weights by their plain names, adapters counted in."""
    state = {
        name.replace(_BASE, "."): value.detach() for name, value in model.state_dict().items() if _LORA not in name
    }
    for name, module in model.named_modules():
        if hasattr(module, "get_delta_weight"):
            weight = f"{name}.weight"
            state[weight] = state[weight] + module.get_delta_weight("default").detach()
    return state


def _new_words(backbone: Backbone) -> Bool[Tensor, "word 1"]:
    weight = backbone.model.get_input_embeddings().weight
    new = torch.zeros(len(weight), 1, dtype=torch.bool, device=weight.device)
    new[backbone.token_ids(backbone.vocab.new_tokens())] = True
    return new


def _only(rows: Bool[Tensor, "word 1"]) -> Any:
    def masked(gradient: Tensor) -> Tensor:
        return gradient * rows.to(gradient.device)

    return masked
