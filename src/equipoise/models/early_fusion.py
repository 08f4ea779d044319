"""Early fusion: everything is concatenated first, and a maxout network reads it as one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import masked_mean
from equipoise.models._encoders import EncoderKind, build_encoders, encoded_widths, encoder_groups
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed
from equipoise.models._subnetworks import with_zeros
from equipoise.models.output import Output


class EarlyFusion(nn.Module):
    r"""The early fusion of AGM's tables: a maxout network on the concatenation, where no modality has a branch.

    From [Boosting Multi-modal Model Performance with Adaptive Gradient Modulation](https://arxiv.org/abs/2308.07686)
    (Li et al., ICCV 2023), section 4.1, with the network of [Maxout Networks](https://arxiv.org/abs/1302.4389)
    (Goodfellow et al., ICML 2013).

    $$
    h^0 = \mathrm{BN}([f_1; \dots; f_K]), \qquad \hat y = W h^2 + b
    $$
    $$
    h^l_i = \mathrm{dropout}\Big(\mathrm{BN}\big(\max_{j \le k} (W^l_{ij} h^{l-1} + b^l_{ij})\big)\Big), \quad l = 1, 2
    $$

    - $f_m$: the mean of m's encoder over the real frames, as in [`LateFusion`](late_fusion.md); 0 where a sample lacks
      the modality. With ``encoder="pool"`` nothing but the input is concatenated.
    - $k$: the pieces of each unit.
    - $h^2$: ``Output.extra["fused"]``, the latent that AGM's competition strength reads.
    - BN: batch normalisation. It counts the zeros of a missing modality. While training, a lone sample is normalised by
      the running statistics, and leaves them as they are.

    The paper keeps the encoders of late fusion and says no more of the network. Its sizes are the released code's, read
    in public copies of it: 2304 to 2048 to 1024 behind three transformers (768 wide, 8 layers, 4 heads, UR-FUNNY), 1024
    to 2048 to 1024 behind two ResNet-18 (AV-MNIST, CREMA-D), two pieces, dropout 0.3, a linear layer at the end. That
    code takes the first frame of a transformer, we the mean over real frames. The encoders' defaults are late fusion's,
    so that the two differ in the fusion.

    The first layer is stored as one part a modality, whose sum it is: what a balancer acts on where the encoder has
    nothing to train.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width inside encoders.
        encoder: a kind, or ``{m: kind}``, of those of :class:`LateFusion`.
        layers: stacked layers in each encoder.
        heads: attention heads of ``"transformer"``.
        maxout: widths of the two maxout layers; None for 8/9 and 4/9 of the concatenation's, which makes 2048 and 1024
            of 2304.
        pieces: linear functions of which each unit is the maximum.
        dropout: inside encoders and behind each maxout layer, while training.
        image_shape: ``{m: (C, H, W)}``, the images of each modality whose encoder is ``"resnet18"``.
        image_weights: ``{m: folder}``, a saved ResNet that such an encoder starts from.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: fewer than two pieces, a width below 1, or what does not fit together.
    """

    stages = ("encoders", "parts")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 64,
        encoder: EncoderKind | Mapping[str, EncoderKind] = "gru",
        layers: int = 1,
        heads: int = 4,
        maxout: tuple[int, int] | None = None,
        pieces: int = 2,
        dropout: float = 0.3,
        image_shape: Mapping[str, tuple[int, int, int]] | None = None,
        image_weights: Mapping[str, str] | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if pieces < 2:
            raise ValueError(f"Parameter `pieces` should be at least 2. Found `pieces = {pieces}`.")
        if maxout is not None and (len(maxout) != 2 or min(maxout) < 1):
            raise ValueError(f"Parameter `maxout` should be two positive widths. Found `maxout = {list(maxout)}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.pieces = pieces
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = build_encoders(
            self.dims,
            encoder,
            hidden=hidden,
            layers=layers,
            heads=heads,
            dropout=dropout,
            text_encoder=text_encoder,
            image_shape=image_shape,
            image_weights=image_weights,
        )
        self.widths = encoded_widths(self.encoders, self.dims)
        total = sum(self.widths.values())
        first, second = maxout or (max(1, round(total * 8 / 9)), max(1, round(total * 4 / 9)))
        self.parts = nn.ModuleDict(
            {
                name: nn.Sequential(_Norm(width, eps=1e-4), nn.Linear(width, first * pieces, bias=False))
                for name, width in self.widths.items()
            }
        )
        # Drawn as nn.Linear draws one layer over the whole concatenation.
        bound = total**-0.5
        for name in self.dims:
            nn.init.uniform_(self.parts[name].get_parameter("1.weight"), -bound, bound)
        self.bias = nn.Parameter(torch.empty(first * pieces).uniform_(-bound, bound))
        self.first_norm = _Norm(first)
        self.second = nn.Linear(first, second * pieces)
        self.second_norm = _Norm(second)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(second, outputs)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: f_m [B, d_m]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        outs = {name: self.encoders[name](sequence) for name, sequence in found.items()}
        return {name: masked_mean(out.values, out.mask) for name, out in outs.items()}

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Representations of any of the modalities to a prediction; an absent one counts as zeros."""
        features = with_zeros(encoded, self.widths)
        terms = torch.stack([self.parts[name](x) for name, x in features.items()])
        first = self.drop(self.first_norm(_maximum(terms.sum(dim=0) + self.bias, self.pieces)))
        fused = self.drop(self.second_norm(_maximum(self.second(first), self.pieces)))
        return Output(squeezed(self.head(fused)), None, features, {"fused": fused})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder (with the text encoder), or its ``"parts"`` of the first layer.

        A modality whose encoder has nothing to train (``"pool"``, a frozen text encoder) is balanced by its part.
        """
        check_stage(stage, self.stages)
        if stage == "parts":
            return Modalities(**{name: self.parts[name] for name in self.dims})
        return encoder_groups(self.encoders, self.parts, self.text_encoder)


class _Norm(nn.Module):
    """Batch normalisation ``[B, d]``, by the running statistics where B = 1, of which no variance can be taken."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width, eps)

    def forward(self, x: Tensor) -> Tensor:
        norm = self.norm
        if self.training and len(x) == 1:
            return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        normed: Tensor = norm(x)
        return normed


def _maximum(x: Tensor, pieces: int) -> Tensor:
    """``[B, d * pieces]`` to ``[B, d]``, the maximum of neighbours."""
    return x.view(len(x), -1, pieces).max(dim=2).values
