from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from equipoise.layers import FeedForward, SparseMoE, cv_squared, importance


def _tokens(batch: int = 3, length: int = 5, dim: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x = torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(1), dtype=dtype)
    lengths = torch.arange(length, length - batch, -1).clamp(min=1)
    return x, torch.arange(length) < lengths.unsqueeze(1)


def _dense(moe: SparseMoE, x: Tensor, mask: Tensor, logits: Tensor) -> Tensor:
    """Every expert on every token, weighted by a softmax with minus infinity outside the top k (Eq. 19 as printed)."""
    kth = logits.sort(dim=-1, descending=True).values[..., moe.top_k - 1 : moe.top_k]
    weights = logits.masked_fill(logits < kth, -torch.inf).softmax(dim=-1)
    every = torch.stack([expert(x) for expert in moe.experts], dim=-1)
    return (every * weights.unsqueeze(-2)).sum(-1) * mask.unsqueeze(-1)


@pytest.mark.parametrize(("experts", "top_k"), [(1, 1), (3, 1), (3, 2), (4, 3), (5, 5)])
def test_it_equals_the_dense_mixture(experts: int, top_k: int) -> None:
    x, mask = _tokens()
    moe = SparseMoE(4, experts, top_k).double().eval()
    x = x.requires_grad_()
    sparse, dense = moe(x, mask), _dense(moe, x, mask, moe.gate(x))
    torch.testing.assert_close(sparse, dense)
    weight = torch.randn_like(x)
    leaves = [x, *moe.experts.parameters(), moe.gate.weight]
    for got, expected in zip(
        torch.autograd.grad((sparse * weight).sum(), leaves, retain_graph=True),
        torch.autograd.grad((dense * weight).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_training_adds_the_noise_of_the_formula() -> None:
    x, mask = _tokens()
    moe = SparseMoE(4, 4, 2).double().train()
    torch.manual_seed(5)
    out = moe(x, mask)
    torch.manual_seed(5)
    noise = torch.randn(15, 4, dtype=torch.float64).view(3, 5, 4)
    clean = x * mask.unsqueeze(-1)
    logits = moe.gate(clean) + noise * torch.log1p(moe.noise(clean).exp())
    torch.testing.assert_close(out, _dense(moe, clean, mask, logits))


def test_an_evaluated_router_is_deterministic_and_a_training_one_is_not() -> None:
    x, mask = _tokens(dtype=torch.float32)
    moe = SparseMoE(4, 4, 2)
    torch.manual_seed(0)
    assert not torch.equal(moe(x, mask), moe(x, mask))
    moe.eval()
    before = torch.get_rng_state()
    assert torch.equal(moe(x, mask), moe(x, mask))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("experts", [3, 8, 16])
def test_cost_follows_k_and_not_the_number_of_experts(experts: int, top_k: int) -> None:
    x, mask = _tokens(dtype=torch.float32)
    moe = SparseMoE(4, experts, top_k)
    rows: list[int] = []

    def count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows.append(len(inputs[0]))

    for expert in moe.experts:
        expert.register_forward_pre_hook(count)
    moe(x, mask)
    assert sum(rows) == top_k * int(mask.sum())
    assert len(rows) == experts


def test_padding_is_not_routed_and_comes_out_as_zeros() -> None:
    x, mask = _tokens(dtype=torch.float32)
    moe = SparseMoE(4, 3, 2).eval()
    out = moe(x, mask)
    assert bool((out[~mask] == 0).all())
    assert bool((out[mask] != 0).any(dim=-1).all())
    assert int(moe.load.sum()) == 2 * int(mask.sum())
    spoilt = x.masked_fill(~mask.unsqueeze(-1), float("nan")).requires_grad_()
    again = moe(spoilt, mask)
    assert torch.equal(again, out)
    (gradient,) = torch.autograd.grad(again.sum(), spoilt)
    assert bool((gradient[~mask] == 0).all())
    assert bool(gradient.isfinite().all())


def test_every_expert_has_a_gradient_even_where_no_token_reaches_it() -> None:
    x, mask = _tokens(dtype=torch.float32)
    moe = SparseMoE(4, 6, 1)
    with torch.no_grad():
        moe.gate.weight.zero_()  # ties: all tokens take the same expert
        moe.noise.weight.fill_(-1e4)
    moe.eval()
    moe(x, mask).sum().backward()
    assert sorted(moe.load.tolist())[:5] == [0] * 5
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in moe.experts.parameters())


def test_a_batch_of_padding_alone_runs() -> None:
    x, mask = _tokens(dtype=torch.float32)
    moe = SparseMoE(4, 3, 2)
    out = moe(x, torch.zeros_like(mask))
    out.sum().backward()
    assert bool((out == 0).all())
    assert moe.load.tolist() == [0, 0, 0]


def test_load_and_importance_by_hand() -> None:
    moe = SparseMoE(2, 3, 2).eval()
    with torch.no_grad():
        moe.gate.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-10.0, -10.0]]))
    x = torch.tensor([[[2.0, 0.0], [1.0, 1.0], [-9.0, 0.0]]])
    moe(x, torch.tensor([[True, True, False]]))
    strong = 1 / (1 + math.exp(-2.0))
    assert moe.load.tolist() == [2, 2, 0]
    assert moe.importance.tolist() == pytest.approx([strong + 0.5, 1 - strong + 0.5, 0.0])
    moe(x, torch.tensor([[False, False, True]]))
    assert moe.load.tolist() == [0, 1, 1]  # the logits are -9, 0 and 90
    assert moe.importance.tolist() == pytest.approx([0.0, 0.0, 1.0])


