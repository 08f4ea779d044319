from __future__ import annotations

import json

import pytest
import torch

from equipoise.balancers import BALANCERS
from equipoise.cli.list import METRICS, paper, summary
from equipoise.cli.main import main
from equipoise.data.importers import FORMATS
from equipoise.data.shapes import SHAPES
from equipoise.features.extractors import EXTRACTORS
from equipoise.features.speech import RECOGNISERS
from equipoise.metrics import evaluate_metrics
from equipoise.models import MODELS
from equipoise.training.presets import PRESETS


def listed(capsys: pytest.CaptureFixture[str], kind: str) -> dict[str, list[dict[str, str]]]:
    assert main(["list", kind, "--json"]) == 0
    content: dict[str, list[dict[str, str]]] = json.loads(capsys.readouterr().out)
    return content


def test_all_names_everything_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    found = {kind: [row["name"] for row in rows] for kind, rows in listed(capsys, "all").items()}
    assert found == {
        "presets": list(PRESETS), "models": list(MODELS), "balancers": list(BALANCERS), "metrics": list(METRICS),
        "formats": list(FORMATS), "shapes": list(SHAPES), "extractors": [*EXTRACTORS, *RECOGNISERS],
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["models", "balancers", "metrics", "formats", "shapes", "extractors"])
def test_every_name_comes_with_a_line(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    for row in listed(capsys, kind)[kind]:
        what = row.get("what it is") or row.get("what it does") or ""
        assert len(what) > 10
        assert "\n" not in what


def test_a_preset_says_what_it_trains_and_on_what(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in listed(capsys, "presets")["presets"]}
    assert rows["ags-smoe-mosi"] == {
        "name": "ags-smoe-mosi", "paper": "AGS-SMoE", "shape": "mosi", "model": "AGSSMoE", "balancer": "ags + ags",
        "text": "bert-base-uncased",
    }  # fmt: skip
    assert rows["glomo-cherma"]["balancer"] == "plain"
    assert rows["glomo-cherma"]["text"] == "-"


def test_a_balancer_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    needs = {row["name"]: row["needs"] for row in listed(capsys, "balancers")["balancers"]}
    assert needs["ags"] == "gradients only"
    assert needs["agm"] == "logits, predict, target"


def test_an_extractor_says_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["name"]: row for row in listed(capsys, "extractors")["extractors"]}
    assert (rows["log-mel"]["part"], rows["log-mel"]["arguments"]) == ("audio", "rate, bins, low, high")
    assert (rows["pocketsphinx"]["part"], rows["pocketsphinx"]["arguments"]) == ("speech", "-")


def test_the_metrics_are_those_a_run_reports() -> None:
    regression = torch.linspace(-1, 1, 8)
    found = {
        *evaluate_metrics("regression", regression, regression.flip(0), scale="mosi"),
        *evaluate_metrics("regression", regression, regression.flip(0), scale="sims"),
        *evaluate_metrics("classification", torch.eye(2), torch.tensor([0, 1])),
    }
    assert set(METRICS) == found


def test_summary_and_paper_come_from_the_docstring() -> None:
    class Known:
        """Does this: that
        and more. More.

        From [A
        paper](https://x.org/1) (Some et al., VENUE 2020), Eq. 3; see [another](https://x.org/2).
        """

    class Bare:
        """Does it."""

    assert summary(Known) == "Does this: that and more"
    assert paper(Known) == "A paper (Some et al., VENUE 2020)"
    assert paper(Bare) == ""


def test_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "balancers"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Balancers (--balancer NAME")
    assert "\nags " in out
