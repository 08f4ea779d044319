from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equipoise import CP
from equipoise.data import Dataset
from equipoise.data.synthetic import synthetic
from equipoise.diagnostics.dominance import shares_of
from equipoise.diagnostics.traces import read_trace
from equipoise.models import LateFusion
from equipoise.report.runs import read_run
from equipoise.training.loop import fit

NAN = math.nan
EPOCHS: dict[str, Any] = {
    "epoch": [1, 2, 3],
    "valid/accuracy": [0.5, 0.6, 0.7],
    "valid/text/accuracy": [0.4, 0.5, 0.6],
    "valid/audio/accuracy": [0.4, 0.3, 0.2],
    "direction/text": [NAN, 0.5, NAN],
    "direction/audio": [0.25, NAN, -0.75],
}
STEPS: dict[str, Any] = {
    "step": [1, 2, 3, 4],
    "epoch": [1, 1, 2, 3],
    "norm/text": [4.0, 4.0, 1.0, 2.0],
    "norm/audio": [1.0, 1.0, 1.0, 4.0],
    "norm_after/text": [2.0, NAN, 1.0, NAN],
    "norm_after/audio": [1.0, NAN, 1.0, NAN],
    "stage_norm/fusion/ta": [3.0, NAN, 5.0, NAN],
    "stage_norm/fusion/tv": [6.0, NAN, 5.0, NAN],
    "factor/text": [0.5, 0.5, 1.0, NAN],
    "factor/audio": [1.0, 1.0, 1.0, NAN],
    "1/factor/text": [NAN, 0.25, NAN, NAN],
    "factor_of_nothing/text": [1.0, 1.0, 1.0, 1.0],
}


def test_a_trace_by_hand() -> None:
    trace = read_trace(EPOCHS, STEPS, tolerance=0.5)
    assert list(trace.stages) == ["encoders", "fusion"]
    whole = trace.stages["encoders"].whole
    assert whole.steps == 4
    # text leads in two steps, nobody in one (both are the largest, none is above), audio in one
    assert whole.largest == {"text": 0.75, "audio": 0.5}
    assert whole.above == {"text": 0.5, "audio": 0.25}
    # ratios of text: 4, 4, 1, 1/2; of audio: 1/4, 1/4, 1, 2. Conflict degrees: 2.5, 2.5 of text, 0.5 of audio.
    assert whole.ratio == {"text": 1.0, "audio": 0.25}
    assert whole.conflict_rate == 0.75
    assert whole.in_conflict == {"text": 0.5, "audio": 0.25}
    assert whole.strength == {"text": 2.5, "audio": 0.5}
    assert whole.norm["text"] == pytest.approx(32**0.25)
    assert whole.norm["audio"] == pytest.approx(4**0.25)
    # of steps 1 and 3 the norms after are known: 4 and 1 before, 2 and 1 after; the lower of two is the median
    assert (whole.traced, whole.dominance_before, whole.dominance_after) == (2, 1.0, 1.0)
    first = trace.stages["encoders"].epochs[0]
    assert (first.traced, first.dominance_before, first.dominance_after) == (1, 4.0, 2.0)

    fusion = trace.stages["fusion"]
    assert fusion.groups == ("ta", "tv")
    assert fusion.steps.tolist() == [1, 3]
    assert fusion.whole.above == {"ta": 0.0, "tv": 0.5}
    assert fusion.whole.dominance_after is None
    assert [each.steps for each in fusion.epochs] == [1, 1, 0]

    assert list(trace.factors) == ["text", "audio", "1/text"]
    text = trace.factors["text"]
    assert text.steps == 3
    assert text.changed == text.mean == pytest.approx(2 / 3)
    assert (text.first, text.last, text.quantiles[2]) == (0.5, 1.0, 0.5)

    assert trace.fused["accuracy"].tolist() == [0.5, 0.6, 0.7]
    assert trace.own["accuracy"]["audio"].tolist() == [0.4, 0.3, 0.2]
    ends = trace.first_and_last()
    assert ends["accuracy"] == {"text": (0.4, 0.6), "audio": (0.4, 0.2)}
    assert ends["direction"] == {"text": (0.5, 0.5), "audio": (0.25, -0.75)}
    assert ends["ratio"]["audio"] == (0.25, 2.0)
    assert json.loads(json.dumps(trace.to_dict()))["stages"]["encoders"]["whole"]["conflict_rate"] == 0.75


