"""The example's whole chain, small: clips to a dataset, a model, and scores that tell the two new clips apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.layers.tiny_bert import save_tiny_bert

from examples import clips_to_scores


def test_the_new_clips_are_told_apart(tmp_path: Path) -> None:
    encoder = save_tiny_bert(tmp_path / "bert")
    liked, disliked = clips_to_scores.main(tmp_path / "out", count=32, epochs=12, encoder=str(encoder), jobs=1)
    assert liked.values["score"] > 0.5 > -0.5 > disliked.values["score"]
    for score in (liked, disliked):
        assert score.error == ""
        assert score.missing == {}
        assert set(score.used) == {"text", "audio"}
        assert score.interval is not None
        low, high = score.interval["score"]
        assert -3 <= low < high <= 3
        total = score.baseline["score"] + sum(share["score"] for share in score.contributions.values())
        assert total == pytest.approx(score.values["score"], abs=1e-9)
    assert [word.text for word in liked.words or ()] == ["a", "good", "film"]
