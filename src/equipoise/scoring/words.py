"""The words of a transcript, and what the model would say without each of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.diagnostics._nested import picked
from equipoise.features.text import TextReader
from equipoise.features.transcript import Transcript
from equipoise.scoring.inputs import padded
from equipoise.scoring.result import WordWeight

_BATCH = 32


@dataclass(frozen=True, slots=True)
class Span:
    """One word inside a transcript's text: characters ``[first, last)``, and its times where they are known."""

    first: int
    last: int
    start: float | None = None
    end: float | None = None


def word_spans(transcript: Transcript) -> list[Span]:
    """Where the words are: what stands between spaces, or the timed words where the text holds them in order.

    >>> [(s.first, s.last) for s in word_spans(Transcript("So good!"))]
    [(0, 2), (3, 8)]
    """
    plain = [Span(*found.span()) for found in re.finditer(r"\S+", transcript.text)]
    timed = transcript.words or ()
    if len(timed) == len(plain):
        return [Span(s.first, s.last, w.start, w.end) for s, w in zip(plain, timed, strict=True)]
    spans, position = [], 0
    for word in timed:
        first = transcript.text.lower().find(word.text.lower(), position)
        if first < 0 or not word.text:
            return plain
        position = first + len(word.text)
        spans.append(Span(first, position, word.start, word.end))
    return spans or plain


def without(text: str, span: Span) -> str:
    """The text without one word.

    >>> without("not very good", Span(4, 8))
    'not good'
    """
    return " ".join((text[: span.first] + text[span.last :]).split())


@torch.no_grad()
def word_weights(
    model: nn.Module,
    encoded: Mapping[str, Any],
    transcript: Transcript,
    values: Tensor,
    *,
    reader: TextReader,
    answer: Callable[[Tensor], Tensor],
    outputs: tuple[str, ...],
) -> tuple[WordWeight, ...]:
    """What each word adds to each output: the value of the whole text less that of the text without the word.

    Words that only matter together each get little, so that the weights need not add up to anything.

    Args:
        model: exposes ``encode`` and ``fuse``, in evaluation mode.
        encoded: the clip's modalities as the model encodes them, one row.
        transcript: its text is not empty.
        values: ``[R]`` what the model says of the clip.
        reader: of transcripts.
        answer: logits ``[B, ...]`` to outputs ``[B, R]``.
        outputs: R names.
    """
    spans, net = word_spans(transcript), cast(Any, model)
    said = reader([without(transcript.text, span) for span in spans])
    rest = {name: value for name, value in encoded.items() if name != "text"}
    weights: list[WordWeight] = []
    for start in range(0, len(spans), _BATCH):
        tokens, mask = padded(said[start : start + _BATCH])
        count = len(tokens)
        batch = Batch({"text": tokens}, {"text": mask}, torch.zeros(count), torch.arange(count))
        beside = {name: picked(value, torch.zeros(count, dtype=torch.long)) for name, value in rest.items()}
        parts = {**beside, **net.encode(batch)}
        found = answer(net.fuse({name: parts[name] for name in encoded}).logits)
        for span, row in zip(spans[start:], (values - found).tolist(), strict=False):
            text = transcript.text[span.first : span.last]
            weights.append(WordWeight(text, dict(zip(outputs, row, strict=True)), span.start, span.end))
    return tuple(weights)
