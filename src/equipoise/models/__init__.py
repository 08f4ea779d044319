"""Published models, one a file: ``encode(batch)``, ``fuse(encoded)``, ``modalities(stage)``."""

from torch import nn

from equipoise.models.ags_smoe import AGSSMoE
from equipoise.models.cpsl import CPSL
from equipoise.models.glomo import GLoMo
from equipoise.models.late_fusion import LateFusion
from equipoise.models.lmf import LMF
from equipoise.models.magbert import MAGBERT
from equipoise.models.mfn import MFN
from equipoise.models.misa import MISA
from equipoise.models.mmafnet import MMAFNet
from equipoise.models.mult import MulT
from equipoise.models.output import Output
from equipoise.models.tfn import TFN

MODELS: dict[str, type[nn.Module]] = {
    "LateFusion": LateFusion,
    "AGSSMoE": AGSSMoE,
    "GLoMo": GLoMo,
    "MAGBERT": MAGBERT,
    "MMAFNet": MMAFNet,
    "CPSL": CPSL,
    "TFN": TFN,
    "LMF": LMF,
    "MulT": MulT,
    "MISA": MISA,
    "MFN": MFN,
}

__all__ = [
    "MISA",
    "MODELS",
    "MFN",
    "AGSSMoE",
    "CPSL",
    "GLoMo",
    "LMF",
    "MAGBERT",
    "LateFusion",
    "MMAFNet",
    "MulT",
    "Output",
    "TFN",
]
