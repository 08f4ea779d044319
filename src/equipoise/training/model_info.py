"""What has to be known beside a model's weights to use it: what it reads, what it says, where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from equipoise.data import Dataset
from equipoise.data.manifest import LabelInfo, ModalityInfo
from equipoise.training.calibration import Calibration
from equipoise.training.config import TextConfig


@dataclass(frozen=True, slots=True)
class TextInfo:
    """How transcripts become what the model reads.

    Attributes:
        encoder: the text encoder, as `equipoise.layers.TextEncoder` takes it.
        sha256: of the encoder's weights before any training here.
        mode: ``finetune``, the model holds the encoder and reads token ids; ``frozen``, it reads the encoder's vectors.
        max_tokens: texts are cut to it, special tokens included.
        trainable: the encoder inside the model is trained further.
        origin: what the encoder was called where the model was trained; ``encoder`` if empty.
    """

    encoder: str
    sha256: str
    mode: Literal["finetune", "frozen"]
    max_tokens: int
    trainable: bool = True
    origin: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What surrounds a model; JSON holds all of it.

    Attributes:
        modalities: those that the model reads, in its order: width (0 for token ids), extractor, lengths in training.
        labels: kind of task, number of outputs, classes, range, and the scale whose thresholds the metrics use.
        dataset: name of the dataset.
        source: where the dataset came from.
        synthetic: the data were made up.
        text: how transcripts are read; None where the dataset has text features of its own, or no text.
        run: how it was trained, as far as that is known: protocol, seed, epoch, balancer, loss.
        extraction: how clips became what it was trained on, as `equipoise.extraction.recipe.Recipe` says it; None
            where it was trained on feature files, so that it can read no clips.
        calibration: how far its predictions were from the truth on validation data; None where nobody measured it.
    """

    modalities: dict[str, ModalityInfo]
    labels: LabelInfo
    dataset: str
    source: str
    synthetic: bool
    text: TextInfo | None = None
    run: dict[str, Any] = field(default_factory=dict)
    extraction: dict[str, Any] | None = None
    calibration: Calibration | None = None


def describe(
    dataset: Dataset, names: Sequence[str], text: TextConfig | None = None, run: Mapping[str, Any] | None = None
) -> ModelInfo:
    """The surroundings of a model that was trained on some modalities of a dataset.

    Args:
        dataset: as `equipoise.training.prepare.open_dataset` gives it: with its text features.
        names: the modalities that the model reads, in its order.
        text: which text encoder, if any.
        run: how it was trained.

    Raises:
        FileNotFoundError: the text encoder is no longer where it was.
    """
    manifest = dataset.manifest
    extraction = manifest.extra.get("extraction")
    found = None
    if text is not None and text.encoder is not None:
        from equipoise.layers import find_text_model, weights_sha256

        sha256 = weights_sha256(find_text_model(text.encoder))
        found = TextInfo(text.encoder, sha256, text.mode, text.max_tokens, text.mode == "finetune")
    return ModelInfo(
        modalities={name: manifest.modalities[name] for name in names},
        labels=manifest.labels,
        dataset=manifest.name,
        source=manifest.source,
        synthetic=manifest.synthetic,
        text=found,
        run=dict(run or {}),
        extraction=extraction if isinstance(extraction, dict) else None,
    )
