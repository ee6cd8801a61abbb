"""The supervised loss against loops over points, items, steps and slots."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from sidrec.systems.batches import TrainingBatch
from sidrec.systems.reg4rec.config import Reg4RecTrainingConfig
from sidrec.systems.reg4rec.losses import Tables, losses
from sidrec.systems.reg4rec.model import Paths, Reg4RecModel
from tests.sidrec.systems.reg4rec.world import SAMPLING, batch_of, model_of, prior_by_hand, tables_of

PLAIN = Reg4RecTrainingConfig(exploration=0.0)


def by_hand(model: Reg4RecModel, batch: TrainingBatch, tables: Tables) -> tuple[float, float]:
    """Return L_token / M and L_cat / M: the first step over all items of a point, the others over its sample."""
    slots, token, category = 3, 0.0, 0.0
    memory = model.encode(batch.inputs, tables.codes)
    users, points = batch.limit.shape
    for user in range(users):
        for point in range(points):
            weight = float(batch.point_weight[user, point])
            if weight == 0:
                continue
            day = int(batch.prior_day[user, point])

            def start(user: int = user, point: int = point) -> tuple[Paths, torch.Tensor]:
                limit = torch.zeros(users, 1, dtype=torch.int64)
                limit[user] = batch.limit[user, point]
                paths = Paths(model, memory, limit)
                same = torch.zeros(users, 1)
                same[user] = batch.same_day[user, point]
                return paths, paths.begin(same)[user : user + 1]

            _, hidden = start()
            log_probs = model.slot_log_probs(hidden, prior_by_hand(tables, day, {}), 0)[0, 0]
            named = model.category_log_probs(hidden)[0, 0]
            own = batch.target_point == user * points + point
            for item, share in zip(batch.target_item[own], batch.target_weight[own], strict=True):
                codes = tables.codes[item].tolist()
                token -= weight * float(share) * sum(float(log_probs[s, c]) for s, c in enumerate(codes)) / slots
                category -= weight * float(share) * float(named[tables.category[item]])
            for item in batch.sampled[user, point].tolist():
                codes = tables.codes[item].tolist()
                paths, hidden = start()
                taken = [max(range(slots), key=lambda s: float(log_probs[s].max()))]
                if model.config.order == "fixed":
                    taken = [0]
                for step in range(1, slots):
                    slot = torch.zeros(users, 1, dtype=torch.int64)
                    code = torch.zeros(users, 1, dtype=torch.int64)
                    slot[user], code[user] = taken[-1], codes[taken[-1]]
                    hidden = paths.extend(slot, code)[user : user + 1]
                    prior = prior_by_hand(tables, day, {s: codes[s] for s in taken})
                    now = model.slot_log_probs(hidden, prior, step)[0, 0]
                    free = [s for s in range(slots) if s not in taken]
                    each = weight / len(batch.sampled[user, point])
                    token -= each * sum(float(now[s, codes[s]]) for s in free) / len(free)
                    category -= each * float(model.category_log_probs(hidden)[0, 0, tables.category[item]])
                    best = free[0] if model.config.order == "fixed" else max(free, key=lambda s: float(now[s].max()))
                    taken.append(best)
    return token / slots, category / slots


@pytest.mark.parametrize("order", ["confidence", "fixed"])
def test_the_loss_is_its_definition(world: Any, order: str) -> None:
    tables, model = tables_of(world), model_of(order=order)
    batch = batch_of(world, replace(SAMPLING, batch_users=3))
    with torch.no_grad():
        found = losses(model, batch, tables, PLAIN)
        token, category = by_hand(model, batch, tables)

    assert found["token"].item() == pytest.approx(token, rel=1e-4)
    assert found["category"].item() == pytest.approx(category, rel=1e-4)
    assert found["total"].item() == pytest.approx(token + 0.2 * category, rel=1e-4)


def test_without_a_category_weight_the_loss_is_the_tokens_alone(world: Any) -> None:
    """Bit for bit."""
    tables, batch = tables_of(world), batch_of(world)
    without, with_ = (losses(model_of(category_weight=weight), batch, tables, PLAIN) for weight in (0.0, 0.2))

    assert without["total"].item() == with_["token"].item()


def test_parts_of_a_batch_add_up_to_it(world: Any) -> None:
    tables, batch, model = tables_of(world), batch_of(world), model_of()
    whole = losses(model, batch, tables, PLAIN)
    parts = [losses(model, batch.part(rank, 2), tables, PLAIN) for rank in range(2)]
    for name, value in whole.items():
        torch.testing.assert_close(sum(part[name] for part in parts), value)


def test_every_parameter_learns(world: Any) -> None:
    """But for the fixed draw of an order, everything has a gradient."""
    model = model_of()
    losses(model, batch_of(world), tables_of(world), Reg4RecTrainingConfig())["total"].backward()

    assert [name for name, own in model.named_parameters() if own.grad is None or not own.grad.any()] == []
