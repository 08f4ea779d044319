"""The encoder of image-like modalities: a residual network on each frame."""

from __future__ import annotations

from collections.abc import Sequence as Numbers
from math import prod
from typing import Any

from torch import Tensor, nn

from equipoise.layers.sequence import Sequence
from equipoise.layers.text_files import quiet


class ResNetEncoder(nn.Module):
    """A ResNet that reads each frame as an image; ResNet-18 (He et al. 2016) unless ``weights`` say otherwise.

    A frame is an image ``[C, H, W]``, flattened: a picture, or a spectrogram with one channel. Padded frames never
    enter the network, so batch normalisation neither sees nor counts them. While training, a lone frame is normalised
    by the running statistics, which it leaves as they are: no variance can be taken of one.

    Args:
        image_shape: (C, H, W).
        weights: folder of a saved ResNet (as ``save_pretrained`` writes it), or the name of one in the local hub cache;
            its depth and widths hold then. None draws a new ResNet-18.

    Attributes:
        dim: width of its vectors, 512 for ResNet-18.

    Raises:
        FileNotFoundError: no such saved model.
        ValueError: an image without pixels, or a saved model that is no ResNet for so many channels.
    """

    def __init__(self, image_shape: Numbers[int], *, weights: str | None = None) -> None:
        super().__init__()
        if len(image_shape) != 3 or min(image_shape) < 1:
            raise ValueError(
                "Parameter `image_shape` should be (channels, height, width), all positive. "
                f"Found `image_shape = {list(image_shape)}`."
            )
        self.image_shape = tuple(image_shape)
        self.model = _new(image_shape[0]) if weights is None else _saved(weights, image_shape[0])
        self.dim = int(self.model.config.hidden_sizes[-1])

    def forward(self, x: Sequence) -> Sequence:
        """``[B, T, C * H * W]`` to ``[B, T, dim]``."""
        if x.values.shape[-1] != prod(self.image_shape):
            raise ValueError(
                f"A frame should hold {prod(self.image_shape)} values, an image of {list(self.image_shape)}. "
                f"Found {x.values.shape[-1]}."
            )
        frames = x.values[x.mask]
        if not len(frames):
            return Sequence(x.values.new_zeros(*x.mask.shape, self.dim), x.mask)
        vectors = self._vectors(frames.view(-1, *self.image_shape))
        return Sequence(vectors.new_zeros(*x.mask.shape, self.dim).index_put((x.mask,), vectors), x.mask)

    def _vectors(self, images: Tensor) -> Tensor:
        self.model.train(self.training and len(images) > 1)
        vectors: Tensor = self.model(images).pooler_output.flatten(1)
        self.model.train(self.training)
        return vectors


def _new(channels: int) -> Any:
    from transformers import ResNetConfig, ResNetModel

    return ResNetModel(
        ResNetConfig(
            layer_type="basic",
            num_channels=channels,
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
        )
    )


def _saved(weights: str, channels: int) -> Any:
    import torch
    from transformers import AutoConfig, ResNetModel

    with quiet():
        try:
            config: Any = AutoConfig.from_pretrained(weights, local_files_only=True)
        except (OSError, ValueError) as error:
            raise FileNotFoundError(
                f"Image model {weights!r} is neither the folder of a saved model nor the name of one in the local hub "
                "cache."
            ) from error
        if config.model_type != "resnet" or config.num_channels != channels:
            found = f"{config.model_type} for {getattr(config, 'num_channels', 'no')} channels"
            raise ValueError(f"Image model {weights!r} should be a resnet for {channels} channels. Found {found}.")
        return ResNetModel.from_pretrained(weights, local_files_only=True, dtype=torch.float32)
