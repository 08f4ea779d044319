"""Clips on the disk, and a saved model that reads them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.extraction import extractors
from tests.features.clips import square, voice, write_clip
from tests.layers.tiny_bert import save_tiny_bert

from equipoise.data import Dataset
from equipoise.data.writer import write_dataset
from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.clip_features import extract_clip
from equipoise.features.extractors import EXTRACTORS
from equipoise.layers import TextEncoder
from equipoise.models import LateFusion
from equipoise.training.calibration import calibrate
from equipoise.training.config import TextConfig
from equipoise.training.model_info import describe
from equipoise.training.prepare import fit_normaliser, open_dataset
from equipoise.training.pretrained import save_pretrained

COUNT = 12
WORDS = ("a good film", "not very good", "a bad film", "very bad")


@dataclass(frozen=True)
class Chain:
    """Clips, the dataset that was made of them, and a model of it."""

    clips: Path
    dataset: Dataset
    model: Path


@pytest.fixture(scope="session")
def brightness() -> Iterator[None]:
    """The extractor of the tests under its name; other processes do not know it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "equipoise.features.brightness", extractors)
        patch.setitem(EXTRACTORS, "brightness", ("vision", "brightness", "Brightness"))
        yield


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture(scope="session")
def chain(brightness: None, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp("chain")
    clips = folder / "clips"
    clips.mkdir()
    for i in range(COUNT):
        length = 0.6 + 0.1 * (i % 3)
        pictures = [square(i + n) for n in range(round(10 * length))]
        sound = voice(length, pitch=100.0 + 10 * i, seed=i)
        write_clip(clips / f"clip{i:02d}.mp4", audio=sound, pictures=pictures, frame_rate=10)
        (clips / f"clip{i:02d}.txt").write_text(WORDS[i % 4])
    recipe = choose_recipe(
        audio="log-mel", vision="brightness", arguments={"audio": {"bins": 6}, "vision": {"rate": 10.0}}
    )
    found = [extract_clip(path, recipe) for path in sorted(clips.glob("*.mp4"))]
    write_dataset(
        folder / "data",
        name="chain",
        source="made",
        task="regression",
        modalities={name: [clip.streams[name].values for clip in found] for name in ("audio", "vision")},
        labels=np.linspace(-2, 2, COUNT),
        label_range=(-3, 3),
        ids=[clip.id for clip in found],
        splits=["train"] * 4 + ["valid"] * 4 + ["test"] * 4,
        texts=[clip.transcript.text for clip in found if clip.transcript is not None],
        extra={"extraction": recipe.to_json()},
    )
    text = TextConfig(encoder=str(bert), mode="finetune", max_tokens=16)
    dataset = open_dataset(str(folder / "data"), text)
    torch.manual_seed(2)
    names = ("text", "audio", "vision")
    dims = {name: dataset.manifest.modalities[name].dim for name in names}
    model = LateFusion(dims=dims, hidden=6, head="mlp", text_encoder=TextEncoder(str(bert)))
    fit_normaliser(model, dataset.split("train"))
    errors = calibrate(model, dataset.split("valid"), names, levels=(0.5, 0.9))
    save_pretrained(model, folder / "model", replace(describe(dataset, names, text), calibration=errors))
    return Chain(clips, dataset, folder / "model")
