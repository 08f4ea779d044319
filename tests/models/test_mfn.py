from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, make_batch, rows
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor, nn

from equipoise.layers import Sequence
from equipoise.models import MFN
from equipoise.models._mfn import States, ViewLSTM, on_one_clock, resampled

SMALL: dict[str, Any] = {
    "memory": 5,
    "attention_hidden": 7,
    "proposal_hidden": 6,
    "retain_hidden": 8,
    "update_hidden": 4,
}
WIDTHS = {"text": 5, "audio": 3, "vision": 4}


def _mfn(**given: Any) -> Any:
    torch.manual_seed(0)
    return MFN(**{"dims": DIMS, "hidden": WIDTHS, "output_hidden": 6, **SMALL, **given}).double().eval()


def _through(network: Any, x: Tensor) -> Tensor:
    hidden = (network[0].weight @ x + network[0].bias).clamp(min=0)
    out: Tensor = network[3].weight @ hidden + network[3].bias
    return out


def _walk(lstm: nn.LSTM, frames: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs and cells, one step after the other."""
    cell = nn.LSTMCell(lstm.input_size, lstm.hidden_size).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in lstm.state_dict().items()})
    h = c = torch.zeros(1, lstm.hidden_size).double()
    outputs, cells = [], []
    for frame in frames:
        h, c = cell(frame.unsqueeze(0), (h, c))
        outputs.append(h[0])
        cells.append(c[0])
    return outputs, cells


def _memory(model: Any, cells: list[Tensor]) -> Tensor:
    """The paper's equations on ``[c_1; ...; c_M]`` at each step."""
    fusion = model.fusion
    u = torch.zeros(fusion.memory).double()
    before = torch.zeros_like(cells[0])
    first, second = fusion.gates.weight[: SMALL["retain_hidden"]], fusion.gates.weight[SMALL["retain_hidden"] :]
    bias = torch.split(fusion.gates.bias, [SMALL["retain_hidden"], SMALL["update_hidden"]])
    for now in cells:
        c = torch.cat([before, now]) if fusion.delta else now
        scores = torch.exp(_through(fusion.attention, c))
        attended = scores / scores.sum() * c
        both = torch.cat([attended, u])
        retain = torch.sigmoid(fusion.retain((first @ both + bias[0]).clamp(min=0)))
        update = torch.sigmoid(fusion.update((second @ both + bias[1]).clamp(min=0)))
        u = retain * u + update * torch.tanh(_through(fusion.proposal, attended))
        before = now
    return u


@pytest.mark.parametrize("delta", [True, False])
@pytest.mark.parametrize("names", [["text"], ["text", "audio", "vision"]])
def test_aligned_streams_pass_the_papers_equations(names: list[str], delta: bool) -> None:
    model = _mfn(dims={name: DIMS[name] for name in names}, delta=delta)
    assert model.fusion.attention[0].in_features == (1 + delta) * sum(WIDTHS[name] for name in names)
    batch = make_batch(dict.fromkeys(DIMS, (5, 2, 4, 1)), pad=2)
    output = model(batch)
    for row, length in enumerate((5, 2, 4, 1)):
        walks = [_walk(model.encoders[m].lstm, batch.inputs[m][row, :length]) for m in names]
        u = _memory(model, [torch.cat([cells[t] for _, cells in walks]) for t in range(length)])
        torch.testing.assert_close(output.extra["memory"][row], u)
        for name, (outputs, _) in zip(names, walks, strict=True):
            torch.testing.assert_close(output.features[name][row], outputs[-1])
        joined = torch.cat([*(outputs[-1] for outputs, _ in walks), u])
        torch.testing.assert_close(output.logits[row], _through(model.mlp, joined)[0])


def test_unaligned_streams_show_the_cell_that_they_have_reached() -> None:
    model, batch = _mfn(dims={"text": 6, "audio": 3}), make_batch()
    memory = model(batch).extra["memory"]
    texts, audios = (
        [_walk(model.encoders[m].lstm, batch.inputs[m][row][batch.masks[m][row]])[1] for row in range(4)]
        for m in ("text", "audio")
    )
    # Rows of 5 and 7, 2 and 3, 4 and 1, 1 and 6 frames; at step r of n the stream of L shows ceil((r + 1) L / n) - 1.
    reached = [[0, 1, 2, 2, 3, 4, 4], [0, 1, 1], [0, 0, 0, 0], [0] * 6]
    for row, short in enumerate(reached):
        text = texts[row] if row == 2 else [texts[row][t] for t in short]
        audio = [audios[row][t] for t in short] if row == 2 else audios[row]
        torch.testing.assert_close(memory[row], _memory(model, [torch.cat(c) for c in zip(text, audio, strict=True)]))


def test_the_clock_by_hand() -> None:
    long = States(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]), torch.zeros(1, 1), torch.ones(1, 4, dtype=torch.bool))
    short = States(torch.tensor([[[10.0], [20.0]]]), torch.zeros(1, 1), torch.ones(1, 2, dtype=torch.bool))
    nothing = States(torch.zeros(1, 1, 1), torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool))
    cells, real = on_one_clock([long, short, nothing])
    assert cells[0].tolist() == [[1, 10, 0], [2, 10, 0], [3, 20, 0], [4, 20, 0]]
    assert real.tolist() == [[True] * 4]
    assert not bool(on_one_clock([nothing])[1].any())


