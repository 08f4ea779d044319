from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.data import Dataset, Split, synthetic, write_dataset
from equipoise.data.corruption import drop_modalities
from equipoise.diagnostics import robustness
from equipoise.diagnostics.robustness import count_rows, missing_frames, missing_modalities, noisy_features, subsets
from equipoise.models import AGSSMoE, LateFusion
from equipoise.training.evaluate import evaluate
from equipoise.training.loop import fit

NAMES = ("text", "audio", "vision")
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    small = {"text": 6, "audio": 5, "vision": 4}
    return synthetic(tmp_path_factory.mktemp("data") / "small", n=300, dims=small, seed=2).split("test")


@pytest.fixture(scope="module")
def model() -> LateFusion:
    torch.manual_seed(0)
    return LateFusion(dims={"text": 6, "audio": 5, "vision": 4}, hidden=6, encoder="gru")


@pytest.fixture(scope="module")
def deviations(split: Split) -> dict[str, Any]:
    return {name: split.statistics(name)[1] for name in NAMES}


def at(rows: Rows, **wanted: Any) -> Rows:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def test_the_first_subset_is_the_plain_score_and_the_others_are_the_model_without(
    model: LateFusion, split: Split
) -> None:
    rows = list(subsets(model, split, NAMES))
    assert [row["of"] for row in rows[:4]] == ["text+audio+vision", "text+audio", "text+vision", "audio+vision"]
    assert len(rows) == 7
    for row in rows:
        assert row["metrics"] == evaluate(model, split, modalities=row["of"].split("+")).metrics


def test_level_zero_is_the_plain_score_exactly(model: LateFusion, split: Split, deviations: dict[str, Any]) -> None:
    plain = evaluate(model, split).metrics
    rows = list(
        chain(
            missing_modalities(model, split, NAMES, rates=[0.0], draws=2),
            missing_frames(model, split, NAMES, rates=[0.0], draws=1),
            noisy_features(model, split, NAMES, scales=[0.0], deviations=deviations, draws=1),
        )
    )
    assert len(rows) == 16
    assert all(row["metrics"] == plain for row in rows)


@pytest.mark.parametrize("name", NAMES)
def test_rate_one_of_a_modality_is_the_model_without_it(model: LateFusion, split: Split, name: str) -> None:
    (found,) = at(list(missing_modalities(model, split, NAMES, rates=[1.0], draws=1)), of=name)
    assert found["metrics"] == evaluate(model, split, modalities=[m for m in NAMES if m != name]).metrics
    assert found["share"] == 1.0


@pytest.mark.parametrize("make", [LateFusion, partial(AGSSMoE, heads=2)], ids=["late", "ags"])
def test_picked_predictions_are_those_of_batches_that_lack_it(make: Any, split: Split) -> None:
    torch.manual_seed(1)
    net = make(dims={"text": 6, "audio": 5, "vision": 4}, hidden=8).eval()
    rows = list(missing_modalities(net, split, NAMES, rates=[0.6], draws=2, seed=5))
    for of in (*NAMES, "all"):
        (found,) = at(rows, of=of, draw=1)
        rates = dict.fromkeys(NAMES, 0.6) if of == "all" else {of: 0.6}
        batch = drop_modalities(split.batch(range(len(split))), rates, seed=5, draw=1)
        with torch.no_grad():
            error = (net(batch).logits - batch.target).abs().mean()
        assert found["metrics"]["mae"] == pytest.approx(float(error), abs=1e-5)
        gone = torch.stack([~mask.any(dim=1) for name, mask in batch.masks.items() if name in rates])
        assert found["share"] == pytest.approx(float(gone.float().mean()))


