"""MPQ uses its codes in every slot, keeps its experts apart, and repeats itself."""

from typing import Any

import pytest
import torch
import torch.distributed as dist

from sidrec.errors import UsageError
from sidrec.quantization.config import CodebookConfig
from sidrec.quantization.experts import ExpertEncoder
from sidrec.quantization.health import codebook_health, sid_health
from sidrec.quantization.losses import decorrelation_loss, orthogonality_loss
from sidrec.quantization.mpq import MixtureAutoencoder, expert_load, fit_mpq
from sidrec.quantization.quantizer import Fitted, Quantizer
from sidrec.quantization.sharding import Shards, checksum
from tests.sidrec.quantization.shard_world import on_ranks

CONFIG = CodebookConfig(
    quantizer="mpq",
    num_levels=4,
    codebook_size=32,
    code_dim=8,
    hidden_dims=(32,),
    warmup_epochs=5,
    epochs=20,
    check_every=5,
    patience=4,
    batch_size=64,
)


def items(count: int = 600, width: int = 16) -> torch.Tensor:
    """Unit vectors around 50 directions."""
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(50, width, generator=generator)
    chosen = torch.randint(50, (count,), generator=generator)
    return torch.nn.functional.normalize(directions[chosen] + 0.4 * torch.randn(count, width, generator=generator))


def fit_of_rank(group: dist.ProcessGroup) -> dict[str, Any]:
    """What one rank gets from its share of the items: the first has 400 of them, the second 200."""
    shards = Shards(group)
    fitted = fit_mpq(torch.split(items(), [400, 200])[shards.rank], CONFIG, seed=0, shards=shards)
    return {"codebooks": checksum(fitted.quantizer.codebooks), "encoder": weights(fitted), "history": fitted.history}


def weights(fitted: Fitted) -> list[str]:
    assert fitted.quantizer.encoder is not None
    return [checksum(value) for value in fitted.quantizer.encoder.state_dict().values()]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    return fit_mpq(items(), CONFIG, seed=0)


def test_every_slot_uses_its_codes(fitted: Fitted) -> None:
    """On clustered vectors more than 90 % of the codes of each slot have items."""
    health = codebook_health(fitted.quantizer.encode(items()).numpy(), 32)

    assert min(level["utilisation"] for level in health["levels"]) > 0.9


def test_the_quantizer_is_what_the_last_look_saw(fitted: Fitted) -> None:
    """Codewords and latent vectors have length 1, and the last row's collision rate is that of the codes."""
    quantizer, vectors = fitted.quantizer, items()
    codes = quantizer.encode(vectors).numpy()

    torch.testing.assert_close(quantizer.codebooks.norm(dim=-1), torch.ones(4, 32))
    torch.testing.assert_close(quantizer.latent(vectors).norm(dim=-1), torch.ones(600, 4))
    assert fitted.history[-1]["collision_rate"] == sid_health(codes)["collision_rate"]


def test_one_seed_gives_one_fit(fitted: Fitted) -> None:
    """Bit for bit, whatever the caller's random state, which stays as it was."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    again = fit_mpq(items(), CONFIG, seed=0)

    assert torch.equal(torch.random.get_rng_state(), before)
    assert checksum(again.quantizer.codebooks) == checksum(fitted.quantizer.codebooks)
    assert weights(again) == weights(fitted)


def test_orthogonality_keeps_the_experts_apart() -> None:
    """Against weight 0, the experts' weights and outputs are nearer to orthogonal."""
    free, held = (
        fit_mpq(items(), CONFIG.model_copy(update={"orthogonality_weight": weight, "epochs": 40}), seed=0)
        for weight in (0.0, 2.0)
    )
    of_weights, of_outputs = (
        [float(measure(one)) for one in (free, held)]
        for measure in (
            lambda one: orthogonality_loss(one.quantizer.encoder.first_layers()),
            lambda one: decorrelation_loss(one.quantizer.latent(items())),
        )
    )

    assert of_weights[1] < 0.1 * of_weights[0]
    assert of_outputs[1] < 0.8 * of_outputs[0]


