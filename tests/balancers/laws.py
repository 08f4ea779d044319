"""For which settings, counts of modalities and precisions a law is checked, and how close is equal."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tests.balancers.loop import Setting
from tests.balancers.settings import SETTINGS
from torch import Tensor
from torch.testing import assert_close

from equipoise import Balancer, Chain

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
