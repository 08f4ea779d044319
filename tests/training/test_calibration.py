"""Quantiles of validation errors: the law of split conformal prediction, and what a model really gets wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equipoise.data import Dataset, synthetic
from equipoise.models import LateFusion
from equipoise.training.calibration import calibrate, conformal_quantile, errors, subset_key
from equipoise.training.evaluate import predict


@given(st.integers(1, 60), st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(0, 9))
def test_the_least_quantile_that_covers(n: int, level: float, seed: int) -> None:
    """Of n + 1 exchangeable errors each is the new one equally often, and the others' quantile holds enough."""
    scores = np.random.default_rng(seed).permutation(n + 1).tolist()
    within = 0
    for i, new in enumerate(scores):
        bound = conformal_quantile([*scores[:i], *scores[i + 1 :]], level)
        within += bound is None or new <= bound
    assert within >= level * (n + 1) - 1e-9
    if conformal_quantile(scores[1:], level) is not None:
        assert within < level * (n + 1) + 1 - 1e-9  # and not by more than one


def test_too_few_samples_and_errors_that_are_no_number() -> None:
    assert conformal_quantile([1.0] * 8, 0.9) is None
    assert conformal_quantile([1.0] * 9, 0.9) == 1.0
    assert conformal_quantile([math.nan] + [1.0] * 18, 0.9) == 1.0
    assert conformal_quantile([math.nan] * 2 + [1.0] * 8, 0.9) is None
    assert conformal_quantile([], 0.5) is None


def test_errors_by_hand() -> None:
    assert errors("regression", torch.tensor([1.0, -2.0]), torch.tensor([0.5, 1.0])).tolist() == [[0.5], [3.0]]
    odds = torch.tensor([[3.0, 1.0], [1.0, 1.0]]).log()
    assert errors("classification", odds, torch.tensor([0, 1])).tolist() == [[pytest.approx(0.25)], [0.5]]


def test_each_subset_has_the_errors_of_the_model_on_it(dataset: Dataset, make_model: Callable[..., LateFusion]) -> None:
    model, train = make_model(encoder="gru"), dataset.split("train")
    names = tuple(name for name in train.modalities)
    found = calibrate(model, train, names, levels=(0.5, 0.9))
    subsets = [kept for size in (1, 2, 3) for kept in combinations(names, size)]
    assert set(found.subsets) == {subset_key(kept) for kept in subsets}
    for kept in subsets:
        said = predict(model, train, modalities=kept)
        scores = (said.logits - said.target).abs().double().tolist()
        subset = found.subsets[subset_key(kept[::-1])]
        assert subset.samples == len(train)
        for level, (value,) in zip(found.levels, subset.quantiles, strict=True):
            assert value == pytest.approx(conformal_quantile(scores, level), abs=1e-6)


def test_samples_that_lack_a_modality_are_no_samples_of_it(tmp_path: Any) -> None:
    from equipoise.data.writer import write_dataset

    random = np.random.default_rng(0)
    audio = [random.normal(size=(3, 2)) if i % 3 else np.zeros((0, 2)) for i in range(30)]
    data = write_dataset(
        tmp_path / "some",
        name="some",
        source="made",
        task="regression",
        modalities={"audio": audio, "vision": [random.normal(size=(2, 2)) for _ in range(30)]},
        labels=random.normal(size=30),
        ids=[str(i) for i in range(30)],
        splits=["train"] * 30,
    )
    model = LateFusion(dims={"audio": 2, "vision": 2}, hidden=4)
    found = calibrate(model, data.split("train"), ("audio", "vision"))
    samples = {name: subset.samples for name, subset in found.subsets.items()}
    assert samples == {"audio": 20, "vision": 30, "audio+vision": 20}
    assert model.training  # as it was


def test_new_samples_keep_within_it(tmp_path: Any) -> None:
    """The promise itself, on 2,000 new samples: within 3 standard errors, of the calibration's own draw included."""
    two: Any = {"modalities": ("text", "audio"), "lengths": {"text": (1, 2), "audio": (1, 2)}}
    data = synthetic(tmp_path / "d", n=4100, splits=(100, 2000, 2000), seed=5, **two)
    torch.manual_seed(0)
    names = data.modalities
    model = LateFusion(dims={n: data.manifest.modalities[n].dim for n in names}, encoder="pool").eval()
    found = calibrate(model, data.split("valid"), names)
    for kept in (names, names[:1]):
        said = predict(model, data.split("test"), modalities=kept)
        scores = (said.logits - said.target).abs()
        for level, (bound,) in zip(found.levels, found.subsets[subset_key(kept)].quantiles, strict=True):
            assert bound is not None
            error = math.sqrt(level * (1 - level) * (1 / 2000 + 1 / 2000))
            assert abs(float((scores <= bound).float().mean()) - level) < 3 * error


def test_classes(classes: Dataset) -> None:
    names = classes.modalities
    model = LateFusion(dims={n: classes.manifest.modalities[n].dim for n in names}, outputs=3, encoder="pool").eval()
    found = calibrate(model, classes.split("train"), names, levels=(0.8,))
    said = predict(model, classes.split("train"))
    chances = said.logits.softmax(dim=1)[torch.arange(len(said.target)), said.target]
    ((value,),) = found.subsets[subset_key(names)].quantiles
    assert value == pytest.approx(sorted((1 - chances).tolist())[math.ceil(43 * 0.8) - 1], abs=1e-6)
