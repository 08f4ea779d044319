"""The models at sizes that tests can afford, and batches with unequal lengths and missing modalities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from tests.layers.tiny_resnet import tiny_resnet
from torch import Tensor, nn

from equipoise.core import Batch
from equipoise.models import (
    BBFN,
    BIMHA,
    CMIB,
    CPSL,
    ICCN,
    LMF,
    MAGBERT,
    MFM,
    MFN,
    MISA,
    MMIM,
    PSP,
    TBJE,
    TETFN,
    TFN,
    AGSSMoE,
    CubeMLP,
    EarlyFusion,
    FiLM,
    GLoMo,
    LateFusion,
    MMAFNet,
    MulT,
    SelfMM,
)

DIMS = {"text": 6, "audio": 3, "vision": 4}
LENGTHS = {"text": (5, 2, 4, 1), "audio": (7, 3, 1, 6), "vision": (2, 6, 3, 4)}

Build = Callable[..., Any]  # keyword arguments to any model: its kind differs from test to test


def _late(**fixed: Any) -> Build:
    return lambda **given: LateFusion(**{"dims": DIMS, "hidden": 8, "heads": 2, **fixed, **given})


def _images(build: Build) -> Build:
    """Audio and vision as images, read by small residual networks."""
    shapes = {"audio": (3, 1, 1), "vision": (1, 2, 2)}

    def built(**given: Any) -> Any:
        read = {name: shape for name, shape in shapes.items() if name in given.get("dims", DIMS)}
        kinds = {name: "resnet18" if name in read else "mean" for name in given.get("dims", DIMS)}
        weights = {name: tiny_resnet(channels) for name, (channels, _, _) in read.items()}
        return build(**{"encoder": kinds, "image_shape": read, "image_weights": weights, **given})

    return built


def _early(**fixed: Any) -> Build:
    return lambda **given: EarlyFusion(**{"dims": DIMS, "hidden": 8, "heads": 2, **fixed, **given})


def _film(**fixed: Any) -> Build:
    return lambda **given: FiLM(**{"dims": DIMS, "hidden": 8, "heads": 2, **fixed, **given})


def _psp(**fixed: Any) -> Build:
    return lambda **given: PSP(**{"dims": DIMS, "hidden": 4, "classifier_hidden": 8, **fixed, **given})


def _maps(build: Build) -> Build:
    """Segments of vision as maps of two positions."""
    return lambda **given: build(**{"maps": {"vision": 2} if "vision" in given.get("dims", DIMS) else {}, **given})


def _tbje(**fixed: Any) -> Build:
    small = {"dims": DIMS, "hidden": 8, "heads": 2, "layers": 2, "feed_forward": 8, "glimpses": 9}
    return lambda **given: TBJE(**{**small, **fixed, **given})


def _ags(**fixed: Any) -> Build:
    return lambda **given: AGSSMoE(**{"dims": DIMS, "hidden": 8, "heads": 2, "layers": 2, **fixed, **given})


def _mmafnet(**fixed: Any) -> Build:
    return lambda **given: MMAFNet(**{"dims": DIMS, "hidden": 8, "heads": 2, **fixed, **given})


def _tfn(**fixed: Any) -> Build:
    return lambda **given: TFN(**{"dims": DIMS, "hidden": 8, "text_hidden": 8, "fusion_hidden": 8, **fixed, **given})


def _magbert(**fixed: Any) -> Build:
    return lambda **given: MAGBERT(**{"dims": DIMS, "hidden": 8, "heads": 2, "layers": 1, **fixed, **given})


def _glomo(**fixed: Any) -> Build:
    small = {"dims": DIMS, "hidden": 8, "heads": 2, "layers": 1, "feed_forward": 16}
    return lambda **given: GLoMo(**{**small, **fixed, **given})


def _cpsl(**fixed: Any) -> Build:
    return lambda **given: CPSL(**{"dims": DIMS, "hidden": 8, "heads": 2, **fixed, **given})


def _lmf(**fixed: Any) -> Build:
    return lambda **given: LMF(**{"dims": DIMS, "hidden": 8, "text_hidden": 8, "text_out": 4, **fixed, **given})


def _mult(**fixed: Any) -> Build:
    return lambda **given: MulT(**{"dims": DIMS, "hidden": 8, "heads": 2, "layers": 1, **fixed, **given})


def _misa(**fixed: Any) -> Build:
    return lambda **given: MISA(**{"dims": DIMS, "hidden": 8, "feed_forward": 16, **fixed, **given})


def _mfn(**fixed: Any) -> Build:
    small = {"memory": 5, "attention_hidden": 7, "proposal_hidden": 6, "retain_hidden": 8, "update_hidden": 6}
    return lambda **given: MFN(**{"dims": DIMS, "hidden": 4, **small, "output_hidden": 8, **fixed, **given})


def _cubemlp(**fixed: Any) -> Build:
    return lambda **given: CubeMLP(**{"dims": DIMS, "steps": [5, 4], "channels": [8, 6], **fixed, **given})


def _mmim(**fixed: Any) -> Build:
    return lambda **given: MMIM(**{"dims": DIMS, "hidden": 8, "text_hidden": 8, "fusion_hidden": 8, **fixed, **given})


def _mfm(**fixed: Any) -> Build:
    small = {"hidden": 4, "memory": 5, "network_hidden": 8, "latent": 4, "factor": 6, "shared_latent": 6}
    return lambda **given: MFM(**{"dims": DIMS, **small, "shared_factor": 8, **fixed, **given})


def _bbfn(**fixed: Any) -> Build:
    return lambda **given: BBFN(**{"dims": DIMS, "hidden": 8, "heads": 2, "layers": 2, **fixed, **given})


def _selfmm(**fixed: Any) -> Build:
    small = {"dims": DIMS, "hidden": 6, "width": 5, "head_hidden": 7, "fusion_hidden": 8}
    return lambda **given: SelfMM(**{**small, **fixed, **given})


def _cmib(**fixed: Any) -> Build:
    small = {"dims": DIMS, "hidden": 8, "heads": 2, "layers": 1, "bottleneck": 16}
    return lambda **given: CMIB(**{**small, **fixed, **given})


def _iccn(**fixed: Any) -> Build:
    small = {"hidden": 6, "text_hidden": 8, "channels": 4, "interaction": 2}
    return lambda **given: ICCN(**{"dims": DIMS, **small, **fixed, **given})


def _bimha(**fixed: Any) -> Build:
    return lambda **given: BIMHA(**{"dims": DIMS, "hidden": 4, "pair_hidden": 8, "heads": 2, **fixed, **given})


def _tetfn(**fixed: Any) -> Build:
    small = {"dims": DIMS, "hidden": 8, "heads": 2, "layers": 1, "lstm": 4, "fusion_hidden": 8, "head_hidden": 4}
    return lambda **given: TETFN(**{**small, **fixed, **given})


BUILDS: dict[str, Build] = {
    "late-gru": _late(),
    "late-transformer": _late(encoder="transformer"),
    "late-mean": _late(encoder="mean", layers=2),
    "late-pool": _late(encoder="pool"),
    "late-of-means": _late(combine="mean"),
    "late-mlp": _late(head="mlp"),
    "late-mlp-probe": _late(head="mlp", probe=True),
    "late-images": _images(_late()),
    "early": _early(),
    "early-pool": _early(encoder="pool", maxout=(8, 8), pieces=3),
    "early-images": _images(_early()),
    "film": _film(),
    "film-pool-not-residual": _film(encoder="pool", residual=False),
    "film-images": _images(_film()),
    "psp": _psp(),
    "psp-maps": _maps(_psp()),
    "psp-all-pairs-plain-mean": _psp(threshold=0, weighted=False, lambda_pair=100),
    "tbje": _tbje(),
    "tbje-few-glimpses": _tbje(glimpses=2, layers=3),
    "ags": _ags(),
    "ags-plain": _ags(recurrent=False),
    "ags-no-moe": _ags(ta_moe=False, tv_moe=False),
    "magbert": _magbert(),
    "magbert-small-beta": _magbert(beta=0.1),
    "glomo": _glomo(),
    "glomo-logsumexp-local-guide": _glomo(combine="logsumexp", guide="local"),
    "glomo-global": _glomo(representations="global", guide="mlp"),
    "glomo-local": _glomo(representations="local", guide="attention", top_k=3),
    "glomo-no-moe-concat": _glomo(moe=False, fusion="concat"),
    "glomo-attention": _glomo(fusion="attention"),
    "glomo-multiply": _glomo(fusion="multiply"),
    "mmafnet": _mmafnet(),
    "mmafnet-concat": _mmafnet(adaptive=False),
    "cpsl": _cpsl(),
    "cpsl-plain": _cpsl(sampled=False, gated=False, lambda_recon=0, lambda_uni=0, lambda_div=0),
    "tfn": _tfn(),
    "tfn-no-trimodal": _tfn(orders=[1, 2]),
    "lmf": _lmf(),
    "lmf-weighted": _lmf(weighted=True, rank=1),
    "mult": _mult(),
    "self-mm": _selfmm(),
    "bbfn": _bbfn(),
    "bbfn-gates-alone": _bbfn(lambda_sep=0, layers=1),
    "bbfn-separator-alone": _bbfn(gated=False, pool="mean"),
    "mmim": _mmim(),
    "mmim-all-pairs": _mmim(all_pairs=True, memory=2),
    "mmim-task-alone": _mmim(alpha=0, beta=0),
    "misa": _misa(),
    "misa-adversarial": _misa(adversarial=True, recurrent_text=True),
    "misa-plain": _misa(lambda_sim=0, lambda_diff=0, lambda_recon=0),
    "mult-mean": _mult(pool="mean", kernel=1, self_layers=1),
    "mfn": _mfn(),
    "mfn-few-steps": _mfn(hidden={"text": 5, "audio": 3, "vision": 4}, steps=3),
    "mfn-no-delta": _mfn(delta=False),
    "cubemlp": _cubemlp(),
    "cubemlp-mean": _cubemlp(steps=[3, 3, 2], channels=[8, 8, 4], pool="mean"),
    "cubemlp-no-sequence": _cubemlp(axes=["modality", "channel"]),
    "mfm": _mfm(),
    "mfm-shared-alone": _mfm(specific=False),
    "mfm-discriminative": _mfm(lambda_recon=0.0),
    "cmib": _cmib(),
    "cmib-early": _cmib(variant="early"),
    "cmib-late-mean": _cmib(variant="late", pool="mean"),
    "iccn": _iccn(),
    "iccn-uncorrelated": _iccn(lambda_cca=0.0, kernel=1),
    "bimha": _bimha(),
    "bimha-no-attention": _bimha(attention=False),
    "tetfn": _tetfn(),
    "tetfn-no-text-enhanced": _tetfn(text_enhanced=False),
}


def make_batch(
    lengths: Mapping[str, tuple[int, ...]] = LENGTHS,
    dims: Mapping[str, int] = DIMS,
    *,
    pad: int = 0,
    rubbish: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> Batch:
    """Random real frames, the same for any padding, with ``rubbish`` in the ``pad`` and more frames behind them."""
    generator = torch.Generator().manual_seed(3)
    inputs: dict[str, Tensor] = {}
    masks: dict[str, Tensor] = {}
    for name, dim in dims.items():
        steps = max(*lengths[name], 1)
        frames = torch.randn(len(lengths[name]), steps, dim, generator=generator, dtype=torch.float64).to(dtype)
        mask = torch.arange(steps + pad) < torch.tensor(lengths[name]).unsqueeze(1)
        frames = torch.cat([frames, frames.new_zeros(len(frames), pad, dim)], dim=1)
        inputs[name] = frames.masked_fill(~mask.unsqueeze(-1), rubbish)
        masks[name] = mask
    rows = len(next(iter(inputs.values())))
    return Batch(inputs, masks, torch.zeros(rows, dtype=dtype), torch.arange(rows))


def rows(batch: Batch, kept: list[int]) -> Batch:
    return Batch(
        {name: x[kept] for name, x in batch.inputs.items()},
        {name: mask[kept] for name, mask in batch.masks.items()},
        batch.target[kept],
        batch.index[kept],
    )


def emptied(batch: Batch, names: Iterable[str], kept: Iterable[int] = ()) -> Batch:
    """The batch with no real frame of these modalities, but in the kept rows."""
    spared = torch.zeros(len(batch), 1, dtype=torch.bool)
    spared[list(kept)] = True
    return replace(batch, masks={n: mask & spared if n in set(names) else mask for n, mask in batch.masks.items()})


class Lookup(nn.Module):
    """The smallest text encoder: a table, and zeros as padding."""

    def __init__(self, dim: int = 5) -> None:
        super().__init__()
        self.dim = dim
        self.table = nn.Embedding(11, dim)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        vectors: Tensor = self.table(tokens)
        return vectors.masked_fill(~mask.unsqueeze(-1), 0)


def with_tokens(batch: Batch) -> Batch:
    steps = batch.masks["text"].shape[1]
    ids = torch.arange(steps).add(1).expand(len(batch), -1) % 11
    return replace(batch, inputs={**batch.inputs, "text": ids * batch.masks["text"]})
