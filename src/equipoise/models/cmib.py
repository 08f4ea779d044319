"""C-MIB: information bottlenecks on each modality and on their fusion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equipoise.core import Batch, Modalities
from equipoise.layers import Sequence, TransformerEncoder, masked_last, masked_mean
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._losses import mean_loss
from equipoise.models.output import Output

_SHIFT = 5.0  # deviations start at softplus(-5) = 0.0067, or noise would drown what nothing has taught yet


class Code(NamedTuple):
    """A modality of each sample; zeros where it lacks the modality.

    - ``value``: ``[B, d]``, the code, or without a bottleneck the representation itself.
    - ``mean``, ``std``: ``[B, d]``, what the code was drawn from; 0 wide without a bottleneck.
    - ``present``: ``[B]`` bool.
    """

    value: Tensor
    mean: Tensor
    std: Tensor
    present: Tensor


class CMIB(nn.Module):
    r"""C-MIB, the complete Multimodal Information Bottleneck: codes keep what the target needs, and little else.

    From [Multimodal Information Bottleneck: Learning Minimal Sufficient Unimodal and Multimodal
    Representations](https://doi.org/10.1109/TMM.2022.3171679) (Mai et al., IEEE TMM 2022); read in its
    released code, the paper itself in its abstract only.

    $$
    (\mu_m, \sigma_m) = \big(W_\mu h_m, \mathrm{softplus}(W_\sigma h_m - 5)\big), \quad
    h_m = \mathrm{relu}(W_h x_m), \qquad
    z_m = \mu_m + \sigma_m \odot \epsilon, \quad \epsilon \sim N(0, I)
    $$
    $$
    x = \mathrm{relu}(W [z_t; z_a; z_v]), \qquad z = \mu + \sigma \odot \epsilon, \qquad
    \hat y = D z, \quad \hat y_m = D_m z_m
    $$
    $$
    L = L_{task}(\hat y) + \beta \, \mathrm{KL}(\mu, \sigma)
    + \sum_m \big( \lambda_{uni} L_{task}(\hat y_m) + \beta \, \mathrm{KL}(\mu_m, \sigma_m) \big), \qquad
    \mathrm{KL}(\mu, \sigma) = \operatorname{mean} \tfrac12 (\mu^2 + \sigma^2 - 2 \log \sigma - 1)
    $$

    - $x_m$: the last real frame behind a convolution over three frames, of audio and vision also behind a transformer.
    - $\mu, \sigma$: of the fused $x$ as of each $x_m$. KL to the standard normal prior bounds what a code knows of
      its input; the task's loss bounds from below what it knows of the target.
    - ``variant``: ``"complete"`` (C-MIB) as above; ``"early"`` (E-MIB) has the bottleneck on the fusion alone, of the
      $x_m$ themselves, and no $\hat y_m$; ``"late"`` (L-MIB) has those of the modalities alone, and $\hat y = D x$.

    Against the released code: noise is drawn while training only, at test $z = \mu$ (the code draws it there too); it
    adds the fused prediction's loss a second time, so that the others weigh half as much beside it, which here are
    ``lambda_uni=0.5`` and half of ``beta``; its "last" frame is that of the padded array, whose padding its transformer
    reads; its dropout is 0.5 on attention, 0.2 on inputs and 0.3 elsewhere, here one rate; here a linear layer leads
    from the convolution into the transformer.

    Modalities: any number; text is the one without a transformer. A sample without m has $z_m = 0$ and no part in its
    losses.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of representations and codes (released code).
        bottleneck: width of $h$ (released code).
        layers: transformer blocks of audio and vision (released code).
        heads: attention heads; divides ``hidden`` (released code).
        dropout: in the transformers, while training.
        beta: $\beta$ (released code).
        lambda_uni: $\lambda_{uni}$. Training's ``unimodal_weight`` would add the same once more.
        variant: ``"complete"``, ``"early"`` or ``"late"``.
        pool: ``"last"`` or ``"mean"`` of the real frames.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: an unknown choice, a negative weight, or what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 50,
        bottleneck: int = 1024,
        layers: int = 3,
        heads: int = 5,
        dropout: float = 0.3,
        beta: float = 1e-3,
        lambda_uni: float = 1.0,
        variant: Literal["complete", "early", "late"] = "complete",
        pool: Literal["last", "mean"] = "last",
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if variant not in ("complete", "early", "late"):
            raise ValueError(
                f'Parameter `variant` should be "complete", "early" or "late". Found `variant = {variant!r}`.'
            )
        if pool not in ("last", "mean"):
            raise ValueError(f'Parameter `pool` should be "last" or "mean". Found `pool = {pool!r}`.')
        if beta < 0 or lambda_uni < 0:
            raise ValueError(
                "Parameters `beta` and `lambda_uni` should be non-negative. "
                f"Found `beta = {beta}`, `lambda_uni = {lambda_uni}`."
            )
        self.dims = checked_dims(dict(dims), text_encoder)
        self.hidden = hidden
        self.beta = beta
        self.lambda_uni = lambda_uni
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict()
        for name, dim in self.dims.items():
            transformer: TransformerEncoder | None = None
            if name != "text":
                transformer = TransformerEncoder(hidden, hidden, layers=layers, heads=heads, dropout=dropout)
            narrow = None if variant == "early" else _Bottleneck(hidden, bottleneck)
            self.encoders[name] = _Encoder(dim, hidden, transformer, narrow, last=pool == "last")
        self.heads = nn.ModuleDict(
            {name: nn.Linear(hidden, outputs) for name in self.dims} if variant != "early" else {}
        )
        self.fusion = nn.Linear(hidden * len(self.dims), hidden)
        self.bottleneck = None if variant == "late" else _Bottleneck(hidden, bottleneck)
        self.head = nn.Linear(hidden, outputs)

    def encode(self, batch: Batch) -> dict[str, Code]:
        """``{m: Code}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Code]) -> Output:
        """Codes of any of the modalities to a prediction; an absent one counts as one that every sample lacks."""
        some = next(iter(encoded.values()))
        absent = Code(*(torch.zeros_like(part) for part in some))
        codes = {name: encoded.get(name, absent) for name in self.dims}
        features = {name: code.value for name, code in codes.items()}
        extra: dict[str, Tensor] = {}
        for name, code in encoded.items():
            if code.mean.shape[-1]:
                extra |= {f"mean/{name}": code.mean, f"std/{name}": code.std, f"present/{name}": code.present}
        fused: Tensor = self.fusion(torch.cat(list(features.values()), dim=-1)).relu()
        if self.bottleneck is not None:
            fused, extra["mean"], extra["std"] = self.bottleneck(fused)
        unimodal = {name: squeezed(head(features[name])) for name, head in self.heads.items()}
        return Output(squeezed(self.head(fused)), unimodal or None, features, {"fused": fused, **extra})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``bottleneck``, ``bottleneck/<m>`` and ``unimodal/<m>``, weighted; those that the variant has."""
        losses: dict[str, Tensor] = {}
        if "mean" in output.extra:
            everyone = torch.ones(len(output.logits), dtype=torch.bool, device=output.logits.device)
            losses["bottleneck"] = self.beta * divergence(output.extra["mean"], output.extra["std"], everyone)
        for name in self.dims:
            if f"mean/{name}" in output.extra:
                mean, std, present = (output.extra[f"{what}/{name}"] for what in ("mean", "std", "present"))
                losses[f"bottleneck/{name}"] = self.beta * divergence(mean, std, present)
                assert output.unimodal is not None
                losses[f"unimodal/{name}"] = self.lambda_uni * mean_loss(output.unimodal[name], batch.target, present)
        return losses

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder, up to its code; text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


def divergence(mean: Tensor, std: Tensor, present: Tensor) -> Tensor:
    r"""KL from :math:`N(\mu, \sigma^2)` to the standard normal, averaged over what is present and over its d entries.

    Args:
        mean: ``[B, d]``
        std: ``[B, d]``, positive where present
        present: ``[B]`` bool; without any the divergence is 0

    >>> divergence(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([True]))
    tensor(1.2500)
    """
    exact = torch.promote_types(mean.dtype, torch.float32)
    mean, std = mean.to(exact), std.to(exact)
    std = std.where(present.unsqueeze(-1), 1)  # the logarithm of an absent one's zero would give NaN
    each = (mean.square() + std.square() - 2 * std.log() - 1) / 2
    return each.mean(dim=-1).where(present, 0).sum() / present.sum().clamp_min(1)


class _Encoder(nn.Module):
    """A sequence to its code."""

    def __init__(
        self, dim: int, hidden: int, transformer: nn.Module | None, bottleneck: nn.Module | None, *, last: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv1d(dim, hidden, 3, padding=1, bias=False)
        self.transformer = transformer
        self.bottleneck = bottleneck
        self.last = last

    def forward(self, x: Sequence) -> Code:
        x = Sequence(self.conv(x.cleared().values.transpose(1, 2)).transpose(1, 2), x.mask)
        x = x if self.transformer is None else self.transformer(x)
        value = (masked_last if self.last else masked_mean)(x.values, x.mask)
        mean = std = value.new_zeros(len(value), 0)
        if self.bottleneck is not None:
            value, mean, std = self.bottleneck(value)
        present = x.mask.any(dim=1)
        value, mean, std = (part.masked_fill(~present.unsqueeze(-1), 0) for part in (value, mean, std))
        return Code(value, mean, std, present)


class _Bottleneck(nn.Module):
    """``[B, d]`` to a code ``[B, d]``, its mean and its standard deviation; the code is drawn while training."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.up = nn.Linear(dim, hidden)
        self.mean = nn.Linear(hidden, dim)
        self.deviation = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inner = self.up(x).relu()
        mean: Tensor = self.mean(inner)
        std = F.softplus(self.deviation(inner) - _SHIFT)
        return mean + std * torch.randn_like(std) if self.training else mean, mean, std
