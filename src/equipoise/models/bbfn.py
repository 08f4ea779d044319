"""BBFN: text with audio and text with vision, two pairs whose sides complement each other and stay apart."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise.core import Batch, Modalities
from equipoise.layers import Sequence, masked_last, masked_mean
from equipoise.models._bbfn import Pair, Projection
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output


class BBFN(nn.Module):
    r"""Bi-Bimodal Fusion Network: two pairs with text; in each, gates let the sides complement each other.

    From [Bi-Bimodal Modality Fusion for Correlation-Controlled Multimodal Sentiment
    Analysis](https://arxiv.org/abs/2107.13669) (Han et al., ICMI 2021).

    $$
    X_m^{[0]} = \mathrm{Conv1D}(x_m, k), \qquad
    s_m^{[0]} = W_m \overline{X_m^{[0]}}, \quad s_m^{[i]} = \overline{\mathrm{BiGRU}(X_m^{[i]})}
    $$
    $$
    r = \mathrm{sigmoid}(W_r [s_t^{[i]}; s_m^{[i]}]), \quad c = \mathrm{sigmoid}(W_c [s_t^{[i]}; s_m^{[i]}])
    $$
    $$
    \hat X_t = c \odot \mathrm{Attention}\big(Q = \mathrm{LN}(X_t^{[i]}),\; K = V = \mathrm{LN}(X_m^{[i]})\big)
    + r \odot X_t^{[i]}, \qquad X_t^{[i+1]} = \hat X_t + \mathrm{FFN}(\mathrm{LN}(\hat X_t))
    $$
    $$
    \hat y = W \big( h + W_2 \, \mathrm{relu}(W_1 h) \big), \quad h = [X_{t,1}^{ta}; X_{a,1}^{ta}; X_{t,1}^{tv};
    X_{v,1}^{tv}]
    $$
    $$
    L = L_{task} + \lambda \operatorname{mean} \mathrm{BCE}\big(D^{[i]}(s_m^{[i]}),\; \text{is it text?}\big)
    $$

    - The pairs (text, audio) and (text, vision) share the convolutions, and no layer. In each, both sides run as
      written for $X_t$, with weights of their own: text asks audio, and audio asks text.
    - $s$: the modality-specific feature separator, one vector a side and layer; the discriminator $D$, one a pair and
      layer, shall tell the sides apart. All of the model learns from that loss: what fuses may not become the same.
    - $r, c$: retain and compound gate, ``[B, d]``, the same for all frames.
    - $X_{m,1}$: the first real frame after the last layer, [CLS] of a text encoder. ``pool="mean"`` averages instead.

    Any number of modalities: text with each of the others. A model without text has its first modality in that place;
    ``pairs`` may say otherwise. A model of one has no pair: its convolution is averaged over time.

    A sample without a modality: its stream is empty and its $s$ zero; the other side of the pair is complemented by
    nothing, and keeps what the retain gate lets pass. What is missing takes no part in the discriminators' loss.

    All that is written above is the released code's: we could read the paper's abstract, and not its equations.
    Against the code: its attention has biases on query, key and value, ours none; it puts a frame of zeros before and
    behind audio and vision, so that words meet [CLS] and [SEP], and predicts from that first frame, ours from the first
    real one; it asks for streams of one length, ours may differ; its GRUs start with orthogonal recurrent weights. It
    has sinusoidal positions that it never adds, and so have we none. On MOSI and MOSEI it freezes the first nine layers
    of BERT, not the embeddings; that is the text encoder's affair.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: d, width of the streams (this and the following three are the code's defaults).
        heads: attention heads; divides ``hidden``.
        layers: complementation layers of each pair.
        kernel: k, odd, width of the convolutions over time.
        dropout: on attention weights, inside the feed-forward networks and on each branch, while training.
        output_dropout: between $W_1$ and $W_2$, while training.
        lambda_sep: λ, weight of the discriminators' loss; 0 leaves them out.
        gated: False fixes both gates at 1.
        pool: ``"first"`` or ``"mean"``.
        pairs: two names each, in place of text with each of the others; every modality stands in one at least.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what does not fit together, such as a pair that names no modality.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 40,
        heads: int = 5,
        layers: int = 5,
        kernel: int = 3,
        dropout: float = 0.1,
        output_dropout: float = 0.0,
        lambda_sep: float = 0.1,
        gated: bool = True,
        pool: Literal["first", "mean"] = "first",
        pairs: Several[Several[str]] | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"Parameter `layers` should be positive. Found `layers = {layers}`.")
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"Parameter `kernel` should be positive and odd. Found `kernel = {kernel}`.")
        if lambda_sep < 0:
            raise ValueError(f"Parameter `lambda_sep` should be non-negative. Found `lambda_sep = {lambda_sep}`.")
        if pool not in ("first", "mean"):
            raise ValueError(f'Parameter `pool` should be "first" or "mean". Found `pool = {pool!r}`.')
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.hidden = hidden
        self.lambda_sep = lambda_sep
        self.pool = pool if len(self.dims) > 1 else "mean"
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict({name: Projection(dim, hidden, kernel) for name, dim in self.dims.items()})
        self.pairs = _pairs(list(self.dims), pairs)
        self.fusion = nn.ModuleDict(
            {name: Pair(hidden, heads, layers, dropout, gated=gated, separated=lambda_sep > 0) for name in self.pairs}
        )
        width = hidden * max(1, 2 * len(self.pairs))
        self.mlp = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(output_dropout), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, outputs)

    def encode(self, batch: Batch) -> dict[str, Sequence]:
        """``{m: X_m [B, T_m, hidden]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Sequence]) -> Output:
        """Streams of any of the modalities to a prediction; an absent one counts as a stream without real frames.

        ``features[m]`` is ``[B, n * hidden]`` for a modality in n pairs; ``extra["separator/..."]`` is the logits of a
        pair's discriminators, ``[B, layers, 2]``.
        """
        some = next(iter(encoded.values()))
        rows = len(some.mask)
        absent = Sequence(some.values.new_zeros(rows, 1, self.hidden), some.mask.new_zeros(rows, 1))
        streams = {name: encoded.get(name, absent) for name in self.dims}
        heads: dict[str, list[Tensor]] = {name: [] for name in self.dims}
        extra: dict[str, Tensor] = {}
        for key, names in self.pairs.items():
            *sides, logits = self.fusion[key](*(streams[name] for name in names))
            for name, side in zip(names, sides, strict=True):
                heads[name].append(self._pooled(side))
            if self.lambda_sep:
                extra[f"separator/{key}"] = logits
        if not self.pairs:
            heads = {name: [self._pooled(stream)] for name, stream in streams.items()}
        features = {name: torch.cat(parts, dim=1) for name, parts in heads.items()}
        joined = torch.cat(list(features.values()), dim=1)
        return Output(squeezed(self.head(joined + self.mlp(joined))), None, features, extra)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``separator``: how badly the discriminators tell the sides of a pair apart, weighted by λ."""
        total, count = self.head.weight.new_zeros(()), 0
        for key, names in self.pairs.items():
            if f"separator/{key}" not in output.extra:
                continue
            logits = output.extra[f"separator/{key}"].to(total.dtype)
            for side, name in enumerate(names):
                if name in batch.masks:
                    present = logits[batch.masks[name].any(dim=1), :, side]
                    wanted = torch.full_like(present, float(side == 0))
                    total = total + F.binary_cross_entropy_with_logits(present, wanted, reduction="sum")
                    count += present.numel()
        return {"separator": self.lambda_sep * total / max(1, count)} if self.lambda_sep and self.pairs else {}

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's convolution, text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)

    def _pooled(self, x: Sequence) -> Tensor:
        """``[B, d]``: the first real frame or the mean; zeros where there is none."""
        return masked_mean(*x) if self.pool == "mean" else masked_last(x.values.flip(1), x.mask.flip(1))


def _pairs(names: list[str], given: Several[Several[str]] | None) -> dict[str, tuple[str, str]]:
    """The pairs by name: those given, or text (else the first modality) with each other one."""
    if given is None:
        names = sorted(names, key=lambda name: name != "text")
        return {f"{names[0]}-{other}": (names[0], other) for other in names[1:]}
    found = [tuple(pair) for pair in given]
    if {name for pair in found for name in pair} != set(names) or any(len(set(pair)) != 2 for pair in found):
        raise ValueError(
            f"Parameter `pairs` should hold pairs of two names, with each of {names} in one at least. "
            f"Found `pairs = {[list(pair) for pair in given]}`."
        )
    return {f"{one}-{other}": (one, other) for one, other in found}
