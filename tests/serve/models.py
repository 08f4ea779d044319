"""Small saved models that read clips."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.layers.tiny_bert import save_tiny_bert

from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.extraction.clip_features import columns_of
from equipoise.extraction.recipe import Recipe
from equipoise.features.clip import decoder
from equipoise.features.extractors import make_extractor
from equipoise.layers import TextEncoder, weights_sha256
from equipoise.models import LateFusion
from equipoise.training.model_info import ModelInfo, TextInfo
from equipoise.training.pretrained import save_pretrained


def save_model(folder: Path, recipe: Recipe, *, classes: tuple[str, ...] = ()) -> Path:
    """A model with random weights, of the modalities of a recipe."""
    bert = save_tiny_bert(folder / "bert")
    widths = {"text": 8} | {name: len(columns) for name, columns in columns_of(recipe).items()}
    torch.manual_seed(1)
    model = LateFusion(
        dims=widths, outputs=len(classes) or 1, hidden=8, encoder="pool", text_encoder=TextEncoder(str(bert))
    )
    modalities = {name: ModalityInfo(dim, "float32", 9, 3, 100.0, 1000, 0) for name, dim in widths.items()}
    labels = (
        LabelInfo("classification", len(classes), classes=classes)
        if classes
        else LabelInfo("regression", 1, (-3.0, 3.0))
    )
    info = ModelInfo(
        {"text": modalities.pop("text"), **modalities},
        labels,
        "clips",
        "made for a test",
        True,
        TextInfo(str(bert), weights_sha256(bert), "finetune", 16),
        extraction=recipe.to_json(),
    )
    return save_pretrained(model.eval(), folder / "model", info)


def sound_recipe() -> Recipe:
    """Reads transcripts and sound."""
    return Recipe(audio=make_extractor("log-mel").settings(), decoder=decoder())
