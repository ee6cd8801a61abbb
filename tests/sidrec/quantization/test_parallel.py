"""Each slot quantizes its own part of the latent vector, by direction alone."""

import torch

from sidrec.quantization.parallel import ParallelQuantizer


def quantizer(num_slots: int = 3, codebook_size: int = 6, dim: int = 4, seed: int = 0) -> ParallelQuantizer:
    made = ParallelQuantizer(num_slots, codebook_size, dim)
    with torch.no_grad():
        made.codebooks.copy_(3 * torch.randn(made.codebooks.shape, generator=torch.Generator().manual_seed(seed)))
    return made


def parts(count: int = 40, num_slots: int = 3, dim: int = 4, seed: int = 1) -> torch.Tensor:
    rows = torch.randn(count, num_slots, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(rows, dim=-1)


def test_codes_are_those_of_the_largest_cosine() -> None:
    """Slot by slot, one vector at a time, whatever the lengths of the codebook's rows."""
    made, vectors = quantizer(), parts()
    codes = made(vectors).codes

    for vector, found in zip(vectors, codes, strict=True):
        for slot, codebook in enumerate(made.codebooks.detach()):
            cosines = torch.nn.functional.cosine_similarity(vector[slot][None], codebook)
            assert int(found[slot]) == int(cosines.argmax())


def test_codewords_have_length_one_and_are_what_is_rebuilt() -> None:
    """The chosen codewords are the normalised rows of the codes, one a slot."""
    made, vectors = quantizer(), parts()
    result = made(vectors)

    torch.testing.assert_close(result.codewords.norm(dim=-1), torch.ones(40, 3))
    torch.testing.assert_close(result.codewords, made.words()[torch.arange(3), result.codes])
    assert torch.equal(made.rebuilt(result), result.codewords)
    assert torch.equal(result.residuals, vectors)


def test_a_slot_does_not_see_the_others() -> None:
    """Other vectors in one slot change that slot's codes only."""
    made, vectors = quantizer(), parts()
    changed = vectors.clone()
    changed[:, 1] = parts(seed=2)[:, 1]
    before, after = made(vectors).codes, made(changed).codes

    assert torch.equal(before[:, [0, 2]], after[:, [0, 2]])
    assert not torch.equal(before[:, 1], after[:, 1])


def test_k_means_places_the_codewords_of_every_slot() -> None:
    """After initialisation groups of directions are told apart in each slot."""
    groups = torch.eye(4)[torch.arange(4).repeat(10)]
    vectors = torch.stack([groups, groups.roll(1, dims=1)], dim=1)
    made = ParallelQuantizer(2, 4, 4)
    made.initialise(vectors, seed=0, iterations=20)

    assert all(len(made(vectors).codes[:, slot].unique()) == 4 for slot in range(2))
    torch.testing.assert_close(made(vectors).codewords, vectors)


def test_revival_uses_every_code_again() -> None:
    """Codewords that point away from all vectors serve some afterwards, in every slot."""
    made, vectors = quantizer(num_slots=2, codebook_size=8), parts(200, 2)
    vectors = torch.nn.functional.normalize(vectors.abs(), dim=-1)
    with torch.no_grad():
        made.codebooks[:, 3:] = -made.codebooks[:, 3:].abs()
        made.codebooks[:, :3] = made.codebooks[:, :3].abs()

    assert made.revive(vectors) == 10
    assert all(len(made(vectors).codes[:, slot].unique()) == 8 for slot in range(2))
    assert made.revive(vectors) == 0