def test_the_balance_loss_is_zero_at_even_load_and_spreads_uneven_load() -> None:
    assert cv_squared(torch.full((4,), 3.0)).item() == 0
    assert cv_squared(torch.zeros(4)).item() == 0
    assert cv_squared(torch.tensor([4.0, 0.0, 0.0, 0.0])).item() == pytest.approx(3.0)
    moe = SparseMoE(4, 3, 2).eval()
    tokens = torch.randn(40, 4, generator=torch.Generator().manual_seed(0)) + 1.0
    optimizer = torch.optim.SGD(moe.parameters(), lr=0.3)
    losses = []
    for _ in range(30):
        loss = cv_squared(importance(*moe.route(tokens), 3))
        losses.append(loss.item())
        optimizer.zero_grad()
        torch.autograd.backward([loss])
        optimizer.step()
    assert losses[-1] < 0.2 * losses[0]


def test_a_model_can_be_copied_after_a_step() -> None:
    x, mask = _tokens(dtype=torch.float32)
    moe = SparseMoE(4, 3, 2)
    moe(x, mask).sum().backward()
    assert torch.equal(copy.deepcopy(moe).importance, moe.importance)
    assert isinstance(moe, nn.Module)
    assert set(moe.state_dict()) == {name for name, _ in moe.named_parameters()}


def test_autocast_keeps_it_close() -> None:
    x, mask = _tokens(dtype=torch.float32)
    moe = SparseMoE(4, 3, 3).eval()  # k = N, so that rounding cannot change who is chosen
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = moe(x, mask)
    torch.testing.assert_close(rounded.float(), moe(x, mask), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("top_k", [0, 4])
def test_more_choices_than_experts_are_refused(top_k: int) -> None:
    with pytest.raises(ValueError, match=f"`top_k` should be in 1 to `experts = 3`. Found `top_k = {top_k}`"):
        SparseMoE(4, 3, top_k)


def test_an_expert_is_two_layers_with_relu() -> None:
    network = FeedForward(1, 2)
    with torch.no_grad():
        network.up.weight.copy_(torch.tensor([[2.0], [-1.0]]))
        network.up.bias.copy_(torch.tensor([1.0, 0.0]))
        network.down.weight.copy_(torch.tensor([[3.0, 100.0]]))
        network.down.bias.copy_(torch.tensor([-1.0]))
    assert network(torch.tensor([[1.0]])).item() == 8.0
