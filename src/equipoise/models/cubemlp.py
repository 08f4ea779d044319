"""CubeMLP: one MLP for each axis of a cube of frames, modalities and channels."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Several
from itertools import pairwise

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Sequence, aligned, run_packed
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models.output import Output

_AXES = ("sequence", "modality", "channel")  # axes 1, 2 and 3 of the cube
_WIDE = 128  # the released code puts a hidden layer this wide behind what is wider


class CubeMLP(nn.Module):
    r"""CubeMLP, which has no attention: it mixes a cube of frames, modalities and channels along one axis at a time.

    From [CubeMLP: An MLP-based Model for Multimodal Sentiment Analysis and Depression
    Estimation](https://arxiv.org/abs/2207.14087) (Sun et al., ACM MM 2022); read in its released code, the paper itself
    in its abstract only.

    $$
    X_t = W_t x_t, \qquad X_m = \mathrm{relu}(\mathrm{LN}(\overrightarrow{\mathrm{GRU}}(x_m) +
    \overleftarrow{\mathrm{GRU}}(x_m))), \qquad
    X = [X_t, X_a, X_v] \in \mathbb{R}^{L \times M \times D}
    $$
    $$
    X \leftarrow P_s X + \mathrm{MLP}_s(\mathrm{LN}(X)) \text{ for the axes } s = L, M, D \text{ in turn}, \qquad
    \mathrm{MLP}_s(x) = W''_s \, \mathrm{gelu}(W'_s x + b'_s) + b''_s
    $$

    - $X$: ``[B, L, M, D]``. Norm, MLP and $P_s$ act on axis s, and share their weights over the other two.
    - $P_s$: the residual path, a linear map without bias. It and the MLP bring axis s to the block's size.
    - The prediction is read from all entries behind the last block (``pool="flatten"``, the paper), through a hidden
      layer of 128 where there are more than 128 of them.

    **Length.** The sequence axis has weights for each step, so its length is fixed. The released code fills it up with
    zeros, which the MLPs then read: its output depends on the padding, and what is longer does not fit. Here the
    real frames of each modality are resampled to L steps by adaptive average pooling, see
    :func:`equipoise.layers.aligned`: a longer stream is averaged in windows, a shorter one repeats its frames.

    Modalities: any number M. A model of one has no modality axis to mix. A modality that a sample lacks is a slice of
    zeros. ``Output.features`` are the means of the slices over their steps.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        steps: L of the cube, and behind each block (released command for MOSI).
        channels: D of the cube, and behind each block; as many as ``steps``.
        axes: those that are mixed, of ``"sequence"``, ``"modality"`` and ``"channel"``. One left out, for an ablation,
            keeps its size.
        pool: ``"flatten"``, or ``"mean"`` over the steps that are left (released command for MOSI).
        dropout: on each slice of the cube, on each MLP's output and in the head, while training.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: an unknown axis or pool, or sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        steps: Several[int] = (100, 50, 10),
        channels: Several[int] = (128, 128, 32),
        axes: Several[str] = _AXES,
        pool: str = "flatten",
        dropout: float = 0.1,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        _check(list(steps), list(channels), list(axes), pool)
        self.dims = checked_dims(dict(dims), text_encoder)
        self.steps = steps[0]
        self.channels = channels[0]
        self.pool = pool
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        self.encoders = nn.ModuleDict(
            {name: _Slice(dim, channels[0], steps[0], dropout, text=name == "text") for name, dim in self.dims.items()}
        )
        count = len(self.dims)
        mixed = {axis for axis in axes if axis != "modality" or count > 1}
        lengths = list(steps) if "sequence" in mixed else [steps[0]] * len(steps)
        widths = list(channels) if "channel" in mixed else [channels[0]] * len(channels)
        units: list[nn.Module] = []
        for before, behind in pairwise(zip(lengths, [count] * len(lengths), widths, strict=True)):
            units += [
                _Mix(axis, size, out, dropout)
                for axis, (name, size, out) in enumerate(zip(_AXES, before, behind, strict=True), start=1)
                if name in mixed
            ]
        self.units = nn.Sequential(*units)
        entries = count * widths[-1] * (lengths[-1] if pool == "flatten" else 1)
        hidden = [nn.Linear(entries, _WIDE), nn.ReLU(), nn.Dropout(dropout)] if entries > _WIDE else []
        self.head = nn.Sequential(*hidden, nn.Linear(_WIDE if hidden else entries, outputs))

    def encode(self, batch: Batch) -> dict[str, Tensor]:
        """``{m: X_m [B, L, D]}`` for the modalities that the batch holds; the others are absent."""
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        return {name: self.encoders[name](sequence) for name, sequence in found.items()}

    def fuse(self, encoded: Mapping[str, Tensor]) -> Output:
        """Slices of any of the modalities to a prediction; an absent one counts as zeros."""
        some = next(iter(encoded.values()))
        slices = {name: encoded[name] if name in encoded else torch.zeros_like(some) for name in self.dims}
        cube = self.units(torch.stack(list(slices.values()), dim=2))
        read = cube if self.pool == "flatten" else cube.mean(dim=1)
        features = {name: part.mean(dim=1) for name, part in slices.items()}
        return Output(squeezed(self.head(read.flatten(1))), None, features)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's encoder, text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)


class _Slice(nn.Module):
    """One modality's slice of the cube, ``[B, L, D]``; zeros for a sample without real frames."""

    def __init__(self, dim: int, channels: int, steps: int, dropout: float, *, text: bool) -> None:
        super().__init__()
        self.steps = steps
        self.linear = nn.Linear(dim, channels, bias=False) if text else None
        self.gru = None if text else nn.GRU(dim, channels, 2, batch_first=True, bidirectional=True)
        self.norm = None if text else nn.LayerNorm(channels, eps=1e-6)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Sequence) -> Tensor:
        if self.linear is not None:
            values: Tensor = self.linear(x.cleared().values)
        else:
            assert self.gru is not None
            assert self.norm is not None
            values = self.norm(sum(run_packed(self.gru, x).values.chunk(2, dim=-1))).relu()
        everywhere = x.mask.new_ones(len(x.mask), self.steps)
        resampled, _ = aligned(Sequence(self.drop(values), x.mask).cleared(), everywhere)
        return resampled


