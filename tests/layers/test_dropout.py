from __future__ import annotations

import pytest
import torch

from equipoise.layers import Dropout


def test_it_zeroes_the_share_and_keeps_the_mean_of_values_and_gradients() -> None:
    torch.manual_seed(0)
    x = torch.full((200, 500), 3.0, dtype=torch.float64, requires_grad=True)
    out = Dropout(0.25)(x)
    kept = out != 0
    assert float(kept.double().mean()) == pytest.approx(0.75, abs=0.005)
    torch.testing.assert_close(out[kept], torch.full_like(out[kept], 4.0))
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, kept.double() / 0.75)


def test_an_evaluated_layer_and_one_of_share_zero_pass_everything() -> None:
    x = torch.randn(3, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_a_share_out_of_range_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match=r"`dropout` should be at least 0 and below 1. Found"):
        Dropout(p)


@pytest.mark.parametrize("p", [0.001, 0.2, 0.25, 0.9, 255 / 256, 0.999])
def test_the_share_is_p_in_the_mean_of_many_calls(p: float) -> None:
    torch.manual_seed(0)
    drop, x = Dropout(p), torch.ones(10_000)
    dropped = torch.stack([(drop(x) == 0).double().mean() for _ in range(1000)])
    # A call's share moves with its threshold, by at most 1 / 512 around p, and with its 10,000 draws.
    assert float(dropped.mean()) == pytest.approx(p, abs=4 * (1 / 512 + 0.005 * (p * (1 - p)) ** 0.5) / 1000**0.5)
    assert float(dropped.std()) < 1 / 256 + 0.012 * (p * (1 - p)) ** 0.5


def test_entries_that_share_a_draw_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept = (Dropout(0.3)(torch.ones(100_000, 4)) != 0).double()
    # 100,000 draws: a share is off by .0015 and a covariance by .0007 in the mean.
    torch.testing.assert_close(kept.mean(dim=0), torch.full((4,), 0.7, dtype=torch.float64), rtol=0, atol=0.006)
    torch.testing.assert_close(kept.T.cov(), 0.21 * torch.eye(4, dtype=torch.float64), rtol=0, atol=0.003)


def test_a_number_of_entries_that_no_draw_divides() -> None:
    out = Dropout(0.5)(torch.ones(3, 3, 1))
    assert out.shape == (3, 3, 1)
    assert set(out.unique().tolist()) <= {0.0, 2.0}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_dtype_drops_the_same_entries_and_scales_the_others(dtype: torch.dtype) -> None:
    outs = []
    for each in (torch.float64, dtype):
        torch.manual_seed(0)
        outs.append(Dropout(0.3)(torch.ones(100_000, dtype=each)))
    assert torch.equal(outs[0] != 0, outs[1] != 0)
    assert set(outs[1].unique().tolist()) == {0.0, torch.tensor(1.0, dtype=dtype).div(0.7).item()}
