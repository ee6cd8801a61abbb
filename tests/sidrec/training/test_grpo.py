"""GRPO by a table worked by hand, and on a bandit whose best arm is known."""

import math

import pytest
import torch

from sidrec.training.grpo import clipped_surrogate, group_advantages, grpo_loss, kl_estimate


def test_advantages_by_hand() -> None:
    """Rewards 1, 3: mean 2, standard deviation 1; equal rewards have none."""
    rewards = torch.tensor([[1.0, 3.0], [0.1, 0.1], [0.0, 0.0]], dtype=torch.float64)
    unit = 1 / 1.0001

    torch.testing.assert_close(
        group_advantages(rewards), torch.tensor([[-unit, unit], [0, 0], [0, 0]], dtype=torch.float64)
    )


def test_advantages_of_a_group_sum_to_nothing() -> None:
    rewards = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    torch.testing.assert_close(group_advantages(rewards).sum(dim=1), torch.zeros(7, dtype=torch.float64))


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.0, 2.0, -2.0),
        (1.1, 2.0, -2.2),
        (1.5, 2.0, -2.4),  # clipped at 1.2
        (0.5, 2.0, -1.0),  # the smaller one: a good action that became rare is pulled back
        (1.0, -2.0, 2.0),
        (0.9, -2.0, 1.8),
        (0.5, -2.0, 1.6),  # clipped at 0.8
        (1.5, -2.0, 3.0),  # not clipped: a bad action that became likely is pushed away
    ],
)
def test_the_clipped_ratio_by_hand(ratio: float, advantage: float, expected: float) -> None:
    found = clipped_surrogate(torch.tensor([[math.log(ratio)]]), torch.zeros(1, 1), torch.tensor([advantage]), clip=0.2)

    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_a_clipped_action_has_no_gradient() -> None:
    log_probs = torch.tensor([[math.log(1.5)], [math.log(1.1)]], requires_grad=True)
    clipped_surrogate(log_probs, torch.zeros(2, 1), torch.ones(2), clip=0.2).sum().backward()

    assert log_probs.grad is not None
    assert log_probs.grad[:, 0].tolist() == pytest.approx([0.0, -1.1])


def test_the_mean_of_the_estimate_is_the_kl() -> None:
    """Over all actions, by their probabilities; and no estimate is negative."""
    policy = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    reference = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    estimate = kl_estimate(policy.log()[None], reference.log()[None])[0]

    assert (policy * estimate).sum().item() == pytest.approx((policy * (policy / reference).log()).sum().item())
    assert (estimate >= 0).all()


def test_the_loss_by_hand() -> None:
    """Two paths, one of them a step shorter; padding counts in nothing, whatever stands there."""
    log_probs = torch.tensor([[math.log(0.5), math.log(0.6)], [math.log(0.2), -math.inf]])
    old = torch.tensor([[math.log(0.4), math.log(0.6)], [math.log(0.4), 0.0]])
    real = torch.tensor([[True, True], [True, False]])
    found = grpo_loss(
        log_probs, old, old, torch.tensor([1.0, -1.0]), clip=0.2, kl_weight=0.1, real=real
    )  # fmt: skip
    # Ratios 1.25 (clipped to 1.2), 1, and .5 (clipped to .8).
    policy = (-(1.2 + 1.0) / 2 + 0.8) / 2
    kl = ((0.4 / 0.5 - math.log(0.4 / 0.5) - 1) / 2 + (2 - math.log(2) - 1)) / 2

    assert found["policy"].item() == pytest.approx(policy, rel=1e-5)
    assert found["kl"].item() == pytest.approx(kl, rel=1e-5)
    assert found["clipped"].item() == pytest.approx((0.5 + 1.0) / 2)
    assert found["total"].item() == pytest.approx(policy + 0.1 * kl, rel=1e-5)


def learn(*, kl_weight: float, steps: int = 300) -> tuple[float, torch.Tensor]:
    """Return a softmax policy's mean reward over that of the best, on 8 bandits of 6 arms, and the policy."""
    torch.manual_seed(0)
    rewards = torch.rand(8, 6)
    logits = torch.zeros(8, 6, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.1)
    for step in range(steps):
        if step % 2 == 0:
            with torch.no_grad():
                arms = torch.multinomial(logits.softmax(dim=-1), 16, replacement=True)
                old = logits.log_softmax(dim=-1).gather(1, arms)
                advantages = group_advantages(rewards.gather(1, arms))
        log_probs = logits.log_softmax(dim=-1).gather(1, arms)
        terms = grpo_loss(
            log_probs.flatten()[:, None],
            old.flatten()[:, None],
            torch.full((128, 1), -math.log(6)),
            advantages.flatten(),
            clip=0.2,
            kl_weight=kl_weight,
        )
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
    policy = logits.detach().softmax(dim=-1)
    return float((policy * rewards).sum() / rewards.amax(dim=-1).sum()), policy


def test_a_bandit_is_learnt_to_near_its_best() -> None:
    share, _ = learn(kl_weight=0.0)

    assert share >= 0.95


def test_a_heavy_kl_keeps_the_policy_at_its_reference() -> None:
    near, uniform = learn(kl_weight=100.0)[1], torch.full((8, 6), 1 / 6)

    assert (near - uniform).abs().max() < 0.05


def test_the_unbiased_deviation_is_over_one_sample_less() -> None:
    """Rewards 1, 3: deviation root 2 over one sample less, and a floor of 1 on top of it."""
    found = group_advantages(torch.tensor([[1.0, 3.0]], dtype=torch.float64), floor=1.0, unbiased=True)

    assert found.tolist() == [pytest.approx([-1 / (math.sqrt(2) + 1), 1 / (math.sqrt(2) + 1)])]


def test_the_mean_over_actions_counts_a_long_path_for_more() -> None:
    """One action with advantage 1 and three with -1: -(1 - 3) / 4 over actions, -(1 - 1) / 2 over paths."""
    zeros, real = torch.zeros(2, 3), torch.tensor([[True, False, False], [True, True, True]])
    advantages = torch.tensor([1.0, -1.0])

    def policy(per: str) -> float:
        found = grpo_loss(zeros, zeros, zeros, advantages, clip=0.2, kl_weight=0.0, real=real, per=per)  # type: ignore[arg-type]
        return float(found["policy"])

    assert policy("action") == pytest.approx(0.5)
    assert policy("path") == pytest.approx(0.0)


def test_a_ratio_that_is_no_number_is_cut() -> None:
    assert kl_estimate(torch.tensor([[-500.0]]), torch.zeros(1, 1)).item() == pytest.approx(math.exp(20) - 21, rel=1e-6)
