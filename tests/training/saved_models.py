"""Models to save, what surrounds them, and whether a model is the one that was saved."""

from __future__ import annotations

from typing import Any

import torch
from tests.models.builders import DIMS

from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.models import Output
from equipoise.training.model_info import ModelInfo


def info(outputs: int = 1, **changed: Any) -> ModelInfo:
    """What surrounds a model of the tests' sizes."""
    modalities = {
        name: ModalityInfo(dim, "float32", 9, 1, 3.5, 7, 0, 0, f"{name}-net 2.1") for name, dim in DIMS.items()
    }
    labels = LabelInfo("regression", outputs, (-3.0, 3.0), scale="mosi" if outputs == 1 else None)
    given: dict[str, Any] = {
        "modalities": modalities,
        "labels": labels,
        "dataset": "films",
        "source": "a shelf",
        "synthetic": True,
        "run": {"seed": 3, "balancer": ["ags"]},
    }
    return ModelInfo(**{**given, **changed})


def assert_same(one: Output, other: Output) -> None:
    assert torch.equal(one.logits, other.logits)
    assert (one.unimodal or {}).keys() == (other.unimodal or {}).keys()
    assert one.features.keys() == other.features.keys()
    for name, x in one.features.items():
        assert torch.equal(x, other.features[name])
    for name, x in (one.unimodal or {}).items():
        assert torch.equal(x, (other.unimodal or {})[name])


def trained(model: Any) -> Any:
    """Every parameter off its initial value, and statistics in the normaliser."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    for name in model.normaliser.dims:
        model.normaliser.fit(name, torch.randn(DIMS[name]), torch.rand(DIMS[name]) + 0.5)
    return model
