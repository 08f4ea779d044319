from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, make_batch
from tests.models.learning import DATA_DIMS, epoch_losses, few_utterances
from torch import Tensor
from torch.nn import functional as F

from equipoise.models import CubeMLP


def _cubemlp(**given: Any) -> Any:
    torch.manual_seed(0)
    return CubeMLP(**{"dims": DIMS, "steps": [4, 3, 2], "channels": [6, 5, 3], **given}).double().eval()


def _scale(linear: Any, by: float) -> None:
    """Makes a layer multiply by a number."""
    with torch.no_grad():
        linear.weight.copy_(by * torch.eye(*linear.weight.shape))
        if linear.bias is not None:
            linear.bias.zero_()


def _mixed(unit: Any, vector: Tensor) -> Tensor:
    """One unit on one vector along its axis, from the formula."""
    normed = (vector - vector.mean()) / (vector.var(unbiased=False) + 1e-6).sqrt() * unit.norm.weight + unit.norm.bias
    hidden = F.gelu(unit.up.weight @ normed + unit.up.bias)
    mixed: Tensor = unit.project.weight @ vector + unit.down.weight @ hidden + unit.down.bias
    return mixed


def test_each_unit_mixes_one_axis_in_turn() -> None:
    model = _cubemlp()
    generator = torch.Generator().manual_seed(1)
    slices = {name: torch.randn(2, 4, 6, generator=generator).double() for name in DIMS}
    cube = torch.stack(list(slices.values()), dim=2)  # [B, L, M, D]
    assert [unit.axis for unit in model.units] == [1, 2, 3, 1, 2, 3]
    for unit in model.units:
        moved = cube.movedim(unit.axis, -1)
        rows = torch.stack([_mixed(unit, row) for row in moved.reshape(-1, moved.shape[-1])])
        cube = rows.view(*moved.shape[:-1], -1).movedim(-1, unit.axis)
    assert cube.shape == (2, 2, 3, 3)
    expected = cube.reshape(2, -1) @ model.head[0].weight[0] + model.head[0].bias
    torch.testing.assert_close(model.fuse(slices).logits, expected)


def test_a_unit_by_hand() -> None:
    unit = _cubemlp(dims={"audio": 3}, steps=[2, 2], channels=[1, 1], axes=["sequence"]).units[0]
    for layer in (unit.up, unit.down):
        _scale(layer, 1.0)
    _scale(unit.project, 10.0)
    # The vector (1, 3) along time is normed to (-1, 1); gelu gives -0.158655 and 0.841345.
    out = unit(torch.tensor([[[[1.0]], [[3.0]]]]).double())
    torch.testing.assert_close(out.flatten(), torch.tensor([9.841345, 30.841345]).double(), atol=2e-6, rtol=0)


def test_frames_are_resampled_to_the_length_of_the_cube() -> None:
    model, batch = _cubemlp(dims={"text": 6}, channels=[6, 5, 3]), make_batch()
    _scale(model.encoders["text"].linear, 1.0)
    frames = [x[mask] for x, mask in zip(batch.inputs["text"], batch.masks["text"], strict=True)]
    cube = model.encode(batch)["text"]
    assert [len(x) for x in frames] == [5, 2, 4, 1]
    five = frames[0]  # windows of 5 frames in 4 steps: 0-1, 1-2, 2-3, 3-4
    torch.testing.assert_close(cube[0], (five[:4] + five[1:]) / 2)
    torch.testing.assert_close(cube[1], frames[1][[0, 0, 1, 1]])
    torch.testing.assert_close(cube[2], frames[2])
    torch.testing.assert_close(cube[3], frames[3].expand(4, -1))


def test_both_directions_of_the_recurrent_layer_are_added() -> None:
    model, batch = _cubemlp(), make_batch()
    part: Any = model.encoders["audio"]
    frames = batch.inputs["audio"][3][batch.masks["audio"][3]]
    states, _ = part.gru(frames)
    summed = states[:, :6] + states[:, 6:]
    normed = F.layer_norm(summed, (6,), part.norm.weight, part.norm.bias, eps=1e-6).relu()
    expected = F.adaptive_avg_pool1d(normed.T, 4).T  # torch's own windows, of a sample without padding
    torch.testing.assert_close(model.encode(batch)["audio"][3], expected)


