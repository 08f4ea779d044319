"""Balanced multimodal learning for PyTorch: the plug-in's public names."""

from equipoise.balancers import AGM, AGS, MSES, OGMGE
from equipoise.core import Balancer, Chain, Modalities, Step

__version__ = "0.1.0"

__all__ = ["AGM", "AGS", "MSES", "OGMGE", "Balancer", "Chain", "Modalities", "Step"]
