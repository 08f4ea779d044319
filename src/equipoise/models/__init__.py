"""Published models, one a file: ``encode(batch)``, ``fuse(encoded)``, ``modalities(stage)``."""

from equipoise.models.ags_smoe import AGSSMoE
from equipoise.models.late_fusion import LateFusion
from equipoise.models.output import Output

MODELS: dict[str, type[LateFusion] | type[AGSSMoE]] = {
    "LateFusion": LateFusion,
    "AGSSMoE": AGSSMoE,
}

__all__ = ["MODELS", "AGSSMoE", "LateFusion", "Output"]
