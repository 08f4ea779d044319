from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.models.builders import DIMS, make_batch, rows
from torch import Tensor
from torch.nn import functional as F

from equipoise.data.synthetic import synthetic
from equipoise.layers import Sequence
from equipoise.models import TETFN
from equipoise.training.loop import fit

TARGET = torch.tensor([1.0, -2.0, 0.5, -1.5]).double()


def _tetfn(**given: Any) -> Any:
    torch.manual_seed(0)
    small = {"dims": DIMS, "hidden": 4, "heads": 2, "layers": 2, "lstm": 3, "fusion_hidden": 5, "head_hidden": 3}
    return TETFN(**{**small, "dropout": 0.0, **given}).double().eval()


def _sines(x: Tensor) -> Tensor:
    """Positions of four channels from the formula, added to ``[T, 4]``."""
    at = torch.arange(len(x)).double()
    return x + torch.stack([at.sin(), at.cos(), (at / 100).sin(), (at / 100).cos()], dim=1)


def test_encoders_by_hand() -> None:
    model, batch = _tetfn(), make_batch(pad=2)
    encoded = model.encode(batch)
    text, vision = model.encoders["text"], model.encoders["vision"]
    assert text.lstm is None
    assert (text.conv.kernel_size, vision.conv.kernel_size) == ((1,), (3,))
    for row in range(4):
        words = batch.inputs["text"][row][batch.masks["text"][row]]
        real = batch.masks["text"][row]
        torch.testing.assert_close(encoded["text"].values[row][real], words @ text.conv.weight[:, :, 0].T)
        states, _ = vision.lstm(batch.inputs["vision"][row][batch.masks["vision"][row]])
        expected = F.conv1d(states.T, vision.conv.weight, padding=1).T
        torch.testing.assert_close(encoded["vision"].values[row][batch.masks["vision"][row]], expected)
        torch.testing.assert_close(model(batch).features["vision"][row], expected.amax(dim=0))


@pytest.mark.parametrize("text_enhanced", [True, False])
def test_streams_read_one_another_through_text(text_enhanced: bool) -> None:
    model, batch = _tetfn(text_enhanced=text_enhanced), rows(make_batch(), [0])
    low = {}
    for name, x in model.encode(batch).items():
        values = _sines(x.values[0][x.mask[0]]).unsqueeze(0)
        low[name] = Sequence(values, torch.ones(values.shape[:2], dtype=torch.bool))
    last = []
    for name, others in {"text": ["audio", "vision"], "audio": ["text", "vision"], "vision": ["text", "audio"]}.items():
        stream, answers = model.streams[name], []
        for other in others:
            source = low[other]
            if text_enhanced and "text" not in (name, other):
                source = stream.enhancers[other](source, low["text"])
            answers.append(stream.crossmodal[other](low[name], source).values)
        memory = stream.memory(Sequence(torch.cat(answers, dim=2), low[name].mask), None)
        last.append(memory.values[:, -1])
    enhanced = {name: list(stream.enhancers) for name, stream in model.streams.items()}
    expected = {"text": [], "audio": ["vision"], "vision": ["audio"]}
    assert enhanced == (expected if text_enhanced else {name: [] for name in DIMS})
    joint = model.fusion.first(torch.cat(last, dim=1))
    torch.testing.assert_close(model(batch).extra["joint"], joint)
    torch.testing.assert_close(model(batch).logits, model.fusion.rest(joint)[:, 0])


def test_what_stands_between_is_vision_where_text_is_missing() -> None:
    model, batch = _tetfn(), rows(make_batch(), [2])
    enhancer, vision = model.streams["audio"].enhancers["vision"], model.encode(batch)["vision"]
    nothing = Sequence(torch.zeros(1, 3, 4).double(), torch.zeros(1, 3, dtype=torch.bool))
    block = enhancer.blocks[0]
    alone = vision.values + block.feed_forward(block.feed_forward_norm(vision.values))
    alone = enhancer.norm(alone)[vision.mask]
    torch.testing.assert_close(enhancer(vision, nothing).values[vision.mask], alone)


def test_models_without_text_or_of_one_pair_have_no_text_between() -> None:
    for names in (["audio", "vision"], ["text", "audio"], ["audio"]):
        model = _tetfn(dims={name: DIMS[name] for name in names})
        assert all(not stream.enhancers for stream in model.streams.values())
    four = _tetfn(dims={**DIMS, "pose": 5})
    assert {name: list(stream.enhancers) for name, stream in four.streams.items()} == {
        "text": [],
        "audio": ["vision", "pose"],
        "vision": ["audio", "pose"],
        "pose": ["audio", "vision"],
    }


def _nearer(x: Tensor, seen: Tensor, labels: Tensor) -> Tensor:
    """How much nearer rows are to the mean of the positive ones than to that of the negative ones."""
    positive, negative = seen[labels > 0].mean(dim=0), seen[labels < 0].mean(dim=0)
    near, far = (x - positive).norm(dim=1), (x - negative).norm(dim=1)
    distance: Tensor = (far - near) / (near + 1e-8)
    return distance


