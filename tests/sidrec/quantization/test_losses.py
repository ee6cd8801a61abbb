"""Losses agree with their formulas and send gradients where the paper sends them."""

import torch

from sidrec.quantization.losses import (
    decorrelation_loss,
    orthogonality_loss,
    quantization_loss,
    reconstruction_loss,
    router_balance_loss,
    uniformity_loss,
)
from sidrec.quantization.quantizer import Quantized
from sidrec.quantization.residual import ResidualQuantizer


def test_reconstruction_is_the_mean_squared_length() -> None:
    """(3² + 4²) and 0 average to 12.5."""
    rebuilt = torch.tensor([[3.0, 4.0], [1.0, 1.0]])

    torch.testing.assert_close(reconstruction_loss(rebuilt, torch.tensor([[0.0, 0.0], [1.0, 1.0]])), torch.tensor(12.5))


def test_quantization_loss_worked_by_hand() -> None:
    """Two levels, one vector: errors 1 and 4, each counted 1 + mu times."""
    quantized = Quantized(
        codes=torch.zeros(1, 2, dtype=torch.int64),
        codewords=torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]),
        residuals=torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]),
    )

    torch.testing.assert_close(quantization_loss(quantized, 0.25), torch.tensor(1.25 * 5))
    torch.testing.assert_close(quantization_loss(quantized, 0.0), torch.tensor(5.0))


def test_without_commitment_the_encoder_gets_no_gradient() -> None:
    """The codeword term moves codewords only; the commitment term moves the encoder only."""
    quantizer = ResidualQuantizer(2, 4, 3)
    with torch.no_grad():
        quantizer.codebooks.normal_(generator=torch.Generator().manual_seed(0))
    for weight in (0.0, 0.25):
        latent = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), requires_grad=True)
        quantization_loss(quantizer(latent), weight).backward()
        gradient = latent.grad

        assert (gradient is None or float(gradient.abs().sum()) == 0) == (weight == 0)


def test_uniformity_agrees_with_the_double_loop() -> None:
    """Mean over ordered pairs of different codes of max(0, rho mean - distance)², mean over levels."""
    codebooks = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = []
    for codebook in codebooks:
        pairs = [(i, j) for i in range(5) for j in range(5) if i != j]
        distances = {(i, j): float((codebook[i] - codebook[j]).norm()) for i, j in pairs}
        threshold = 0.9 * sum(distances.values()) / len(pairs)
        expected.append(sum(max(0.0, threshold - distance) ** 2 for distance in distances.values()) / len(pairs))

    torch.testing.assert_close(float(uniformity_loss(codebooks, 0.9)), sum(expected) / 2)


def test_uniformity_pushes_close_codewords_apart() -> None:
    """One gradient step widens the smallest distance; codewords far apart already cost nothing."""
    close = torch.tensor([[[0.0, 0.0], [0.1, 0.0], [4.0, 0.0], [0.0, 4.0]]], requires_grad=True)
    uniformity_loss(close, 0.5).backward()
    assert close.grad is not None
    moved = close.detach() - 0.1 * close.grad

    assert float((moved[0, 0] - moved[0, 1]).norm()) > 0.1
    square = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    assert float(uniformity_loss(square, 0.5)) == 0


def test_the_margin_itself_has_no_gradient() -> None:
    """The gradient is that of the shortfall against a fixed threshold: codes are not drawn in to lower the mean."""
    codebooks = torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, expected = codebooks.clone().requires_grad_(), codebooks.clone().requires_grad_()
    uniformity_loss(found, 0.9).backward()
    others = ~torch.eye(5, dtype=torch.bool)
    threshold = 0.9 * torch.pdist(codebooks[0]).mean()
    distances = (expected[0][:, None] - expected[0][None])[others].norm(dim=-1)
    (threshold - distances).clamp(min=0).square().mean().backward()

    assert expected.grad is not None
    torch.testing.assert_close(found.grad, expected.grad)


def test_uniformity_survives_equal_and_single_codewords() -> None:
    """Coinciding codewords give a finite gradient; one codeword has nobody to be repelled by."""
    equal = torch.zeros(1, 3, 2, requires_grad=True)
    uniformity_loss(equal, 0.5).backward()

    assert equal.grad is not None
    assert torch.isfinite(equal.grad).all()
    assert float(uniformity_loss(torch.ones(2, 1, 3), 0.5)) == 0


def test_orthogonality_worked_by_hand() -> None:
    """Rows at 60°, of any length, miss the identity by a cosine of 1/2 twice; orthogonal ones by nothing."""
    at_sixty_degrees = torch.tensor([[2.0, 0.0], [1.5, 1.5 * 3**0.5]])

    torch.testing.assert_close(orthogonality_loss(at_sixty_degrees), torch.tensor(0.5))
    torch.testing.assert_close(orthogonality_loss(torch.tensor([[0.0, 7.0], [0.1, 0.0]])), torch.tensor(0.0))


def test_decorrelation_worked_by_hand() -> None:
    """Cosines of 1 and 0 between the two experts average to a half; one expert has no other."""
    outputs = torch.tensor([[[1.0, 0.0], [-3.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]])

    torch.testing.assert_close(decorrelation_loss(outputs), torch.tensor(0.5))
    assert float(decorrelation_loss(outputs[:, :1])) == 0


def test_decorrelation_agrees_with_the_double_loop() -> None:
    """Mean over vectors and ordered pairs of different experts of the squared cosine."""
    outputs = torch.randn(6, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    squared = [
        float(torch.nn.functional.cosine_similarity(row[one], row[other], dim=0)) ** 2
        for row in outputs
        for one in range(4)
        for other in range(4)
        if one != other
    ]

    torch.testing.assert_close(float(decorrelation_loss(outputs)), sum(squared) / len(squared))


def test_router_balance_worked_by_hand() -> None:
    """1 when the mean gates are equal although single ones are not, 3 when one of three experts takes everything."""
    alternating = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])

    torch.testing.assert_close(router_balance_loss(alternating), torch.tensor(1.0))
    torch.testing.assert_close(router_balance_loss(torch.tensor([[1.0, 0.0, 0.0]]).repeat(4, 1)), torch.tensor(3.0))
