from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from equipoise.layers import (
    CrossMoELayer,
    GRUEncoder,
    MeanEncoder,
    Sequence,
    TransformerEncoder,
    last_state,
    masked_last,
    masked_mean,
    positions,
    run_packed,
)

ENCODERS: dict[str, Callable[[], nn.Module]] = {
    "gru": lambda: GRUEncoder(3, 4, layers=2, dropout=0.1),
    "mean": lambda: MeanEncoder(3, 8, layers=2, dropout=0.1),
    "transformer": lambda: TransformerEncoder(3, 8, layers=2, heads=2, dropout=0.1),
    "recurrent": lambda: TransformerEncoder(3, 8, layers=1, heads=2, dropout=0.1, recurrent=True),
}
encoders = pytest.mark.parametrize("make", ENCODERS.values(), ids=ENCODERS)


def _sequence(dtype: torch.dtype = torch.float32) -> Sequence:
    values = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(2), dtype=dtype)
    return Sequence(values, torch.arange(6) < torch.tensor([[6], [4], [1], [0]]))


def _pooled(encoder: nn.Module, x: Sequence) -> torch.Tensor:
    out = encoder(x)
    return masked_mean(out.values, out.mask)


def _seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make().eval()


@encoders
@pytest.mark.parametrize("rubbish", [1e6, float("nan"), float("inf")])
def test_what_padding_holds_changes_nothing(make: Callable[[], nn.Module], rubbish: float) -> None:
    encoder, x = _seeded(make), _sequence()
    spoilt = Sequence(x.values.masked_fill(~x.mask.unsqueeze(-1), rubbish).requires_grad_(), x.mask)
    out = _pooled(encoder, spoilt)
    assert torch.equal(out, _pooled(encoder, x))
    (gradient,) = torch.autograd.grad(out.square().sum(), spoilt.values)
    assert bool((gradient[~x.mask] == 0).all())
    assert bool(gradient.isfinite().all())


@encoders
def test_more_padding_changes_nothing(make: Callable[[], nn.Module]) -> None:
    encoder, x = _seeded(make), _sequence()
    longer = Sequence(
        torch.cat([x.values, torch.full((4, 9, 3), float("nan"))], dim=1),
        torch.cat([x.mask, torch.zeros(4, 9, dtype=torch.bool)], dim=1),
    )
    torch.testing.assert_close(_pooled(encoder, longer), _pooled(encoder, x), atol=1e-6, rtol=0)


@encoders
def test_a_sample_does_not_depend_on_its_company(make: Callable[[], nn.Module]) -> None:
    encoder, x = _seeded(make), _sequence()
    together = _pooled(encoder, x)
    for row in range(4):
        length = max(1, int(x.mask[row].sum()))
        alone = Sequence(x.values[row : row + 1, :length], x.mask[row : row + 1, :length])
        torch.testing.assert_close(_pooled(encoder, alone)[0], together[row], atol=1e-6, rtol=0)


@encoders
def test_a_sample_without_frames_is_zero_and_has_a_false_mask(make: Callable[[], nn.Module]) -> None:
    out = _seeded(make)(_sequence())
    assert bool((out.values[3] == 0).all())
    assert not bool(out.mask[3].any())
    assert bool((out.values[~out.mask] == 0).all())


@encoders
def test_every_parameter_learns(make: Callable[[], nn.Module]) -> None:
    encoder = _seeded(make).train()
    out = encoder(_sequence())
    (out.values * torch.randn_like(out.values)).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_packing_runs_each_sample_as_if_alone(kind: type[nn.GRU] | type[nn.LSTM]) -> None:
    torch.manual_seed(0)
    rnn, x = kind(3, 4, batch_first=True, bidirectional=True).double(), _sequence(torch.float64)
    out = run_packed(rnn, x)
    for row in range(3):
        alone, _ = rnn(x.values[row][x.mask[row]].unsqueeze(0))
        torch.testing.assert_close(out.values[row][x.mask[row]], alone[0])


def test_the_last_state_is_the_last_real_frame_of_the_packed_run() -> None:
    torch.manual_seed(0)
    rnn = nn.LSTM(3, 4, batch_first=True).double()
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [0, 1, 0, 1]]).bool()
    x = Sequence(torch.randn(4, 4, 3, dtype=torch.float64), mask)
    x.values[~mask] = float("nan")
    expected = masked_last(run_packed(rnn, x).values, mask)
    assert not expected[2].any()
    torch.testing.assert_close(last_state(rnn, x), expected, rtol=0, atol=0)


def test_frames_need_not_be_contiguous() -> None:
    torch.manual_seed(0)
    rnn, x = nn.GRU(3, 4, batch_first=True).double(), _sequence(torch.float64)
    holes = Sequence(x.values[:1], torch.tensor([[False, True, False, True, True, False]]))
    out = run_packed(rnn, holes)
    alone, _ = rnn(x.values[:1, [1, 3, 4]])
    torch.testing.assert_close(out.values[:, [1, 3, 4]], alone)
    assert bool((out.values[:, [0, 2, 5]] == 0).all())


