"""Pretrained encoders inside a saved model's folder: each a whole Transformers model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from equipoise.layers import TextEncoder, find_text_model
from equipoise.layers.resnet import ResNetEncoder
from equipoise.training.checkpoint import own_copies
from equipoise.training.files import write_durably

WEIGHTS = "model.safetensors"
_KEPT = (".json", ".txt", ".model")  # the config, and tokenizers of every kind


def write_text_encoder(folder: Path, name_or_path: str, tensors: Mapping[str, Tensor] | None) -> None:
    """Write an encoder's config, its tokenizer and its weights.

    Args:
        folder: to be made.
        name_or_path: the encoder that it began as.
        tensors: the weights of a fine-tuned one, by their names in the Transformers model; None keeps the weights as
            they are, byte for byte where they are safetensors.

    Raises:
        FileNotFoundError: the encoder is no longer there.
    """
    source = find_text_model(name_or_path)
    folder.mkdir()
    for path in sorted(source.iterdir()):
        texts = path.suffix in _KEPT and not path.name.endswith(".index.json")
        if path.is_file() and (texts or path.name.startswith(("LICENSE", "NOTICE"))):
            shutil.copyfile(path, folder / path.name)
    whole = source / WEIGHTS
    if tensors is None and whole.is_file():
        shutil.copyfile(whole, folder / WEIGHTS)
        return
    if tensors is None:  # in shards, or pickled by an old release of Transformers
        tensors = TextEncoder(name_or_path, trainable=False).model.state_dict()
    write_weights(folder / WEIGHTS, tensors)


def write_image_encoder(folder: Path, encoder: ResNetEncoder, tensors: Mapping[str, Tensor]) -> None:
    """Write an image encoder's config and its weights.

    Args:
        folder: to be made.
        encoder: whose depth and widths the config has.
        tensors: its weights, by their names in the Transformers model.
    """
    folder.mkdir(parents=True)
    encoder.model.config.save_pretrained(folder)
    write_weights(folder / WEIGHTS, tensors)


def write_weights(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, marked as torch's, as Transformers does."""
    write_durably(path, safetensors.torch.save(own_copies(tensors), metadata={"format": "pt"}))
