"""Late fusion: one encoder a modality, and a classifier on their concatenation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Normaliser, Sequence, masked_mean
from equipoise.models._encoders import EncoderKind, build_encoders, encoded_widths, encoder_groups
from equipoise.models._inputs import check_stage, checked_dims, sequences, squeezed
from equipoise.models.output import Output


class LateFusion(nn.Module):
    r"""The plain model that balancing methods are measured against: encode, average over time, concatenate, classify.

    A linear classifier on a concatenation is a sum with a term for each modality
    (`OGM-GE, Peng et al. 2022 <https://arxiv.org/abs/2203.15332>`_, Eq. 2), and is stored so:

    .. math::

        \hat{y} = W [f_1; \dots; f_K] + b = \sum_m W_m f_m + b, \qquad
        \hat{y}_m = W_m f_m + b / K

    - :math:`f_m`: the mean of the encoder's output over the real frames; 0 where a sample lacks the modality.
    - :math:`\hat{y}_m`: ``Output.unimodal``; they sum to the logits. K counts the modalities of the model, also those
      that a sample lacks.

    ``combine="mean"`` makes it their mean instead, :math:`\hat{y}_m = W_m f_m + b`: each modality then predicts the
    target itself, as methods ask that train them one by one (``UME``, ``MLA``); for values, terms that each fit the
    target would sum to K times as much.

    With ``head="mlp"`` the classifier is ``W_2 dropout(relu(W [f_1; ...; f_K] + b)) + b_2``, which does not split
    into terms. ``probe=True`` then gives each modality a linear head of its own on *detached* features as
    ``unimodal``: add the heads' losses to the objective, and they measure the encoders without teaching them. Without
    it ``unimodal`` is None.

    Encoders, for all modalities or one a name:

    - ``"gru"``: bidirectional, ``hidden`` wide each way, so :math:`f_m` has ``2 * hidden`` features;
    - ``"transformer"``: blocks on a stream ``hidden`` wide (:class:`equipoise.layers.TransformerEncoder`);
    - ``"mean"``: the mean of the input, then ``layers`` linear layers with ReLU, ``hidden`` wide;
    - ``"pool"``: the mean of the input and nothing else. Text that passes a ``text_encoder`` is pooled like this unless
      ``encoder`` is a mapping that says otherwise: pretrained vectors, then one linear layer;
    - ``"resnet18"``: each frame is an image or a spectrogram, flattened, and :math:`f_m` has 512 features
      (:class:`equipoise.layers.ResNetEncoder`).

    Args:
        dims: ``{m: d_m}``, the modalities and the widths of their features; for token ids the width is the text
            encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width inside encoders, and of the hidden layer of ``head="mlp"``.
        encoder: a kind, or ``{m: kind}``.
        layers: stacked layers in each encoder.
        heads: attention heads of ``"transformer"``.
        dropout: inside encoders, on :math:`f_m`, and inside ``head="mlp"``, while training.
        head: ``"linear"`` or ``"mlp"``.
        combine: ``"sum"`` or, for a linear head, ``"mean"``.
        probe: linear heads on detached features, for ``head="mlp"``.
        image_shape: ``{m: (C, H, W)}``, the images of each modality whose encoder is ``"resnet18"``.
        image_weights: ``{m: folder}``, a saved ResNet that such an encoder starts from; without it the weights are new.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what is not a known kind or head, or does not fit together.
    """

    stages = ("encoders", "heads")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 64,
        encoder: EncoderKind | Mapping[str, EncoderKind] = "gru",
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        head: Literal["linear", "mlp"] = "linear",
        combine: Literal["sum", "mean"] = "sum",
        probe: bool = False,
        image_shape: Mapping[str, tuple[int, int, int]] | None = None,
        image_weights: Mapping[str, str] | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if head not in ("linear", "mlp"):
            raise ValueError(f'Parameter `head` should be "linear" or "mlp". Found `head = {head!r}`.')
        if combine not in ("sum", "mean"):
            raise ValueError(f'Parameter `combine` should be "sum" or "mean". Found `combine = {combine!r}`.')
        if combine == "mean" and head == "mlp":
            raise ValueError('Parameter `combine = "mean"` needs `head="linear"`: an MLP is no sum of terms.')
        if probe and head == "linear":
            raise ValueError('Parameter `probe` needs `head="mlp"`: a linear head has unimodal logits of its own.')
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.probe = probe
        self.combine = combine
        self.text_encoder = text_encoder
        features = {name: dim for name, dim in self.dims.items() if name != "text" or text_encoder is None}
        self.normaliser = Normaliser(features)
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
        self.drop = nn.Dropout(dropout)
        self.widths = encoded_widths(self.encoders, self.dims)
        first = outputs if head == "linear" else hidden
        self.heads = nn.ModuleDict({name: nn.Linear(d, first, bias=False) for name, d in self.widths.items()})
        # Drawn as nn.Linear draws one layer over the whole concatenation.
        bound = sum(self.widths.values()) ** -0.5
        for part in self.heads.parameters():
            nn.init.uniform_(part, -bound, bound)
        self.bias = nn.Parameter(torch.empty(first).uniform_(-bound, bound))
        self.mlp = (
            None if head == "linear" else nn.Sequential(nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))
        )
        self.probes = nn.ModuleDict({name: nn.Linear(d, outputs) for name, d in self.widths.items()} if probe else {})

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: f_m [B, d_m]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        encoded: dict[str, Tensor] = {}
        for name, sequence in found.items():
            out: Sequence = self.encoders[name](sequence)
            encoded[name] = masked_mean(out.values, out.mask)
        return encoded

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Representations of any of the modalities to a prediction; an absent one counts as zeros."""
        some = next(iter(encoded.values()))
        features = {
            name: encoded[name] if name in encoded else some.new_zeros(len(some), width)
            for name, width in self.widths.items()
        }
        terms = {name: self.heads[name](self.drop(features[name])) for name in features}
        added = torch.stack(list(terms.values())).sum(dim=0)
        total = self.bias + (added if self.combine == "sum" else added / len(terms))
        if self.mlp is None:
            bias = self.bias if self.combine == "mean" else self.bias / len(terms)
            unimodal = {name: squeezed(term + bias) for name, term in terms.items()}
            return Output(squeezed(total), unimodal, features)
        unimodal = {name: squeezed(self.probes[name](features[name].detach())) for name in self.probes}
        return Output(squeezed(self.mlp(total)), unimodal or None, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder (with the text encoder), or its ``"heads"``.

        A modality whose encoder has nothing to train (``"pool"``, a frozen text encoder) is balanced by its head.
        """
        check_stage(stage, self.stages)
        if stage == "heads":
            return Modalities(**{name: self.heads[name] for name in self.dims})
        return encoder_groups(self.encoders, self.heads, self.text_encoder)
