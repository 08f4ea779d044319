from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from equipoise.layers import TextEncoder
from equipoise.layers.packed_tokens import pack_tokens

LENGTHS = [9, 3, 1, 5, 0, 2, 7, 4]


def _texts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    mask = torch.arange(9) < torch.tensor(LENGTHS).unsqueeze(1)
    mask[0, 2] = False  # a word that was dropped leaves the places of the others
    return torch.randint(5, 12, (8, 9), generator=generator) * mask, mask


def _saved(folder: Path, kind: str) -> Path:
    from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

    sizes: Any = {
        "vocab_size": 12,
        "hidden_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 24,
    }
    torch.manual_seed(0)
    model: Any = BertModel(BertConfig(**sizes)) if kind == "bert" else RobertaModel(RobertaConfig(**sizes))
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("capacity", [1, 10, 12, 64])
def test_every_token_has_one_place_and_sees_its_own_text(capacity: int) -> None:
    tokens, mask = _texts()
    packed = pack_tokens(tokens, mask, capacity=capacity)
    assert packed is not None
    assert packed.tokens.shape[1] == max(9 - 1, min(capacity, int(mask.sum())))
    places = list(zip(*(x.tolist() for x in packed.place), strict=True))
    assert len(set(places)) == int(mask.sum()) == len(places)
    owners = dict(zip(places, packed.source[0].tolist(), strict=True))
    for (row, column), sample, step in zip(places, *(x.tolist() for x in packed.source), strict=True):
        assert packed.tokens[row, column] == tokens[sample, step]
        assert packed.positions[row, column] == step
        seen = packed.allowed[row, 0, column].nonzero().flatten().tolist()
        assert {owners[row, other] for other in seen} == {sample}
        assert len(seen) == int(mask[sample].sum())


def test_full_texts_are_left_as_they_are() -> None:
    assert pack_tokens(torch.ones(4, 6, dtype=torch.long), torch.ones(4, 6, dtype=torch.bool)) is None


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_vectors_and_gradients_are_those_of_each_text_alone(tmp_path: Path, kind: str) -> None:
    encoder = TextEncoder(_saved(tmp_path, kind)).double().eval()
    tokens, mask = _texts()
    weights = torch.randn(8, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = encoder.last_layers(tokens, mask, 2)
    torch.autograd.backward((together[0] * weights).sum() + (together[1] * weights).square().sum())
    gradients = {name: p.grad for name, p in encoder.named_parameters()}
    encoder.zero_grad()
    for row in range(8):
        steps = max(int(mask[row].nonzero().max()) + 1 if mask[row].any() else 1, 1)
        text = tokens[row : row + 1, :steps], mask[row : row + 1, :steps]
        assert not row or pack_tokens(*text) is None or not mask[row].any()
        alone = encoder.last_layers(*text, 2)
        for one, many in zip(alone, together, strict=True):
            torch.testing.assert_close(one[0], many[row, :steps], rtol=0, atol=1e-12)
        part = weights[row : row + 1, :steps]
        torch.autograd.backward((alone[0] * part).sum() + (alone[1] * part).square().sum())
    for name, parameter in encoder.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-9, atol=1e-12, msg=name)


def test_packing_is_what_a_batch_of_unequal_texts_goes_through(tmp_path: Path) -> None:
    encoder = TextEncoder(_saved(tmp_path, "bert")).eval()
    shapes: list[Any] = []
    encoder.model.embeddings.register_forward_hook(lambda _module, _inputs, out: shapes.append(tuple(out.shape[:2])))
    tokens, mask = _texts()
    encoder(tokens, mask)
    encoder(tokens[:1, :2], mask[:1, :2])
    assert shapes == [(1, 31), (1, 2)]  # 30 tokens, and one for the text that is missing
