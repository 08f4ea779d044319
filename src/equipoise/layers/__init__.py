"""Building blocks of models: sequences with masks, attention, mixtures of experts, encoders."""

from equipoise.layers.adaptation_gate import AdaptationGate, aligned
from equipoise.layers.attention import CrossAttention
from equipoise.layers.cross_moe import CrossMoELayer
from equipoise.layers.dropout import Dropout
from equipoise.layers.feed_forward import FeedForward
from equipoise.layers.mean import MeanEncoder
from equipoise.layers.normaliser import Normaliser
from equipoise.layers.recurrent import GRUEncoder, last_state, run_packed
from equipoise.layers.resnet import ResNetEncoder
from equipoise.layers.sequence import Sequence, masked_last, masked_mean
from equipoise.layers.sparse_moe import SparseMoE, cv_squared, importance, selection_probability
from equipoise.layers.text import TextEncoder
from equipoise.layers.text_files import find_text_model, weights_sha256
from equipoise.layers.transformer import TransformerEncoder, positions
from equipoise.layers.vector_moe import Routed, VectorMoE
from equipoise.layers.windows import masked_max, windows

__all__ = [
    "AdaptationGate",
    "CrossAttention",
    "Dropout",
    "CrossMoELayer",
    "FeedForward",
    "GRUEncoder",
    "MeanEncoder",
    "Normaliser",
    "ResNetEncoder",
    "Routed",
    "Sequence",
    "SparseMoE",
    "TextEncoder",
    "TransformerEncoder",
    "VectorMoE",
    "aligned",
    "cv_squared",
    "find_text_model",
    "importance",
    "last_state",
    "masked_max",
    "masked_last",
    "masked_mean",
    "positions",
    "run_packed",
    "selection_probability",
    "weights_sha256",
    "windows",
]
