"""PSP: segments of one modality learn from the segments of another that they resemble."""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import cast

import torch
from torch import Tensor, nn

from equipoise.core import Batch, Modalities
from equipoise.layers import Sequence, aligned, masked_mean, run_packed
from equipoise.models._inputs import check_stage, checked_dims, make_normaliser, sequences, squeezed, with_text_encoder
from equipoise.models._psp import TINY, SegmentEncoder, checked_maps, drawn, unevenness
from equipoise.models.output import Output


class PSP(nn.Module):
    r"""Positive Sample Propagation: of all pairs of segments, those that resemble each other exchange what they know.

    From [Positive Sample Propagation along the Audio-Visual Event Line](https://arxiv.org/abs/2104.00239) (Zhou et al.,
    CVPR 2021), for one label a clip. We could read the abstract and the released code, which the equations follow.

    $$
    x_m = \mathrm{BiLSTM}_m(W'_m W_m s_m), \quad
    k_m = \mathrm{relu}(K_m x_m), \quad v_m = \mathrm{relu}(V_m x_m), \quad
    S_{mn} = \mathrm{relu}\Big(\frac{k_m k_n^\top}{\sqrt d}\Big)
    $$
    $$
    p_m = \mathrm{LN}\Big(\mathrm{relu}\big(F_m (x_m + \sum_{n \ne m} \mathrm{pruned}(S_{mn}) \, v_n)\big)\Big), \quad
    h = \operatorname{mean}_m p_m
    $$
    $$
    z_t = W_2 \mathrm{relu}(W_1 h_t), \quad
    \hat y = \operatorname{mean}_t \; \mathrm{sigmoid}(\mathrm{relu}(w z_t)) \, z_t
    $$

    - $s_m$: the segments of modality m, one a frame; audio and video of AVE have ten.
    - $S_{mn}$: how much each segment of m resembles each of n.
    - pruned: rows are divided by their sum; what is not above ``threshold`` times an equal share is dropped; the rest
      is divided by its sum.
    - $z_t$: the scores of a segment, ``Output.extra["scores"]`` ``[B, T, outputs]`` with their weights; the logits are
      the mean over the real ones, the weighting branch of the weakly supervised setting.
    - LN: one for all modalities. Dropout follows each ReLU but the classifier's. Linear layers carry no bias.

    The network is the released code's for labels of segments, its last stage that for labels of clips; the loss is
    training's own, where that code compares the softmax with the share of segments by binary cross-entropy.

    Any number of modalities: each adds what it finds in every other one. One alone exchanges nothing. Segments need not
    correspond to be compared; for the mean, a modality with fewer segments than another is brought to its steps in
    proportion (:func:`equipoise.layers.aligned`). What a sample lacks is left out of sums and means.

    Where a segment is a map of positions, as 7 x 7 of AVE's video, attention guided by the guide's $W'W s$ makes it a
    vector first: ``maps``. The guide is audio, or else the first modality without a map; positions come first in a
    flattened map, then channels. Such attention belongs to the encoder of the map, but runs in ``fuse``, since it
    needs both: methods that ask for subsets of modalities then run the LSTMs once a subset.

    For labels of segments the released code adds a loss on the cosine of $p_a$ and $p_v$ in each,

    $$\lambda \operatorname{mean}_t (g_t - q_t)^2, \qquad g = \frac{\mathrm{relu}(\cos)}{\sum_t \mathrm{relu}(\cos_t)}$$

    where $q$ spreads 1 evenly over the segments of the event; $\lambda = 100$. With labels of clips those segments are
    unknown. ``lambda_pair`` counts all of them, which says only that no segment should stand out.

    Args:
        dims: ``{m: d_m}``, any modalities; for token ids the width is the text encoder's, whatever stands here.
        outputs: number of targets or classes.
        hidden: width of each direction of the LSTMs; $d$ is twice it.
        classifier_hidden: width of $W_1$.
        threshold: in equal shares; 0.99 is the code's 0.099 for ten segments. 0 keeps every positive pair.
        dropout: while training.
        weighted: False for the plain mean over segments.
        lambda_pair: weight of the pair similarity loss.
        maps: ``{m: C}``, the modalities whose segments are maps of C channels, 512 for AVE's video.
        text_encoder: reads ``text`` as token ids, ``(tokens [B, T], mask [B, T]) -> [B, T, dim]``, such as
            :class:`equipoise.layers.TextEncoder`.

    Raises:
        ValueError: a negative threshold or weight, or what does not fit together.
    """

    def __init__(
        self,
        *,
        dims: Mapping[str, int],
        outputs: int = 1,
        hidden: int = 128,
        classifier_hidden: int = 64,
        threshold: float = 0.99,
        dropout: float = 0.1,
        weighted: bool = True,
        lambda_pair: float = 0.0,
        maps: Mapping[str, int] | None = None,
        text_encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("threshold", threshold), ("lambda_pair", lambda_pair)):
            if value < 0:
                raise ValueError(f"Parameter `{name}` should be non-negative. Found `{name} = {value}`.")
        self.dims = checked_dims(dict(dims), text_encoder)
        self.outputs = outputs
        self.threshold = threshold
        self.lambda_pair = lambda_pair
        self.text_encoder = text_encoder
        self.normaliser = make_normaliser(self.dims, text_encoder)
        width = 2 * hidden
        self.maps = checked_maps(maps or {}, self.dims)
        plain = [name for name in self.dims if name not in self.maps]
        self.guide = "audio" if "audio" in plain else next(iter(plain), None)
        guided = self.guide is not None
        self.encoders = nn.ModuleDict(
            {
                name: SegmentEncoder(dim, hidden, channels=self.maps.get(name), guided=guided)
                for name, dim in self.dims.items()
            }
        )
        alone = len(self.dims) == 1
        self.keys = nn.ModuleDict({} if alone else {name: drawn(width, width) for name in self.dims})
        self.values = nn.ModuleDict({} if alone else {name: drawn(width, width) for name in self.dims})
        self.outs = nn.ModuleDict({name: drawn(width, width) for name in self.dims})
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Sequential(drawn(width, classifier_hidden), nn.ReLU(), drawn(classifier_hidden, outputs))
        self.weight = nn.Linear(outputs, 1, bias=False) if weighted else None

    def encode(self, batch: Batch) -> dict[str, Sequence]:
        """``{m: x_m [B, T, d]}`` with masks, for the modalities that the batch holds; the others are absent.

        With ``maps`` it ends before the attention: a map as it is, others as their linear layers leave them.
        """
        found = sequences(batch, self.dims, self.normaliser, self.text_encoder)
        if not self.maps:
            return {name: self.encoders[name](x) for name, x in found.items()}
        return {name: x if name in self.maps else self._encoder(name).projected(x) for name, x in found.items()}

    def fuse(self, encoded: Mapping[str, Sequence]) -> Output:
        """Segments of any of the modalities to a prediction; an absent one counts as one that every sample lacks."""
        streams = self._streams(encoded)
        length = torch.stack([x.mask.sum(dim=1) for x in streams.values()]).amax(dim=0)
        longest = max(x.mask.shape[1] for x in streams.values())
        steps = torch.arange(longest, device=length.device) < length.unsqueeze(1)
        heard = {name: aligned(x, steps) for name, x in self._propagated(streams).items()}
        count = torch.stack([spoken for _, spoken in heard.values()]).sum(dim=0).unsqueeze(-1)
        fused = torch.stack([values for values, _ in heard.values()]).sum(dim=0) / count.clamp(min=1)
        scores = self.classifier(fused)
        if self.weight is not None:
            scores = scores * self.weight(scores).relu().sigmoid()
        extra = {"scores": scores.masked_fill(~steps.unsqueeze(-1), 0), "unevenness": unevenness(heard)}
        features = {name: masked_mean(x.values, x.mask) for name, x in streams.items()}
        return Output(squeezed(masked_mean(scores, steps)), None, features, extra)

    def forward(self, batch: Batch) -> Output:
        """``fuse(encode(batch))``."""
        return self.fuse(self.encode(batch))

    def losses(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """``{"pair": []}``, weighted, the mean over samples of two modalities or more; nothing for a weight of 0."""
        if not self.lambda_pair:
            return {}
        missing = batch.index.new_zeros(len(batch), dtype=torch.bool)
        present = [batch.masks[name].any(dim=1) if name in batch.masks else missing for name in self.dims]
        paired = torch.stack(present).sum(dim=0) > 1
        return {"pair": self.lambda_pair * output.extra["unevenness"].sum() / paired.sum().clamp(min=1)}

    def modalities(self, stage: str = "encoders") -> Modalities:
        """What is balanced: each modality's attention, linear layers and LSTM; text's with the text encoder."""
        check_stage(stage)
        return with_text_encoder({name: [self.encoders[name]] for name in self.dims}, self.text_encoder)

    def _encoder(self, name: str) -> SegmentEncoder:
        return cast(SegmentEncoder, self.encoders[name])

    def _streams(self, encoded: Mapping[str, Sequence]) -> dict[str, Sequence]:
        """What the LSTMs say, ``{m: [B, T, d]}``; of an absent modality one segment that is not real."""
        found = dict(encoded)
        if self.maps:
            guide = None if self.guide is None else encoded.get(self.guide)
            for name, x in encoded.items():
                encoder = self._encoder(name)
                found[name] = encoder(x, guide) if name in self.maps else run_packed(encoder.lstm, x)
        some = next(iter(found.values()))
        silent = Sequence(torch.zeros_like(some.values[:, :1]), torch.zeros_like(some.mask[:, :1]))
        return {name: found.get(name, silent) for name in self.dims}

    def _propagated(self, streams: Mapping[str, Sequence]) -> dict[str, Sequence]:
        keys = {name: self.drop(key(streams[name].values).relu()) for name, key in self.keys.items()}
        values = {name: self.drop(value(streams[name].values).relu()) for name, value in self.values.items()}
        propagated: dict[str, Sequence] = {}
        for name, x in streams.items():
            taken = x.values
            for other in (each for each in keys if each != name):
                weights = positive_pairs(keys[name], keys[other], streams[other].mask, self.threshold)
                taken = taken + weights @ values[other]
            out = self.norm(self.drop(self.outs[name](taken).relu()))
            propagated[name] = Sequence(out, x.mask).cleared()
        return propagated


def positive_pairs(queries: Tensor, keys: Tensor, mask: Tensor, threshold: float) -> Tensor:
    """Weights ``[B, T, S]`` of the segments that each segment resembles; rows sum to 1, or are zeros.

    Args:
        queries: ``[B, T, d]``
        keys: ``[B, S, d]``
        mask: ``[B, S]`` bool, the real ones among the keys
        threshold: what a weight must exceed to be kept, in equal shares (1 / number of real keys)

    >>> keys = torch.tensor([[[3.0], [1.0], [1.0], [-9.0]]])
    >>> positive_pairs(torch.tensor([[[1.0]]]), keys, torch.ones(1, 4, dtype=torch.bool), 0.99)
    tensor([[[1., 0., 0., 0.]]])
    """
    similar = (queries @ keys.transpose(1, 2) / sqrt(keys.shape[-1])).relu()
    similar = similar.masked_fill(~mask.unsqueeze(1), 0)
    shares = similar / (similar.sum(dim=-1, keepdim=True) + TINY)
    equal = 1 / mask.sum(dim=1).clamp(min=1).to(shares.dtype)
    kept = shares * (shares > threshold * equal[:, None, None])
    return kept / (kept.sum(dim=-1, keepdim=True) + TINY)
