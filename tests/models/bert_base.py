from __future__ import annotations

from torch import nn


class BertBase(nn.Module):
    """BERT-base without trained weights, to count parameters by; ``pooled`` keeps its pooling head."""

    def __init__(self, *, pooled: bool = False) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.dim = 768
        self.model = BertModel(BertConfig(), add_pooling_layer=pooled)
