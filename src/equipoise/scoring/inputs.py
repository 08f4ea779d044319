"""From the features of clips to batches that a model reads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from equipoise.core import Batch
from equipoise.data.ragged import Array
from equipoise.extraction.extracted import ExtractedClip
from equipoise.features.text import TextReader
from equipoise.training.model_info import ModelInfo

TOO_LONG = (20, 10_000)  # times the longest sequence of training, and frames: no attention over that fits in memory


@dataclass(frozen=True)
class ClipInputs:
    """What a model reads of one clip.

    Attributes:
        arrays: ``{m: [T, d]}`` features or ``{m: [T]}`` token ids, in the model's order.
        missing: ``{m: reason}`` of the others, and of text where it is empty.
        notes: of the streams, and where they are unlike those of training.
        error: why the clip can't be scored; empty where it can.
    """

    arrays: dict[str, Array]
    missing: dict[str, str]
    notes: tuple[str, ...] = ()
    error: str = ""


def clip_inputs(
    info: ModelInfo, clips: Sequence[ExtractedClip], reader: TextReader | None, only: Collection[str] | None
) -> list[ClipInputs]:
    """What a model reads of each clip.

    A clip without words lacks text; if the model was trained on such clips too, it reads an empty text as it did there.

    Args:
        info: of the model.
        clips: any number.
        reader: of transcripts, where the model reads them.
        only: the modalities to use; None for all that there are.
    """
    left_out = set(info.modalities) - set(info.modalities if only is None else only)
    asked = reader is not None and "text" not in left_out
    texts = {i: clip.transcript.text for i, clip in enumerate(clips) if asked and clip.transcript is not None}
    texts = {i: text for i, text in texts.items() if text.strip()}
    read: dict[int, Array] = {}
    cut: set[int] = set()
    if reader is not None and asked:
        *said, nothing = reader([*texts.values(), ""])
        read = dict(zip(texts, said, strict=True))
        cut = {i for i, text in texts.items() if reader.cut(text)}
        if info.modalities["text"].shortest <= len(nothing):  # some clips of training had no words either
            read = {i: read.get(i, nothing) for i in range(len(clips))}
    return [
        _of_clip(info, clip, read.get(i), wordless=i not in texts, cut=i in cut, left_out=left_out, asked=asked)
        for i, clip in enumerate(clips)
    ]


def make_batch(inputs: Sequence[ClipInputs]) -> Batch:
    """One padded batch of clips that have the same modalities; there are no targets, and zeros stand for them."""
    values, masks = {}, {}
    for name in inputs[0].arrays:
        values[name], masks[name] = padded([clip.arrays[name] for clip in inputs])
    return Batch(values, masks, torch.zeros(len(inputs)), torch.arange(len(inputs)))


def padded(arrays: Sequence[Array]) -> tuple[torch.Tensor, torch.Tensor]:
    """``[B, T, d]`` (or ``[B, T]`` token ids) with zeros behind each end, and the mask ``[B, T]``."""
    longest = max(map(len, arrays))
    whole = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), arrays[0].dtype)
    for out, array in zip(whole, arrays, strict=True):
        out[: len(array)] = array
    mask = torch.arange(longest) < torch.tensor([len(array) for array in arrays]).unsqueeze(1)
    tensor = torch.from_numpy(whole)
    return tensor if tensor.is_floating_point() else tensor.long(), mask


def _of_clip(
    info: ModelInfo,
    clip: ExtractedClip,
    text: Array | None,
    *,
    wordless: bool,
    cut: bool,
    left_out: Collection[str],
    asked: bool,
) -> ClipInputs:
    arrays: dict[str, Array] = {}
    missing: dict[str, str] = {}
    notes = [f"text: longer than the {info.text.max_tokens} tokens that the model reads"] if cut and info.text else []
    for name, about in info.modalities.items():
        if name in left_out:
            missing[name] = "left out"
        elif name == "text" and asked:
            if wordless:
                missing[name] = "no transcript" if clip.transcript is None else "the transcript is empty"
            if text is not None:
                arrays[name] = text
        elif name not in clip.streams:
            missing[name] = "not given"
        elif clip.streams[name].absent:
            missing[name] = clip.streams[name].absent
        else:
            arrays[name] = clip.streams[name].values
            notes += [f"{name}: {note}" for note in clip.streams[name].notes]
            if arrays[name].shape[1] != about.dim:
                found = f"{arrays[name].shape[1]} wide, and the model reads {about.dim}: they are other features"
                return ClipInputs({}, {}, (), f"Modality {name} is {found}.")
            frames, times = len(arrays[name]), len(arrays[name]) / max(1, about.longest)
            if times > TOO_LONG[0] and frames > TOO_LONG[1]:
                long = f"Modality {name} has {frames} frames, and in training the longest clip had {about.longest}"
                return ClipInputs({}, {}, (), f"{long}: score the clip in windows.")
            if times > 1:
                notes.append(f"{name}: {frames} frames, the longest clip of training had {about.longest}")
    if not set(arrays) - set(missing):
        why = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        return ClipInputs({}, missing, (), f"The clip has nothing that the model reads ({why}).")
    return ClipInputs(arrays, missing, tuple(notes))