def test_the_lstm_is_unidirectional() -> None:
    # Without attention blocks only the LSTM mixes frames, and a change in a late frame cannot reach an earlier one.
    torch.manual_seed(0)
    encoder, x = TransformerEncoder(3, 8, layers=0, recurrent=True).eval(), _sequence()
    changed = x.values.clone()
    changed[0, 4] += 1
    before, after = encoder(x).values[0], encoder(Sequence(changed, x.mask)).values[0]
    assert torch.equal(before[:4], after[:4])
    assert bool((before[4:] != after[4:]).any(dim=-1).all())


@pytest.mark.parametrize("kind", ["gru", "transformer", "recurrent"])
def test_order_matters_to_sequence_encoders(kind: str) -> None:
    encoder, x = _seeded(ENCODERS[kind]), _sequence()
    backwards = Sequence(x.values[:1].flip(1), x.mask[:1])
    assert not torch.allclose(_pooled(encoder, backwards), _pooled(encoder, Sequence(x.values[:1], x.mask[:1])))


def test_a_transformer_block_equals_the_reference() -> None:
    torch.manual_seed(0)
    encoder, x = TransformerEncoder(8, 8, layers=1, heads=2).double().eval(), _sequence(torch.float64)
    block: Any = encoder.blocks[0]
    reference = nn.TransformerEncoderLayer(8, 2, 32, dropout=0, batch_first=True, norm_first=True).double()
    with torch.no_grad():
        attention = reference.self_attn
        weights = [layer.weight for layer in (block.attention.query, block.attention.key, block.attention.value)]
        attention.in_proj_weight.copy_(torch.cat(weights))
        attention.in_proj_bias.zero_()
        attention.out_proj.load_state_dict(block.attention.out.state_dict())
        reference.norm1.load_state_dict(block.attention_norm.state_dict())
        reference.norm2.load_state_dict(block.feed_forward_norm.state_dict())
        reference.linear1.load_state_dict(block.feed_forward.up.state_dict())
        reference.linear2.load_state_dict(block.feed_forward.down.state_dict())
    values = torch.randn(3, 6, 8, dtype=torch.float64)
    out = block(Sequence(values, x.mask[:3])).values
    expected = reference(values, src_key_padding_mask=~x.mask[:3])
    torch.testing.assert_close(out[x.mask[:3]], expected[x.mask[:3]])


@pytest.mark.parametrize("dim", [4, 5])
def test_positions_are_the_published_sines(dim: int) -> None:
    table = positions(50, dim).double()
    for t in (0, 1, 7, 49):
        for i in range(dim):
            angle = torch.tensor(t / 10_000 ** (2 * (i // 2) / dim), dtype=torch.float64)
            expected = angle.sin() if i % 2 == 0 else angle.cos()
            assert table[t, i].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("experts", [3, 0])
def test_a_cross_moe_layer_reads_its_source_and_clears_padding(experts: int) -> None:
    torch.manual_seed(0)
    layer = CrossMoELayer(8, heads=2, experts=experts, top_k=2, dropout=0.1).eval()
    query = Sequence(torch.randn(4, 5, 8), torch.arange(5) < torch.tensor([[5], [3], [2], [1]]))
    source = Sequence(torch.randn(4, 6, 8), _sequence().mask)
    out = layer(query, source)
    assert bool((out.values[~query.mask] == 0).all())
    other = layer(query, Sequence(torch.randn(4, 6, 8), source.mask))
    assert not torch.allclose(out.values[:3], other.values[:3])
    assert torch.equal(out.values[3], other.values[3])  # its source has no real frame


def test_without_experts_a_layer_is_one_network_of_an_experts_shape() -> None:
    sparse = CrossMoELayer(8, heads=2, experts=1, top_k=1, dropout=0.0)
    dense = CrossMoELayer(8, heads=2, experts=0, top_k=1, dropout=0.0)
    gates = sum(p.numel() for name, p in sparse.named_parameters() if "gate" in name or "noise" in name)
    count = {layer: sum(p.numel() for p in layer.parameters()) for layer in (sparse, dense)}
    assert gates == 2 * 8
    assert count[sparse] - gates == count[dense]


@pytest.mark.parametrize("lengths", [[6, 6, 6, 6], [6, 4, 1, 0], [1, 1, 1, 1]])
@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_recurrent_layers_run_under_autocast_whatever_the_lengths(
    kind: type[nn.GRU | nn.LSTM], lengths: list[int]
) -> None:
    torch.manual_seed(0)
    rnn = kind(3, 4, batch_first=True, bidirectional=True)
    x = Sequence(_sequence().values, torch.arange(6) < torch.tensor(lengths).unsqueeze(1))
    expected = run_packed(rnn, x).values
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = run_packed(rnn, Sequence(x.values.bfloat16(), x.mask)).values
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, expected, atol=0.02, rtol=0.02)
