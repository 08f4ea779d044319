from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import EvalResult, ModelCard

from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.report.card import model_card
from equipoise.report.contributions import Contributions
from equipoise.training.config import make_config
from equipoise.training.model_info import ModelInfo, TextInfo

MODALITIES = {
    "text": ModalityInfo(0, "int32", 90, 3, 9.0, 16, 0),
    "audio": ModalityInfo(74, "float32", 90, 1, 3.5, 7, 0, extractor="COVAREP | 100 Hz"),
}
FOUND = [
    Contributions("mae", 1.2, {frozenset({"text"}): 0.9, frozenset({"audio"}): 1.1, frozenset(MODALITIES): 0.8}, shares)
    for shares in ({"text": 0.3, "audio": 0.1}, {"text": 0.35, "audio": 0.05})
]


def result(seed: int, mae: float) -> dict[str, Any]:
    metrics = {"mae": mae, "corr": float("nan")}
    return {
        "protocol": "honest",
        "seed": seed,
        "model": "LMF",
        "balancer": ["ags"],
        "select": "mae",
        "epoch": 4,
        "epochs": 9,
        "metrics": metrics,
        "interval": {"mae": [0.5, 1.5]},
        "modalities": {"text": metrics, "audio": metrics},
        "own": "kept",
        "warnings": [],
        "dataset": {
            "name": "films",
            "synthetic": False,
            "path": "/home/ann/films",
            "leaks": True,
            "leakage": ["2 twins."],
        },
        "parameters": 12345,
    }


def card(origin: str = "lab/bert", *, synthetic: bool = False, seeds: int = 2, **changed: Any) -> str:
    info = ModelInfo(
        modalities=MODALITIES,
        labels=LabelInfo("regression", 1, (-3.0, 3.0), scale="mosi"),
        dataset="films",
        source="a shelf\nin the attic",
        synthetic=synthetic,
        text=TextInfo("text_encoder", "0" * 64, "finetune", 32, True, origin),
        run={"seed": 1, "chosen_by": "the best by validation mae"},
    )
    config = make_config(
        {
            "data": "/home/ann/films",
            "model": "LMF",
            "balancer": {"name": "umt", "teachers": {"text": "/home/ann/runs/text"}},
            "text": {"encoder": "/home/ann/models/bert"},
        }
    )
    results = [result(0, 0.9), result(1, 0.7)][:seeds]
    given: dict[str, Any] = {"config": config, "splits": {"train": 80, "test": 10}, "license": "mit", **changed}
    return model_card(info, results, FOUND[:seeds], **given)


def metadata(text: str) -> dict[str, Any]:
    data: Any = ModelCard(text).data
    found: dict[str, Any] = data.to_dict()
    return found


def evaluations(text: str) -> list[EvalResult]:
    data: Any = ModelCard(text).data
    found: list[EvalResult] = data.eval_results
    return found


def test_the_metadata_are_the_hubs() -> None:
    data = metadata(card())
    assert data["library_name"] == "equipoise"
    assert data["license"] == "mit"
    assert data["base_model"] == "lab/bert"
    assert data["tags"] == ["equipoise", "multimodal", "text", "audio"]
    (evaluated,) = evaluations(card())  # no correlation: it was undefined
    assert (evaluated.metric_type, evaluated.metric_value) == ("mae", 0.8)
    assert evaluated.metric_name == "mae, 0.800 ± 0.141 (mean ± sd over seeds 0, 1)"
    assert (evaluated.dataset_name, evaluated.dataset_split) == ("films", "test")


def test_a_folder_is_no_base_model_and_no_license_is_made_up() -> None:
    data = metadata(card("bert", license=None))
    assert "base_model" not in data
    assert "license" not in data


@pytest.mark.parametrize(
    "part",
    [
        "Dataset: films; samples: 80 train, 10 test.",
        "Source: a shelf in the attic\n",
        "regression, 1 output in [-3, 3]; metrics on the scale of MOSI.",
        "| text | transcripts, by lab/bert, fine-tuned, ≤ 32 tokens | not known | 3 / 9.0 / 16 |",
        "| audio | features, 74 wide | COVAREP \\| 100 Hz | 1 / 3.5 / 7 |",
        "Leakage: 2 twins.",
        "Protocol honest: epoch chosen by validation mae. Mean ± standard deviation over seeds 0, 1.",
        "| mae | 0.800 ± 0.141 | 0.800 ± 0.141 | 0.800 ± 0.141 |",
        "The weights are those of seed 1, the best by validation mae. Its own test figures: mae 0.700",
        "| text | 0.900 ± 0.000 | 0.300 ± 0.000 | 0.325 ± 0.035 |",
        "| audio | 1.100 ± 0.000 | 0.100 ± 0.000 | 0.075 ± 0.035 |",
        "mae 1.200, to all modalities, 0.800 ± 0.000",
        "12,345 parameters.",
    ],
)
def test_it_states(part: str) -> None:
    assert part in card()


def test_it_tells_no_place_of_its_authors_disk() -> None:
    assert "ann" not in card().replace("annot", "")
    assert "text: text" in card()  # the teacher's directory, by its last name


def test_synthetic_data_are_marked_at_the_top_and_in_the_metadata() -> None:
    text = card(synthetic=True)
    assert "**The data are synthetic: the figures say nothing about the world.**" in text
    (evaluated,) = evaluations(text)
    assert evaluated.dataset_name == "films (synthetic data)"
    assert "synthetic" not in card()


def test_what_training_dropped_decides_what_is_claimed_of_missing_modalities() -> None:
    line = "No modality was dropped in training"
    assert line in card()
    dropping = make_config({"data": "films", "model": "LMF", "train": {"drop_modalities": 0.3}})
    assert line not in card(config=dropping)


def test_one_seed_claims_no_spread() -> None:
    text = card(seeds=1)
    assert "±" not in text
    assert "nothing is known of the spread over seeds" in text
    (evaluated,) = evaluations(text)
    assert evaluated.metric_name == "mae"
