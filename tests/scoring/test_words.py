"""Words inside transcripts, and what the score would be without each."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.scoring.clips import WIDTHS, about, random_clip, with_bert

from equipoise.features.transcript import Transcript, Word
from equipoise.scoring.score import score_clips
from equipoise.scoring.words import Span, without, word_spans


def words_of(transcript: Transcript) -> list[tuple[str, float | None, float | None]]:
    return [(transcript.text[s.first : s.last], s.start, s.end) for s in word_spans(transcript)]


def test_plain_words_have_no_times() -> None:
    assert words_of(Transcript(" So, it's  good. ")) == [
        ("So,", None, None),
        ("it's", None, None),
        ("good.", None, None),
    ]
    assert words_of(Transcript("")) == []


def test_as_many_timed_words_as_written_ones() -> None:
    said = (Word("so", 0.1, 0.2), Word("good", 0.3, 0.5))
    assert words_of(Transcript("So, good!", said)) == [("So,", 0.1, 0.2), ("good!", 0.3, 0.5)]


def test_timed_words_inside_a_text_without_spaces() -> None:
    said = (Word("今天", 0.1, 0.4), Word("很", 0.4, 0.6), Word("好", 0.6, 0.9))
    assert words_of(Transcript("今天很好。", said)) == [("今天", 0.1, 0.4), ("很", 0.4, 0.6), ("好", 0.6, 0.9)]


def test_timed_words_that_the_text_does_not_hold() -> None:
    said = (Word("other", 0.1, 0.4), Word("words", 0.4, 0.6), Word("here", 0.6, 0.9))
    assert words_of(Transcript("So good", said)) == [("So", None, None), ("good", None, None)]


def test_a_word_taken_out() -> None:
    assert [without("a very good film", s) for s in word_spans(Transcript("a very good film"))] == [
        "very good film",
        "a good film",
        "a very film",
        "a very good",
    ]
    assert without("alone", Span(0, 5)) == ""


@pytest.mark.parametrize("absent", [{}, {"vision": "no face"}])
def test_a_weight_is_what_the_score_loses(bert: Path, absent: dict[str, str]) -> None:
    model, info = with_bert(bert, outputs=2), about(WIDTHS, text=bert, classes=("x", "y"))
    clip = random_clip(2, text="not very good", absent=absent)
    company = [random_clip(7, frames=9, absent=absent), clip]
    score = score_clips(model, info, company, words=True)[1]
    assert score.words is not None
    assert [each.text for each in score.words] == ["not", "very", "good"]
    for each, rest in zip(score.words, ("very good", "not good", "not very"), strict=True):
        less = score_clips(model, info, [random_clip(2, text=rest, absent=absent)])[0]
        for name in ("x", "y"):
            assert each.weights[name] == pytest.approx(score.values[name] - less.values[name], abs=1e-6)
    assert any(abs(each.weights["x"]) > 1e-5 for each in score.words)


def test_more_words_than_fit_a_batch(bert: Path) -> None:
    model, info = with_bert(bert), about(WIDTHS, text=bert)
    text = "a good film " * 13
    (score,) = score_clips(model, info, [random_clip(1, text=text)], words=True)
    assert score.words is not None
    assert [each.text for each in score.words] == text.split()
    assert all(abs(each.weights["score"]) < 1e-6 for each in score.words[20:])  # beyond the 16 tokens that are read
    less = score_clips(model, info, [random_clip(1, text=text[2:])])[0]
    assert score.words[0].weights["score"] == pytest.approx(score.values["score"] - less.values["score"], abs=1e-6)


@pytest.mark.parametrize("given", [{"words": False}, {"words": True, "only": ["audio"]}])
def test_no_weights_where_not_asked_or_without_text(bert: Path, given: dict[str, object]) -> None:
    model, info = with_bert(bert), about(WIDTHS, text=bert)
    (score,) = score_clips(model, info, [random_clip(1)], **given)  # type: ignore[arg-type]
    assert score.words is None
