"""What every balancer does where something is missing, zero or out of order."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from tests.balancers.laws import chosen, every_count, every_dtype, every_setting
from tests.balancers.loop import Run, Setting, same
from tests.balancers.toy import Data, backward, data, names_of, step_of, toy

from equipoise import Step


@every_setting
@every_count
@every_dtype
def test_gradients_of_zero_give_no_nan(setting: Setting, count: int, dtype: torch.dtype) -> None:
    run, batch = Run(setting, count, dtype), data(count, dtype)
    for weight in (0.0, 1.0):
        run.train(batch, weight=weight)
        for name, value in run.parameters().items():
            assert torch.isfinite(value).all(), name


@every_setting
@every_count
def test_one_modality_without_any_gradient_is_passed_over(setting: Setting, count: int) -> None:
    run, batch = Run(setting, count), data(count)
    last = run.model.encoders[names_of(count)[-1]]
    before = copy.deepcopy(last.state_dict())
    last.requires_grad_(False)
    run.train(batch)
    run.train(batch)
    assert same(last.state_dict(), before)
    assert all(torch.isfinite(value).all() for value in run.parameters().values())


@every_setting
def test_no_gradient_at_all_is_an_error(setting: Setting) -> None:
    run = Run(setting, 2)
    run.observe(data(2))
    assert run.balancer is not None
    with pytest.raises(RuntimeError, match="found no gradient in Modalities"):
        run.balancer.modulate()


@every_setting
def test_modulate_asks_for_the_step_where_it_needs_one(setting: Setting) -> None:
    run = Run(setting, 2)
    assert run.balancer is not None
    backward(step_of(run.model, data(2)).loss)
    if not run.balancer.needs:
        run.balancer.modulate()
        return
    for _ in range(2):  # and again in the next optimizer step
        with pytest.raises(RuntimeError, match=r"modulate\(\) was called before the balancer saw a `Step`"):
            run.balancer.modulate()
        run.optimizer.zero_grad()
        backward(run.observe(data(2)))
        run.balancer.modulate()


@every_setting
def test_a_missing_field_is_named(setting: Setting) -> None:
    run = Run(setting, 2)
    assert run.balancer is not None
    for field in run.balancer.needs:
        step = replace(step_of(run.model, data(2)), **{field: None})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=rf"needs `{field}` in the `Step`. Found None. Pass `{field}=...`"):
            run.balancer(step)
    if run.balancer.needs:
        with pytest.raises(ValueError, match="Pass `"):
            run.balancer(Step(torch.ones((), requires_grad=True)))


@chosen(lambda setting: setting.update)
def test_a_step_without_modulate_is_an_ordinary_one(setting: Setting) -> None:
    run, plain, batch = Run(setting, 3), Run(None, 3), data(3)
    run.train(batch)
    plain.model.load_state_dict(run.model.state_dict())
    for each in (run, plain):
        each.optimizer.zero_grad()
        backward(step_of(each.model, batch).loss)
        each.optimizer.step()
    assert same(run.parameters(), plain.parameters())


# The meta device has no random generator.
@chosen(lambda setting: not setting.noise and not setting.waits)
def test_modulate_waits_for_no_device(setting: Setting) -> None:
    """On the meta device there are no values: whatever would copy one to the host raises."""
    model = toy(3).to("meta")
    batch = data(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = setting.build(model, names_of(3))
    balancer.attach(optimizer)
    on_meta = Data({name: x.to("meta") for name, x in batch.inputs.items()}, batch.target.to("meta"))
    loss = balancer(step_of(model, on_meta, subsets=setting.subsets))
    backward(loss)
    balancer.modulate()
    optimizer.step()
    with pytest.raises(RuntimeError):
        loss.item()
