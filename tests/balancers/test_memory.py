from __future__ import annotations

import weakref

import pytest
from tests.balancers.loop import Run, Setting
from tests.balancers.settings import SETTINGS
from tests.balancers.toy import backward, data, step_of


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS)
def test_a_step_leaves_nothing_alive(setting: Setting) -> None:
    """A balancer that kept a loss would keep its graph, and so the activations of every step."""
    run = Run(setting, 3)
    step = step_of(run.model, data(3), subsets=setting.subsets)
    assert run.balancer is not None
    assert step.logits is not None
    loss = run.balancer(step)
    backward(loss)
    run.balancer.modulate()
    seen = [weakref.ref(tensor) for tensor in (step.loss, loss, step.logits, *(step.unimodal or {}).values())]
    del step, loss
    assert not any(reference() is not None for reference in seen)
    scalars = run.balancer.scalars()
    assert scalars
    assert not any(value.requires_grad for value in scalars.values())
