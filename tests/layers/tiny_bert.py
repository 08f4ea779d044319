"""A BERT of two small layers with a tokenizer, saved as Transformers saves any model."""

from __future__ import annotations

from pathlib import Path

import torch

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "not", "##s", "very"]


def save_tiny_bert(folder: Path) -> Path:
    from transformers import BertConfig, BertModel, BertTokenizer

    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=24,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    vocab = {word: i for i, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocab, model_max_length=24).save_pretrained(folder)
    return folder