def test_the_whole_batch_or_pieces_score_the_same(
    model: LateFusion, split: Split, deviations: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def found() -> list[float]:
        rows = chain(
            missing_frames(model, split, NAMES, rates=[0.5], draws=1),
            noisy_features(model, split, NAMES, scales=[1.0], deviations=deviations, draws=1),
            missing_modalities(model, split, NAMES, rates=[0.5], draws=1),
        )
        return [row["metrics"]["mae"] for row in rows]

    whole = found()
    monkeypatch.setattr(robustness, "BATCH", 25)
    assert found() == pytest.approx(whole, abs=1e-5)


def test_draws_differ_and_repeat(model: LateFusion, split: Split) -> None:
    rows = list(missing_frames(model, split, ["text"], rates=[0.5], draws=3))
    values = [row["metrics"]["mae"] for row in rows]
    assert len(set(values)) == 3
    assert list(missing_frames(model, split, ["text"], rates=[0.5], draws=3)) == rows
    assert list(missing_frames(model, split, ["text"], rates=[0.1, 0.5], draws=3))[3:] == rows


def test_shares_and_counts(model: LateFusion, split: Split, deviations: dict[str, Any]) -> None:
    rows = list(missing_frames(model, split, NAMES, rates=[0.2, 0.7], draws=2))
    for row in rows:
        assert row["share"] == pytest.approx(row["level"], abs=0.04)
    rows += subsets(model, split, NAMES)
    rows += missing_modalities(model, split, NAMES, rates=[0.5], draws=2)
    rows += noisy_features(model, split, NAMES, scales=[0.5, 1.0, 2.0], deviations=deviations, draws=2)
    assert len(rows) == count_rows(NAMES, 3, drop=1, frames=2, noise=3, draws=2) == 7 + 2 * (4 + 8 + 12)
    (every,) = at(rows, kind="modalities", of="all", draw=0)
    assert every["share"] < 0.5  # some samples would have lost all, and kept one


def test_a_model_of_one_modality_has_nothing_else_to_lose(split: Split, deviations: dict[str, Any]) -> None:
    alone = LateFusion(dims={"audio": 5}, hidden=4, encoder="mean")
    rows = list(
        chain(
            subsets(alone, split, ["audio"]),
            missing_modalities(alone, split, ["audio"], rates=[0.5], draws=1),
            missing_frames(alone, split, ["audio"], rates=[0.5], draws=1),
            noisy_features(alone, split, ["audio"], scales=[1.0], deviations=deviations, draws=1),
        )
    )
    assert [(row["kind"], row["of"]) for row in rows] == [("subset", "audio"), ("frames", "audio"), ("noise", "audio")]
    assert len(rows) == count_rows(["audio"], 1, drop=1, frames=1, noise=1, draws=1)


def test_the_mode_of_the_model_comes_back(model: LateFusion, split: Split) -> None:
    model.train()
    list(subsets(model, split, NAMES))
    assert model.training
    model.eval()


def test_samples_that_lack_a_modality_already(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    audio = [random.normal(size=(0 if i % 2 else 3, 5)) for i in range(40)]
    data = write_dataset(
        tmp_path / "gaps",
        name="gaps",
        source="none",
        task="regression",
        modalities={"text": random.normal(size=(40, 2, 6)), "audio": audio},
        labels=random.normal(size=40),
        ids=[str(i) for i in range(40)],
        splits=["train"] * 10 + ["valid"] * 10 + ["test"] * 20,
    )
    torch.manual_seed(0)
    net = LateFusion(dims={"text": 6, "audio": 5}, hidden=4, encoder="mean").eval()
    split = data.split("test")
    (row,) = at(list(missing_modalities(net, split, ["text", "audio"], rates=[1.0], draws=1)), of="text")
    assert row["share"] == 0.5  # the ten without audio keep their text
    batch = split.batch(range(20))
    kept = batch.masks["text"] & ~batch.masks["audio"].any(dim=1, keepdim=True)
    with torch.no_grad():
        logits = net(replace(batch, masks={**batch.masks, "text": kept})).logits
    assert row["metrics"]["mae"] == pytest.approx(float((logits - batch.target).abs().mean()), abs=1e-6)


class Words(nn.Module):
    """Counts the ids 7 that it may attend to: predictions tell how many words are left."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        return {"text": ((batch.inputs["text"] == 7) & batch.masks["text"]).sum(dim=1).float()}

    def fuse(self, encoded: dict[str, Tensor]) -> Any:
        return type("Output", (), {"logits": encoded["text"] * self.scale})


def test_missing_frames_of_token_ids_are_masked_words(tmp_path: Path) -> None:
    words = [np.array([101, *[7] * (4 + i % 9), 102]) for i in range(60)]
    base = write_dataset(
        tmp_path / "words",
        name="words",
        source="none",
        task="regression",
        modalities={"audio": np.zeros((60, 1, 1))},
        labels=np.array([len(ids) - 2.0 for ids in words]),
        ids=[str(i) for i in range(60)],
        splits=["train"] * 10 + ["valid"] * 10 + ["test"] * 40,
        texts=["x"] * 60,
    )
    split: Split = base.derive("text", key="test", compute=lambda: words).split("test")
    mean = split.targets.mean()
    (whole,) = missing_frames(Words(), split, ["text"], rates=[1.0], draws=1)
    assert whole["metrics"]["mae"] == pytest.approx(mean)  # every word is gone
    assert whole["share"] == pytest.approx(mean / (mean + 2))  # and no special token
    (half,) = missing_frames(Words(), split, ["text"], rates=[0.5], draws=1)
    assert half["metrics"]["mae"] == pytest.approx(mean / 2, rel=0.1)
    assert list(noisy_features(Words(), split, ["text"], scales=[1.0], deviations={}, draws=1)) == []


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Most of the label is in every modality, and text shows it best: a model learns to lean on it."""
    shares: dict[str, Any] = {"shared": 0.7, "synergy": 0.0, "alone": {"text": 0.1, "audio": 0.05, "vision": 0.05}}
    return synthetic(
        tmp_path_factory.mktemp("data") / "known", n=400, seed=4, speed={"audio": 0.5, "vision": 0.5}, **shares
    )


def test_a_model_that_trained_without_text_at_times_loses_less_without_it(dataset: Dataset) -> None:
    scores: dict[float, list[float]] = {}
    test = dataset.split("test")
    for rate in (0.0, 0.4):
        torch.manual_seed(0)
        dims = {name: info.dim for name, info in dataset.manifest.modalities.items()}
        net = LateFusion(dims=dims, hidden=16, encoder="mean")
        for name in dims:
            mean, deviation = dataset.split("train").statistics(name)
            net.normaliser.fit(name, torch.from_numpy(mean), torch.from_numpy(deviation))
        data: dict[str, Any] = {"train": dataset.split("train"), "valid": dataset.split("valid")}
        fit(net, **data, epochs=8, lr=5e-3, drop_modalities={"text": rate})
        rows = at(list(missing_modalities(net, test, NAMES, rates=[0.0, 0.3, 0.6, 1.0], draws=1)), of="text")
        scores[rate] = [row["metrics"]["mae"] for row in rows]
    lost = {rate: [score - values[0] for score in values[1:]] for rate, values in scores.items()}
    assert all(dropping < plain for dropping, plain in zip(lost[0.4], lost[0.0], strict=True))
    assert lost[0.4][-1] < 0.75 * lost[0.0][-1]  # .21 and .33 of an mae of .50
    assert scores[0.4][0] < scores[0.0][0] + 0.03  # and little is lost where no text is missing
