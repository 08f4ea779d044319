"""What every balancer keeps, in every setting, for two to four modalities and in either precision."""

from __future__ import annotations

import pytest
import torch
from tests.balancers.laws import chosen, every_count, every_dtype, every_setting, near, parts
from tests.balancers.loop import Run, Setting, moved, same
from tests.balancers.settings import SETTINGS
from tests.balancers.toy import Data, backward, data, names_of, toy
from torch.testing import assert_close

from equipoise import Modalities
from equipoise.balancers import BALANCERS


def test_every_balancer_is_under_the_laws() -> None:
    model = toy(2)
    found = {type(part) for setting in SETTINGS.values() for part in parts(setting.build(model, names_of(2)))}
    assert found == set(BALANCERS.values())


@pytest.mark.parametrize("name", BALANCERS)
def test_a_class_says_what_its_defaults_need(name: str) -> None:
    model = toy(2)
    modalities = Modalities(**{name: model.encoders[name] for name in names_of(2)})
    assert BALANCERS[name](modalities).needs == BALANCERS[name].needs


@every_setting
@every_count
@every_dtype
def test_something_is_balanced(setting: Setting, count: int, dtype: torch.dtype) -> None:
    """Or all of the laws below would hold of a method that does nothing."""
    run, plain, batch = Run(setting, count, dtype), Run(None, count, dtype), data(count, dtype)
    for each in (run, plain):
        for _ in range(3):
            each.train(batch)
            if setting.ends:
                each.end_epoch(batch)
    assert not same(run.parameters(), plain.parameters())


@chosen(lambda setting: setting.levels)
@every_count
@every_dtype
def test_equal_modalities_are_left_alone(setting: Setting, count: int, dtype: torch.dtype) -> None:
    run, plain, batch = Run(setting, count, dtype), Run(None, count, dtype), data(count, dtype)
    first = batch.inputs["text"]
    batch = Data(dict.fromkeys(batch.inputs, first), batch.target)
    for each in (run, plain):
        for group in (each.model.encoders, each.model.projections, each.model.heads):
            for module in group.values():
                module.load_state_dict(group["text"].state_dict())
        each.train(batch)
        each.train(batch)
        if setting.ends:
            each.end_epoch(batch)
    if setting.loss:  # the responses are equal to rounding, and the method has no threshold
        for name, value in run.parameters().items():
            near(value, plain.parameters()[name])
    else:
        assert same(run.parameters(), plain.parameters())


@chosen(lambda setting: not setting.noise and not setting.ordered)
@every_count
def test_the_order_of_modalities_is_of_no_matter(setting: Setting, count: int) -> None:
    names, batch = names_of(count), data(count)
    run, other = Run(setting, count), Run(setting, count, names=names[::-1])
    for each in (run, other):
        each.train(batch)
        each.train(batch)
        if setting.ends:
            each.end_epoch(batch)
    for name, value in run.parameters().items():
        assert_close(other.parameters()[name], value)
    for part, reversed_part in zip(parts(run.balancer), parts(other.balancer), strict=True):  # type: ignore[arg-type]
        assert part.trace
        for key, value in part.trace.items():
            assert_close(reversed_part.trace[key], value.flip(0))


@chosen(lambda setting: not setting.decays)
@every_count
@every_dtype
def test_a_loss_times_a_constant_gives_the_step_times_that_constant(
    setting: Setting, count: int, dtype: torch.dtype
) -> None:
    scale, batch = 1000.0, data(count, dtype)
    run, scaled = Run(setting, count, dtype), Run(setting, count, dtype)
    before = run.parameters()
    run.train(batch)
    scaled.train(batch, weight=scale)
    small, large = moved(run, before), moved(scaled, before)
    for name in before:
        # A difference of parameters has the rounding error of parameters.
        assert_close(large[name], small[name] * scale, rtol=1e-3, atol=1e-3 if dtype == torch.float32 else 1e-5)
    for part, other in zip(parts(run.balancer), parts(scaled.balancer), strict=True):  # type: ignore[arg-type]
        if "factors" in part.trace:
            near(other.trace["factors"], part.trace["factors"])


@every_setting
@every_count
def test_what_is_not_in_modalities_is_not_touched(setting: Setting, count: int) -> None:
    run, plain, batch = Run(setting, count), Run(None, count), data(count)
    for each in (run, plain):
        each.train(batch)
    modalities = [part.modalities for part in parts(run.balancer)]  # type: ignore[arg-type]
    balanced = {id(p) for each in modalities for name in each for p in each.parameters(name)}
    outside = [name for name, p in run.model.named_parameters() if id(p) not in balanced]
    outside = [name for name in outside if not name.startswith(setting.beyond)] if setting.beyond else outside
    assert outside or setting.beyond
    for name in outside:
        assert torch.equal(run.parameters()[name], plain.parameters()[name]), name


@chosen(lambda setting: setting.update and not setting.noise)
@every_count
def test_apply_to_update_leaves_gradients_as_they_are(setting: Setting, count: int) -> None:
    run, plain, batch = Run(setting, count), Run(None, count), data(count)
    run.backward(batch)
    plain.backward(batch)
    assert same(run.gradients(), plain.gradients())


@chosen(lambda setting: setting.micro)
@every_count
def test_micro_batches_equal_the_full_batch(setting: Setting, count: int) -> None:
    run, split, batch = Run(setting, count), Run(setting, count), data(count)
    for _ in range(3):
        run.train(batch)
        split.train(batch.rows(0, 4), batch.rows(4, 8))
    for name, value in run.parameters().items():
        near(split.parameters()[name], value)


@pytest.mark.parametrize("name", ["agm", "agm-subsets"])
@every_count
def test_agm_without_lag_ends_a_step_of_micro_batches_in_the_state_of_the_full_batch(name: str, count: int) -> None:
    run, split, batch = Run(SETTINGS[name], count), Run(SETTINGS[name], count), data(count)
    run.backward(batch)
    split.backward(batch.rows(0, 4), batch.rows(4, 8))
    assert run.balancer is not None
    assert split.balancer is not None
    for key, value in run.balancer.state_dict().items():
        assert_close(split.balancer.state_dict()[key], value)
    alike = Data({m: x[:4].repeat(2, 1) for m, x in batch.inputs.items()}, batch.target[:4].repeat(2))
    run, split = Run(SETTINGS[name], count), Run(SETTINGS[name], count)
    run.train(alike)
    split.train(alike.rows(0, 4), alike.rows(4, 8))
    for key, weight in run.parameters().items():
        near(split.parameters()[key], weight)


@every_setting
def test_a_gradient_scaler_changes_nothing(setting: Setting) -> None:
    """The order under mixed precision: scale, backward, unscale, modulate, step."""

    def train(scaler: torch.amp.GradScaler | None) -> Run:
        run = Run(setting, 3, torch.float32)
        for i in range(3):
            run.optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                loss = run.observe(data(3, torch.float32, seed=i))
            assert run.balancer is not None
            if scaler is None:
                backward(loss)
                run.balancer.modulate()
                run.optimizer.step()
            else:
                backward(scaler.scale(loss))
                scaler.unscale_(run.optimizer)
                run.balancer.modulate()
                scaler.step(run.optimizer)
                scaler.update()
        return run

    plain, scaled = train(None), train(torch.amp.GradScaler("cpu", init_scale=2.0**10))
    for name, value in plain.parameters().items():
        assert_close(scaled.parameters()[name], value, rtol=1e-5, atol=1e-7)
