from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from equipoise.layers import CrossAttention, Sequence


@pytest.fixture(autouse=True, params=["written out", "fused"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of computing it, whatever the lengths."""
    monkeypatch.setattr("equipoise.layers.attention._SHORT", 10**9 if request.param == "written out" else -1)


@pytest.fixture(autouse=True, params=["filled up", "masked"])
def hiding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of hiding keys, whatever the width: no head is narrow where every width is a multiple."""
    if request.param == "masked":
        monkeypatch.setattr("equipoise.layers.attention._WIDTH", 1)


def _streams(dtype: torch.dtype = torch.float64) -> tuple[Sequence, Sequence]:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 4, 6, generator=generator, dtype=dtype)
    source = torch.randn(3, 5, 6, generator=generator, dtype=dtype)
    query_mask = torch.arange(4) < torch.tensor([[4], [2], [3]])
    source_mask = torch.tensor([[True] * 5, [True, False, True, False, False], [False, False, True, True, True]])
    return Sequence(query, query_mask), Sequence(source, source_mask)


def _by_loops(attention: CrossAttention, query: Sequence, source: Sequence) -> Tensor:
    """Softmax over the real keys alone, sample by sample, head by head, query by query."""
    width = query.values.shape[-1] // attention.heads
    out = torch.zeros_like(query.values)
    for b in range(len(query.values)):
        keys = source.values[b][source.mask[b]]
        for h in range(attention.heads):
            part = slice(h * width, (h + 1) * width)
            k, v = (keys @ layer.weight.T for layer in (attention.key, attention.value))
            for t in range(query.values.shape[1]):
                q = (query.values[b, t] @ attention.query.weight.T)[part]
                scores = torch.stack([q @ row[part] / math.sqrt(width) for row in k])
                weights = scores.exp() / scores.exp().sum()
                out[b, t, part] = sum(w * row[part] for w, row in zip(weights, v, strict=True))
    return out @ attention.out.weight.T + attention.out.bias


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_it_equals_attention_written_out(heads: int) -> None:
    # Each sample and each head sees its own sample's mask: a mask laid out head-major over batch-major data fails here.
    query, source = _streams()
    attention = CrossAttention(6, heads).double()
    torch.testing.assert_close(attention(query, source), _by_loops(attention, query, source))


def test_short_streams_are_written_out_and_long_ones_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    attention = CrossAttention(8, 2)
    for steps, seen in ((150, "aten::_softmax"), (170, "flash_attention")):
        stream = Sequence(torch.randn(1, steps, 8), torch.ones(1, steps, dtype=torch.bool))
        with torch.profiler.profile() as profile:
            attention(stream, stream)
        assert any(seen in event.key for event in profile.key_averages()), seen


def test_gradients_are_those_of_attention_written_out() -> None:
    query, source = _streams()
    attention = CrossAttention(6, 2).double()
    found = []
    for compute in (attention, lambda q, s: _by_loops(attention, q, s)):
        given = query.values.clone().requires_grad_(), source.values.clone().requires_grad_()
        out = compute(Sequence(given[0], query.mask), Sequence(given[1], source.mask))
        found.append(torch.autograd.grad(out.square().sum(), (*given, *attention.parameters())))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rubbish", [1e6, float("inf"), float("nan")])
def test_what_padded_keys_hold_changes_nothing(rubbish: float) -> None:
    query, source = _streams(torch.float32)
    attention = CrossAttention(6, 2)
    spoilt = Sequence(source.values.masked_fill(~source.mask.unsqueeze(-1), rubbish), source.mask)
    assert torch.equal(attention(query, spoilt), attention(query, source))


def test_more_padding_changes_nothing() -> None:
    query, source = _streams()
    attention = CrossAttention(6, 2).double()
    longer = Sequence(
        torch.cat([source.values, torch.full((3, 7, 6), float("nan"), dtype=torch.float64)], dim=1),
        torch.cat([source.mask, torch.zeros(3, 7, dtype=torch.bool)], dim=1),
    )
    torch.testing.assert_close(attention(query, longer), attention(query, source), rtol=1e-12, atol=1e-12)


def test_a_source_without_frames_gives_zeros_and_finite_gradients() -> None:
    query, source = _streams(torch.float32)
    attention = CrossAttention(6, 2)
    values = source.values.clone().requires_grad_()
    mask = source.mask.clone()
    mask[1] = False
    out = attention(query, Sequence(values, mask))
    assert bool((out[1] == 0).all())
    assert bool((out[0] != 0).all())
    out.square().sum().backward()
    assert values.grad is not None
    assert bool((values.grad[1] == 0).all())
    assert all(bool(p.grad.isfinite().all()) for p in attention.parameters() if p.grad is not None)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_single_key_has_all_the_weight_however_low_its_score(dtype: torch.dtype) -> None:
    query, source = _streams(dtype)
    attention = CrossAttention(6, 2).to(dtype)
    with torch.no_grad():
        attention.query.weight.copy_(torch.eye(6))
        attention.key.weight.copy_(-1e6 * torch.eye(6))
    query, source = (Sequence(x.values.abs() + 1, x.mask) for x in (query, source))
    single = Sequence(source.values, torch.arange(5).expand(3, 5) == 2)
    expected = attention.out(attention.value(source.values[:, 2:3])).expand(3, 4, 6)
    torch.testing.assert_close(attention(query, single), expected)


def test_no_source_at_all_gives_zero_gradients() -> None:
    query, source = _streams(torch.float32)
    attention = CrossAttention(6, 2)
    out = attention(query, Sequence(source.values, torch.zeros_like(source.mask)))
    out.sum().backward()
    assert bool((out == 0).all())
    assert all(bool((p.grad == 0).all()) for p in attention.parameters() if p.grad is not None)


def test_dropout_acts_only_while_training() -> None:
    query, source = _streams(torch.float32)
    attention = CrossAttention(6, 2, dropout=0.5)
    torch.manual_seed(0)
    assert not torch.equal(attention(query, source), attention(query, source))
    attention.eval()
    assert torch.equal(attention(query, source), attention(query, source))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`heads` should divide the width 6. Found `heads = 4`"):
        CrossAttention(6, 4)


def test_dropout_takes_frames_of_the_source_from_a_head_and_keeps_the_mean() -> None:
    query, source = _streams()
    attention = CrossAttention(6, 2, dropout=0.25).double()
    with torch.no_grad():
        attention.out.weight.copy_(torch.eye(6))
        attention.out.bias.zero_()
    full = attention.eval()(query, source).detach()
    attention.train()
    torch.manual_seed(0)
    draws = torch.stack([attention(query, source).detach() for _ in range(4000)])
    torch.testing.assert_close(draws.mean(dim=0), full, atol=0.04, rtol=0)
    # One real key: a head's answer is that key's value over 1 - p, or nothing, alike for all its queries.
    single = Sequence(source.values, torch.arange(5).expand(3, 5) == 2)
    value = (attention.value(source.values[:, 2]) / 0.75).unflatten(1, (2, 3)).detach()
    heads = attention(query, single).detach().unflatten(2, (2, 3))
    for sample in range(3):
        for head in range(2):
            kept = bool(heads[sample, 0, head].any())
            expected = value[sample, head] if kept else torch.zeros(3, dtype=torch.float64)
            torch.testing.assert_close(heads[sample, :, head], expected.expand(4, 3))
