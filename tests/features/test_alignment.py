from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.features.clips import noise, square, write_clip

from equipoise.features.alignment import align_words, aligner
from equipoise.features.clip import Clip, open_clip
from equipoise.features.pronunciation import sounds, spoken
from equipoise.features.transcript import Transcript, Word

GRID = {
    "bbaf2n": "bin blue at f two now",
    "brbk7n": "bin red by k seven now",
    "lbax4n": "lay blue at x four now",
    "lbbc2a": "lay blue by c two again",
    "lrwp9a": "lay red with p nine again",
}


def words(transcript: Transcript) -> tuple[Word, ...]:
    assert transcript.words is not None
    return transcript.words


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("Hello,", ["hello"]),
        ("don’t", ["don't"]),
        ("'em", ["em"]),
        ("well-known", ["well", "known"]),
        ("café", ["cafe"]),
        ("—", []),
        ("7", ["seven"]),
        ("22,", ["twenty", "two"]),
        ("340", ["three", "hundred", "forty"]),
        ("1,215,", ["one", "thousand", "two", "hundred", "fifteen"]),
        ("100000", ["one", "hundred", "thousand"]),
        ("007", ["zero", "zero", "seven"]),
        ("1234567", ["one", "two", "three", "four", "five", "six", "seven"]),
        ("50%", ["fifty", "percent"]),
        ("R2D2", ["r", "two", "d", "two"]),
        ("零", ["零"]),
        ("²", ["two"]),
    ],
)
def test_tokens_are_spoken_as_words(token: str, expected: list[str]) -> None:
    assert spoken(token) == expected


@pytest.mark.parametrize(
    ("word", "phones"),
    [
        ("blick", "B L IH K"),
        ("shome", "SH AA M"),
        ("nation", "N AE SH AH N"),
        ("tree", "T R IY"),
        ("quax", "K W AE K S"),
        ("零", ""),
    ],
)
def test_letters_have_sounds(word: str, phones: str) -> None:
    assert sounds(word) == phones


@pytest.mark.parametrize("name", GRID)
def test_the_words_of_a_sentence_lie_where_it_is_loud(shared_data: Path, name: str) -> None:
    clip = open_clip(shared_data / "clips" / f"{name}.mpg")
    aligned = align_words(clip, Transcript(GRID[name]))
    found = words(aligned)
    assert (aligned.timing, aligned.origin, aligned.text) == ("aligned", "labels", GRID[name])
    assert [word.text for word in found] == GRID[name].split()
    assert all(0.03 <= word.end - word.start <= 0.7 for word in found)
    assert all(one.end <= other.start for one, other in pairwise(found))
    sound = np.concatenate([block.samples for block in clip.audio(16000)])
    loud = np.flatnonzero(np.abs(sound) > 0.1 * np.abs(sound).max()) / 16000
    assert found[0].start == pytest.approx(np.quantile(loud, 0.01), abs=0.25)
    assert found[-1].end == pytest.approx(np.quantile(loud, 0.99), abs=0.25)


def test_two_sentences_are_found_where_they_were_put(shared_data: Path, tmp_path: Path) -> None:
    names = ["bbaf2n", "lrwp9a"]
    clips = [open_clip(shared_data / "clips" / f"{name}.mpg") for name in names]
    sounds = [np.concatenate([block.samples for block in clip.audio(16000)]) for clip in clips]
    alone = [words(align_words(clip, Transcript(GRID[name]))) for clip, name in zip(clips, names, strict=True)]
    path = write_clip(
        tmp_path / "both.wav", audio=np.concatenate([np.zeros(12345, np.float32), *sounds]), audio_codec="pcm_s16le"
    )
    together = words(align_words(open_clip(path), Transcript(" ".join(GRID[name] for name in names))))
    offsets = np.cumsum([12345, len(sounds[0])]) / 16000
    expected = [word.start + offset for row, offset in zip(alone, offsets, strict=True) for word in row]
    assert [word.start for word in together] == pytest.approx(expected, abs=0.05)


def test_unknown_words_numbers_and_dashes_have_times_too(shared_data: Path) -> None:
    path = shared_data / "clips" / "bbaf2n.mpg"
    plain = words(align_words(open_clip(path), Transcript(GRID["bbaf2n"])))
    written = words(align_words(open_clip(path), Transcript("Bin -- bloo at F 2, now!")))
    assert [word.text for word in written] == ["Bin --", "bloo", "at", "F", "2,", "now!"]
    assert [word.start for word in written] == pytest.approx([word.start for word in plain], abs=0.05)


def test_the_same_clip_gives_the_same_times_whatever_came_before(shared_data: Path) -> None:
    def align(name: str) -> Transcript:
        return align_words(open_clip(shared_data / "clips" / f"{name}.mpg"), Transcript(GRID[name]))

    first = align("lbax4n")
    align("brbk7n")
    assert align("lbax4n") == first


def test_a_segment_has_times_of_its_own(shared_data: Path) -> None:
    path = shared_data / "clips" / "bbaf2n.mpg"
    whole = words(align_words(open_clip(path), Transcript(GRID["bbaf2n"])))
    part = words(align_words(open_clip(path, start=0.5, end=2.5), Transcript(GRID["bbaf2n"])))
    assert [word.start + 0.5 for word in part] == pytest.approx([word.start for word in whole], abs=0.05)


def test_what_cannot_be_aligned_stays_and_says_why(tmp_path: Path) -> None:
    def note(text: str, clip: Clip) -> list[str]:
        assert align_words(clip, Transcript(text)) == Transcript(text)
        return clip.notes

    path = write_clip(tmp_path / "noise.wav", audio=noise(0.3), audio_codec="pcm_s16le")
    assert note("-- !", open_clip(path)) == ["words not aligned: it has no word"]
    assert note("我 爱 你", open_clip(path)) == ["words not aligned: no English pronunciation is known of '你'"]
    long = Clip(path, 0.0, 301.0, open_clip(path).facts)
    assert "longer than 300 s" in note("hello", long)[0]
    many = " ".join(["extraordinary"] * 20)  # 260 sounds do not fit into 0.3 s
    assert note(many, open_clip(path)) == ["words not aligned: the words were not found in the audio"]
    mute = write_clip(tmp_path / "mute.mp4", pictures=(square(n) for n in range(5)))
    assert note("hello", open_clip(mute)) == ["words not aligned: there is no audio track"]


def test_times_that_are_known_stay(tmp_path: Path) -> None:
    known = Transcript("hi", (Word("hi", 0, 1),), "sidecar", "sidecar")
    clip = Clip(tmp_path / "never opened.mp4", 0, 1, {})
    assert align_words(clip, known) is known


def test_what_aligns_is_named() -> None:
    assert set(aligner()) == {"pocketsphinx"}
