from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch

from equipoise.diagnostics.movement import movements
from equipoise.models import LateFusion


def model(**dims: int) -> LateFusion:
    torch.manual_seed(len(dims))
    return LateFusion(dims=dims, hidden=4, encoder="mean")


def pushed(start: LateFusion, **by: float) -> LateFusion:
    """The model with each encoder's parameters multiplied by 1 + a number."""
    end = copy.deepcopy(start)
    with torch.no_grad():
        for name, step in by.items():
            for parameter in end.encoders[name].parameters():
                parameter.mul_(1 + step)
    return end


def test_an_encoder_that_grows_by_a_tenth_moved_a_tenth() -> None:
    start = model(text=3, audio=5)
    found = movements(start, pushed(start, text=0.1, audio=-0.5))
    assert found["text"].joint == pytest.approx(0.1, rel=1e-5)
    assert found["audio"].joint == pytest.approx(0.5, rel=1e-5)
    assert found["text"].alone is None
    assert found["text"].to_dict() == {"joint": found["text"].joint, "alone": None, "share": None}


def test_the_share_is_of_what_it_moves_alone() -> None:
    start, text, audio = model(text=3, audio=5), model(text=3), model(audio=5)
    alone = {"text": (text, pushed(text, text=0.4)), "audio": (audio, copy.deepcopy(audio))}
    found = movements(start, pushed(start, text=0.1, audio=0.1), alone)
    assert found["text"].alone == pytest.approx(0.4, rel=1e-5)
    assert found["text"].share == pytest.approx(0.25, rel=1e-5)
    assert found["audio"].alone == 0.0
    assert found["audio"].share is not None
    assert math.isnan(found["audio"].share)


def test_heads_and_other_encoders_do_not_count() -> None:
    start = model(text=3, audio=5)
    end = pushed(start, audio=3.0)
    with torch.no_grad():
        for parameter in end.heads.parameters():
            parameter.add_(1.0)
    assert movements(start, end)["text"].joint == 0.0


@pytest.mark.parametrize(
    ("end", "alone", "message"),
    [
        (model(text=4, audio=5), {}, "Parameter `end` should be the model of `start`"),
        (model(text=3, audio=5), {"text": (model(text=3), model(text=4))}, r"Parameter `alone\['text'\]` should be"),
        (model(text=3, audio=5), {"text": (model(audio=5), model(audio=5))}, "shares no parameter with it"),
    ],
)
def test_models_that_do_not_fit_are_refused(end: LateFusion, alone: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        movements(model(text=3, audio=5), end, alone)
