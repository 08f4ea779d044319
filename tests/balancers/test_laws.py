"""What every balancer keeps, in every setting, for two to four modalities and in either precision."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from tests.balancers.loop import Run, Setting, moved, same
from tests.balancers.settings import SETTINGS
from tests.balancers.toy import Data, backward, data, names_of, step_of, toy
from torch import Tensor, nn
from torch.testing import assert_close

from equipoise import Balancer, Chain, Modalities, Step
from equipoise.balancers import BALANCERS

COUNTS = [2, 3, 4]
DTYPES = [torch.float32, torch.float64]

every_setting = pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
every_count = pytest.mark.parametrize("count", COUNTS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])


def near(found: Tensor, expected: Tensor) -> None:
    # AGM keeps its scores in float32, and the noise adds 1e-8 to a standard deviation.
    single = expected.dtype == torch.float32
    assert_close(found, expected, rtol=1e-3 if single else 2e-6, atol=1e-6 if single else 3e-8)


def chosen(keep: Callable[[Setting], bool]) -> pytest.MarkDecorator:
    kept = {name: setting for name, setting in SETTINGS.items() if keep(setting)}
    return pytest.mark.parametrize("setting", kept.values(), ids=kept)


def parts(balancer: Balancer) -> list[Balancer]:
    return [part for member in balancer for part in parts(member)] if isinstance(balancer, Chain) else [balancer]


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
@every_count
def test_a_resumed_run_is_the_same_to_the_bit(setting: Setting, count: int) -> None:
    def adam(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.05)

    def epoch(run: Run, number: int) -> None:
        for i in range(3):
            run.train(data(count, torch.float32, seed=3 * number + i))
        run.end_epoch(data(count, torch.float32, seed=100 + number))

    whole = Run(setting, count, torch.float32, optimizer=adam)
    for number in range(4):
        epoch(whole, number)

    first = Run(setting, count, torch.float32, optimizer=adam)
    for number in range(2):
        epoch(first, number)
    assert first.balancer is not None
    kept = safetensors.torch.save(first.balancer.state_dict())
    rest = io.BytesIO()
    torch.save([first.model.state_dict(), first.optimizer.state_dict()], rest)

    second = Run(setting, count, torch.float32, optimizer=adam)
    assert second.balancer is not None
    second.balancer.load_state_dict(safetensors.torch.load(kept))
    rest.seek(0)
    model, optimizer = torch.load(rest)
    second.model.load_state_dict(model)
    second.optimizer.load_state_dict(optimizer)
    for number in range(2, 4):
        epoch(second, number)
    assert same(second.parameters(), whole.parameters())
    assert whole.balancer is not None
    assert same(second.balancer.state_dict(), whole.balancer.state_dict())


@every_setting
def test_the_state_is_tensors_and_none_of_the_weights(setting: Setting) -> None:
    run = Run(setting, 3)
    run.train(data(3))
    assert run.balancer is not None
    assert list(run.balancer.parameters()) == []
    weights = [p.detach() for p in run.model.parameters()]
    for key, value in run.balancer.state_dict().items():
        assert isinstance(value, Tensor), key
        assert not any(value.shape == w.shape and torch.equal(value.to(w.dtype), w) for w in weights), key


@every_setting
@every_count
def test_what_a_step_did_stands_in_the_columns_that_it_announced(setting: Setting, count: int) -> None:
    run, batch = Run(setting, count), data(count)
    run.train(batch)
    if setting.ends:
        run.end_epoch(batch)
    run.train(batch)
    for part in parts(run.balancer):  # type: ignore[arg-type]
        assert set(part.trace) & set(part.records)
        assert all(value.shape == (count,) and not value.requires_grad for value in part.trace.values())


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


@every_setting
def test_outside_its_epochs_it_does_nothing(setting: Setting) -> None:
    run, plain, batch = Run(setting.within(1, 2), 3), Run(None, 3), data(3)
    for epoch in range(3):
        run.backward(batch)
        plain.backward(batch)
        on_gradients = not (setting.update and not setting.noise) and not setting.ends
        assert same(run.gradients(), plain.gradients()) == (epoch != 1 or not on_gradients), epoch
        before = plain.parameters()
        run.optimizer.step()
        plain.optimizer.step()
        on_step = not setting.ends and setting is not SETTINGS["agm-lag"]
        assert same(run.parameters(), plain.parameters()) == (epoch != 1 or not on_step), epoch
        assert not same(plain.parameters(), before)
        run.end_epoch(batch)
        assert not setting.ends or same(run.parameters(), plain.parameters()) == (epoch != 1), epoch
        run.model.load_state_dict(plain.model.state_dict())


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


@every_setting
def test_a_step_that_was_skipped_leaves_no_trace(setting: Setting) -> None:
    """As when a scaler finds an infinite gradient: what was meant for that step must not reach a later one."""
    run, plain, batch = Run(setting.within(0, 1), 3), Run(None, 3), data(3)
    run.backward(batch)  # modulated, but the optimizer takes no step
    run.end_epoch(batch)  # from here on it is outside its epochs
    run.train(batch)
    plain.train(batch)
    assert same(run.parameters(), plain.parameters())


@every_setting
def test_a_step_that_overflowed_leaves_no_nan_behind(setting: Setting) -> None:
    """A gradient scaler skips the optimizer's step where a gradient is infinite, and calls `modulate` all the same."""
    run, batch = Run(setting, 3), data(3)
    run.train(batch)
    run.optimizer.zero_grad()
    backward(run.observe(batch))
    for parameter in run.model.parameters():
        if parameter.grad is not None:
            parameter.grad.fill_(float("inf"))
    assert run.balancer is not None
    run.balancer.modulate()
    run.train(batch)
    for key, value in run.balancer.state_dict().items():
        assert not torch.isnan(value).any(), key
    for name, weight in run.parameters().items():
        assert torch.isfinite(weight).all(), name


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
