"""The autoencoder decodes quantized vectors and learns through them."""

import torch

from sidrec.quantization.autoencoder import QuantizedAutoencoder
from sidrec.quantization.losses import reconstruction_loss


def autoencoder() -> QuantizedAutoencoder:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = QuantizedAutoencoder(10, (8, 6), num_levels=2, codebook_size=4, code_dim=3)
        torch.nn.init.normal_(made.quantizer.codebooks)
    return made


def test_the_decoder_sees_the_quantized_vector() -> None:
    """What is rebuilt is the decoding of the codewords' sum."""
    made, vectors = autoencoder(), torch.randn(7, 10, generator=torch.Generator().manual_seed(1))
    rebuilt, quantized = made(vectors)

    torch.testing.assert_close(rebuilt, made.decoder(quantized.total))
    assert rebuilt.shape == vectors.shape


def test_the_encoder_learns_through_the_quantizer() -> None:
    """Reconstruction reaches the encoder straight through, and the codewords not at all."""
    made, vectors = autoencoder(), torch.randn(7, 10, generator=torch.Generator().manual_seed(1))
    latent = made.encoder(vectors).detach().requires_grad_()
    total = made.quantizer(latent).total
    reconstruction_loss(made.decoder(latent + (total - latent).detach()), vectors).backward()
    expected = latent.grad
    made.zero_grad()
    seen: list[torch.Tensor] = []

    def watch(module: torch.nn.Module, inward: object, outward: torch.Tensor) -> None:
        outward.register_hook(seen.append)

    made.encoder.register_forward_hook(watch)
    reconstruction_loss(made(vectors)[0], vectors).backward()

    assert expected is not None
    torch.testing.assert_close(seen[0], expected)
    assert float(expected.abs().sum()) > 0
    assert made.quantizer.codebooks.grad is None or float(made.quantizer.codebooks.grad.abs().sum()) == 0


def test_the_decoder_mirrors_the_encoder() -> None:
    """Widths 10-8-6-3 come back as 3-6-8-10, without a ReLU at either end."""
    made = autoencoder()
    widths = [
        [(layer.in_features, layer.out_features) for layer in half if isinstance(layer, torch.nn.Linear)]
        for half in (made.encoder, made.decoder)
    ]

    assert widths == [[(10, 8), (8, 6), (6, 3)], [(3, 6), (6, 8), (8, 10)]]
    assert isinstance(made.encoder[-1], torch.nn.Linear)
    assert isinstance(made.decoder[-1], torch.nn.Linear)
