"""Scores of clips against numbers worked out by hand, and against the model itself."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
import torch
from tests.scoring.clips import WIDTHS, about, calibration, linear, random_clip, stream, with_bert
from torch import nn

from equipoise.core import Batch
from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.stream import no_frames
from equipoise.features.text import tokenize
from equipoise.features.transcript import Transcript
from equipoise.models import TFN
from equipoise.scoring.score import ClipScore, score_clips
from equipoise.training.steps import subset_predict


def same(one: ClipScore, other: ClipScore) -> None:
    assert one.id == other.id
    assert one.values == pytest.approx(other.values, abs=1e-5)
    assert list(one.contributions) == list(other.contributions)
    for name, share in one.contributions.items():
        assert share == pytest.approx(other.contributions[name], abs=1e-5)


def test_a_linear_model_by_hand() -> None:
    model = linear({"audio": [[1.0, 2.0]], "vision": [[-1.0]]}, [0.5])
    info = about({"audio": 2, "vision": 1}, calibration=calibration({"audio+vision": 0.25}))
    clip = ExtractedClip("a", {"audio": stream([[1, 0], [3, 1]]), "vision": stream([[0.5]])}, None, 0.2)
    (score,) = score_clips(model, info, [clip])
    # audio: mean (2, 0.5), so 2 + 1 = 3; vision: -0.5; muted, both are zeros and leave the bias.
    assert score.values == {"score": 3.0}
    assert score.baseline == {"score": 0.5}
    assert score.contributions == {"audio": {"score": 3.0}, "vision": {"score": -0.5}}
    assert score.interval == {"score": (2.75, 3.0)}  # 3 ± 0.25, cut to the labels' range
    assert (score.label, score.likely, score.missing, score.notes, score.error) == (None, None, {}, (), "")
    assert score.used == ("audio", "vision")


def test_classes_by_hand() -> None:
    model = linear({"audio": [[1.0], [0.0], [0.0]], "vision": [[0.0], [1.0], [0.0]]}, [0.0, 0.0, 0.0])
    info = about(
        {"audio": 1, "vision": 1}, classes=("joy", "rage", "calm"), calibration=calibration({"audio+vision": 0.7})
    )
    log = torch.log(torch.tensor([5.0, 3.0])).tolist()
    clip = ExtractedClip("a", {"audio": stream([[log[0]]]), "vision": stream([[log[1]]])}, None, 0.1)
    (score,) = score_clips(model, info, [clip])
    # logits (ln 5, ln 3, 0) are odds 5 : 3 : 1; audio alone 5 : 1 : 1, vision alone 1 : 3 : 1, neither 1 : 1 : 1.
    assert score.values == pytest.approx({"joy": 5 / 9, "rage": 3 / 9, "calm": 1 / 9}, abs=1e-6)
    assert score.label == "joy"
    audio = ((5 / 7 - 1 / 3) + (5 / 9 - 1 / 5)) / 2
    assert score.contributions["audio"]["joy"] == pytest.approx(audio, abs=1e-6)
    assert score.likely == ("joy", "rage")  # 1 - 5/9 and 1 - 3/9 are at most 0.7, 1 - 1/9 is more
    assert score.interval is None


def test_contributions_are_shapley_values_and_add_up(bert: Path) -> None:
    model, info = with_bert(bert), about(WIDTHS, text=bert)
    clip = random_clip(4)
    (score,) = score_clips(model, info, [clip])
    tokens = torch.from_numpy(next(iter(tokenize(["a good film"], bert, 16)))).long()[None]
    values = {"text": tokens, **{n: torch.from_numpy(s.values)[None] for n, s in clip.streams.items()}}
    masks = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in values.items()}
    batch = Batch(values, masks, torch.zeros(1), torch.arange(1))
    with torch.no_grad():
        assert score.values["score"] == pytest.approx(model(batch).logits.item(), abs=1e-6)
        predict = subset_predict(model, batch, model.encode(batch))  # type: ignore[operator]
        orders = list(permutations(WIDTHS))
        for name in WIDTHS:  # the mean over orders of what a modality adds to those before it
            added = [
                predict(frozenset([*o[: o.index(name)], name])) - predict(frozenset(o[: o.index(name)])) for o in orders
            ]
            mean = float(torch.stack(added).mean())
            assert score.contributions[name]["score"] == pytest.approx(mean, abs=1e-6)
    total = score.baseline["score"] + sum(share["score"] for share in score.contributions.values())
    assert total == pytest.approx(score.values["score"], abs=1e-9)


def test_company_and_order_change_nothing(bert: Path) -> None:
    model, info = with_bert(bert, outputs=3), about(WIDTHS, text=bert, classes=("x", "y", "z"))
    clips = [
        random_clip(0),
        random_clip(1, absent={"vision": "no face"}),
        random_clip(2, frames=9, text=None),
        random_clip(3, absent={"audio": "no audio track", "vision": "no face"}),
        random_clip(4, frames=2),
        random_clip(5, absent={"vision": "no face"}),
    ]
    together = score_clips(model, info, clips, batch_size=2)
    assert [score.id for score in together] == [clip.id for clip in clips]
    for clip, score in zip(clips, together, strict=True):
        same(score, score_clips(model, info, [clip])[0])
    for score, backwards in zip(together, reversed(score_clips(model, info, clips[::-1])), strict=True):
        same(score, backwards)


def test_what_is_missing_is_said_and_has_no_part(bert: Path) -> None:
    model, info = with_bert(bert), about(WIDTHS, text=bert)
    lacking = random_clip(6, absent={"vision": "no face in any of 5 pictures"}, text="  ")
    whole = random_clip(6)
    one, left_out = score_clips(model, info, [lacking])[0], score_clips(model, info, [whole], only=["audio"])[0]
    assert one.missing == {"vision": "no face in any of 5 pictures", "text": "the transcript is empty"}
    assert left_out.missing == {"text": "left out", "vision": "left out"}
    same(one, left_out)
    assert one.used == ("audio",)
    alone = one.baseline["score"] + one.contributions["audio"]["score"]
    assert alone == pytest.approx(one.values["score"], abs=1e-9)


def test_an_empty_text_is_read_as_in_training_if_there_were_some(bert: Path) -> None:
    model = with_bert(bert)
    silent = random_clip(6, text=None)
    (score,) = score_clips(model, about(WIDTHS, text=bert, shortest=2), [silent])
    assert score.missing == {"text": "no transcript"}
    assert score.used == ("text", "audio", "vision")
    info, (tokens,) = about(WIDTHS, text=bert), list(tokenize([""], bert, 16))
    values = {"text": torch.from_numpy(tokens).long()[None]}
    values |= {name: torch.from_numpy(stream.values)[None] for name, stream in silent.streams.items()}
    masks = {name: torch.ones(x.shape[:2], dtype=torch.bool) for name, x in values.items()}
    with torch.no_grad():
        expected = model(Batch(values, masks, torch.zeros(1), torch.arange(1))).logits.item()
    assert score.values["score"] == pytest.approx(expected, abs=1e-6)
    assert score_clips(model, info, [silent])[0].used == ("audio", "vision")
    empty = random_clip(6, text=None, absent={"audio": "no audio track", "vision": "no face"})
    assert "nothing that the model reads" in score_clips(model, about(WIDTHS, text=bert, shortest=2), [empty])[0].error


def test_text_alone_needs_no_streams(bert: Path) -> None:
    model, info = with_bert(bert), about(WIDTHS, text=bert)
    (score,) = score_clips(model, info, [ExtractedClip("t", {}, Transcript("a bad film"), 0.0)])
    assert score.missing == {"audio": "not given", "vision": "not given"}
    other = score_clips(model, info, [random_clip(1, text="a bad film")], only=["text"])[0]
    assert score.values == pytest.approx(other.values, abs=1e-6)
    assert score.values != score_clips(model, info, [ExtractedClip("t", {}, Transcript("a good film"), 0.0)])[0].values


def test_a_clip_with_nothing_is_told_and_stops_no_other(bert: Path) -> None:
    model, info = with_bert(bert), about(WIDTHS, text=bert)
    empty = random_clip(1, absent={"audio": "no audio track", "vision": "no face"}, text=None)
    first, second = score_clips(model, info, [empty, random_clip(2)])
    assert "nothing that the model reads" in first.error
    assert "no face" in first.error
    assert not first.values
    assert second.values
    assert not second.error


@pytest.mark.parametrize(
    ("frames", "longest", "note", "error"),
    [(5, 5, False, False), (6, 5, True, False), (10_001, 500, False, True), (10_001, 501, True, False)],
)
def test_clips_longer_than_those_of_training(frames: int, longest: int, note: bool, error: bool) -> None:
    model, info = linear({"audio": [[1.0]]}, [0.0]), about({"audio": 1}, longest=longest)
    (score,) = score_clips(model, info, [ExtractedClip("a", {"audio": stream([[1.0]] * frames)}, None, 1.0)])
    assert bool([n for n in score.notes if f"{frames} frames" in n]) == note
    assert ("in windows" in score.error) == error


def test_other_features_are_refused() -> None:
    model, info = linear({"audio": [[1.0, 1.0]]}, [0.0]), about({"audio": 2})
    (score,) = score_clips(model, info, [ExtractedClip("a", {"audio": stream([[1.0]])}, None, 1.0)])
    assert "1 wide, and the model reads 2" in score.error


def test_a_model_that_says_nan() -> None:
    model, info = linear({"audio": [[float("inf")]]}, [-float("inf")]), about({"audio": 1})
    (score,) = score_clips(model, info, [ExtractedClip("a", {"audio": stream([[1.0]])}, None, 1.0)])
    assert score.error == "What the model says is not a number."


def test_notes_of_the_clip_come_first(bert: Path) -> None:
    model, info = with_bert(bert), about(WIDTHS, text=bert)
    (score,) = score_clips(model, info, [random_clip(1, notes=("the file is cut off",), text="a " * 40)])
    assert score.notes[0] == "the file is cut off"
    assert "longer than the 16 tokens" in score.notes[1]
    faces = replace(random_clip(1).streams["vision"], notes=("no face in 3 of 6 pictures",))
    lost = replace(random_clip(1), streams={"vision": faces})
    assert "vision: no face in 3 of 6 pictures" in score_clips(model, info, [lost])[0].notes


def test_several_targets_have_names_and_intervals_of_their_own() -> None:
    model = linear({"audio": [[1.0], [2.0]]}, [0.0, 0.0])
    info = about({"audio": 1}, outputs=2)
    (score,) = score_clips(model, info, [ExtractedClip("a", {"audio": stream([[3.0]])}, None, 1.0)])
    assert score.values == {"0": 3.0, "1": 6.0}
    assert score.notes == ("no interval: the model was saved without errors on validation data",)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"only": ["smell"]}, "The model reads audio. Found smell."),
        ({"only": []}, "at least one modality"),
        ({"level": 0.5}, "should be one of 0.9, which the model holds. Found `level = 0.5`"),
    ],
)
def test_bad_arguments(given: dict[str, object], message: str) -> None:
    model, info = linear({"audio": [[1.0]]}, [0.0]), about({"audio": 1}, calibration=calibration({"audio": 1.0}))
    with pytest.raises(ValueError, match=message):
        score_clips(model, info, [], **given)  # type: ignore[arg-type]


def test_models_that_fuse_tensors() -> None:
    torch.manual_seed(0)
    widths = {"audio": 3, "vision": 4}
    model: nn.Module = TFN(dims=widths, hidden=8, text_hidden=8, fusion_hidden=8).eval()
    clips = [random_clip(i, text=None) for i in range(3)]
    clips.append(ExtractedClip("lone", {**clips[0].streams, "vision": no_frames(4, "no face")}, None, 1.0))
    for score in score_clips(model, about(widths), clips):
        total = score.baseline["score"] + sum(share["score"] for share in score.contributions.values())
        assert total == pytest.approx(score.values["score"], abs=1e-9)