class _Mix(nn.Module):
    """Norm and MLP along one axis of ``[B, L, M, D]`` beside a linear path."""

    def __init__(self, axis: int, size: int, out: int, dropout: float) -> None:
        super().__init__()
        self.axis = axis
        self.norm = nn.LayerNorm(size, eps=1e-6)
        self.up = nn.Linear(size, out)
        self.down = nn.Linear(out, out)
        self.project = nn.Linear(size, out, bias=False)
        self.drop = nn.Dropout(dropout)

    def forward(self, cube: Tensor) -> Tensor:
        x = cube.transpose(self.axis, -1)
        mixed: Tensor = self.down(nn.functional.gelu(self.up(self.norm(x))))
        mixed = self.project(x) + self.drop(mixed)
        return mixed.transpose(self.axis, -1)


def _check(steps: list[int], channels: list[int], axes: list[str], pool: str) -> None:
    if len(steps) != len(channels) or len(steps) < 2:
        raise ValueError(
            "Parameters `steps` and `channels` should be equally long, with two entries at least: the cube's size and "
            f"that behind each block. Found `steps = {steps}`, `channels = {channels}`."
        )
    if min(steps + channels) < 1:
        raise ValueError(
            f"Parameters `steps` and `channels` should be positive. Found `steps = {steps}`, `channels = {channels}`."
        )
    if not axes or set(axes) - set(_AXES):
        raise ValueError(f"Parameter `axes` should hold some of {', '.join(_AXES)}. Found `axes = {axes}`.")
    if pool not in ("flatten", "mean"):
        raise ValueError(f'Parameter `pool` should be "flatten" or "mean". Found `pool = {pool!r}`.')
