from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from equipoise.features.captions import parse_captions
from equipoise.features.clip import Clip
from equipoise.features.sidecar import find_sidecar, read_sidecar
from equipoise.features.transcript import Transcript, Word

SRT = """1
00:00:01,000 --> 00:00:02,500
<i>Hello</i> there,
Tom &amp; Ann

2
01:00:02,50 --> 01:00:03,000
{\\an8}bye
"""

ROLLING = """WEBVTT
Kind: captions

NOTE 00:00 is the start
of it

00:00.000 --> 00:02.000 align:start position:0%
we<00:00.500><c> go</c><00:01.250><c> up</c>

00:02.000 --> 00:02.010 align:start position:0%
we go up

00:02.010 --> 00:04.000 align:start position:0%
we go up
and<00:03.000><c> up</c>
"""


def clip(folder: Path, start: float = 0.0, end: float = 10.0) -> Clip:
    return Clip(folder / "talk.mp4", start, end, {"duration": 10.0})


def write(folder: Path, suffix: str, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / f"talk{suffix}").write_text(text, encoding="utf-8")


def test_captions_lose_markup_and_keep_times() -> None:
    assert parse_captions(SRT) == [Word("Hello there, Tom & Ann", 1.0, 2.5), Word("bye", 3602.5, 3603.0)]


def test_times_within_captions_are_times_of_words_and_rolled_up_lines_count_once() -> None:
    assert parse_captions(ROLLING) == [
        Word("we", 0.0, 0.5), Word("go", 0.5, 1.25), Word("up", 1.25, 2.0), Word("and", 2.01, 3.0), Word("up", 3.0, 4.0)
    ]  # fmt: skip


def test_a_plain_caption_may_say_the_same_twice() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\nNo.\n\n2\n00:00:02,000 --> 00:00:03,000\nNo.\n"
    assert [piece.text for piece in parse_captions(text)] == ["No.", "No."]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("hello", "no caption with a time"),
        ("1\n00:00:01 --> 00:00:02\nhi", "line 2: no caption time"),
        ("1\n00:00:05,000 --> 00:00:02,000\nhi", "line 2: a caption ends before it starts"),
    ],
)
def test_broken_captions_say_where(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_captions(text)


def test_no_sidecar_is_no_transcript(tmp_path: Path) -> None:
    assert read_sidecar(clip(tmp_path)) is None


def test_what_has_times_comes_first_and_the_longer_name_is_found(tmp_path: Path) -> None:
    (tmp_path / "talk.mp4.txt").write_text("long name")
    assert find_sidecar(tmp_path / "talk.mp4") == tmp_path / "talk.mp4.txt"
    write(tmp_path, ".txt", "short")
    assert find_sidecar(tmp_path / "talk.mp4") == tmp_path / "talk.txt"
    write(tmp_path, ".srt", SRT)
    assert find_sidecar(tmp_path / "talk.mp4") == tmp_path / "talk.srt"
    assert find_sidecar(tmp_path / "talk.srt") == tmp_path / "talk.txt"  # never the clip itself


def test_text_is_read_for_a_whole_clip_with_any_mark_at_its_start(tmp_path: Path) -> None:
    (tmp_path / "talk.txt").write_bytes("\ufeffzwölf  Boxkämpfer\njagen\n".encode())
    assert read_sidecar(clip(tmp_path)) == Transcript("zwölf Boxkämpfer jagen", origin="sidecar")
    with pytest.raises(ValueError, match=r"talk.txt has no times, so it can't be cut"):
        read_sidecar(clip(tmp_path, 0.0, 5.0))
    write(tmp_path, ".txt", " \n")
    assert read_sidecar(clip(tmp_path)) is None


def test_captions_of_several_words_give_text_without_times(tmp_path: Path) -> None:
    write(tmp_path, ".srt", SRT)
    whole = clip(tmp_path)
    assert read_sidecar(whole) == Transcript("Hello there, Tom & Ann", origin="sidecar")
    assert whole.notes == ["1 parts of talk.srt lie after the end of the clip"]
    # The caption's middle, 1.75, decides.
    assert read_sidecar(clip(tmp_path, 1.7, 5.0)) == Transcript("Hello there, Tom & Ann", origin="sidecar")
    assert read_sidecar(clip(tmp_path, 1.8, 5.0)) is None


WORDS = [{"word": " one", "start": 0.5, "end": 1.0}, {"word": "two ", "start": 2, "end": 3.0}]


@pytest.mark.parametrize(
    "content",
    [
        WORDS,
        {"text": "not read", "words": WORDS},
        {"segments": [{"text": "x", "start": 0, "end": 1, "words": WORDS[:1]}, {"words": WORDS[1:]}]},
        [{"text": word["word"], "start": word["start"], "end": word["end"]} for word in WORDS],
    ],
)
def test_words_of_json_have_times_from_the_start_of_the_segment(tmp_path: Path, content: Any) -> None:
    write(tmp_path, ".json", content)
    assert read_sidecar(clip(tmp_path)) == Transcript(
        "one two", (Word("one", 0.5, 1.0), Word("two", 2.0, 3.0)), "sidecar", "sidecar"
    )
    assert read_sidecar(clip(tmp_path, 2.25, 2.75)) == Transcript("two", (Word("two", 0.0, 0.5),), "sidecar", "sidecar")


def test_segments_where_a_word_has_no_time_are_text_alone(tmp_path: Path) -> None:
    words = [{"word": "in", "start": 1, "end": 1.2}, {"word": "1999"}]
    write(tmp_path, ".json", {"segments": [{"text": " in 1999", "start": 1, "end": 2, "words": words}]})
    assert read_sidecar(clip(tmp_path)) == Transcript("in 1999", origin="sidecar")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ({"speech": "x"}, "there should be `text`, a list of `words`"),
        ([{"word": "a", "start": 2, "end": 1}], "entry 1 of the list should hold"),
        ({"words": [WORDS[0], "two"]}, 'entry 2 of words should hold .* Found "two"'),
        ([{"word": "a", "start": -1, "end": 1}], "entry 1"),
        ('[{"word": "a", "start": NaN, "end": 1}]', "entry 1"),
        ("[" * 100_000, "recursion"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_reason(tmp_path: Path, content: Any, reason: str) -> None:
    write(tmp_path, ".json", content)
    with pytest.raises(ValueError, match=rf"(?s)talk.json can't be read: .*{reason}") as caught:
        read_sidecar(clip(tmp_path))
    assert "\n" not in str(caught.value)


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "talk.srt").write_bytes(SRT.replace("bye", "tschüß").encode("latin-1"))
    with pytest.raises(ValueError, match=r"talk\.srt can't be read: it is not text in UTF-8"):
        read_sidecar(clip(tmp_path))
