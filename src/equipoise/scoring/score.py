"""What a model says of clips: value or class, how sure, from which modality, without which."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from equipoise.core import SubsetPredict
from equipoise.diagnostics.shapley import Floats, shapley_values
from equipoise.extraction.extracted import ExtractedClip
from equipoise.extraction.recipe import Recipe
from equipoise.features.text import TextReader
from equipoise.scoring.inputs import ClipInputs, clip_inputs, make_batch
from equipoise.scoring.intervals import check_level, interval_of
from equipoise.scoring.result import ClipScore, WordWeight
from equipoise.scoring.words import word_weights
from equipoise.training.model_info import ModelInfo
from equipoise.training.pretrained import from_pretrained
from equipoise.training.steps import subset_predict

__all__ = ["ClipScore", "Scorer", "WordWeight", "output_names", "score_clips", "text_reader"]

LEVEL = 0.9
_BATCH = 32


class Scorer:
    """A saved model, opened once to score many clips.

    Args:
        name_or_path: what `equipoise export` wrote, or a name on the Hugging Face Hub.
        revision: of a hub name.

    Attributes:
        model: in evaluation mode, on the CPU.
        info: what the saved model says of itself.

    Raises:
        FileNotFoundError: no such model.
        ValueError: the folder is damaged, or no saved model.
    """

    def __init__(self, name_or_path: str | Path, *, revision: str | None = None) -> None:
        self.name = str(name_or_path)
        self.model, self.info = from_pretrained(name_or_path, revision=revision)
        self._reader = text_reader(self.info)

    def recipe(self, only: Collection[str] | None = None) -> Recipe:
        """How clips become what the model reads: the recipe of its training, without what it does not read.

        Args:
            only: the modalities to use; None for all that the model reads.

        Raises:
            ValueError: the model was trained on feature files, or by an equipoise that knew other settings.
        """
        if self.info.extraction is None:
            raise ValueError(
                f"{self.name} was trained on feature files, and nothing says how to make such features from a clip. "
                "Use a model of a dataset that `equipoise extract` made."
            )
        try:
            recipe = Recipe(**self.info.extraction)
        except TypeError as error:
            raise ValueError(f"{self.name} was saved with another equipoise's recipe for clips: {error}.") from None
        read = set(self.info.modalities if only is None else only)
        heard = "text" in read or recipe.align == "words"
        return replace(
            recipe,
            audio=recipe.audio if "audio" in read else None,
            vision=recipe.vision if "vision" in read else None,
            speech=recipe.speech if heard else None,
        )

    def score(
        self,
        clips: Sequence[ExtractedClip],
        *,
        only: Collection[str] | None = None,
        level: float = LEVEL,
        words: bool = False,
    ) -> list[ClipScore]:
        """As `score_clips`, with this model."""
        return score_clips(self.model, self.info, clips, only=only, level=level, words=words, reader=self._reader)


def text_reader(info: ModelInfo) -> TextReader | None:
    """What turns transcripts into what a model reads; None where it reads no transcripts."""
    text = info.text
    if text is None:
        return None
    return TextReader(text.encoder, max_tokens=text.max_tokens, vectors=text.mode == "frozen")


def output_names(info: ModelInfo) -> tuple[str, ...]:
    """The classes, or the targets; a single target without a name is ``score``."""
    labels = info.labels
    numbers = tuple(map(str, range(labels.outputs)))
    if labels.kind == "classification":
        return labels.classes or numbers
    return labels.targets or (("score",) if labels.outputs == 1 else numbers)


@torch.no_grad()
def score_clips(
    model: nn.Module,
    info: ModelInfo,
    clips: Sequence[ExtractedClip],
    *,
    only: Collection[str] | None = None,
    level: float = LEVEL,
    words: bool = False,
    reader: TextReader | None = None,
    batch_size: int = _BATCH,
) -> list[ClipScore]:
    """What a model says of each clip, in the order given.

    Clips that have the same modalities are computed together; a clip's score does not depend on its company, up to
    rounding.

    Args:
        model: exposes ``encode`` and ``fuse``, in evaluation mode, on the CPU.
        info: what surrounds it.
        clips: extracted as ``info.extraction`` says.
        only: the modalities to use; None for all that a clip has.
        level: of intervals, one of those that the saved model holds.
        words: also the weight of each word.
        reader: of transcripts, from `text_reader`; None to make one.
        batch_size: clips at once.

    Raises:
        ValueError: ``only`` names what the model does not read, or a ``level`` that it does not hold.
    """
    if unknown := sorted(set(only or ()) - set(info.modalities)):
        raise ValueError(f"The model reads {', '.join(info.modalities)}. Found {', '.join(unknown)}.")
    if only is not None and not only:
        raise ValueError("Parameter `only` should name at least one modality. Found none.")
    check_level(info, level)
    if reader is None:
        reader = text_reader(info)
    inputs = clip_inputs(info, clips, reader, only)
    scores = [
        ClipScore(clip.id, end=clip.duration, missing=each.missing, notes=clip.notes, error=each.error)
        for clip, each in zip(clips, inputs, strict=True)
    ]
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, each in enumerate(inputs):
        if not each.error:
            groups.setdefault(tuple(each.arrays), []).append(i)
    for rows in groups.values():
        rows.sort(key=lambda i: sum(map(len, inputs[i].arrays.values())))
        for start in range(0, len(rows), batch_size):
            piece = rows[start : start + batch_size]
            found = _score(model, info, [inputs[i] for i in piece], [clips[i] for i in piece], level, words, reader)
            for i, score in zip(piece, found, strict=True):
                scores[i] = replace(score, notes=(*clips[i].notes, *inputs[i].notes, *score.notes))
    return scores


def _score(
    model: nn.Module,
    info: ModelInfo,
    inputs: Sequence[ClipInputs],
    clips: Sequence[ExtractedClip],
    level: float,
    words: bool,
    reader: TextReader | None,
) -> list[ClipScore]:
    """The scores of clips that have the same modalities."""
    batch, net, names, outputs = make_batch(inputs), cast(Any, model), tuple(inputs[0].arrays), output_names(info)
    encoded = net.encode(batch)

    def answer(logits: Tensor) -> Tensor:
        values = logits.double().reshape(len(logits), -1)
        return values.softmax(dim=1) if info.labels.kind == "classification" else values

    values = answer(net.fuse(encoded).logits)
    baseline, shares = _contributions(subset_predict(model, batch, encoded), names, values, answer)
    found = []
    for row, (clip, each) in enumerate(zip(clips, inputs, strict=True)):
        score = ClipScore(clip.id, end=clip.duration, missing=each.missing, transcript=clip.transcript)
        if not bool(values[row].isfinite().all()):
            found.append(replace(score, error="What the model says is not a number."))
            continue
        said = dict(zip(outputs, values[row].tolist(), strict=True))
        interval, likely, why = interval_of(info, said, names, level)
        weights = None
        if words and "text" in names and reader is not None and clip.transcript is not None:
            own = encoded if len(clips) == 1 else net.encode(make_batch([each]))
            weights = word_weights(
                model, own, clip.transcript, values[row], reader=reader, answer=answer, outputs=outputs
            )
        found.append(
            replace(
                score,
                values=said,
                label=max(said, key=said.__getitem__) if info.labels.kind == "classification" else None,
                interval=interval,
                likely=likely,
                level=None if why else level,
                baseline=dict(zip(outputs, baseline[row].tolist(), strict=True)),
                contributions={m: dict(zip(outputs, shares[m][row].tolist(), strict=True)) for m in names},
                words=weights,
                notes=(why,) if why else (),
            )
        )
    return found


def _contributions(
    predict: SubsetPredict, names: tuple[str, ...], values: Tensor, answer: Any
) -> tuple[Floats, dict[str, Floats]]:
    """``[B, R]`` outputs with everything muted, and each modality's Shapley value ``[B, R]`` above them."""
    baseline = answer(predict(frozenset())).numpy()

    def above(kept: frozenset[str]) -> Floats:
        found: Floats = (values if len(kept) == len(names) else answer(predict(kept))).numpy() - baseline
        return found

    return baseline, {name: np.asarray(value) for name, value in shapley_values(above, names).values.items()}
