from __future__ import annotations

import pytest
import torch

from equipoise import AGS, Modalities


def encoders(*gradients: float) -> dict[str, torch.nn.Linear]:
    found = {}
    for name, gradient in zip(("text", "audio", "vision"), gradients, strict=True):
        found[name] = torch.nn.Linear(1, 1, bias=False)
        found[name].weight.grad = torch.tensor([[gradient]])
    return found


def test_a_spared_modality_is_compared_and_never_scaled() -> None:
    """Text (4) and audio (3) exceed the mean of the others: 4 / 2 and 3 / 2.5 at alpha 1."""
    plain, spared = encoders(4.0, 3.0, 1.0), encoders(4.0, 3.0, 1.0)
    AGS(Modalities(**plain), alpha=1.0).modulate()
    balancer = AGS(Modalities(**spared), alpha=1.0, spared=["text"])
    balancer.modulate()
    audio = 3.0 * (1 - torch.tanh(torch.tensor(1.2 / 2.2)).item())
    assert [each.weight.grad.item() for each in spared.values()] == pytest.approx([4.0, audio, 1.0])  # type: ignore[union-attr]
    assert plain["text"].weight.grad.item() < 4.0  # type: ignore[union-attr]
    assert plain["audio"].weight.grad == spared["audio"].weight.grad
    assert balancer.trace["factors"].tolist() == pytest.approx([1.0, audio / 3.0, 1.0])


def test_who_is_spared_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"`spared` should name modalities of text, audio, vision. Found 'video'"):
        AGS(Modalities(**encoders(1.0, 1.0, 1.0)), spared=["video"])
