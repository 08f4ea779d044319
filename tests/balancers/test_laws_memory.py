"""What every balancer keeps over steps, epochs and runs: it is resumed, and ends, to the bit."""

from __future__ import annotations

import io

import safetensors.torch
import torch
from tests.balancers.laws import every_count, every_setting, parts
from tests.balancers.loop import Run, Setting, same
from tests.balancers.settings import SETTINGS
from tests.balancers.toy import backward, data
from torch import Tensor, nn


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
