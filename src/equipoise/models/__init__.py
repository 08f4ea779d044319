"""Published models, one a file: ``encode(batch)``, ``fuse(encoded)``, ``modalities(stage)``."""

from torch import nn

from equipoise.models._arguments import keep_arguments
from equipoise.models.ags_smoe import AGSSMoE
from equipoise.models.bbfn import BBFN
from equipoise.models.bimha import BIMHA
from equipoise.models.cmib import CMIB
from equipoise.models.cpsl import CPSL
from equipoise.models.cubemlp import CubeMLP
from equipoise.models.early_fusion import EarlyFusion
from equipoise.models.film import FiLM
from equipoise.models.glomo import GLoMo
from equipoise.models.iccn import ICCN
from equipoise.models.late_fusion import LateFusion
from equipoise.models.lmf import LMF
from equipoise.models.magbert import MAGBERT
from equipoise.models.mfm import MFM
from equipoise.models.mfn import MFN
from equipoise.models.misa import MISA
from equipoise.models.mmafnet import MMAFNet
from equipoise.models.mmim import MMIM
from equipoise.models.mult import MulT
from equipoise.models.output import Output
from equipoise.models.psp import PSP
from equipoise.models.self_mm import SelfMM
from equipoise.models.tbje import TBJE
from equipoise.models.tetfn import TETFN
from equipoise.models.tfn import TFN

MODELS: dict[str, type[nn.Module]] = {
    "LateFusion": LateFusion,
    "EarlyFusion": EarlyFusion,
    "FiLM": FiLM,
    "PSP": PSP,
    "TBJE": TBJE,
    "AGSSMoE": AGSSMoE,
    "GLoMo": GLoMo,
    "MAGBERT": MAGBERT,
    "MMAFNet": MMAFNet,
    "CPSL": CPSL,
    "TFN": TFN,
    "LMF": LMF,
    "MulT": MulT,
    "SelfMM": SelfMM,
    "MISA": MISA,
    "MMIM": MMIM,
    "BBFN": BBFN,
    "MFN": MFN,
    "CubeMLP": CubeMLP,
    "MFM": MFM,
    "CMIB": CMIB,
    "ICCN": ICCN,
    "BIMHA": BIMHA,
    "TETFN": TETFN,
}

for _kind in MODELS.values():
    keep_arguments(_kind)  # so that `save_pretrained` knows how to build a model again

__all__ = [
    "BBFN",
    "BIMHA",
    "CMIB",
    "CPSL",
    "ICCN",
    "LMF",
    "MAGBERT",
    "MFM",
    "MFN",
    "MISA",
    "MMIM",
    "MODELS",
    "PSP",
    "TBJE",
    "TETFN",
    "TFN",
    "AGSSMoE",
    "CubeMLP",
    "EarlyFusion",
    "FiLM",
    "GLoMo",
    "LateFusion",
    "MMAFNet",
    "MulT",
    "Output",
    "SelfMM",
]
