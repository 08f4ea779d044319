"""When each word of a known transcript is spoken: forced alignment by PocketSphinx, for English."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from equipoise.features.clip import Clip
from equipoise.features.pronunciation import sounds, spoken
from equipoise.features.sphinx import RATE, decode, make_decoder, sphinx_version
from equipoise.features.transcript import Transcript, Word

LONGEST = 300.0  # seconds; the time that the search takes grows faster than the clip
_BEAMS = (1e-48, 1e-80)  # the second where the first loses a word


def aligner() -> dict[str, str]:
    """Name and version of what aligns, for a recipe.

    Raises:
        ModuleNotFoundError: the extra ``speech`` is not installed.
    """
    return {"pocketsphinx": sphinx_version()}


def align_words(clip: Clip, transcript: Transcript) -> Transcript:
    """Find the words of a transcript in the audio of its clip.

    Words that the dictionary lacks are sounded out by their letters, numbers are read as cardinals. A token without
    anything to pronounce, such as a dash, belongs to the word before it. The search trusts the transcript: words
    that are not spoken are placed somewhere all the same.

    Args:
        clip: what the transcript belongs to; up to five minutes.
        transcript: one that has times already stays as it is.

    Returns:
        The transcript with words and ``timing="aligned"``; as it was where that can't be done, and the clip's notes
        say why.

    Raises:
        MediaError: the audio can't be decoded.
        ModuleNotFoundError: the extra ``speech`` is not installed.
    """
    if transcript.words is not None:
        return transcript
    tokens = _tokens(transcript.text)
    unknown = sorted({word for _, words in tokens for word in words if not sounds(word)})
    if not tokens or not tokens[0][1]:
        return _not_aligned(clip, transcript, "it has no word")
    if unknown:
        return _not_aligned(clip, transcript, f"no English pronunciation is known of {unknown[0]!r}")
    if clip.duration > LONGEST:
        return _not_aligned(clip, transcript, f"the clip is longer than {LONGEST:.0f} s; cut it into segments")
    blocks = [block.samples for block in clip.audio(RATE)]
    if not blocks:
        return _not_aligned(clip, transcript, "there is no audio track")
    found = _find([word for _, words in tokens for word in words], np.concatenate(blocks))
    if not found:
        return _not_aligned(clip, transcript, "the words were not found in the audio")
    aligned, row = [], 0
    for text, words in tokens:
        aligned.append(Word(text, found[row].start, min(found[row + len(words) - 1].end, clip.duration)))
        row += len(words)
    return Transcript(transcript.text, tuple(aligned), transcript.origin, "aligned")


def _not_aligned(clip: Clip, transcript: Transcript, reason: str) -> Transcript:
    clip.note(f"words not aligned: {reason}")
    return transcript


def _tokens(text: str) -> list[tuple[str, list[str]]]:
    """Written tokens with their spoken words; what isn't spoken joins the token before it, or the first after it."""
    tokens: list[tuple[str, list[str]]] = []
    for token in text.split():
        words = spoken(token)
        if tokens and not (words and tokens[-1][1]):
            last, before = tokens[-1]
            tokens[-1] = (f"{last} {token}", before + words)
        else:
            tokens.append((token, words))
    return tokens


def _find(words: list[str], samples: npt.NDArray[np.float32]) -> list[Word]:
    """All the words with their times; none where they can't all be placed."""
    for beam in _BEAMS:
        decoder = make_decoder(lm=None, beam=beam, wbeam=beam * 1e10, pbeam=beam)
        for word in words:
            if decoder.lookup_word(word) is None:
                decoder.add_word(word, sounds(word))
        decoder.set_align_text(" ".join(words))
        found = decode(decoder, samples)
        if len(found) == len(words):
            return found
    return []
