"""The contract between a training loop and a balancing method."""

from equipoise.core.balancer import Balancer
from equipoise.core.batch import Batch
from equipoise.core.chain import Chain
from equipoise.core.modalities import Modalities
from equipoise.core.predict import SubsetPredict
from equipoise.core.scaling import ApplyTo, FactorScaling
from equipoise.core.step import Step
from equipoise.core.window import EpochWindow

__all__ = [
    "ApplyTo",
    "Balancer",
    "Batch",
    "Chain",
    "EpochWindow",
    "FactorScaling",
    "Modalities",
    "Step",
    "SubsetPredict",
]
