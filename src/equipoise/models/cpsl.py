"""CPSL: sampled codes of each modality, injected through gates into a text stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.functional import diversity_loss, reconstruction_loss
from equipoise.layers import GRUEncoder, Sequence, TransformerEncoder, masked_mean
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._losses import mean_loss
from equipoise.models.output import Output

_INITIAL_LOG_VARIANCE = -4.0  # noise of 0.14: at 1 it would drown codes that nothing has taught yet


class Coded(NamedTuple):
    """One modality as CPSL encodes it.

    - ``code``: ``[B, d]``; zeros where a sample lacks the modality.
    - ``present``: ``[B]`` bool.
    - ``stream``: ``[B, T, d]``, the tokens of text; of others one frame of zeros.
    - ``mask``: ``[B, T]`` bool; of others False.
    """

    code: Tensor
    present: Tensor
    stream: Tensor
    mask: Tensor


class CPSL(nn.Module):
    r"""The model of CP + SL: each modality becomes a sampled code, and gates inject the codes into the text stream.

    From [A Conflict-Aware Penalty and Statistical Loss Framework for Balancing Modalities and Enhancing Stability in
    Multimodal Sentiment Analysis](https://arxiv.org/abs/2605.28575). We could read the abstract, parts of the text and
    a review, which name the parts of the model and give Eq. 4, but no layer, width or weight. The layers are ours.

    $$
    z_m = \mu_m + \sigma_m \odot \epsilon, \quad
    H_i = \sum_m \mathrm{sigmoid}(G_m [h_i; z_m] + c_m) \odot W_m z_m, \quad
    \bar h_i = h_i + \min\Big(\beta \frac{\lVert h_i \rVert}{\lVert H_i \rVert}, 1\Big) H_i, \quad
    \hat y = \mathrm{MLP}(\mathrm{Transformer}(\mathrm{norm}(\bar h))_0)
    $$

    $$
    L = L_{task} + \lambda_{recon} \sum_{m \neq t} \tfrac12 \lVert x_m - \hat x_m \rVert^2
    + \lambda_{uni} \sum_m L_m + \lambda_{div} \operatorname{mean}_m L_{div}(z_m) + \lambda_{stat} L_{stat}
    $$

    CP and SL are balancers: ``Chain(SL(model.modalities()), CP(model.modalities()))``. $L_{stat}$ is SL, and is not
    among the model's own losses.

    - $\mu_m, \log \sigma_m^2$: linear layers on the time average of a bidirectional GRU; for text, of its tokens $h$.
      Noise $\epsilon$ is drawn while training (adaptive modality encoding with reparameterisation); at test
      $z_m = \mu_m$. ``Output.features[m]`` is $z_m$. Nothing pulls it towards a prior: Eq. 4 has no such term.
    - $h_i$: text's tokens, each through one linear layer, behind a learned $h_0$ from which the prediction is read.
    - $H_i$: the gated fusion of the codes, injected residually before the transformer. The paper injects into the
      pretrained encoder; here the blocks behind the ``text_encoder`` are what is left of the backbone. The bound on its
      length is that of [MAG](https://arxiv.org/abs/1908.05787).
    - $\hat x_m$: a decoder's guess of the time average $x_m$ of a modality's standardised features, for a code of an
      utterance holds no frames (:func:`equipoise.functional.reconstruction_loss`). Text is not reconstructed.
    - $L_m$: what m's linear head (``Output.unimodal``) loses: the absolute error, for classes the cross-entropy.
    - $L_{div}$: :func:`equipoise.functional.diversity_loss` of $\tanh z_m$: it has no bound where features have none.

    Any number of modalities, with or without text. One that a sample lacks injects nothing and loses nothing; without
    text $h_0$ is alone, so that there is a prediction still.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of codes and stream.
        layers: transformer blocks behind the injection.
        heads: attention heads; divides ``hidden``.
        dropout: on the injected stream, inside the transformer and the MLP, while training.
        beta: $\beta$, how long the injection may be beside what it is injected into.
        sampled: False makes every code its mean, without $\sigma_m$ (no reparameterisation).
        gated: False puts 1 for every gate.
        lambda_recon: weight of reconstruction; 0 leaves the decoders out.
        lambda_uni: weight of the unimodal losses; 0 leaves the heads out, and ``Output.unimodal`` is None. Training's
            ``unimodal_weight`` would add the same once more.
        lambda_div: weight of the diversity loss.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 64,
        layers: int = 1,
        heads: int = 4,
        dropout: float = 0.1,
        beta: float = 1.0,
        sampled: bool = True,
        gated: bool = True,
        lambda_recon: float = 0.1,
        lambda_uni: float = 0.1,
        lambda_div: float = 0.01,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        weights = {"recon": lambda_recon, "uni": lambda_uni, "div": lambda_div}
        for name, weight in weights.items():
            if weight < 0:
                raise ValueError(f"Parameter `lambda_{name}` should be non-negative. Found `lambda_{name} = {weight}`.")
        if beta <= 0:
            raise ValueError(f"Parameter `beta` should be positive. Found `beta = {beta}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.hidden = hidden
        self.beta = beta
        self.weights = weights
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict(
            {name: _Encoder(dim, hidden, text=name == "text", sampled=sampled) for name, dim in self.dims.items()}
        )
        self.start = nn.Parameter(torch.randn(hidden))
        self.injections = nn.ModuleDict({name: _Injection(hidden, gated) for name in self.dims})
        self.norm = nn.LayerNorm(hidden)
        self.drop = nn.Dropout(dropout)
        self.backbone = TransformerEncoder(hidden, hidden, layers=layers, heads=heads, dropout=dropout)
        self.mlp = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))
        self.heads = nn.ModuleDict({name: nn.Linear(hidden, outputs) for name in self.dims} if lambda_uni else {})
        self.decoders = nn.ModuleDict(
            {
                name: nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, dim))
                for name, dim in self.dims.items()
                if name != "text" and lambda_recon
            }
        )

    def encode(self, batch: Batch) -> dict[str, Coded]:
        """``{m: Coded}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Coded]) -> Output:
        """Codes of any of the modalities to a prediction; an absent one counts as one that every sample lacks."""
        some = next(iter(encoded.values()))
        codes = {name: encoded[name].code if name in encoded else torch.zeros_like(some.code) for name in self.dims}
        text = encoded.get("text", some)  # of a modality that is no text the stream is empty
        first = self.start.to(text.stream.dtype).expand(len(text.mask), 1, -1)
        stream = torch.cat([first, text.stream], dim=1)
        mask = F.pad(text.mask, (1, 0), value=True)
        injected = torch.stack([self.injections[name](stream, code) for name, code in codes.items()]).sum(dim=0)
        # A shift of length 0 needs no bound, and has none to give a gradient to.
        lengths = [torch.linalg.vector_norm(x, dim=-1, keepdim=True) for x in (stream, injected)]
        bound = (self.beta * lengths[0] / lengths[1].clamp_min(1e-6)).clamp_max(1)
        out = self.backbone(Sequence(self.drop(self.norm(stream + bound * injected)), mask))
        unimodal = {name: squeezed(head(codes[name])) for name, head in self.heads.items()}
        return Output(squeezed(self.mlp(out.values[:, 0])), unimodal or None, codes)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """Those of ``{"reconstruction": [], "unimodal": [], "diversity": []}`` whose weight is not 0, weighted."""
        found = {name: batch.masks[name].any(dim=1) for name in self.dims if name in batch.masks}
        losses: dict[str, list[Tensor]] = {"reconstruction": [], "unimodal": [], "diversity": []}
        for name, present in found.items():
            code = output.features[name]
            if name in self.decoders:
                x: Sequence = self.normaliser(name, batch.inputs[name], batch.masks[name])
                guess = self.decoders[name](code.to(self.start.dtype))
                losses["reconstruction"].append(reconstruction_loss(guess, masked_mean(x.values, x.mask), present))
            if output.unimodal is not None:
                losses["unimodal"].append(mean_loss(output.unimodal[name], batch.target, present))
            if self.weights["div"] and bool(present.any()):
                losses["diversity"].append(diversity_loss(code[present].tanh()) / len(found))
        weights = dict(zip(losses, self.weights.values(), strict=True))
        return {name: weights[name] * torch.stack(parts).sum() for name, parts in losses.items() if parts}

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder, up to its code; text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Encoder(nn.Module):
    """A sequence to its code; text's tokens also to the stream."""

    def __init__(self, dim: int, hidden: int, *, text: bool, sampled: bool) -> None:
        super().__init__()
        self.text = text
        self.body: nn.Linear | GRUEncoder = nn.Linear(dim, hidden) if text else GRUEncoder(dim, hidden)
        width = hidden if text else 2 * hidden
        self.mean = nn.Linear(width, hidden)
        self.log_variance = nn.Linear(width, hidden) if sampled else None
        if self.log_variance is not None:
            nn.init.constant_(self.log_variance.bias, _INITIAL_LOG_VARIANCE)

    def forward(self, x: Sequence) -> Coded:
        frames = Sequence(self.body(x.values), x.mask) if isinstance(self.body, nn.Linear) else self.body(x)
        pooled, present = masked_mean(frames.values, x.mask), x.mask.any(dim=1)
        code = self.mean(pooled)
        if self.log_variance is not None and self.training:
            deviation = (0.5 * self.log_variance(pooled)).exp()
            code = code + deviation * torch.randn_like(deviation)
        if not self.text:
            frames = Sequence(code.new_zeros(len(code), 1, code.shape[1]), x.mask.new_zeros(len(code), 1))
        return Coded(code.masked_fill(~present.unsqueeze(-1), 0), present, *frames.cleared())


class _Injection(nn.Module):
    """What one code adds to each token, ``[B, T, d]``; a code of zeros adds zeros."""

    def __init__(self, dim: int, gated: bool) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * dim, dim) if gated else None
        self.value = nn.Linear(dim, dim, bias=False)

    def forward(self, stream: Tensor, code: Tensor) -> Tensor:
        codes = code.unsqueeze(1).expand_as(stream)
        value: Tensor = self.value(codes)
        return value if self.gate is None else self.gate(torch.cat([stream, codes], dim=-1)).sigmoid() * value
