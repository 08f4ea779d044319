from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise.data import Dataset, synthetic, write_dataset
from equipoise.diagnostics.latents import representations
from equipoise.diagnostics.maps import label_groups, measure_maps
from equipoise.diagnostics.probes import linear_probe
from equipoise.models import LateFusion

NAMES = ("text", "audio", "vision")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    given: dict[str, Any] = {"dims": dict.fromkeys(NAMES, 4), "lengths": dict.fromkeys(NAMES, (1, 2))}
    return synthetic(tmp_path_factory.mktemp("maps") / "data", splits=(10, 1, 60), seed=2, **given)


def written(path: Path, labels: Any, **given: Any) -> Dataset:
    frames: Any = np.arange(len(labels), dtype=np.float32)[:, None]
    rest: dict[str, Any] = {"name": "hand", "source": "test", "ids": [f"u{i}" for i in range(len(labels))]}
    splits = ["train"] * len(labels)
    return write_dataset(path, modalities={"audio": frames}, labels=np.array(labels), splits=splits, **rest, **given)


def test_samples_are_grouped_by_class_by_sign_or_in_thirds(tmp_path: Path) -> None:
    classes = written(tmp_path / "c", [2, 0, 2, 1, 2, 0], task="classification", classes=("a", "b", "c"))
    names, member = label_groups(classes.split("train"))
    assert names == ("c", "a", "b"), "the largest first"
    assert [names[each] for each in member] == ["c", "a", "c", "b", "c", "a"]
    scores = np.array([-1.5, 0, 2, -0.2], dtype=np.float32)
    names, member = label_groups(written(tmp_path / "s", scores, task="regression", scale="mosi").split("train"))
    assert [names[each] for each in member] == ["negative", "neutral", "positive", "negative"]
    values = np.array([10, 70, 30, 20, 60, 50], dtype=np.float32)
    names, member = label_groups(written(tmp_path / "v", values, task="regression").split("train"))
    assert [names[each].split()[0] for each in member] == ["low", "high", "middle", "low", "high", "middle"]


def test_every_representation_is_drawn_of_the_same_samples_and_probed_on_all(data: Dataset) -> None:
    torch.manual_seed(0)
    model = LateFusion(dims=dict.fromkeys(NAMES, 4), outputs=1, hidden=4, encoder="mean")
    test = data.split("test")
    heard: list[tuple[int, int]] = []
    found = measure_maps(model, test, NAMES, most=24, progress=lambda *at: heard.append(at))
    panels = found["panels"]
    assert set(panels) == {*NAMES, "text+audio", "text+vision", "audio+vision", "fused"}
    assert heard[-1] == (7, 7)
    _, member = label_groups(test)
    for each in panels.values():
        assert each["rows"] == panels["fused"]["rows"]
        assert np.shape(each["points"]) == (24, 2)
        assert each["labels"] == member[each["rows"]].tolist()
    latent = representations(model, test, NAMES)["text+audio"]
    expected = linear_probe(latent, test.targets, "regression").score
    assert panels["text+audio"]["probe"]["value"] == pytest.approx(expected.value)
    assert panels["text+audio"]["probe"]["samples"] == 60
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_few_samples_are_drawn_and_not_probed(data: Dataset) -> None:
    model = LateFusion(dims=dict.fromkeys(NAMES[:2], 4), outputs=1, hidden=4, encoder="mean")
    panels = measure_maps(model, data.split("train"), NAMES[:2])["panels"]
    assert set(panels) == {"text", "audio", "fused"}, "of two modalities the pair is all"
    assert all(each["probe"] is None and len(each["points"]) == 10 for each in panels.values())
