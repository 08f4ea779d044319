"""The generator says what is in each modality; models that are as good as can be, or nearly, have to show it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.diagnostics.subjects import formula

from equipoise.data import Split, synthetic
from equipoise.diagnostics.contribution import measure_contributions
from equipoise.diagnostics.emap import measure_emap
from equipoise.diagnostics.interactions import measure_interactions
from equipoise.diagnostics.responses import measure_responses
from equipoise.diagnostics.subject import Subject, of_function

make = partial(synthetic, dims={"text": 12, "audio": 8, "vision": 8}, feature_noise={"text": 0.2}, aligned=True)


def _pooled(split: Split) -> dict[str, np.ndarray]:
    batch = split.batch(range(len(split)))
    counts = {name: mask.sum(dim=1, keepdim=True) for name, mask in batch.masks.items()}
    return {name: (x.sum(dim=1) / counts[name]).numpy() for name, x in batch.inputs.items()}


def _ridge(train: Split, test: Split) -> Subject:
    """Least squares on mean features: linear, so it sees no synergy."""
    seen, names = _pooled(train), train.modalities
    centre = {name: x.mean(axis=0) for name, x in seen.items()}
    design = np.concatenate([seen[name] - centre[name] for name in names], axis=1).astype(np.float64)
    mean = train.targets.mean()
    weights = np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ (train.targets - mean))

    def predict(inputs: dict[str, Any], kept: frozenset[str]) -> Any:
        return np.concatenate([inputs[name].numpy() for name in names], axis=1) @ weights + mean

    return of_function(
        predict, {name: x - centre[name] for name, x in _pooled(test).items()}, test.targets, task="regression"
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("truth")


@pytest.mark.parametrize(
    "alone",
    [
        {"text": 0.5, "audio": 0.2, "vision": 0.05},
        {"text": 0.05, "audio": 0.4, "vision": 0.3},
        {"text": 0.2, "audio": 0.0, "vision": 0.6},
    ],
    ids=str,
)
def test_a_linear_models_contributions_rank_and_measure_as_the_truth_does(
    folder: Path, alone: dict[str, float]
) -> None:
    names = [f"{name}-{share}" for name, share in alone.items()]
    data = make(folder / "-".join(names), splits=(1500, 1, 800), alone=alone, shared=0, synergy=0, noise=0.2)
    truth = data.manifest.extra["truth"]["bayes_r2"]
    found = measure_contributions(_ridge(data.split("train"), data.split("test")))
    for kind in ("removal", "exchange", "shapley"):
        values = {name: getattr(each, kind).value for name, each in found.modalities.items()}
        assert sorted(values, key=values.__getitem__) == sorted(alone, key=alone.__getitem__)
    everything = truth["text+audio+vision"]
    for name, each in found.modalities.items():
        added = everything - truth["+".join(other for other in alone if other != name)]
        # What one learns from 1500 utterances and labels cut at 3 is a little less than what there is.
        assert each.removal.low - 0.03 < added < each.removal.high + 0.03
        assert each.removal.p is not None
        assert (each.removal.p < 0.01) == (alone[name] > 0)


def test_what_all_modalities_show_is_redundant_and_the_signs_are_synergy(folder: Path) -> None:
    """A model of the latents themselves, which takes the mean of what is shared."""
    data = make(folder / "latents", splits=(1, 1, 3000), shared=0.3, synergy=0.2)
    truth = data.manifest.extra["truth"]
    latents = dict(zip(truth["columns"], np.asarray(data.array("latents"))[data.split("test").rows].T, strict=True))
    shares = truth["shares"]
    columns = {
        name: np.stack([latents[f"alone_{name}"], latents["shared"], latents[f"sign_{name}"]], axis=1)
        for name in data.modalities
    }

    def model(**given: Any) -> Any:
        own = sum(shares[f"alone_{name}"] ** 0.5 * x[:, 0] for name, x in given.items())
        shared = shares["shared"] ** 0.5 * sum(x[:, 1] for x in given.values()) / 3
        return own + shared + shares["synergy"] ** 0.5 * given["text"][:, 2] * given["audio"][:, 2]

    subject = formula(model, columns, latents["score"])
    found = measure_interactions(subject).pairs
    assert found["text", "audio"].synergy.value == pytest.approx(shares["synergy"], abs=0.02)
    for pair, each in found.items():
        # Of the shared part s, two thirds of it held twice: 2 · s/3 · s/3.
        assert each.redundancy.value == pytest.approx(2 * shares["shared"] / 9, abs=0.03)
        if pair != ("text", "audio"):
            assert each.synergy.value == pytest.approx(0, abs=1e-9)
    gain = measure_emap(subject, budget=48_000).gain
    assert gain.low - 2 * gain.error < shares["synergy"] < gain.high + 2 * gain.error
    responses = measure_responses(subject)
    assert responses.modalities["text"].share > 1.3 * responses.modalities["vision"].share


def test_noise_is_called_noise_in_95_of_100_seeds() -> None:
    """A model that leans a little on a modality of noise: its removal is never found to cost, nor its Shapley value."""
    called = {"removal": 0, "exchange": 0, "shapley": 0}
    for seed in range(100):
        random = np.random.default_rng(seed)
        values = {"text": random.normal(size=120), "audio": random.normal(size=120)}
        target = values["text"] + random.normal(size=120)
        weight = 0.1 * random.normal()
        model = formula(lambda text, audio, weight=weight: text + weight * audio, values, target)
        each = measure_contributions(model, repeats=5, seed=seed).modalities["audio"]
        for kind in called:
            estimate = getattr(each, kind)
            called[kind] += not (estimate.value > 0 and estimate.p < 0.05)
    assert min(called.values()) >= 95
