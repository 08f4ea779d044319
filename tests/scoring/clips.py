"""Extracted clips made by hand, and models whose answers can be worked out on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.stream import FeatureStream, no_frames
from equipoise.features.transcript import Transcript
from equipoise.layers import TextEncoder, weights_sha256
from equipoise.models import LateFusion
from equipoise.training.calibration import Calibration, SubsetCalibration
from equipoise.training.model_info import ModelInfo, TextInfo

WIDTHS = {"text": 8, "audio": 3, "vision": 4}


def stream(values: Any) -> FeatureStream:
    frames = np.asarray(values, np.float32)
    return FeatureStream(frames, np.linspace(0.05, 0.1 * len(frames) - 0.05, len(frames)), 10.0)


def random_clip(
    seed: int, *, frames: int = 5, absent: dict[str, str] | None = None, text: str | None = "a good film", **given: Any
) -> ExtractedClip:
    random = np.random.default_rng(seed)
    streams = {name: stream(random.normal(size=(frames + seed % 3, WIDTHS[name]))) for name in ("audio", "vision")}
    streams |= {name: no_frames(WIDTHS[name], reason) for name, reason in (absent or {}).items()}
    transcript = None if text is None else Transcript(text)
    return ExtractedClip(f"clip-{seed}", streams, transcript, 0.1 * frames, **given)


def about(
    widths: dict[str, int],
    *,
    text: Path | None = None,
    classes: tuple[str, ...] | None = None,
    outputs: int = 1,
    longest: int = 100,
    shortest: int = 3,
    **given: Any,
) -> ModelInfo:
    modalities = {name: ModalityInfo(dim, "float32", 9, shortest, 3.5, longest, 0) for name, dim in widths.items()}
    labels = (
        LabelInfo("regression", outputs, (-3.0, 3.0) if outputs == 1 else None)
        if classes is None
        else LabelInfo("classification", len(classes), classes=classes)
    )
    info = None if text is None else TextInfo(str(text), weights_sha256(text), "finetune", 16)
    return ModelInfo(modalities, labels, "films", "a shelf", True, info, **given)


def linear(weights: dict[str, Any], bias: Any, **given: Any) -> LateFusion:
    """Means over frames, then one linear layer with these weights ``[R, d]``."""
    rows = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in weights.items()}
    dims = {name: value.shape[1] for name, value in rows.items()}
    model = LateFusion(dims=dims, outputs=len(next(iter(rows.values()))), encoder="pool", **given)
    with torch.no_grad():
        for name, value in rows.items():
            part: Any = model.heads[name]
            part.weight.copy_(value)
        model.bias.copy_(torch.as_tensor(bias, dtype=torch.float32))
    return model.eval()


def with_bert(bert: Path, *, outputs: int = 1, hidden: int = 8) -> nn.Module:
    torch.manual_seed(1)
    encoder = TextEncoder(str(bert))
    kinds: Any = {"text": "gru", "audio": "gru", "vision": "gru"}
    return LateFusion(
        dims=WIDTHS, outputs=outputs, hidden=hidden, head="mlp", encoder=kinds, text_encoder=encoder
    ).eval()


def calibration(quantiles: dict[str, float | None], samples: int = 50, level: float = 0.9) -> Calibration:
    return Calibration((level,), {name: SubsetCalibration(samples, ((value,),)) for name, value in quantiles.items()})