def test_a_long_stream_is_averaged_and_a_short_one_is_kept() -> None:
    mask = torch.tensor([[True, False, True, True, True, True], [True, True, False, False, False, False]])
    values = torch.tensor([[1.0, float("nan"), 3.0, 5.0, 7.0, 9.0], [2.0, 4.0, 9.0, 9.0, 9.0, 9.0]]).unsqueeze(-1)
    kept = resampled(Sequence(values, mask), 6)
    assert kept.mask.sum(dim=1).tolist() == [5, 2]
    assert kept.values[0, :5, 0].tolist() == [1, 3, 5, 7, 9]
    few = resampled(Sequence(values, mask), 2)  # frames 0-2 and 2-4 of five
    assert few.values[..., 0].tolist() == [[3, 7], [2, 4]]
    assert bool(few.mask.all())


def test_more_steps_than_frames_change_nothing_and_fewer_do() -> None:
    batch = make_batch()
    torch.testing.assert_close(_mfn(steps=7)(batch).logits, _mfn(steps=500)(batch).logits, rtol=0, atol=1e-12)
    few = _mfn(steps=3)(batch).logits
    assert not torch.allclose(few[0], _mfn(steps=7)(batch).logits[0])


def test_cells_teach_the_lstm_as_a_loop_does() -> None:
    torch.manual_seed(0)
    view, frames = ViewLSTM(3, 4).double(), torch.randn(1, 6, 3).double()
    weight = torch.randn(6, 4).double()
    (view(Sequence(frames, torch.ones(1, 6, dtype=torch.bool))).cells * weight).sum().backward()
    found = [p.grad.clone() for p in view.lstm.parameters() if p.grad is not None]
    cell = nn.LSTMCell(3, 4).double()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in view.lstm.state_dict().items()})
    h = c = torch.zeros(1, 4).double()
    total = torch.zeros(()).double()
    for t in range(6):
        h, c = cell(frames[:, t], (h, c))
        total = total + (c * weight[t]).sum()
    expected = torch.autograd.grad(total, list(cell.parameters()))
    assert len(found) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_a_sample_remembers_nothing_after_its_last_step() -> None:
    model, batch = _mfn(), make_batch(pad=3)
    torch.testing.assert_close(
        model(rows(batch, [1])).extra["memory"], model(batch).extra["memory"][1:2], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 300, "audio": 5, "vision": 20}, {}),
        ({"text": 768, "audio": 74, "vision": 47, "pose": 9}, {"outputs": 3, "memory": 64, "steps": 9}),
        ({"audio": 74}, {"hidden": 20, "retain_hidden": 32}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = MFN(dims=dims, **given)
    published = {"text": 88, "audio": 48, "vision": 16, "pose": 48}
    widths = {m: given.get("hidden", published[m]) for m in dims}
    total, u, outputs = sum(widths.values()), given.get("memory", 128), given.get("outputs", 1)
    expected = sum(4 * h * (dims[m] + h + 2) for m, h in widths.items())
    expected += 2 * total * 128 + 128 + 128 * 2 * total + 2 * total  # attention
    expected += 2 * total * 64 + 64 + 64 * u + u  # proposal
    for hidden in (given.get("retain_hidden", 256), 64):
        expected += (2 * total + u) * hidden + hidden + hidden * u + u
    expected += (total + u) * 64 + 64 + 64 * outputs + outputs
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memory": 0}, "`memory` should be at least 1. Found `memory = 0`"),
        ({"steps": 0}, "`steps` should be at least 1. Found `steps = 0`"),
        ({"hidden": 0}, "`hidden` should be at least 1. Found `hidden = 0`"),
        ({"hidden": {"text": 3}}, "`hidden` should have a value for 'audio'. Found {'text': 3}"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _mfn(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(
        lambda: MFN(dims=DATA_DIMS, hidden=4, output_hidden=8, dropout=0.0, output_dropout=0.0, **SMALL), data
    )
    assert losses[-1] < losses[0]