def test_dominance_does_not_depend_on_scale_or_order() -> None:
    random = np.random.default_rng(0)
    norms, after = np.exp(random.normal(size=(50, 3))), np.exp(random.normal(size=(50, 3)))
    found = shares_of(norms, after, "abc")
    turned = shares_of(8 * norms[::-1, ::-1], 8 * after[::-1, ::-1], "cba")
    for field in ("largest", "above", "in_conflict", "strength", "ratio"):
        assert getattr(found, field) == pytest.approx(getattr(turned, field))
    assert found.conflict_rate == turned.conflict_rate
    assert found.dominance_after == pytest.approx(turned.dominance_after)
    others = (norms.sum(axis=1, keepdims=True) - norms) / 2
    assert found.conflict_rate == np.mean((norms > 1.1 * others).any(axis=1))
    assert found.above == {name: np.mean(norms[:, i] > others[:, i]) for i, name in enumerate("abc")}


def test_zeros_and_overflows_are_nobodys_dominance() -> None:
    norms = np.array([[0.0, 0.0], [math.inf, 1.0], [2.0, 0.0], [1.0, 4.0]])
    found = shares_of(norms, np.full((4, 2), NAN), "ab")
    assert found.steps == 3
    assert found.in_conflict == {"a": 0.0, "b": pytest.approx(1 / 3)}
    assert found.ratio == {"a": 1.0, "b": 1.0}  # of 1, infinity and 1/4; of 1, 0 and 4
    assert found.norm["b"] == 4.0


@pytest.mark.parametrize(
    ("steps", "given", "message"),
    [
        ({"step": [1], "epoch": [1], "loss": [1.0]}, {}, "a run of one modality has nothing to balance"),
        ({name: [] for name in STEPS}, {}, "one step or more"),
        (STEPS, {"tolerance": -1}, "Parameter `tolerance` should be non-negative"),
    ],
)
def test_what_can_not_be_read_is_refused(steps: Any, given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_trace(EPOCHS, steps, **given)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return synthetic(
        tmp_path_factory.mktemp("data") / "x",
        n=120,
        dims={"text": 6, "audio": 5},
        lengths={"text": (1, 4), "audio": (2, 6)},
        modalities=("text", "audio"),
        alone={"text": 0.6, "audio": 0.05},
    )


def test_a_run_of_cp_tells_the_same_as_cp_itself(data: Dataset, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = LateFusion(dims={"text": 6, "audio": 5}, hidden=4, encoder="mean")
    fit(
        model,
        train=data.split("train"),
        valid=data.split("valid"),
        balancer=CP(model.modalities(), lambda_cp=1.0, tolerance=0.0),
        epochs=3,
        batch_size=8,
        run_dir=tmp_path,
        trace_every=1,
        direction_every=8,
    )
    run = read_run(tmp_path)
    trace = read_trace(run.epochs, run.steps, tolerance=0.0)
    whole = trace.stages["encoders"].whole
    own = run.steps
    assert whole.steps == whole.traced == len(own["step"]) > 20
    for name in ("text", "audio"):
        degrees = np.array(own[f"conflict/{name}"])
        assert whole.in_conflict[name] == pytest.approx((degrees > 0).mean())
        assert whole.ratio[name] == pytest.approx(np.sort(own[f"dominance/{name}"])[(whole.steps - 1) // 2], rel=1e-5)
    assert whole.conflict_rate == pytest.approx(np.mean(own["exists/text"]))
    # With λ = 1 and no tolerance the larger of two norms becomes the smaller.
    assert whole.dominance_before is not None
    assert whole.dominance_before > 1.05
    assert whole.dominance_after == pytest.approx(1.0, abs=1e-5)
    assert trace.factors["text"].changed + trace.factors["audio"].changed == pytest.approx(1.0)
    assert np.isfinite(trace.directions["text"]).all()
    assert {"mae"} <= set(trace.own)
    assert len(trace.stages["heads"].steps) == whole.traced