def test_labels_of_the_modalities_are_made_as_those_of_self_mm() -> None:
    model = _tetfn(bound=3.0)
    batch = replace(make_batch(), target=TARGET)
    first = model.train()(batch)
    assert all(loss.detach() == 0 for loss in model.losses(first, batch).values())  # labels are still the target
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    second = model(batch)
    model.losses(second, batch)
    whole = _nearer(second.extra["joint"], first.extra["joint"], TARGET).detach()
    labels = model.labels.read(batch.index, TARGET.unsqueeze(1))
    for name in DIMS:
        own = _nearer(second.extra[f"{name}_hidden"], first.extra[f"{name}_hidden"], TARGET).detach()
        made = (0.5 * own / (whole + 1e-8) * TARGET + 0.5 * (TARGET + own - whole)).clamp(-3, 3)
        torch.testing.assert_close(labels[name][:, 0], TARGET / 3 + 2 / 3 * made)
    said = model.eval()(batch)
    loss = model.losses(said, batch)["unimodal/audio"]
    weight = (labels["audio"][:, 0] - TARGET).abs().tanh()
    torch.testing.assert_close(loss, (weight * (said.unimodal["audio"] - labels["audio"][:, 0]).abs()).mean())
    again = _tetfn(bound=3.0)
    again.load_state_dict(model.state_dict())
    torch.testing.assert_close(again.labels.read(batch.index, TARGET.unsqueeze(1)), labels)


@pytest.mark.parametrize(
    ("dims", "given"),
    [
        ({"text": 768, "audio": 5, "vision": 20}, {}),
        ({"text": 768, "audio": 74, "vision": 47}, {"text_enhanced": False, "outputs": 3}),
        ({"text": 300, "audio": 74, "vision": 47, "pose": 8}, {"layers": 1, "hidden": 20}),
        ({"audio": 74}, {}),
    ],
)
def test_parameters_are_those_counted_by_hand(dims: dict[str, int], given: dict[str, Any]) -> None:
    with torch.device("meta"):
        model = TETFN(dims=dims, **given)
    layers, count = given.get("layers", 2), len(dims)
    d: int = given.get("hidden", 50)
    outputs: int = given.get("outputs", 1)

    def transformer(width: int, depth: int, norms: int) -> int:
        attention, forward = 4 * width * width + width, 8 * width * width + 5 * width
        return depth * (norms * 2 * width + attention + forward) + 2 * width

    def head(width: int, inner: int) -> int:
        return width * inner + inner + inner * inner + inner + inner * outputs + outputs

    joined = d * max(1, count - 1)
    expected = head(joined * count, 64) + count * transformer(joined, layers, 2)
    expected += count * (count - 1) * transformer(d, layers, 3)
    if given.get("text_enhanced", True) and "text" in dims:
        expected += (count - 1) * (count - 2) * transformer(d, 1, 3)
    for name, dim in dims.items():
        h = 16 if name == "audio" else 64
        width = 1 if name in ("text", "audio") else 3
        expected += dim * d if name == "text" else 4 * h * (dim + h) + 8 * h + h * d * width
        expected += head(d, 16 if name == "vision" else 32)
    assert sum(p.numel() for p in model.parameters()) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"layers": 0}, "`layers` should be positive. Found `layers = 0`"),
        ({"bound": -1.0}, "`bound` should be positive, or None. Found `bound = -1.0`"),
        ({"kernel": 2}, r"`kernel` should be odd. Found \{'text': 2"),
        ({"lstm": {"pose": 3}}, r"`lstm` should name modalities of .* Found \['pose'\]"),
        ({"heads": 3}, "`heads` should divide the width 4. Found `heads = 3`"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _tetfn(**given)


def test_training_lowers_the_error_and_moves_the_labels(tmp_path: Path) -> None:
    dims, lengths = {"text": 6, "audio": 5, "vision": 4}, {"text": (1, 4), "audio": (2, 6), "vision": (1, 5)}
    data = synthetic(tmp_path / "data", n=60, dims=dims, lengths=lengths)
    train = data.split("train")
    whole = train.batch(range(len(train)))
    torch.manual_seed(0)
    model = TETFN(dims=dims, hidden=4, heads=2, layers=1, lstm=4, dropout=0.0)

    def error() -> float:
        with torch.no_grad():
            return float((model.eval()(whole).logits - whole.target).abs().mean())

    before = error()
    fit(model, train=train, valid=data.split("valid"), epochs=4, batch_size=14, lr=0.01, select="last")
    assert error() < 0.9 * before
    labels = model.labels.read(whole.index, whole.target.unsqueeze(1))["vision"]
    assert float((labels[:, 0] - whole.target).abs().mean()) > 0.01