def test_the_decoder_sees_the_codewords_weighed_by_the_router() -> None:
    """What is rebuilt is the decoding of Σ gate × codeword, worked slot by slot."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MixtureAutoencoder(16, (10,), num_slots=3, codebook_size=4, code_dim=5)
        torch.nn.init.normal_(made.quantizer.codebooks)
    vectors = items(7)
    rebuilt, quantized = made(vectors)
    gates = (vectors @ made.encoder.router.weight.T + made.encoder.router.bias).softmax(dim=-1)
    mixed = sum(gates[:, slot, None] * quantized.codewords[:, slot] for slot in range(3))

    torch.testing.assert_close(rebuilt, made.decoder(mixed))


def test_terms_of_weight_zero_leave_the_loss_as_it_is() -> None:
    """With both weights 0 the loss is reconstruction and codebook loss, bit for bit."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MixtureAutoencoder(16, (10,), num_slots=3, codebook_size=4, code_dim=5)
        torch.nn.init.normal_(made.quantizer.codebooks)
    off = CONFIG.model_copy(update={"orthogonality_weight": 0.0, "router_balance_weight": 0.0})
    rebuilt, quantized = made(items(9), strength=off.balance_strength, bound=off.balance_bound)
    lost = (rebuilt - items(9)).square().sum(dim=-1).mean()
    between = (quantized.residuals - quantized.codewords).square().sum(dim=(1, 2)).mean()

    torch.testing.assert_close(made.loss(items(9), off)[0], lost + 1.25 * between)
    assert float(made.loss(items(9), CONFIG)[0].detach()) > float((lost + 1.25 * between).detach())


def test_experts_hold_still_until_they_have_codewords() -> None:
    """The first epochs' loss moves the decoder and the router, no expert."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = MixtureAutoencoder(16, (10,), num_slots=3, codebook_size=4, code_dim=5)
    made.warmup_loss(items(9), CONFIG).backward()
    moving = {name.split(".")[0] for name, weight in made.encoder.named_parameters() if weight.grad is not None}

    assert moving == {"router"}
    assert all(weight.grad is not None for weight in made.decoder.parameters())


def test_the_load_is_the_mean_gate(fitted: Fitted) -> None:
    """It sums to 1, leaves no expert out, and follows a router that sends everything to one expert."""
    load = expert_load(fitted.quantizer, items())
    one_sided = ExpertEncoder(16, (10,), 4, 5)
    torch.nn.init.zeros_(one_sided.router.weight)
    with torch.no_grad():
        one_sided.router.bias.copy_(torch.tensor([0.0, 0.0, 99.0, 0.0]))
    sent = expert_load(Quantizer("mpq", torch.zeros(4, 2, 5), one_sided), items())

    torch.testing.assert_close(load.sum(), torch.tensor(1.0))
    assert float(load.min()) > 0.1
    torch.testing.assert_close(sent, torch.tensor([0.0, 0.0, 1.0, 0.0]))


def test_a_quantizer_without_experts_has_no_load() -> None:
    """The error names the kind."""
    with pytest.raises(UsageError, match="residual_kmeans"):
        expert_load(Quantizer("residual_kmeans", torch.zeros(1, 2, 16)), items())


def test_two_ranks_end_with_the_same_quantizer(tmp_path_factory: pytest.TempPathFactory, fitted: Fitted) -> None:
    """Equal bit for bit on both ranks, losing at most a tenth more of the items than one process does."""
    one, two = on_ranks(__file__, "fit_of_rank", tmp_path_factory.mktemp("ranks"))

    assert one == two
    assert one["history"][-1]["reconstruction"] <= 1.1 * fitted.history[-1]["reconstruction"]
