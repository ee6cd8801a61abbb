"""The learning rate's curves go through points worked by hand; decay is for matrices."""

import pytest
import torch

from sidrec.training.optim import Schedule, adamw, schedule


@pytest.mark.parametrize(("step", "share"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0)])
def test_the_rate_rises_then_falls_as_half_a_cosine(step: int, share: float) -> None:
    """Ten of a hundred steps warm up."""
    assert schedule(step, total=100, warmup_share=0.1) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize(
    ("kind", "step", "share"),
    [
        ("linear", 4, 0.5),
        ("linear", 10, 1.0),
        ("linear", 55, 0.5),
        ("linear", 100, 0.0),
        ("constant", 4, 0.5),
        ("constant", 10, 1.0),
        ("constant", 99, 1.0),
        ("inverse_sqrt", 4, 0.5),
        ("inverse_sqrt", 9, 1.0),
        ("inverse_sqrt", 39, 0.5),  # sqrt(10 / 40)
        ("inverse_sqrt", 89, 1 / 3),  # sqrt(10 / 90)
    ],
)
def test_other_curves_warm_up_alike_and_then_fall_as_they_say(kind: Schedule, step: int, share: float) -> None:
    """Ten of a hundred steps warm up in every schedule."""
    assert schedule(step, total=100, warmup_share=0.1, kind=kind) == pytest.approx(share, abs=1e-9)


def test_vectors_do_not_decay() -> None:
    """With zero gradients a step shrinks matrices only."""
    module = torch.nn.Linear(2, 2)
    torch.nn.init.ones_(module.weight)
    torch.nn.init.ones_(module.bias)
    optimizer = adamw(module.named_parameters(), learning_rate=0.1, weight_decay=0.5)
    (0 * module(torch.ones(1, 2))).sum().backward()
    optimizer.step()

    assert (module.weight < 1).all()
    assert torch.equal(module.bias, torch.ones(2))