@pytest.mark.parametrize("axes", [["sequence"], ["modality"], ["channel"], ["sequence", "channel"]])
def test_an_axis_left_out_keeps_its_size_and_its_positions_apart(axes: list[str]) -> None:
    model = _cubemlp(axes=axes)
    cube = torch.randn(1, 4, 3, 6, generator=torch.Generator().manual_seed(2)).double()
    out = model.units(cube)
    sizes = [(4, 2), (3, 3), (6, 3)]
    for axis, (name, (kept, mixed)) in enumerate(zip(["sequence", "modality", "channel"], sizes, strict=True), start=1):
        assert out.shape[axis] == (mixed if name in axes else kept)
        touched = cube.clone()
        touched.select(axis, 0)[:] = 1.0
        moved = (model.units(touched) - out).movedim(axis, -1).abs().flatten(end_dim=-2).amax(dim=0) > 0
        assert bool(moved.all()) if name in axes else moved.tolist() == [True] + [False] * (kept - 1)


def test_pooling_reads_the_mean_of_the_steps_left() -> None:
    flat, mean = _cubemlp(), _cubemlp(pool="mean")
    mean.load_state_dict({n: x for n, x in flat.state_dict().items() if not n.startswith("head")}, strict=False)
    with torch.no_grad():  # weights that give each of the two steps half of what the mean's have
        flat.head[0].weight.copy_(torch.cat([mean.head[0].weight] * 2, dim=1) / 2)
        flat.head[0].bias.copy_(mean.head[0].bias)
    torch.testing.assert_close(flat(make_batch()).logits, mean(make_batch()).logits)


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 768, "audio": 74, "vision": 47}, {}),
        ({"text": 768, "audio": 5, "vision": 20}, {"pool": "mean"}),
        ({"audio": 74}, {"steps": (20, 10), "channels": (16, 8), "outputs": 4}),
        ({"text": 768, "audio": 74, "vision": 47, "pose": 9}, {"axes": ["sequence", "modality"]}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = CubeMLP(dims=dims, **given)
    steps, channels = given.get("steps", (100, 50, 10)), given.get("channels", (128, 128, 32))
    axes, outputs, count = given.get("axes", "sequence modality channel"), given.get("outputs", 1), len(dims)
    d = channels[0]
    expected = 0
    for name, dim in dims.items():
        layers = 2 * (3 * d * (dim + d) + 6 * d) + 2 * (3 * d * (2 * d + d) + 6 * d)
        expected += dim * d if name == "text" else layers + 2 * d
    sizes = {"sequence": steps, "modality": [count] * len(steps), "channel": channels}
    for axis, lengths in sizes.items():
        if axis in axes and (axis != "modality" or count > 1):
            # norm; up; down; the linear path
            expected += sum(2 * a + (a * b + b) + (b * b + b) + a * b for a, b in pairwise(lengths))
    last = channels[-1] if "channel" in axes else channels[0]
    entries = count * last * (1 if given.get("pool") == "mean" else steps[-1])
    expected += entries * 128 + 128 + 128 * outputs + outputs if entries > 128 else entries * outputs + outputs
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": [4, 2]}, r"equally long, with two entries at least.* Found `steps = \[4, 2\]`"),
        ({"steps": [4], "channels": [4]}, r"with two entries at least"),
        ({"steps": [4, 0, 2]}, r"should be positive. Found `steps = \[4, 0, 2\]`"),
        ({"axes": ["time"]}, r"some of sequence, modality, channel. Found `axes = \['time'\]`"),
        ({"axes": []}, r"Found `axes = \[\]`"),
        ({"pool": "max"}, r"\"flatten\" or \"mean\". Found `pool = 'max'`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cubemlp(**given)


def test_training_lowers_the_loss(tmp_path: Path) -> None:
    data = few_utterances(tmp_path / "data")
    losses = epoch_losses(lambda: CubeMLP(dims=DATA_DIMS, steps=[6, 4], channels=[8, 8], dropout=0.0), data, lr=0.01)
    assert losses[-1] < losses[0]
