"""TETFN: modalities read one another through text, and learn from labels of their own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Sequence, masked_max, masked_mean, positions, run_packed
from equipoise.models._crossmodal import Transformer
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._unimodal_heads import Head, Widths, unimodal_losses, widths_by_modality
from equipoise.models._unimodal_labels import UnimodalLabels
from equipoise.models.output import Output

# Of the released code for MOSI.
_LSTM = {"audio": 16}
_KERNEL = {"text": 1, "audio": 1}
_HEAD = {"vision": 16}


class TETFN(nn.Module):
    r"""Text Enhanced Transformer Fusion Network: where audio and vision read one another, text stands between them.

    From [TETFN: A text enhanced transformer fusion network for multimodal sentiment
    analysis](https://doi.org/10.1016/j.patcog.2022.109259) (Wang et al., Pattern Recognition 2023); read in its
    released code, the paper itself not.

    $$
    X_t = \mathrm{Conv1D}(x_t), \qquad X_m = \mathrm{Conv1D}(\mathrm{LSTM}(x_m)), \; m \in \{a, v\}, \qquad
    Z_m = X_m + \mathrm{PE}
    $$
    $$
    C_v = \mathrm{CM}_1(Z_v \to Z_t), \qquad Z_{v \to a} = \mathrm{CM}_D(Z_a \to C_v), \qquad
    Z_{t \to a} = \mathrm{CM}_D(Z_a \to Z_t)
    $$
    $$
    h_a = \mathrm{SA}_D([Z_{t \to a}; Z_{v \to a}])_{last}, \qquad
    \hat y = \mathrm{Head}([h_t; h_a; h_v]), \qquad \hat y_m = \mathrm{Head}_m(\max X_m)
    $$

    - $\mathrm{CM}_D(Z \to S)$: D crossmodal blocks, in which Z asks the source S (see [MulT](mult.md)).
    - $C_v$: vision that has read text, one block deep. Audio reads it in place of vision; that is the text-enhanced
      transformer. Vision reads audio in the same way. Text reads both as they are, and both read text as it is.
    - $\mathrm{SA}$: self-attention, from whose last real frame the prediction is read.
    - $\mathrm{Head}$: three layers with ReLU between them. The unimodal heads learn as in [Self-MM](self_mm.md), whose
      labels $y_s$ and loss $\sum_s \tanh(|y_s - y|) \, |\hat y_s - y_s|$ they share: `losses`, and the buffers of
      ``labels``.

    Against the released code, as for MulT: no mask over later frames, no scale $\sqrt d$, positions once, norms of the
    source of their own, and padding is never read. The code convolves without padding, so that a width of three drops
    the first and last frame; here the length stays. Its dropout is 0.1 on attention and branches and 0 elsewhere, with
    exceptions for some pairs; here it is one rate.

    Modalities: any number. Each other one stands where audio and vision do; without text, or for a pair of which text
    is one, the transformers are MulT's. Where a sample lacks text, $C_v$ is vision alone. What it lacks otherwise is
    not read, and its own vectors are zeros.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: d, width of the streams.
        heads: attention heads; divides ``hidden``.
        layers: D.
        lstm: width of the LSTMs, for all or by modality; 16 for audio, 64 for others.
        kernel: odd width of the convolutions, for all or by modality; 1 for text and audio, 3 for others.
        head_hidden: width of the unimodal heads, for all or by modality; 16 for vision, 32 for others.
        fusion_hidden: width of the fused head.
        dropout: of source frames in attention, inside the feed-forward networks and on each branch, while training.
        head_dropout: before the first layer of each head, while training.
        text_enhanced: False makes every pair MulT's.
        bound: labels lie in ``[-bound, bound]``; None for the largest absolute target seen, 3 in the released code.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what does not fit together, such as an even ``kernel``.
    """

    stages = ("encoders", "streams")

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 50,
        heads: int = 5,
        layers: int = 2,
        lstm: Widths = None,
        kernel: Widths = None,
        head_hidden: Widths = None,
        fusion_hidden: int = 64,
        dropout: float = 0.1,
        head_dropout: float = 0.0,
        text_enhanced: bool = True,
        bound: float | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"Parameter `layers` should be positive. Found `layers = {layers}`.")
        if bound is not None and bound <= 0:
            raise ValueError(f"Parameter `bound` should be positive, or None. Found `bound = {bound}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.hidden = hidden
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        lstms = widths_by_modality("lstm", lstm, self.dims, _LSTM, 64)
        kernels = widths_by_modality("kernel", kernel, self.dims, _KERNEL, 3)
        widths = widths_by_modality("head_hidden", head_hidden, self.dims, _HEAD, 32)
        if not all(width % 2 for width in kernels.values()):
            raise ValueError(f"Parameter `kernel` should be odd. Found {kernels}.")
        self.encoders = nn.ModuleDict(
            {
                name: _Encoder(dim, None if name == "text" else lstms[name], hidden, kernels[name])
                for name, dim in self.dims.items()
            }
        )
        self.streams = nn.ModuleDict()
        for name in self.dims:
            enhanced = text_enhanced and "text" in self.dims and name != "text"
            others = {other: enhanced and other != "text" for other in self.dims if other != name}
            self.streams[name] = _Stream(others, hidden, heads, layers, dropout)
        width = hidden * max(1, len(self.dims) - 1) * len(self.dims)
        self.fusion = Head(width, fusion_hidden, outputs, head_dropout)
        self.heads = nn.ModuleDict({name: Head(hidden, widths[name], outputs, head_dropout) for name in self.dims})
        self.labels = UnimodalLabels(widths, joint=fusion_hidden, outputs=outputs, bound=bound, from_view=2)

    def encode(self, batch: Batch) -> dict[str, Sequence]:
        """``{m: X_m [B, T_m, hidden]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Sequence]) -> Output:
        """Streams of any of the modalities to a prediction; an absent one counts as a stream without real frames."""
        some = next(iter(encoded.values()))
        rows = len(some.mask)
        absent = Sequence(some.values.new_zeros(rows, 1, self.hidden), some.mask.new_zeros(rows, 1))
        given = {name: encoded.get(name, absent) for name in self.dims}
        placed = {name: _placed(x) for name, x in given.items()}
        read = [self.streams[name](name, placed) for name in self.dims]
        joint, logits = self.fusion(torch.cat(read, dim=1))
        features = {name: masked_max(x.values, x.mask)[:, 0] for name, x in given.items()}
        extra, unimodal = {"joint": joint}, {}
        for name, x in features.items():
            extra[f"{name}_hidden"], said = self.heads[name](x)
            unimodal[name] = squeezed(said)
        return Output(squeezed(logits), unimodal, features, extra)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``{"unimodal/m": []}`` for the batch's modalities, means over it; in training mode then moves the labels."""
        return unimodal_losses(output, batch, self.labels, training=self.training)

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: ``"encoders"``, each modality's encoder (text's with the text encoder), or ``"streams"``,
        what reads the others for it: the crossmodal transformers into it and its self-attention.
        """
        check_stage(stage, self.stages)
        if stage == "streams":
            return Modalities(**{name: self.streams[name] for name in self.dims})
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Encoder(nn.Module):
    """An LSTM, where ``lstm`` is its width, then a convolution over time; padded frames are zeros before and after."""

    def __init__(self, dim: int, lstm: int | None, hidden: int, kernel: int) -> None:
        super().__init__()
        self.lstm = None if lstm is None else nn.LSTM(dim, lstm, batch_first=True)
        self.conv = nn.Conv1d(dim if lstm is None else lstm, hidden, kernel, padding=kernel // 2, bias=False)

    def forward(self, x: Sequence) -> Sequence:
        x = x.cleared() if self.lstm is None else run_packed(self.lstm, x)
        return Sequence(self.conv(x.values.transpose(1, 2)).transpose(1, 2), x.mask).cleared()


class _Stream(nn.Module):
    """One modality's side: it asks each other one, through text where that is set, and reads the answers.

    Args:
        others: ``{m: whether text stands between}``
    """

    def __init__(self, others: Mapping[str, bool], hidden: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.enhancers = nn.ModuleDict(
            {name: Transformer(hidden, heads, 1, dropout, crossmodal=True) for name, text in others.items() if text}
        )
        self.crossmodal = nn.ModuleDict(
            {name: Transformer(hidden, heads, layers, dropout, crossmodal=True) for name in others}
        )
        self.memory = Transformer(hidden * max(1, len(others)), heads, layers, dropout, crossmodal=False)

    def forward(self, own: str, streams: Mapping[str, Sequence]) -> Tensor:
        """``{m: Z_m [B, T_m, hidden]}`` to the last frame, ``[B, (K - 1) * hidden]``."""
        query, answers = streams[own], []
        for name, part in self.crossmodal.items():
            source = streams[name]
            if name in self.enhancers:
                source = self.enhancers[name](source, streams["text"])
            answers.append(part(query, source).values)
        joined = Sequence(torch.cat(answers, dim=2), query.mask) if answers else query
        last: Sequence = self.memory(joined, None, last=True)
        return masked_mean(last.values, last.mask)


def _placed(x: Sequence) -> Sequence:
    values = x.values + positions(x.values.shape[1], x.values.shape[2], x.values.device).to(x.values.dtype)
    return Sequence(values, x.mask).cleared()
