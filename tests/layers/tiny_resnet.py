"""A ResNet of one small block a stage, saved as Transformers saves any model."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch


def save_tiny_resnet(folder: Path, channels: int = 1) -> Path:
    from transformers import ResNetConfig, ResNetModel

    config = ResNetConfig(
        layer_type="basic", num_channels=channels, embedding_size=4, hidden_sizes=[4, 4, 6, 8], depths=[1, 1, 1, 1]
    )
    torch.manual_seed(0)
    ResNetModel(config).save_pretrained(folder)
    return folder


@cache
def tiny_resnet(channels: int) -> str:
    """One such folder for the whole run."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(save_tiny_resnet(Path(folder), channels))
