"""The folder `text_encoder` of a saved model: a whole Transformers model, so that reading text needs nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from equipoise.layers import TextEncoder, find_text_model
from equipoise.training.checkpoint import own_copies

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
    safetensors.torch.save_file(own_copies(tensors), folder / WEIGHTS, metadata={"format": "pt"})
