"""FiLM: the other modalities scale and shift the features of one."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import masked_mean
from equipoise.models._encoders import EncoderKind, build_encoders, encoded_widths, encoder_groups
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed
from equipoise.models._subnetworks import with_zeros
from equipoise.models.output import Output


class FiLM(nn.Module):
    r"""Feature-wise linear modulation: what the other modalities say scales and shifts the features of one, the base.

    From [FiLM: Visual Reasoning with a General Conditioning Layer](https://arxiv.org/abs/1709.07871) (Perez et al.,
    AAAI 2018), on the pooled features of encoders, as OGM-GE's released code has it and AGM's comparison on
    Kinetics-Sounds.

    $$
    \gamma = 1 + \sum_{m \ne b} \Gamma_m f_m, \qquad \beta = \sum_{m \ne b} B_m f_m, \qquad
    \hat y = W (\gamma \odot f_b + \beta) + c
    $$

    - $f_m$: the mean of m's encoder over the real frames, as in [`LateFusion`](late_fusion.md); 0 where a sample lacks
      the modality.
    - $b$: the base. ``vision`` where there is one (the paper's question modulates an image, OGM-GE's audio the video),
      else the last of ``dims``.
    - $\gamma \odot f_b + \beta$: ``Output.extra["fused"]``.

    For two modalities this is the published layer. More than two are one modulation by all others together: a linear
    layer on their concatenation is a sum of one a modality. A modality that is missing then modulates nothing; without
    the base only $\beta$ remains. One modality alone is a linear classifier.

    Scales start around 1, so that the base comes through while nothing has been learned, as the authors' released
    training script sets it. OGM-GE's code predicts the scale itself, with a bias: ``residual=False``,
    $\gamma = \sum_m (\Gamma_m f_m + g_m)$ and $\beta = \sum_m (B_m f_m + h_m)$. The paper modulates the maps inside a
    convolutional network, at each block; here a vector is modulated once, before the classifier.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width inside encoders.
        encoder: a kind, or ``{m: kind}``, of those of :class:`LateFusion`.
        layers: stacked layers in each encoder.
        heads: attention heads of ``"transformer"``.
        base: the modality that is modulated.
        residual: False predicts the scale itself instead of its difference from 1.
        dropout: inside encoders and on $f_m$, while training.
        image_shape: ``{m: (C, H, W)}``, the images of each modality whose encoder is ``"resnet18"``.
        image_weights: ``{m: folder}``, a saved ResNet that such an encoder starts from.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a base that is no modality, or what does not fit together.
    """

    stages = ("encoders", "film")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 64,
        encoder: EncoderKind | Mapping[str, EncoderKind] = "gru",
        layers: int = 1,
        heads: int = 4,
        base: str | None = None,
        residual: bool = True,
        dropout: float = 0.1,
        image_shape: Mapping[str, tuple[int, int, int]] | None = None,
        image_weights: Mapping[str, str] | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dims = checked_dims(dict(dims), text_encoder)
        if base is not None and base not in self.dims:
            raise ValueError(f"Parameter `base` should be one of {list(self.dims)}. Found `base = {base!r}`.")
        self.base = base or ("vision" if "vision" in self.dims else list(self.dims)[-1])
        self.outputs = outputs
        self.residual = residual
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
        width = self.widths[self.base]
        self.generators = nn.ModuleDict(
            {name: nn.Linear(d, 2 * width, bias=not residual) for name, d in self.widths.items() if name != self.base}
        )
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, outputs)

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: f_m [B, d_m]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        outs = {name: self.encoders[name](sequence) for name, sequence in found.items()}
        return {name: masked_mean(out.values, out.mask) for name, out in outs.items()}

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Representations of any of the modalities to a prediction; an absent one counts as zeros."""
        features = with_zeros(encoded, self.widths)
        fused = self.drop(features[self.base])
        if self.generators:
            generated = [generator(self.drop(features[name])) for name, generator in self.generators.items()]
            gamma, beta = torch.stack(generated).sum(dim=0).chunk(2, dim=1)
            fused = (gamma + 1 if self.residual else gamma) * fused + beta
        return Output(squeezed(self.head(fused)), None, features, {"fused": fused})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder (with the text encoder), or the ``"film"`` layer.

        Of that layer the generators belong to those that modulate, the classifier behind it to the base. A modality
        whose encoder has nothing to train (``"pool"``, a frozen text encoder) is balanced by this part of it.
        """
        check_stage(stage, self.stages)
        layer = nn.ModuleDict({**self.generators, self.base: self.head})
        if stage == "film":
            return Modalities(**{name: layer[name] for name in self.dims})
        return encoder_groups(self.encoders, layer, self.text_encoder)
