"""The whole chain on real clips: one second of face and voice each, from the GRID corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.extraction.choose import choose_recipe
from equipoise.extraction.clip_features import columns_of
from equipoise.models import LateFusion
from equipoise.scoring.predict import Request, score_file
from equipoise.scoring.score import Scorer
from equipoise.training.model_info import ModelInfo
from equipoise.training.pretrained import save_pretrained

CLIPS = sorted((Path(__file__).resolve().parents[3] / "shared/data/clips").glob("*.mpg"))
pytestmark = pytest.mark.skipif(not CLIPS, reason="needs the GRID clips in ../shared/data/clips")


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> Scorer:
    recipe = choose_recipe(text=False, arguments={"vision": {"rate": 5.0}})
    widths = {name: len(columns) for name, columns in columns_of(recipe).items()}
    modalities = {name: ModalityInfo(width, "float32", 9, 1, 3.0, 75, 0) for name, width in widths.items()}
    info = ModelInfo(modalities, LabelInfo("regression", 1), "grid", "made", True, extraction=recipe.to_json())
    torch.manual_seed(0)
    model = LateFusion(dims=widths, hidden=4)
    return Scorer(save_pretrained(model, tmp_path_factory.mktemp("model") / "m", info))


def test_a_clip_from_file_to_score(scorer: Scorer) -> None:
    (score,) = score_file(scorer, CLIPS[0], Request())
    assert score.error == ""
    assert score.used == ("audio", "vision")
    assert np.isfinite(list(score.values.values())).all()
    assert score.end == pytest.approx(3.0, abs=0.1)


def test_a_clip_that_is_cut_off_under_another_name(scorer: Scorer, tmp_path: Path) -> None:
    whole = CLIPS[0].read_bytes()
    (tmp_path / "обрезанный клип.mpg").write_bytes(whole[: len(whole) // 2])
    (score,) = score_file(scorer, tmp_path / "обрезанный клип.mpg", Request())
    assert score.error == ""
    assert score.end < 2.5
    pieces = score_file(scorer, CLIPS[0], Request(window=1.0))
    assert [round(piece.start) for piece in pieces] == [0, 1, 2]
    assert all(piece.used == ("audio", "vision") for piece in pieces)
    sound = score_file(scorer, CLIPS[0], replace(Request(), only=("audio",)))[0]
    assert sound.missing == {"vision": "left out"}
