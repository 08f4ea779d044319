"""Competition strength: closed forms, two oracles, its interval, and models whose truth is known."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV
from torch import nn

from equipoise.data import Split, synthetic
from equipoise.diagnostics import competition
from equipoise.diagnostics.competition import (
    Form,
    competition_by_epoch,
    competition_strength,
)
from equipoise.diagnostics.concepts import concept_network, mono_modal_concepts
from equipoise.diagnostics.robustness import predict
from equipoise.models import EarlyFusion, LateFusion

NAMES = ("text", "audio", "vision")
Floats = npt.NDArray[np.float64]


def normal(seed: int, *shape: int) -> Floats:
    return np.random.default_rng(seed).standard_normal(shape)


def test_a_latent_that_holds_the_concept_has_strength_zero() -> None:
    z = normal(0, 200, 6)
    concept = z @ normal(1, 6, 3) + 5
    assert competition_strength(z, concept).strength < 1e-8
    assert competition_strength(z, concept, penalty=0).strength < 1e-20


@pytest.mark.parametrize("form", ["residual", "whitened"])
def test_a_latent_that_knows_nothing_of_the_concept_has_strength_one(form: Any) -> None:
    found = competition_strength(normal(0, 2000, 5), normal(1, 2000, 3), form=form)
    assert found.strength == pytest.approx(1, abs=0.01)
    assert 0.99 < found.low < found.high < 1.02


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9])
def test_a_concept_known_in_part_has_the_strength_of_the_rest(share: float) -> None:
    known, unknown = normal(0, 4000, 4), normal(1, 4000, 4)
    concept = math.sqrt(1 - share) * known + math.sqrt(share) * unknown
    found = competition_strength(known @ normal(2, 4, 9), concept)
    assert found.strength == pytest.approx(share, abs=0.02)
    assert found.low < share < found.high


def test_each_half_split_is_ridge_regression_as_scikit_learn_has_it() -> None:
    z, concept = normal(0, 90, 12), normal(1, 90, 2)
    concept[:, 0] += z[:, 0]
    order = np.random.default_rng(3).permutation(90)
    fit, held = order[:45], order[45:]
    for penalty in (1e-3, 7.0):
        said = Ridge(alpha=penalty).fit(z[fit], concept[fit]).predict(z[held])
        expected = np.square(concept[held] - said).sum() / np.square(concept[held] - concept[held].mean(0)).sum()
        found = competition_strength(z, concept, penalty=penalty, splits=1, seed=3)
        assert found.strength == pytest.approx(expected, rel=1e-9)
        assert math.isnan(found.spread)


@pytest.mark.parametrize(("rows", "width"), [(80, 10), (30, 40)])
def test_the_penalty_is_chosen_as_leave_one_out_chooses(rows: int, width: int) -> None:
    z, concept = normal(0, rows, width), normal(1, rows, 3)
    concept += 0.7 * z[:, :3]
    order = np.random.default_rng(5).permutation(rows)[: rows // 2]
    scale = np.square(z[order] - z[order].mean(0)).sum() / width
    expected = RidgeCV(alphas=competition._GRID * scale).fit(z[order], concept[order]).alpha_
    assert competition_strength(z, concept, splits=1, seed=5).penalty == pytest.approx(expected)


def test_a_turned_shifted_and_scaled_latent_is_the_same_latent() -> None:
    z, concept = normal(0, 100, 5), normal(1, 100, 2)
    concept += z[:, :2]
    turn = np.linalg.qr(normal(2, 5, 5))[0]
    plain, changed = (competition_strength(x, concept, seed=1) for x in (z, 40 * z @ turn - 3))
    assert plain.strength == pytest.approx(changed.strength, rel=1e-8)
    assert (plain.low, plain.high) == pytest.approx((changed.low, changed.high), rel=1e-8)


def test_whitened_counts_small_directions_of_the_concept_as_much_as_large_ones() -> None:
    known, unknown = normal(0, 3000, 1), normal(1, 3000, 1)
    concept = np.hstack([30 * known, unknown])
    assert competition_strength(known, concept).strength == pytest.approx(1 / 901, rel=0.1)
    assert competition_strength(known, concept, form="whitened", penalty=0).strength == pytest.approx(0.5, abs=0.02)
    mixed = concept @ normal(2, 2, 2)
    whitened, turned = (competition_strength(known, c, form="whitened").strength for c in (concept, mixed))
    assert whitened == pytest.approx(turned, rel=1e-6)


def test_a_direction_that_the_concept_does_not_use_is_no_direction() -> None:
    known = normal(0, 500, 1)
    concept = np.hstack([known, known])  # rank 1
    assert competition_strength(normal(1, 500, 2), concept, form="whitened").strength == pytest.approx(1, abs=0.05)


def test_whitened_is_eq_13_with_ridge_120_for_one_output() -> None:
    z, concept = normal(0, 300, 4), normal(1, 300)
    concept += z[:, 0]
    whitened = competition_strength(z, concept, form="whitened")
    plain = competition_strength(z, concept, penalty=120)
    assert whitened.penalty == 120
    assert whitened.strength == pytest.approx(plain.strength, rel=1e-9)
    assert (whitened.low, whitened.high) == pytest.approx((plain.low, plain.high), rel=1e-9)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(40):
        z, rest = normal(2 * seed, 200, 2), normal(2 * seed + 1, 200, 2)
        found = competition_strength(z, z + rest, splits=8, resamples=200, seed=seed)
        held += found.low < 0.5 < found.high
    assert held >= 36


def test_the_interval_is_around_the_strength_also_for_many_outputs() -> None:
    z, concept = normal(0, 160, 6), normal(1, 160, 30)
    concept[:, :6] += z
    forms: tuple[Form, ...] = ("residual", "whitened")
    for form in forms:
        found = competition_strength(z, concept, form=form, penalty=1)
        assert found.low < found.strength < found.high


def test_the_mean_over_half_splits_lies_in_its_interval_and_repeats() -> None:
    z, concept = normal(0, 60, 4), normal(1, 60, 2) + normal(0, 60, 4)[:, :2]
    first, again, other = (competition_strength(z, concept, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert first.low < first.strength < first.high
    assert 0 < first.spread < first.high - first.low


def test_a_concept_that_never_changes_has_no_strength() -> None:
    found = competition_strength(normal(0, 40, 2), np.full((40, 3), 0.7))
    assert math.isnan(found.strength)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["strength"] is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concept": normal(0, 19)}, r"Found \[20, 2\] and \[19\]"),
        ({"latent": normal(0, 20)}, "should be"),
        ({"latent": np.full((20, 2), np.nan)}, "finite"),
        ({"form": "other"}, '"residual" or "whitened"'),
        ({"penalty": -1.0}, "non-negative"),
        ({"splits": 0}, "1 or more"),
    ],
)
def test_bad_input_is_named(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        competition_strength(**{"latent": normal(0, 20, 2), "concept": normal(1, 20), **given})


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    alone = {"text": 0.3, "audio": 0.3, "vision": 0.3}
    path: Path = tmp_path_factory.mktemp("data") / "small"
    return synthetic(path, n=300, alone=alone, shared=0, synergy=0, seed=1).split("train")


@pytest.fixture(scope="module")
def model() -> LateFusion:
    torch.manual_seed(0)
    return LateFusion(dims={"text": 32, "audio": 16, "vision": 16}, hidden=6, encoder="mean", dropout=0.0)


def test_by_epoch_an_encoder_that_went_silent_shows_as_competition(model: LateFusion, split: Split) -> None:
    concepts = {name: predict(model, split, (name,)).double().numpy() for name in NAMES}
    before = {name: x.clone() for name, x in model.state_dict().items()}
    silent = {name: torch.zeros_like(x) if "encoders.audio" in name else x for name, x in before.items()}
    ticks: list[tuple[int, int]] = []
    whole, starved = competition_by_epoch(
        model, [before, silent], split, concepts, splits=5, resamples=50, progress=lambda *at: ticks.append(at)
    )
    assert all(found.strength < 1e-6 for found in whole.values())
    assert starved["audio"].strength == pytest.approx(1, abs=0.15)
    assert starved["text"].strength < 1e-6
    assert ticks == [(1, 2), (2, 2)]
    for name, x in model.state_dict().items():
        torch.testing.assert_close(x, before[name], rtol=0, atol=0)


def test_by_epoch_reads_the_input_of_the_module_it_is_told(split: Split) -> None:
    torch.manual_seed(0)
    net = LateFusion(dims={"text": 32, "audio": 16}, hidden=6, encoder="mean", head="mlp")
    concepts = {"text": normal(0, len(split))}
    rule, named, other = (
        competition_by_epoch(net, iter([net.state_dict()]), split, concepts, at=at, splits=2, resamples=5)
        for at in (None, "mlp.2", "mlp.0")
    )
    assert rule == named
    assert rule != other


def test_concepts_come_from_the_models_that_were_trained_for_them(split: Split) -> None:
    asked: list[tuple[str, ...]] = []
    models: dict[str, nn.Module] = {}

    def train(kept: tuple[str, ...]) -> nn.Module:
        asked.append(kept)
        models[kept[0]] = LateFusion(dims={kept[0]: 16}, hidden=4, outputs=2)
        return models[kept[0]]

    concepts = mono_modal_concepts(train, split, ("audio", "vision"))
    assert asked == [("audio",), ("vision",)]
    for name, concept in concepts.items():
        assert concept.shape == (len(split), 2)
        said = models[name].eval()(split.batch([5], [name])).logits
        np.testing.assert_allclose(concept[5], said[0].detach(), atol=1e-6)


def test_concepts_of_classes_may_be_probabilities(tmp_path: Path) -> None:
    held = synthetic(tmp_path / "data", n=40, task="classification", seed=1).split("test")
    model = LateFusion(dims={"audio": 16}, hidden=4, outputs=3)
    logits, likely = (
        mono_modal_concepts(lambda _: model, held, ("audio",), probabilities=each)["audio"] for each in (False, True)
    )
    np.testing.assert_allclose(likely, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True))


def test_which_network_a_concept_is_trained_with() -> None:
    dims = {"text": 4, "audio": 3}
    assert concept_network(LateFusion(dims=dims, hidden=4)) == "alone"
    assert concept_network(LateFusion(dims=dims, hidden=4, head="mlp")) == "zeroed"
    assert concept_network(EarlyFusion(dims=dims, hidden=4)) == "zeroed"
