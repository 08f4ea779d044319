"""MFM: what modalities share predicts; what each has for itself helps to reconstruct it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.functional import prior_mmd, reconstruction_loss
from equipoise.layers import Sequence
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._mfm import Generative, factor_network
from equipoise.models._mfn import MemoryFusion, States, ViewLSTM, by_modality, positive, resampled, ticks
from equipoise.models.output import Output

_HIDDEN = {"text": 88, "audio": 64, "vision": 48}
_LATENT = {"text": 32, "audio": 8, "vision": 80}
_FACTOR = {"text": 88, "audio": 8, "vision": 8}
_RECON = {"text": 1.0, "audio": 0.01, "vision": 0.5}


class Encoded(NamedTuple):
    """One modality as MFM encodes it: MFN's :class:`States`, and what is to be reconstructed.

    - ``cells``, ``last``, ``mask``: those of ``States``.
    - ``frames``: ``[B, P, d]``, the resampled, standardised input; zeros as padding, and no gradient.
    """

    cells: Tensor
    last: Tensor
    mask: Tensor
    frames: Tensor


class MFM(nn.Module):
    r"""Multimodal Factorization Model: a shared factor predicts, and with a factor of its own rebuilds each modality.

    From [Learning Factorized Multimodal Representations](https://arxiv.org/abs/1806.06176) (Tsai et al., ICLR 2019).
    Read at second hand: the abstract and the released code.

    $$
    z_y = W [h_1^T; \dots; h_M^T; u^T], \qquad z_m = W_m \, \mathrm{LSTM}(x_m), \qquad f_i = \mathrm{G}_i(z_i), \;
    i \in \{y, 1, \dots, M\}
    $$
    $$
    \hat y = \mathrm{MLP}(f_y), \qquad \hat x_m = \mathrm{LSTM}^{-1}([f_y; f_m])
    $$
    $$
    L = L_{task} + \sum_m \lambda_m \operatorname{mean} (x_m - \hat x_m)^2
    + \lambda_{mmd} \sum_i \mathrm{MMD}^2\big(z_i, N(0, I)\big)
    $$

    - $h^T, u^T$: the last outputs and the memory of [`MFN`](mfn.md), the discriminative encoder.
    - $G$: two linear layers, each with ReLU.
    - $\mathrm{LSTM}^{-1}$: a decoder that reads $[f_y; f_m]$ at its first step and its own last output at all others; a
      linear layer makes a frame of each output.
    - $\mathrm{MMD}^2$: :func:`equipoise.functional.prior_mmd`. With the reconstruction it bounds a Wasserstein distance
      between what the model generates and the data.

    Only $z_y$ is needed to predict. The rest is built for `losses`, while training.

    What is reconstructed is what MFN's LSTMs read: standardised features, at most ``steps`` frames of them, real ones
    only. No gradient passes into the input: vectors of a text encoder are not taught to be easily rebuilt.

    Where we differ from the released code: it counts padding, draws from the prior for the MMD (ours is its expectation
    in closed form), and has inference networks for a missing modality, which are not built. A modality that a sample
    lacks has zeros in MFN, is not reconstructed, and its $z_m$, the prior's mean, enters no loss.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of MFN's LSTMs, for all or ``{m: width}``; None for those in the released code's setting for MOSI:
            text 88, audio 64, vision 48, any other 64. So are the other defaults.
        memory: width of MFN's memory.
        network_hidden: hidden units of each of MFN's four networks.
        latent: widths of $z_m$, likewise; None for text 32, audio 8, vision 80, any other 32.
        factor: widths of $f_m$, likewise; None for text 88, audio 8, vision 8, any other 8.
        shared_latent: width of $z_y$.
        shared_factor: width of $f_y$.
        dropout: in MFN's networks, while training.
        factor_dropout: inside $G_m$, while training; the released code has 0.7 for vision.
        lambda_recon: $\lambda_m$, likewise; None for text 1, audio 0.01, vision 0.5, any other 0.1. They belong to
            features that the code did not standardise. A modality with 0 has no generative part.
        lambda_mmd: $\lambda_{mmd}$.
        specific: False leaves out $z_m$ and $f_m$: all is rebuilt from $f_y$ (the released code's M_C).
        steps: see [`MFN`](mfn.md).
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a size below 1, a negative weight, or a modality without a value.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int | Mapping[str, int] | None = None,
        memory: int = 64,
        network_hidden: int = 128,
        latent: int | Mapping[str, int] | None = None,
        factor: int | Mapping[str, int] | None = None,
        shared_latent: int = 32,
        shared_factor: int = 16,
        dropout: float = 0.5,
        factor_dropout: float = 0.2,
        lambda_recon: float | Mapping[str, float] | None = None,
        lambda_mmd: float = 1.0,
        specific: bool = True,
        steps: int = 50,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.dims = checked_dims(dict(dims), text_encoder)
        self.widths = by_modality("hidden", hidden, self.dims, _HIDDEN, 64)
        latents = by_modality("latent", latent, self.dims, _LATENT, 32)
        factors = by_modality("factor", factor, self.dims, _FACTOR, 8)
        self.lambda_recon = by_modality("lambda_recon", lambda_recon, self.dims, _RECON, 0.1)
        self.lambda_mmd = lambda_mmd
        positive(
            hidden=min(self.widths.values()),
            latent=min(latents.values()),
            factor=min(factors.values()),
            memory=memory,
            network_hidden=network_hidden,
            shared_latent=shared_latent,
            shared_factor=shared_factor,
            steps=steps,
        )
        for name, weight in {"recon": min(self.lambda_recon.values()), "mmd": lambda_mmd}.items():
            if weight < 0:
                raise ValueError(f"Parameter `lambda_{name}` should be non-negative. Found `lambda_{name} = {weight}`.")
        self.outputs = outputs
        self.steps = steps
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict({name: ViewLSTM(dim, self.widths[name]) for name, dim in self.dims.items()})
        self.fusion = MemoryFusion(
            self.widths,
            memory=memory,
            attention_hidden=network_hidden,
            proposal_hidden=network_hidden,
            retain_hidden=network_hidden,
            update_hidden=network_hidden,
            dropout=dropout,
        )
        self.latent = nn.Linear(self.fusion.dim, shared_latent)
        self.factor = factor_network(shared_latent, shared_factor, 0.0)
        self.mlp = nn.Sequential(nn.Linear(shared_factor, shared_factor), nn.ReLU(), nn.Linear(shared_factor, outputs))
        self.generative = nn.ModuleDict(
            {
                name: Generative(
                    dim,
                    shared_factor,
                    latent=latents[name] if specific else 0,
                    factor=factors[name] if specific else 0,
                    dropout=factor_dropout,
                )
                for name, dim in self.dims.items()
                if self.lambda_recon[name]
            }
        )

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """Each modality's LSTM and its input, for those that the batch holds; the others are absent."""
        encoded: dict[str, Encoded] = {}
        for name, sequence in sequences(batch, self.dims, self.normaliser, self.text_encoder).items():
            x = resampled(sequence, self.steps)
            states: States = self.encoders[name](x)
            encoded[name] = Encoded(*states, x.values.detach())
        return encoded

    def fuse(self, encoded: Mapping[str, Encoded]) -> Output:
        """Any of the modalities to a prediction; an absent one counts as one that every sample lacks.

        ``Output.features`` holds MFN's last outputs $h_m^T$, ``Output.extra`` the shared ``latent`` $z_y$ and
        ``factor`` $f_y$, and as ``frames/<m>`` what is to be reconstructed.
        """
        features, memory = self.fusion({name: States(*part[:3]) for name, part in encoded.items()})
        latent = self.latent(torch.cat([*features.values(), memory], dim=1))
        factor = self.factor(latent)
        frames = {f"frames/{name}": part.frames for name, part in encoded.items() if name in self.generative}
        return Output(squeezed(self.mlp(factor)), None, features, {"latent": latent, "factor": factor, **frames})

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def reconstruct(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``{m: x̂_m [B, P, d_m]}``, standardised, of the modalities that the batch holds.

        For a sample that lacks m it is generated from $f_y$ and the prior's mean.
        """
        return {name: guess for name, (_, guess, _) in self._generate(output, batch).items()}

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``reconstruction`` and ``mmd``, weighted; the first only where there is something to reconstruct."""
        codes, errors = [output.extra["latent"]], []
        for name, (code, guess, target) in self._generate(output, batch).items():
            present = target.mask.any(dim=1)
            # The released code's mean of squares; `reconstruction_loss` is half of it.
            errors.append(2 * self.lambda_recon[name] * reconstruction_loss(guess, target.values, target.mask))
            if code.shape[1] and bool(present.any()):
                codes.append(code[present])
        prior = torch.stack([prior_mmd(code.to(self.latent.weight.dtype)) for code in codes]).sum()
        found = {"reconstruction": torch.stack(errors).sum()} if errors else {}
        return {**found, "mmd": self.lambda_mmd * prior}

    def _generate(self, output: Output, batch: Batch) -> dict[str, tuple[Tensor, Tensor, Sequence]]:
        """``{m: (z_m, x̂_m, x_m)}``."""
        found: dict[str, tuple[Tensor, Tensor, Sequence]] = {}
        kind = self.latent.weight.dtype  # autocast may have left another
        factor = output.extra["factor"].to(kind)
        for name, part in self.generative.items():
            if f"frames/{name}" in output.extra:
                target = Sequence(output.extra[f"frames/{name}"].to(kind), ticks(batch.masks[name], self.steps))
                found[name] = (*part(target, factor), target)
        return found

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's LSTM in MFN, text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)
